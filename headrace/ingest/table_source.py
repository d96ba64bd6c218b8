"""A database table or query as a source: one transaction counts its partitions and reads them, stored as Parquet."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from importlib.metadata import version
from typing import Any

import polars as pl
import pyarrow as pa
from msgspec.structs import replace

from headrace.dataset import UNPARTITIONED, TableSource
from headrace.engine.compute import store_partition
from headrace.engine.partition_errors import to_known_error
from headrace.engine.result_versions import result_version
from headrace.errors import HeadraceError
from headrace.ingest.database.backend import DatabaseError
from headrace.ingest.database.read_transaction import ReadTransaction, TableListing
from headrace.ingest.listing import encode_json, hash_json
from headrace.ingest.table_history import SnapshotRows
from headrace.partitions import ALL_TIME, UTC_DAYS, Partitions, TimePartitions
from headrace.storage import parquet
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.partition_names import recorded_interval
from headrace.storage.table_store import TableStore
from headrace.unexpected_errors import is_failure

DAY_US = 86_400_000_000
EMPTY = "no rows"
"""In place of the hash of the statistics of an empty table, which has none."""


@dataclass(frozen=True)
class TableSnapshot:
    """A database table or query as one transaction sees it. Implements `SourceListing`.

    Attributes:
        taken_at: When the listing was made, by the clock of the database, of a table whose history is recorded.
    """

    table_store: TableStore
    transaction: ReadTransaction
    source: TableSource
    listing: TableListing
    taken_at: datetime = ALL_TIME.end

    @classmethod
    def from_transaction(
        cls,
        table_store: TableStore,
        transaction: ReadTransaction,
        source: TableSource,
        partitions: Partitions = UTC_DAYS,
    ) -> "TableSnapshot":
        """List the table's partitions, which are cut like this; reads no rows.

        Raises:
            DatabaseError: The table cannot be read, or does not have the declared columns.
        """
        grain = partitions if isinstance(partitions, TimePartitions) else UTC_DAYS
        listing = transaction.list_partitions(source, grain)
        # After the first statement, so that nothing that the transaction sees was committed later.
        taken_at = transaction.current_time() if source.history else cls.taken_at
        return cls(table_store, transaction, source, listing, taken_at)

    @property
    def description(self) -> str:
        return f"the {self.source.address} ({self.source.database})"

    @property
    def unmatched(self) -> tuple[str, ...]:
        """None: every row belongs to a partition."""
        return ()

    @property
    def invalid(self) -> Mapping[str, str]:
        """None: every interval has a valid name."""
        return {}

    @property
    def waiting(self) -> tuple[str, ...]:
        """None: a transaction sees whole partitions."""
        return ()

    @property
    def errors(self) -> Mapping[str, HeadraceError]:
        """Values that Arrow would change; what else cannot be read is found when it is read."""
        return self.listing.errors

    def address(self, partition: str) -> str:  # noqa: ARG002  the interface's
        return self.source.address

    @cached_property
    def always_read(self) -> frozenset[str]:
        return frozenset(name for name, stats in self.listing.partitions.items() if stats.without_watermark)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.listing.columns)

    @property
    def libraries(self) -> Mapping[str, str]:
        return {name: version(name) for name in ("polars", "pyarrow")}

    @cached_property
    def cache_keys(self) -> Mapping[str, str]:
        shape = encode_json([self.listing.columns, self.source.key, dict(self.libraries), result_version("ingest")])
        return {
            name: hash_json(f"[{shape}, {encode_json(self._provenance(name))}]") for name in self.listing.partitions
        }

    def amount_to_read(self, partitions: Iterable[str]) -> int:
        """Rows."""
        return sum(self.listing.partitions[name].rows for name in partitions)

    def read(self, partitions: Iterable[str]) -> Iterator[tuple[str, PartitionEntry | HeadraceError | None]]:
        """Read partitions, sorted by key, so that equal rows give equal bytes whatever order the database returns.

        One statement reads all of them. If it fails, those that are missing are read by a statement each. Those whose
        error is known are left out.

        Raises:
            DatabaseUnreachableError: The connection was cut.
        """
        missing = set(partitions) - self.errors.keys()
        try:
            for partition, rows in self.transaction.read_partitions(self.source, self.listing, missing):
                missing.discard(partition)
                yield partition, self._store(partition, rows)
        except DatabaseError as error:
            if error.is_transient:
                raise
            for partition in sorted(missing):
                yield partition, self._read_alone(partition)

    def read_snapshot(self) -> SnapshotRows:
        """All rows of a table that is not cut, as a history compares them.

        Raises:
            DatabaseError: A row cannot be read.
        """
        for error in self.errors.values():
            raise error
        names = list(self.listing.partitions)  # one, or none of an empty table
        tables = self.transaction.read_partitions(self.source, self.listing, names)
        rows = next((_to_frame(rows) for _, rows in tables), pl.DataFrame())
        query = self._provenance(names[0]) if names else {**self._relation, "where": "", "rows": 0}
        return SnapshotRows(rows, self.taken_at, self.digest, {"watermark": None, **query})

    @property
    def digest(self) -> str:
        """Hash of the statistics of a table that is not cut; equal if nothing has changed that they show."""
        return self.cache_keys.get(UNPARTITIONED, EMPTY)

    def _read_alone(self, partition: str) -> PartitionEntry | HeadraceError:
        try:
            rows = self.transaction.read_alone(self.source, self.listing, partition)
        except DatabaseError as error:
            if error.is_transient:
                raise
            return error
        return self._store(partition, rows)

    def _store(self, partition: str, rows: pa.Table) -> PartitionEntry | HeadraceError:
        try:
            frame = parquet.canonical(_to_frame(rows), self.source.key)
            interval = recorded_interval(self.listing.partitioning, partition)
            key = self.cache_keys[partition]
            entry = store_partition(self.table_store.cache, frame, partition, key, interval)
        except BaseException as error:  # a panic of Polars is no `Exception`
            if not is_failure(error):
                raise
            return to_known_error(error)
        return replace(entry, metadata={"query": self._provenance(partition)})

    @property
    def _relation(self) -> dict[str, str]:
        """What is read, as the manifest and the cache key hold it."""
        return {"table": self.source.table} if self.source.table else {"sql": self.source.query}

    def _provenance(self, partition: str) -> dict[str, Any]:
        """The query of a partition and its statistics, as the manifest and the cache key hold them."""
        time_column = self.source.partition_by
        stats = self.listing.partitions[partition]
        return {
            **self._relation,
            "where": f"{self.listing.partitioning.label} of {time_column} = {partition}" if time_column else "",
            "rows": stats.rows,
            "watermark": stats.watermark,
            "digest": stats.digest,
        }


def _to_frame(rows: pa.Table) -> pl.DataFrame:
    numbered = _with_midnight_as_text(rows).rename_columns([str(number) for number in range(rows.num_columns)])
    frame = pl.from_arrow(numbered)  # Polars would call a column without a name `column_1`
    if isinstance(frame, pl.Series):  # what Polars makes of an Arrow array
        raise TypeError(frame)
    frame.columns = rows.column_names
    return frame


def _with_midnight_as_text(rows: pa.Table) -> pa.Table:
    """Columns of times that hold 24:00:00 as text: PostgreSQL has that time, Polars would make it null."""
    import pyarrow.compute as pc  # noqa: PLC0415  a run that reads no rows does not import it

    for number, field in enumerate(rows.schema):
        if pa.types.is_time64(field.type):
            column = rows.column(number).cast(pa.int64())
            is_midnight = pc.equal(column, DAY_US)
            if pc.any(is_midnight).as_py():
                times = pc.if_else(is_midnight, None, column).cast(field.type).cast(pa.string())
                rows = rows.set_column(number, field.name, pc.if_else(is_midnight, "24:00:00", times))
    return rows
