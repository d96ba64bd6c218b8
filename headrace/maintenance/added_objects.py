"""The objects that a commit references and another does not: what a release brought, read once and then remembered.

A table's directory object lists every partition, and consecutive releases share almost all of them. So a chain of
commits is followed from one to the next, and of each is kept what it added to the one before: this follows from the two
commits alone, and the objects of all commits are what the first one has and what each of the others added, in whatever
order they come. A commit that is removed from the chain costs one comparison of its neighbors.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import msgspec
import yaml

from headrace.batches import batched
from headrace.maintenance.record_cache import RecordCache
from headrace.maintenance.stored_objects import parse_new_files, read_verified
from headrace.project.dvc_stages import kept_in_git
from headrace.storage import git
from headrace.storage.dvc.cache import Cache
from headrace.storage.dvc.lock import recorded_outs
from headrace.storage.dvc.push import PARALLEL
from headrace.storage.files import parse_yaml
from headrace.storage.manifest import FORMAT_1_FILE, HEAD_FILE, Manifest, parse_manifest
from headrace.storage.manifest_entries import ChunkReference, DamagedManifestError, StoredFile, damaged_manifest
from headrace.storage.table_store import TableStore

STAGES_FILE = "dvc.yaml"
FOLDER = Path(".headrace/references")

DIRECTORIES_IN_MEMORY = 2 * PARALLEL
"""Pairs of directory objects read at a time. Each lists every partition of a table, so all may not fit into memory."""

Outs = Mapping[str, Mapping[str, Any]]
"""Path → output entry, as `dvc.lock` and `.dvc` files record it."""


class KnownObject(msgspec.Struct, frozen=True, array_like=True):
    """An object.

    Attributes:
        size: Its bytes; None if nothing records them.
        sha256: Second hash of its bytes; None if no manifest records it.
    """

    size: int | None = None
    sha256: bytes | None = None


@dataclass
class AddedObjects:
    """What a commit references and another does not.

    Attributes:
        objects: Name of each object → what is known of it. Some that both reference may be among them.
        unreadable: Directory objects that neither cache nor remote has intact, so that what they list is unknown.
        is_complete: Whether every directory object and manifest could be read.
    """

    objects: dict[str, KnownObject] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)
    is_complete: bool = True


@dataclass(frozen=True)
class AddedObjectsIndex:
    """What commits added to others, as far as it was read before.

    Attributes:
        table_store: The workspace's tables.
        records: What was read before.
    """

    table_store: TableStore
    records: RecordCache

    @classmethod
    def of(cls, table_store: TableStore) -> "AddedObjectsIndex":
        """That of a workspace."""
        return cls(table_store, RecordCache(table_store.root / FOLDER))

    def added(self, before: str, commit: str) -> AddedObjects:
        """What `commit` references and `before` does not; `before` is empty for all that `commit` references."""
        key = f"{before or 'all'}-{commit}"
        known = self.records.read(key, dict[bytes, KnownObject])
        if known is not None:
            return AddedObjects({_decode_name(name): item for name, item in known.items()})
        added = compare_outs(
            self.table_store.cache, commit_outs(self.table_store, before), commit_outs(self.table_store, commit)
        )
        if added.is_complete:
            self.records.write(key, {_encode_name(name): item for name, item in added.objects.items()})
        return added


def commit_outs(table_store: TableStore, commit: str) -> Outs:
    """What a commit records and DVC keeps; nothing for no commit."""
    if not commit:
        return {}
    in_git = outs_kept_in_git(git.show(table_store.root, commit, STAGES_FILE) or b"")
    return {path: out for path, out in recorded_outs(table_store.root, commit).items() if path not in in_git}


def workspace_outs(table_store: TableStore) -> Outs:
    """What the files of the workspace record and DVC keeps."""
    file = table_store.root / STAGES_FILE
    in_git = outs_kept_in_git(file.read_bytes() if file.exists() else b"")
    return {path: out for path, out in recorded_outs(table_store.root).items() if path not in in_git}


@lru_cache(maxsize=8)
def outs_kept_in_git(stages_file: bytes) -> set[str]:
    """Outputs that git keeps, as this `dvc.yaml` declares them: `dvc.lock` records them, and DVC never uploads them.

    The set is empty if the file cannot be parsed, which the doctor reports.
    """
    try:
        return kept_in_git(parse_yaml(stages_file).get("stages") or {})
    except yaml.YAMLError:
        return set()


def compare_outs(cache: Cache, before: Outs, after: Outs) -> AddedObjects:
    """The objects of `after` that `before` does not have: only tables that differ are read."""
    added = AddedObjects()
    known = {str(out["md5"]) for out in before.values() if "md5" in out}
    pairs: list[tuple[str, str]] = []
    for path, out in after.items():
        md5 = str(out.get("md5", ""))  # outputs with `cache: false` have none
        if not md5 or md5 in known or md5 in added.objects:
            continue
        added.objects[md5] = KnownObject(out.get("size") if not md5.endswith(".dir") else None)
        if md5.endswith(".dir"):
            pairs.append((md5, str(before.get(path, {}).get("md5", ""))))
    for md5, content, earlier in _read_pairs(cache, pairs):
        _add_directory(cache, added, md5, content, earlier)
    return added


def _read_pairs(cache: Cache, pairs: list[tuple[str, str]]) -> Iterator[tuple[str, bytes | None, bytes | None]]:
    """Directory objects with their bytes and those of what they replaced; None for what cannot be read."""

    def read(md5: str) -> bytes | None:
        return read_verified(cache, md5) if md5.endswith(".dir") else None

    with ThreadPoolExecutor(PARALLEL) as pool:
        for batch in batched(pairs, DIRECTORIES_IN_MEMORY):
            contents = pool.map(read, (md5 for pair in batch for md5 in pair))
            yield from ((md5, next(contents), next(contents)) for md5, _ in batch)


def _add_directory(cache: Cache, added: AddedObjects, md5: str, content: bytes | None, earlier: bytes | None) -> None:
    if content is None:
        added.unreadable.add(md5)
        added.is_complete = False
        return
    added.objects[md5] = KnownObject(len(content))
    files = parse_new_files(content, earlier or b"[]")
    new, head = set(files.values()), files.get(HEAD_FILE) or files.get(FORMAT_1_FILE)
    found = dict(_read_sizes(cache, head, new, added)) if head and new else {}
    for name in new:
        added.objects.setdefault(name, found.get(name, KnownObject()))


def _read_sizes(cache: Cache, head: str, new: set[str], added: AddedObjects) -> Iterator[tuple[str, KnownObject]]:
    """The objects that a manifest lists, read from those of its chunks that are new."""
    content = read_verified(cache, head)
    if content is None:
        added.is_complete = False
        return
    yield head, KnownObject(len(content))
    try:
        manifest = parse_manifest(content, partial(_read_chunk, cache), head)
        for file in _new_files(manifest, new):
            yield file.md5, KnownObject(file.size, bytes.fromhex(file.sha256) if file.sha256 else None)
    except DamagedManifestError:
        added.is_complete = False


def _new_files(manifest: Manifest, new: set[str]) -> Iterator[StoredFile]:
    if not manifest.entries.chunks:  # format 1
        yield from manifest.entries.files
    for chunk in manifest.entries.chunks:
        if chunk.reference.md5 in new:
            yield chunk.reference.file
            yield from chunk.files


def _read_chunk(cache: Cache, reference: ChunkReference) -> bytes:
    content = read_verified(cache, reference.md5)
    if content is None:
        raise damaged_manifest(reference.md5, "it is neither in the cache nor on the remote with this md5")
    return content


def _encode_name(md5: str) -> bytes:
    """16 bytes, and one more for a directory object: half of what the text takes."""
    return bytes.fromhex(md5[:32]) + (b"d" if md5.endswith(".dir") else b"")


def _decode_name(name: bytes) -> str:
    return name[:16].hex() + (".dir" if len(name) > 16 else "")  # noqa: PLR2004  bytes of an md5
