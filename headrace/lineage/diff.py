"""Compares two releases: partitions, rows and columns, and the code, parameters and libraries behind them.

Reads manifests and, for each table that differs, the schema of one Parquet file per release. The partitions that differ
are read only if a row-by-row comparison is asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from headrace.lineage.history import DatasetRevision, UnknownRevisionError, format_names
from headrace.lineage.row_diff import RowDiff, declared_key, diff_rows
from headrace.project.loading import load_dataset
from headrace.release.branches import list_releases
from headrace.release.changes import PartitionDiff
from headrace.storage.manifest import Manifest
from headrace.storage.pruned_releases import check_not_pruned
from headrace.storage.schema_diff import SchemaDiff, logical_columns
from headrace.storage.table_schema import MixedTypesError
from headrace.storage.table_store import TableStore

FINGERPRINT_PARTS = {"code": "code", "params": "parameter", "libraries": "library"}
"""Field of a manifest → what one of its items is called."""


@dataclass(frozen=True)
class TableDiff:
    """What changed in one table.

    Attributes:
        table: Its name.
        partitions: Partitions that were added, changed and removed.
        rows: Kind of partition (`added`, `changed`, `removed`, `all`) → row counts before and after; None for tables
            of unparsed objects, which have no row counts.
        columns: What changed in the schema.
        fingerprint: What changed in the fingerprint, for example `code pipelines/flights/windows.py`.
        row_diff: The row-by-row comparison, if it was asked for.
    """

    table: str
    partitions: PartitionDiff
    rows: Mapping[str, tuple[int, int]] | None
    columns: SchemaDiff
    fingerprint: Sequence[str]
    row_diff: RowDiff | None = None

    def to_dict(self) -> dict[str, Any]:
        """The difference as JSON."""
        rows = {kind: {"before": old, "after": new} for kind, (old, new) in (self.rows or {}).items()}
        content = {
            **vars(self.partitions),
            "rows": rows or None,
            "columns": vars(self.columns),
            "fingerprint": self.fingerprint,
        }
        return content | ({"row_diff": vars(self.row_diff)} if self.row_diff else {})


@dataclass(frozen=True)
class ReleaseDiff:
    """The tables that differ between two releases, and the number of tables that do not."""

    before: str
    after: str
    tables: Sequence[TableDiff]
    unchanged: int

    def to_dict(self) -> dict[str, Any]:
        """The difference as JSON."""
        tables = {diff.table: diff.to_dict() for diff in self.tables}
        return {"before": self.before, "after": self.after, "tables": tables, "unchanged": self.unchanged}


def diff_releases(table_store: TableStore, before: str, after: str, *, by_row: bool = False) -> ReleaseDiff:
    """Compare the releases `before` and `after` of one dataset.

    Args:
        table_store: The workspace's tables.
        before: A release.
        after: Another release of the same dataset.
        by_row: Compare row by row, which reads the partitions that differ.

    Raises:
        PrunedReleaseError: One of them was pruned.
        UnknownRevisionError: One of them is not a release, or they belong to different datasets.
        MissingObjectError: A manifest is neither in the cache nor on the remote.
    """
    dataset = before.partition("/")[0]
    for release in (before, after):
        _check_release_exists(table_store, dataset, release)
    old, new = DatasetRevision.open(table_store, dataset, before), DatasetRevision.open(table_store, dataset, after)
    names = sorted({*old.table_names, *new.table_names})
    differing = [name for name in names if old.directory_md5s.get(name) != new.directory_md5s.get(name)]
    diffs = [diff_tables(table_store, old.manifest(name), new.manifest(name)) for name in differing]
    if by_row:
        declared = load_dataset(dataset)
        row_diffs = [
            diff_rows(table_store, old.manifest(name), new.manifest(name), declared_key(declared, name))
            for name in differing
        ]
        diffs = [replace(diff, row_diff=rows) for diff, rows in zip(diffs, row_diffs, strict=True)]
    return ReleaseDiff(before, after, diffs, len(names) - len(differing))


def diff_tables(table_store: TableStore, before: Manifest, after: Manifest) -> TableDiff:
    """Compare two versions of a table."""
    partitions = PartitionDiff.between(before, after)
    columns = _diff_schemas(table_store, before, after)
    return TableDiff(
        after.table, partitions, _count_rows(partitions, before, after), columns, _diff_fingerprints(before, after)
    )


def _count_rows(partitions: PartitionDiff, before: Manifest, after: Manifest) -> dict[str, tuple[int, int]] | None:
    entries = [*before.partitions.values(), *after.partitions.values()]
    if any(entry.rows is None for entry in entries):
        return None
    kinds = {**vars(partitions), "all": [*before.partitions, *after.partitions]}
    return {kind: (_sum_rows(before, set(names)), _sum_rows(after, set(names))) for kind, names in kinds.items()}


def _sum_rows(manifest: Manifest, names: set[str]) -> int:
    return sum(entry.rows or 0 for name, entry in manifest.partitions.items() if name in names)


def _diff_schemas(table_store: TableStore, before: Manifest, after: Manifest) -> SchemaDiff:
    """Compares the columns as the manifests have them, or else the newest file that only one version has.

    A table without partitions has no schema to compare.
    """
    if not (before.partitions and after.partitions):
        return SchemaDiff()
    try:
        old_columns, new_columns = logical_columns(before), logical_columns(after)
    except MixedTypesError:  # a table that is computed in part
        old_columns, new_columns = {}, {}
    if old_columns and new_columns:
        return SchemaDiff.by_id(old_columns, new_columns)
    old, new = _read_schema(table_store, before, after), _read_schema(table_store, after, before)
    return SchemaDiff.between(old, new) if old and new else SchemaDiff()


def _read_schema(table_store: TableStore, manifest: Manifest, other: Manifest) -> dict[str, str]:
    if manifest.suffix != ".parquet" or not manifest.partitions or manifest.md5s == other.md5s:
        return {}
    other_md5s = set(other.md5s.values())
    # A partition that both versions share has the old schema even after the columns changed.
    own = [name for name, md5 in manifest.md5s.items() if md5 not in other_md5s]
    path = table_store.cache.fetch(manifest.md5s[max(own or manifest.md5s)])
    return {name: str(kind) for name, kind in pl.read_parquet_schema(path).items()}


def _diff_fingerprints(before: Manifest, after: Manifest) -> list[str]:
    if not (before.partitions and after.partitions):
        return []
    changes = []
    for part, item in FINGERPRINT_PARTS.items():
        old, new = getattr(before, part), getattr(after, part)
        changes += [f"{item} {name}" for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    if before.result_version != after.result_version:
        changes.append(f"result version {before.result_version} → {after.result_version}")
    return changes


def _check_release_exists(table_store: TableStore, dataset: str, release: str) -> None:
    releases = list_releases(table_store, dataset)
    if release not in releases:
        check_not_pruned(table_store.root, release)
        raise UnknownRevisionError(
            f"{release} is not a release of {dataset} in {table_store.root}. Its releases: {format_names(releases)}."
            " Run `git fetch --tags` to get those of others."
        )
