"""partitions, partitions → rows that came, changed and went, told apart by the table's declared keys.

Reads the partitions that differ, one at a time and both sides of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from headrace.dataset import EVENT_TIME, Dataset
from headrace.storage.manifest import Manifest
from headrace.storage.table_store import Lake

NTH = "headrace nth"
"""Which of the rows of one key it is: where a key is there twice, the first is compared with the first."""

WAS = "headrace was "


@dataclass(frozen=True)
class Rows:
    """Rows that are new, that have other values, and that are gone."""

    added: int = 0
    changed: int = 0
    removed: int = 0

    def __add__(self, other: "Rows") -> "Rows":
        """Both together."""
        return Rows(self.added + other.added, self.changed + other.changed, self.removed + other.removed)

    def __str__(self) -> str:
        """For people: `+1 ~3 -0`."""
        return f"+{self.added:,} ~{self.changed:,} -{self.removed:,}"


def keys_of(dataset: Dataset, table: str) -> tuple[str, ...]:
    """What tells the rows of `table` apart, by today's declaration; nothing where none is declared."""
    state, _, name = table.split("/")
    declared: dict[str, Mapping[str, tuple[str, ...]]] = {
        "validated": {source.name: tuple(source.key) for source in dataset.sources},
        "features": {made.name: (*made.keys, EVENT_TIME) for made in dataset.features},
        "labels": {labeling.name: (*labeling.keys, "sample_id") for labeling in dataset.labels},
    }
    return declared.get(state, {}).get(name, ())


def between(lake: Lake, before: Manifest, after: Manifest, keys: Sequence[str]) -> Rows | None:
    """What became of the rows of a table; a row that moves to another partition went here and came there.

    None for raw bytes, whose rows nobody has counted.
    """
    had, has = before.partitions, after.partitions
    if any(entry.rows is None for entry in (*had.values(), *has.values())):
        return None
    found = Rows(
        added=sum(has[name].rows or 0 for name in has.keys() - had.keys()),
        removed=sum(had[name].rows or 0 for name in had.keys() - has.keys()),
    )
    for name in sorted(had.keys() & has.keys()):
        if had[name].md5 != has[name].md5:
            old, new = (pl.read_parquet(lake.cache.fetch(side[name].md5)) for side in (had, has))
            found += compared(old, new, keys)
    return found


def compared(old: pl.DataFrame, new: pl.DataFrame, keys: Sequence[str]) -> Rows:
    """What leads from the rows `old` to the rows `new`; without keys, a row with another value is another row."""
    shared = [name for name in new.columns if old.schema.get(name) == new.schema[name]]
    if not shared:
        return Rows(added=new.height, removed=old.height)
    by = [*(keys if keys and set(keys) <= set(shared) else shared), NTH]
    is_alike = len(shared) == len(old.columns) == len(new.columns)
    old, new = (frame.with_columns(pl.int_range(pl.len()).over(by[:-1]).alias(NTH)) for frame in (old, new))
    both = new.join(old.rename(lambda name: name if name in by else WAS + name), on=by, nulls_equal=True)
    same = pl.all_horizontal(pl.lit(is_alike), *(_is_same(name) for name in shared if name not in by))
    return Rows(new.height - both.height, both.filter(~same).height, old.height - both.height)


def _is_same(name: str) -> pl.Expr:
    return pl.col(name).eq_missing(pl.col(WAS + name))
