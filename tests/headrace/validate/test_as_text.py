"""Any raw value has a text, in the table of rejected rows as in messages; none raises, none panics."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import polars as pl
import pytest

from headrace.dataset import UTC_MICROSECONDS
from headrace.validate.as_text import as_text

INFINITY = 2**63 - 1


def texts(series: pl.Series) -> list[str | None]:
    return series.to_frame("v").select(as_text(pl.col("v"), series.dtype)).to_series().to_list()


@pytest.mark.parametrize(
    ("dtype", "value", "text"),
    [
        (pl.String(), "  as it came ", "  as it came "),
        (pl.Int64(), -5, "-5"),
        (pl.Float64(), float("inf"), "inf"),
        (pl.Float64(), float("nan"), "NaN"),
        (pl.Boolean(), True, "true"),
        (pl.Decimal(10, 2), Decimal("1.20"), "1.20"),
        (pl.Date(), date(2013, 1, 9), "2013-01-09"),
        (pl.Time(), time(5, 0, 0, 5), "05:00:00.000005"),
        (UTC_MICROSECONDS, datetime(2013, 1, 9, tzinfo=UTC), "2013-01-09 00:00:00.000000+00:00"),
        (pl.Duration("us"), timedelta(minutes=5), "PT5M"),
        (pl.Binary(), b"\xff00", "ff3030"),
        (pl.Enum(["a"]), "a", "a"),
        (pl.Categorical(), "a", "a"),
        (pl.List(pl.Int64()), [1, None], "[1,null]"),
        (pl.List(pl.Int64()), [], "[]"),
        (pl.List(pl.Float64()), [1.5, float("nan"), float("-inf"), None], '["1.5","NaN","-inf",null]'),
        (pl.List(pl.Decimal(10, 2)), [Decimal("1.20")], '["1.20"]'),
        (pl.List(pl.Binary()), [b"\xff", None], '["ff",null]'),
        (pl.Array(pl.Int64(), 2), [1, 2], "[1,2]"),
        (pl.List(pl.List(pl.Date())), [[date(2013, 1, 9)], None], '[["2013-01-09"],null]'),
        (pl.Struct({"a": pl.Int64()}), {"a": 1}, '{"a":1}'),
        (pl.Struct({"v": pl.String(), "b": pl.Binary()}), {"v": '"}', "b": b"\0"}, '{"v":"\\"}","b":"00"}'),
        (pl.List(pl.Struct({"a": pl.Time()})), [{"a": time(5)}, {"a": None}], '[{"a":"05:00:00"},{"a":null}]'),
        (pl.Object(), frozenset({1}), "frozenset({1})"),
    ],
    ids=str,
)
def test_any_value_has_a_text_and_null_has_none(dtype: pl.DataType, value: object, text: str) -> None:
    assert texts(pl.Series([value, None], dtype=dtype)) == [text, None]


@pytest.mark.parametrize(
    ("dtype", "value", "text"),
    [
        (UTC_MICROSECONDS, INFINITY, str(INFINITY)),
        (pl.Datetime("ms", "America/New_York"), -INFINITY, str(-INFINITY)),
        (pl.Datetime("us"), INFINITY, str(INFINITY)),
        (pl.List(UTC_MICROSECONDS), [0, INFINITY], f'["1970-01-01 00:00:00.000000+00:00","{INFINITY}"]'),
        (pl.Struct({"at": UTC_MICROSECONDS}), {"at": INFINITY}, f'{{"at":"{INFINITY}"}}'),
        (pl.Duration("ms"), INFINITY, "P106751991167DT7H12M55.807S"),
        (UTC_MICROSECONDS, -9_222_425_352_054_775_809, "infinity"),
        (UTC_MICROSECONDS, -9_222_425_352_054_775_808, "-infinity"),
        (pl.List(UTC_MICROSECONDS), [-9_222_425_352_054_775_809], '["infinity"]'),
    ],
    ids=str,
)
def test_a_time_that_nothing_can_hold_is_the_integer_that_stands_for_it(
    dtype: pl.DataType, value: object, text: str
) -> None:
    assert texts(pl.Series([value], dtype=physical(dtype)).cast(dtype)) == [text]


def physical(dtype: pl.DataType) -> pl.DataType:
    if isinstance(dtype, pl.List):
        return pl.List(pl.Int64())
    return pl.Struct({"at": pl.Int64()}) if isinstance(dtype, pl.Struct) else pl.Int64()


def test_a_date_that_nothing_can_hold_is_its_number_of_days_or_infinity() -> None:
    days = pl.Series([2**31 - 1, -2_147_472_692, -2_147_472_691], dtype=pl.Int32)

    assert texts(days.cast(pl.Date)) == [str(2**31 - 1), "infinity", "-infinity"]
