"""The DVC remote, written to: objects first, folders' lists last, and every one of them looked at again afterwards."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pipelines.systems.dvc.cache import Cache, read_directory

PARALLEL = 16
"""Requests at once: more do not help one process."""


@dataclass(frozen=True)
class Pushed:
    """Objects and bytes that were written; those that were there already are not among them."""

    objects: int = 0
    size: int = 0


def push_objects(
    cache: Cache, outs: Iterable[Mapping[str, Any]], there: Iterable[Mapping[str, Any]], sizes: Mapping[str, int]
) -> Pushed:
    """Bring every object that `outs` name to the remote, less those of `there`, and read them back.

    Args:
        cache: Where the bytes are, unless workers have brought them to the remote already.
        outs: Output entries of what is to be recorded.
        there: Output entries of a release, whose objects were proved then.
        sizes: Bytes of the objects that need not be in the cache.

    Raises:
        NotOnRemoteError: An object is not there with its size and hash after it was written.
        MissingObjectError: An object is neither in the cache nor on the remote.
    """
    known = {str(out["md5"]) for out in there}
    new = {str(out["md5"]) for out in outs} - known
    had = {md5 for folder in known if folder.endswith(".dir") for md5 in read_directory(cache, folder).values()}
    has = {md5 for folder in new if folder.endswith(".dir") for md5 in read_directory(cache, folder).values()}
    files = sorted((has | {md5 for md5 in new if not md5.endswith(".dir")}) - had)
    lists = sorted(md5 for md5 in new if md5.endswith(".dir"))
    with ThreadPoolExecutor(PARALLEL) as pool:
        written = [
            size for md5s in (files, lists) for size in [*pool.map(lambda md5: _push(cache, md5, sizes.get(md5)), md5s)]
        ]
    return Pushed(sum(size > 0 for size in written), sum(written))


def _push(cache: Cache, md5: str, size: int | None) -> int:
    """Bytes written for one object: none if the remote has it already."""
    if size is not None and not cache.path(md5).exists() and cache.remote.has(md5, size):
        return 0
    path = cache.fetch(md5)
    return cache.remote.ensure(md5, path.stat().st_size, path)
