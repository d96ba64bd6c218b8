"""What an ingest would read: every source listed, nothing read and nothing written.

A source that cannot be listed does not hide the others: its error is part of the result.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING

from headrace.dataset import Dataset, ObjectSource, RawSource, ReleaseSource, Source, raw_table
from headrace.errors import HeadraceError, TransientError
from headrace.ingest.ingest import (
    DEFAULT_THREADS,
    IngestRun,
    check_some_match,
    database_address,
    next_manifest,
    required_partitions,
    split_unchanged,
)
from headrace.ingest.listing import SourceListing
from headrace.ingest.object_source import ObjectListing, StoreName, open_object_store
from headrace.ingest.release_source import ReleasedTableListing
from headrace.object_location import FOLDER_SCHEME
from headrace.settings import Settings
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.partition_names import entries_by_partition, recorded_interval
from headrace.storage.table_store import TableStore

if TYPE_CHECKING:
    from headrace.ingest.database.read_transaction import ReadTransaction

KEYS_PER_REQUEST = 1000
"""Objects in one answer of `ListObjectsV2`."""

QUERIES_PER_TABLE = 2
"""One for the columns, one for the partitions and their statistics."""


@dataclass(frozen=True)
class ListingCost:
    """What a listing took.

    Attributes:
        objects: Objects that were listed; None for a database.
        requests: Requests to the object store.
        queries: Queries to the database.
        seconds: Time that it took.
    """

    objects: int | None
    requests: int
    queries: int
    seconds: float

    def __str__(self) -> str:
        parts = [f"{self.objects:,} objects"] if self.objects is not None else []
        for count, what in ((self.requests, "request"), (self.queries, "query")):
            plural = "queries" if what == "query" else f"{what}s"
            parts += [f"{count:,} {what if count == 1 else plural}"] if count else []
        return ", ".join([*parts, f"{self.seconds:.1f} s"])


@dataclass(frozen=True)
class SourcePreview:
    """What an ingest of one source would do.

    Attributes:
        source: Name of the source.
        table: The raw table.
        description: Address of the source.
        listed: Number of partitions in the source.
        new: Partitions that the table does not have.
        changed: Partitions that the source shows to be others.
        deleted: Partitions that the source no longer has.
        always_read: Partitions that every run reads, because no change of theirs would be seen.
        unmatched: Keys below the prefix that match no partition.
        invalid: Key → why what it names cannot be a partition.
        waiting: Partitions that the source has not completed.
        unreadable: Partition → why it cannot be read.
        size: Bytes to read; None for a database.
        rows: Rows to read; None for objects.
        columns: Columns of the database table; empty for objects.
        cost: What the listing took.
        error: Why the source could not be listed; None if it was.
        manifest: The raw table as it would be, with stand-ins for what is to be read; None if it could not be listed.
    """

    source: str
    table: str
    description: str = ""
    listed: int = 0
    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    always_read: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = ()
    invalid: Mapping[str, str] = field(default_factory=dict)
    waiting: tuple[str, ...] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None
    rows: int | None = None
    columns: tuple[str, ...] = ()
    cost: ListingCost | None = None
    error: HeadraceError | None = None
    manifest: Manifest | None = None

    @property
    def to_read(self) -> tuple[str, ...]:
        """Every partition that an ingest would read."""
        return (*self.new, *self.changed, *self.always_read)


def preview_sources(dataset: Dataset, table_store: TableStore, settings: Settings) -> list[SourcePreview]:
    """List every source of the dataset, and say what an ingest would read."""
    run = IngestRun(dataset, table_store, None, full_refresh=False, progress=lambda _name, _done, _all: None)
    listers = _Listers(table_store, settings, dataset)
    with listers.opened:
        return [_preview(run, source, partial(listers.list_source, source)) for source in dataset.raw_sources]


def _preview(run: IngestRun, source: RawSource, list_source: Callable[[], SourceListing]) -> SourcePreview:
    table, started = raw_table(run.dataset.name, source.name), time.monotonic()
    try:
        listing = list_source()
        check_some_match(source, listing)
    except HeadraceError as error:
        return SourcePreview(source.name, table, error=error)
    earlier = run.table_store.manifest(table)
    if isinstance(source, Source) and source.is_history:
        return _preview_history(source, listing, earlier, started)
    reused, missing = split_unchanged(run, source, listing, earlier)
    amount = listing.amount_to_read(missing)
    manifest = next_manifest(run, source, listing, earlier, reused | dict(_stand_ins(source, listing, missing)))
    had, has = earlier.partition_md5s, manifest.partition_md5s
    changed = sorted(name for name in had.keys() & has.keys() if had[name] != has[name])
    is_object = isinstance(source, Source) and isinstance(source.location, ObjectSource)
    return SourcePreview(
        source.name,
        table,
        listing.description,
        listed=len(entries_by_partition(listing.cache_keys)) + len(listing.waiting),
        new=tuple(sorted(has.keys() - had.keys())),
        changed=tuple(name for name in changed if name not in listing.always_read),
        deleted=tuple(sorted(had.keys() - has.keys())),
        always_read=tuple(name for name in changed if name in listing.always_read),
        unmatched=listing.unmatched,
        invalid=listing.invalid,
        waiting=tuple(listing.waiting),
        unreadable={name: str(error) for name, error in listing.errors.items()},
        size=amount if is_object else None,
        rows=None if is_object else amount,
        columns=listing.columns,
        cost=_cost(listing, time.monotonic() - started),
        manifest=manifest,
    )


def _preview_history(source: Source, listing: SourceListing, earlier: Manifest, started: float) -> SourcePreview:
    """A history is read whole if its statistics have changed; which changes they stand for, only the rows tell."""
    from headrace.ingest.table_history import recorded_listing  # noqa: PLC0415  most sources have none
    from headrace.ingest.table_source import TableSnapshot  # noqa: PLC0415

    if not isinstance(listing, TableSnapshot):
        raise TypeError(listing)
    is_changed = recorded_listing(earlier) != listing.digest
    day = source.partitioning.name_at(listing.taken_at)
    start, end = recorded_interval(source.partitioning, day)
    key = listing.digest
    changes = {day: PartitionEntry(key, f"to be read as {key}", 0, start=start, end=end)} if is_changed else {}
    return SourcePreview(
        source.name,
        earlier.table,
        listing.description,
        listed=len(listing.cache_keys),
        new=tuple(changes.keys() - earlier.md5s.keys()),
        changed=tuple(changes.keys() & earlier.md5s.keys()),
        always_read=() if is_changed else tuple(listing.always_read),
        unreadable={name: str(error) for name, error in listing.errors.items()},
        rows=listing.amount_to_read(listing.cache_keys) if is_changed or listing.always_read else 0,
        columns=listing.columns,
        cost=_cost(listing, time.monotonic() - started),
        manifest=earlier.plus(changes),
    )


def _stand_ins(source: RawSource, listing: SourceListing, names: Sequence[str]) -> Iterator[tuple[str, PartitionEntry]]:
    """What stands in for entries that are not read yet: they differ from any that a table was computed from.

    Of a table of another dataset, the entries are known.
    """
    if isinstance(listing, ReleasedTableListing):
        yield from listing.entries(names)
        return
    for name in names:
        start, end = recorded_interval(source.partitioning, name)
        key = listing.cache_keys[name]
        size = 0 if listing.columns else listing.amount_to_read([name])
        yield name, PartitionEntry(key, f"to be read as {key}", size, start=start, end=end)


def _cost(listing: SourceListing, seconds: float) -> ListingCost:
    if isinstance(listing, ReleasedTableListing):
        return ListingCost(None, 0, 0, seconds)
    if not isinstance(listing, ObjectListing):
        return ListingCost(None, 0, QUERIES_PER_TABLE, seconds)
    objects = listing.matched.listed
    is_folder = listing.description.startswith(FOLDER_SCHEME)
    return ListingCost(objects, 0 if is_folder else max(1, math.ceil(objects / KEYS_PER_REQUEST)), 0, seconds)


class _Listers:
    """Opens each bucket and each database once, and keeps them open while sources are listed."""

    def __init__(self, table_store: TableStore, settings: Settings, dataset: Dataset) -> None:
        self.table_store, self.settings, self.dataset, self.opened = table_store, settings, dataset.name, ExitStack()
        self.required = required_partitions(dataset)
        self._store = cache(partial(open_object_store, settings=settings, root=table_store.root))
        self._transaction = cache(self._open_transaction)
        self._unavailable: dict[StoreName | str, TransientError] = {}

    def list_source(self, source: RawSource) -> SourceListing:
        """The source as it is now.

        Raises:
            HeadraceError: It cannot be listed.
        """
        if isinstance(source, ReleaseSource):
            return ReleasedTableListing.resolve(self.table_store, self.dataset, source)
        location = source.location
        place = StoreName.from_source(location) if isinstance(location, ObjectSource) else location.database
        if place in self._unavailable:  # each attempt would wait as long as the first
            raise self._unavailable[place]
        try:
            return self._list(source)
        except TransientError as error:
            self._unavailable[place] = error
            raise

    def _list(self, source: Source) -> SourceListing:
        location = source.location
        if isinstance(location, ObjectSource):
            threads = self.settings.threads or DEFAULT_THREADS
            return ObjectListing.from_bucket(
                self.table_store,
                self._store(StoreName.from_source(location)),
                location,
                threads,
                self.required.get(source.name),
            )
        # Not needed in a run of objects, and slow to import.
        from headrace.ingest.database.backend import DatabaseError  # noqa: PLC0415
        from headrace.ingest.table_source import TableSnapshot  # noqa: PLC0415

        transaction = self._transaction(database_address(location, self.settings))
        try:
            return TableSnapshot.from_transaction(self.table_store, transaction, location, source.partitioning)
        except DatabaseError:
            if not transaction.backend.survives_errors:  # the next table needs another one
                self._transaction.cache_clear()
            raise

    def _open_transaction(self, address: str) -> "ReadTransaction":
        from headrace.ingest.database.read_transaction import open_read_transaction  # noqa: PLC0415

        return self.opened.enter_context(
            open_read_transaction(address, statement_timeout_s=self.settings.statement_timeout_s)
        )
