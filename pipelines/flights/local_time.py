"""New York's clock in the raw columns, and UTC."""

from datetime import timedelta

import pandera.polars as pa
import polars as pl

MINUTES = 60
NEW_YORK = "America/New_York"

HOUR_IN_UTC = (timedelta(hours=4), timedelta(hours=29))
"""When the hours of a day of New York's clock begin, from the start of the same day in UTC: 4 h later in summer, 5 h
in winter; the 24th begins less than 29 h after it."""


def minutes(column: str) -> pl.Expr:
    """A clock time such as 1745, as minutes after midnight."""
    return pl.col(column) // 100 * MINUTES + pl.col(column) % 100


def local(time: pl.Expr) -> pl.Expr:
    """What New York's clock shows at a time, without its zone: its parts are then had without a look at the rules."""
    return time.dt.convert_time_zone(NEW_YORK).dt.replace_time_zone(None)


def on_clock() -> pa.Check:
    """The check that a number is a clock time, 1 to 2400 (0 is allowed: midnight too)."""

    def shown(data: pa.PolarsData) -> pl.LazyFrame:
        time = pl.col(data.key or "*")
        return data.lazyframe.select(time.is_between(0, 2400) & (time % 100 < MINUTES))

    return pa.Check(shown, name="clock_time")


def agrees_with_local(data: pa.PolarsData) -> pl.LazyFrame:
    """True where the full hour `time_hour` is that `year`, `month`, `day` and `hour` on New York's clock."""
    time = pl.col("time_hour")
    shown = local(time)
    return data.lazyframe.select(
        (shown.dt.year() == pl.col("year"))
        & (shown.dt.month() == pl.col("month"))
        & (shown.dt.day() == pl.col("day"))
        & (shown.dt.hour() == pl.col("hour"))
        & (time == time.dt.truncate("1h"))
    )
