"""Objects below a prefix as a source: one listing, an entry of the raw table per object, bytes stored unchanged."""

import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from headrace.dataset import UNPARTITIONED, ObjectSource
from headrace.engine.partition_errors import to_known_error
from headrace.errors import HeadraceError
from headrace.ingest.listing import compute_cache_key
from headrace.object_location import AZURE, FOLDER_SCHEME, GOOGLE, InvalidLocationError, ObjectLocation
from headrace.partitions import UTC_DAYS, UTC_ZONE, Partitions
from headrace.settings import Settings
from headrace.storage.connections import open_connection
from headrace.storage.digests import Digests
from headrace.storage.local_folder import LocalFolder
from headrace.storage.manifest import FORMAT_1_FILE
from headrace.storage.partition_entry import PartitionEntry, SourceObject
from headrace.storage.partition_names import (
    LONG_KEY_HASH,
    MAX_NAME_BYTES,
    OBJECT_SEPARATOR,
    is_impossible_interval,
    object_entries,
    recorded_interval,
)
from headrace.storage.s3.bucket import Bucket, Download
from headrace.storage.s3.errors import ObjectChangedError, ObjectUnreadableError, StorageUnreachableError
from headrace.storage.s3.objects import ObjectMeta, object_address
from headrace.storage.table_store import TableStore
from headrace.unexpected_errors import is_failure

PARTITION_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._=-]*")
"""Valid partition names. A name becomes a file name, so a key such as `../x` must not match. None holds a `+`: see
`partition_names`."""

MAX_SHARED_NAME = MAX_NAME_BYTES - len(OBJECT_SEPARATOR) - LONG_KEY_HASH
"""Most characters of a partition's name where it has several objects: each entry has a hash, too."""

OTHER_NAME = "{!a} is no {}, such as {}: correct the pattern or the key, or declare the source's `partitions`"
LONG_NAME = "its partition name has {:,} characters, more than the {:,} allowed"


class InvalidSourceError(HeadraceError):
    """A source is declared in a place that cannot be."""


class ObjectStore(Protocol):
    """What ingest needs of a bucket. `Bucket` and `LocalFolder` implement it."""

    @property
    def name(self) -> str:
        """Name of the bucket, or `file:` and a path."""

    def list(self, prefix: str) -> Iterator[ObjectMeta]:
        """The objects whose keys begin with `prefix`."""

    def head(self, key: str) -> ObjectMeta | None:
        """The current version of an object; None if it does not exist."""

    def download(self, listed: ObjectMeta, path: Path) -> Download:
        """Write the bytes of the listed version to `path`."""


@dataclass(frozen=True)
class StoreName:
    """What one connection to a store is made for.

    Attributes:
        bucket: As `ObjectLocation`.
        connection: As a source declares it.
        folder: Of a folder of this machine, the address that is declared: its links do not lead out of it.
    """

    bucket: str
    connection: str = ""
    folder: ObjectLocation | None = None

    @classmethod
    def from_source(cls, source: ObjectSource) -> "StoreName":
        """The store that a source is in.

        Raises:
            InvalidSourceError: Its location is no address.
        """
        place = place_of(source)
        return cls(place.bucket, source.connection, place if place.is_folder and place.is_base else None)


def place_of(source: ObjectSource) -> ObjectLocation:
    """Where the objects of a source are.

    Raises:
        InvalidSourceError: Its location is no address.
    """
    try:
        return source.parsed_location
    except InvalidLocationError as error:
        raise InvalidSourceError(f"location: {error}.") from None


def open_object_store(name: StoreName, settings: Settings, root: Path) -> ObjectStore:
    """The bucket, or the folder that stands in for one.

    Args:
        name: As a source declares it; an empty bucket is that of the settings.
        settings: Default bucket, and endpoint.
        root: The project, which relative folders are relative to.

    Raises:
        NotConfiguredError: The connection has no variables, or such that cannot be used.
        FolderError: There is no such folder.
    """
    bucket = name.bucket or settings.bucket
    if bucket.startswith(FOLDER_SCHEME):
        folder = LocalFolder.from_url(bucket, root)
        return folder.confined_to(name.folder, root) if name.folder else folder
    if name.connection or bucket.startswith((GOOGLE, AZURE)):
        return open_connection(bucket, name.connection)
    return Bucket(bucket, endpoint=settings.s3_endpoint)


def list_objects(store: ObjectStore, place: ObjectLocation) -> Iterator[ObjectMeta]:
    """The objects of a location; the one that its address names itself comes first."""
    if place.object_key and (named := store.head(place.object_key)):
        yield named
    yield from store.list(place.prefix)


