"""The tables of a dataset, at a release or as the workspace has them now.

Nothing is read until it is asked for. Bytes come out of the DVC cache, and from the remote if the cache lacks them, so
this works in a clone that never ran `dvc pull`. A partition is fetched whole: a range of an object cannot be compared
with the object's hash.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import polars as pl

from headrace.catalog.errors import EmptyTableError, NoSuchTableError, NotParquetError
from headrace.dataset import EVENT_TIME, Dataset
from headrace.extras import require_extra
from headrace.release.branches import list_releases
from headrace.retrieve.partition_reader import PartitionReader, partition_hashes
from headrace.retrieve.row_hash import hash_lines
from headrace.storage.dvc.lock import recorded_outs
from headrace.storage.manifest import Manifest
from headrace.storage.partition_names import RecordedInterval
from headrace.storage.table_schema import TableSchema, table_schema
from headrace.storage.table_store import TableStore
from headrace.text import pluralize

if TYPE_CHECKING:
    import duckdb
    import pandas as pd  # type: ignore[import-untyped]
    import pyarrow as pa
    from feast import FeatureStore

    from headrace.retrieve.result import RetrievalResult

BATCH_ROWS = 1_000_000
"""Approximate number of rows that a lazy frame reads at a time: enough for all cores, little memory for a laptop."""

BY_EVENT_TIME = ("features", "labels")
"""States whose partitions are intervals of `event_time`, as retrieval relies on too."""


@dataclass(frozen=True)
class DatasetTable:
    """A table, or a part of it. Every way to read it gives the same rows, in the order of the partitions.

    Attributes:
        name: State and name, such as `features/carrier_delays`.
        reader: The partitions that are read.
        columns: The columns that are read, in order; None for all of them.
    """

    name: str
    reader: PartitionReader
    columns: tuple[str, ...] | None = None

    @property
    def partitions(self) -> tuple[str, ...]:
        """Names of the partitions, in order; a day such as `2013-01-09`, or `all`."""
        return self.reader.partitions

    @property
    def rows(self) -> int | None:
        """Number of rows, from the manifest; None for raw files, whose rows are not counted."""
        counts = [self.reader.manifest.partitions[name].rows for name in self.partitions]
        return None if None in counts else sum(count or 0 for count in counts)

    @property
    def content_hash(self) -> str:
        """Hash over the names and hashes of the partitions: equal for equal bytes, in whatever release."""
        chosen = {name: self.reader.manifest.partitions[name] for name in self.partitions}
        return hash_lines(partition_hashes([self.reader.manifest.with_partitions(chosen)]))

    @cached_property
    def schema(self) -> pl.Schema:
        """Column → type. Fetches one partition, if none is in the cache, unless partitions differ in their columns."""
        self.check_rows()
        if self.mixed:
            found = pl.Schema(self.mixed.types)
            return pl.Schema({name: found[name] for name in self.columns or found})
        cache, md5s = self.reader.table_store.cache, self.reader.manifest.md5s
        some = next((name for name in self.partitions if cache.has(md5s[name])), self.partitions[0])
        found = pl.Schema(pl.read_parquet_schema(replace(self.reader, partitions=(some,)).paths()[0]))
        return pl.Schema({name: found[name] for name in self.columns or found})

    @cached_property
    def mixed(self) -> TableSchema | None:
        """The columns of a table whose partitions differ in theirs; None where they are those of any partition."""
        return table_schema(self.reader.manifest)

    def select(self, *, partitions: Iterable[str] | None = None, columns: Sequence[str] | None = None) -> Self:
        """The same table with fewer partitions or columns.

        Args:
            partitions: Names of partitions of this table, for example `[day for day in table.partitions if …]`.
            columns: Names of columns, in the order to read them.

        Raises:
            NoSuchTableError: The table has no partition of such a name.

        Examples:
            >>> table = headrace.open("flights")["features/carrier_delays"]
            >>> table.select(partitions=table.partitions[-1:], columns=["carrier", "event_time"])
            <DatasetTable features/carrier_delays: 1 partition (2013-01-03), 340 rows>
        """
        wanted = set(self.partitions if partitions is None else partitions)
        if missing := sorted(wanted.difference(self.partitions)):
            raise NoSuchTableError(
                f"{self.name} has no partition {missing[0]}; it has {_range(self.partitions)}. See `.partitions`."
            )
        reader = replace(self.reader, partitions=tuple(name for name in self.partitions if name in wanted))
        return replace(self, reader=reader, columns=self.columns if columns is None else tuple(columns))

    def paths(self) -> dict[str, Path]:
        """Partition → file in the cache, of raw tables too. Fetches the partitions; the files are read-only.

        Raises:
            MissingObjectError: A partition is neither in the cache nor on the remote.
            UnreadablePartitionError: A file does not have the hash that the manifest says.
        """
        return dict(zip(self.partitions, self.reader.paths(), strict=True))

    def polars(self) -> pl.LazyFrame:
        """A lazy frame. Collecting it fetches the partitions that it needs, and reads the columns that it needs.

        A filter on `event_time` of features and labels leaves out the other days; `head` stops at the first partitions.

        Raises:
            EmptyTableError: The table has no partition.
            NotParquetError: The table holds raw files of another format.
            polars.exceptions.ComputeError: While it is collected: a partition cannot be fetched or read. The message
                is that of `paths`.
        """
        from polars.io.plugins import register_io_source  # noqa: PLC0415

        return register_io_source(self._batches, schema=self.schema, is_pure=True)

    def arrow(self) -> "pa.Table":
        """The rows as an Arrow table, in types that every reader knows. Raises as `polars` and `paths` do."""
        from headrace.retrieve.result import arrow  # noqa: PLC0415  Arrow is slow to import

        self.check_rows()
        scan = self._scan(self.reader)
        return arrow((scan if self.columns is None else scan.select(self.columns)).collect())

    def pandas(self) -> "pd.DataFrame":
        """The rows as a pandas frame; integers and Booleans are nullable types. Raises as `arrow` does.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        require_extra("pandas", "DatasetTable.pandas()")
        from headrace.retrieve.result import nullable  # noqa: PLC0415

        return self.arrow().to_pandas(types_mapper=nullable)

    def duckdb(self, connection: "duckdb.DuckDBPyConnection | None" = None) -> "duckdb.DuckDBPyRelation":
        """A DuckDB relation over the files. Fetches all partitions of this (part of the) table. Raises as `arrow` does.

        Args:
            connection: The connection of the relation; by default DuckDB's default connection of this process.
        """
        import duckdb  # noqa: PLC0415  slow to import

        from headrace.catalog.sql_scan import scan_statement  # noqa: PLC0415

        self.check_rows()
        connection = connection or duckdb.default_connection()
        relation = connection.sql(scan_statement(self.paths(), self.mixed))
        return relation if self.columns is None else relation.select(*map(duckdb.ColumnExpression, self.columns))

    def __repr__(self) -> str:
        """Name, partitions and rows."""
        return f"<{type(self).__name__} {self.name}: {self.summary}>"

    @property
    def summary(self) -> str:
        """Partitions and rows, as text."""
        counted = "" if self.rows is None else f", {pluralize(self.rows, 'row')}"
        return f"{pluralize(len(self.partitions), 'partition')} ({_range(self.partitions)}){counted}"

    def check_rows(self) -> None:
        """Check that the table has rows that can be read; raises as `polars` does."""
        manifest = self.reader.manifest
        if manifest.suffix != ".parquet":
            raise NotParquetError(
                f"{self.name} holds raw files ({manifest.suffix}): `.paths()` gives them. Their rows are in"
                f" {self.name.replace('raw/', 'validated/', 1)}."
            )
        if not self.partitions:
            dataset = manifest.table.split("/")[1]
            raise EmptyTableError(
                f"{self.name} has no partition, so it has no schema either. `headrace status {dataset}` lists what"
                f" there is; `headrace run {dataset}` makes what is missing in the workspace."
            )

    def _batches(
        self, columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, _batch_rows: int | None
    ) -> Iterator[pl.DataFrame]:
        """The columns of the first `rows` rows for which the predicate holds; called by Polars."""
        wanted = columns or self.columns
        for part in _groups(self._pruned(predicate, rows), BATCH_ROWS if rows is None else min(rows, BATCH_ROWS)):
            scan = self._scan(part)
            if rows is not None:  # Polars counts these before it filters
                scan, rows = scan.head(rows), max(0, rows - part.height)
            if predicate is not None:
                scan = scan.filter(predicate)
            yield (scan if wanted is None else scan.select(wanted)).collect()
            if rows == 0:
                return

    def _scan(self, part: PartitionReader) -> pl.LazyFrame:
        """The rows of some partitions, in the columns of the table."""
        if self.mixed:
            return self.mixed.scan(dict(zip(part.partitions, part.paths(), strict=True)))
        return pl.scan_parquet(part.paths(), glob=False)

    def _pruned(self, predicate: pl.Expr | None, rows: int | None) -> PartitionReader:
        """The partitions without those that cannot have a row for which the predicate holds."""
        if predicate is None or rows is not None or self.name.partition("/")[0] not in BY_EVENT_TIME:
            return self.reader
        starts, ends = (self.reader.manifest.entries.pick(end, self.partitions) for end in ("start", "end"))
        intervals = {name: (starts[name], ends[name]) for name in self.partitions}
        kept = may_hold(predicate, self.schema, intervals)
        return replace(self.reader, partitions=tuple(kept))


