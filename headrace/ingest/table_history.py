"""The history of a database table: what changed between two snapshots, appended to partitions by known time.

A change set is a pure function of the history and the snapshot, the time of which is part of it. Rows that were
recorded never change. A row became known

- at the value of its watermark, if that is a time after the last snapshot that was recorded and not after this one:
  the source's own clock says when;
- else when this snapshot was taken. That holds for deletions, for watermarks that are NULL, no times, in the future, or
  before what was recorded already, and for the first snapshot, unless the source names an `initial_known_time`.

So no change becomes known before the last recorded snapshot: what was known by then stays as it was.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import polars as pl
from msgspec.structs import replace

from headrace.as_known import DELETE, latest_changes
from headrace.dataset import HISTORY_COLUMNS, KNOWN_TIME, OPERATION, SEEN_TIME, UTC_MICROSECONDS, TableSource
from headrace.engine.compute import store_partition
from headrace.errors import HeadraceError
from headrace.guards.vanished import Loss, TableLoss
from headrace.partitions import Partitions
from headrace.storage import parquet
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.partition_names import recorded_interval
from headrace.storage.table_store import TableStore
from headrace.text import pluralize

HISTORY = "history"
"""Metadata of a partition of a history: key, time and cache key of the newest snapshot that it has changes of."""

INSERT, UPDATE = "insert", "update"
IS_PRESENT, OLD = "\x1fis present", "\x1fold "
"""A column, and what others begin with, that only a query has: no name of data holds the separator of units."""

TICK = timedelta(microseconds=1)


class HistoryError(HeadraceError):
    """A snapshot cannot be compared with the history, or a history would be lost."""


@dataclass(frozen=True)
class SnapshotRows:
    """A table as one transaction shows it.

    Attributes:
        rows: All rows.
        seen: When the snapshot was taken, by the clock of the database.
        listing: Hash of the statistics of the table.
        query: Where the rows came from, for the manifest.
    """

    rows: pl.DataFrame
    seen: datetime
    listing: str
    query: Mapping[str, Any]


@dataclass(frozen=True)
class RecordedHistory:
    """What a history has recorded.

    Attributes:
        state: The last change of each row, deletions too; no columns where nothing was recorded.
        seen: Time of the newest snapshot that was recorded; None if there is none.
    """

    state: pl.DataFrame
    seen: datetime | None = None

    @property
    def present_rows(self) -> int:
        """Number of rows that are not deleted."""
        return self.state.filter(pl.col(OPERATION) != DELETE).height if self.seen else 0


def is_history(manifest: Manifest) -> bool:
    """Whether a raw table is a history."""
    return HISTORY in next((entry.metadata for entry in manifest.partitions.values()), {})


def recorded_listing(manifest: Manifest) -> str:
    """Hash of the statistics of the newest snapshot that was recorded; empty if there is none."""
    newest = _newest(manifest)
    return str(newest["listing"]) if newest else ""


def read_history(table_store: TableStore, manifest: Manifest, source: TableSource) -> RecordedHistory:
    """What the history in a raw table has recorded.

    Raises:
        HistoryError: It was recorded with another key.
    """
    newest = _newest(manifest)
    if newest is None:
        return RecordedHistory(pl.DataFrame())
    if tuple(newest["key"]) != tuple(source.key):
        raise HistoryError(
            f"{manifest.table}: expected the key ({', '.join(newest['key'])}), with which the history was recorded,"
            f" found ({', '.join(source.key)}) in the declaration. Nothing was recorded. Declare the old key again, or"
            " give the source another name: with another key, its history begins anew."
        )
    frames = [_read(table_store, manifest, name) for name in manifest.partitions]
    changes = pl.concat(frames, how="diagonal").lazy()
    return RecordedHistory(latest_changes(changes, source.key).collect(), datetime.fromisoformat(newest["seen"]))


def find_changes(history: RecordedHistory, snapshot: SnapshotRows, source: TableSource) -> pl.DataFrame:
    """The changes that a snapshot shows: rows with `known_time`, `seen_time` and `operation` after their own columns.

    Deletions have the last values of the row, also of columns that the snapshot lacks. A row whose watermark alone is
    another has not changed. A column that the history does not have was null in it; one that the snapshot lacks is not
    compared.

    Raises:
        HistoryError: The snapshot has two rows of one key or a key with NULL, a column of a name that a history adds,
            or one of another type than in the history.
    """
    if not snapshot.rows.width:  # of an empty table
        empty = history.state.drop(HISTORY_COLUMNS, strict=False).clear()
        snapshot = dataclasses.replace(snapshot, rows=empty)
        if history.seen is None:
            return empty
    _check_snapshot(snapshot.rows, source)
    seen = snapshot.seen if history.seen is None else max(snapshot.seen, history.seen + TICK)
    if history.seen is None:
        known = _initial_known_time(snapshot.rows, source, seen)
        return _as_changes(snapshot.rows, INSERT, seen, known)
    _check_types(history.state, snapshot.rows, source)
    before, key = history.state, list(source.key)
    earlier = before.select(
        *key,
        pl.col(OPERATION).ne(DELETE).alias(IS_PRESENT),
        *(pl.col(name).alias(OLD + name) for name in before.columns if name not in (*key, *HISTORY_COLUMNS)),
    )
    rows = snapshot.rows.join(earlier, on=key, how="left", maintain_order="left")
    was_present = pl.col(IS_PRESENT).fill_null(value=False)
    changed = rows.filter(~was_present | _is_changed(snapshot.rows, before, source))
    operation = pl.when(was_present).then(pl.lit(UPDATE)).otherwise(pl.lit(INSERT))
    known = _watermark_time(snapshot.rows, source.watermark, history.seen, seen)
    added = _as_changes(changed, operation, seen, known).select(*snapshot.rows.columns, *HISTORY_COLUMNS)
    gone = before.filter(pl.col(OPERATION) != DELETE).join(snapshot.rows, on=key, how="anti", maintain_order="left")
    deleted = _as_changes(gone, DELETE, seen, pl.lit(seen, UTC_MICROSECONDS))
    lost = [name for name in deleted.columns if name not in added.columns]
    without_values = [name for name in lost if deleted[name].null_count() == deleted.height]
    changes = pl.concat([added, deleted.drop(without_values)], how="diagonal")
    return changes.select(pl.exclude(HISTORY_COLUMNS), *HISTORY_COLUMNS)


def deletions_as_loss(table: str, history: RecordedHistory, changes: pl.DataFrame, source: TableSource) -> TableLoss:
    """What a snapshot shows as deleted, as the guards compare it with what there was."""
    deleted = changes.filter(pl.col(OPERATION) == DELETE).select(source.key)
    inserted = changes.filter(pl.col(OPERATION) == INSERT).height
    left = history.present_rows - deleted.height + inserted
    losses = [Loss("row", deleted.height, history.present_rows, left)] if deleted.height else []
    state = sha256("\n".join(sorted(map(str, deleted.rows()))).encode()).hexdigest()
    return TableLoss(table, losses, state=[state])


def count_operations(changes: pl.DataFrame) -> dict[str, int]:
    """Operation → number of changes, of the operations that there are."""
    if not changes.height:
        return {}
    counts = dict(changes[OPERATION].value_counts().iter_rows())
    return {kind: counts[kind] for kind in (INSERT, UPDATE, DELETE) if kind in counts}


def append_changes(
    table_store: TableStore,
    manifest: Manifest,
    changes: pl.DataFrame,
    partitions: Partitions,
    metadata: Mapping[str, Any],
) -> Manifest:
    """The raw table with more changes, each in the partition of its known time.

    Args:
        table_store: Whose cache the partitions are written into. Nothing is visible before the manifest is.
        manifest: The table so far.
        changes: The changes.
        partitions: How it is cut.
        metadata: What the manifest says of the partitions that are written.
    """
    key = tuple(metadata[HISTORY]["key"])
    entries: dict[str, PartitionEntry] = {}
    for name, added in _by_partition(changes, partitions):
        old = [_read(table_store, manifest, name)] if name in manifest.partitions else []
        rows = pl.concat([*old, added], how="diagonal")
        ordered = rows.select(pl.exclude(HISTORY_COLUMNS), *HISTORY_COLUMNS)
        entry = store_partition(
            table_store.cache,
            parquet.canonical(ordered, (KNOWN_TIME, *key)),
            name,
            "",
            recorded_interval(partitions, name),
        )
        entries[name] = replace(entry, cache_key=entry.md5, metadata=metadata)
    return manifest.plus(entries)


def history_metadata(snapshot: SnapshotRows, changes: pl.DataFrame, source: TableSource) -> dict[str, Any]:
    """What the manifest says of a partition that has changes of a snapshot."""
    seen = max(changes[SEEN_TIME])
    return {
        "query": dict(snapshot.query),
        HISTORY: {"key": list(source.key), "seen": seen.isoformat(), "listing": snapshot.listing},
    }


def merge_histories(table_store: TableStore, released: Manifest, own: Manifest, partitions: Partitions) -> Manifest:
    """The changes of two versions of one history, which were recorded in two places.

    A released row stays as it is. A change that both have recorded is kept as it was released. What identifies it are
    the key, the values, whether it is a deletion, and, where a row has become the same several times, which of them.
    A change that only one of them has seen keeps its known time.

    Args:
        table_store: Whose cache has the partitions, or gets them from the remote.
        released: The table as a release records it.
        own: The table of the workspace.
        partitions: How it is cut.
    """
    newest, theirs = _newest(own), _newest(released)
    if newest is None or theirs is None or released.md5s == own.md5s:
        return own if newest else released
    changes, had = (
        [_read(table_store, one, name) for name, md5 in one.md5s.items() if other.md5s.get(name) != md5]
        for one, other in ((own, released), (released, own))
    )
    if not changes:
        return released
    key, latest = tuple(newest["key"]), max((theirs, newest), key=_seen)
    known = pl.concat(had, how="diagonal") if had else changes[0].clear()
    added = _only_in(pl.concat(changes, how="diagonal"), known, key)
    query = _query_of(own if latest is newest else released, latest)
    return append_changes(table_store, released, added, partitions, {"query": query, HISTORY: latest})


def _only_in(ours: pl.DataFrame, theirs: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """The changes of `ours` that `theirs` does not have."""
    columns = sorted({*ours.columns, *theirs.columns} - {*HISTORY_COLUMNS})
    there = Counter(_states(theirs, columns))
    met, is_new = Counter[str](), []
    ordered = ours.sort(KNOWN_TIME, maintain_order=True)
    for state in _states(ordered, columns):
        met[state] += 1
        is_new.append(met[state] > there[state])
    return _without_shared_times(ordered.filter(pl.Series(is_new, dtype=pl.Boolean)), theirs, key)


def _states(changes: pl.DataFrame, columns: Sequence[str]) -> Iterator[str]:
    """What each row became, as text: its values, or that it was deleted. A column that is not there is null."""
    missing = [pl.lit(None).alias(name) for name in columns if name not in changes.columns]
    rows = changes.with_columns(*missing).select(*columns, pl.col(OPERATION) == DELETE)
    return map(repr, rows.iter_rows())


def _without_shared_times(added: pl.DataFrame, theirs: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """The changes, each so many ticks later that no other row of its key has its known time."""
    columns = [*key, KNOWN_TIME]
    taken, times = set(theirs.select(columns).iter_rows()), []
    for *values, time in added.select(columns).iter_rows():
        while (*values, time) in taken:
            time += TICK  # noqa: PLW2901
        taken.add((*values, time))
        times.append(time)
    return added.with_columns(pl.Series(KNOWN_TIME, times, UTC_MICROSECONDS))


def _as_changes(rows: pl.DataFrame, operation: str | pl.Expr, seen: datetime, known: pl.Expr) -> pl.DataFrame:
    operation = pl.lit(operation) if isinstance(operation, str) else operation
    return rows.with_columns(
        known.alias(KNOWN_TIME), pl.lit(seen, UTC_MICROSECONDS).alias(SEEN_TIME), operation.alias(OPERATION)
    )


def _initial_known_time(rows: pl.DataFrame, source: TableSource, seen: datetime) -> pl.Expr:
    at = pl.lit(seen, UTC_MICROSECONDS)
    column = source.initial_known_time
    if not column:
        return at
    if rows.schema[column] != UTC_MICROSECONDS:
        raise HistoryError(
            f"{source.label}: expected times in {column}, which `initial_known_time` names, found"
            f" {rows.schema[column]}. Name a column of times, or leave it out: the rows are then known since the"
            " first snapshot."
        )
    return pl.when(pl.col(column) <= at).then(column).otherwise(at)


def _watermark_time(rows: pl.DataFrame, watermark: str | None, after: datetime, seen: datetime) -> pl.Expr:
    """When the rows became known, by their watermark where it can be."""
    at = pl.lit(seen, UTC_MICROSECONDS)
    if watermark is None or rows.schema[watermark] != UTC_MICROSECONDS:
        return at
    is_between = pl.col(watermark).is_between(pl.lit(after, UTC_MICROSECONDS), at, closed="right")
    return pl.when(is_between).then(watermark).otherwise(at)


def _is_changed(rows: pl.DataFrame, before: pl.DataFrame, source: TableSource) -> pl.Expr:
    compared = [name for name in rows.columns if name not in (*source.key, source.watermark)]
    same = (
        pl.col(name).eq_missing(pl.col(OLD + name)) if name in before.columns else pl.col(name).is_null()
        for name in compared
    )
    return ~pl.all_horizontal(pl.lit(value=True), *same)


def _check_snapshot(rows: pl.DataFrame, source: TableSource) -> None:
    if taken := [name for name in HISTORY_COLUMNS if name in rows.columns]:
        raise HistoryError(
            f"{source.label}: expected no column {', '.join(taken)}, which a history adds, found it in the table."
            f" Declare a view that renames it: `{taken[0]} AS source_{taken[0]}`."
        )
    key = ", ".join(source.key)
    nulls = rows.filter(pl.any_horizontal(pl.col(source.key).is_null()))
    if nulls.height:
        raise HistoryError(
            f"{source.label}: expected a value in every column of the key ({key}), found NULL in"
            f" {pluralize(nulls.height, 'row')}: the changes of such a row cannot be followed. Nothing was recorded."
            " Correct the rows, or declare a view that leaves them out."
        )
    twice = rows.filter(pl.struct(source.key).is_duplicated())
    if twice.height:
        raise HistoryError(
            f"{source.label}: expected one row per key ({key}), found {pluralize(twice.height, 'row')} that share"
            f" theirs, {twice.select(source.key).row(0)} first. Nothing was recorded. Correct the rows, or the key"
            " in the declaration."
        )


def _check_types(before: pl.DataFrame, rows: pl.DataFrame, source: TableSource) -> None:
    if missing := [name for name in source.key if name not in before.columns]:
        raise HistoryError(f"{source.label}: expected the key columns {', '.join(missing)} in the history, found none.")
    for name, kind in rows.schema.items():
        if name in before.columns and before.schema[name] != kind:
            raise HistoryError(
                f"{source.label}: expected {name} to be {before.schema[name]}, as the history has it, found {kind}."
                " Nothing was recorded. Declare a view that casts it to the old type, or gives the new one another"
                " name."
            )


def _by_partition(changes: pl.DataFrame, partitions: Partitions) -> Iterator[tuple[str, pl.DataFrame]]:
    rows = changes.sort(KNOWN_TIME, maintain_order=True)
    times, first = rows[KNOWN_TIME], 0
    while first < rows.height:
        name = partitions.name_at(times[first])
        last = int(times.search_sorted(pl.Series([partitions.interval(name).end], dtype=UTC_MICROSECONDS)).item())
        last = max(last, first + 1)  # the last partition ends with the last time that there is
        yield name, rows[first:last]
        first = last


def _read(table_store: TableStore, manifest: Manifest, name: str) -> pl.DataFrame:
    entry = manifest.partitions[name]
    return pl.read_parquet(table_store.cache.fetch(entry.md5, entry.sha256))


def _newest(manifest: Manifest) -> dict[str, Any] | None:
    """What is recorded of the newest snapshot that the history has changes of."""
    metadata = manifest.entries.column("metadata").values()
    return max((each[HISTORY] for each in metadata if HISTORY in each), key=_seen, default=None)


def _seen(recorded: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(recorded["seen"])


def _query_of(manifest: Manifest, recorded: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = manifest.entries.column("metadata").values()
    return next(each["query"] for each in metadata if each.get(HISTORY) == recorded)