@dataclass(frozen=True)
class ObjectListing:
    """The objects of a source. Implements `SourceListing`.

    Attributes:
        table_store: The workspace's tables.
        bucket: The bucket that was listed, or the folder in its place.
        description: Address of the prefix.
        matched: The objects, by what their keys name.
        threads: Number of objects that are downloaded at the same time.
        partitions: How the source is cut.
    """

    table_store: TableStore
    bucket: ObjectStore
    description: str
    matched: "MatchedObjects"
    threads: int
    partitions: Partitions = UTC_DAYS

    @classmethod
    def from_bucket(
        cls,
        table_store: TableStore,
        bucket: ObjectStore,
        source: ObjectSource,
        threads: int,
        partitions: Partitions | None = None,
    ) -> "ObjectListing":
        """List the source's prefix once.

        Args:
            table_store: The workspace's tables.
            bucket: The bucket, or the folder in its place.
            source: What is listed.
            threads: Number of objects that are downloaded at the same time.
            partitions: What keys have to name, but for the whole table; None if any name will do.
        """
        place = place_of(source)
        matched = match_partitions(source, list_objects(bucket, place), partitions)
        address = object_address(bucket.name, place.object_key or place.prefix)
        return cls(table_store, bucket, address, matched, threads, partitions or UTC_DAYS)

    @property
    def objects(self) -> Mapping[str, ObjectMeta]:
        """Entry → object."""
        return self.matched.objects

    @property
    def unmatched(self) -> tuple[str, ...]:
        return self.matched.unmatched

    @property
    def invalid(self) -> Mapping[str, str]:
        return self.matched.invalid

    @property
    def waiting(self) -> tuple[str, ...]:
        return self.matched.waiting

    @property
    def errors(self) -> Mapping[str, HeadraceError]:
        """None: what cannot be read is found when it is read."""
        return {}

    @property
    def columns(self) -> tuple[str, ...]:
        """None: objects are not opened."""
        return ()

    @property
    def libraries(self) -> Mapping[str, str]:
        """None: no library touches the bytes."""
        return {}

    @property
    def always_read(self) -> frozenset[str]:
        """None: the ETag changes with the bytes."""
        return frozenset()

    @cached_property
    def cache_keys(self) -> Mapping[str, str]:
        return {entry: self._cache_key(listed) for entry, listed in self.objects.items()}

    def amount_to_read(self, partitions: Iterable[str]) -> int:
        """Bytes of the objects."""
        return sum(self.objects[name].size for name in partitions)

    def address(self, partition: str) -> str:
        return object_address(self.bucket.name, self.objects[partition].key) if partition in self.objects else ""

    def read(self, partitions: Iterable[str]) -> Iterator[tuple[str, PartitionEntry | HeadraceError | None]]:
        """Download objects in parallel threads. Yields in the order of completion.

        Raises:
            StorageUnreachableError: The server does not answer. The other downloads would wait as long for it.
        """
        with ThreadPoolExecutor(self.threads) as pool:
            pending = {pool.submit(self._download, name, self.objects[name]): name for name in partitions}
            try:
                for future in as_completed(pending):
                    yield pending[future], _result(future)
            finally:
                # A caller that stops iterating would otherwise wait for every download that is still queued.
                pool.shutdown(wait=True, cancel_futures=True)

    def _download(self, partition: str, listed: ObjectMeta, *, retry: bool = True) -> PartitionEntry | None:
        """Store the listed version of an object.

        A listing is not a lock: the object may be replaced or deleted before it is read. The bucket's conditional read
        then fails, the object is looked up again and the new version is read. A second change is an error.
        """
        downloads: list[Download] = []

        def receive(path: Path) -> Digests:
            downloads.append(self.bucket.download(listed, path))
            return downloads[0].digests

        try:
            stored = self.table_store.cache.add_hashed(receive)
        except ObjectChangedError:
            if not retry:
                raise
            current = self.bucket.head(listed.key)
            return self._download(partition, current, retry=False) if current else None
        source = SourceObject(self.bucket.name, listed.key, listed.etag, stored.sha256, downloads[0].object.version)
        start, end = recorded_interval(self.partitions, partition)
        return PartitionEntry(
            self._cache_key(listed),
            stored.md5,
            stored.size,
            sha256=stored.sha256,
            start=start,
            end=end,
            objects=(source,),
        )

    def _cache_key(self, listed: ObjectMeta) -> str:
        # `ListObjectsV2` returns no version ids, so the ETag and the size stand for the version.
        zone = [] if self.partitions.timezone == UTC_ZONE else [self.partitions.timezone]  # it decides the interval
        return compute_cache_key([self.bucket.name, listed.key, listed.etag, listed.size, *zone])


