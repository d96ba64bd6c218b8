"""Flights in any number: the real rows of 2013, repeated.

- `copies` of a day: each copy has carriers, flight numbers and tail numbers of its own (the carrier's two characters
  and the tail number's first come from the copy's number), at the same times. Ten million rows are thirty copies.
  No carrier is called NA, which means unknown.
- `rows` of a day: its first flights that left and arrived between 8 and 15 o'clock. Days of other years are the days
  of 2013 with that year's clock.
- Weather: noon and 18 o'clock in UTC, at the three airports.
"""

import gzip
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from string import ascii_uppercase, digits
from zoneinfo import ZoneInfo

import polars as pl

from infra.demo.data import FlightYear

FIRST = date(2013, 1, 1)
NEW_YORK = "America/New_York"
CODES = [first + second for first in ascii_uppercase for second in ascii_uppercase + digits]
WEATHER = (
    "origin", "year", "month", "day", "hour", "temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust",
    "precip", "pressure", "visib", "time_hour", "updated_at",
)  # fmt: skip


def days(count: int, first: int = 0) -> list[date]:
    """Days since the beginning of 2013."""
    return [FIRST + timedelta(days=first + number) for number in range(count)]


def flights(day: date, *, rows: int | None = None, copies: int = 1) -> pl.DataFrame:
    """The flights of a day, every column as text."""
    last = 28 if day.month == 2 else 31  # noqa: PLR2004  2013 has no 29 February
    real = FlightYear.installed().flights[day.replace(year=FIRST.year, day=min(day.day, last))]
    if rows:
        hour, delay = pl.col("hour").cast(pl.Int64), pl.col("dep_delay").cast(pl.Int64, strict=False)
        arrived = pl.col("arr_delay") != "NA"
        real = real.filter(hour.is_between(8, 14) & delay.is_between(-10, 60) & arrived).head(rows)
    return pl.concat([_rename_copy(_shift_to_day(real, day), number) for number in range(copies)])


def compress(frame: pl.DataFrame) -> bytes:
    """Gzipped CSV, at the fastest level."""
    return gzip.compress(frame.write_csv().encode(), 1, mtime=0)


def weather(wanted: Sequence[date]) -> Iterator[tuple[object, ...]]:
    """Rows of the table `weather`."""
    zone = ZoneInfo(NEW_YORK)
    for day in wanted:
        for hour in (12, 18):
            time = datetime(day.year, day.month, day.day, hour, tzinfo=UTC)
            local = time.astimezone(zone)
            clock = (local.year, local.month, local.day, local.hour)
            for origin in ("EWR", "JFK", "LGA"):
                measured = (40.0 + hour, 30.0, 60.0, 270.0, 10.0, None, 0.0, 1012.0, 10.0)
                yield (origin, *clock, *measured, time, time + timedelta(hours=1))


def planes() -> Iterator[tuple[object, ...]]:
    """Rows of the table `planes`."""
    return FlightYear.installed().planes.iter_rows()


@cache
def _carriers() -> list[str]:
    return sorted(
        {carrier for frame in FlightYear.installed().flights.values() for carrier in frame["carrier"].unique()}
    )


def _shift_to_day(rows: pl.DataFrame, day: date) -> pl.DataFrame:
    if day.year == FIRST.year:
        return rows
    local = pl.datetime(day.year, day.month, day.day, pl.col("hour").cast(pl.Int32), time_zone=NEW_YORK)
    utc = local.dt.convert_time_zone("UTC").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    return rows.with_columns(
        year=pl.lit(str(day.year)), month=pl.lit(str(day.month)), day=pl.lit(str(day.day)), time_hour=utc
    )


def _rename_copy(rows: pl.DataFrame, number: int) -> pl.DataFrame:
    if not number:
        return rows
    carriers = _carriers()
    free = [code for code in CODES if code not in (*carriers, "NA")]
    new_codes = dict(zip(carriers, free[(number - 1) * len(carriers) :], strict=False))
    tail = ascii_uppercase[number % 26] + digits[number // 26]
    return rows.with_columns(
        pl.col("carrier").replace_strict(new_codes),
        pl.when(pl.col("tailnum") == "NA").then("tailnum").otherwise(tail + pl.col("tailnum").str.slice(1)),
    )
