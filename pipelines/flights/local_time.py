"""New York's clock in the raw columns, and UTC."""

from datetime import timedelta

import dataframely as dy
import polars as pl

from headrace.validate.columns import utc_time

MINUTES = 60
NEW_YORK = "America/New_York"

HOUR_IN_UTC = (timedelta(hours=4), timedelta(hours=29))
"""When the hours of a day of New York's clock begin, from the start of the same day in UTC: 4 h later in summer, 5 h
in winter; the 24th begins less than 29 h after it."""


def minutes(clock: pl.Expr) -> pl.Expr:
    """A clock time such as 1745, as minutes after midnight."""
    return clock // 100 * MINUTES + clock % 100


def local(time: pl.Expr) -> pl.Expr:
    """What New York's clock shows at a time, without its zone: its parts are then had without a look at the rules."""
    return time.dt.convert_time_zone(NEW_YORK).dt.replace_time_zone(None)


def clock_time(number: pl.Expr) -> pl.Expr:
    """The check that a number is a clock time, 1 to 2400 (0 is allowed: midnight too)."""
    return number.is_between(0, 2400) & (number % 100 < MINUTES)


class LocalHour(dy.Schema):
    """The columns that say an hour twice: on New York's clock and in UTC."""

    year = dy.Int64(min=1987, max=2100)
    month = dy.Int64(min=1, max=12)
    day = dy.Int64(min=1, max=31)
    hour = dy.Int64(min=0, max=23)
    time_hour = utc_time()

    @dy.rule()
    def time_hour_agrees_with_local_time(cls) -> pl.Expr:
        """The full hour `time_hour` is that `year`, `month`, `day` and `hour` on New York's clock."""
        time = cls.time_hour.col
        shown = local(time)
        return (
            (shown.dt.year() == cls.year.col)
            & (shown.dt.month() == cls.month.col)
            & (shown.dt.day() == cls.day.col)
            & (shown.dt.hour() == cls.hour.col)
            & (time == time.dt.truncate("1h"))
        )
