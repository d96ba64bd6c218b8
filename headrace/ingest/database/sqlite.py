"""SQLite: one transaction on a file opened read-only. Every value is checked against its column's declared type."""

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy import Function, Text, and_, cast, func, literal, table
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.sql import ColumnElement, quoted_name
from sqlalchemy.sql.expression import TableClause

from headrace.ingest.database.backend import (
    DatabaseAccessDeniedError,
    DatabaseError,
    DatabaseUnreachableError,
    NaiveTimestampError,
    check_date_has_partition,
    query_column_error,
    quote_column,
)
from headrace.partitions import ALL_TIME, UTC_ZONE, Daily, Interval, Monthly, TimePartitions, Yearly
from headrace.storage.sql_errors import is_transient_sql_error

NAME_FORMS = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m", "year": "%Y"}
"""Unit of partitions → format of their names."""

LOCAL_NAME = "headrace_local_partition"
LOCAL_PARTITIONS = {"day": Daily, "month": Monthly, "year": Yearly}
BATCH_ROWS = 20_000
DIGEST = "headrace_digest"
ROW_DIGEST, ROW_HASH = "headrace_row_digest", "headrace_row_hash"
MAX_ARGUMENTS = 100
"""Of a function; the most that SQLite takes is 100 in its oldest builds (SQLITE_MAX_FUNCTION_ARG)."""

COLUMNS = "SELECT name, type FROM pragma_table_xinfo(?) WHERE hidden <> 1"
QUERY_VIEW, TYPES = "headrace_query_", "_types"
"""How the temporary view of a query is called, and the table with the types of its columns."""

COLUMN_NAME = re.compile(r"[^\W\d][\w $.-]*")
"""What a column of an expression may be called. One without a name is called `count(*)`, as its text reads."""

CONVERSION_ERRORS = (pa.ArrowException, TypeError, ValueError, OverflowError)
FINER_THAN_US = re.compile(r"[.,]\d{6}0*[1-9]")
LOCK_TIMEOUT_S = 30.0
UTC_TIMESTAMP = pa.timestamp("us", "UTC")
ARROW_TYPES: tuple[tuple[tuple[str, ...], pa.DataType], ...] = (
    (("TIMESTAMP", "DATETIME"), UTC_TIMESTAMP),
    (("DATE",), pa.date32()),
    (("BOOL",), pa.bool_()),
    (("INT",), pa.int64()),
    (("CHAR", "CLOB", "TEXT"), pa.string()),
    (("BLOB",), pa.binary()),
    (("REAL", "FLOA", "DOUB", "NUM", "DEC"), pa.float64()),
)
"""Parts of a declared type → Arrow type; the first match counts. From INT to REAL the order is that of SQLite's
affinity rules (datatype3.html, section 3.1), by which CHARINT is an integer."""


