"""PostgreSQL: one ADBC connection in a REPEATABLE READ, READ ONLY transaction; rows arrive by `COPY` as Arrow."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from adbc_driver_manager import AdbcConnection, AdbcDatabase, AdbcStatement, Error
from adbc_driver_manager._reader import AdbcRecordBatchReader
from adbc_driver_postgresql import _driver_path
from sqlalchemy import ARRAY, Numeric, Select, Text, and_, case, cast, func, literal_column, or_, select, table
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.sql import ColumnElement, quoted_name
from sqlalchemy.sql.expression import TableClause

from headrace.ingest.database.backend import (
    DatabaseAccessDeniedError,
    DatabaseError,
    DatabaseUnreachableError,
    StatementTimeoutError,
    check_date_has_partition,
    quote_column,
)
from headrace.partitions import ALL_TIME, Interval, TimePartitions
from headrace.storage.sql_errors import is_transient_sql_error

NAME_FORMS = {"hour": 'YYYY-MM-DD"T"HH24', "day": "YYYY-MM-DD", "month": "YYYY-MM", "year": "YYYY"}
"""Unit of partitions → format of their names."""

POSTGRESQL_TYPE = b"POSTGRESQL:type"
"""Field metadata in which ADBC names the column's type."""

READ_AS_TEXT = frozenset({"char", "money", "oid", "regproc"})
"""Types that ADBC gives as something else: a byte that may not be UTF-8 (`"char"`, which is not `char(1)`), cents, and
signed numbers."""

ITEM_TYPES = frozenset({"bool", "bytea", "date", "float4", "float8", "int2", "int4", "int8", "timestamptz"})
"""Types that ADBC gives unchanged inside an array, beside those that are text. An item of a domain is named by the
domain, which may stand for money; `24:00:00` is no time of Polars."""

AS_TEXT = {b"headrace": b"text"}
"""Field metadata of a column that is selected as text; beside it, the column's own type."""

NOT_UTF_8 = frozenset({"22021", "22P05"})
"""SQLSTATEs of text that the server cannot send as UTF-8: a database of the encoding SQL_ASCII stores any bytes."""

CONNECTION_OPTIONS = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "tcp_user_timeout": "60000",
    "application_name": "headrace",
    "client_encoding": "UTF8",
}
"""libpq options, unless the address sets its own. By default libpq connects without a timeout, and a read from a server
that has vanished waits for the kernel's keepalive: two hours on Linux. `tcp_user_timeout` is in milliseconds, the
others are in seconds. Without `client_encoding`, text arrives in the encoding of the database."""

TEXT_SETTINGS = (
    "SET LOCAL TIME ZONE 'UTC'",
    "SET LOCAL DateStyle = 'ISO, YMD'",
    "SET LOCAL IntervalStyle = 'postgres'",
    "SET LOCAL extra_float_digits = 1",
    "SET LOCAL bytea_output = 'hex'",
    "SET LOCAL lc_monetary = 'C'",
)
"""What decides the text of a value; a role or a database may have settings of its own."""

STATEMENT_TIMEOUT = (
    "SELECT set_config('statement_timeout', '{limit_ms}', true) FROM pg_settings"
    " WHERE name = 'statement_timeout' AND (setting = '0' OR setting::bigint > {limit_ms})"
)
"""A shorter limit of the role, the database or the address stays. It holds for sending the rows, too."""

PRIMARY_KEY = (
    "SELECT attname::text FROM pg_index"
    " CROSS JOIN LATERAL unnest(indkey) WITH ORDINALITY AS key (number, place)"
    " JOIN pg_attribute ON attrelid = indrelid AND attnum = key.number"
    " WHERE indrelid = to_regclass({table}) AND indisprimary ORDER BY key.place"
)
"""Columns of a table's primary key in its order. `information_schema` shows it to the table's owner alone."""


