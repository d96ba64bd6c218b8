"""PostgreSQL: one ADBC connection in a REPEATABLE READ, READ ONLY transaction; rows come by `COPY` as Arrow."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pyarrow as pa
from adbc_driver_manager import AdbcConnection, AdbcDatabase, AdbcStatement, Error
from adbc_driver_manager._reader import AdbcRecordBatchReader
from adbc_driver_postgresql import _driver_path
from sqlalchemy import Numeric, Select, Text, and_, cast, extract, func, literal_column, null, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.expression import TableClause

from headrace.ingest.database.backend import DatabaseError, DatabaseUnreachableError, quoted

TYPE = b"POSTGRESQL:type"
"""Field metadata in which ADBC names the column's type."""

AS_TEXT = {b"headrace": b"text"}
"""Field metadata of a column that is selected as text."""

LINK = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "tcp_user_timeout": "60000",
    "application_name": "headrace",
}
"""Limits of time on the connection, unless the address sets its own."""

STARTING = ("refused", "starting up", "timeout", "timed out", "could not translate", "closed the connection")


@dataclass(frozen=True)
class PostgreSQL:
    """One transaction of one connection."""

    connection: Any
    where: str
    password: str
    dialect: Dialect

    def schema(self, source: TableClause, name: str) -> pa.Schema:
        """As `Server`: what Arrow lacks (numeric, uuid, json, interval, …) comes as PostgreSQL's own text."""
        nothing: Select[Any] = select(literal_column("*")).select_from(source).limit(0)
        statement = nothing.compile(dialect=self.dialect, compile_kwargs={"literal_binds": True})
        with self._answer(str(statement), name) as answer:
            found = answer.schema
        return pa.schema(
            [pa.field(field.name, pa.string(), metadata=AS_TEXT) if _foreign(field.type) else field for field in found]
        )

    def pick(self, field: pa.Field) -> ColumnElement[Any]:
        """As `Server`."""
        return cast(quoted(field.name), Text) if field.metadata == AS_TEXT else quoted(field.name)

    def day(self, field: pa.Field) -> ColumnElement[Any]:
        """As `Server`."""
        if pa.types.is_timestamp(field.type):
            return func.to_char(func.timezone(_text("UTC"), quoted(field.name)), _text("YYYY-MM-DD"))
        if pa.types.is_date(field.type):
            return func.to_char(quoted(field.name), _text("YYYY-MM-DD"))
        raise DatabaseError(f"partition_by {field.name}: expected a timestamptz or a date, seen {_type(field)}.")

    def order(self, field: pa.Field) -> ColumnElement[Any]:
        """As `Server`: the bare column, which an index may have in that order."""
        return quoted(field.name)

    def newest(self, field: pa.Field) -> ColumnElement[Any]:
        """As `Server`."""
        newest = func.max(quoted(field.name))
        if pa.types.is_timestamp(field.type):
            return func.to_char(func.timezone(_text("UTC"), newest), _text('YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
        return cast(newest, Text)

    def total(self, field: pa.Field) -> ColumnElement[Any]:
        """As `Server`: numeric, so it is exact in any order."""
        if pa.types.is_timestamp(field.type):
            return cast(func.sum(extract("epoch", quoted(field.name))), Text)
        if pa.types.is_integer(field.type):
            return cast(func.sum(cast(quoted(field.name), Numeric)), Text)
        return null()

    def within(self, field: pa.Field, first: date, last: date) -> ColumnElement[bool]:
        """As `Server`: a range of the bare column, so that an index on it serves."""
        ends = (first, last + timedelta(days=1))
        if pa.types.is_timestamp(field.type):
            low, high = (_text(datetime.combine(day, time(), UTC).isoformat()) for day in ends)
        else:
            low, high = (_text(day.isoformat()) for day in ends)
        return and_(quoted(field.name) >= low, quoted(field.name) < high)

    def rows(self, statement: str, name: str) -> list[tuple[Any, ...]]:
        """As `Server`."""
        with self._answer(statement, name) as answer:
            columns = [column.to_pylist() for column in answer.read_all().columns]
            return list(zip(*columns, strict=True))

    def batches(self, statement: str, schema: pa.Schema, name: str) -> Iterator[pa.RecordBatch]:
        """As `Server`."""
        with self._answer(statement, name) as answer:
            for batch in answer:
                yield pa.RecordBatch.from_arrays(batch.columns, schema=schema.remove_metadata())

    @contextmanager
    def _answer(self, statement: str, name: str) -> Iterator[pa.RecordBatchReader]:
        """The answer to a statement, as it comes."""
        query = AdbcStatement(self.connection)
        try:
            query.set_sql_query(statement)
            stream, _ = query.execute_query()
            with AdbcRecordBatchReader._import_from_c(stream.address) as answer:  # noqa: SLF001
                yield answer
        except (Error, pa.ArrowException, OSError) as error:
            raise self._known(name, error) from None
        finally:
            with suppress(Error):
                query.close()

    def _known(self, name: str, error: Exception) -> DatabaseError:
        state = getattr(error, "sqlstate", None) or ""
        said = said_without(str(error), self.password)
        if state == "42P01":
            return DatabaseError(f"{self.where} has no table {name}. Fix the source's declaration, or make the table.")
        if state == "42501":
            return DatabaseError(f"{self.where}: this user may not read {name}. `GRANT SELECT` on it, then run again.")
        if state[:2] in {"", "08", "40", "57"}:
            return DatabaseUnreachableError(f"{self.where} went away: {said}")
        return DatabaseError(f"{self.where}: {name} cannot be read: {said}")


def _patiently(target: str, patience: float) -> tuple[AdbcDatabase, AdbcConnection]:
    """Connect, again and again while that may help."""
    try:
        return _opened(target)
    except Error as error:
        if not _may_pass(error):
            raise
    from headrace.storage.retries import attempts  # noqa: PLC0415  only a failure pays for it

    for attempt in attempts("PostgreSQL", _may_pass, patience, first_s=0.1, most_s=5.0):
        with attempt:
            return _opened(target)
    raise AssertionError(patience)


def _opened(target: str) -> tuple[AdbcDatabase, AdbcConnection]:
    database = AdbcDatabase(driver=_driver_path(), uri=target)
    return database, AdbcConnection(database)


@contextmanager
def connect(url: URL, patience: float) -> Iterator[PostgreSQL]:
    """Open the connection and its transaction."""
    where, password = url.render_as_string(hide_password=True), str(url.password or "")
    target = url.set(drivername="postgresql", query={**LINK, **url.query}).render_as_string(hide_password=False)
    try:
        database, connection = _patiently(target, patience)
    except Error as error:
        hint = "Check that the server runs (`headrace stack status`) and the address"
        if "authentication failed" in str(error):
            hint = "Check user and password"
        raise DatabaseUnreachableError(
            f"Cannot open {where}: {said_without(str(error), password)} {hint} in HEADRACE_DATABASE_URL."
        ) from None
    server = PostgreSQL(connection, where, password, postgresql.dialect(paramstyle="named"))  # type: ignore[no-untyped-call]
    try:
        connection.set_autocommit(False)
        for statement in ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", "SET LOCAL TIME ZONE 'UTC'"):
            with server._answer(statement, where):  # noqa: SLF001
                pass
        yield server
    finally:
        with suppress(Error):
            connection.close()
            database.close()


def said_without(text: str, password: str) -> str:
    """The driver's words on one line, less the password if they hold it."""
    line = " ".join(text.split())
    return line.replace(password, "***") if password else line


def _may_pass(error: Exception) -> bool:
    return isinstance(error, Error) and any(word in str(error).lower() for word in STARTING)


def _text(value: str) -> ColumnElement[Any]:
    """A literal of our own making."""
    return literal_column("'" + value.replace("'", "''") + "'")


def _foreign(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_struct(kind):
        return any(_foreign(kind.field(index).type) for index in range(kind.num_fields))
    return isinstance(kind, pa.BaseExtensionType) or pa.types.is_interval(kind) or pa.types.is_null(kind)


def _type(field: pa.Field) -> str:
    return str((field.metadata or {}).get(TYPE, str(field.type).encode()), "utf-8")
