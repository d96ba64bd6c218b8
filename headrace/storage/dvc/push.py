"""The DVC remote, written to: objects first, folders' lists last, and every one of them looked at again afterwards."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any

from headrace.storage.dvc.cache import Cache, new_in_directory
from headrace.storage.progress_log import log_progress

log = logging.getLogger(__name__)

PARALLEL = 16
"""Requests at once: more do not help one process."""


@dataclass(frozen=True)
class PushResult:
    """Objects and bytes that were written; those that were there already are not among them."""

    objects: int = 0
    size: int = 0


def push_objects(
    cache: Cache, outs: Iterable[Mapping[str, Any]], there: Iterable[Mapping[str, Any]], sizes: Mapping[str, int]
) -> PushResult:
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
    there = list(there)
    known = {str(out["md5"]) for out in there}
    new = [out for out in outs if out["md5"] not in known]
    lists = sorted({str(out["md5"]) for out in new if out["md5"].endswith(".dir")})
    files = sorted(_new_files(cache, new, there))
    with ThreadPoolExecutor(PARALLEL) as pool:
        written = [size for md5s in (files, lists) for size in _upload_missing(cache, md5s, sizes, pool)]
    return PushResult(len(written), sum(written))


def _new_files(cache: Cache, new: Iterable[Mapping[str, Any]], there: Sequence[Mapping[str, Any]]) -> set[str]:
    """The files of new outputs, less those that the earlier list of the same folder has."""
    files: set[str] = set()
    for out in new:
        if out["md5"].endswith(".dir"):
            earlier = [one["md5"] for one in there if one["path"] == out.get("path") and one["md5"].endswith(".dir")]
            files |= new_in_directory(cache, out["md5"], earlier)
        else:
            files.add(out["md5"])
    return files


def _upload_missing(cache: Cache, md5s: Iterable[str], sizes: Mapping[str, int], pool: ThreadPoolExecutor) -> list[int]:
    """Write what the remote lacks, and prove it by another look; the sizes of what was written."""
    groups = [list(group) for _, group in groupby(md5s, key=lambda md5: md5[:2])]
    missing = [*chain(*pool.map(lambda group: _missing(cache, group, sizes), groups))]
    log.debug("%d objects are not on the remote", len(missing))
    writes = pool.map(lambda md5: cache.remote.write(md5, cache.fetch(md5)), missing)
    list(log_progress(writes, len(missing), "objects written to the remote", log))
    groups = [list(group) for _, group in groupby(missing, key=lambda md5: md5[:2])]
    return [*chain(*pool.map(lambda group: _verify_uploaded(cache, group), groups))]


def _missing(cache: Cache, md5s: list[str], sizes: Mapping[str, int]) -> list[str]:
    """Those that the remote has not, or not right; of what is not in the cache its size must do."""
    remote, there = cache.remote, cache.remote.stat_many(md5s)
    return [md5 for md5 in md5s if not remote.matches(md5, _size(cache, md5, sizes), there.get(md5))]


def _verify_uploaded(cache: Cache, md5s: list[str]) -> list[int]:
    there = cache.remote.stat_many(md5s)
    wanted = [(md5, cache.path(md5).stat().st_size) for md5 in md5s]
    for md5, size in wanted:
        cache.remote.verify(md5, size, there.get(md5))
    return [size for _, size in wanted]


def _size(cache: Cache, md5: str, sizes: Mapping[str, int]) -> int:
    known = sizes.get(md5)
    return cache.fetch(md5).stat().st_size if known is None or cache.has(md5) else known
