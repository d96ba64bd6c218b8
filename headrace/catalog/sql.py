"""SQL over the tables of a dataset, in DuckDB: each is a view `<state>.<name>`, such as `features.carrier_delays`."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import duckdb

from headrace.catalog.sql_scan import literal, scan_statement
from headrace.catalog.tables import DatasetTables
from headrace.errors import HeadraceError

COPY_OPTIONS: Mapping[str, str] = {
    "csv": "FORMAT csv, HEADER",
    "json": "FORMAT json, ARRAY true",
    "parquet": "FORMAT parquet",
}
"""Format of a file → options of DuckDB's `COPY`."""

FLOATS = ("DOUBLE", "FLOAT")


class QueryError(HeadraceError):
    """DuckDB cannot run the statement."""


# no failpoint: a database in memory
def connect(tables: DatasetTables, statement: str) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection in memory with a view for each table that the statement names. Other tables are not fetched.

    What counts is the text `<state>.<name>`. DuckDB's `get_table_names` binds columns, which fails without the tables,
    and takes no `PIVOT` and no second statement. A name in a comment costs a fetch, no more.
    """
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    for name in tables:
        state, _, table = name.partition("/")
        if re.search(rf'\b{re.escape(state)}"?\s*\.\s*"?{re.escape(table)}\b', statement, re.IGNORECASE):
            tables[name].check_rows()
            scan = scan_statement(tables[name].paths(), tables[name].mixed)
            connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{state}"')
            connection.execute(f'CREATE VIEW "{state}"."{table}" AS {scan}')
    return connection


def format_result(tables: DatasetTables, statement: str) -> str:
    """The result of a statement as a table for the terminal; of many rows the first and the last.

    Raises:
        QueryError: DuckDB cannot run the statement.
        EmptyTableError: A table that it names has no partition.
    """
    with _result(tables, statement) as relation:
        return str(relation)


# no failpoint: a file that somebody asked for, which no run reads
def write_result(tables: DatasetTables, statement: str, path: Path, kind: str) -> None:
    """Write the result of a statement to a file, atomically; raises as `format_result`.

    Args:
        tables: The tables that it may name.
        statement: SQL with a result, such as SELECT, SUMMARIZE or DESCRIBE.
        path: The file.
        kind: A key of `COPY_OPTIONS`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _result(tables, statement) as relation:
            rows = _without_nan(relation) if kind == "json" else relation
            rows.query("result", f"COPY result TO {literal(str(temporary))} ({COPY_OPTIONS[kind]})")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _without_nan(relation: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """NaN and infinity as null: JSON has neither, and DuckDB would write them all the same."""
    columns = []
    for column, kind in zip(relation.columns, relation.types, strict=True):
        name = '"' + column.replace('"', '""') + '"'
        columns.append(f"CASE WHEN isfinite({name}) THEN {name} END AS {name}" if str(kind) in FLOATS else name)
    return relation.project(", ".join(columns))


@contextmanager
def _result(tables: DatasetTables, statement: str) -> Iterator[duckdb.DuckDBPyRelation]:
    connection = connect(tables, statement)
    try:
        relation = connection.sql(statement)
        if relation is None:
            raise QueryError("The statement has no result: expected a query, such as SELECT, SUMMARIZE or DESCRIBE.")
        yield relation
    except duckdb.Error as error:
        names = ", ".join(name.replace("/", ".") for name in tables)
        raise QueryError(f"{error}\nThe tables {tables.where} are {names}.") from error
    finally:
        connection.close()
