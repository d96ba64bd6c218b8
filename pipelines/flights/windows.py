"""Facts → trailing windows: sums over (t - period, t], of whole numbers only.

Whole numbers make the sums exact: they depend on no order, thread or earlier row. A mean is divided at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl

from headrace.dataset import UTC_MICROSECONDS

MICROSECOND = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
DAYS_AT_ONCE = 32
"""Days that one call of a kernel computes: the days it looks back on are then read once for all of them."""

UNITS = {"h": 1, "d": 24}


@dataclass(frozen=True)
class Days:
    """Consecutive UTC days, from `start` up to and without `end`."""

    start: datetime
    end: datetime

    @classmethod
    def of(cls, day: str, end_day: str | None = None) -> "Days":
        """The day, or the days from it to `end_day`."""
        first, last = (datetime.fromisoformat(name).replace(tzinfo=UTC) for name in (day, end_day or day))
        return cls(first, last + DAY)

    def hold(self, column: str = "event_time") -> pl.Expr:
        """True where a time lies in these days."""
        return (pl.col(column) >= _instant(self.start)) & (pl.col(column) < _instant(self.end))

    def hours(self, before: timedelta = timedelta(0)) -> pl.LazyFrame:
        """The full hours of these days, and those `before` them, as `event_time`."""
        hours = pl.datetime_range(self.start - before, self.end, HOUR, time_unit="us", closed="left", eager=True)
        return pl.LazyFrame({"event_time": hours.cast(UTC_MICROSECONDS)})


def _instant(time: datetime) -> pl.Expr:
    return pl.lit(time).cast(UTC_MICROSECONDS)


def full_hour_after(column: str) -> pl.Expr:
    """The first full hour at which a fact of this time is known: the time itself if it is a full hour."""
    return (pl.col(column) - MICROSECOND).dt.truncate("1h") + HOUR


def trailing(
    facts: pl.LazyFrame, key: str, days: Days, periods: Sequence[str], values: Sequence[pl.Expr]
) -> pl.LazyFrame:
    """For each (key, event_time) of `facts` in the days, the values over (event_time - period, event_time].

    `facts` come sorted by key and time; facts of one key and time make one row. A value's name is followed by its
    period's.
    """
    windows = [_window(facts, key, period, values).filter(days.hold()) for period in periods]
    windows = [window.unique([key, "event_time"]) for window in windows]
    rows = windows[0]
    for window in windows[1:]:
        rows = rows.join(window, on=[key, "event_time"])
    return rows


def _window(facts: pl.LazyFrame, key: str, period: str, values: Sequence[pl.Expr]) -> pl.LazyFrame:
    rolled = facts.rolling("event_time", period=period, closed="right", group_by=key)
    return rolled.agg(value.name.suffix(f"_{period}") for value in values)


def hourly(facts: pl.LazyFrame, key: str, days: Days, periods: Sequence[str], totals: Sequence[str]) -> pl.LazyFrame:
    """At each full hour of the days, what was known: `<total>_<period>`, and `known_time`, that of the latest fact.

    A key has a row at an hour when the longest (the last) of the periods holds one fact of it. What is known is added
    up along the hours: a window is the sum at its end less the sum at its start.
    """
    longest = _hours(periods[-1])
    hour = pl.max_horizontal(full_hour_after("known_time"), _instant(days.start - longest * HOUR))
    sums = [*(pl.col(total).sum() for total in totals), pl.len().cast(pl.Int64).alias("facts")]
    counted = facts.group_by(key, hour.alias("event_time")).agg(*sums, pl.col("known_time").max())
    known = every_hour(counted, key, days.hours(before=longest * HOUR))
    running = known.with_columns(pl.col(*totals, "facts").fill_null(0).cum_sum(), pl.col("known_time").forward_fill())
    windows = [_since(total, period) for period in periods for total in totals]
    some = pl.col("facts") > pl.col("facts").shift(longest)
    rows = running.select(key, "event_time", "known_time", *windows, some=some)
    return rows.filter(days.hold() & pl.col("some")).drop("some")


def every_hour(counted: pl.LazyFrame, key: str, hours: pl.LazyFrame) -> pl.LazyFrame:
    """What was counted of each key at each of the hours, null where nothing was, sorted by key and time."""
    asked = counted.select(key).unique().join(hours, how="cross")
    return asked.join(counted, on=[key, "event_time"], how="left").sort(key, "event_time")


def _since(total: str, period: str) -> pl.Expr:
    """What was added to a running total within the period; it has run at least so long when the days begin."""
    return (pl.col(total) - pl.col(total).shift(_hours(period))).alias(f"{total}_{period}")


def _hours(period: str) -> int:
    return int(period[:-1]) * UNITS[period[-1]]


def share(part: str, whole: str) -> pl.Expr:
    """One whole number over another; null where there is nothing to divide by."""
    return pl.when(pl.col(whole) > 0).then(pl.col(part) / pl.col(whole))
