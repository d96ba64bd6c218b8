"""Any value goes from a source through raw, validation and a validated table exactly, or its row is rejected.

The oracle is Python: what was written is what is read back, by its type and to the last digit.
"""

import csv
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from math import isfinite, isnan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dataframely as dy
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from servers import PostgreSQL
from type_cases import DECLARED
from weather import create_dataset

from headrace.dataset import Source, TableSource
from headrace.ingest.ingest import ingest
from headrace.settings import Settings
from headrace.storage import parquet
from headrace.storage.table_store import TableStore
from headrace.validate.csv_dialect import CsvDialect
from headrace.validate.csv_reader import read_csv
from headrace.validate.json_reader import JsonDialect, Layout, read_json
from headrace.validate.parquet_reader import read_parquet
from headrace.validate.validate_partition import validate_frame

TABLE = TableSource("odd", ("id",), "id")
QUICK: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "phases": [Phase.explicit, Phase.reuse, Phase.generate],
}
"""Failures are not shrunk: each example reads and writes files, so that takes minutes."""


INTEGERS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats() | st.sampled_from([5e-324, 1.7976931348623157e308, -0.0])
SHORT_FLOATS = st.floats(width=32)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
LINES = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1, max_size=8).filter(
    lambda text: text != "NA"
)
DATES = st.dates() | st.sampled_from([date.min, date.max])
TIMES_OF_DAY = st.times() | st.sampled_from([time.max])
TIMES = st.datetimes(timezones=st.just(UTC)) | st.sampled_from(
    [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
)
DECIMALS = st.integers(-(10**10) + 1, 10**10 - 1).map(lambda cents: Decimal(cents).scaleb(-2))


@dataclass(frozen=True)
class Column:
    """A column of a source.

    Attributes:
        declared: How its contract declares it, as in `type_cases`.
        values: What it may hold.
        source_type: Its type in the source.
        written: Value → what is written to the source.
    """

    declared: str
    values: st.SearchStrategy[Any]
    source_type: Any = None
    written: Callable[[Any], Any] = lambda value: value


def rows_of(columns: Mapping[str, Column]) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    return st.lists(st.tuples(*(st.none() | column.values for column in columns.values())), max_size=8)


def declare(columns: Mapping[str, Column]) -> Source:
    contract = {"id": dy.Int64(), **{name: DECLARED[column.declared]() for name, column in columns.items()}}
    schema = type("Odd", (dy.Schema,), contract)
    return Source("odd", TABLE, read_parquet, schema, lambda rows: rows, ("id",), max_rejected_share=1.0)


def arrived(raw: pl.DataFrame, columns: Mapping[str, Column], folder: Path) -> list[tuple[Any, ...]]:
    """The rows of the validated table, without their ids; no row is rejected."""
    result = validate_frame(raw, declare(columns), "all")
    assert result.rejected.rows() == []
    parquet.write(result.accepted, folder / "validated.parquet")
    return read_parquet(folder / "validated.parquet").sort("id").drop("id").rows()


def shown(rows: Sequence[Sequence[Any]]) -> list[list[str]]:
    """Text by which equal values of one type are equal, NaN and the sign of zero included."""

    def show(value: Any) -> str:  # noqa: ANN401  a value of any type
        if isinstance(value, list | tuple):
            return str([show(item) for item in value])
        if isinstance(value, dict):
            return str({name: show(item) for name, item in value.items()})
        if isinstance(value, datetime | time):
            return value.isoformat()
        return repr(value.normalize()) if isinstance(value, Decimal) else repr(value)

    return [[show(value) for value in row] for row in rows]


# CSV


CSV_COLUMNS = {
    "text": Column("String", LINES),
    "whole": Column("Int64", INTEGERS),
    "small": Column("UInt8", st.integers(0, 255)),
    "number": Column("Float64", FLOATS),
    "amount": Column("Decimal(10, 2)", DECIMALS),
    "flag": Column("Bool", st.booleans(), written=lambda value: str(value).lower()),
    "day": Column("Date", DATES),
    "clock": Column("Time", TIMES_OF_DAY),
    "at": Column("utc_time", TIMES, written=lambda value: value.isoformat()),
    "kind": Column("Enum([a, b])", st.sampled_from(["a", "b"])),
}


@settings(max_examples=20, **QUICK)
@given(rows_of(CSV_COLUMNS))
def test_any_value_of_csv_arrives_exactly(tmp_path: Path, rows: list[tuple[Any, ...]]) -> None:
    path = tmp_path / "all.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", *CSV_COLUMNS])
        for number, row in enumerate(rows):
            pairs = zip(row, CSV_COLUMNS.values(), strict=True)
            writer.writerow([number, *("NA" if value is None else column.written(value) for value, column in pairs)])

    frame = read_csv(path, CsvDialect())

    assert shown(arrived(frame, CSV_COLUMNS, tmp_path)) == shown(rows)


