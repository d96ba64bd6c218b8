"""What a release says every key's value is: its latest row, at the moment at which all of the release is known."""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from random import Random
from typing import Self

import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.dataset import EVENT_TIME, FIRST_US, KNOWN_TIME, Dataset, FeatureTable
from headrace.retrieve.errors import MisplacedRowError, NothingToPublishError, UnreadablePartitionError
from headrace.retrieve.partition_reader import (
    PartitionReader,
    microseconds,
    partition_hashes,
    read_manifests,
    table_name,
    to_utc_datetime,
    utc_literal,
)
from headrace.storage.manifest import Manifest
from headrace.storage.table_store import TableStore
from headrace.transform.kernel import SPAN


@dataclass(frozen=True)
class Span:
    """The newest event time and the newest known time of some rows."""

    event: datetime
    known: datetime


@dataclass(frozen=True)
class Snapshot:
    """The feature tables of a release.

    Attributes:
        dataset: Whose.
        table_store: The workspace.
        release: Its name; empty for the tables as the workspace has them.
        manifests: Feature table → manifest.
    """

    dataset: Dataset
    table_store: TableStore
    release: str
    manifests: Mapping[str, Manifest]

    @classmethod
    def read(cls, dataset: Dataset, table_store: TableStore, release: str) -> Self:
        """Read the manifests; no row is read yet.

        Raises:
            NothingToPublishError: A table has no partition.
        """
        made = read_manifests(table_store, [table_name(dataset, table) for table in dataset.features], release)
        found = {table.name: made[table_name(dataset, table)] for table in dataset.features}
        empty = [name for name, table in found.items() if not table.partitions]
        if empty:
            raise NothingToPublishError(
                f"{release or dataset.name}: {', '.join(empty)} {'has' if len(empty) == 1 else 'have'} no partition."
                f" Run `headrace run {dataset.name}` first."
            )
        return cls(dataset, table_store, release, found)

    @cached_property
    def digest(self) -> str:
        """Equal for two releases when they put the same values online: same files, same declarations."""
        declared = [repr((t.name, t.keys, t.key_types, t.features, t.ttl)) for t in self.dataset.features]
        lines = [*declared, *partition_hashes(list(self.manifests.values()))]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]

    @cached_property
    def now(self) -> datetime:
        """The moment at which all of the release is known."""
        return max((max(span.event, span.known) for span in self.spans.values()), default=to_utc_datetime(0))

    @cached_property
    def spans(self) -> dict[str, Span]:
        """Feature table → its newest times; a table without rows has none.

        Raises:
            MisplacedRowError: A row's event time is not in the interval of its partition, so nobody would look for it
                there.
        """
        found = {}
        for table in self.dataset.features:
            spans = [span for _, span in self.partition_spans(table)]
            if spans:
                found[table.name] = Span(max(span.event for span in spans), max(span.known for span in spans))
        return found

    def partition_spans(self, table: FeatureTable) -> Iterator[tuple[str, Span]]:
        """Partition and its newest times, of the partitions that have rows.

        Raises:
            MisplacedRowError: As `spans`.
        """
        made = self.manifests[table.name]
        for name in made.partitions:
            if span := self._span(made, name):
                yield name, span

    def _span(self, made: Manifest, name: str) -> Span | None:
        """What the manifest tells of a partition's times, or its file where an older one does not: no row is read."""
        times = made.partitions[name].metadata.get(SPAN) or self._footer(made, name)
        if not times:
            return None
        first, last, known = (to_utc_datetime(times[which]) for which in ("first", "last", "known"))
        _check_interval(made, name, first, last)
        return Span(last, known)

    def _footer(self, made: Manifest, name: str) -> dict[str, int]:
        """The fact `SPAN`, from the statistics at the end of the file."""
        entry = made.partitions[name]
        path = self.table_store.cache.fetch(entry.md5, entry.sha256)
        try:
            footer = pq.read_metadata(path)
        except (pa.ArrowException, OSError) as error:
            raise UnreadablePartitionError(
                f"{made.table} {name}: expected a Parquet file in {path}; {error} Delete that file, then run the same"
                " command again: it is fetched from the remote."
            ) from error
        places = {footer.schema.column(place).name: place for place in range(footer.num_columns)}
        groups = [footer.row_group(group) for group in range(footer.num_row_groups)]
        events = [group.column(places[EVENT_TIME]).statistics for group in groups]
        known = [group.column(places[KNOWN_TIME]).statistics for group in groups]
        if not footer.num_rows:
            return {}
        first, last = min(found.min for found in events), max(found.max for found in events)
        times = {"first": first, "last": last, "known": max(found.max for found in known)}
        return {which: microseconds(time) for which, time in times.items()}

    @cached_property
    def latest(self) -> dict[str, pl.DataFrame]:
        """Feature table → the latest row of each key that is not older than the TTL.

        Raises:
            NothingToPublishError: There is none in any table.
        """
        found = {table.name: self.latest_rows_of(table, None) for table in self.dataset.features}
        if all(rows.is_empty() for rows in found.values()):
            raise self.empty_error()
        return found

    def empty_error(self) -> NothingToPublishError:
        """The error of a release without a single value."""
        return NothingToPublishError(
            f"{self.release or self.dataset.name}: no key of any feature table has a value within its TTL of"
            f" {self.now.isoformat()}, the newest event or known time of the release."
            " If that time is wrong, a source has a time in the future; otherwise the TTLs are too short."
        )

    def latest_rows_of(self, table: FeatureTable, keys: pl.DataFrame | None) -> pl.DataFrame:
        """The latest row of each of these keys, by default of all, that is not older than the TTL.

        Of some keys, the newest partitions are read first, and older ones only for the keys that are not in them.
        """
        columns = [*table.keys, EVENT_TIME, KNOWN_TIME, *table.features]
        window, names = self._window(table), list(table.keys)
        if keys is None:
            return latest_rows(window.read(columns), table, self.now)
        found, left = [], keys
        for part in window.newest_first():
            first = left[names[0]].unique().implode()
            rows = part.read(columns, pl.col(names[0]).is_in(first)).join(left, on=names, how="semi")
            found.append(latest_rows(rows, table, self.now))
            left = left.join(found[-1], on=names, how="anti")
            if left.is_empty():
                break
        return pl.concat(found) if found else window.read(columns).clear()

    def sample(self, table: FeatureTable, most: int) -> pl.DataFrame:
        """Keys that have a latest row: at most `most`, and all if there are fewer, of partitions in random order.

        The digest seeds the order: a release always has the same sample, and the next one another.
        """
        window, names, kinds = self._window(table), list(table.keys), _key_types(table)
        order = list(window.partitions)
        Random(f"{self.digest} {table.name}").shuffle(order)  # noqa: S311  a sample, no secret
        found = pl.DataFrame(schema=kinds)
        for name in order:
            part = replace(window, partitions=(name,))
            rows = part.read([*names, EVENT_TIME, KNOWN_TIME], is_current(table, self.now)).select(names).drop_nulls()
            some = rows.gather_every(max(1, rows.height // most)).cast(pl.Schema(kinds))
            found = pl.concat([found, some]).unique(maintain_order=True)
            if found.height >= most:
                break
        return found.head(most)

    def changed_keys(self, table: FeatureTable, before: "Snapshot") -> pl.DataFrame:
        """The only keys whose latest row can be another than in `before`.

        They have a row that only one of the two has, in a partition that came, went or differs; or one that only one of
        the two finds too old.
        """
        had, has = before.manifests[table.name], self.manifests[table.name]
        other = {name for name in {*had.partitions, *has.partitions} if _md5(had, name) != _md5(has, name)}
        columns = [*table.keys, EVENT_TIME, KNOWN_TIME, *table.features]
        one, two = (_some(self.table_store, made, other).read(columns) for made in (had, has))
        kinds = _key_types(table)
        parts = [*only_in_one(one, two), self._aged(table, before)]
        keys = [part.select(pl.col(name).cast(kind) for name, kind in kinds.items()) for part in parts]
        return pl.concat(keys).unique().drop_nulls()

    def _aged(self, table: FeatureTable, before: "Snapshot") -> pl.DataFrame:
        """Keys of the rows that only one of the two finds too old."""
        if not table.ttl or before.now == self.now:
            return pl.DataFrame(schema=_key_types(table))
        first, last = sorted(oldest_event_time(table, snapshot.now) for snapshot in (before, self))
        between = pl.col(EVENT_TIME).is_between(utc_literal(first), utc_literal(last))
        rows = PartitionReader.between(self.table_store, self.manifests[table.name], first, last)
        return rows.read([*table.keys, EVENT_TIME], between).select(table.keys)

    def _window(self, table: FeatureTable) -> PartitionReader:
        since = oldest_event_time(table, self.now) if table.ttl else None
        return PartitionReader.between(self.table_store, self.manifests[table.name], since, microseconds(self.now))

    def known_at(self, now: str) -> Self:
        """The same, `now` having been found before."""
        known = replace(self)
        known.__dict__["now"] = datetime.fromisoformat(now)
        return known


def oldest_event_time(table: FeatureTable, now: datetime) -> int:
    """The earliest event time that is within the TTL at `now`, in microseconds since 1970; not before the year 1."""
    return max(FIRST_US, microseconds(now) - table.ttl // timedelta(microseconds=1))


def is_current(table: FeatureTable, now: datetime) -> pl.Expr:
    """Whether a row is known at `now` and not older than the TTL."""
    end = utc_literal(microseconds(now))
    found = (pl.col(EVENT_TIME) <= end) & (pl.col(KNOWN_TIME) <= end)
    return found & (pl.col(EVENT_TIME) >= utc_literal(oldest_event_time(table, now))) if table.ttl else found


def latest_rows(rows: pl.DataFrame, table: FeatureTable, now: datetime) -> pl.DataFrame:
    """The newest row of each key at `now`: known by then, and not older than the TTL."""
    return (
        rows.filter(is_current(table, now))
        .drop_nulls(list(table.keys))
        .sort(*table.keys, EVENT_TIME, KNOWN_TIME, maintain_order=True)
        .unique(table.keys, keep="last", maintain_order=True)
    )


def only_in_one(one: pl.DataFrame, two: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Rows of either that the other has not, bit by bit: null equals null, and 0.0 does not equal -0.0."""
    one, two = (rows.with_columns(cs.float().map_batches(_bits)) for rows in (one, two))
    if not (one.height and two.height):
        yield from (one, two)
        return
    if one.height == two.height:
        # Most corrections change values in place: one pass finds those rows, and all others are equal.
        pairs = zip(one.get_columns(), two.get_columns(), strict=True)
        other = pl.select(pl.any_horizontal(mine.ne_missing(theirs) for mine, theirs in pairs)).to_series()
        one, two = one.filter(other), two.filter(other)
    for here, there in ((one, two), (two, one)):
        yield here.join(there, on=one.columns, how="anti", nulls_equal=True)


def _bits(column: pl.Series) -> pl.Series:
    """Floats as the whole numbers of the same bits; those that are not numbers as one of them."""
    plain = column.fill_nan(float("nan"))
    return plain.reinterpret(dtype=pl.UInt64 if column.dtype == pl.Float64 else pl.UInt32)


def _md5(made: Manifest, name: str) -> str:
    return made.partitions[name].md5 if name in made.partitions else ""


def _check_interval(made: Manifest, name: str, *times: datetime) -> None:
    start, end = made.partitions[name].interval(name)
    for time in times:
        if start is not None and end is not None and not start <= time < end:
            raise MisplacedRowError(
                f"{made.table} {name}: expected event times from {start.isoformat()} up to {end.isoformat()}, found"
                f" {time.isoformat()}. Retrieval would not find the row there. Fix the kernel, then run"
                f" `headrace transform {made.table.split('/')[1]}`."
            )


def _some(table_store: TableStore, made: Manifest, names: Collection[str]) -> PartitionReader:
    return PartitionReader(table_store, made, tuple(name for name in sorted(names) if name in made.partitions))


def _key_types(table: FeatureTable) -> dict[str, pl.DataType]:
    return {key: table.key_types.get(key, pl.String()) for key in table.keys}
