"""The annotations table as it grows: what it holds of a task, and events added to their days.

Days are written into the cache alone, a bounded number of events at a time; nothing is shown before the commit.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from headrace.label.aggregation import newest
from headrace.label.annotations import SORT_KEYS, Looked, Place, Row, known, schema
from headrace.storage import parquet
from headrace.storage.manifest import Entry, Manifest
from headrace.storage.table_store import Lake

HELD_EVENTS = 20_000
"""Events that are kept in memory before they are written: some 40 MB."""


@dataclass
class Ledger:
    """The annotations table of one question.

    Attributes:
        manifest: The table; `flush` moves it on.
        lake: Whose cache the days are written into.
        keys: The items' key columns and their types.
        counted: Event → how often it was added.
    """

    manifest: Manifest
    lake: Lake
    keys: Mapping[str, pl.DataType]
    counted: Counter[str] = field(default_factory=Counter)
    _waiting: list[Row] = field(default_factory=list)

    def add(self, rows: Iterable[Row]) -> None:
        """Take in events."""
        self._waiting += rows
        if len(self._waiting) >= HELD_EVENTS:
            self.flush()

    def flush(self) -> None:
        """Write the events that wait into their days."""
        rows, self._waiting = self._waiting, []
        self.counted.update(row["event"] for row in rows)
        by_day: dict[str, list[Row]] = {}
        for row in rows:
            by_day.setdefault(row["event_time"].date().isoformat(), []).append(row)
        grown = {day: self._grown(day, added) for day, added in by_day.items()}
        self.manifest = self.manifest.with_partitions({**self.manifest.partitions, **grown})

    def days_since(self, before: Manifest) -> tuple[str, ...]:
        """The days that got events since the table was `before`."""
        days = sorted(self.manifest.partitions)
        return tuple(day for day in days if before.lines.get(day) != self.manifest.lines[day])

    def held(self, days: Iterable[str], task_ids: Iterable[int]) -> dict[Place, Looked]:
        """What the table holds of these tasks on these days."""
        found: dict[Place, Looked] = {}
        chosen = pl.col("task_id").is_in(list(task_ids))
        for day in sorted(set(days) & self.manifest.partitions.keys()):
            found |= known(self._day(day).filter(chosen))
        return found

    def tasks(self) -> pl.DataFrame:
        """`task_id`, `answers` that stand, whether it was `skipped`, and `day`, of every task in the table, by id."""
        columns = ("task_id", "annotation_id", "event", "updated_at", "was_cancelled")
        none = pl.DataFrame(schema={name: schema(self.keys)[name] for name in columns} | {"day": pl.String()})
        frames = [
            newest(self._day(day).select(columns)).with_columns(day=pl.lit(day)) for day in self.manifest.partitions
        ]
        stands, off = pl.col("event") != "deleted", pl.col("was_cancelled")
        return (
            pl.concat([none, *frames])
            .group_by("task_id", "day")
            .agg(answers=(stands & ~off).sum().cast(pl.Int64), skipped=(stands & off).any())
            .sort("task_id", "day")
        )

    def _day(self, day: str) -> pl.DataFrame:
        return pl.read_parquet(self.lake.cache.fetch(self.manifest.partitions[day].md5))

    def _grown(self, day: str, added: list[Row]) -> Entry:
        frame = pl.DataFrame(added, schema=schema(self.keys))
        whole = pl.concat([self._day(day), frame]) if day in self.manifest.partitions else frame
        ordered = parquet.canonical(whole, SORT_KEYS)
        stored = self.lake.cache.add(lambda path: parquet.write(ordered, path))
        return Entry(stored.md5, stored.md5, stored.size, ordered.height, facts=_facts(ordered))


def _facts(frame: pl.DataFrame) -> dict[str, Any]:
    """What the next collect needs to know without reading the day."""
    stands = newest(frame).filter(pl.col("event") != "deleted")
    skips = int(stands["was_cancelled"].sum())
    stamp = pl.col("task_changed_at").max().dt.strftime("%Y-%m-%dT%H:%M:%S%.6f%:z")
    return {
        "newest": frame.select(stamp).item(),
        "answers": stands.height - skips,
        "skips": skips,
        "skipped": stands.filter("was_cancelled")["task_id"].n_unique(),
    }
