"""validated → features: how busy and how late each airport is, at each full hour.

A row at 14:00 counts flights scheduled by 14:00 and the departures and cancellations known by 14:00 (see `known`).
`waiting` is the flights scheduled within the last 24 h that had not left: some of them never will, which nobody
knows yet.
"""

from datetime import timedelta

import polars as pl

from pipelines.dataset import FeatureTable, Reads
from pipelines.datasets.flights.known import CANCELLED_AFTER, cancellations, departures
from pipelines.datasets.flights.windows import full_hour_after, full_hours, hourly, share

PERIODS = ("3h", "24h")
TOTALS = ("scheduled", "departed", "late", "delay_min", "cancelled")
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


def kernel(*, day: str, flights: pl.LazyFrame) -> pl.LazyFrame:
    """The rows of one UTC day."""
    scheduled = flights.select("origin", known_time="scheduled_at", scheduled=pl.lit(1, pl.Int64))
    ended = [departures(flights, "origin"), cancellations(flights, "origin")]
    facts = pl.concat([scheduled, *ended], how="diagonal")
    means = [share(f"delay_min_{p}", f"departed_{p}").alias(f"dep_delay_mean_{p}_min") for p in PERIODS]
    late = [share(f"late_{p}", f"departed_{p}").alias(f"late_share_{p}") for p in PERIODS]
    return (
        hourly(facts, "origin", day, PERIODS, TOTALS)
        .join(waiting(flights, day), on=["origin", "event_time"], how="left")
        .with_columns(*means, *late, pl.col("waiting").fill_null(0))
        .select("origin", "event_time", "known_time", *FEATURES)
        .sort("origin", "event_time")
    )


def waiting(flights: pl.LazyFrame, day: str) -> pl.LazyFrame:
    """At each full hour of the day, the flights scheduled by then that had not left; no row where there is none."""
    gone = pl.col("departed_at").fill_null(pl.col("scheduled_at") + CANCELLED_AFTER)
    late = flights.select("origin", "scheduled_at", gone=gone).filter(full_hour_after("scheduled_at") < pl.col("gone"))
    standing = (pl.col("scheduled_at") <= pl.col("event_time")) & (pl.col("event_time") < pl.col("gone"))
    counted = late.join(full_hours(day), how="cross").filter(standing).group_by("origin", "event_time")
    return counted.agg(waiting=pl.len().cast(pl.Int64))


TABLE = FeatureTable(
    name="origin_traffic",
    keys=("origin",),
    reads={"flights": Reads("validated/flights", lookback=LOOKBACK)},
    kernel=kernel,
    features=FEATURES,
    ttl=timedelta(days=1),
    description="Flights scheduled, gone, cancelled and waiting at an airport, over the last 3 h and 24 h.",
)
