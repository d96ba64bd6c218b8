"""raw → validated: the weather of each hour at the three airports, from the table `weather`.

How the contract deals with what is odd in this data:

- **The hour.** `time_hour` is true UTC and keys the table; on 3 November three local hours exist twice, so the local
  columns must agree with it and are then left behind.
- **A wind of 1,048 mph** (EWR, 12 February): the row is rejected, not repaired: a record with one impossible value
  is not trusted for the others. The hour is then missing, as others are, and the features say what is known.
- **Hours that are missing**, and the whole of 31 December, are not filled.
- **Values not measured** (gusts, pressure, wind at calm) are null.
- **Corrections** come as the same key with a later `updated_at`.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dataframely as dy
import polars as pl

from headrace.dataset import Source, TableSource
from headrace.validate.columns import TimeBounds, one_of, utc_time
from headrace.validate.parquet_reader import read_parquet
from pipelines.flights.local_time import LocalHour

IN_DAY = TimeBounds(timedelta(0), timedelta(days=1))
UPDATED = TimeBounds(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


def _measured(low: float, high: float, *, nullable: bool = True) -> dy.Float64:
    return dy.Float64(min=low, max=high, nullable=nullable)


class Weather(LocalHour):
    """The weather of an hour at an airport."""

    origin = dy.String(check=one_of("EWR", "JFK", "LGA"))
    temp = _measured(-60, 130)
    dewp = _measured(-80, 100)
    humid = _measured(0, 100)
    wind_dir = _measured(0, 360)
    wind_speed = _measured(0, 200)
    wind_gust = _measured(0, 250)
    precip = _measured(0, 15, nullable=False)
    pressure = _measured(850, 1100)
    visib = _measured(0, 10, nullable=False)
    time_hour = utc_time(within=IN_DAY)
    updated_at = utc_time(within=UPDATED)


def read(path: Path) -> pl.DataFrame:
    """One partition as ingest wrote it from the database."""
    return read_parquet(path)


def tidy(rows: pl.DataFrame) -> pl.DataFrame:
    """Typed hours of weather, units in the names."""
    return rows.select(
        time_hour="time_hour",
        origin="origin",
        temperature_f="temp",
        dew_point_f="dewp",
        humidity_pct="humid",
        wind_from_deg="wind_dir",
        wind_speed_mph="wind_speed",
        wind_gust_mph="wind_gust",
        precipitation_in="precip",
        pressure_hpa="pressure",
        visibility_miles="visib",
        updated_at="updated_at",
    )


SOURCE = Source(
    name="weather",
    location=TableSource(
        table="weather", key=("origin", "time_hour"), watermark="updated_at", partition_by="time_hour"
    ),
    read=read,
    contract=Weather,
    transform=tidy,
    key=("time_hour", "origin"),
    max_rejected_share=0.05,  # a day has 72 rows: three may fail
)
