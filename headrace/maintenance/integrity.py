"""named objects → damage: what the remote and the cache do not have as they must, which stock DVC does not see.

Looked at by one listing and by size; `deep` hashes every byte on both sides. Where the server's ETags are md5s, a
wrong one is enough to have that one object hashed.
"""

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from headrace.maintenance.references import Holdings, Place
from headrace.storage.dvc.cache import Cache
from headrace.storage.dvc.objects import md5_of
from headrace.storage.dvc.push import PARALLEL
from headrace.storage.dvc.remote import Remote
from headrace.storage.s3.errors import ObjectUnreadableError
from headrace.storage.s3.objects import Object
from headrace.storage.table_store import Lake

GOOD, MISSING = "good", "missing"
MD5 = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True)
class Damage:
    """One object that is not what it must be.

    Attributes:
        md5: Its name.
        cache: `good`, `missing`, or what was seen instead.
        remote: The same.
        is_released: Whether the remote must have it.
        places: Where it stands.
    """

    md5: str
    cache: str
    remote: str
    is_released: bool
    places: tuple[Place, ...] = ()

    @property
    def is_lost(self) -> bool:
        """Whether neither side has it."""
        return GOOD not in (self.cache, self.remote)

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths under which it stands."""
        return tuple(dict.fromkeys(place.path for place in self.places))

    @property
    def holders(self) -> tuple[str, ...]:
        """Releases that hold it, HEAD and the workspace among them."""
        return tuple(dict.fromkeys(place.holder for place in self.places))

    def __str__(self) -> str:
        """One line for people."""
        where = f"{self.paths[0]} of {', '.join(self.holders[:4])}" if self.places else "a run that was not finished"
        return f"{self.md5} ({where}): remote {self.remote}, cache {self.cache}"


def look(lake: Lake, holdings: Holdings, *, deep: bool = False) -> list[Damage]:
    """Everything named that is damaged, in the order of names."""
    cache, remote = _of_cache(lake.cache, holdings, deep=deep), _of_remote(lake.cache.remote, holdings, deep=deep)
    bad = [md5 for md5 in sorted(holdings.sizes) if _is_damaged(md5 in holdings.released, cache[md5], remote[md5])]
    places = holdings.places(lake, bad) if bad else {}
    found = [Damage(md5, cache[md5], remote[md5], md5 in holdings.released, tuple(places[md5])) for md5 in bad]
    # What only a journal names may be gone: the next run computes it again.
    return [item for item in found if item.places or item.cache != MISSING]


def _is_damaged(is_released: bool, cache: str, remote: str) -> bool:
    return cache not in (GOOD, MISSING) or (remote != GOOD and (is_released or cache != GOOD))


def _of_cache(cache: Cache, holdings: Holdings, *, deep: bool) -> dict[str, str]:
    def seen(md5: str) -> str:
        path, size = cache.path(md5), holdings.sizes[md5]
        try:
            found = path.stat().st_size
            if size is not None and found != size:
                return f"{found:,} bytes where {size:,} are expected"
            return _judged(md5_of(path), md5) if deep or size is None or md5.endswith(".dir") else GOOD
        except FileNotFoundError:
            return MISSING

    with ThreadPoolExecutor() as pool:
        return dict(zip(holdings.sizes, pool.map(seen, holdings.sizes), strict=True))


def _of_remote(remote: Remote, holdings: Holdings, *, deep: bool) -> dict[str, str]:
    listed = {md5: found for md5, found in objects(remote) if md5 in holdings.sizes}
    doubted = listed.keys() if deep else _with_other_etags(listed)

    def seen(md5: str) -> str:
        found, size = listed.get(md5), holdings.sizes[md5]
        if found is None:
            return MISSING
        if size is not None and found.size != size:
            return f"{found.size:,} bytes where {size:,} are expected"
        try:
            return _judged(remote.bucket.md5(found), md5) if md5 in doubted else GOOD
        except ObjectUnreadableError:
            return "listed, but its bytes are not given"

    with ThreadPoolExecutor(PARALLEL) as pool:
        return dict(zip(holdings.sizes, pool.map(seen, holdings.sizes), strict=True))


def objects(remote: Remote) -> Iterator[tuple[str, Object]]:
    """Every object of the remote by its md5, as one listing shows them."""
    for found in remote.bucket.list(remote.key("").rstrip("/") + "/"):
        first, _, rest = found.key.rpartition("/")
        md5 = first.rpartition("/")[2] + rest
        if found.key == remote.key(md5):
            yield md5, found


def _with_other_etags(listed: Mapping[str, Object]) -> set[str]:
    """Objects whose ETag is an md5 and not theirs, on a server whose ETags are the md5s (encryption makes others)."""
    others = {md5 for md5, found in listed.items() if MD5.fullmatch(found.etag) and found.etag != md5[:32]}
    return others if 2 * len(others) < len(listed) else set()


def _judged(seen: str, md5: str) -> str:
    return GOOD if seen == md5[:32] else f"md5 {seen}"
