"""SQLite: one read transaction on a file opened read-only; every value is checked against its column's type."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy import Integer, Text, and_, cast, func, literal, null
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.expression import TableClause

from headrace.ingest.database.backend import DatabaseError, DatabaseUnreachableError, ZonelessTimeError, quoted

DAY = "%Y-%m-%d"
BATCH = 20_000
INSTANT = pa.timestamp("us", "UTC")
KINDS: tuple[tuple[tuple[str, ...], pa.DataType], ...] = (
    (("TIMESTAMP", "DATETIME"), INSTANT),
    (("DATE",), pa.date32()),
    (("BOOL",), pa.bool_()),
    (("INT",), pa.int64()),
    (("CHAR", "CLOB", "TEXT"), pa.string()),
    (("BLOB",), pa.binary()),
    (("REAL", "FLOA", "DOUB", "NUM", "DEC"), pa.float64()),
)
"""Words in a declared type → what its values must be; the first that fits, after SQLite's own rules."""


@dataclass(frozen=True)
class SQLite:
    """One transaction on one file."""

    connection: sqlite3.Connection
    path: Path
    dialect: Dialect = field(default_factory=sqlite.dialect)

    def schema(self, source: TableClause, name: str) -> pa.Schema:
        """As `Server`."""
        found = self._run("SELECT name, type FROM pragma_table_info(?)", name, (str(source.name),)).fetchall()
        if not found:
            raise DatabaseError(f"{self.path} has no table {name}. Fix the source's declaration, or make the table.")
        return pa.schema([pa.field(column, self._kind(name, column, declared)) for column, declared in found])

    def pick(self, field: pa.Field) -> ColumnElement[Any]:
        """As `Server`."""
        return quoted(field.name)

    def day(self, field: pa.Field) -> ColumnElement[Any]:
        """As `Server`."""
        if not (pa.types.is_timestamp(field.type) or pa.types.is_date(field.type)):
            raise DatabaseError(f"partition_by {field.name}: expected a TIMESTAMP or a DATE, seen {field.type}.")
        return func.strftime(DAY, quoted(field.name))

    def order(self, field: pa.Field) -> ColumnElement[Any]:
        """As `Server`: the day itself, for times of several offsets do not sort as text."""
        return self.day(field)

    def newest(self, field: pa.Field) -> ColumnElement[Any]:
        """As `Server`: of times, the greatest text, which is the latest where all are written in one way."""
        return cast(func.max(quoted(field.name)), Text)

    def total(self, field: pa.Field) -> ColumnElement[Any]:
        """As `Server`: of times, milliseconds, so that it is exact."""
        if pa.types.is_timestamp(field.type):
            seconds = cast(func.strftime("%s", quoted(field.name)), Integer)
            thousandths = cast(func.substr(func.strftime("%f", quoted(field.name)), 4), Integer)
            return cast(func.sum(seconds * 1000 + thousandths), Text)
        if pa.types.is_integer(field.type):
            return cast(func.sum(quoted(field.name)), Text)
        return null()

    def within(self, field: pa.Field, first: date, last: date) -> ColumnElement[bool]:
        """As `Server`."""
        day = self.day(field)
        return and_(day >= literal(first.isoformat()), day <= literal(last.isoformat()))

    def rows(self, statement: str, name: str) -> list[tuple[Any, ...]]:
        """As `Server`."""
        return self._run(statement, name).fetchall()

    def batches(self, statement: str, schema: pa.Schema, name: str) -> Iterator[pa.RecordBatch]:
        """As `Server`."""
        cursor = self._run(statement, name)
        while rows := cursor.fetchmany(BATCH):
            columns = zip(*rows, strict=True)
            yield pa.RecordBatch.from_arrays(
                [_typed(values, field, name) for values, field in zip(columns, schema, strict=True)], schema=schema
            )

    # no failpoint: a source, and the statements are SELECTs
    def _run(self, statement: str, name: str, values: tuple[str, ...] = ()) -> sqlite3.Cursor:
        try:
            return self.connection.execute(statement, values)
        except sqlite3.Error as error:
            raise DatabaseError(f"{self.path}: {name} cannot be read: {error}.") from error

    def _kind(self, name: str, column: str, declared: str) -> pa.DataType:
        for words, kind in KINDS:
            if any(word in declared.upper() for word in words):
                return kind
        raise DatabaseError(
            f"{self.path}: {name}.{column} is declared {declared or 'without a type'}, which binds no value. Declare it"
            " (INTEGER, REAL, TEXT, BLOB, BOOLEAN, DATE, TIMESTAMP), in a view with `CAST(… AS …)`."
        )


@contextmanager
def open_file(url: URL) -> Iterator[SQLite]:
    """Open the file and its transaction; a file that is not there is not made."""
    path = Path(url.database or "").absolute()
    if not path.is_file():
        raise DatabaseUnreachableError(f"Cannot open {path}: there is no such file. Check HEADRACE_DATABASE_URL.")
    connection = sqlite3.connect(path.as_uri() + "?mode=ro", uri=True, isolation_level=None, timeout=30)
    try:
        server = SQLite(connection, path)
        server._run("BEGIN", "it")  # noqa: SLF001
        server._run("SELECT count(*) FROM sqlite_master", "it").fetchall()  # noqa: SLF001  the moment that is held
        yield server
    finally:
        connection.close()


def _typed(values: tuple[Any, ...], field: pa.Field, name: str) -> pa.Array:
    """The values as the column's type, or an error that shows one that is not."""
    read = READ.get(field.type)
    try:
        return pa.array([None if value is None else read(value) for value in values] if read else values, field.type)
    except ZonelessTimeError as error:
        raise ZonelessTimeError(f"{name}.{field.name}: {error}") from None
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise DatabaseError(
            f"{name}.{field.name}: expected every value to be {field.type}, as it is declared: {error}."
            " SQLite keeps anything in any column; correct the rows, or declare a view that casts them."
        ) from error


def _instant(value: str) -> datetime:
    found = datetime.fromisoformat(value)
    if found.tzinfo is None:
        raise ZonelessTimeError(
            f"expected a time with its zone, such as {value}+00:00, seen {value}. Correct the rows, or declare a view"
            " that adds the zone."
        )
    return found.astimezone(UTC)


def _truth(value: int) -> bool:
    if value not in (0, 1):
        raise ValueError(f"{value!r} is neither 0 nor 1")
    return bool(value)


READ: dict[pa.DataType, Callable[[Any], Any]] = {
    INSTANT: _instant,
    pa.date32(): date.fromisoformat,
    pa.bool_(): _truth,
}