@dataclass(frozen=True)
class PostgreSQLBackend:
    """One transaction of one connection. Implements `DatabaseBackend`."""

    connection: Any
    address: str
    password: str
    dialect: Dialect
    statement_timeout_s: float

    def split_name(self, name: str) -> tuple[str, str]:
        schema, _, table = name.rpartition(".")
        return schema, table

    @property
    def time_forms(self) -> str:
        return "finite times or dates"

    def query_clause(self, query: str, name: str) -> TableClause:  # noqa: ARG002  the interface's
        """As a table of another query, in which the server takes nothing but a SELECT that writes nothing.

        The end of the line ends a comment at its end.
        """
        return table(quoted_name(f"({query}\n) AS headrace_query", quote=False))

    def row_digest_expr(self, schema: pa.Schema) -> ColumnElement[Any]:
        """Of the text of the row, in which NULL and an empty text differ: 128 bits, as two hashes of 64."""
        row = cast(func.row(*(quote_column(name) for name in schema.names)), Text)
        first, second = (
            cast(func.sum(cast(func.hashtextextended(row, literal_column(seed)), Numeric)), Text) for seed in "01"
        )
        return func.concat(first, _literal(","), second)

    def read_schema(self, source: TableClause, name: str) -> pa.Schema:
        """Columns of the table. Types that Arrow lacks (numeric, uuid, json, interval, …) are read as text.

        So are composite types, and arrays of what ADBC would change.
        """
        no_rows: Select[Any] = select(literal_column("*")).select_from(source).limit(0)
        statement = no_rows.compile(dialect=self.dialect, compile_kwargs={"literal_binds": True})
        with self._execute(str(statement), name) as reader:
            schema = reader.schema
        return pa.schema(
            [
                pa.field(field.name, pa.string(), metadata={**(field.metadata or {}), **AS_TEXT})
                if _is_changed(field)
                else field
                for field in schema
            ]
        )

    def select_expr(self, field: pa.Field) -> ColumnElement[Any]:
        column = quote_column(field.name)
        if not AS_TEXT.items() <= (field.metadata or {}).items():
            return column
        kind = _type_name(field)
        if kind.removeprefix("_") == "money":  # its own text depends on the server's locale
            return cast(cast(column, ARRAY(Numeric) if kind.startswith("_") else Numeric), Text)
        return cast(column, Text)

    def primary_key(self, source: TableClause, name: str) -> tuple[str, ...]:
        table = _literal(self.dialect.identifier_preparer.format_table(source))
        return tuple(column for (column,) in self.fetch_all(PRIMARY_KEY.format(table=table), name))

    def native_type(self, field: pa.Field) -> str:
        return _type_name(field)

    def name_expr(self, field: pa.Field, partitions: TimePartitions) -> ColumnElement[Any]:
        check_date_has_partition(field, partitions)
        form = NAME_FORMS[partitions.unit]
        if pa.types.is_timestamp(field.type):
            return _name_text(func.timezone(_literal(partitions.timezone), quote_column(field.name)), form)
        if pa.types.is_date(field.type):
            return _name_text(quote_column(field.name), form)
        raise DatabaseError(f"partition_by {field.name}: expected a timestamptz or a date, found {_type_name(field)}.")

    def order_expr(self, field: pa.Field, partitions: TimePartitions) -> ColumnElement[Any]:  # noqa: ARG002  any sorts so
        """The bare column, so that an index on it can be used. Instants sort like their partitions."""
        return quote_column(field.name)

    def max_expr(self, field: pa.Field) -> ColumnElement[Any]:
        column = quote_column(field.name)
        if pa.types.is_timestamp(field.type):
            latest = func.timezone(_literal("UTC"), func.max(column).filter(func.isfinite(column)))
            return func.to_char(latest, _literal('YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
        if _is_ordered(field.type):
            return cast(func.max(column), Text)
        return func.max(cast(column, Text))  # the server has no maximum of a uuid, a boolean or a document

    def digest_expr(self, field: pa.Field) -> ColumnElement[Any]:
        """Of the text, which every type has. A sum of the values would miss changes that cancel out, and `infinity`."""
        hashed = func.hashtextextended(cast(quote_column(field.name), Text), literal_column("0"))
        return cast(func.sum(cast(hashed, Numeric)), Text)

    def changed_by_arrow_expr(self, field: pa.Field) -> ColumnElement[Any] | None:
        """Arrays of several dimensions, or that do not count from 1: Arrow's lists have neither."""
        if not pa.types.is_list(field.type):
            return None
        column = quote_column(field.name)
        dimensions, first = func.array_ndims(column), func.array_lower(column, literal_column("1"))
        return func.count().filter(or_(dimensions > literal_column("1"), first != literal_column("1")))

    def is_within(self, field: pa.Field, partitions: TimePartitions, interval: Interval) -> ColumnElement[bool]:
        """A range of the bare column, so that an index on it can be used."""
        is_time, column = pa.types.is_timestamp(field.type), quote_column(field.name)
        low, high = (_literal((end if is_time else partitions.local_date(end)).isoformat()) for end in interval)
        return column >= low if interval.end == ALL_TIME.end else and_(column >= low, column < high)

    def fetch_all(self, statement: str, name: str) -> list[tuple[Any, ...]]:
        with self._execute(statement, name) as reader:
            columns = [column.to_pylist() for column in reader.read_all().columns]
            return list(zip(*columns, strict=True))

    def current_time(self) -> datetime:
        ((time,),) = self.fetch_all("SELECT clock_timestamp()", self.address)
        return datetime.fromisoformat(time.isoformat()).astimezone(UTC)

    @property
    def survives_errors(self) -> bool:
        """No: PostgreSQL refuses every other one, and ADBC lets nobody roll back to a savepoint."""
        return False

    def restart_transaction(self) -> None:
        with suppress(Error):
            self.connection.rollback()
        self.begin_transaction()

    def begin_transaction(self) -> None:
        """Begin the transaction: READ COMMITTED, the default, would give each statement a snapshot of its own."""
        limit_ms = max(1, int(self.statement_timeout_s * 1000))
        limits = [STATEMENT_TIMEOUT.format(limit_ms=limit_ms)] if self.statement_timeout_s else []
        for statement in ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", *TEXT_SETTINGS, *limits):
            with self._execute(statement, self.address):
                pass

    def fetch_batches(self, statement: str, schema: pa.Schema, name: str) -> Iterator[pa.RecordBatch]:
        with self._execute(statement, name) as reader:
            for batch in reader:
                yield pa.RecordBatch.from_arrays(batch.columns, schema=schema.remove_metadata())

    @contextmanager
    def _execute(self, statement: str, name: str) -> Iterator[pa.RecordBatchReader]:
        """Run a statement and stream its result."""
        query = AdbcStatement(self.connection)
        try:
            query.set_sql_query(statement)
            stream, _ = query.execute_query()
            # ADBC's reader raises errors that carry the SQLSTATE. pyarrow's RecordBatchReader raises its own, without.
            with AdbcRecordBatchReader._import_from_c(stream.address) as reader:  # noqa: SLF001
                yield reader
        except (Error, pa.ArrowException, OSError) as error:
            raise self._to_database_error(name, error) from None
        finally:
            with suppress(Error):
                query.close()

    def _to_database_error(self, name: str, error: Exception) -> DatabaseError:
        state = getattr(error, "sqlstate", None) or ""
        cause = redact(str(error), self.password)
        if state == "42P01" and not name.startswith("the query "):
            return DatabaseError(
                f"{self.address} has no table {name}. Correct the source's declaration, or create the table."
            )
        if state == "42501":
            return DatabaseError(
                f"{self.address}: this user may not read {name}. `GRANT SELECT` on it, then run the command again."
            )
        if state in NOT_UTF_8:
            return DatabaseError(
                f"{self.address}: {name} holds text that is not UTF-8: {cause}. Correct the rows, or declare a view"
                " that converts the column: `convert_from(name::bytea, 'LATIN1') AS name`."
            )
        if state == "57014" and "statement timeout" in cause:
            return StatementTimeoutError(
                f"{self.address}: a statement on {name} took longer than HEADRACE_STATEMENT_TIMEOUT_S"
                f" ({self.statement_timeout_s:g} s) or the server's own statement_timeout lets it. Find out what it"
                " waits for (pg_stat_activity), index the watermark or partition_by, or raise the limit; then run the"
                " same command again."
            )
        if is_transient_sql_error(error):
            return DatabaseUnreachableError(f"{self.address} closed the connection: {cause}")
        return DatabaseError(f"{self.address}: {name} cannot be read: {cause}")


def _connect_with_retries(address: str, retry_timeout_s: float) -> tuple[AdbcDatabase, AdbcConnection]:
    try:
        return _connect(address)
    except Error as error:
        if not is_transient_sql_error(error):
            raise
    from headrace.storage.retries import retry_attempts  # noqa: PLC0415  imported only after a failure

    for attempt in retry_attempts("PostgreSQL", is_transient_sql_error, retry_timeout_s, first_s=0.1, most_s=5.0):
        with attempt:
            return _connect(address)
    raise AssertionError(retry_timeout_s)


def _connect(address: str) -> tuple[AdbcDatabase, AdbcConnection]:
    database = AdbcDatabase(driver=_driver_path(), uri=address)
    return database, AdbcConnection(database)


@contextmanager
def open_transaction(url: URL, retry_timeout_s: float, statement_timeout_s: float) -> Iterator[PostgreSQLBackend]:
    """Connect and begin the transaction, in which a statement may take that long; 0 for no limit.

    Raises:
        DatabaseUnreachableError: The server does not answer.
        DatabaseAccessDeniedError: There is no such database, or it denies access.
    """
    # Parameters can hold credentials, too.
    shown = url.set(query={}).render_as_string(hide_password=True)
    secrets = [
        str(url.password or ""),
        *(str(value) for name, value in url.query.items() if "password" in name.lower()),
    ]
    password = max(secrets, key=len)
    address = libpq_address(url.set(query={**CONNECTION_OPTIONS, **url.query}))
    try:
        database, connection = _connect_with_retries(address, retry_timeout_s)
    except Error as error:
        raise _connection_error(shown, error, password) from None
    # With the default paramstyle, pyformat, SQLAlchemy doubles every `%` in a name, which only a DBAPI driver undoes.
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
    backend = PostgreSQLBackend(connection, shown, password, dialect, statement_timeout_s)
    try:
        connection.set_autocommit(False)
        backend.begin_transaction()
        yield backend
    finally:
        with suppress(Error):
            connection.close()
            database.close()


def libpq_address(url: URL) -> str:
    """The address as libpq reads it, which takes `+` in a parameter as a plus: SQLAlchemy writes a space so."""
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    place, mark, query = address.partition("?")
    return place + mark + query.replace("+", "%20")


def _connection_error(address: str, error: Error, password: str) -> DatabaseError:
    """The error of a connection that could not be opened: the server does not answer, or rejects the address."""
    failed = f"Cannot open {address}: {redact(str(error), password)}"
    if is_transient_sql_error(error):
        return DatabaseUnreachableError(
            f"{failed} Check that the server runs (`headrace stack status`) and the address in HEADRACE_DATABASE_URL."
        )
    setting = "user and password" if "authentication failed" in str(error) else "the address"
    return DatabaseAccessDeniedError(f"{failed} Check {setting} in HEADRACE_DATABASE_URL.")


def redact(text: str, password: str) -> str:
    """A driver's message on one line, without the password: libpq quotes the address in some of its messages."""
    line = " ".join(text.split())
    return line.replace(password, "***") if password else line


def _name_text(time: ColumnElement[Any], form: str) -> ColumnElement[Any]:
    """The name; of a year before Christ with that said, which YYYY alone does not: 44 BC would be the year 44."""
    is_bc = time < _literal("0001-01-01")
    return case((is_bc, func.to_char(time, _literal(f"{form} BC"))), else_=func.to_char(time, _literal(form)))


def _literal(value: str) -> ColumnElement[Any]:
    return literal_column("'" + value.replace("'", "''") + "'")


def _is_changed(field: pa.Field) -> bool:
    """Whether ADBC gives values of the column as something else, or as a type that Arrow lacks."""
    kind = field.type
    if pa.types.is_list(kind):
        item = kind.value_field
        is_text = pa.types.is_string(item.type) and _type_name(item) not in READ_AS_TEXT
        return not (is_text or _type_name(item) in ITEM_TYPES)
    is_extension = isinstance(kind, pa.BaseExtensionType)
    is_other = pa.types.is_struct(kind) or pa.types.is_interval(kind) or pa.types.is_null(kind)
    return is_extension or is_other or _type_name(field) in READ_AS_TEXT


def _is_ordered(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_date(kind))


def _type_name(field: pa.Field) -> str:
    return str((field.metadata or {}).get(POSTGRESQL_TYPE, str(field.type).encode()), "utf-8")
