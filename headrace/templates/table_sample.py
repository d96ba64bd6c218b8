"""Samples a database table, and infers how ingest reads it: key, watermark, partition."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from headrace.dataset import UTC_MICROSECONDS, TableSource
from headrace.ingest.database.read_transaction import open_read_transaction
from headrace.templates.csv_sample import SampleError
from headrace.templates.key_inference import infer_key, infer_time, is_update_time

MOST_ROWS = 20_000
SQLITE_FILE = b"SQLite format 3\0"
DECIMALS = re.compile(r"^-?(\d+)(?:\.(\d+))?$")
PRECISION = 38
TEXT_TYPES = frozenset({"string", "text", "varchar", "bpchar"})
"""What databases call a column of text, SQLite by its Arrow type: its values are tried as other types, as in a file."""


@dataclass(frozen=True)
class TableSample:
    """Rows of a table, and where it is.

    Attributes:
        table: Its name, with its schema where the sample's address has one.
        address: SQLAlchemy address of the database, with its password.
        where: The same for people, without it.
        rows: The sample, with the types in which ingest reads them.
        key: Columns of the primary key; empty if there is none.
        texts: Columns of text whose type in the database is another, such as uuid, json or numeric.
        unusable: Column → how many of its values no contract accepts, such as `infinity`; they are null here.
    """

    table: str
    address: str
    where: str
    rows: pl.DataFrame
    key: tuple[str, ...]
    texts: frozenset[str]
    unusable: Mapping[str, int]


@dataclass(frozen=True)
class TablePlan:
    """How ingest reads a table, and why.

    Attributes:
        watermark: Column that increases when a row changes.
        watermark_evidence: What was seen, and what it means.
        partition_by: Column of time whose day is the partition; None for one partition.
        partition_evidence: What was seen.
    """

    watermark: str
    watermark_evidence: str
    partition_by: str | None
    partition_evidence: str


def is_sqlite_file(path: Path) -> bool:
    """Whether the file is a SQLite database."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(SQLITE_FILE)) == SQLITE_FILE


def sample_table(address: str, table: str | None) -> TableSample:
    """Rows of a table at an address such as `postgresql://user@host/database#table`.

    Raises:
        SampleError: The address cannot be parsed, or no table is named.
        HeadraceError: The database cannot be read.
    """
    url, name = _parse(address, table)
    with open_read_transaction(url.render_as_string(hide_password=False)) as transaction:
        sample = transaction.read_sample(name, MOST_ROWS)
    where = f"{url.render_as_string(hide_password=True)}, table {name}"
    if not sample.rows.num_columns:
        raise SampleError(f"{where} has no columns. Name a table that has some.")
    rows = _with_decimals(pl.DataFrame(sample.rows), sample.native_types)
    unusable = _unusable_values(rows)
    kinds = sample.native_types
    return TableSample(
        name,
        url.render_as_string(hide_password=False),
        where,
        rows.with_columns(pl.when(~mask).then(rows[column]).alias(column) for column, mask in unusable.items()),
        sample.primary_key,
        frozenset(column.name for column in rows if column.dtype == pl.String and kinds[column.name] not in TEXT_TYPES),
        {column: int(mask.sum()) for column, mask in unusable.items()},
    )


def plan_table(sample: TableSample) -> TablePlan:
    """Infer the watermark and the partition from types and names of the columns."""
    watermark, why = _watermark(sample)
    days = {column.name: column for column in sample.rows if _is_day(column.dtype)}
    times = pl.DataFrame({name: column for name, column in days.items() if not is_update_time(name)})
    partition_by = infer_time(times) or None
    if partition_by:
        evidence = f"{partition_by} has no nulls and its name does not suggest updates; the partition is its UTC day"
    else:
        evidence = "no time or date without nulls, other than update times: any change reads the whole table again"
    return TablePlan(watermark, why, partition_by, evidence)


def table_source(sample: TableSample, plan: TablePlan, variable: str) -> TableSource:
    """The location to declare; the environment variable `variable` holds the address of the database."""
    key = sample.key or infer_key(sample.rows, "").columns
    return TableSource(sample.table, tuple(key), plan.watermark, plan.partition_by, variable)


def _parse(address: str, table: str | None) -> tuple[URL, str]:
    text, _, fragment = address.partition("#")
    name = table or fragment
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # a port that is no number is a ValueError
        raise SampleError(
            "The database address cannot be parsed: expected postgresql://user:password@host:port/database#table or"
            " sqlite:///path#table. Its text is not shown because it may contain a password."
        ) from None
    if not name:
        raise SampleError(
            f"{url.render_as_string(hide_password=True)}: which table? Add `#TABLE` to the address, or `--table TABLE`."
        )
    if url.get_backend_name() == "sqlite" and url.database:
        url = url.set(database=str(Path(url.database).absolute()))
    return url, name


def _with_decimals(rows: pl.DataFrame, native_types: Mapping[str, str]) -> pl.DataFrame:
    """PostgreSQL's numeric, which arrives as text, as decimals of the scale that the sample shows."""
    scales = {name: _scale(rows[name]) for name, kind in native_types.items() if kind == "numeric"}
    known = {name: scale for name, scale in scales.items() if scale is not None}
    return rows.with_columns(rows[name].cast(pl.Decimal(PRECISION, scale)) for name, scale in known.items())


def _unusable_values(rows: pl.DataFrame) -> dict[str, pl.Series]:
    """Column → where it holds NaN, an infinity, or a time beyond the years 1 to 9999 (PostgreSQL's `infinity`)."""
    masks = {column.name: column.is_not_null() & ~_is_usable(column) for column in rows}
    return {name: mask for name, mask in masks.items() if mask.any()}


def _is_usable(column: pl.Series) -> pl.Series:
    if column.dtype.is_float():
        return column.is_finite().fill_null(value=False)
    if _is_day(column.dtype):
        return column.dt.year().is_between(1, 9999).fill_null(value=False)  # Polars gives no year beyond its calendar
    return pl.repeat(value=True, n=len(column), eager=True)


def _scale(values: pl.Series) -> int | None:
    """Most decimals of any value; None if there is none, one is no plain number (NaN), or they need more digits."""
    found = [DECIMALS.match(value) for value in values.drop_nulls()]
    if not found or not all(found):
        return None
    whole, decimals = zip(*((len(hit[1]), len(hit[2] or "")) for hit in found if hit), strict=True)
    return max(decimals) if max(whole) + max(decimals) <= PRECISION else None


def _watermark(sample: TableSample) -> tuple[str, str]:
    times = [name for name, dtype in sample.rows.schema.items() if isinstance(dtype, pl.Datetime)]
    updated = next((name for name in times if is_update_time(name)), None)
    if updated:
        return updated, f"the name of {updated} suggests that every change of a row updates it"
    missed = "an UPDATE that does not change it is missed (`headrace ingest --full-refresh` reads everything)"
    numbers = [name for name, dtype in sample.rows.schema.items() if dtype.is_integer()]
    fallback = next(iter(times or _preferred(numbers, sample.key) or sample.rows.columns))
    return fallback, f"no column name suggests an update time, so {fallback} is used: {missed}"


def _preferred(names: Sequence[str], key: Sequence[str]) -> list[str]:
    return sorted(names, key=lambda name: name not in key)


def _is_day(dtype: pl.DataType) -> bool:
    return dtype in (UTC_MICROSECONDS, pl.Date)
