"""Facts → trailing windows: sums over (t - period, t], of whole numbers only.

Whole numbers make the sums exact: they depend on no order, thread or earlier row. A mean is divided at the end.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import polars as pl

from pipelines.dataset import UTC_MICROSECONDS

MICROSECOND = timedelta(microseconds=1)
HOURS = 24


def start_of(day: str) -> datetime:
    """The first instant of a day, in UTC."""
    return datetime.fromisoformat(day).replace(tzinfo=UTC)


def within_day(day: str, column: str = "event_time") -> pl.Expr:
    """True where a time lies in the UTC day."""
    start = start_of(day)
    return (pl.col(column) >= start) & (pl.col(column) < start + timedelta(days=1))


def full_hour_after(column: str) -> pl.Expr:
    """The first full hour at which a fact of this time is known: the time itself if it is a full hour."""
    return (pl.col(column) - MICROSECOND).dt.truncate("1h") + timedelta(hours=1)


def full_hours(day: str) -> pl.LazyFrame:
    """The full hours of a UTC day, as `event_time`."""
    hours = [start_of(day) + timedelta(hours=hour) for hour in range(HOURS)]
    return pl.LazyFrame({"event_time": pl.Series(hours, dtype=UTC_MICROSECONDS)})


def trailing(
    facts: pl.LazyFrame, key: str, day: str, periods: Sequence[str], values: Sequence[pl.Expr]
) -> pl.LazyFrame:
    """For each (key, event_time) of `facts` in the day, the values over (event_time - period, event_time].

    `facts` come sorted by key and time; facts of one key and time make one row. A value's name is followed by its
    period's.
    """
    windows = [_window(facts, key, period, values).filter(within_day(day)) for period in periods]
    windows = [window.unique([key, "event_time"]) for window in windows]
    rows = windows[0]
    for window in windows[1:]:
        rows = rows.join(window, on=[key, "event_time"])
    return rows


def _window(facts: pl.LazyFrame, key: str, period: str, values: Sequence[pl.Expr]) -> pl.LazyFrame:
    rolled = facts.rolling("event_time", period=period, closed="right", group_by=key)
    return rolled.agg(value.name.suffix(f"_{period}") for value in values)


def hourly(facts: pl.LazyFrame, key: str, day: str, periods: Sequence[str], totals: Sequence[str]) -> pl.LazyFrame:
    """At each full hour of the day, what was known: `<total>_<period>`, and `known_time`, that of the latest fact.

    A key has a row at an hour when the longest (the last) of the periods holds one fact of it.
    """
    sums = [pl.col(total).sum() for total in totals]
    known = pl.col("known_time").max()
    counted = facts.group_by(key, full_hour_after("known_time").alias("event_time")).agg(*sums, known)
    asked = counted.select(key).unique().join(full_hours(day), how="cross")
    buckets = pl.concat([counted, asked], how="diagonal").group_by(key, "event_time").agg(*sums, known)
    rows = trailing(buckets.sort(key, "event_time"), key, day, periods, [*sums, known])
    latest = f"known_time_{periods[-1]}"
    return rows.filter(pl.col(latest).is_not_null()).rename({latest: "known_time"})


def share(part: str, whole: str) -> pl.Expr:
    """One whole number over another; null where there is nothing to divide by."""
    return pl.when(pl.col(whole) > 0).then(pl.col(part) / pl.col(whole))
