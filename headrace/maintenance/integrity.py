"""Compares every referenced object with the cache and the remote, and lists those that are damaged.

Stock DVC does not see this damage: it takes a read-only file in the cache as intact, and the files of a directory
object that is on the remote as present. Here one listing of the remote is compared with the recorded sizes; `deep`
hashes every byte on both sides, and compares sha256, too, where a manifest records it. If the server's ETags are md5s,
an object with another ETag is hashed in any case.
"""

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from headrace.maintenance.references import ObjectReference, ReferencedObjects
from headrace.retrieve.hash_cache import HashCache
from headrace.storage.digests import Digests
from headrace.storage.dvc.push import PARALLEL
from headrace.storage.dvc.remote import Remote
from headrace.storage.s3.errors import ObjectUnreadableError
from headrace.storage.s3.objects import ObjectMeta
from headrace.storage.table_store import TableStore

GOOD, MISSING = "good", "missing"
MD5 = re.compile("[0-9a-f]{32}")

HASHED_DIRECTORIES = "hashed-directories"
"""File below `.headrace/` with what the file system said of the directory objects that were hashed."""


@dataclass(frozen=True)
class ObjectDamage:
    """An object that the cache or the remote should have and does not, or has with other bytes.

    Attributes:
        md5: Its name.
        cache: `good`, `missing`, or what was found instead.
        remote: The same for the remote.
        is_released: Whether a revision references it, so that the remote must have it.
        references: Where it is referenced.
        sha256: Second hash of its bytes; None if no manifest records it.
    """

    md5: str
    cache: str
    remote: str
    is_released: bool
    references: tuple[ObjectReference, ...] = ()
    sha256: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """Its paths, without duplicates."""
        return tuple(dict.fromkeys(reference.path for reference in self.references))

    @property
    def referenced_by(self) -> tuple[str, ...]:
        """The releases that reference it, HEAD and the workspace, without duplicates."""
        return tuple(dict.fromkeys(reference.revision for reference in self.references))

    def __str__(self) -> str:
        where = f"{self.paths[0]} of {', '.join(self.referenced_by[:4])}" if self.references else "an unfinished run"
        return f"{self.md5} ({where}): remote {self.remote}, cache {self.cache}"


def find_damage(table_store: TableStore, referenced: ReferencedObjects, *, deep: bool = False) -> list[ObjectDamage]:
    """Every damaged object among the `referenced` ones, sorted by md5."""
    cache = _check_cache(table_store, referenced, deep=deep)
    remote = _check_remote(table_store.cache.remote, referenced, deep=deep)
    released = referenced.released
    damaged = [md5 for md5 in sorted(referenced.sizes) if _is_damaged(md5 in released, cache[md5], remote[md5])]
    references = referenced.locate(table_store, damaged) if damaged else {}
    damages = [
        ObjectDamage(md5, cache[md5], remote[md5], md5 in released, tuple(references[md5]), referenced.sha256s.get(md5))
        for md5 in damaged
    ]
    # An object that only a journal references may be missing: the next run computes it again.
    return [damage for damage in damages if damage.references or damage.cache != MISSING]


def _is_damaged(is_released: bool, cache: str, remote: str) -> bool:
    return cache not in (GOOD, MISSING) or (remote != GOOD and (is_released or cache != GOOD))


def _check_cache(table_store: TableStore, referenced: ReferencedObjects, *, deep: bool) -> dict[str, str]:
    cache, hashed = table_store.cache, HashCache.load(table_store.root, HASHED_DIRECTORIES)

    def check(md5: str) -> str:
        path, expected = cache.path(md5), referenced.sizes[md5]
        try:
            size = path.stat().st_size
            if expected is not None and size != expected:
                return f"{size:,} bytes instead of {expected:,}"
            # DVC trusts a directory object that is there, so each is hashed, and again if it was touched since.
            if not deep and expected is not None and (not md5.endswith(".dir") or hashed.matches(path, md5)):
                return GOOD
            return Digests.of_file(path).mismatch(md5, referenced.sha256s.get(md5)) or GOOD
        except FileNotFoundError:
            return MISSING

    with ThreadPoolExecutor() as pool:
        states = dict(zip(referenced.sizes, pool.map(check, referenced.sizes), strict=True))
    hashed.append_unsaved()
    return states


def _check_remote(remote: Remote, referenced: ReferencedObjects, *, deep: bool) -> dict[str, str]:
    listed = {md5: item for md5, item in list_objects(remote) if md5 in referenced.sizes}
    to_hash = listed.keys() if deep else _with_other_etags(listed)

    def check(md5: str) -> str:
        item, expected = listed.get(md5), referenced.sizes[md5]
        if item is None:
            return MISSING
        if expected is not None and item.size != expected:
            return f"{item.size:,} bytes instead of {expected:,}"
        try:
            if md5 not in to_hash:
                return GOOD
            return remote.bucket.digests(item).mismatch(md5, referenced.sha256s.get(md5)) or GOOD
        except ObjectUnreadableError:
            return "listed but unreadable"

    with ThreadPoolExecutor(PARALLEL) as pool:
        return dict(zip(referenced.sizes, pool.map(check, referenced.sizes), strict=True))


def list_objects(remote: Remote) -> Iterator[tuple[str, ObjectMeta]]:
    """Every object of the remote by its md5, from one listing. Keys that are not of DVC's layout are skipped."""
    for item in remote.bucket.list(remote.key("").rstrip("/") + "/"):
        folder, _, name = item.key.rpartition("/")
        md5 = folder.rpartition("/")[2] + name
        if item.key == remote.key(md5):
            yield md5, item


def _with_other_etags(listed: Mapping[str, ObjectMeta]) -> set[str]:
    """Objects whose ETag looks like an md5 and is not theirs.

    An ETag is the md5 only of an unencrypted object that was uploaded in one part. With SSE-KMS and on some servers it
    is a random hex string of the same length, and then most objects differ: an ETag says nothing there.
    """
    others = {md5 for md5, item in listed.items() if MD5.fullmatch(item.etag) and item.etag != md5[:32]}
    return others if 2 * len(others) < len(listed) else set()