# JSON


def quoted(value: Any) -> str:  # noqa: ANN401  a value of any type
    return json.dumps(str(value))


JSON_COLUMNS = {
    "text": Column("String", TEXT, written=json.dumps),
    "whole": Column("Int64", INTEGERS, written=str),
    "large": Column("UInt64", st.integers(0, 2**64 - 1), written=str),
    "number": Column("Float64", FLOATS.filter(isfinite), written=repr),
    "amount": Column("Decimal(10, 2)", DECIMALS, written=str),
    "exponent": Column("Decimal(10, 2)", DECIMALS, written=lambda value: f"{value:E}"),
    "flag": Column("Bool", st.booleans(), written=json.dumps),
    "day": Column("Date", DATES, written=quoted),
    "clock": Column("Time", TIMES_OF_DAY, written=quoted),
    "at": Column("utc_time", TIMES, written=lambda value: quoted(value.isoformat())),
    "kind": Column("Enum([a, b])", st.sampled_from(["a", "b"]), written=quoted),
    "list": Column("List(Int64)", st.lists(st.none() | INTEGERS, max_size=3), written=json.dumps),
    "texts": Column("List(String)", st.lists(st.none() | TEXT, max_size=3), written=json.dumps),
    "times": Column(
        "List(utc_time)",
        st.lists(st.none() | TIMES, max_size=3),
        written=lambda times: json.dumps([time and time.isoformat() for time in times]),
    ),
    "record": Column(
        "Struct(at: utc_time)",
        st.fixed_dictionaries({"at": TIMES}),
        written=lambda record: json.dumps({"at": record["at"].isoformat()}),
    ),
}


@pytest.mark.parametrize("layout", ["lines", "array"])
@settings(max_examples=15, **QUICK)
@given(rows=rows_of(JSON_COLUMNS), are_nulls_left_out=st.booleans())
def test_any_value_of_json_arrives_exactly(
    tmp_path: Path, layout: Layout, rows: list[tuple[Any, ...]], *, are_nulls_left_out: bool
) -> None:
    records = []
    for number, row in enumerate(rows):
        fields = {
            name: "null" if value is None else column.written(value)
            for (name, column), value in zip(JSON_COLUMNS.items(), row, strict=True)
            if value is not None or not are_nulls_left_out
        }
        records.append(f'{{"id": {number}{"".join(f", {quoted(name)}: {text}" for name, text in fields.items())}}}')
    path = tmp_path / "all.json"
    path.write_text("\n".join(records) or "\n" if layout == "lines" else f"[{', '.join(records)}]", "utf-8")

    frame = read_json(path, JsonDialect(layout=layout))

    assert shown(arrived(frame, JSON_COLUMNS, tmp_path)) == shown(rows)


# Parquet


