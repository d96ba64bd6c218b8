"""The DVC remote, written to: objects first, folders' lists last, and every one of them looked at again afterwards."""

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pipelines.errors import HeadraceError
from pipelines.systems.dvc import Cache, Remote, read_directory

PARALLEL = 16
"""Requests at once: more do not help one process."""


class NotOnRemoteError(HeadraceError):
    """What was written to the remote is not what the remote has."""


@dataclass(frozen=True)
class Pushed:
    """Objects and bytes that were written; those that were there already are not among them."""

    objects: int = 0
    size: int = 0


def push_objects(cache: Cache, outs: Iterable[Mapping[str, Any]], there: Iterable[Mapping[str, Any]]) -> Pushed:
    """Bring every object that `outs` name to the remote, less those of `there`, and read them back.

    Args:
        cache: Where the bytes are.
        outs: Output entries of what is to be recorded.
        there: Output entries recorded by a commit that was pushed, whose objects were proved then.

    Raises:
        NotOnRemoteError: An object is not there with its size and hash after it was written.
        MissingObjectError: An object is neither in the cache nor on the remote.
    """
    known = {str(out["md5"]) for out in there}
    new = {str(out["md5"]) for out in outs} - known
    had = {md5 for folder in known if folder.endswith(".dir") for md5 in read_directory(cache, folder).values()}
    has = {md5 for folder in new if folder.endswith(".dir") for md5 in read_directory(cache, folder).values()}
    files = sorted((has | {md5 for md5 in new if not md5.endswith(".dir")}) - had)
    written = [*_push_all(cache, files), *_push_all(cache, sorted(md5 for md5 in new if md5.endswith(".dir")))]
    return Pushed(sum(size > 0 for size in written), sum(written))


def _push_all(cache: Cache, md5s: list[str]) -> list[int]:
    with ThreadPoolExecutor(PARALLEL) as pool:
        return list(pool.map(lambda md5: _push(cache, md5), md5s))


def _push(cache: Cache, md5: str) -> int:
    """Bytes written for one object: none if the remote has it already."""
    remote, path = cache.remote, cache.fetch(md5)
    size = path.stat().st_size
    if _seen(remote, md5) == (size, md5.removesuffix(".dir")):
        return 0
    remote.write(md5, path)
    if (seen := _seen(remote, md5)) != (size, md5.removesuffix(".dir")):
        raise NotOnRemoteError(
            f"{remote.where(md5)}: expected {size:,} bytes with md5 {md5} after writing them, seen {seen}."
            " Nothing was released. Check the server, then run the same command again."
        )
    return size


def _seen(remote: Remote, md5: str) -> tuple[int, str] | None:
    """Size and md5 of what the remote has: its ETag where that is the md5, else the hash of the bytes themselves."""
    found = remote.bucket.head(remote.key(md5))
    if found is None:
        return None
    if (etag := found.etag.strip('"')) == md5.removesuffix(".dir"):
        return found.size, etag
    return found.size, hashlib.md5(remote.bucket.read(found), usedforsecurity=False).hexdigest()
