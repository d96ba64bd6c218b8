"""Objects below a prefix: one listing, a partition a key, bytes kept as they came."""

import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from headrace.dataset import UNPARTITIONED, ObjectSource
from headrace.errors import HeadraceError
from headrace.ingest.listing import memo_key
from headrace.storage.manifest import Entry
from headrace.storage.s3.bucket import Bucket, Received
from headrace.storage.s3.errors import ObjectChangedError
from headrace.storage.s3.objects import Object
from headrace.storage.table_store import Lake

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]*")
"""What a partition may be called: it becomes a file name."""


class DuplicatePartitionError(HeadraceError):
    """Two objects claim the same partition."""


@dataclass(frozen=True)
class Keys:
    """The objects of a source, as one listing shows them."""

    lake: Lake
    bucket: Bucket
    where: str
    found: Mapping[str, Object]
    unmatched: tuple[str, ...]
    at_once: int

    @classmethod
    def listed(cls, lake: Lake, bucket: Bucket, origin: ObjectSource, at_once: int) -> "Keys":
        """List the bucket, once."""
        where = f"s3://{bucket.name}/{origin.prefix}"
        found, unmatched = match(origin, bucket.list(origin.prefix), where)
        return cls(lake, bucket, where, found, unmatched, at_once)

    @property
    def libraries(self) -> Mapping[str, str]:
        """As `Origin`: nothing shapes them."""
        return {}

    @cached_property
    def offers(self) -> Mapping[str, str]:
        """As `Origin`."""
        return {partition: self._memo(found) for partition, found in self.found.items()}

    def read(self, partitions: Iterable[str]) -> Iterator[tuple[str, Entry | None]]:
        """As `Origin`: in parallel threads, in the order they arrive."""
        with ThreadPoolExecutor(self.at_once) as pool:
            waiting = {pool.submit(self._keep, self.found[name]): name for name in partitions}
            try:
                for future in as_completed(waiting):
                    yield waiting[future], future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _keep(self, found: Object, *, again: bool = True) -> Entry | None:
        """Keep the object that was listed; one that was replaced meanwhile is looked up again, once."""
        arrived: list[Received] = []

        def receive(path: Path) -> str:
            arrived.append(self.bucket.download(found, path))
            return arrived[0].md5

        try:
            stored = self.lake.cache.take(receive)
        except ObjectChangedError:
            if not again:
                raise
            now = self.bucket.head(found.key)
            return self._keep(now, again=False) if now else None
        came = arrived[0]
        facts = {"bucket": self.bucket.name, "key": found.key, "etag": found.etag, "sha256": came.sha256}
        if came.object.version:
            facts["version"] = came.object.version
        return Entry(self._memo(found), stored.md5, stored.size, facts={"object": facts})

    def _memo(self, found: Object) -> str:
        """The listing does not tell the version id, so what the memo key says of it is the ETag and the size."""
        return memo_key([self.bucket.name, found.key, found.etag, found.size])


def match(origin: ObjectSource, listed: Iterable[Object], where: str) -> tuple[dict[str, Object], tuple[str, ...]]:
    """Partition → object, and the keys that are no partition.

    Raises:
        OnePartitionTwoKeysError: Two keys give one partition.
    """
    pattern = re.compile(origin.partition)
    found: dict[str, Object] = {}
    unmatched: list[str] = []
    for item in listed:
        partition = _partition(pattern, item.key)
        if partition is None:
            unmatched.append(item.key)
        elif partition in found:
            raise DuplicatePartitionError(
                f"{where}: {found[partition].key} and {item.key} both are the partition {partition}. Delete one of"
                f" them, or make the source's pattern tell them apart: {origin.partition}"
            )
        else:
            found[partition] = item
    return found, tuple(unmatched)


def _partition(pattern: re.Pattern[str], key: str) -> str | None:
    hit = pattern.fullmatch(key)
    if not hit:
        return None
    name = hit["partition"] if "partition" in pattern.groupindex else UNPARTITIONED
    return name if name and NAME.fullmatch(name) else None