@dataclass(frozen=True)
class SQLiteBackend:
    """One transaction on one file. Implements `DatabaseBackend`."""

    connection: sqlite3.Connection
    path: Path
    dialect: Dialect = field(default_factory=sqlite.dialect)

    def split_name(self, name: str) -> tuple[str, str]:
        """A name with a dot is that of a table, if there is one, or of a database and a table of it."""
        is_table = self._execute("SELECT 1 FROM sqlite_master WHERE name = ?", name, (name,)).fetchone()
        schema, _, table = ("", "", name) if is_table else name.rpartition(".")
        return schema, table

    @property
    def time_forms(self) -> str:
        return "the text 2013-01-09, or 2013-01-09T05:00:00Z in a TIMESTAMP,"

    def query_clause(self, query: str, name: str) -> TableClause:
        """As a temporary view, which SQLite makes of one SELECT only. The file is opened read-only and not changed."""
        view = QUERY_VIEW + sha256(query.encode()).hexdigest()[:16]
        if not self._execute("SELECT 1 FROM sqlite_temp_master WHERE name = ?", name, (view,)).fetchone():
            self._execute(f'CREATE TEMP VIEW "{view}" AS {query}\n', name)
            self._check_names(view, name)
            # A view has the types of the columns that it shows; a table also those of `CAST(… AS …)`. LIMIT 0 computes
            # no row.
            self._execute(f'CREATE TEMP TABLE "{view}{TYPES}" AS SELECT * FROM ({query}\n) LIMIT 0', name)  # noqa: S608
        return table(quoted_name(view, quote=True), schema="temp")

    def _check_names(self, view: str, name: str) -> None:
        """SQLite calls the second `a` of a view `a:1`, and a column without a name as its expression reads."""
        columns = dict(self._execute(COLUMNS, name, (view,)).fetchall())
        repeated = [column for column in columns if column.rpartition(":")[0] in columns]
        unnamed = [f"`{column}`" for column, kind in columns.items() if not (kind or COLUMN_NAME.fullmatch(column))]
        unnamed = [column for column in unnamed if column.strip("`") not in repeated]
        if unnamed or repeated:
            raise query_column_error(name, unnamed, [column.rpartition(":")[0] for column in repeated])

    def row_digest_expr(self, schema: pa.Schema) -> ColumnElement[Any]:
        """Computed in this process, as `digest_expr`. A function of SQLite takes 100 arguments, so wide rows nest."""
        values: list[ColumnElement[Any]] = [quote_column(name) for name in schema.names]
        while len(values) > MAX_ARGUMENTS:
            packs = [values[start : start + MAX_ARGUMENTS] for start in range(0, len(values), MAX_ARGUMENTS)]
            values = [Function(ROW_HASH, *pack) for pack in packs]
        return Function(ROW_DIGEST, *values)

    def read_schema(self, source: TableClause, name: str) -> pa.Schema:
        # Hidden are 1 (a column of a virtual table), 2 and 3 (generated columns), which `SELECT *` shows.
        columns = self._execute(COLUMNS, name, (str(source.name),)).fetchall()
        if source.schema == "temp" and str(source.name).startswith(QUERY_VIEW):
            casts = dict(self._execute(COLUMNS, name, (f"{source.name}{TYPES}",)).fetchall())
            columns = [(column, declared or casts[column]) for column, declared in columns]
        if not columns:  # the pragma returns no row for a table that does not exist
            raise DatabaseError(
                f"{self.path} has no table {name}. Correct the source's declaration, or create the table."
            )
        return pa.schema([pa.field(column, self._arrow_type(name, column, declared)) for column, declared in columns])

    def select_expr(self, field: pa.Field) -> ColumnElement[Any]:
        return quote_column(field.name)

    def primary_key(self, source: TableClause, name: str) -> tuple[str, ...]:
        statement = "SELECT name FROM pragma_table_info(?) WHERE pk ORDER BY pk"
        return tuple(column for (column,) in self._execute(statement, name, (str(source.name),)))

    def native_type(self, field: pa.Field) -> str:
        return str(field.type)

    def name_expr(self, field: pa.Field, partitions: TimePartitions) -> ColumnElement[Any]:
        is_date = pa.types.is_date(field.type)
        if not (pa.types.is_timestamp(field.type) or is_date):
            raise DatabaseError(f"partition_by {field.name}: expected a TIMESTAMP or a DATE, found {field.type}.")
        check_date_has_partition(field, partitions)
        if is_date or partitions.timezone == UTC_ZONE:
            return func.strftime(NAME_FORMS[partitions.unit], quote_column(field.name))
        # SQLite knows no time zones; the function runs in this process.
        return Function(LOCAL_NAME, quote_column(field.name), literal(partitions.unit), literal(partitions.timezone))

    def order_expr(self, field: pa.Field, partitions: TimePartitions) -> ColumnElement[Any]:
        """The name, not the column: SQLite stores timestamps as text, and text with mixed UTC offsets sorts wrongly."""
        return self.name_expr(field, partitions)

    def max_expr(self, field: pa.Field) -> ColumnElement[Any]:
        """The maximum as text, of bytes in hexadecimal. Of timestamps it is the latest if all have the same format."""
        latest = func.max(quote_column(field.name))
        return cast(func.hex(latest) if pa.types.is_binary(field.type) else latest, Text)

    def digest_expr(self, field: pa.Field) -> ColumnElement[Any]:
        """Computed in this process: SQLite has no hash, and its date functions keep milliseconds only."""
        return Function(DIGEST, quote_column(field.name))

    def changed_by_arrow_expr(self, field: pa.Field) -> ColumnElement[Any] | None:  # noqa: ARG002  the interface's
        """None: every value is checked when it is read."""
        return None

    def is_within(self, field: pa.Field, partitions: TimePartitions, interval: Interval) -> ColumnElement[bool]:
        name = self.name_expr(field, partitions)
        is_from = name >= literal(partitions.name_at(interval.start))
        if interval.end == ALL_TIME.end:
            return is_from
        return and_(is_from, name < literal(partitions.name_at(interval.end)))

    def fetch_all(self, statement: str, name: str) -> list[tuple[Any, ...]]:
        return self._fetch(self._execute(statement, name), name, -1)

    def current_time(self) -> datetime:
        return datetime.now(UTC)

    @property
    def survives_errors(self) -> bool:
        """Yes: only that statement is undone."""
        return True

    def restart_transaction(self) -> None:
        """Never needed."""

    def fetch_batches(self, statement: str, schema: pa.Schema, name: str) -> Iterator[pa.RecordBatch]:
        cursor = self._execute(statement, name)
        while rows := self._fetch(cursor, name):
            columns = zip(*rows, strict=True)
            yield pa.RecordBatch.from_arrays(
                [_to_array(values, field, name) for values, field in zip(columns, schema, strict=True)], schema=schema
            )

    # no failpoint: a source, and the statements are SELECTs
    def _execute(self, statement: str, name: str, values: tuple[str, ...] = ()) -> sqlite3.Cursor:
        with self._known_errors(name):
            return self.connection.execute(statement, values)

    def _fetch(self, cursor: sqlite3.Cursor, name: str, rows: int = BATCH_ROWS) -> list[tuple[Any, ...]]:
        """The next rows, or all if their number is negative: SQLite computes them only now, and may fail."""
        with self._known_errors(name):
            return cursor.fetchmany(rows) if rows >= 0 else cursor.fetchall()

    @contextmanager
    def _known_errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if is_transient_sql_error(error):
                raise DatabaseUnreachableError(
                    f"{self.path}: {name} cannot be read: {error}, for {LOCK_TIMEOUT_S:.0f} s. Another process holds"
                    " the file's lock; let it finish, then run the same command again."
                ) from error
            raise DatabaseError(f"{self.path}: {name} cannot be read: {error}.") from error

    def _arrow_type(self, name: str, column: str, declared: str) -> pa.DataType:
        for parts, kind in ARROW_TYPES:
            if any(part in declared.upper() for part in parts):
                return kind
        raise DatabaseError(
            f"{self.path}: {name}.{column} is declared {declared or 'without a type'}, which allows any value. Declare"
            " it (INTEGER, REAL, TEXT, BLOB, BOOLEAN, DATE, TIMESTAMP), in a view or a query with `CAST(… AS …)`."
        )


