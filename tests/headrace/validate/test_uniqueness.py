"""A key is unique over the whole table: of equal keys, nulls among them, the earliest partition keeps the first row."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import combinations
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.validate.uniqueness import is_first_of_key, is_known_key, key_span, partitions_with_shared_keys

KEY = ("at", "shop")


def keys(*rows: tuple[int | None, str | None]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"at": pl.Int64, "shop": pl.String}, orient="row")


def test_nulls_are_equal_within_a_partition_and_between_two() -> None:
    rows = keys((1, None), (1, None), (None, None), (None, None), (2, "a"))

    assert is_first_of_key(rows, KEY, [5]).to_list() == [True, False, True, False, True]
    assert is_known_key(rows, rows.head(1).lazy(), KEY).to_list() == [True, True, False, False, False]
    assert is_known_key(rows, rows[2:3].lazy(), KEY).to_list() == [False, False, True, True, False]


def test_of_partitions_one_after_the_other_each_keeps_the_first_row_of_its_own() -> None:
    rows = keys((1, "a"), (1, "a"), (1, "a"), (2, "b"), (1, "a"))

    assert is_first_of_key(rows, KEY, [2, 0, 3]).to_list() == [True, False, True, True, False]


@pytest.mark.parametrize("name", ["is_known", "known", "row", "\x00", "partition"])
def test_a_column_of_the_key_may_have_any_name(name: str) -> None:
    rows = pl.DataFrame({name: [1, 2, 1]})

    assert is_known_key(rows, rows.head(1).lazy(), (name,)).to_list() == [True, False, True]
    assert is_first_of_key(rows, (name,), [2, 1]).to_list() == [True, True, True]


SPANS = [
    (pl.Int64(), [3, -1], [-1, 3]),
    (pl.UInt64(), [2**64 - 1, 0], [0, 2**64 - 1]),
    (pl.String(), ["b", "a"], ["a", "b"]),
    (pl.Date(), [date(2013, 1, 9)], ["2013-01-09", "2013-01-09"]),
    (pl.Datetime("us", "UTC"), [datetime(2013, 1, 9, tzinfo=UTC)], ["2013-01-09T00:00:00+00:00"] * 2),
    (pl.Time(), [time(5), time(4)], ["04:00:00", "05:00:00"]),
    (pl.Decimal(10, 2), [Decimal("1.5")], ["1.50", "1.50"]),
    (pl.Binary(), [b"\xff", b"\0"], ["00", "ff"]),
    (pl.Duration("us"), [timedelta(minutes=1)], ["PT1M", "PT1M"]),
    (pl.Enum(["b", "a"]), ["b", "a"], ["a", "b"]),
    (pl.Boolean(), [True, False], ["false", "true"]),
    (pl.Float64(), [float("inf"), -0.0, float("nan")], ["0.0", "inf"]),
    (pl.List(pl.Int64()), [[1], [2]], ["[1]", "[2]"]),
    (pl.Int64(), [None, 3], [None, 3]),
    (pl.String(), [None, None], [None, None]),
    (pl.Int64(), [], None),
]


@pytest.mark.parametrize(("dtype", "values", "expected"), SPANS, ids=str)
def test_a_span_holds_the_first_and_last_value_of_any_type_as_json(
    dtype: pl.DataType, values: list[object], expected: object
) -> None:
    span = key_span(pl.Series("key", values, dtype=dtype))

    assert span == expected
    assert orjson.loads(orjson.dumps(span)) == expected


def test_a_partition_is_read_with_the_earlier_ones_whose_spans_overlap_its_own() -> None:
    spans = {"1": [1, 3], "2": [4, 5], "3": [3, 4], "4": [9, 9], "5": None, "6": [None, 0], "7": [None, None]}

    assert {name: list(shared) for name, shared in partitions_with_shared_keys(spans)} == {
        "1": [],
        "2": [],
        "3": ["1", "2"],
        "4": [],
        "5": [],
        "6": [],
        "7": ["6"],
    }


def test_spans_of_a_column_that_had_another_type_are_compared_without_an_error() -> None:
    spans: dict[str, list[object]] = {"1": [1, 3], "2": ["a", "b"], "3": [None, 2], "4": ["b", "c"]}

    assert {name: list(shared) for name, shared in partitions_with_shared_keys(spans)} == {
        "1": [],
        "2": [],
        "3": ["1"],
        "4": ["2"],
    }


VALUES = {
    pl.Int64(): st.integers(-3, 3),
    pl.Float64(): st.sampled_from([0.0, -0.0, 1.5, float("inf"), float("-inf"), float("nan")]),
    pl.String(): st.sampled_from(["", "a", "A", "ä", "10", "9"]),
    pl.Decimal(10, 2): st.sampled_from([Decimal(9), Decimal(10), Decimal("-1.5")]),
    pl.Binary(): st.sampled_from([b"", b"\0", b"\xff"]),
    pl.Enum(["z", "a"]): st.sampled_from(["z", "a"]),
    pl.Datetime("us", "UTC"): st.sampled_from([datetime(2013, 1, 9, 0, 0, 0, n, tzinfo=UTC) for n in (0, 1, 10)]),
}
TABLES = st.sampled_from(list(VALUES)).flatmap(
    lambda dtype: st.tuples(st.just(dtype), st.lists(st.lists(st.none() | VALUES[dtype], max_size=3), max_size=5))
)


@settings(deadline=None)
@given(TABLES)
def test_partitions_that_hold_an_equal_key_are_read_together_whatever_its_type(
    table: tuple[pl.DataType, Sequence[list[Any]]],
) -> None:
    dtype, partitions = table
    columns = {str(number): pl.Series("key", values, dtype=dtype) for number, values in enumerate(partitions)}

    together = dict(partitions_with_shared_keys({name: key_span(column) for name, column in columns.items()}))

    for earlier, later in combinations(columns, 2):
        other = columns[earlier].to_frame().lazy()
        if is_known_key(columns[later].to_frame(), other, ("key",)).any():
            assert earlier in together[later]
