"""The annotations table as it grows: what it holds of a task, and events appended to their partitions.

Partitions are written into the cache only, a bounded number of events at a time. Nothing is visible before the commit.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import polars as pl
from msgspec.structs import replace

from headrace.engine.compute import store_partition
from headrace.label.aggregation import DISPUTES, REVIEW_EVENTS, latest_events
from headrace.label.annotations import SORT_KEYS, Row, TaskKey, TaskState, annotation_schema, latest_states
from headrace.storage import parquet
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.table_store import TableStore

Item = Sequence[object]
"""Sample id, event time and keys."""


class KnownItems(NamedTuple):
    """What the annotations in the table are about, as they were first collected."""

    by_annotation: Mapping[str, Item]
    by_sample: Mapping[str, Item]


BUFFERED_EVENTS = 20_000
"""Events kept in memory before they are written."""


@dataclass
class AnnotationLogWriter:
    """Appends events to the annotations table of a labeling task.

    Attributes:
        manifest: The table, as of the last `flush`.
        table_store: Whose cache the partitions are written into.
        keys: The items' key columns and their types.
        event_counts: Event → how often it was appended.
        disputed: Annotation id → the event that set it aside as perhaps not its author's, of the events appended.
    """

    manifest: Manifest
    table_store: TableStore
    keys: Mapping[str, pl.DataType]
    event_counts: Counter[str] = field(default_factory=Counter)
    _buffer: list[Row] = field(default_factory=list)
    disputed: dict[str, str] = field(default_factory=dict)
    _known: KnownItems | None = None

    def append(self, events: Iterable[Row]) -> None:
        """Take events; many are flushed at once."""
        self._buffer += events
        if len(self._buffer) >= BUFFERED_EVENTS:
            self.flush()

    def flush(self) -> None:
        """Write the buffered events into their partitions."""
        rows, self._buffer = self._buffer, []
        self.event_counts.update(row["event"] for row in rows)
        self.disputed |= {row["annotation_id"]: row["event"] for row in rows if row["event"] in DISPUTES}
        by_day: dict[str, list[Row]] = {}
        for row in rows:
            by_day.setdefault(row["event_time"].date().isoformat(), []).append(row)
        entries = {day: self._write_partition(day, added) for day, added in by_day.items()}
        self.manifest = self.manifest.plus(entries)

    def rewrite_without_field_ids(self) -> None:
        """Write again the partitions whose Parquet files have no field ids: those of versions up to 0.2."""
        old = [day for day, entry in self.manifest.partitions.items() if entry.schema is None]
        self.manifest = self.manifest.plus({day: self._write_partition(day, []) for day in old})

    def changed_partitions(self, before: Manifest) -> tuple[str, ...]:
        """Partitions that received events since the table was `before`."""
        days = sorted(self.manifest.partitions)
        return tuple(day for day in days if before.md5s.get(day) != self.manifest.md5s[day])

    def task_states(self, days: Iterable[str], task_ids: Iterable[int]) -> dict[TaskKey, TaskState]:
        """What the table holds of these tasks in these partitions."""
        states: dict[TaskKey, TaskState] = {}
        is_wanted = pl.col("task_id").is_in(list(task_ids))
        for day in sorted(set(days) & self.manifest.partitions.keys()):
            states |= latest_states(self._read_partition(day).filter(is_wanted))
        return states

    def known_items(self) -> KnownItems:
        """What each annotation, and each sample id, of the table is about; reads all of it, at the first call."""
        if self._known is None:
            columns = ["sample_id", "event_time", *self.keys]
            by_annotation: dict[str, Item] = {}
            by_sample: dict[str, Item] = {}
            for day in self.manifest.partitions:
                rows = self._read_partition(day).select("annotation_id", *columns).unique(maintain_order=True)
                for name, *item in rows.iter_rows():
                    by_annotation.setdefault(name, tuple(item))
                    by_sample.setdefault(str(item[0]), tuple(item))
            self._known = KnownItems(by_annotation, by_sample)
        return self._known

    def count_by_task(self) -> pl.DataFrame:
        """Of every task in the table, by number: `task_id`, `annotations`, whether it was `skipped`, and `day`."""
        columns = ("task_id", "annotation_id", "event", "updated_at", "was_cancelled")
        schema = {name: annotation_schema(self.keys)[name] for name in columns}
        empty = pl.DataFrame(schema=schema | {"day": pl.String()})
        frames = [
            latest_events(self._read_partition(day).select(columns)).with_columns(day=pl.lit(day))
            for day in self.manifest.partitions
        ]
        is_active, is_skip = pl.col("event") != "deleted", pl.col("was_cancelled")
        return (
            pl.concat([empty, *frames])
            .group_by("task_id", "day")
            .agg(annotations=(is_active & ~is_skip).sum().cast(pl.Int64), skipped=(is_active & is_skip).any())
            .sort("task_id", "day")
        )

    def _read_partition(self, day: str) -> pl.DataFrame:
        entry = self.manifest.partitions[day]
        return pl.read_parquet(self.table_store.cache.fetch(entry.md5, entry.sha256))

    def _write_partition(self, day: str, added: list[Row]) -> PartitionEntry:
        frame = pl.DataFrame(added, schema=annotation_schema(self.keys))
        whole = pl.concat([self._read_partition(day), frame]) if day in self.manifest.partitions else frame
        return _store(self.table_store, day, whole)


def _store(table_store: TableStore, day: str, events: pl.DataFrame) -> PartitionEntry:
    ordered = parquet.canonical(events, SORT_KEYS)
    entry = store_partition(table_store.cache, ordered, day, "")
    return replace(entry, cache_key=entry.md5, metadata=_statistics(ordered))


def merge_logs(table_store: TableStore, released: Manifest, own: Manifest) -> Manifest:
    """The events of two versions of one annotations table, which were collected in two places.

    Both may have seen the same event. Then the one that was released is kept: a released row never changes.

    Args:
        table_store: Whose cache has the partitions, or gets them from the remote.
        released: The table as a release records it.
        own: The table of the workspace.
    """
    merged = {**released.partitions, **own.partitions}
    for day in released.partitions.keys() & own.partitions.keys():
        entries = [manifest.partitions[day] for manifest in (released, own)]
        if len({entry.md5 for entry in entries}) > 1:
            frames = [pl.read_parquet(table_store.cache.fetch(entry.md5, entry.sha256)) for entry in entries]
            merged[day] = _store(table_store, day, merge_events(*frames))
    return own.with_partitions(merged)


def merge_events(released: pl.DataFrame, own: pl.DataFrame) -> pl.DataFrame:
    """The events of both, each once.

    What identifies an event: for an answer, the annotation and the time of its last edit, whether it was collected as
    created or as changed; for a deletion, the state that was deleted, as its own time is when somebody noticed; for a
    review decision, the state that it is about and its own time.
    """
    event = pl.col("event")
    is_deleted, is_review = event == "deleted", event.is_in(REVIEW_EVENTS)
    identity = (
        *(pl.col(name) for name in ("sample_id", "task_id", "annotation_id")),
        pl.when(is_deleted | is_review).then(event).alias("kind"),
        pl.when(is_deleted).then("deleted_state").otherwise("updated_at").alias("state"),
        pl.when(is_review).then("created_at").alias("decided_at"),
    )
    events = pl.concat([_with_deleted_state(released), _with_deleted_state(own)])
    is_first = events.select(pl.struct(identity).is_first_distinct()).to_series()
    return events.filter(is_first).drop("deleted_state")


def _with_deleted_state(events: pl.DataFrame) -> pl.DataFrame:
    """With the time of the last event before it that is no deletion, of each annotation."""
    state = pl.when(pl.col("event") != "deleted").then("updated_at")
    return events.sort("updated_at", pl.col("event") == "deleted", maintain_order=True).with_columns(
        deleted_state=state.forward_fill().over("annotation_id")
    )


def _statistics(frame: pl.DataFrame) -> dict[str, Any]:
    """What the next collect needs to know without reading the partition; `read_statistics` reads it back."""
    active = latest_events(frame).filter(pl.col("event") != "deleted")
    skips = int(active["was_cancelled"].sum())
    last_change = pl.col("task_changed_at").max().dt.strftime("%Y-%m-%dT%H:%M:%S%.6f%:z")
    return {
        "last_task_change": frame.select(last_change).item(),
        "annotations": active.height - skips,
        "skips": skips,
        "skipped_tasks": active.filter("was_cancelled")["task_id"].n_unique(),
    }


WRITTEN_BY_0_1 = {"newest": "last_task_change", "answers": "annotations", "skipped": "skipped_tasks"}


def read_statistics(manifest: Manifest) -> list[dict[str, Any]]:
    """Of each partition: `last_task_change`, and numbers of `annotations`, of `skips`, and of `skipped_tasks`."""
    metadata = manifest.entries.column("metadata").values()
    return [{WRITTEN_BY_0_1.get(name, name): value for name, value in each.items()} for each in metadata]
