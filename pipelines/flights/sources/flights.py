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

import dataframely as dy
import polars as pl

from headrace.dataset import UTC_MICROSECONDS, ObjectSource, Source
from headrace.validate.columns import TimeBounds, one_of, utc_time
from headrace.validate.csv_dialect import CsvDialect
from headrace.validate.csv_reader import read_csv
from pipelines.flights.local_time import HOUR_IN_UTC, LocalHour, clock_time, local, minutes


def departed() -> pl.Expr:
    """When the flight left, null if it never did."""
    return pl.col("time_hour") + pl.duration(minutes=pl.col("minute") + pl.col("dep_delay"))


class Flights(LocalHour):
    """One flight from New York."""

    dep_time = dy.Int64(nullable=True, check=clock_time)
    sched_dep_time = dy.Int64(check=clock_time)
    dep_delay = dy.Int64(min=-120, max=1439, nullable=True)
    arr_time = dy.Int64(nullable=True, check=clock_time)
    sched_arr_time = dy.Int64(check=clock_time)
    arr_delay = dy.Int64(min=-240, max=1680, nullable=True)
    carrier = dy.String(regex=r"^[A-Z0-9]{2}$")
    flight = dy.Int64(min=1, max=9999)
    tailnum = dy.String(regex=r"^[A-Z0-9]{4,7}$", nullable=True)
    origin = dy.String(check=one_of("EWR", "JFK", "LGA"))
    dest = dy.String(regex=r"^[A-Z]{3}$")
    air_time = dy.Int64(min=5, max=1100, nullable=True)
    distance = dy.Int64(min=1, max=10000)
    minute = dy.Int64(min=0, max=59)
    time_hour = utc_time(within=TimeBounds(*HOUR_IN_UTC))

    @dy.rule()
    def sched_dep_time_agrees_with_hour_and_minute(cls) -> pl.Expr:
        """Both say one time of the clock."""
        return cls.sched_dep_time.col == cls.hour.col * 100 + cls.minute.col

    @dy.rule()
    def dep_time_comes_with_dep_delay(cls) -> pl.Expr:
        """A flight that left has both, a cancelled one neither."""
        return cls.dep_time.col.is_null() == cls.dep_delay.col.is_null()

    @dy.rule()
    def dep_time_agrees_with_dep_delay(cls) -> pl.Expr:
        """The scheduled time and the delay give what the clock showed."""
        clock = local(departed())
        shown = clock.dt.hour().cast(pl.Int64) * 60 + clock.dt.minute()
        return shown == minutes(cls.dep_time.col) % (24 * 60)

    @dy.rule()
    def arrival_follows_departure(cls) -> pl.Expr:
        """Only a flight that left arrives, and then delay and time in the air are known both or neither."""
        left, arrived = cls.dep_time.col.is_not_null(), cls.arr_time.col.is_not_null()
        timed = cls.arr_delay.col.is_not_null() & cls.air_time.col.is_not_null()
        untimed = cls.arr_delay.col.is_null() & cls.air_time.col.is_null()
        return (untimed | (timed & arrived)) & (left | ~arrived)


def read(path: Path) -> pl.DataFrame:
    """One day's object as text; `NA` and nothing are null."""
    return read_csv(path, CsvDialect())


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
        arrival_clock_min=minutes(pl.col("arr_time")) % (24 * 60),
        air_time_min="air_time",
        distance_miles="distance",
        cancelled=pl.col("dep_time").is_null(),
    )


SOURCE = Source(
    name="flights",
    location=ObjectSource(
        location="flights/", partition=r"(?P<partition>\d{4}-\d{2}-\d{2})\.csv\.gz", suffix=".csv.gz"
    ),
    read=read,
    contract=Flights,
    transform=tidy,
    key=("scheduled_at", "carrier", "flight", "origin"),
    max_rejected_share=0.01,
    batch_size=16,
)
