"""validated → features: the weather at each airport, one row an hour that was observed.

The observation of an hour counts as made at that hour; `known_time` is when the database took in the latest record
used (`updated_at`), where that is later. So a correction keeps its event time and shows when it became known. An
hour that was not observed has no row: the one before it holds until it is too old.
"""

from datetime import timedelta

import polars as pl

from headrace.dataset import FeatureTable, Input
from pipelines.flights.windows import DAYS_AT_ONCE, Days, share, trailing

PERIODS = ("3h", "24h")
PARTS_PER_INCH = 10_000
NOW = (
    "temperature_f",
    "dew_point_f",
    "humidity_pct",
    "wind_speed_mph",
    "wind_gust_mph",
    "precipitation_in",
    "pressure_hpa",
    "visibility_miles",
)

FEATURES: dict[str, pl.DataType] = {
    **{name: pl.Float64() for name in NOW},
    **{f"precipitation_sum_{period}_in": pl.Float64() for period in PERIODS},
    **{f"visibility_min_{period}_miles": pl.Float64() for period in PERIODS},
    **{f"wind_speed_max_{period}_mph": pl.Float64() for period in PERIODS},
    **{f"observed_{period}": pl.Int64() for period in PERIODS},
}


def kernel(*, day: str, weather: pl.LazyFrame, end_day: str | None = None) -> pl.LazyFrame:
    """The rows of a UTC day, or of the days from it to `end_day`."""
    days = Days.of(day, end_day)
    precipitation = (pl.col("precipitation_in") * PARTS_PER_INCH).round().cast(pl.Int64)
    observed = weather.with_columns(
        event_time="time_hour",
        known_time=pl.max_horizontal("time_hour", "updated_at"),
        precipitation=precipitation,
        parts=pl.lit(PARTS_PER_INCH, pl.Int64),
        observed=pl.lit(1, pl.Int64),
    ).sort("origin", "event_time")
    values = [
        pl.col("precipitation").sum(),
        pl.col("parts").max(),
        pl.col("visibility_miles").min(),
        pl.col("wind_speed_mph").max(),
        pl.col("known_time").max(),
        pl.col("observed").sum(),
    ]
    now = observed.filter(days.hold()).select("origin", "event_time", *NOW)
    rows = now.join(trailing(observed, "origin", days, PERIODS, values), on=["origin", "event_time"])
    return _named(rows).select("origin", "event_time", "known_time", *FEATURES).sort("origin", "event_time")


def _named(rows: pl.LazyFrame) -> pl.LazyFrame:
    """The windows' values under the names of the features.

    Inches are divided by a column: Polars turns a division by a constant into a multiplication, one bit off.
    """
    inches = [share(f"precipitation_{p}", f"parts_{p}").alias(f"precipitation_sum_{p}_in") for p in PERIODS]
    visibility = {f"visibility_miles_{p}": f"visibility_min_{p}_miles" for p in PERIODS}
    wind = {f"wind_speed_mph_{p}": f"wind_speed_max_{p}_mph" for p in PERIODS}
    return rows.with_columns(inches).rename({**visibility, **wind, f"known_time_{PERIODS[-1]}": "known_time"})


TABLE = FeatureTable(
    name="origin_weather",
    keys=("origin",),
    inputs={"weather": Input("validated/weather", lookback=1)},
    transform=kernel,
    batch_size=DAYS_AT_ONCE,
    features=FEATURES,
    ttl=timedelta(hours=6),
    description="The weather observed at an airport, and rain, sight and wind over the last 3 h and 24 h.",
)