@dataclass(frozen=True)
class DatasetTables(Mapping[str, DatasetTable]):
    """The tables of a dataset: `tables["features/carrier_delays"]`.

    Attributes:
        dataset: Name of the dataset.
        table_store: The workspace.
        release: The release; empty for the tables as the workspace has them now.
        tables: Names of the tables, such as `features/carrier_delays`.
        declared: The dataset's declaration, if it was given; else it is loaded from the workspace when it is needed.
    """

    dataset: str
    table_store: TableStore
    release: str
    tables: tuple[str, ...]
    declared: Dataset | None = field(default=None, repr=False, compare=False)

    @classmethod
    def open(cls, dataset: str | Dataset, table_store: TableStore, release: str = "") -> Self:
        """The tables that the release records, or that the workspace has."""
        name, declared = (dataset, None) if isinstance(dataset, str) else (dataset.name, dataset)
        recorded = {path.removeprefix("data/") for path in recorded_outs(table_store.root, _revision(release))}
        mine = {table for table in recorded if table.split("/")[1:2] == [name]}
        mine |= set(() if release else table_store.tables(name))
        return cls(name, table_store, release, tuple(sorted(_short(table) for table in mine)), declared)

    def __getitem__(self, name: str) -> DatasetTable:
        """The table `<state>/<name>`.

        Raises:
            NoSuchTableError: There is none of that name.
        """
        if name not in self:
            near = get_close_matches(name, self.tables, n=3, cutoff=0.4) or self.tables
            raise NoSuchTableError(
                f"{self.dataset} has no table {name!r} {self.where}. There {'is' if len(near) == 1 else 'are'}"
                f" {', '.join(near)}. `headrace status {self.dataset}` shows what is in each."
            )
        manifest = self._manifest(f"{name.partition('/')[0]}/{self.dataset}/{name.partition('/')[2]}")
        return DatasetTable(name, PartitionReader(self.table_store, manifest, tuple(sorted(manifest.partitions))))

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self.tables)

    def __len__(self) -> int:
        """Number of tables."""
        return len(self.tables)

    def __contains__(self, name: object) -> bool:
        """Whether there is a table of that name."""
        return name in self.tables

    @property
    def where(self) -> str:
        """The release or the workspace, as text."""
        return f"in {self.release}" if self.release else f"in the workspace {self.table_store.root}"

    @property
    def releases(self) -> list[str]:
        """Every release of the dataset that this clone has fetched, oldest first."""
        return list_releases(self.table_store, self.dataset)

    @property
    def declaration(self) -> Dataset:
        """What the project declares about the dataset, as its code is now."""
        if self.declared is not None:
            return self.declared
        from headrace.project.loading import load_dataset  # noqa: PLC0415
        from headrace.workspace import use_project  # noqa: PLC0415

        use_project(self.table_store.root)
        return load_dataset(self.dataset)

    def retrieve(self, requests: object, features: Sequence[str] = ()) -> "RetrievalResult":
        """Training rows: each request with its features as they were known at its time.

        Args:
            requests: A Polars, pandas or Arrow table, or the path of a Parquet file, with the join keys and
                `event_timestamp`, a time with a zone.
            features: References `<table>:<feature>`, also of labels (`delay_cause:label`); by default every feature.

        Returns:
            As many rows as there are requests, in the same order; computed when they are asked for.

        Raises:
            InvalidRequestError: A key or the time is missing or of the wrong type.
            FeatureStoreError: The dataset has no such feature.

        Examples:
            >>> noon = datetime(2013, 1, 1, 17, tzinfo=UTC)
            >>> requests = pl.DataFrame({"carrier": ["UA", "??"], "event_timestamp": [noon, noon]})
            >>> release = headrace.open("flights", release="flights/1")
            >>> rows = release.retrieve(requests, ["carrier_delays:departed_3h"]).to_polars()
            >>> rows["carrier_delays__departed_3h"].to_list()
            [31, None]
        """
        from headrace.retrieve.retrieve import retrieve_at_release  # noqa: PLC0415

        return retrieve_at_release(self.declaration, self.table_store, self.release, requests, features)

    def feature_store(self) -> "AbstractContextManager[FeatureStore]":
        """A Feast feature store over these tables, without a server or a publish, until the block ends.

        Raises:
            MissingExtraError: Feast is not installed.
        """
        require_extra("feast", "DatasetTables.feature_store()")
        from headrace.feast.local_store import local_feature_store  # noqa: PLC0415

        return local_feature_store(self.declaration, self.table_store, self.release)

    def __repr__(self) -> str:
        """One line per table."""
        width = max(map(len, self.tables), default=0)
        lines = (f"  {name:{width}}  {self[name].summary}" for name in self.tables)
        return "\n".join((f"<{type(self).__name__} {self.dataset} {self.where}", *lines)) + ">"

    def _manifest(self, table: str) -> Manifest:
        if not self.release:
            return self.table_store.manifest(table)
        return self.table_store.recorded_manifest(table, _revision(self.release)) or Manifest(table)


