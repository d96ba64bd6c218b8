"""validated → features: how busy each station was in the three days before each day."""

from datetime import timedelta

import polars as pl

from headrace import FeatureTable, Input


def demand(day: str, rentals: pl.LazyFrame) -> pl.LazyFrame:
    """One row per station at the start of `day`, from the rentals that had ended by then."""
    start = pl.lit(day).str.to_datetime(time_unit="us", time_zone="UTC")
    ended_at = pl.col("started_at") + pl.duration(minutes="duration_min")
    known = rentals.filter(ended_at <= start, ended_at > start - timedelta(days=3))
    counted = known.group_by("station").agg(
        rentals_3d=pl.len().cast(pl.Int64),
        minutes_3d=pl.col("duration_min").sum(),
    )
    return counted.with_columns(event_time=start, known_time=start)


TABLE = FeatureTable(
    name="station_demand",
    keys=("station",),
    inputs={"rentals": Input("validated/rentals", lookback=4)},  # three days, and one for a rental of 24 hours
    transform=demand,
    features={"rentals_3d": pl.Int64(), "minutes_3d": pl.Int64()},
    ttl=timedelta(days=2),
    description="Rentals and minutes of the last three days.",
)
