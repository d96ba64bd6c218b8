"""When a fact about a flight became known: the one place that says so.

- A **departure**, and its delay, is known when the flight has left.
- A **cancellation** is known 24 h after the scheduled time. The record does not say when an airline cancelled, and a
  late flight may still leave; none leaves 24 h late (the contract holds that), so from then on anybody knows.
- An **arrival** is known when the flight has arrived (see `arrivals`).
"""

from datetime import timedelta

import polars as pl

from pipelines.flights.time_zones import ZONES

CANCELLED_AFTER = timedelta(hours=24)
LONGEST_TAXI_MIN = 300
DAY_MIN = 24 * 60


def departures(flights: pl.LazyFrame, *keys: str) -> pl.LazyFrame:
    """Flights that left: `keys`, `known_time`, `departed` (1), `delay_min`, `cancelled` (0)."""
    return flights.filter(pl.col("departed_at").is_not_null()).select(
        *keys,
        known_time="departed_at",
        departed=pl.lit(1, pl.Int64),
        delay_min="dep_delay_min",
        cancelled=pl.lit(0, pl.Int64),
    )


def cancellations(flights: pl.LazyFrame, *keys: str) -> pl.LazyFrame:
    """Flights that never left, in the same columns as `departures`."""
    return flights.filter("cancelled").select(
        *keys,
        known_time=pl.col("scheduled_at") + CANCELLED_AFTER,
        departed=pl.lit(0, pl.Int64),
        delay_min=pl.lit(0, pl.Int64),
        cancelled=pl.lit(1, pl.Int64),
    )


def is_late(late_min: int) -> pl.Expr:
    """1 for a departure so many minutes late or more, else 0; a cancelled flight is not late."""
    return ((pl.col("departed") == 1) & (pl.col("delay_min") >= late_min)).cast(pl.Int64)


def arrivals(flights: pl.LazyFrame, airports: pl.LazyFrame) -> pl.LazyFrame:
    """Flights that arrived: `tailnum`, `known_time`, `arr_delay_min`.

    The record shows the arrival on the destination's clock; taxiing is what that clock shows beyond the time in the
    air. Where the destination's zone is not known, or the clock leaves no such room, the arrival counts as known
    only when it must have happened: 300 min after the time in the air (235 min at most in 2013, both ends together).
    """
    in_air = pl.col("departed_at") + pl.duration(minutes="air_time_min")
    taxi = (pl.col("arrival_clock_min") - _minute_at_destination("in_air_until")) % DAY_MIN
    told = taxi.is_between(0, LONGEST_TAXI_MIN).fill_null(value=False)
    taxied = pl.when(told).then(taxi).otherwise(LONGEST_TAXI_MIN)
    return (
        flights.filter(pl.col("arr_delay_min").is_not_null())
        .join(airports.select(dest="airport", zone="zone"), on="dest", how="left")
        .select("tailnum", "arr_delay_min", "arrival_clock_min", "zone", in_air_until=in_air)
        .select("tailnum", (pl.col("in_air_until") + pl.duration(minutes=taxied)).alias("known_time"), "arr_delay_min")
    )


def _minute_at_destination(column: str) -> pl.Expr:
    """Minutes after midnight that the destination's clock shows at a time; null where the zone is not known."""
    minute = pl.lit(None, pl.Int64)
    for zone in ZONES:
        local = pl.col(column).dt.convert_time_zone(zone)
        shown = local.dt.hour().cast(pl.Int64) * 60 + local.dt.minute()
        minute = pl.when(pl.col("zone") == zone).then(shown).otherwise(minute)
    return minute