@contextmanager
def open_transaction(url: URL) -> Iterator[SQLiteBackend]:
    """Open the file and begin a transaction.

    Raises:
        DatabaseAccessDeniedError: There is no such file. SQLite would create it.
        DatabaseUnreachableError: Another process holds the file's lock.
        DatabaseError: The file is not a database.
    """
    path = Path(url.database or "").absolute()
    if not path.is_file():
        raise DatabaseAccessDeniedError(f"Cannot open {path}: there is no such file. Check HEADRACE_DATABASE_URL.")
    # `isolation_level=None` keeps Python's driver from beginning and committing transactions by itself. The timeout is
    # for a writer that holds the file's lock.
    connection = sqlite3.connect(path.as_uri() + "?mode=ro", uri=True, isolation_level=None, timeout=LOCK_TIMEOUT_S)
    try:
        connection.create_aggregate(DIGEST, 1, _Digest)  # type: ignore[arg-type]  # typeshed wants `step(*values: int)`
        connection.create_aggregate(ROW_DIGEST, -1, _RowDigest)  # type: ignore[arg-type]  # as above
        connection.create_function(ROW_HASH, -1, _hash_row, deterministic=True)
        connection.create_function(LOCAL_NAME, 3, _local_partition, deterministic=True)
        backend = SQLiteBackend(connection, path)
        # BEGIN is deferred: the snapshot is taken by the first statement that reads (lang_transaction.html).
        backend._execute("BEGIN", "the file")  # noqa: SLF001
        backend._execute("SELECT count(*) FROM sqlite_master", "the file").fetchall()  # noqa: SLF001
        yield backend
    finally:
        connection.close()


