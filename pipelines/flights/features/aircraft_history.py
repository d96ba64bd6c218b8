"""validated → features: what an aircraft has been through, one row each time something became known of it.

An aircraft gets a row when it has left and when it has arrived (see `availability`); two things known in the same
minute make one row. Facts of the aircraft are those that the register had by then (`updated_at`): they are null where
it has no entry for the aircraft, or only a later one. A cancelled flight says nothing of an aircraft.
"""

from datetime import timedelta

import polars as pl

from headrace.dataset import FeatureTable, Input
from pipelines.flights.availability import arrivals, departures
from pipelines.flights.windows import DAYS_AT_ONCE, Days, share, trailing

PERIODS = ("24h", "7d")
LOOKBACK = 10
"""Days of flights before a day: 7 in the window, 1 for the longest delay, 1 for the longest way to the gate, and 29 h
from the start of a day in UTC to the last departure of New York's day."""
KNOWN_WITHIN = timedelta(days=2)
"""After its schedule, a flight has left and arrived, if it does: less than 24 h late and less than 24 h on its way."""

REGISTERED: dict[str, pl.DataType] = {
    "built_year": pl.Int64(),
    "seats": pl.Int64(),
    "engines": pl.Int64(),
    "manufacturer": pl.String(),
    "engine": pl.String(),
}
"""What the register says of an aircraft."""

FEATURES: dict[str, pl.DataType] = {
    "last_dep_delay_min": pl.Int64(),
    "last_arr_delay_min": pl.Int64(),
    **{f"departed_{period}": pl.Int64() for period in PERIODS},
    **{f"arrived_{period}": pl.Int64() for period in PERIODS},
    **{f"dep_delay_mean_{period}_min": pl.Float64() for period in PERIODS},
    **{f"arr_delay_mean_{period}_min": pl.Float64() for period in PERIODS},
    **REGISTERED,
}


def kernel(
    *, day: str, flights: pl.LazyFrame, planes: pl.LazyFrame, airports: pl.LazyFrame, end_day: str | None = None
) -> pl.LazyFrame:
    """The rows of a UTC day, or of the days from it to `end_day`."""
    days = Days.of(day, end_day)
    facts = _facts(_in_use(flights, days), airports)
    rows = trailing(facts, "tailnum", days, PERIODS, _values())
    longest = PERIODS[-1]
    dep = [share(f"dep_delay_min_{p}", f"departed_{p}").alias(f"dep_delay_mean_{p}_min") for p in PERIODS]
    arr = [share(f"arr_delay_min_{p}", f"arrived_{p}").alias(f"arr_delay_mean_{p}_min") for p in PERIODS]
    history = rows.with_columns(
        *dep,
        *arr,
        known_time="event_time",
        last_dep_delay_min=f"last_dep_{longest}",
        last_arr_delay_min=f"last_arr_{longest}",
    )
    return _with_register(history, planes).select("tailnum", "event_time", "known_time", *FEATURES)


def _with_register(rows: pl.LazyFrame, planes: pl.LazyFrame) -> pl.LazyFrame:
    """The rows, sorted by aircraft and time, with the register's latest entry of their time."""
    entries = planes.select("tailnum", *REGISTERED, event_time="updated_at").sort("tailnum", "event_time")
    # Both sides are sorted above; Polars cannot check that within groups, and says so in a warning.
    return rows.sort("tailnum", "event_time").join_asof(
        entries, on="event_time", by="tailnum", strategy="backward", check_sortedness=False
    )


def _in_use(flights: pl.LazyFrame, days: Days) -> pl.LazyFrame:
    """The flights of aircraft of which anything may become known in the days."""
    recent = flights.filter(pl.col("scheduled_at") > days.start - KNOWN_WITHIN).select("tailnum").unique()
    return flights.join(recent.drop_nulls(), on="tailnum", how="semi")


def _facts(flights: pl.LazyFrame, airports: pl.LazyFrame) -> pl.LazyFrame:
    """One row each time an aircraft left or arrived. Of two delays known in one minute the longer is the last."""
    dep, arr = pl.col("delay_min"), pl.col("arr_delay_min")
    left = departures(flights, "tailnum").select(
        "tailnum", "departed", event_time="known_time", dep_delay_min=dep, last_dep=dep
    )
    arrived = arrivals(flights, airports).select(
        "tailnum", event_time="known_time", arrived=pl.lit(1, pl.Int64), arr_delay_min=arr, last_arr=arr
    )
    facts = pl.concat([left, arrived], how="diagonal")
    return facts.sort("tailnum", "event_time", "dep_delay_min", "arr_delay_min")


def _values() -> list[pl.Expr]:
    sums = [pl.col(name).sum() for name in ("departed", "arrived", "dep_delay_min", "arr_delay_min")]
    return [*sums, *(pl.col(name).drop_nulls().last() for name in ("last_dep", "last_arr"))]


TABLE = FeatureTable(
    name="aircraft_history",
    keys=("tailnum",),
    inputs={
        "flights": Input("validated/flights", lookback=LOOKBACK),
        # The kernel keeps to the entries of the register that are no later than the row (`updated_at`).
        "planes": Input("validated/planes", as_of="now"),
        "airports": Input("validated/airports"),
    },
    transform=kernel,
    batch_size=DAYS_AT_ONCE,
    features=FEATURES,
    ttl=timedelta(days=7),
    description="Delays of an aircraft over the last 24 h and 7 days, its last ones, and what the register says.",
)
