"""Which objects of the cache and the remote are referenced: by which revisions, and with which sizes.

References come from git (`dvc.lock` and `.dvc` files of every given revision), from the workspace's manifests, and from
the journals of unfinished runs. Directory objects and manifests are hashed before they are trusted.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from headrace.batches import batched
from headrace.runs.worktree import list_worktrees
from headrace.storage import git
from headrace.storage.dvc.cache import Cache
from headrace.storage.dvc.lock import recorded_outs
from headrace.storage.dvc.push import PARALLEL
from headrace.storage.files import parse_yaml
from headrace.storage.manifest import (
    FORMAT_1_FILE,
    HEAD_FILE,
    ChunkReference,
    DamagedManifestError,
    Manifest,
    StoredFile,
    damaged_manifest,
    parse_manifest,
)
from headrace.storage.partition_entry import PartitionEntry, decode_entry
from headrace.storage.s3.errors import ObjectUnreadableError
from headrace.storage.table_store import Lake

WORKSPACE = "the workspace"
"""Stands for the workspace where a revision is expected."""

OUTPUT_RECORDS = ("dvc.lock", "data")
"""Where a revision records its outputs: `dvc.lock`, and `.dvc` files below `data/`."""

DIRECTORIES_IN_MEMORY = 4 * PARALLEL
"""Directory objects read at a time. Each lists every partition of a table, so all of them may not fit into memory."""


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
        outs: md5 of a recorded output → its references. The output of a folder is a directory object, `<md5>.dir`.
        sizes: md5 of every object → bytes; None if nothing records its size.
        sha256s: md5 → second hash, of the objects of which a manifest records it.
        released: Objects that a revision references, not only the workspace: the remote must have them.
        unreadable: Directory objects that neither cache nor remote has intact, so that what they list is unknown.
    """

    outs: Mapping[str, tuple[ObjectReference, ...]]
    sizes: dict[str, int | None] = field(default_factory=dict)
    sha256s: dict[str, str] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)
    unreadable: set[str] = field(default_factory=set)

    @classmethod
    def collect(cls, lake: Lake, revisions: Mapping[str, str]) -> "ReferencedObjects":
        """What `revisions` (name → commit) and the workspace with its journals reference."""
        collected = cls(_collect_outs(lake, revisions))
        for manifest in read_workspace_manifests(lake):
            collected._add_files(manifest.entries.files)
        for entry in read_journals(lake):
            collected._add_files(entry.files)
        for md5, references in collected.outs.items():
            collected.sizes.setdefault(md5, None)
            if any(reference.revision != WORKSPACE for reference in references):
                collected.released.add(md5)
        for md5, content in _read_directories(lake.cache, collected.outs):
            collected._add_directory(lake.cache, md5, content)
        return collected

    def _add_files(self, files: Iterable[StoredFile | PartitionEntry]) -> None:
        for file in files:
            self.sizes[file.md5] = file.size
            if file.sha256:
                self.sha256s[file.md5] = file.sha256

    def _add_directory(self, cache: Cache, md5: str, content: bytes | None) -> None:
        if content is None:
            self.unreadable.add(md5)
            return
        files = parse_directory(content)
        self.sizes[md5] = len(content)
        if md5 in self.released:
            self.released.update(files.values())
        # A directory object has no sizes; the manifest in it has. Consecutive releases share most partitions, so the
        # manifest is read only if it can add a size.
        if any(self.sizes.get(name) is None for name in files.values()):
            self._add_sizes(cache, files)
        for name in files.values():
            self.sizes.setdefault(name, None)

    def _add_sizes(self, cache: Cache, files: Mapping[str, str]) -> None:
        """The sizes that the manifest of a directory records, as far as it is intact."""
        head = files.get(HEAD_FILE) or files.get(FORMAT_1_FILE)
        content = read_verified(cache, head) if head else None
        if not head or content is None:
            return
        self.sizes[head] = len(content)
        manifest = parse_manifest(content, partial(_read_chunk, cache), head)
        for chunk in manifest.entries.chunks:
            if self.sizes.get(chunk.reference.md5) is None:  # consecutive releases share most chunks
                self._add_files([chunk.reference.file])
                with suppress(DamagedManifestError):
                    self._add_files(chunk.files)
        if not manifest.entries.chunks:
            self._add_files(manifest.entries.files)

    def locate(self, lake: Lake, md5s: Iterable[str]) -> dict[str, list[ObjectReference]]:
        """Where each of these objects is referenced.

        Reads the directory objects again: keeping the references of every object would need memory for each partition
        of each release, and only damaged objects need them.
        """
        located: dict[str, list[ObjectReference]] = {md5: list(self.outs.get(md5, ())) for md5 in md5s}
        for directory_md5, content in _read_directories(lake.cache, self.outs):
            for path, md5 in parse_directory(content).items() if content else ():
                if md5 in located:
                    located[md5] += [
                        ObjectReference(reference.revision, f"{reference.path}/{path}", reference.commit)
                        for reference in self.outs[directory_md5]
                    ]
        for manifest in read_workspace_manifests(lake):
            chunks = {chunk.reference.path: chunk.reference.md5 for chunk in manifest.entries.chunks}
            for name, md5 in {**manifest.files, **chunks}.items():
                reference = ObjectReference(WORKSPACE, f"data/{manifest.table}/{name}")
                if md5 in located and reference not in located[md5]:
                    located[md5].append(reference)
        return located


