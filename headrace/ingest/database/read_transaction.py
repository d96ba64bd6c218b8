"""Databases: what a table holds, partition by partition, and its rows as Arrow, all from one snapshot.

SQLAlchemy reads the address and writes every statement (names quoted, values as literals it renders), in the dialect of
the server. One connection carries them, in one read-only transaction that sees the tables as they were at its start:
ADBC for PostgreSQL (`COPY` straight to Arrow), Python's own driver for SQLite, whose column types bind no value and are
therefore checked here. A password is in no message.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
from sqlalchemy import Select, func, literal_column, make_url, or_, select, table
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError
from sqlalchemy.sql import quoted_name
from sqlalchemy.sql.expression import TableClause

from headrace.dataset import UNPARTITIONED, TableSource
from headrace.errors import NotConfiguredError
from headrace.ingest.database.backend import (
    DatabaseError,
    DatabaseUnreachableError,
    NoPartitionError,
    Server,
    ZonelessTimeError,
)

DAY = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True)
class Group:
    """One partition as it is in the snapshot, without its rows.

    Attributes:
        rows: Their number.
        watermark: Greatest value of the watermark column, as text.
        total: Sum of the watermark column (for a time, of its seconds), as text; None for a text column.
    """

    rows: int
    watermark: str | None
    total: str | None


@dataclass(frozen=True)
class Listing:
    """A table in the snapshot: its columns (name, type) and its partitions."""

    columns: tuple[tuple[str, str], ...]
    groups: Mapping[str, Group]


@dataclass(frozen=True)
class Snapshot:
    """One moment of a database."""

    server: Server

    def listing(self, query: TableSource) -> Listing:
        """Columns and partitions of the table.

        Raises:
            DatabaseError: There is no such table, or a column of the declaration is missing.
            ZonelessTimeError: A column of the table, whichever, is a time without a zone.
            NoPartitionError: Rows have no day.
        """
        schema = self._schema(query)
        groups = {}
        for day, rows, watermark, total in self.server.rows(self._listing(query, schema), query.table):
            if rows and query.partition_by and not DAY.fullmatch(day or ""):
                raise NoPartitionError(
                    f"{query.table}: {rows} rows have no UTC day in {query.partition_by} (seen {day}: null, infinite or"
                    " no day of the years 1 to 9999), so they belong to no partition. Fix them, or declare a view that"
                    " leaves them out."
                )
            if rows:
                groups[day] = Group(rows, watermark, total)
        return Listing(tuple((field.name, str(field.type)) for field in schema), groups)

    def read(self, query: TableSource, listing: Listing, wanted: Iterable[str]) -> Iterator[tuple[str, pa.Table]]:
        """The rows of the partitions `wanted`, one partition after the other.

        One statement reads them all, day by day, so the server passes over the table once. Memory holds one partition
        and one batch (16 MiB of PostgreSQL, 20,000 rows of SQLite); what is not partitioned, whole.

        Raises:
            DatabaseUnreachableError: The connection was cut; what was given until then is of the same snapshot.
            DatabaseError: A partition has other rows than were counted, or a value is not of its column's type.
        """
        schema, chosen = self._schema(query), sorted(wanted)
        if not chosen:
            return
        statement = self._reading(query, schema, listing, chosen)
        done: list[str] = []
        batches = self.server.batches(statement, schema, query.table)
        try:
            for day, rows in _by_day(batches, query.partition_by) if query.partition_by else _as_one(batches):
                _expect(query, day, listing.groups[day].rows, rows.num_rows)
                done.append(day)
                yield day, rows
        except DatabaseUnreachableError as error:
            nth = chosen[len(done)] if len(done) < len(chosen) else chosen[-1]
            whole = sum(listing.groups[day].rows for day in done)
            raise DatabaseUnreachableError(
                f"{query.table}: cut while reading partition {nth}, after {whole} rows of {len(done)} whole partitions"
                f" ({len(chosen)} wanted): {error} Nothing of this table is shown; run the same command again."
            ) from error

    def _schema(self, query: TableSource) -> pa.Schema:
        schema = self.server.schema(_source(query), query.table)
        declared = [*query.key, query.watermark, *([query.partition_by] if query.partition_by else [])]
        missing = [name for name in declared if name not in schema.names]
        if missing:
            raise DatabaseError(
                f"{query.table}: expected the columns {', '.join(missing)}, seen {', '.join(schema.names)}."
                " Fix the source's declaration (key, watermark, partition_by), or the table."
            )
        zoneless = [field.name for field in schema if pa.types.is_timestamp(field.type) and field.type.tz is None]
        if zoneless:
            raise ZonelessTimeError(
                f"{query.table}: {', '.join(zoneless)} hold times without a zone, so nobody can say when they were."
                " Make them `timestamptz`, or declare a view that says the zone:"
                f" `{zoneless[0]} AT TIME ZONE 'UTC' AS {zoneless[0]}`."
            )
        return schema

    def _listing(self, query: TableSource, schema: pa.Schema) -> str:
        mark = schema.field(query.watermark)
        counted = (func.count(), self.server.newest(mark), self.server.total(mark))
        if query.partition_by is None:
            return self._text(select(literal_column(f"'{UNPARTITIONED}'"), *counted).select_from(_source(query)))
        day = self.server.day(schema.field(query.partition_by)).label("day")
        return self._text(select(day, *counted).select_from(_source(query)).group_by(literal_column("1")))

    def _reading(self, query: TableSource, schema: pa.Schema, listing: Listing, wanted: list[str]) -> str:
        columns = [self.server.pick(field) for field in schema]
        if query.partition_by is None:
            return self._text(select(*columns).select_from(_source(query)))
        by = schema.field(query.partition_by)
        statement = select(*columns).select_from(_source(query))
        if len(wanted) < len(listing.groups):
            statement = statement.where(or_(*(self.server.within(by, *ends) for ends in _runs(wanted))))
        return self._text(statement.order_by(self.server.order(by)))

    def _text(self, statement: Select[Any]) -> str:
        return str(statement.compile(dialect=self.server.dialect, compile_kwargs={"literal_binds": True}))


@contextmanager
def snapshot(address: str, *, patience: float = 30.0) -> Iterator[Snapshot]:
    """Open the database at the SQLAlchemy `address` and hold one moment of it.

    Raises:
        NotConfiguredError: The address cannot be used.
        DatabaseUnreachableError: The server is down (tried again for `patience` seconds), or does not let us in.
    """
    with _server(_url(address), patience) as server:
        yield Snapshot(server)


def _url(address: str) -> URL:
    try:
        return make_url(address)
    except ArgumentError:
        raise NotConfiguredError(
            "The database address cannot be read: expected postgresql+psycopg://user:password@host:port/database or"
            " sqlite:////absolute/path (its text is not shown here, it may hold a password)."
        ) from None


def _server(url: URL, patience: float) -> AbstractContextManager[Server]:
    backend = url.get_backend_name()
    if backend == "postgresql":
        from headrace.ingest.database.postgresql import connect  # noqa: PLC0415  only its driver is loaded

        return connect(url, patience)
    if backend == "sqlite":
        from headrace.ingest.database.sqlite import open_file  # noqa: PLC0415

        return open_file(url)
    raise NotConfiguredError(
        f"{url.render_as_string(hide_password=True)}: expected a postgresql or sqlite address, seen {backend}."
    )


def _source(query: TableSource) -> TableClause:
    schema, _, name = query.table.rpartition(".")
    return table(quoted_name(name, quote=True), schema=quoted_name(schema, quote=True) if schema else None)


def _runs(days: list[str]) -> list[tuple[date, date]]:
    """Sorted days as runs of days that follow each other: (first, last)."""
    runs: list[tuple[date, date]] = []
    for day in map(date.fromisoformat, days):
        if runs and day - runs[-1][1] == timedelta(days=1):
            runs[-1] = (runs[-1][0], day)
        else:
            runs.append((day, day))
    return runs


def _as_one(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[str, pa.Table]]:
    yield UNPARTITIONED, pa.Table.from_batches(batches)


def _by_day(batches: Iterator[pa.RecordBatch], by: str) -> Iterator[tuple[str, pa.Table]]:
    """Batches in the order of the UTC days of the column `by` → a day and all its rows."""
    import pyarrow.compute as pc  # noqa: PLC0415  who finds nothing new does not pay for the import

    now, held = None, list[pa.RecordBatch]()
    for batch in batches:
        runs, start = pc.run_end_encode(pc.cast(batch.column(by), pa.date32())), 0
        for day, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            if held and day != now:
                yield str(now), pa.Table.from_batches(held)
                held = []
            now = day
            held.append(batch.slice(start, end - start))
            start = end
    if held:
        yield str(now), pa.Table.from_batches(held)


def _expect(query: TableSource, partition: str, counted: int, seen: int) -> None:
    if counted != seen:
        raise DatabaseError(
            f"{query.table} {partition}: expected the {counted} rows that were counted, seen {seen}, in one"
            " transaction. The server does not keep its snapshot; nothing of this table is shown."
        )
