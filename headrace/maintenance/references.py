"""Which objects of the cache and the remote are referenced: by which revisions, and with which sizes.

References come from git (`dvc.lock` and `.dvc` files of every given revision), from the workspace's manifests, and from
the journals of unfinished runs. Directory objects and manifests are hashed before they are trusted.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path

from headrace.maintenance.added_objects import (
    STAGES_FILE,
    AddedObjects,
    AddedObjectsIndex,
    Outs,
    commit_outs,
    compare_outs,
    outs_kept_in_git,
    workspace_outs,
)
from headrace.maintenance.stored_objects import parse_directory, read_directories
from headrace.runs.worktree import list_worktrees
from headrace.storage import git
from headrace.storage.files import parse_yaml
from headrace.storage.manifest import Manifest
from headrace.storage.manifest_entries import StoredFile
from headrace.storage.partition_entry import PartitionEntry, decode_entry
from headrace.storage.pruned_releases import read_all_pruned
from headrace.storage.table_store import TableStore

WORKSPACE = "the workspace"
"""Stands for the workspace where a revision is expected."""

OUTPUT_RECORDS = ("dvc.lock", "data")
"""Where a revision records its outputs: `dvc.lock`, and `.dvc` files below `data/`."""


@dataclass(frozen=True)
class ObjectReference:
    """A revision (or the workspace) and the path under which it has an object.

    Attributes:
        revision: Its name, for people: a release, `HEAD`, what a run has made.
        path: The path.
        commit: The commit of the revision; empty for the workspace.
    """

    revision: str
    path: str
    commit: str = ""


@dataclass(frozen=True)
class ReferencedObjects:
    """Every referenced object.

    Attributes:
        revisions: Name → commit of what references them, besides the workspace.
        sizes: md5 of every object → bytes; None if nothing records its size.
        sha256s: md5 → second hash, of the objects of which a manifest records it.
        released: Objects that a revision references, not only the workspace: the remote must have them.
        unreadable: Directory objects that neither cache nor remote has intact, so that what they list is unknown.
    """

    revisions: Mapping[str, str]
    sizes: dict[str, int | None] = field(default_factory=dict)
    sha256s: dict[str, str] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)
    unreadable: set[str] = field(default_factory=set)

    @classmethod
    def collect(cls, table_store: TableStore, revisions: Mapping[str, str]) -> "ReferencedObjects":
        """What `revisions` (name → commit) and the workspace with its journals reference."""
        collected = cls(revisions)
        index, commits = AddedObjectsIndex.of(table_store), commits_by_time(table_store.root, revisions.values())
        for before, commit in pairwise(["", *commits]):
            collected._add(index.added(before, commit))
        collected.released.update(collected.sizes)
        last = commit_outs(table_store, commits[-1]) if commits else {}
        collected._add(compare_outs(table_store.cache, last, collected._own_outs(table_store)))
        for manifest in read_workspace_manifests(table_store):
            collected._add_files(manifest.entries.files)
        for entry in read_journals(table_store):
            collected._add_files(entry.files)
        return collected

    def _own_outs(self, table_store: TableStore) -> Outs:
        """What the files of the workspace record, less what a revision does."""
        outs = workspace_outs(table_store)
        return {path: out for path, out in outs.items() if str(out.get("md5")) not in self.released}

    def _add(self, added: AddedObjects) -> None:
        self.unreadable.update(added.unreadable)
        for md5, item in added.objects.items():
            if item.size is not None or md5 not in self.sizes:
                self.sizes[md5] = item.size
            if item.sha256:
                self.sha256s[md5] = item.sha256.hex()

    def _add_files(self, files: Iterable[StoredFile | PartitionEntry]) -> None:
        for file in files:
            self.sizes[file.md5] = file.size
            if file.sha256:
                self.sha256s[file.md5] = file.sha256

    def locate(self, table_store: TableStore, md5s: Iterable[str]) -> dict[str, list[ObjectReference]]:
        """Where each of these objects is referenced.

        Reads every directory object: keeping the references of every object would need memory for each partition of
        each release, and only damaged objects need them.
        """
        outs = _collect_outs(table_store, self.revisions)
        located: dict[str, list[ObjectReference]] = {md5: list(outs.get(md5, ())) for md5 in md5s}
        for directory_md5, content in read_directories(table_store.cache, outs):
            for path, md5 in parse_directory(content).items() if content else ():
                if md5 in located:
                    located[md5] += [
                        ObjectReference(reference.revision, f"{reference.path}/{path}", reference.commit)
                        for reference in outs[directory_md5]
                    ]
        for manifest in read_workspace_manifests(table_store):
            chunks = {chunk.reference.path: chunk.reference.md5 for chunk in manifest.entries.chunks}
            for name, md5 in {**manifest.files, **chunks}.items():
                reference = ObjectReference(WORKSPACE, f"data/{manifest.table}/{name}")
                if md5 in located and reference not in located[md5]:
                    located[md5].append(reference)
        return located


def tagged_revisions(table_store: TableStore) -> dict[str, str]:
    """Every fetched tag, newest first, less those of pruned releases, and HEAD: name → commit."""
    tags = without_pruned(table_store.root, git.refs(table_store.root, "refs/tags"))
    return {name.removeprefix("refs/tags/"): commit for name, commit in tags.items()} | {
        "HEAD": git.head(table_store.root)
    }


def without_pruned(root: Path, refs: Mapping[str, str]) -> dict[str, str]:
    """Refs less the tags of releases that were pruned, which a clone may still have."""
    pruned = {f"refs/tags/{release}" for release in read_all_pruned(root)}
    return {name: commit for name, commit in refs.items() if name not in pruned}


def forget_other_commits(table_store: TableStore, revisions: Mapping[str, str]) -> None:
    """Remove what is remembered of commits that are not among `revisions`."""
    commits = {"all", *revisions.values()}
    records = AddedObjectsIndex.of(table_store).records
    records.retain([key for key in records.list_keys() if commits.issuperset(key.split("-"))])


def commits_by_time(root: Path, commits: Iterable[str]) -> list[str]:
    """Each commit once, oldest first: neighbors share most of their objects, and a new commit comes last."""
    wanted = set(commits)
    if not wanted:
        return []
    given = "".join(f"{commit}\n" for commit in sorted(wanted))
    lines = git.git(root, "log", "--no-walk", "--format=%ct %H", "--stdin", given=given).splitlines()
    times = {commit: int(time) for time, commit in (line.split(" ") for line in lines)}
    return sorted(wanted, key=lambda commit: (times[commit], commit))


def workspace_roots(table_store: TableStore) -> list[Path]:
    """The workspace, and the worktrees of its runs."""
    return [table_store.root, *list_worktrees(table_store.root).values()]


def read_workspace_manifests(table_store: TableStore) -> Iterator[Manifest]:
    """The manifest of every table in the workspace and in the worktrees of its runs, of all datasets."""
    for root in workspace_roots(table_store):
        here = TableStore.at(root)
        for table in here.tables("*"):
            if manifest := here.visible_manifest(table):
                yield manifest


def read_journals(table_store: TableStore) -> Iterator[PartitionEntry]:
    """Entries that unfinished runs have computed and not yet published in a manifest."""
    for root in workspace_roots(table_store):
        for path in sorted((root / ".headrace" / "journal").glob("*.jsonl")):
            yield from parse_journal(path.read_bytes())


def parse_journal(content: bytes) -> Iterator[PartitionEntry]:
    """Entries of one journal. A crash can truncate the last line, which is skipped."""
    for line in content.splitlines():
        with suppress(ValueError):
            yield decode_entry(line)


def _collect_outs(table_store: TableStore, revisions: Mapping[str, str]) -> dict[str, tuple[ObjectReference, ...]]:
    """md5 of every recorded output → its references.

    `dvc.lock` also records outputs with `cache: false`, which git keeps and DVC never uploads: they are left out.
    """
    outs: dict[str, list[ObjectReference]] = {}
    here = ((ObjectReference(WORKSPACE, path), str(out["md5"])) for path, out in workspace_outs(table_store).items())
    for reference, md5 in chain(_outs_of_revisions(table_store.root, revisions), here):
        outs.setdefault(md5, []).append(reference)
    return {md5: tuple(references) for md5, references in outs.items()}


def _outs_of_revisions(root: Path, revisions: Mapping[str, str]) -> Iterator[tuple[ObjectReference, str]]:
    """Every output that a revision records, and its md5.

    Most releases share most of their `.dvc` files, and git stores equal files as one blob: each blob is parsed once.
    """
    stages: dict[str, list[str]] = {}
    records: dict[str, list[ObjectReference]] = {}
    for revision, commit in revisions.items():
        for path, blob in git.tree(root, commit, STAGES_FILE, *OUTPUT_RECORDS).items():
            if path == STAGES_FILE:
                stages.setdefault(blob, []).append(revision)
            elif path == "dvc.lock" or path.endswith(".dvc"):
                records.setdefault(blob, []).append(ObjectReference(revision, path, commit))
    in_git: dict[str, set[str]] = {}
    for blob, content in git.blobs(root, stages):
        in_git |= dict.fromkeys(stages[blob], outs_kept_in_git(content))
    for blob, content in git.blobs(root, records):
        for record in records[blob]:
            for path, md5 in _parse_outs(record.path, content):
                if path not in in_git.get(record.revision, ()):
                    yield ObjectReference(record.revision, path, record.commit), md5


def _parse_outs(path: str, content: bytes) -> list[tuple[str, str]]:
    """Path and md5 of every output in a `dvc.lock` or a `.dvc` file."""
    parsed = parse_yaml(content)
    if path == "dvc.lock":
        stages = parsed.get("stages", {}).values()
        return [(out["path"], out["md5"]) for stage in stages for out in stage.get("outs", ()) if "md5" in out]
    folder = path.rpartition("/")[0]
    return [(f"{folder}/{out['path']}", out["md5"]) for out in parsed.get("outs", ()) if "md5" in out]