PARQUET_COLUMNS = {
    "text": Column("String", TEXT, pa.string()),
    "bytes": Column("Binary", st.binary(max_size=8), pa.binary()),
    "whole": Column("Int64", INTEGERS, pa.int64()),
    "large": Column("UInt64", st.integers(0, 2**64 - 1), pa.uint64()),
    "number": Column("Float64", FLOATS, pa.float64()),
    "short": Column("Float32", SHORT_FLOATS, pa.float32()),
    "amount": Column("Decimal(10, 2)", DECIMALS, pa.decimal128(12, 4)),
    "flag": Column("Bool", st.booleans(), pa.bool_()),
    "day": Column("Date", DATES, pa.date32()),
    "clock": Column("Time", TIMES_OF_DAY, pa.time64("us")),
    "at": Column("utc_time", TIMES, pa.timestamp("us", "America/New_York")),
    "kind": Column("Enum([a, b])", st.sampled_from(["a", "b"]), pa.dictionary(pa.int8(), pa.string())),
    "list": Column("List(Int64)", st.lists(st.none() | INTEGERS, max_size=3), pa.list_(pa.int64())),
    "times": Column("List(utc_time)", st.lists(st.none() | TIMES, max_size=3), pa.list_(pa.timestamp("us", "UTC"))),
}


@settings(max_examples=20, **QUICK)
@given(rows_of(PARQUET_COLUMNS))
def test_any_value_of_parquet_arrives_exactly(tmp_path: Path, rows: list[tuple[Any, ...]]) -> None:
    values = {name: [row[number] for row in rows] for number, name in enumerate(PARQUET_COLUMNS)}
    arrays = {name: pa.array(values[name], column.source_type) for name, column in PARQUET_COLUMNS.items()}
    pq.write_table(pa.table({"id": pa.array(range(len(rows)), pa.int64()), **arrays}), tmp_path / "all.parquet")

    frame = read_parquet(tmp_path / "all.parquet")

    assert shown(arrived(frame, PARQUET_COLUMNS, tmp_path)) == shown(rows)


@settings(max_examples=40, **QUICK)
@given(st.lists(INTEGERS, min_size=1, max_size=6), st.sampled_from(["ms", "us", "ns"]))
def test_any_number_of_ticks_is_that_instant_or_its_row_is_rejected(
    tmp_path: Path, ticks: list[int], unit: str
) -> None:
    columns = {"at": Column("utc_time", TIMES)}
    values = pa.array([None, 0, *ticks], pa.int64()).cast(pa.timestamp(unit, "UTC"))
    pq.write_table(pa.table({"id": range(len(values)), "at": values}), tmp_path / "all.parquet")

    result = validate_frame(read_parquet(tmp_path / "all.parquet"), declare(columns), "all")

    per_tick_ns = {"ms": 1_000_000, "us": 1_000, "ns": 1}[unit]
    for number, at in result.accepted.select("id", pl.col("at").to_physical()).rows():
        assert at is None if number == 0 else at * 1_000 == [None, 0, *ticks][number] * per_tick_ns
    first, end = -62_135_596_800_000_000_000, 253_402_300_800_000_000_000
    fits = [first <= tick * per_tick_ns < end and tick * per_tick_ns % 1_000 == 0 for tick in ticks]
    assert result.rejected["_row"].to_list() == [row for row, fit in enumerate(fits, start=3) if not fit]


# Databases


def ingested(address: str, folder: Path) -> pl.DataFrame:
    """The raw rows of the table, as a workspace of its own ingests them."""
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory(dir=folder) as workspace:
        patch.setenv("HEADRACE_DATABASE_URL", address)
        table_store = TableStore.at(Path(workspace))
        list(ingest(create_dataset(odd=TABLE), table_store, Settings()))
        return read_parquet(table_store.paths("raw/sky/odd")["all"])


SQLITE_FLOATS = FLOATS.filter(lambda number: not isnan(number)).map(lambda number: number or 0.0)
"""SQLite stores NaN as NULL, and -0.0 as the integer 0."""

SQLITE_COLUMNS = {
    "text": Column("String", TEXT, "TEXT"),
    "bytes": Column("Binary", st.binary(max_size=8), "BLOB"),
    "whole": Column("Int64", INTEGERS, "INTEGER"),
    "number": Column("Float64", SQLITE_FLOATS, "REAL"),
    "flag": Column("Bool", st.booleans(), "BOOLEAN"),
    "day": Column("Date", DATES, "DATE", lambda value: value.isoformat()),
    "at": Column("utc_time", TIMES, "TIMESTAMP", lambda value: value.isoformat()),
    "amount": Column("Decimal(10, 2)", DECIMALS, "TEXT", str),
}


