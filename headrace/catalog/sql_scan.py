"""The files of a table as one query of DuckDB, where they may differ in their columns."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl

from headrace.storage.table_schema import LogicalColumn, TableSchema, encode_default

SQL_TYPES: Mapping[type[pl.DataType], str] = {
    pl.Boolean: "BOOLEAN",
    pl.String: "VARCHAR",
    pl.Binary: "BLOB",
    pl.Date: "DATE",
    pl.Time: "TIME",
    pl.Float32: "FLOAT",
    pl.Float64: "DOUBLE",
    pl.Int8: "TINYINT",
    pl.Int16: "SMALLINT",
    pl.Int32: "INTEGER",
    pl.Int64: "BIGINT",
    pl.UInt8: "UTINYINT",
    pl.UInt16: "USMALLINT",
    pl.UInt32: "UINTEGER",
    pl.UInt64: "UBIGINT",
}
"""Type of Polars → the type in which DuckDB reads it from Parquet."""


def scan_statement(paths: Mapping[str, Path], schema: TableSchema | None) -> str:
    """A query with the rows of files, one after the other.

    Args:
        paths: Entry → file.
        schema: The columns of the table where files differ in theirs.
    """
    if schema is None:
        return f"FROM read_parquet([{_list(paths.values())}])"
    parts = []
    for files, columns in schema.groups(paths):
        shown = ", ".join(_column(column, own) for column, own in columns)
        parts.append(f"FROM read_parquet([{_list(files)}]) SELECT {shown}")
    return " UNION ALL ".join(f"({part})" for part in parts)


def literal(text: str) -> str:
    """Text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def _list(paths: Iterable[Path]) -> str:
    return ", ".join(literal(str(path)) for path in paths)


def _column(column: LogicalColumn, own: str | None) -> str:
    name, kind = _quote(column.name), _sql_type(column.dtype)
    if own is None:
        value = encode_default(column.default)
        found = "NULL" if value is None else literal(value if isinstance(value, str) else repr(value))
        return f"CAST({found} AS {kind}) AS {name}" if kind else f"{found} AS {name}"
    return f"CAST({_quote(own)} AS {kind}) AS {name}" if kind else f"{_quote(own)} AS {name}"


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _sql_type(dtype: pl.DataType) -> str:
    """DuckDB's name of a type; empty for nested ones, which no file has otherwise."""
    if isinstance(dtype, pl.Decimal):
        return f"DECIMAL({dtype.precision}, {dtype.scale})"
    if isinstance(dtype, pl.Datetime):
        plain = {"ms": "TIMESTAMP_MS", "us": "TIMESTAMP", "ns": "TIMESTAMP_NS"}[dtype.time_unit]
        return "TIMESTAMP WITH TIME ZONE" if dtype.time_zone else plain
    return next((name for kind, name in SQL_TYPES.items() if dtype == kind), "")
