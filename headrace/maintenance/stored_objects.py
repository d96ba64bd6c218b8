"""Small objects of the cache or the remote, hashed before they are trusted: directory objects and manifests."""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import orjson

from headrace.batches import batched
from headrace.storage.dvc.cache import Cache
from headrace.storage.dvc.push import PARALLEL
from headrace.storage.s3.errors import ObjectUnreadableError

DIRECTORIES_IN_MEMORY = 4 * PARALLEL
"""Directory objects read at a time. Each lists every partition of a table, so all of them may not fit into memory."""


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


def has_md5(content: bytes, md5: str) -> bool:
    """Whether `content` has this md5; the name of a directory object ends with `.dir`."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest() == md5.removesuffix(".dir")


def parse_directory(content: bytes) -> dict[str, str]:
    """Path → md5 of the files that a directory object lists."""
    return {item["relpath"]: item["md5"] for item in orjson.loads(content)}


def parse_new_files(content: bytes, earlier: bytes) -> dict[str, str]:
    """Path → md5 of the files that a directory object lists and an earlier one does not, or not with these bytes.

    Items are compared as text: two long lists share most items, and only the others have to be parsed.
    """
    new = set(_split_items(content)).difference(_split_items(earlier))
    try:
        return parse_directory(b"[%s]" % b",".join(new))
    except orjson.JSONDecodeError:  # a path contains what separates items
        return parse_directory(content)


def _split_items(content: bytes) -> list[bytes]:
    """The items of a directory object, as DVC writes it: on one line, so none contains a line break."""
    return content[1:-1].replace(b"}, {", b"}\n{").split(b"\n")


def read_directories(cache: Cache, outs: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
    """The directory objects among `outs` with their bytes; None for those that cannot be read."""
    with ThreadPoolExecutor(PARALLEL) as pool:
        for batch in batched((md5 for md5 in outs if md5.endswith(".dir")), DIRECTORIES_IN_MEMORY):
            yield from zip(batch, pool.map(lambda md5: read_verified(cache, md5), batch), strict=True)
