"""validated → features: how busy and how late each airport is, at each full hour.

A row at 14:00 counts flights scheduled by 14:00 and the departures and cancellations known by 14:00 (see
`availability`).
`waiting` is the flights scheduled within the last 24 h that had not left: some of them never will, which nobody
knows yet.
"""

from collections.abc import Mapping
from datetime import timedelta

import polars as pl

from headrace.dataset import FeatureTable, Input
from pipelines.flights.availability import CANCELLED_AFTER, cancellations, departures, is_late
from pipelines.flights.windows import DAYS_AT_ONCE, Days, every_hour, full_hour_after, hourly, share

PERIODS = ("3h", "24h")
TOTALS = ("scheduled", "departed", "late", "delay_min", "cancelled")
STEPS = {"due": 1, "left": -1}
LOOKBACK = 3
"""Days of flights before a day: 1 in the window, 1 for the longest delay, and 29 h from the start of a day in UTC to
the last departure of New York's day."""

FEATURES: dict[str, pl.DataType] = {
    **{f"scheduled_{period}": pl.Int64() for period in PERIODS},
    **{f"departed_{period}": pl.Int64() for period in PERIODS},
    **{f"dep_delay_mean_{period}_min": pl.Float64() for period in PERIODS},
    **{f"late_share_{period}": pl.Float64() for period in PERIODS},
    "cancelled_24h": pl.Int64(),
    "waiting": pl.Int64(),
}


def kernel(*, day: str, params: Mapping[str, int], flights: pl.LazyFrame, end_day: str | None = None) -> pl.LazyFrame:
    """The rows of a UTC day, or of the days from it to `end_day`."""
    days = Days.of(day, end_day)
    scheduled = flights.select("origin", known_time="scheduled_at", scheduled=pl.lit(1, pl.Int64))
    ended = pl.concat([departures(flights, "origin"), cancellations(flights, "origin")])
    facts = pl.concat([scheduled, ended.with_columns(late=is_late(params["late_min"]))], how="diagonal")
    means = [share(f"delay_min_{p}", f"departed_{p}").alias(f"dep_delay_mean_{p}_min") for p in PERIODS]
    late = [share(f"late_{p}", f"departed_{p}").alias(f"late_share_{p}") for p in PERIODS]
    return (
        hourly(facts, "origin", days, PERIODS, TOTALS)
        .join(waiting(flights, days), on=["origin", "event_time"], how="left")
        .with_columns(*means, *late, pl.col("waiting").fill_null(0))
        .select("origin", "event_time", "known_time", *FEATURES)
        .sort("origin", "event_time")
    )


def waiting(flights: pl.LazyFrame, days: Days) -> pl.LazyFrame:
    """At each full hour of the days, the flights scheduled by then that had not left.

    Such a flight counts one more from the first full hour after its schedule and one less from the first after it left.
    """
    gone = pl.col("departed_at").fill_null(pl.col("scheduled_at") + CANCELLED_AFTER)
    due = pl.max_horizontal(full_hour_after("scheduled_at"), days.start)
    left = pl.max_horizontal("due", full_hour_after("gone"))
    late = flights.select("origin", due=due, gone=gone).select("origin", "due", left=left)
    steps = [late.select("origin", event_time=name, waiting=pl.lit(step, pl.Int64)) for name, step in STEPS.items()]
    hours = pl.concat(steps).group_by("origin", "event_time").agg(pl.col("waiting").sum())
    known = every_hour(hours, "origin", days.hours())
    return known.with_columns(pl.col("waiting").fill_null(0).cum_sum().over("origin"))


TABLE = FeatureTable(
    name="origin_traffic",
    keys=("origin",),
    inputs={"flights": Input("validated/flights", lookback=LOOKBACK)},
    transform=kernel,
    params=("late_min",),
    batch_size=DAYS_AT_ONCE,
    features=FEATURES,
    ttl=timedelta(days=1),
    description="Flights scheduled, gone, cancelled and waiting at an airport, over the last 3 h and 24 h.",
)