def tagged_revisions(lake: Lake) -> dict[str, str]:
    """Every fetched tag, newest first, and HEAD: name → commit."""
    tags = git.refs(lake.root, "refs/tags")
    return {name.removeprefix("refs/tags/"): commit for name, commit in tags.items()} | {"HEAD": git.head(lake.root)}


def workspace_roots(lake: Lake) -> list[Path]:
    """The workspace, and the worktrees of its runs."""
    return [lake.root, *list_worktrees(lake.root).values()]


def read_workspace_manifests(lake: Lake) -> Iterator[Manifest]:
    """The manifest of every table in the workspace and in the worktrees of its runs, of all datasets."""
    for root in workspace_roots(lake):
        here = Lake.at(root)
        for table in here.tables("*"):
            if manifest := here.visible_manifest(table):
                yield manifest


def read_journals(lake: Lake) -> Iterator[PartitionEntry]:
    """Entries that unfinished runs have computed and not yet published in a manifest."""
    for root in workspace_roots(lake):
        for path in sorted((root / ".headrace" / "journal").glob("*.jsonl")):
            yield from parse_journal(path.read_bytes())


def parse_journal(content: bytes) -> Iterator[PartitionEntry]:
    """Entries of one journal. A crash can truncate the last line, which is skipped."""
    for line in content.splitlines():
        with suppress(ValueError):
            yield decode_entry(line)


def read_verified(cache: Cache, md5: str) -> bytes | None:
    """Bytes of a small object, from the cache or else the remote; None if neither has bytes with this md5."""
    path = cache.path(md5)
    if path.exists() and has_md5(content := path.read_bytes(), md5):
        return content
    found = cache.remote.bucket.head(cache.remote.key(md5))
    with suppress(ObjectUnreadableError):
        if found and has_md5(content := cache.remote.bucket.read(found), md5):
            return content
    return None


def _read_chunk(cache: Cache, reference: ChunkReference) -> bytes:
    content = read_verified(cache, reference.md5)
    if content is None:
        raise damaged_manifest(reference.md5, "it is neither in the cache nor on the remote with this md5")
    return content


def has_md5(content: bytes, md5: str) -> bool:
    """Whether `content` has this md5; the name of a directory object ends with `.dir`."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest() == md5.removesuffix(".dir")


def parse_directory(content: bytes) -> dict[str, str]:
    """Path → md5 of the files that a directory object lists."""
    return {item["relpath"]: item["md5"] for item in json.loads(content)}


def _read_directories(cache: Cache, outs: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
    """The directory objects among `outs` with their bytes; None for those that cannot be read."""
    with ThreadPoolExecutor(PARALLEL) as pool:
        for batch in batched((md5 for md5 in outs if md5.endswith(".dir")), DIRECTORIES_IN_MEMORY):
            yield from zip(batch, pool.map(lambda md5: read_verified(cache, md5), batch), strict=True)


def _collect_outs(lake: Lake, revisions: Mapping[str, str]) -> dict[str, tuple[ObjectReference, ...]]:
    """md5 of every recorded output → its references.

    Most releases share most of their `.dvc` files, and git stores equal files as one blob: each blob is parsed once.
    """
    outs: dict[str, list[ObjectReference]] = {}
    blobs: dict[str, list[ObjectReference]] = {}
    for revision, commit in revisions.items():
        for path, blob in git.tree(lake.root, commit, *OUTPUT_RECORDS).items():
            if path == "dvc.lock" or path.endswith(".dvc"):
                blobs.setdefault(blob, []).append(ObjectReference(revision, path, commit))
    for blob, content in git.blobs(lake.root, blobs):
        for record in blobs[blob]:
            for path, md5 in _parse_outs(record.path, content):
                outs.setdefault(md5, []).append(ObjectReference(record.revision, path, record.commit))
    for path, out in recorded_outs(lake.root).items():
        outs.setdefault(str(out["md5"]), []).append(ObjectReference(WORKSPACE, path))
    return {md5: tuple(references) for md5, references in outs.items()}


def _parse_outs(path: str, content: bytes) -> list[tuple[str, str]]:
    """Path and md5 of every output in a `dvc.lock` or a `.dvc` file. Outputs with `cache: false` have no md5 here."""
    parsed = parse_yaml(content)
    if path == "dvc.lock":
        stages = parsed.get("stages", {}).values()
        return [(out["path"], out["md5"]) for stage in stages for out in stage.get("outs", ()) if "md5" in out]
    folder = path.rpartition("/")[0]
    return [(f"{folder}/{out['path']}", out["md5"]) for out in parsed.get("outs", ()) if "md5" in out]
