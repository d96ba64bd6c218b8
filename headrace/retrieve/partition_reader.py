"""The feature tables of a release, read through their manifests: only the partitions and columns that can matter."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl

from headrace.dataset import UTC_MICROSECONDS, Dataset, FeatureTable
from headrace.partitions import ALL_TIME
from headrace.retrieve.asof import Bools, Int64s
from headrace.retrieve.errors import UnknownReleaseError, UnreadablePartitionError
from headrace.retrieve.hash_cache import hash_cache_of
from headrace.storage import git
from headrace.storage.dvc.push import PARALLEL
from headrace.storage.files import parse_yaml
from headrace.storage.manifest import Manifest
from headrace.storage.pruned_releases import check_not_pruned
from headrace.storage.table_schema import TableSchema, table_schema
from headrace.storage.table_store import TableStore

WORKSPACE = ""
"""In place of a release: the tables as the workspace has them now."""


ROW = "row"
"""Column of numbered rows: from 0 through all partitions that are read."""


def table_name(dataset: Dataset, table: FeatureTable) -> str:
    """Name of the table in the table store."""
    return f"features/{dataset.name}/{table.name}"


def read_manifest(table_store: TableStore, table: str, release: str = WORKSPACE) -> Manifest:
    """The manifest of `table` at `release`, wherever its bytes are.

    Raises:
        UnknownReleaseError: There is no such release, or the table is not in it.
    """
    return read_manifests(table_store, [table], release)[table]


def read_manifests(table_store: TableStore, tables: Sequence[str], release: str = WORKSPACE) -> dict[str, Manifest]:
    """The manifests of several tables; the release's `dvc.lock` is read once.

    Raises:
        UnknownReleaseError: There is no such release, or a table is not in it.
    """
    if release == WORKSPACE:
        return {table: table_store.manifest(table) for table in tables}
    outs = _outs(table_store.root, release)
    missing = [table for table in tables if f"data/{table}" not in outs]
    if missing:
        there = ", ".join(sorted(outs)) or "nothing"
        raise UnknownReleaseError(f"Release {release} has no table {missing[0]}: its dvc.lock records {there}.")
    return {table: table_store.manifest_of_directory(outs[f"data/{table}"]) or Manifest(table) for table in tables}


def _outs(root: Path, release: str) -> dict[str, str]:
    """Path → md5 of every output that the release records.

    Raises:
        PrunedReleaseError: The release was pruned.
        UnknownReleaseError: There is no such release.
    """
    check_not_pruned(root, release)
    lock = git.show(root, f"refs/tags/{release}", "dvc.lock")
    if lock is None:
        raise UnknownReleaseError(
            f"There is no release {release} in {root}, or no dvc.lock in it. `git fetch --tags` fetches those of"
            f" others; `git tag --list '{release.partition('/')[0]}/*'` lists them."
        )
    stages = parse_yaml(lock).get("stages", {})
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", ())}


@dataclass(frozen=True)
class PartitionReader:
    """Some partitions of one table.

    Attributes:
        table_store: Where their bytes are.
        manifest: The table.
        partitions: The partitions, in order.
        verify: Whether every file is hashed before it is read for the first time, and when it was touched since.
    """

    table_store: TableStore
    manifest: Manifest
    partitions: tuple[str, ...]
    verify: bool = True

    @classmethod
    def between(
        cls, table_store: TableStore, manifest: Manifest, since: int | None, until: int | None, *, verify: bool = True
    ) -> Self:
        """The partitions that may hold events from `since` to `until` (microseconds, both included, None for any)."""
        first, last = (None if time is None else _nearest_datetime(time) for time in (since, until))
        return cls(table_store, manifest, tuple(manifest.entries.overlapping(first, last)), verify)

    @cached_property
    def height(self) -> int:
        """How many rows there are, by the manifest."""
        return sum(self.manifest.partitions[name].rows or 0 for name in self.partitions)

    def read(self, columns: Sequence[str], where: pl.Expr | None = None, *, numbered: bool = False) -> pl.DataFrame:
        """The rows for which `where` holds, in partition order; if `numbered`, with a column `ROW` first.

        Raises:
            UnreadablePartitionError: A partition is missing or corrupt, or lacks a column.
        """
        if not self.partitions:
            first = self.manifest.entries.first
            if first is None:
                return pl.DataFrame(schema=dict.fromkeys(columns, pl.Null))
            return replace(self, partitions=(first,)).read(columns, pl.lit(value=False))
        paths = self.paths()
        try:
            if mixed := self._mixed(columns):
                scanned = mixed.scan(dict(zip(self.partitions, paths, strict=True)))
                scanned = scanned.with_row_index(ROW) if numbered else scanned
            else:
                scanned = pl.scan_parquet(paths, glob=False, row_index_name=ROW if numbered else None)
            rows = scanned.select([ROW, *columns] if numbered else columns)
            found = rows.collect() if where is None else rows.filter(where).collect(engine="streaming")
            return found.rechunk()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise self._refuse(columns, error) from error

    def _mixed(self, columns: Sequence[str]) -> TableSchema | None:
        """The columns of a table whose files differ in theirs, if these are in every file or have a declared default.

        A file may lack a feature that was declared after it was computed: it is stale, and null is not its value.
        """
        schema = table_schema(self.manifest)
        if schema is None:
            return None
        wanted = {number for number, column in schema.columns.items() if column.name in columns}
        declared = {column.id for column in self.manifest.columns}
        files = [{each.id for each in fields} for fields in schema.schemas.values()]
        return schema if all(wanted <= found | declared for found in files) else None

    def gather(self, columns: Sequence[str], row: Int64s, found: Bools) -> pl.DataFrame:
        """The rows of those numbers, where they were `found`, and any others where not.

        A partition that has none of them is not read.

        Raises:
            UnreadablePartitionError: A partition is missing or corrupt, or lacks a column.
        """
        sizes = np.array([self.manifest.partitions[name].rows for name in self.partitions])
        place = np.searchsorted(sizes.cumsum(), row, side="right")
        used = np.bincount(place[found], minlength=sizes.size) > 0
        skipped = np.where(used, 0, sizes).cumsum()
        part = replace(self, partitions=tuple(name for name, use in zip(self.partitions, used, strict=True) if use))
        return part.read(columns)[pl.Series(np.where(found, row - skipped[place], 0))]

    def newest_first(self, most: float = inf) -> Iterator[Self]:
        """The partitions from the newest on: one, then the two before it, the four before those.

        A partition holds the events of an interval: what is found in one is newer than all that older ones hold.

        Args:
            most: Rows that are given at a time, unless one partition alone has more.
        """
        names, take = self.partitions, 1
        while names:
            part = replace(self, partitions=names[-take:])
            while len(part.partitions) > 1 and part.height > most:
                part = replace(part, partitions=part.partitions[len(part.partitions) // 2 :])
            yield part
            names, take = names[: -len(part.partitions)], 2 * len(part.partitions)

    def paths(self) -> list[Path]:
        """Files of the partitions, in order. Those not known to be here and intact are fetched and hashed, in parallel.

        Raises:
            MissingObjectError: A partition is neither in the cache nor on the remote.
            UnreadablePartitionError: The bytes of one are not what the manifest says.
        """
        hashes = hash_cache_of(self.table_store.root)
        md5s = {name: self.manifest.partitions[name].md5 for name in self.partitions}
        paths = {name: self.table_store.cache.path(md5) for name, md5 in md5s.items()}
        unsure = [name for name, path in paths.items() if not hashes.is_unchanged(path, md5s[name])]
        try:
            if len(unsure) == 1:
                self._path(unsure[0])
            elif unsure:
                with ThreadPoolExecutor(PARALLEL) as pool:
                    list(pool.map(self._path, unsure))
        finally:
            hashes.append_unsaved()
        return [*paths.values()]

    def _path(self, name: str) -> Path:
        entry = self.manifest.partitions[name]
        path = self.table_store.cache.fetch(entry.md5, entry.sha256)
        if self.verify and not hash_cache_of(self.table_store.root).matches(path, entry.md5, entry.sha256):
            expected = f"md5 {entry.md5}, sha256 {entry.sha256}" if entry.sha256 else f"md5 {entry.md5}"
            raise UnreadablePartitionError(
                f"{self.manifest.table} {name}: expected {expected} and {entry.size} bytes, found others in"
                f" {path}. Delete that file, then run the same command again: it is fetched from the remote."
            )
        return path

    def _refuse(self, columns: Sequence[str], error: Exception) -> UnreadablePartitionError:
        for name in self.partitions:
            path = self._path(name)
            try:
                pl.scan_parquet(path).select(columns).collect()
            except (pl.exceptions.PolarsError, OSError) as own:
                reason = str(own).splitlines()[0]
                return UnreadablePartitionError(
                    f"{self.manifest.table} {name}: expected the columns {', '.join(columns)} in {path}; {reason}."
                    f" `headrace transform {self.manifest.table.split('/')[1]}` recomputes the table if it is stale."
                )
        return UnreadablePartitionError(
            f"{self.manifest.table}: its partitions {self.partitions[0]} to {self.partitions[-1]} do not fit together:"
            f" {str(error).splitlines()[0]}. They were computed by different declarations: run `headrace transform`."
        )


def partition_hashes(manifests: Sequence[Manifest]) -> Iterator[str]:
    """Lines that are equal when, and only when, the tables' rows are the same files."""
    for table in manifests:
        for name, md5 in sorted(table.md5s.items()):
            yield json.dumps([table.table, name, md5])


def to_utc_datetime(microseconds: int) -> datetime:
    """The time that many microseconds after 1970, exactly."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


def microseconds(time: datetime) -> int:
    """The inverse of `to_utc_datetime`; a time without a zone is in UTC, as in Feast."""
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def utc_literal(microseconds: int) -> pl.Expr:
    """That time as a Polars literal of the type `UTC_MICROSECONDS`."""
    return pl.lit(microseconds, dtype=pl.Int64).cast(UTC_MICROSECONDS)


def _nearest_datetime(microseconds: int) -> datetime:
    """The time that many microseconds after 1970, or the first or last one that there is."""
    try:
        return to_utc_datetime(microseconds)
    except OverflowError:
        return (ALL_TIME.start, ALL_TIME.end)[microseconds > 0]
