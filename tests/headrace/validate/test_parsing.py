"""A value becomes the nearest value of the declared type without loss, or null: text and typed values, at each edge."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.dataset import UTC_MICROSECONDS
from headrace.validate.parsing import parse

TEXT = pl.String()
INFINITY, MINUS_INFINITY = 2**63 - 1, -(2**63) + 1
"""The ends of 64 bits, in the unit of a column."""


def parsed(raw: pl.DataType, wanted: pl.DataType, *values: Any) -> list[Any]:  # noqa: ANN401  any value of a column
    """What becomes of values of the type `raw` in a column declared as `wanted`."""
    expression = parse(pl.col("v"), raw, wanted)
    assert expression is not None
    series = pl.DataFrame({"v": pl.Series(values, dtype=raw)}).select(expression).to_series()
    assert series.dtype == wanted
    return series.to_list()


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


def decimal(precision: int, scale: int) -> pl.Decimal:
    return pl.Decimal(precision, scale)


@pytest.mark.parametrize(
    ("wanted", "text", "expected"),
    [
        (pl.Boolean(), "true", True),
        (pl.Boolean(), "FALSE", False),
        (pl.Boolean(), "1", None),
        (pl.Boolean(), "yes", None),
        (pl.Boolean(), "", None),
        (pl.Date(), "2013-01-09", date(2013, 1, 9)),
        (pl.Date(), "13-01-09", None),
        (pl.Date(), "2013-02-30", None),
        (pl.Date(), "0000-01-01", None),
        (pl.Date(), "2013-01-09T05:00:00Z", None),
        (pl.Date(), "20130109", None),
        (pl.Time(), "05:00:00", time(5)),
        (pl.Time(), "05:00:00.000005", time(5, 0, 0, 5)),
        (pl.Time(), "24:00:00", None),
        (pl.Time(), "0500", None),
        (pl.Time(), "05:00", None),
        (pl.Time(), "05:00:60", None),
        (UTC_MICROSECONDS, "2013-01-09T05:00:00Z", utc(2013, 1, 9, 5)),
        (UTC_MICROSECONDS, "2013-01-09 05:00:00+01:00", utc(2013, 1, 9, 4)),
        (UTC_MICROSECONDS, "2013-01-09 05:00:00+01", utc(2013, 1, 9, 4)),
        (UTC_MICROSECONDS, "2013-01-09 05:00:00+0130", utc(2013, 1, 9, 3, 30)),
        (UTC_MICROSECONDS, "2013-01-09 05:00:00+01:", None),
        (UTC_MICROSECONDS, "2013-01-09 05:00:00+01: 30", None),
        (UTC_MICROSECONDS, "2013-01-09 05:00:00+24:00", None),
        (UTC_MICROSECONDS, "2013-01-09 05:00:00 +01:00", None),
        (UTC_MICROSECONDS, "2013-01-09T05:00:00.123456Z", utc(2013, 1, 9, 5, 0, 0, 123456)),
        (UTC_MICROSECONDS, "2013-01-09T05:00:00.1234560000Z", utc(2013, 1, 9, 5, 0, 0, 123456)),
        (UTC_MICROSECONDS, "2013-01-09T05:00:00.1234567Z", None),
        (UTC_MICROSECONDS, "2013-01-09T05:00:00", None),
        (UTC_MICROSECONDS, "13-01-09T05:00:00Z", None),
        (UTC_MICROSECONDS, "113-01-09T05:00:00Z", None),
        (UTC_MICROSECONDS, "2012-06-30T23:59:60Z", None),
        (UTC_MICROSECONDS, "2012-06-30T05:00:60Z", None),
        (UTC_MICROSECONDS, "0001-01-01T00:00:00Z", utc(1, 1, 1)),
        (UTC_MICROSECONDS, "9999-12-31T23:59:59.999999Z", utc(9999, 12, 31, 23, 59, 59, 999999)),
        (UTC_MICROSECONDS, "9999-12-31T23:59:59-01:00", None),
        (UTC_MICROSECONDS, "0001-01-01T00:00:00+01:00", None),
        (UTC_MICROSECONDS, "+10000-01-01T00:00:00Z", None),
        (UTC_MICROSECONDS, "0000-01-01T00:00:00Z", None),
        (UTC_MICROSECONDS, "infinity", None),
        (pl.Int64(), "12", 12),
        (pl.Int64(), "1.5", None),
        (pl.Int64(), "1.0", None),
        (pl.Int64(), "1e3", None),
        (pl.Int64(), "1_000", None),
        (pl.Int64(), " 1", None),
        (pl.Int64(), "9223372036854775808", None),
        (pl.UInt8(), "256", None),
        (pl.UInt8(), "-1", None),
        (pl.Float64(), "1,5", None),
        (pl.Float64(), "1e3", 1000.0),
        (pl.Float64(), "1e309", None),
        (pl.Float64(), "-1e309", None),
        (pl.Float64(), "inf", float("inf")),
        (pl.Float64(), "-Infinity", float("-inf")),
        (pl.Float32(), "1e39", None),
        (pl.Enum(["a"]), "a", "a"),
        (pl.Enum(["a"]), "b", None),
        (pl.Categorical(), "b", "b"),
        (decimal(10, 2), "1.239", None),
        (decimal(10, 2), "1.005", None),
        (decimal(10, 2), "1.230", Decimal("1.23")),
        (decimal(10, 2), ".5", Decimal("0.50")),
        (decimal(10, 2), "5.", Decimal("5.00")),
        (decimal(10, 2), ".", None),
        (decimal(10, 2), "-", None),
        (decimal(10, 2), "1,5", None),
        (decimal(10, 2), "12345678901", None),
        (decimal(10, 0), "1.5", None),
        (decimal(38, 10), "0.00000000005", None),
        (pl.Duration("us"), "P1DT2H3M4.000005S", timedelta(days=1, hours=2, minutes=3, seconds=4, microseconds=5)),
        (pl.Duration("us"), "-PT1H30M", timedelta(hours=-1, minutes=-30)),
        (pl.Duration("us"), "PT-0.5S", timedelta(milliseconds=-500)),
        (pl.Duration("us"), "PT1,5S", timedelta(milliseconds=1500)),
        (pl.Duration("us"), "-1 days +23:59:59", timedelta(seconds=-1)),
        (pl.Duration("us"), "1 day -00:00:01", timedelta(days=1, seconds=-1)),
        (pl.Duration("us"), "-00:00:01.25", timedelta(milliseconds=-1250)),
        (pl.Duration("ns"), "00:00:00.000000001", timedelta(0)),
        (pl.Duration("ms"), "00:00:00.0001", None),
        (pl.Duration("us"), "1:2:3", None),
        (pl.Duration("us"), "1 day02:03:04", None),
        (pl.Duration("us"), "P1DT", None),
        (pl.Duration("us"), "PT1.5H", None),
        (pl.Duration("us"), "P999999999999999999W", None),
        (pl.List(pl.Int64()), "[1, null]", [1, None]),
        (pl.List(pl.Int64()), "[1", None),
        (pl.List(pl.Duration("us")), '["PT1S"]', [timedelta(seconds=1)]),
        (pl.Struct({"a": pl.Boolean()}), '{"a": true}', {"a": True}),
        (pl.Struct({"a": pl.Boolean()}), "{'a': true}", None),
    ],
    ids=str,
)
def test_a_text_is_parsed_exactly_or_not_at_all(wanted: pl.DataType, text: str, expected: object) -> None:
    assert parsed(TEXT, wanted, text, None) == [expected, None]


@given(st.timedeltas(timedelta(days=-100_000_000), timedelta(days=100_000_000)))
def test_a_duration_that_python_prints_is_read_back(duration: timedelta) -> None:
    assert parsed(TEXT, pl.Duration("us"), str(duration), None) == [duration, None]


@given(st.timedeltas(timedelta(days=-100_000_000), timedelta(days=100_000_000)))
def test_a_duration_that_polars_prints_is_read_back(duration: timedelta) -> None:
    text = pl.Series([duration], dtype=pl.Duration("us")).dt.to_string("iso").item()

    assert parsed(TEXT, pl.Duration("us"), text, None) == [duration, None]


@pytest.mark.parametrize(
    ("raw", "wanted", "value", "expected"),
    [
        (pl.Float64(), pl.Int64(), 2.0, 2),
        (pl.Float64(), pl.Int64(), 1.5, None),
        (pl.Float64(), pl.Int64(), float("nan"), None),
        (pl.Float64(), pl.Int64(), float("inf"), None),
        (pl.Float64(), pl.Int64(), 2.0**63, None),
        (pl.Float64(), pl.Float32(), 0.5, 0.5),
        (pl.Float64(), pl.Float32(), 0.1, None),
        (pl.Float64(), pl.Float32(), 1e300, None),
        (pl.Float64(), decimal(10, 2), 1.5, Decimal("1.50")),
        (pl.Float64(), decimal(10, 2), 1.005, None),
        (pl.Float64(), decimal(38, 38), 0.5, Decimal("0.5")),
        (pl.Float64(), decimal(38, 2), 1e30, Decimal(10**30 + 19884624838656)),
        (pl.Float64(), decimal(38, 20), 0.1, Decimal("0.1")),
        (pl.Float64(), decimal(10, 7), 1e-7, Decimal("1E-7")),
        (pl.Float64(), decimal(10, 7), 1e-8, None),
        (pl.Float64(), decimal(38, 2), 1e36, None),
        (pl.Float64(), decimal(10, 2), float("inf"), None),
        (pl.Float32(), decimal(10, 2), 0.1, Decimal("0.10")),
        (pl.Float32(), pl.Float64(), 0.5, 0.5),
        (pl.Int64(), pl.UInt8(), 256, None),
        (pl.Int64(), pl.UInt8(), -1, None),
        (pl.Int64(), pl.Float64(), 2**53, 2.0**53),
        (pl.Int64(), pl.Float64(), 2**53 + 1, None),
        (pl.Int64(), decimal(5, 2), 100, Decimal("100.00")),
        (pl.Int64(), decimal(5, 2), 1000, None),
        (pl.Int32(), pl.Int64(), 7, 7),
        (pl.UInt64(), pl.Int64(), 2**63, None),
        (decimal(10, 3), decimal(10, 2), Decimal("1.005"), None),
        (decimal(10, 3), decimal(10, 2), Decimal("1.230"), Decimal("1.23")),
        (decimal(10, 2), pl.Int64(), Decimal("2.00"), 2),
        (decimal(10, 2), pl.Int64(), Decimal("2.50"), None),
        (pl.Duration("ns"), pl.Duration("us"), timedelta(microseconds=5), timedelta(microseconds=5)),
        (pl.Enum(["a", "b"]), TEXT, "a", "a"),
        (pl.Enum(["a", "b"]), pl.Enum(["b"]), "a", None),
        (pl.Categorical(), pl.Enum(["b"]), "b", "b"),
        (pl.Datetime("ms", "UTC"), UTC_MICROSECONDS, utc(2013, 1, 9), utc(2013, 1, 9)),
        (pl.Datetime("ns", "Asia/Tokyo"), UTC_MICROSECONDS, utc(2013, 1, 9), utc(2013, 1, 9)),
        (pl.Null(), pl.Int64(), None, None),
        (pl.Null(), UTC_MICROSECONDS, None, None),
    ],
    ids=str,
)
def test_a_typed_value_is_converted_if_the_way_back_gives_the_same_one(
    raw: pl.DataType, wanted: pl.DataType, value: object, expected: object
) -> None:
    assert parsed(raw, wanted, value, None) == [expected, None]


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_units_of_duration_are_converted_without_overflow(unit: Any) -> None:  # noqa: ANN401  Polars' own literal
    frame = pl.DataFrame({"v": pl.Series([INFINITY, 5_000_000, 1], dtype=pl.Int64)}).cast({"v": pl.Duration(unit)})
    expression = parse(pl.col("v"), pl.Duration(unit), pl.Duration("us"))
    assert expression is not None

    steps = frame.select(expression).to_series().to_physical().to_list()

    exact = [
        Fraction(number * {"ms": 1_000_000, "us": 1000, "ns": 1}[unit], 1000) for number in (INFINITY, 5_000_000, 1)
    ]
    fits = [step if step.denominator == 1 and abs(step) < 2**63 else None for step in exact]
    assert steps == fits


ZONED = [pl.Datetime("us", "UTC"), pl.Datetime("ms", "UTC"), pl.Datetime("ms", "America/New_York")]


@pytest.mark.parametrize("raw", ZONED, ids=str)
@pytest.mark.parametrize("step", [INFINITY, MINUS_INFINITY, -9222425352054775809, 8210298412800000000])
def test_a_time_that_nothing_can_hold_is_no_value(raw: pl.Datetime, step: int) -> None:
    frame = pl.DataFrame({"v": pl.Series([step], dtype=pl.Int64)}).cast({"v": raw})
    expression = parse(pl.col("v"), raw, UTC_MICROSECONDS)
    assert expression is not None

    typed = frame.select(expression)

    assert typed["v"].to_list() == [None]
    typed.select(pl.col("v").dt.convert_time_zone("America/New_York").dt.replace_time_zone(None).dt.year())


@pytest.mark.parametrize(
    ("physical", "dtype"),
    [
        (pl.Int32, pl.Date()),
        (pl.List(pl.Int64), pl.List(UTC_MICROSECONDS)),
        (pl.List(pl.List(pl.Int64)), pl.List(pl.List(UTC_MICROSECONDS))),
        (pl.Struct({"at": pl.Int64, "n": pl.Int64}), pl.Struct({"at": UTC_MICROSECONDS, "n": pl.Int64()})),
        (pl.List(pl.Struct({"at": pl.Int64})), pl.List(pl.Struct({"at": UTC_MICROSECONDS}))),
        (pl.Array(pl.Int64, 2), pl.Array(UTC_MICROSECONDS, 2)),
    ],
    ids=str,
)
def test_times_that_nothing_can_hold_are_found_in_dates_and_inside_lists_and_structs(
    physical: pl.DataType, dtype: pl.DataType
) -> None:
    def value(step: int) -> Any:  # noqa: ANN401  a value of the type
        shapes = {
            pl.Date(): step % 2**31,
            pl.List(UTC_MICROSECONDS): [0, step],
            pl.List(pl.List(UTC_MICROSECONDS)): [[0], None, [step]],
            pl.Struct({"at": UTC_MICROSECONDS, "n": pl.Int64()}): {"at": step, "n": None},
            pl.List(pl.Struct({"at": UTC_MICROSECONDS})): [{"at": None}, {"at": step}],
            pl.Array(UTC_MICROSECONDS, 2): [0, step],
        }
        return shapes[dtype]

    frame = pl.DataFrame({"v": pl.Series([value(INFINITY), value(5), None], dtype=physical)}).cast({"v": dtype})
    expression = parse(pl.col("v"), dtype, dtype)
    assert expression is not None

    typed = frame.select(expression).to_series()

    assert typed.is_null().to_list() == [True, False, True]
    typed.to_list()  # a value out of range would panic here


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (TEXT, pl.Binary()),
        (TEXT, pl.Datetime("us")),
        (pl.Int64(), UTC_MICROSECONDS),
        (pl.Datetime("us"), UTC_MICROSECONDS),
        (pl.Date(), UTC_MICROSECONDS),
        (UTC_MICROSECONDS, pl.Date()),
        (UTC_MICROSECONDS, pl.Datetime("us")),
        (pl.Int64(), TEXT),
        (pl.Int64(), pl.Boolean()),
        (pl.Boolean(), pl.Int64()),
        (pl.Int64(), pl.Duration("us")),
        (pl.Binary(), TEXT),
        (pl.List(pl.Int32()), pl.List(pl.Boolean())),
        (pl.Struct({"a": pl.Int32()}), pl.Struct({"a": pl.Boolean()})),
        (pl.Struct({"a": pl.Int32()}), pl.Struct({"b": pl.Int32()})),
        (pl.List(TEXT), pl.List(pl.List(pl.Int64()))),
    ],
    ids=str,
)
def test_a_column_of_a_type_that_means_something_else_is_not_converted(raw: pl.DataType, wanted: pl.DataType) -> None:
    assert parse(pl.col("v"), raw, wanted) is None


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12), st.integers(0, 12))
def test_a_decimal_is_what_python_s_decimal_says_without_rounding(number: Decimal, scale: int) -> None:
    text = f"{number:f}"

    is_exact = (Fraction(number) * 10**scale).denominator == 1 and abs(number) < 10 ** (20 - scale)
    assert parsed(TEXT, decimal(20, scale), text) == [number if is_exact else None]


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 20))
def test_a_decimal_of_a_float_has_the_digits_that_the_float_is_written_with(number: float, scale: int) -> None:
    (found,) = parsed(pl.Float64(), decimal(38, scale), number)

    if found is not None:
        assert found in {Decimal(repr(number)), Decimal(number)}
    elif 1e-4 <= abs(number) < 1e16:
        assert (Fraction(repr(number)) * 10**scale).denominator > 1


@given(st.decimals(-(10**20), 10**20, allow_nan=False, places=2))
def test_a_float_of_a_decimal_is_the_nearest_one(number: Decimal) -> None:
    assert parsed(decimal(38, 2), pl.Float64(), number)[0] in {None, float(number)}


@given(st.floats(allow_nan=False, allow_infinity=False) | st.decimals(allow_nan=False, allow_infinity=False))
def test_a_float_is_the_nearest_one_as_python_reads_it(number: float | Decimal) -> None:
    nearest = float(str(number))

    assert parsed(TEXT, pl.Float64(), str(number)) == [None if abs(nearest) == float("inf") else nearest]


@given(
    st.datetimes(timezones=st.timezones() | st.just(UTC)).filter(lambda at: at.utcoffset() is not None),
    st.sampled_from(["T", " "]),
)
def test_a_time_is_what_python_reads_of_its_iso_form(at: datetime, separator: str) -> None:
    text = at.isoformat(separator)
    try:
        expected: datetime | None = datetime.fromisoformat(text).astimezone(UTC)
    except OverflowError:  # before the year 1 or after 9999 once it is UTC
        expected = None
    has_minutes_only = len(text.rsplit("+", 1)[-1].rsplit("-", 1)[-1].split(":")) < 3

    if has_minutes_only:  # Python writes seconds of an offset, too, which ISO 8601 has not
        assert parsed(TEXT, UTC_MICROSECONDS, text) == [expected]


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from(["ms", "us", "ns"]), st.sampled_from(["UTC", "Asia/Tokyo"]))
def test_a_time_of_any_unit_is_the_same_instant_or_no_value(step: int, unit: Any, zone: str) -> None:  # noqa: ANN401
    raw = pl.Datetime(unit, zone)
    frame = pl.DataFrame({"v": pl.Series([step], dtype=pl.Int64)}).cast({"v": raw})
    expression = parse(pl.col("v"), raw, UTC_MICROSECONDS)
    assert expression is not None

    (found,) = frame.select(expression).to_series().to_list()

    microseconds = Fraction(step * {"ms": 1_000_000, "us": 1000, "ns": 1}[unit], 1000)
    try:
        exact = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(microseconds))
    except OverflowError:
        exact = None
    assert found == (exact if microseconds.denominator == 1 else None)
