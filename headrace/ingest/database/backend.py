"""The interface of a database backend, and the errors that backends raise."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Protocol

import pyarrow as pa
from sqlalchemy import column
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ColumnElement, quoted_name
from sqlalchemy.sql.expression import TableClause

from headrace.errors import HeadraceError, TransientError
from headrace.partitions import Hourly, Interval, TimePartitions


class DatabaseError(HeadraceError):
    """The database rejected a statement, or its result cannot be used."""


class DatabaseUnreachableError(DatabaseError, TransientError):
    """The database does not answer, closed the connection, or gave up the transaction in favour of another one."""


class StatementTimeoutError(DatabaseError, TransientError):
    """The server gave up a statement that took too long."""


class DatabaseAccessDeniedError(DatabaseError):
    """The database does not exist, or denies access."""


class NaiveTimestampError(DatabaseError):
    """A column holds timestamps without a time zone."""


class NullPartitionError(DatabaseError):
    """Rows have no time of a partition."""


class DatabaseBackend(Protocol):
    """What differs between databases, inside one transaction."""

    @property
    def dialect(self) -> Dialect:
        """SQLAlchemy dialect that statements are compiled for."""

    def split_name(self, name: str) -> tuple[str, str]:
        """Schema, empty if none is named, and name of a table."""

    @property
    def time_forms(self) -> str:
        """The values that belong to a partition, for a message."""

    def query_clause(self, query: str, name: str) -> TableClause:
        """A query as a table. `name` is what errors name.

        Raises:
            DatabaseError: It is not one SELECT, fails, or, where the schema would not show it, has columns that cannot
                be told apart by a name.
        """

    def row_digest_expr(self, schema: pa.Schema) -> ColumnElement[Any]:
        """Sum of a hash of each row, as text: whatever the order of rows, it differs if a value or a column does."""

    def read_schema(self, source: TableClause, name: str) -> pa.Schema:
        """Columns of the table. Columns whose type Arrow lacks are strings."""

    def select_expr(self, field: pa.Field) -> ColumnElement[Any]:
        """The column in a SELECT list."""

    def primary_key(self, source: TableClause, name: str) -> tuple[str, ...]:
        """Columns of the table's primary key; empty if it has none."""

    def native_type(self, field: pa.Field) -> str:
        """The database's own name for the type of a column."""

    def name_expr(self, field: pa.Field, partitions: TimePartitions) -> ColumnElement[Any]:
        """Name of the partition that a value of the column belongs to; NULL if it has none."""

    def order_expr(self, field: pa.Field, partitions: TimePartitions) -> ColumnElement[Any]:
        """Expression that sorts rows by the partition of the column."""

    def max_expr(self, field: pa.Field) -> ColumnElement[Any]:
        """Maximum of the column, as text; of times, the latest that is finite."""

    def digest_expr(self, field: pa.Field) -> ColumnElement[Any]:
        """Sum of a 64-bit hash of each value of the column, as text: whatever the order, it differs if a value does."""

    def changed_by_arrow_expr(self, field: pa.Field) -> ColumnElement[Any] | None:
        """Number of values of the column that Arrow would hold as something else; None for a type without any."""

    def is_within(self, field: pa.Field, partitions: TimePartitions, interval: Interval) -> ColumnElement[bool]:
        """Whether a value of the column is in an interval that partitions make up."""

    def fetch_all(self, statement: str, name: str) -> list[tuple[Any, ...]]:
        """All rows of a small result. `name` is the table that errors name."""

    def current_time(self) -> datetime:
        """The time now (UTC), by the clock of the server, or of this machine for a database that is a file."""

    @property
    def survives_errors(self) -> bool:
        """Whether the transaction can be used after a statement that failed."""

    def restart_transaction(self) -> None:
        """Begin another transaction, which sees what was committed meanwhile."""

    def fetch_batches(self, statement: str, schema: pa.Schema, name: str) -> Iterator[pa.RecordBatch]:
        """The rows of a large result, streamed."""


def query_column_error(name: str, unnamed: Sequence[str], repeated: Sequence[str]) -> DatabaseError:
    """The error for a query with columns that have no name of their own."""
    found = [f"no name for {', '.join(unnamed)}"] if unnamed else []
    found += [f"{', '.join(repeated)} more than once"] if repeated else []
    return DatabaseError(
        f"{name}: expected a name of its own for each column, found {' and '.join(found)}. Write `… AS name` in the"
        " query."
    )


def check_date_has_partition(field: pa.Field, partitions: TimePartitions) -> None:
    """Check that a column tells the partition: a date has no hour.

    Raises:
        DatabaseError: It is a column of dates, and partitions are hours.
    """
    if pa.types.is_date(field.type) and isinstance(partitions, Hourly):
        raise DatabaseError(
            f"partition_by {field.name}: expected a column of times, since partitions are hours, found dates. Name"
            " another column, or declare the source's `partitions` as Daily()."
        )


def quote_column(name: str) -> ColumnElement[Any]:
    """A column by its exact name."""
    return column(quoted_name(name, quote=True))