@dataclass
class _Digest:
    """The aggregate function that sums a hash of every value."""

    total: int = 0

    def step(self, value: object, /) -> None:
        if value is not None:
            self.total += int.from_bytes(blake2b(repr(value).encode(), digest_size=8).digest())

    def finalize(self) -> str:
        return str(self.total)


@dataclass
class _RowDigest:
    """The aggregate function that sums a hash of every row. The text of a value tells its type, and NULL is None."""

    total: int = 0

    def step(self, *values: object) -> None:
        self.total += int.from_bytes(_hash_row(*values))

    def finalize(self) -> str:
        return str(self.total)


def _hash_row(*values: object) -> bytes:
    return blake2b(repr(values).encode(), digest_size=16).digest()


def _local_partition(value: object, unit: str, timezone: str) -> str | None:
    """The partition of a timestamp in a time zone; None if it is not a time that has one."""
    try:
        return LOCAL_PARTITIONS[unit](timezone).name_at(_parse_timestamp(_only(str)(value)))
    except (TypeError, ValueError, OverflowError, NaiveTimestampError):
        return None


def _to_array(values: tuple[Any, ...], field: pa.Field, name: str) -> pa.Array:
    """Values as the column's type.

    Raises:
        NaiveTimestampError: A timestamp has no UTC offset.
        DatabaseError: A value does not have the type.
    """
    parse = PARSERS[field.type]
    try:
        return pa.array([None if value is None else parse(value) for value in values], field.type)
    except NaiveTimestampError as error:
        raise NaiveTimestampError(f"{name}.{field.name}: {error}") from None
    except CONVERSION_ERRORS as error:
        found = next((value for value in values if not _has_type(value, field.type)), None)
        raise DatabaseError(
            f"{name}.{field.name}: expected every value to be {field.type}, as declared, found"
            f" {found!r:.80}: {error}."
            " SQLite stores any value in any column; correct the rows, or declare a view that casts them."
        ) from error


def _has_type(value: object, kind: pa.DataType) -> bool:
    try:
        pa.array([None if value is None else PARSERS[kind](value)], kind)
    except CONVERSION_ERRORS:
        return False
    return True


def _parse_timestamp(value: str) -> datetime:
    timestamp = datetime.fromisoformat(_only(str)(value))
    if FINER_THAN_US.search(value):
        raise ValueError("it is finer than microseconds")
    if timestamp.tzinfo is None:
        raise NaiveTimestampError(
            f"expected a timestamp with a UTC offset, such as {value}+00:00, found {value}. Correct the rows, or"
            " declare a view that adds the offset."
        )
    return timestamp.astimezone(UTC)


def _parse_date(value: str) -> date:
    return date.fromisoformat(_only(str)(value))


def _parse_boolean(value: int) -> bool:
    if value not in (0, 1):
        raise ValueError("it is neither 0 nor 1")
    return bool(value)


def _parse_float(value: float) -> float:
    if float(_only(float, int)(value)) != value:
        raise ValueError("it is no 64-bit float")
    return float(value)


def _only(*kinds: type) -> Callable[[Any], Any]:
    """A parser that takes values of these types as they are: Arrow would cut 1.5 to 1, and take bytes for text."""

    def check(value: object) -> object:
        if not isinstance(value, kinds):
            raise TypeError(f"it is stored as {type(value).__name__}")
        return value

    return check


PARSERS: dict[pa.DataType, Callable[[Any], Any]] = {
    UTC_TIMESTAMP: _parse_timestamp,
    pa.date32(): _parse_date,
    pa.bool_(): _parse_boolean,
    pa.int64(): _only(int),
    pa.float64(): _parse_float,
    pa.string(): _only(str),
    pa.binary(): _only(bytes),
}
