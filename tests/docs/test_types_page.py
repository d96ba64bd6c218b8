"""The page about types says what happens: each of its cases goes from the source into a validated table.

Of every case a value arrives exactly, or its row is rejected with its text, or the partition or source is refused.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from servers import PostgreSQL
from type_cases import CONVERSIONS, DECLARED, REFUSALS, REJECTED, Conversion, Refusal, parquet_array
from type_page import PAGE, render_page
from weather import create_dataset

from headrace.dataset import Source, TableSource
from headrace.errors import HeadraceError
from headrace.ingest.ingest import ingest
from headrace.settings import Settings
from headrace.storage import parquet
from headrace.storage.parquet import keeps_type
from headrace.storage.table_store import TableStore
from headrace.validate.csv_dialect import CsvDialect
from headrace.validate.csv_reader import read_csv
from headrace.validate.json_reader import JsonDialect, read_json
from headrace.validate.parquet_reader import read_parquet
from headrace.validate.validate_partition import validate_frame

ODD = TableSource("odd", ("id",), "id")
INSERT = "INSERT INTO odd VALUES"
PG_TYPES = "CREATE TYPE mood AS ENUM ('a', 'c'); CREATE TYPE pair AS (opens time, ends timestamptz)"


def conversions(source: str) -> list[Conversion]:
    return [conversion for conversion in CONVERSIONS if conversion.source == source]


def test_the_page_is_what_the_cases_say() -> None:
    assert PAGE.read_text("utf-8") == render_page(), "run `python tests/support/type_page.py`"


def test_no_case_is_given_twice() -> None:
    names = [conversion.name for conversion in CONVERSIONS]

    assert len(names) == len(set(names))


# The values of a case as the source gives them


def csv_frame(conversion: Conversion, folder: Path) -> pl.DataFrame:
    path = folder / "all.csv"
    quoted = ['"' + value.replace('"', '""') + '"' for value in conversion.outcomes or {"a": None}]
    path.write_text("id,v\n" + "".join(f"{number},{value}\n" for number, value in enumerate(quoted)))
    return read_csv(path, CsvDialect(nulls=("NA",)))


def json_frame(conversion: Conversion, folder: Path) -> pl.DataFrame:
    path = folder / "all.jsonl"
    values = conversion.outcomes or {"1": None}
    path.write_text("".join(f'{{"id":{number},"v":{value}}}\n' for number, value in enumerate(values)), "utf-8")
    return read_json(path, JsonDialect())


def parquet_frame(conversion: Conversion, folder: Path) -> pl.DataFrame:
    path = folder / "all.parquet"
    values = parquet_array(conversion)
    pq.write_table(pa.table({"id": range(len(values)), "v": values}), path)
    return read_parquet(path)


def sql_columns(source: str) -> dict[str, tuple[str, Sequence[str]]]:
    """Column for each case → its type and values in SQL."""
    cases = enumerate(conversions(source))
    return {f"v{number}": (case.source_type.split(" (")[0], [*case.outcomes]) for number, case in cases}


def sql_statements(columns: Mapping[str, tuple[str, Sequence[str]]]) -> list[str]:
    """One table for all cases: its row n holds the n-th value of each."""
    height = max(len(values) for _, values in columns.values())
    rows = [
        [str(row), *(values[row] if row < len(values) else "NULL" for _, values in columns.values())]
        for row in range(height)
    ]
    types = ", ".join(f"{name} {kind}" for name, (kind, _) in columns.items())
    return [f"CREATE TABLE odd (id integer, {types})", *(f"{INSERT} ({', '.join(row)})" for row in rows)]


def ingested(address: str, folder: Path) -> pl.DataFrame:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_DATABASE_URL", address)
        table_store = TableStore.at(folder)
        list(ingest(create_dataset(odd=ODD), table_store, Settings()))
    return read_parquet(table_store.paths("raw/sky/odd")["all"])


def sqlite_table(folder: Path, *statements: str) -> str:
    path = folder / "source.db"
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
    return f"sqlite:///{path}"


def postgresql_table(postgres: PostgreSQL, *statements: str) -> str:
    name = postgres.new_database()
    with postgres.connect(name) as connection:
        for statement in (PG_TYPES, *statements):
            connection.execute(statement.encode())
    return postgres.address(name)


@pytest.fixture(scope="module")
def sqlite_frame(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    folder = tmp_path_factory.mktemp("sqlite")
    return ingested(sqlite_table(folder, *sql_statements(sql_columns("SQLite"))), folder / "tables")


@pytest.fixture(scope="module")
def postgresql_frame(postgres: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    address = postgresql_table(postgres, *sql_statements(sql_columns("PostgreSQL")))
    return ingested(address, tmp_path_factory.mktemp("postgresql"))


def column(frame: pl.DataFrame, conversion: Conversion) -> pl.DataFrame:
    number = conversions(conversion.source).index(conversion)
    return frame.select("id", pl.col(f"v{number}").alias("v")).head(max(len(conversion.outcomes), 1))


# What becomes of them


def check(conversion: Conversion, raw: pl.DataFrame, folder: Path) -> None:
    """Validate the values beside a null, write the accepted ones and read them back."""
    source = declare(conversion.declared)
    raw = raw if conversion.source == "JSON" else raw.with_columns(pl.col("id").cast(pl.Int64))
    identifier = pl.Series("id", [{"json_text": "-1", "is_string": False} if conversion.source == "JSON" else -1])
    raw = raw.vstack(raw.clear(1).with_columns(identifier))
    if conversion.refused:
        filled = raw.with_columns(pl.col("v").fill_null(strategy="backward"))
        with pytest.raises(HeadraceError, match=conversion.refused):
            validate_frame(filled, source, "all")
        return
    expected = {number: value for number, value in enumerate(conversion.outcomes.values()) if value is not REJECTED}

    result = validate_frame(raw, source, "all")

    parquet.write(result.accepted, folder / "validated.parquet")
    arrived = dict(read_parquet(folder / "validated.parquet").rows())
    assert repr(arrived.pop(-1)) == "None"
    assert {number: shown(value) for number, value in arrived.items()} == {
        number: shown(value) for number, value in expected.items()
    }
    rejected = set(range(len(conversion.outcomes))) - {*expected}
    assert {row - 1 for row in result.rejected["_row"]} == rejected
    assert {check for checks in result.rejected["_failed_checks"] for check in checks} <= {"v|dtype", "v|zone"}
    assert result.rejected["v"].null_count() == 0


def declare(declared: str) -> Source:
    """A source whose column `v` is declared so."""
    contract = type("Odd", (dy.Schema,), {"id": dy.Int64(), "v": DECLARED[declared]()})
    return Source("odd", ODD, read_parquet, contract, keep_types, ("id",), max_rejected_share=1.0)


def keep_types(rows: pl.DataFrame) -> pl.DataFrame:
    """Durations as integers, which Parquet keeps."""
    is_kept = keeps_type(rows.schema["v"]) or not isinstance(rows.schema["v"], pl.Duration)
    return rows if is_kept else rows.with_columns(pl.col("v").dt.total_microseconds())


def shown(value: Any) -> str:  # noqa: ANN401  a value of any type
    """Text by which equal values of one type are equal, NaN and the sign of zero included."""
    if isinstance(value, list):
        return str([shown(item) for item in value])
    if isinstance(value, dict):
        return str({name: shown(item) for name, item in value.items()})
    if isinstance(value, timedelta):
        return str(value // timedelta(microseconds=1))
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value.normalize()) if isinstance(value, Decimal) else repr(value)


def name_of(case: Conversion | Refusal) -> str:
    return case.name if isinstance(case, Conversion) else f"{case.source}: {case.source_type} {case.value}"


@pytest.mark.parametrize("conversion", conversions("CSV"), ids=name_of)
def test_values_of_csv(conversion: Conversion, tmp_path: Path) -> None:
    check(conversion, csv_frame(conversion, tmp_path), tmp_path)


@pytest.mark.parametrize("conversion", conversions("JSON"), ids=name_of)
def test_values_of_json(conversion: Conversion, tmp_path: Path) -> None:
    check(conversion, json_frame(conversion, tmp_path), tmp_path)


@pytest.mark.parametrize("conversion", conversions("Parquet"), ids=name_of)
def test_values_of_parquet(conversion: Conversion, tmp_path: Path) -> None:
    check(conversion, parquet_frame(conversion, tmp_path), tmp_path)


@pytest.mark.parametrize("conversion", conversions("SQLite"), ids=name_of)
def test_values_of_sqlite(conversion: Conversion, sqlite_frame: pl.DataFrame, tmp_path: Path) -> None:
    check(conversion, column(sqlite_frame, conversion), tmp_path)


@pytest.mark.parametrize("conversion", conversions("PostgreSQL"), ids=name_of)
def test_values_of_postgresql(conversion: Conversion, postgresql_frame: pl.DataFrame, tmp_path: Path) -> None:
    check(conversion, column(postgresql_frame, conversion), tmp_path)


def refusals(source: str) -> list[Refusal]:
    return [refusal for refusal in REFUSALS if refusal.source == source]


def statements(refusal: Refusal) -> tuple[str, str]:
    kind = "" if refusal.source_type == "no declared type" else refusal.source_type
    return f"CREATE TABLE odd (id integer, v {kind})", f"{INSERT} (1, {refusal.value})"


@pytest.mark.parametrize("refusal", refusals("SQLite"), ids=name_of)
def test_values_that_are_refused_in_sqlite(refusal: Refusal, tmp_path: Path) -> None:
    address = sqlite_table(tmp_path, *statements(refusal))

    with pytest.raises(HeadraceError) as error:
        ingested(address, tmp_path / "tables")
    assert refusal.message in str(error.value)
    assert "odd" in str(error.value)


@pytest.mark.parametrize("refusal", refusals("PostgreSQL"), ids=name_of)
def test_values_that_are_refused_in_postgresql(refusal: Refusal, postgres: PostgreSQL, tmp_path: Path) -> None:
    address = postgresql_table(postgres, *statements(refusal))

    with pytest.raises(HeadraceError) as error:
        ingested(address, tmp_path / "tables")
    assert refusal.message in str(error.value)
    assert "odd" in str(error.value)


@pytest.mark.parametrize("refusal", refusals("JSON"), ids=name_of)
def test_lines_that_are_rejected_in_json(refusal: Refusal, tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    path.write_text(f'{{"id":1,"v":"a"}}\n{refusal.value}\n')

    result = validate_frame(read_json(path, JsonDialect()), declare("String"), "all")

    assert result.accepted.rows() == [(1, "a")]
    assert result.rejected.select("_row", "_row_text", "_failed_checks").rows() == [
        (2, refusal.value, [refusal.message])
    ]


@pytest.mark.parametrize("refusal", refusals("Parquet"), ids=name_of)
def test_values_that_are_refused_in_parquet(refusal: Refusal, tmp_path: Path) -> None:
    is_list = refusal.source_type.startswith("list")
    ticks = pa.array([[86_400_000_000]], pa.list_(pa.int64())) if is_list else pa.array([86_400_000_000])
    kind = pa.list_(pa.time64("us")) if is_list else pa.time64("us")
    pq.write_table(pa.table({"v": ticks.cast(kind)}), tmp_path / "all.parquet")

    with pytest.raises(HeadraceError, match=refusal.message):
        read_parquet(tmp_path / "all.parquet")