@settings(max_examples=6, **QUICK)
@given(rows_of(SQLITE_COLUMNS).filter(bool))
def test_any_value_of_sqlite_arrives_exactly(tmp_path: Path, rows: list[tuple[Any, ...]]) -> None:
    path = tmp_path / "source.db"
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    create(SQLITE_COLUMNS, connection.execute)
    marks = ", ".join("?" * (len(SQLITE_COLUMNS) + 1))
    with connection:
        connection.executemany(f"INSERT INTO odd VALUES ({marks})", written(rows, SQLITE_COLUMNS))  # noqa: S608
    connection.close()

    frame = ingested(f"sqlite:///{path}", tmp_path)

    assert shown(arrived(frame, SQLITE_COLUMNS, tmp_path)) == shown(rows)


POSTGRESQL_COLUMNS = {
    "text": Column("String", TEXT, "text"),
    "bytes": Column("Binary", st.binary(max_size=8), "bytea"),
    "whole": Column("Int64", INTEGERS, "bigint"),
    "number": Column("Float64", FLOATS, "double precision"),
    "short": Column("Float32", SHORT_FLOATS, "real"),
    "amount": Column("Decimal(10, 2)", DECIMALS, "numeric"),
    "flag": Column("Bool", st.booleans(), "boolean"),
    "day": Column("Date", DATES, "date"),
    "clock": Column("Time", TIMES_OF_DAY, "time"),
    "at": Column("utc_time", TIMES, "timestamptz"),
    "kind": Column("Enum([a, b])", st.sampled_from(["a", "b"]), "kind"),
    "list": Column("List(Int64)", st.lists(st.none() | INTEGERS, max_size=3), "bigint[]"),
    "texts": Column("List(String)", st.lists(st.none() | TEXT, max_size=3), "text[]"),
    "times": Column("List(utc_time)", st.lists(st.none() | TIMES, max_size=3), "timestamptz[]"),
}


@pytest.fixture(scope="module")
def odd_database(postgres: PostgreSQL) -> str:
    name = postgres.new_database()
    with postgres.connect(name) as connection:
        connection.execute("CREATE TYPE kind AS ENUM ('a', 'b')")
        create(POSTGRESQL_COLUMNS, lambda statement: connection.execute(statement.encode()))
    return name


@settings(max_examples=6, **QUICK)
@given(rows_of(POSTGRESQL_COLUMNS).filter(bool))
def test_any_value_of_postgresql_arrives_exactly(
    postgres: PostgreSQL, odd_database: str, tmp_path: Path, rows: list[tuple[Any, ...]]
) -> None:
    kinds = ["integer", *(column.source_type for column in POSTGRESQL_COLUMNS.values())]
    marks = ", ".join(f"%s::{kind}" for kind in kinds)
    with postgres.connect(odd_database) as connection:
        connection.execute("TRUNCATE odd")
        for row in written(rows, POSTGRESQL_COLUMNS):
            connection.execute(f"INSERT INTO odd VALUES ({marks})".encode(), row)  # noqa: S608

    frame = ingested(postgres.address(odd_database), tmp_path)

    assert shown(arrived(frame, POSTGRESQL_COLUMNS, tmp_path)) == shown(rows)


def create(columns: Mapping[str, Column], execute: Callable[[str], object]) -> None:
    types = ", ".join(f'"{name}" {column.source_type}' for name, column in columns.items())
    execute(f"CREATE TABLE odd (id integer, {types})")


def written(rows: Sequence[tuple[Any, ...]], columns: Mapping[str, Column]) -> list[tuple[Any, ...]]:
    """The rows as they are written to a database, with their numbers."""
    return [
        (number, *(None if v is None else column.written(v) for v, column in zip(row, columns.values(), strict=True)))
        for number, row in enumerate(rows)
    ]