def _result(future: Future[PartitionEntry | None]) -> PartitionEntry | HeadraceError | None:
    """What became of a download.

    Raises:
        StorageUnreachableError: The server does not answer.
    """
    error = future.exception()
    if error is None:
        return future.result()
    is_unreachable = isinstance(error, StorageUnreachableError) and not isinstance(error, ObjectUnreadableError)
    if is_unreachable or not is_failure(error):
        raise error
    return to_known_error(error)


@dataclass(frozen=True)
class MatchedObjects:
    """The objects below a prefix, by what their keys name.

    Attributes:
        objects: Entry of the raw table → object.
        unmatched: Keys that do not match the source's pattern.
        invalid: Key → why what it names cannot be a partition.
        waiting: Partitions of which a folder has no marker.
        listed: Number of keys, markers included.
    """

    objects: Mapping[str, ObjectMeta]
    unmatched: tuple[str, ...]
    invalid: Mapping[str, str]
    waiting: tuple[str, ...]
    listed: int


def match_partitions(
    source: ObjectSource, listed: Iterable[ObjectMeta], partitions: Partitions | None = None
) -> MatchedObjects:
    """The partitions of listed objects.

    Args:
        source: Their source.
        listed: The objects below its prefix.
        partitions: What keys have to name, but for the whole table; None if any name will do.
    """
    pattern, place = re.compile(source.partition), source.parsed_location
    found: dict[str, list[ObjectMeta]] = {}
    unmatched: list[str] = []
    invalid: dict[str, str] = {}
    complete: set[str] = set()
    items = list(listed)
    for item in items:
        if source.marker and _file_name(item.key) == source.marker:
            complete.add(_folder(item.key))
        elif (partition := _partition_name(pattern, place.below(item.key))) is None:
            unmatched.append(item.key)
        elif not _is_unicode(item.key):
            invalid[item.key] = "its name is not UTF-8: rename the file"
        elif reason := _name_fault(partition, source.suffix, partitions):
            invalid[item.key] = reason
        else:
            found.setdefault(partition, []).append(item)
    objects: dict[str, ObjectMeta] = {}
    waiting: list[str] = []
    for partition, members in found.items():
        by_key = {item.key: item for item in members}
        if source.marker and not complete.issuperset(map(_folder, by_key)):
            waiting.append(partition)
        elif (source.media or len(by_key) > 1) and len(partition) > MAX_SHARED_NAME:
            invalid |= dict.fromkeys(by_key, LONG_NAME.format(len(partition), MAX_SHARED_NAME))
        else:
            objects |= {
                entry: by_key[key] for entry, key in object_entries(partition, by_key, is_media=source.media).items()
            }
    return MatchedObjects(objects, tuple(unmatched), invalid, tuple(sorted(waiting)), len(items))


def _is_unicode(key: str) -> bool:
    """Whether a key is text: the name of a file may be any bytes, and Python shows those as halves of characters."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def _folder(key: str) -> str:
    return key.rpartition("/")[0]


def _file_name(key: str) -> str:
    return key.rpartition("/")[2]


def _partition_name(pattern: re.Pattern[str], key: str) -> str | None:
    match = pattern.fullmatch(key)
    if not match:
        return None
    name = match["partition"] if "partition" in pattern.groupindex else UNPARTITIONED
    return name if name and PARTITION_NAME.fullmatch(name) else None


def _form_fault(partitions: Partitions | None, name: str) -> str:
    """Why a name is none of these partitions; empty if it is one."""
    if partitions is None or name == UNPARTITIONED or partitions.is_valid(name):
        return ""
    return OTHER_NAME.format(name, partitions.label, partitions.example)


def _name_fault(partition: str, suffix: str, partitions: Partitions | None) -> str:
    """Why a name cannot be that of a partition; empty if it can."""
    if is_impossible_interval(partition):
        return f"{partition} is not in the calendar"
    if fault := _form_fault(partitions, partition):
        return fault
    if len(partition) > MAX_NAME_BYTES:
        return LONG_NAME.format(len(partition), MAX_NAME_BYTES)
    if partition + suffix == FORMAT_1_FILE:
        return f"a table's manifest was called {FORMAT_1_FILE} until version 0.2"
    return ""
