"""release, release → what differs: partitions, rows, columns, and the code, parameters and libraries behind them.

Manifests say it, and of each table that differs the schema of one Parquet file a side; the partitions that differ are
read only where every row is asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from headrace.lineage import row_diff as rows
from headrace.lineage.history import Tables, UnknownPlaceError, spoken
from headrace.lineage.row_diff import Rows
from headrace.project.loading import load_dataset
from headrace.release.release import PartitionDiff, list_releases
from headrace.storage.manifest import Manifest
from headrace.storage.table_store import Lake

RECIPE = {"code": "code", "params": "parameter", "libraries": "library"}
"""What a manifest says of how its table was made, and what one of it is called."""


@dataclass(frozen=True)
class Columns:
    """Columns that a table gained, lost, and keeps with another type (old, new)."""

    added: Mapping[str, str]
    removed: Mapping[str, str]
    retyped: Mapping[str, tuple[str, str]]

    @classmethod
    def between(cls, before: Mapping[str, str], after: Mapping[str, str]) -> "Columns":
        """What leads from one schema to the other."""
        return cls(
            {name: kind for name, kind in after.items() if name not in before},
            {name: kind for name, kind in before.items() if name not in after},
            {name: (before[name], kind) for name, kind in after.items() if before.get(name, kind) != kind},
        )

    def __str__(self) -> str:
        """For people; empty if there is nothing to say."""
        added = (f"+{name} {kind}" for name, kind in self.added.items())
        removed = (f"-{name} {kind}" for name, kind in self.removed.items())
        retyped = (f"{name} {old} → {new}" for name, (old, new) in self.retyped.items())
        return ", ".join((*added, *removed, *retyped))


@dataclass(frozen=True)
class TableDiff:
    """What became of one table.

    Attributes:
        table: Its name.
        partitions: Those that were added, changed and removed.
        rows: Kind of partition (`added`, `changed`, `removed`, `all`) → rows before and after; None for raw bytes,
            whose rows nobody has counted.
        columns: How its schema changed.
        recipe: What it is made with that is not what it was, for people: `code pipelines/…`.
        compared: Its rows, compared one by one where that was asked for.
    """

    table: str
    partitions: PartitionDiff
    rows: Mapping[str, tuple[int, int]] | None
    columns: Columns
    recipe: Sequence[str]
    compared: Rows | None = None

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        rows = {name: {"before": one, "after": other} for name, (one, other) in (self.rows or {}).items()}
        compared = {"compared": vars(self.compared)} if self.compared else {}
        found = {**vars(self.partitions), "rows": rows or None, "columns": vars(self.columns), "recipe": self.recipe}
        return found | compared


@dataclass(frozen=True)
class ReleaseDiff:
    """What leads from one release to another: the tables that differ, and how many do not."""

    before: str
    after: str
    tables: Sequence[TableDiff]
    equal: int

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        tables = {found.table: found.to_dict() for found in self.tables}
        return {"before": self.before, "after": self.after, "tables": tables, "equal": self.equal}


def diff(lake: Lake, before: str, after: str, *, every_row: bool = False) -> ReleaseDiff:
    """What leads from the release `before` to the release `after` of the same dataset.

    Args:
        lake: The workspace.
        before: A release.
        after: Another one.
        every_row: Compare row by row, which reads the partitions that differ.

    Raises:
        UnknownPlaceError: One of them is none, or they are of two datasets.
        MissingObjectError: A manifest is neither in the cache nor on the remote.
    """
    dataset = before.partition("/")[0]
    for name in (before, after):
        _expect_release(lake, dataset, name)
    old, new = Tables.at(lake, dataset, before), Tables.at(lake, dataset, after)
    names = sorted({*old.names, *new.names})
    differ = [name for name in names if old.outs.get(name) != new.outs.get(name)]
    found = [between(lake, old.manifest(name), new.manifest(name)) for name in differ]
    if every_row:
        declared = load_dataset(dataset)
        sides = ((old.manifest(item.table), new.manifest(item.table)) for item in found)
        compared = (rows.between(lake, *side, rows.keys_of(declared, side[1].table)) for side in sides)
        found = [replace(item, compared=seen) for item, seen in zip(found, compared, strict=True)]
    return ReleaseDiff(before, after, found, len(names) - len(differ))


def between(lake: Lake, before: Manifest, after: Manifest) -> TableDiff:
    """What leads from one version of a table to another."""
    difference = PartitionDiff.between(before, after)
    columns = _columns(lake, before, after) if difference else Columns({}, {}, {})
    return TableDiff(after.table, difference, _rows(difference, before, after), columns, _recipe(before, after))


def _rows(difference: PartitionDiff, before: Manifest, after: Manifest) -> dict[str, tuple[int, int]] | None:
    entries = [*before.partitions.values(), *after.partitions.values()]
    if any(entry.rows is None for entry in entries):
        return None
    kinds = {**vars(difference), "all": [*before.partitions, *after.partitions]}
    return {kind: (_count(before, set(names)), _count(after, set(names))) for kind, names in kinds.items()}


def _count(manifest: Manifest, names: set[str]) -> int:
    return sum(entry.rows or 0 for name, entry in manifest.partitions.items() if name in names)


def _columns(lake: Lake, before: Manifest, after: Manifest) -> Columns:
    """From the newest partition that only one side has as it is; a table of no partition has no schema to compare."""
    one, other = _schema(lake, before, after), _schema(lake, after, before)
    return Columns.between(one, other) if one and other else Columns({}, {}, {})


def _schema(lake: Lake, manifest: Manifest, against: Manifest) -> dict[str, str]:
    if manifest.suffix != ".parquet" or not manifest.partitions:
        return {}
    there = {entry.md5 for entry in against.partitions.values()}
    own = [name for name, entry in manifest.partitions.items() if entry.md5 not in there]
    path = lake.cache.fetch(manifest.partitions[max(own or manifest.partitions)].md5)
    return {name: str(kind) for name, kind in pl.read_parquet_schema(path).items()}


def _recipe(before: Manifest, after: Manifest) -> list[str]:
    found = []
    for part, word in RECIPE.items():
        one, other = getattr(before, part), getattr(after, part)
        found += [f"{word} {name}" for name in sorted({*one, *other}) if one.get(name) != other.get(name)]
    return found if before.partitions and after.partitions else []


def _expect_release(lake: Lake, dataset: str, name: str) -> None:
    known = list_releases(lake, dataset)
    if name not in known:
        raise UnknownPlaceError(
            f"{name} is no release of {dataset} in {lake.root}. Those there are: {spoken(known)}."
            " `git fetch --tags` brings those of others."
        )
