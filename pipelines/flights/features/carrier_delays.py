"""validated → features: how late each carrier has been, at each full hour.

A row at 14:00 counts the departures and cancellations that were known by 14:00 (see `availability`), and nothing else.
A carrier of which nothing was known for 7 days has no row.
"""

from collections.abc import Mapping
from datetime import timedelta

import polars as pl

from headrace.dataset import FeatureTable, Input
from pipelines.flights.availability import cancellations, departures, is_late
from pipelines.flights.windows import DAYS_AT_ONCE, Days, hourly, share

PERIODS = ("3h", "24h", "7d")
TOTALS = ("departed", "late", "delay_min", "cancelled")
LOOKBACK = 9
"""Days of flights before a day: 7 in the window, 1 for the longest delay, and 29 h from the start of a day in UTC to
the last departure of New York's day."""

FEATURES: dict[str, pl.DataType] = {
    **{f"departed_{period}": pl.Int64() for period in PERIODS},
    **{f"dep_delay_mean_{period}_min": pl.Float64() for period in PERIODS},
    **{f"late_share_{period}": pl.Float64() for period in PERIODS},
    **{f"cancelled_share_{period}": pl.Float64() for period in ("24h", "7d")},
}


def kernel(*, day: str, params: Mapping[str, int], flights: pl.LazyFrame, end_day: str | None = None) -> pl.LazyFrame:
    """The rows of a UTC day, or of the days from it to `end_day`."""
    facts = pl.concat([departures(flights, "carrier"), cancellations(flights, "carrier")])
    facts = facts.with_columns(late=is_late(params["late_min"]))
    rows = hourly(facts, "carrier", Days.of(day, end_day), PERIODS, TOTALS)
    ended = [(pl.col(f"departed_{p}") + pl.col(f"cancelled_{p}")).alias(f"ended_{p}") for p in PERIODS]
    means = [share(f"delay_min_{p}", f"departed_{p}").alias(f"dep_delay_mean_{p}_min") for p in PERIODS]
    late = [share(f"late_{p}", f"departed_{p}").alias(f"late_share_{p}") for p in PERIODS]
    cancelled = [share(f"cancelled_{p}", f"ended_{p}").alias(f"cancelled_share_{p}") for p in PERIODS]
    return (
        rows.with_columns(ended)
        .with_columns(*means, *late, *cancelled)
        .select("carrier", "event_time", "known_time", *FEATURES)
        .sort("carrier", "event_time")
    )


TABLE = FeatureTable(
    name="carrier_delays",
    keys=("carrier",),
    inputs={"flights": Input("validated/flights", lookback=LOOKBACK)},
    transform=kernel,
    params=("late_min",),
    batch_size=DAYS_AT_ONCE,
    features=FEATURES,
    ttl=timedelta(days=2),
    description="Departures, delays and cancellations of a carrier over the last 3 h, 24 h and 7 days.",
)
