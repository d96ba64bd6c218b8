"""Counts the rows that were added, changed and removed between two versions of a table, by its declared key.

Reads the partitions that differ, one at a time, in both versions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from headrace.dataset import EVENT_TIME, Dataset
from headrace.storage.manifest import Manifest
from headrace.storage.table_store import TableStore

NTH = "__nth"
"""Number of a row among those with the same key. If a key occurs twice, first is compared with first."""

BEFORE = "__before_"
"""Prefix of the old version's columns in the join."""


@dataclass(frozen=True)
class RowDiff:
    """Number of rows that were added, that have other values, and that were removed."""

    added: int = 0
    changed: int = 0
    removed: int = 0

    def __add__(self, other: "RowDiff") -> "RowDiff":
        return RowDiff(self.added + other.added, self.changed + other.changed, self.removed + other.removed)

    def __str__(self) -> str:
        return f"+{self.added:,} ~{self.changed:,} -{self.removed:,}"


def declared_key(dataset: Dataset, table: str) -> tuple[str, ...]:
    """The columns that identify a row of `table` in today's declaration; empty if none are declared."""
    state, _, name = table.split("/")
    keys: dict[str, Mapping[str, tuple[str, ...]]] = {
        "validated": {source.name: tuple(source.key) for source in dataset.sources},
        "features": {table.name: (*table.keys, EVENT_TIME) for table in dataset.features},
        "labels": {task.name: (*task.keys, "sample_id") for task in dataset.labels},
    }
    return keys.get(state, {}).get(name, ())


def diff_rows(table_store: TableStore, before: Manifest, after: Manifest, key: Sequence[str]) -> RowDiff | None:
    """Compare the rows of two versions of a table. A row that moved to another partition is removed and added.

    None for tables of unparsed objects, which have no row counts.
    """
    old, new = before.partitions, after.partitions
    if any(entry.rows is None for entry in (*old.values(), *new.values())):
        return None
    total = RowDiff(
        added=sum(new[name].rows or 0 for name in new.keys() - old.keys()),
        removed=sum(old[name].rows or 0 for name in old.keys() - new.keys()),
    )
    for name in sorted(old.keys() & new.keys()):
        if old[name].md5 != new[name].md5:
            entries = (old[name], new[name])
            old_rows, new_rows = (
                pl.read_parquet(table_store.cache.fetch(entry.md5, entry.sha256)) for entry in entries
            )
            total += compare_rows(old_rows, new_rows, key)
    return total


def compare_rows(old: pl.DataFrame, new: pl.DataFrame, key: Sequence[str]) -> RowDiff:
    """Compare two frames. Without a key, a row with another value is another row."""
    shared = [name for name in new.columns if old.schema.get(name) == new.schema[name]]
    if not shared:
        return RowDiff(added=new.height, removed=old.height)
    by = [*(key if key and set(key) <= set(shared) else shared), NTH]
    same_schema = len(shared) == len(old.columns) == len(new.columns)
    old, new = (frame.with_columns(pl.int_range(pl.len()).over(by[:-1]).alias(NTH)) for frame in (old, new))

    # In Polars NaN equals NaN, but null equals null only with `nulls_equal` and `eq_missing`.
    both = new.join(old.rename(lambda name: name if name in by else BEFORE + name), on=by, nulls_equal=True)
    same = pl.all_horizontal(pl.lit(same_schema), *(_is_same(name) for name in shared if name not in by))
    return RowDiff(new.height - both.height, both.filter(~same).height, old.height - both.height)


def _is_same(name: str) -> pl.Expr:
    return pl.col(name).eq_missing(pl.col(BEFORE + name))
