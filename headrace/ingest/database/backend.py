"""What a database must do for us, in words that PostgreSQL and SQLite share, and the ways it fails."""

from collections.abc import Iterator
from datetime import date
from typing import Any, Protocol

import pyarrow as pa
from sqlalchemy import column
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ColumnElement, quoted_name
from sqlalchemy.sql.expression import TableClause

from headrace.errors import HeadraceError


class DatabaseError(HeadraceError):
    """The database refused a statement or its answer cannot be used."""


class DatabaseUnreachableError(DatabaseError):
    """The database did not let us in, or went away."""


class ZonelessTimeError(DatabaseError):
    """A column holds times that do not say their zone."""


class NoPartitionError(DatabaseError):
    """Rows have no day that they could belong to."""


class Server(Protocol):
    """What PostgreSQL and SQLite each do in their own way, inside one transaction."""

    @property
    def dialect(self) -> Dialect:
        """How statements are written for it."""

    def schema(self, source: TableClause, name: str) -> pa.Schema:
        """Columns of the table; those of a type that Arrow lacks as text."""

    def pick(self, field: pa.Field) -> ColumnElement[Any]:
        """The column as it is selected."""

    def day(self, field: pa.Field) -> ColumnElement[Any]:
        """UTC day of the column, as text; NULL where there is none."""

    def order(self, field: pa.Field) -> ColumnElement[Any]:
        """What puts rows in the order of the column's UTC days."""

    def newest(self, field: pa.Field) -> ColumnElement[Any]:
        """Greatest value of the column, as text."""

    def total(self, field: pa.Field) -> ColumnElement[Any]:
        """Exact sum of the column, as text."""

    def within(self, field: pa.Field, first: date, last: date) -> ColumnElement[bool]:
        """Whether the column's UTC day lies between the two."""

    def rows(self, statement: str, name: str) -> list[tuple[Any, ...]]:
        """All rows of a small answer."""

    def batches(self, statement: str, schema: pa.Schema, name: str) -> Iterator[pa.RecordBatch]:
        """The rows of a large answer, as they come."""


def quoted(name: str) -> ColumnElement[Any]:
    """A column by its exact name."""
    return column(quoted_name(name, quote=True))