def may_hold(predicate: pl.Expr, schema: Mapping[str, Any], intervals: Mapping[str, RecordedInterval]) -> list[str]:
    """The partitions that may have a row for which the predicate holds.

    Args:
        predicate: The predicate.
        schema: Column → type.
        intervals: Partition → start and end (exclusive) of its `event_time`, None where it is any.
    """
    skips = predicate._skip_batch_predicate(dict(schema))  # noqa: SLF001  what its own Parquet reader asks
    if skips is None or EVENT_TIME not in schema:
        return list(intervals)
    first, last = f"{EVENT_TIME}_min", f"{EVENT_TIME}_max"
    moment = timedelta(microseconds=1)
    bounds = [(start, end - moment if end else None) for start, end in intervals.values()]
    known = pl.DataFrame(bounds, schema=dict.fromkeys((first, last), schema[EVENT_TIME]), orient="row")
    unknown = {f"{name}_{what}" for name in schema for what in ("min", "max", "nc")} - {first, last}
    skipped = known.with_columns(pl.lit(None).alias(name) for name in (*unknown, "len")).select(skips).to_series()
    return [name for name, skip in zip(intervals, skipped, strict=True) if not skip]


def _groups(reader: PartitionReader, rows: int) -> Iterator[PartitionReader]:
    """The partitions in order, each time as many as have `rows` rows, and one at least."""
    group: list[str] = []
    height = 0
    for name in reader.partitions:
        group.append(name)
        height += reader.manifest.partitions[name].rows or 0
        if height >= rows:
            yield replace(reader, partitions=tuple(group))
            group, height = [], 0
    if group:
        yield replace(reader, partitions=tuple(group))


def _range(partitions: Sequence[str]) -> str:
    if len(partitions) > 2:  # noqa: PLR2004
        return f"{partitions[0]} … {partitions[-1]}"
    return ", ".join(partitions) or "none"


def _short(table: str) -> str:
    state, _, name = table.split("/", 2)
    return f"{state}/{name}"


def _revision(release: str) -> str | None:
    return f"refs/tags/{release}" if release else None
