"""One read-only transaction of a database: a table's partitions with their statistics, and its rows as Arrow.

SQLAlchemy parses the address and writes every statement in the server's dialect (quoted names, rendered literals). One
connection runs them in one transaction, which sees all tables as they were when it began: ADBC for PostgreSQL (`COPY`
straight to Arrow), Python's own driver for SQLite, whose column types do not constrain values, so that values are
checked here. No message contains a password.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
from sqlalchemy import Select, Text, cast, func, literal_column, make_url, null, or_, select, table
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError
from sqlalchemy.sql import ColumnElement, quoted_name
from sqlalchemy.sql.expression import TableClause

from headrace.dataset import UNPARTITIONED, TableSource
from headrace.errors import NotConfiguredError
from headrace.extras import require_extra
from headrace.ingest.database.backend import (
    DatabaseBackend,
    DatabaseError,
    DatabaseUnreachableError,
    NaiveTimestampError,
    NullPartitionError,
    query_column_error,
    quote_column,
)
from headrace.ingest.database.query_text import QueryTextError, check_query
from headrace.partitions import UTC_DAYS, Interval, TimePartitions
from headrace.text import pluralize


@dataclass(frozen=True)
class PartitionStats:
    """Statistics of a partition, computed by the database.

    Attributes:
        rows: Row count.
        watermark: Maximum of the watermark column, as text; None if it holds no value that is finite, or if there is no
            such column.
        digest: Sum of a hash of each of its values, as text; None if it holds none. Without a watermark column, of a
            hash of each row.
        without_watermark: Number of rows whose watermark is NULL: what changes in them, the statistics do not show.
    """

    rows: int
    watermark: str | None
    digest: str | None
    without_watermark: int


@dataclass(frozen=True)
class TableListing:
    """What a table holds.

    Attributes:
        columns: Name and type of each column.
        partitions: Partition → statistics.
        errors: Partition → why it cannot be read as it is, as far as the statistics tell.
        partitioning: How it is cut, if the source has a `partition_by`.
    """

    columns: tuple[tuple[str, str], ...]
    partitions: Mapping[str, PartitionStats]
    errors: Mapping[str, DatabaseError]
    partitioning: TimePartitions = UTC_DAYS


@dataclass(frozen=True)
class SampledTable:
    """Some rows of a table.

    Attributes:
        rows: The rows; a column whose type Arrow lacks is text.
        primary_key: Columns of the primary key; empty if there is none.
        native_types: Column → the database's own name for its type.
    """

    rows: pa.Table
    primary_key: tuple[str, ...]
    native_types: Mapping[str, str]


@dataclass(frozen=True)
class ReadTransaction:
    """Reads tables inside one transaction."""

    backend: DatabaseBackend

    def list_partitions(self, source: TableSource, partitioning: TimePartitions = UTC_DAYS) -> TableListing:
        """Columns and partitions of the table, by one aggregate query.

        Args:
            source: The table.
            partitioning: How it is cut, if the source has a `partition_by`.

        Raises:
            DatabaseError: There is no such table, or it lacks a declared column.
            NaiveTimestampError: Any column of the table is a timestamp without a time zone.
            NullPartitionError: Rows belong to no partition.
        """
        schema = self._read_schema(source)
        partitions, errors = dict[str, PartitionStats](), dict[str, DatabaseError]()
        checked = self._changed_by_arrow(schema)
        for name, rows, watermark, digest, without, *changed in self.backend.fetch_all(
            self._stats_statement(source, schema, partitioning), source.label
        ):
            # `infinity` and years beyond 9999 are timestamps in PostgreSQL and have no date that Arrow or Python holds.
            if rows and source.partition_by and not partitioning.is_valid(name or ""):
                found = name or self._value_without_partition(source, schema, partitioning)
                verb = "has" if rows == 1 else "have"
                raise NullPartitionError(
                    f"{source.label}: {pluralize(rows, 'row')} {verb} no {partitioning.label} in {source.partition_by}"
                    f" (found {found}; expected {self.backend.time_forms} of the years 1 to 9999), so they belong to no"
                    " partition. Correct them, or declare a view that excludes them."
                )
            if rows:  # without GROUP BY, an aggregate of an empty table is one row, too
                partitions[name] = PartitionStats(rows, watermark, digest, without)
            if error := _changed_by_arrow_error(source, name, dict(zip(checked, changed, strict=True))):
                errors[name] = error
        columns = tuple((field.name, str(field.type)) for field in schema)
        return TableListing(columns, partitions, errors, partitioning)

    def read_partitions(
        self, source: TableSource, listing: TableListing, names: Iterable[str]
    ) -> Iterator[tuple[str, pa.Table]]:
        """The rows of the partitions `names`, one partition at a time, in order.

        One statement reads all of them, so the server scans the table once. Memory holds one partition and one batch
        (16 MiB of PostgreSQL, 20,000 rows of SQLite); a table without partitions is held completely.

        Raises:
            DatabaseUnreachableError: The connection was cut. The partitions yielded so far are valid.
            DatabaseError: A partition's row count is not the listed one, or a value does not have its column's type.
        """
        schema, wanted = self._read_schema(source), sorted(names)
        if not wanted:
            return
        statement = self._rows_statement(source, schema, listing, wanted)
        done: list[str] = []
        batches = self.backend.fetch_batches(statement, schema, source.label)
        try:
            for name, rows in (
                _split(batches, source.partition_by, wanted, listing.partitioning)
                if source.partition_by
                else _as_one(batches)
            ):
                _check_row_count(source, name, listing.partitions[name].rows, rows.num_rows)
                done.append(name)
                yield name, rows
        except DatabaseUnreachableError as error:
            current = wanted[len(done)] if len(done) < len(wanted) else wanted[-1]
            rows_read = sum(listing.partitions[name].rows for name in done)
            raise DatabaseUnreachableError(
                f"{source.label}: connection cut while reading partition {current}, after {rows_read} rows of"
                f" {len(done)} complete partitions ({len(wanted)} to read): {error} The table was left as it is; run"
                " the same command again."
            ) from error

    def read_alone(self, source: TableSource, listing: TableListing, name: str) -> pa.Table:
        """The rows of one partition, after an error, in a transaction of its own where the database needs one.

        Raises:
            DatabaseError: The partition cannot be read, or is not as it was listed.
        """
        if not self.backend.survives_errors:
            self.backend.restart_transaction()
            schema = self._read_schema(source)
            statement = self._stats_statement(source, schema, listing.partitioning, name)
            found = [PartitionStats(*row[1:5]) for row in self.backend.fetch_all(statement, source.label)]
            if found != [listing.partitions[name]]:
                raise DatabaseError(
                    f"{source.label} {name}: its rows changed while the table was read. Run the same command again."
                )
        ((_, rows),) = self.read_partitions(source, listing, [name])
        return rows

    def current_time(self) -> datetime:
        """The time now (UTC), by the clock of the database: not before what the transaction sees was committed."""
        return self.backend.current_time()

    def read_sample(self, table: str, limit: int) -> SampledTable:
        """The first `limit` rows that the database returns, with the types in which ingest reads them.

        Raises:
            DatabaseError: There is no such table.
            NaiveTimestampError: A column of the table is a timestamp without a time zone.
        """
        source = TableSource(table)
        schema, clause = self._read_typed_schema(source), self._clause(source)
        statement = select(*(self.backend.select_expr(field) for field in schema)).select_from(clause).limit(limit)
        batches = self.backend.fetch_batches(self._compile(statement), schema, table)
        rows = pa.Table.from_batches(batches, schema=schema.remove_metadata())
        types = {field.name: self.backend.native_type(field) for field in schema}
        return SampledTable(rows, self.backend.primary_key(clause, table), types)

    def _read_schema(self, source: TableSource) -> pa.Schema:
        schema = self._read_typed_schema(source)
        times = (source.watermark, source.partition_by, source.initial_known_time)
        missing = [name for name in (*source.key, *filter(None, times)) if name not in schema.names]
        if missing:
            raise DatabaseError(
                f"{source.label}: expected the columns {', '.join(missing)}, found {', '.join(schema.names)}."
                " Correct the source's declaration (key, watermark, partition_by, initial_known_time), or the"
                f" {'query' if source.query else 'table'}."
            )
        return schema

    def _read_typed_schema(self, source: TableSource) -> pa.Schema:
        table, schema = source.label, self.backend.read_schema(self._clause(source), source.label)
        if source.query:
            _check_names(table, schema)
        naive = [field.name for field in schema if pa.types.is_timestamp(field.type) and field.type.tz is None]
        if naive:
            raise NaiveTimestampError(
                f"{table}: {', '.join(naive)} hold timestamps without a time zone, so their instants are"
                " unknown. Change their type to `timestamptz`, or declare a view that sets the zone:"
                f" `{naive[0]} AT TIME ZONE 'UTC' AS {naive[0]}`."
            )
        return schema

    def _value_without_partition(self, source: TableSource, schema: pa.Schema, partitioning: TimePartitions) -> str:
        """One of the values that belong to no partition, for a message."""
        field = schema.field(source.partition_by)
        value = cast(quote_column(field.name), Text)
        statement = select(value).where(self.backend.name_expr(field, partitioning).is_(None)).limit(1)
        ((text,),) = self.backend.fetch_all(self._compile(statement.select_from(self._clause(source))), source.label)
        return "NULL" if text is None else repr(text)

    def _clause(self, source: TableSource) -> TableClause:
        if source.query:
            return self.backend.query_clause(_checked_query(source), source.label)
        schema, table_name = self.backend.split_name(source.table)
        return table(quoted_name(table_name, quote=True), schema=quoted_name(schema, quote=True) if schema else None)

    def _changed_by_arrow(self, schema: pa.Schema) -> dict[str, ColumnElement[Any]]:
        """Column → number of values that Arrow would hold as something else, for the types that have such values."""
        found = ((field.name, self.backend.changed_by_arrow_expr(field)) for field in schema)
        return {name: count for name, count in found if count is not None}

    def _stats_statement(
        self, source: TableSource, schema: pa.Schema, partitioning: TimePartitions, only: str | None = None
    ) -> str:
        stats = (
            func.count(),
            *self._change_stats(source, schema),
            *self._changed_by_arrow(schema).values(),
        )
        if source.partition_by is None:
            return self._compile(select(literal_column(f"'{UNPARTITIONED}'"), *stats).select_from(self._clause(source)))
        time_field = schema.field(source.partition_by)
        name = self.backend.name_expr(time_field, partitioning).label("day")
        # By position: a column of the table may be called `day`, too, and PostgreSQL would group by that one.
        statement = select(name, *stats).select_from(self._clause(source)).group_by(literal_column("1"))
        if only is not None:
            (interval,) = _ranges([only], partitioning)
            statement = statement.where(self.backend.is_within(time_field, partitioning, interval))
        return self._compile(statement)

    def _change_stats(self, source: TableSource, schema: pa.Schema) -> tuple[ColumnElement[Any], ...]:
        """Maximum and digest of the watermark and the number of rows without one; of whole rows if there is none."""
        if source.watermark is None:
            return cast(null(), Text), self.backend.row_digest_expr(schema), literal_column("0")
        watermark = schema.field(source.watermark)
        without = func.count() - func.count(quote_column(watermark.name))
        return self.backend.max_expr(watermark), self.backend.digest_expr(watermark), without

    def _rows_statement(self, source: TableSource, schema: pa.Schema, listing: TableListing, wanted: list[str]) -> str:
        columns = [self.backend.select_expr(field) for field in schema]
        statement = select(*columns).select_from(self._clause(source))
        if source.partition_by is None:
            return self._compile(statement)
        cut = listing.partitioning
        time_field = schema.field(source.partition_by)
        if len(wanted) < len(listing.partitions):
            ranges = (self.backend.is_within(time_field, cut, interval) for interval in _ranges(wanted, cut))
            statement = statement.where(or_(*ranges))
        return self._compile(statement.order_by(self.backend.order_expr(time_field, cut)))

    def _compile(self, statement: Select[Any]) -> str:
        # Literals are rendered because `COPY`, by which ADBC reads PostgreSQL, accepts no parameters.
        return str(statement.compile(dialect=self.backend.dialect, compile_kwargs={"literal_binds": True}))


@contextmanager
def open_read_transaction(
    address: str, *, retry_timeout_s: float = 30.0, statement_timeout_s: float = 0.0
) -> Iterator[ReadTransaction]:
    """Connect to the database at the SQLAlchemy `address` and begin a read-only transaction.

    Args:
        address: The address.
        retry_timeout_s: How long to wait for a server that does not answer.
        statement_timeout_s: How long a statement may take in PostgreSQL, until its last row is read; 0 for no limit.

    Raises:
        NotConfiguredError: The address cannot be used.
        DatabaseUnreachableError: The server was unavailable for `retry_timeout_s` seconds.
        DatabaseAccessDeniedError: There is no such database, or it denies access.
    """
    with _open_backend(_parse_address(address), retry_timeout_s, statement_timeout_s) as backend:
        yield ReadTransaction(backend)


def _parse_address(address: str) -> URL:
    try:
        return make_url(address)
    except (ArgumentError, ValueError):  # a port that is no number is a ValueError
        raise NotConfiguredError(
            "The database address cannot be parsed: expected postgresql+psycopg://user:password@host:port/database or"
            " sqlite:////absolute/path. Its text is not shown because it may contain a password. Correct"
            " HEADRACE_DATABASE_URL, or the variable that the source's `database` names."
        ) from None


def _open_backend(
    url: URL, retry_timeout_s: float, statement_timeout_s: float
) -> AbstractContextManager[DatabaseBackend]:
    name = url.get_backend_name()
    if name == "postgresql":
        require_extra("postgres", "A source in PostgreSQL")
        from headrace.ingest.database import postgresql  # noqa: PLC0415  only the driver in use is loaded

        return postgresql.open_transaction(url, retry_timeout_s, statement_timeout_s)
    if name == "sqlite":
        from headrace.ingest.database import sqlite  # noqa: PLC0415

        return sqlite.open_transaction(url)
    raise NotConfiguredError(
        f"{url.render_as_string(hide_password=True)}: expected a postgresql or sqlite address, found {name}."
    )


def _checked_query(source: TableSource) -> str:
    try:
        return check_query(source.query)
    except QueryTextError as error:
        raise DatabaseError(f"{source.label}: {error}. Correct the source's declaration.") from None


def _check_names(name: str, schema: pa.Schema) -> None:
    """Check that each column of a query has a name of its own; `?column?` is what PostgreSQL calls one without."""
    counts = Counter(schema.names)
    unnamed = [f"column {place}" for place, column in enumerate(schema.names, start=1) if column == "?column?"]
    repeated = [column for column, count in counts.items() if count > 1 and column != "?column?"]
    if unnamed or repeated:
        raise query_column_error(name, unnamed, repeated)


def _ranges(names: list[str], partitioning: TimePartitions) -> list[Interval]:
    """The intervals of sorted partitions, those of consecutive ones as one."""
    ranges: list[Interval] = []
    for start, end in map(partitioning.interval, names):
        if ranges and ranges[-1].end == start:
            ranges[-1] = Interval(ranges[-1].start, end)
        else:
            ranges.append(Interval(start, end))
    return ranges


def _as_one(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[str, pa.Table]]:
    yield UNPARTITIONED, pa.Table.from_batches(batches)


def _split(
    batches: Iterator[pa.RecordBatch], time_column: str, names: list[str], partitioning: TimePartitions
) -> Iterator[tuple[str, pa.Table]]:
    """Batches of the partitions `names`, in their order → each partition with all of its rows."""
    import numpy as np  # noqa: PLC0415  a run that reads no rows does not import them
    import pyarrow.compute as pc  # noqa: PLC0415

    starts: Any = None
    current, slices = "", list[pa.RecordBatch]()
    for batch in batches:
        times = batch.column(time_column)
        if starts is None:
            starts = np.array([_start(partitioning, name, times.type) for name in names])
        physical = times.cast(pa.int32() if pa.types.is_date(times.type) else pa.int64())
        numbers = np.searchsorted(starts, physical.to_numpy(), side="right") - 1
        # A batch can hold several partitions, and a partition can span batches. Run-end encoding gives their borders
        # without a loop over the rows.
        runs, start = pc.run_end_encode(pa.array(numbers)), 0
        for number, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            if slices and names[number] != current:
                yield current, pa.Table.from_batches(slices)
                slices = []
            current = names[number]
            slices.append(batch.slice(start, end - start))
            start = end
    if slices:
        yield current, pa.Table.from_batches(slices)


def _start(partitioning: TimePartitions, name: str, kind: pa.DataType) -> int:
    """Where a partition begins, as a number of a column: days or microseconds since 1970."""
    start = partitioning.interval(name).start
    if pa.types.is_date(kind):
        return (partitioning.local_date(start) - date(1970, 1, 1)).days
    return (start - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _changed_by_arrow_error(source: TableSource, partition: str, counts: Mapping[str, int]) -> DatabaseError | None:
    for column, count in counts.items():
        if count:
            return DatabaseError(
                f"{source.label} {partition}: expected arrays of one dimension that count from 1, found {count} others"
                f" in {column}. Declare a view that gives their text: `{column}::text AS {column}`."
            )
    return None


def _check_row_count(source: TableSource, partition: str, listed: int, read: int) -> None:
    if listed != read:
        raise DatabaseError(
            f"{source.label} {partition}: expected the {listed} rows that were counted, found {read} in the same"
            " transaction. The server does not isolate its transactions; the table was left as it is."
        )
