"""raw → validated: flights, one gzipped CSV object a day, as the airlines report them.

How the contract deals with what is odd in this data:

- **Which day, which time.** An object holds one day of New York's clock, and `time_hour` is the scheduled hour in
  true UTC. Times are built from `time_hour` alone; the local columns must agree with it, so a day on which the
  clock changes (10 March, 3 November) needs no guess.
- **2400.** A clock time runs from 1 to 2400 and 2400 is midnight. `dep_time` names no day, so `departed_at` is the
  scheduled time + `dep_delay`, and `dep_time` must show the same time on New York's clock.
- **Cancelled.** No `dep_time` and no `dep_delay`: the row is good, `cancelled` is true, `departed_at` is null. One
  of the two without the other is rejected.
- **No arrival.** A flight that left may have no `arr_delay` (diverted): good, null. An arrival of a flight that
  never left is rejected.
- **No tail number.** Good, null: 2,512 cancelled flights had no aircraft yet.
- **Delays.** A departure is at most 2 h early and less than 24 h late (21.7 h is the longest of 2013): the feature
  tables' lookback and the rule for cancellations rest on that.
- **Aircraft and airports nobody knows** are no fault of a flight; the features count with them.
"""

from pathlib import Path

import pandera.polars as pa
import polars as pl

from headrace.dataset import UTC_MICROSECONDS, ObjectSource, Source
from headrace.validate.contract import TimeBounds
from headrace.validate.readers import CsvDialect, read_csv
from pipelines.flights.local_time import HOUR_IN_UTC, agrees_with_local, local, minutes, on_clock


def read(path: Path) -> pl.DataFrame:
    """One day's object as text; `NA` and nothing are null."""
    return read_csv(path, CsvDialect())


def departed() -> pl.Expr:
    """When the flight left, null if it never did."""
    return pl.col("time_hour") + pl.duration(minutes=pl.col("minute") + pl.col("dep_delay"))


def tidy(rows: pl.DataFrame) -> pl.DataFrame:
    """Typed flights: times in UTC, units in the names."""
    return rows.select(
        scheduled_at=(pl.col("time_hour") + pl.duration(minutes="minute")).cast(UTC_MICROSECONDS),
        carrier="carrier",
        flight="flight",
        origin="origin",
        dest="dest",
        tailnum="tailnum",
        departed_at=departed().cast(UTC_MICROSECONDS),
        dep_delay_min="dep_delay",
        arr_delay_min="arr_delay",
        arrival_clock_min=minutes("arr_time") % (24 * 60),
        air_time_min="air_time",
        distance_miles="distance",
        cancelled=pl.col("dep_time").is_null(),
    )


def _scheduled_as_told(data: pa.PolarsData) -> pl.LazyFrame:
    return data.lazyframe.select(pl.col("sched_dep_time") == pl.col("hour") * 100 + pl.col("minute"))


def _departure_whole(data: pa.PolarsData) -> pl.LazyFrame:
    return data.lazyframe.select(pl.col("dep_time").is_null() == pl.col("dep_delay").is_null())


def _departure_on_clock(data: pa.PolarsData) -> pl.LazyFrame:
    clock = local(departed())
    shown = clock.dt.hour().cast(pl.Int64) * 60 + clock.dt.minute()
    return data.lazyframe.select(shown == minutes("dep_time") % (24 * 60))


def _arrival_after_departure(data: pa.PolarsData) -> pl.LazyFrame:
    left, arrived = pl.col("dep_time").is_not_null(), pl.col("arr_time").is_not_null()
    timed = pl.col("arr_delay").is_not_null() & pl.col("air_time").is_not_null()
    untimed = pl.col("arr_delay").is_null() & pl.col("air_time").is_null()
    return data.lazyframe.select((untimed | (timed & arrived)) & (left | ~arrived))


CONTRACT = pa.DataFrameSchema(
    {
        "year": pa.Column(pl.Int64, pa.Check.in_range(1987, 2100)),
        "month": pa.Column(pl.Int64, pa.Check.in_range(1, 12)),
        "day": pa.Column(pl.Int64, pa.Check.in_range(1, 31)),
        "dep_time": pa.Column(pl.Int64, on_clock(), nullable=True),
        "sched_dep_time": pa.Column(pl.Int64, on_clock()),
        "dep_delay": pa.Column(pl.Int64, pa.Check.in_range(-120, 1439), nullable=True),
        "arr_time": pa.Column(pl.Int64, on_clock(), nullable=True),
        "sched_arr_time": pa.Column(pl.Int64, on_clock()),
        "arr_delay": pa.Column(pl.Int64, pa.Check.in_range(-240, 1680), nullable=True),
        "carrier": pa.Column(pl.String, pa.Check.str_matches(r"^[A-Z0-9]{2}$")),
        "flight": pa.Column(pl.Int64, pa.Check.in_range(1, 9999)),
        "tailnum": pa.Column(pl.String, pa.Check.str_matches(r"^[A-Z0-9]{4,7}$"), nullable=True),
        "origin": pa.Column(pl.String, pa.Check.isin(["EWR", "JFK", "LGA"])),
        "dest": pa.Column(pl.String, pa.Check.str_matches(r"^[A-Z]{3}$")),
        "air_time": pa.Column(pl.Int64, pa.Check.in_range(5, 1100), nullable=True),
        "distance": pa.Column(pl.Int64, pa.Check.in_range(1, 10000)),
        "hour": pa.Column(pl.Int64, pa.Check.in_range(0, 23)),
        "minute": pa.Column(pl.Int64, pa.Check.in_range(0, 59)),
        "time_hour": pa.Column(UTC_MICROSECONDS, metadata={"within": TimeBounds(*HOUR_IN_UTC)}),
    },
    checks=[
        pa.Check(agrees_with_local, name="time_hour: agrees_with(year, month, day, hour)"),
        pa.Check(_scheduled_as_told, name="sched_dep_time: agrees_with(hour, minute)"),
        pa.Check(_departure_whole, name="dep_time: with(dep_delay)"),
        pa.Check(_departure_on_clock, name="dep_time: agrees_with(dep_delay)"),
        pa.Check(_arrival_after_departure, name="arr_delay: after(departure)"),
    ],
    strict=True,
)

SOURCE = Source(
    name="flights",
    location=ObjectSource(
        prefix="flights/", partition=r"flights/(?P<partition>\d{4}-\d{2}-\d{2})\.csv\.gz", suffix=".csv.gz"
    ),
    read=read,
    contract=CONTRACT,
    transform=tidy,
    key=("scheduled_at", "carrier", "flight", "origin"),
    max_rejected_share=0.01,
    batch_size=16,
)
