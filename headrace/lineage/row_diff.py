"""Finds the rows that were added, changed and removed between two versions of a table, by its declared key.

Reads the partitions that differ, one at a time, in both versions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from headrace.dataset import COMPUTED_STATES, KNOWN_TIME, Dataset
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
        "validated": {one.name: ((KNOWN_TIME,) if one.is_history else ()) + tuple(one.key) for one in dataset.sources},
        **{state: _row_keys(dataset, state) for state in COMPUTED_STATES},
        "labels": {task.name: (*task.keys, "sample_id") for task in dataset.labels},
    }
    return keys.get(state, {}).get(name, ())


def _row_keys(dataset: Dataset, state: str) -> dict[str, tuple[str, ...]]:
    return {table.name: table.row_key for table in dataset.kernel_tables if table.state == state}


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
    return find_changed_rows(old, new, key).counts


@dataclass(frozen=True)
class ChangedRows:
    """The rows that differ between two frames.

    Attributes:
        counts: How many were added, changed and removed.
        columns: Column of both frames → number of changed rows in which it has another value.
        key: Columns that the rows were matched by.
        changed: The changed rows, with the new values of the columns that both frames have, and the old ones.
    """

    counts: RowDiff
    columns: Mapping[str, int]
    key: Sequence[str]
    changed: pl.DataFrame

    def first(self, number: int) -> Iterator[tuple[dict[str, Any], dict[str, tuple[Any, Any]]]]:
        """Of the first changed rows: the key, and column → old and new value where they differ."""
        for row in self.changed.head(number).iter_rows(named=True):
            pairs = {name: (row[BEFORE + name], row[name]) for name in self.columns}
            yield {name: row[name] for name in self.key}, {name: it for name, it in pairs.items() if not _is_equal(*it)}


def find_changed_rows(old: pl.DataFrame, new: pl.DataFrame, key: Sequence[str]) -> ChangedRows:
    """Compare two frames, and keep the rows that changed. Without a key, a row with another value is another row."""
    shared = [name for name in new.columns if old.schema.get(name) == new.schema[name]]
    if not shared:
        return ChangedRows(RowDiff(added=new.height, removed=old.height), {}, (), new.clear())
    by = [*(key if key and set(key) <= set(shared) else shared), NTH]
    same_schema = len(shared) == len(old.columns) == len(new.columns)
    old, new = (frame.with_columns(pl.int_range(pl.len()).over(by[:-1]).alias(NTH)) for frame in (old, new))

    # In Polars NaN equals NaN, but null equals null only with `nulls_equal` and `eq_missing`.
    both = new.join(old.rename(lambda name: name if name in by else BEFORE + name), on=by, nulls_equal=True)
    values = [name for name in shared if name not in by]
    changed = both.filter(~pl.all_horizontal(pl.lit(same_schema), *map(_is_same, values)))
    differing = changed.select((~_is_same(name)).sum().alias(name) for name in values).rows(named=True)
    columns = {name: count for name, count in (differing[0] if differing else {}).items() if count}
    counts = RowDiff(new.height - both.height, changed.height, old.height - both.height)
    return ChangedRows(counts, columns, by[:-1], changed)


def _is_same(name: str) -> pl.Expr:
    return pl.col(name).eq_missing(pl.col(BEFORE + name))


def _is_equal(one: Any, other: Any) -> bool:  # noqa: ANN401  any values
    return bool(one == other) or (one != one and other != other)  # noqa: PLR0124  NaN, as Polars compares it
