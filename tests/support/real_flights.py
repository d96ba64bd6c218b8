"""Real flights, weather, planes and airports of 2013, as the raw partitions that the tests need."""

from datetime import date, timedelta
from functools import cache

import polars as pl

from headrace.dataset import UNPARTITIONED, Input
from headrace.project.loading import load_dataset
from headrace.validate.result import ValidationResult
from headrace.validate.validate_partition import validate_frame
from infra.demo.data import FlightYear, csv_object

DATASET = load_dataset("flights")

SOURCES = {source.name: source for source in DATASET.sources}


@cache
def flights() -> dict[str, pl.DataFrame]:
    """Day of New York's clock → that day's flights as the source reads them: text, unknown values null."""
    known = pl.all().replace("NA", None)
    return {str(day): rows.with_columns(known) for day, rows in FlightYear.installed().flights.items()}


def flights_object(day: str) -> bytes:
    """One day, as the object in the bucket."""
    return csv_object(flights()[day])


@cache
def weather() -> dict[str, pl.DataFrame]:
    """UTC day → that day's rows of the table `weather`, as ingest writes them."""
    days = FlightYear.installed().weather.with_columns(utc_day=pl.col("time_hour").dt.date())
    parts = days.partition_by("utc_day", as_dict=True, include_key=False, maintain_order=True)
    return {str(day): part for (day,), part in parts.items()}


@cache
def validate_partition(table: str, partition: str) -> ValidationResult:
    """The result of validating one real raw partition."""
    match table:
        case "flights":
            raw = flights()[partition]
        case "weather":
            raw = weather()[partition]
        case "planes":
            raw = FlightYear.installed().planes
        case _:
            raw = pl.read_csv(FlightYear.installed().airports(), infer_schema=False, null_values=["", "NA"])
    return validate_frame(raw, SOURCES[table], partition)


def days_before(day: str, lookback: int) -> list[str]:
    """The days from `lookback` before a day up to itself."""
    last = date.fromisoformat(day)
    return [str(last - timedelta(days=back)) for back in range(lookback, -1, -1)]


def lookback_days(read: Input) -> int:
    """How many days an input is read back."""
    assert isinstance(read.lookback, int)
    return read.lookback


def validated_rows(table: str, day: str, lookback: int = 0) -> pl.LazyFrame:
    """The input of a kernel: the existing validated partitions from `lookback` days before a day up to that day."""
    if table in {"planes", "airports"}:
        return validate_partition(table, UNPARTITIONED).accepted.lazy()
    raw = flights() if table == "flights" else weather()
    return pl.concat(
        [validate_partition(table, name).accepted for name in days_before(day, lookback) if name in raw]
    ).lazy()
