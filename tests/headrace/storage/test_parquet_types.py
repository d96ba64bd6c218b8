"""Which types a Parquet file of ours gives back as they were written; all others are refused by name before that."""

import io
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import polars as pl
import pytest

from headrace.storage import parquet
from headrace.storage.parquet_encoding import encode, numbered_table

NOON = datetime(2013, 1, 9, 12, tzinfo=UTC)
VALUES: list[tuple[pl.DataType, object]] = [
    *((dtype(), 1) for dtype in (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)),
    *((dtype(), 1.5) for dtype in (pl.Float16, pl.Float32, pl.Float64)),
    *((dtype(), 1) for dtype in (pl.Int128, pl.UInt128)),
    (pl.Decimal(10, 2), Decimal("1.50")),
    (pl.Boolean(), True),
    (pl.String(), "a"),
    (pl.Binary(), b"\xff"),
    (pl.Enum(["a"]), "a"),
    (pl.Categorical(), "a"),
    (pl.Date(), date(2013, 1, 9)),
    (pl.Time(), time(5, 0, 0, 5)),
    *((pl.Datetime(unit, "UTC"), NOON) for unit in ("ms", "us", "ns")),
    (pl.Datetime("us"), NOON.replace(tzinfo=None)),
    (pl.Datetime("us", "America/New_York"), NOON),
    *((pl.Duration(unit), timedelta(1)) for unit in ("ms", "us", "ns")),
    (pl.Null(), None),
    (pl.List(pl.Int64()), [1, None]),
    (pl.List(pl.Duration("us")), [timedelta(1)]),
    (pl.List(pl.List(pl.String())), [["a"], None]),
    (pl.Array(pl.Int64(), 2), [1, 2]),
    (pl.Struct({"a": pl.Int64(), "b": pl.List(pl.Date())}), {"a": 1, "b": [date(2013, 1, 9)]}),
    (pl.Struct({"a": pl.Duration("us")}), {"a": timedelta(1)}),
    (pl.Struct({}), {}),
]


@pytest.mark.parametrize(("dtype", "value"), VALUES, ids=str)
def test_a_type_counts_as_kept_exactly_where_a_reader_gets_it_back(dtype: pl.DataType, value: object) -> None:
    frame = pl.DataFrame({"v": pl.Series([value, None], dtype=dtype)})
    try:
        read = pl.read_parquet(io.BytesIO(bytes(encode(numbered_table(frame)))))
    except Exception:  # noqa: BLE001  Arrow has an error of its own for each type that it cannot write
        is_kept = False
    else:
        is_kept = read.equals(frame) and read.schema == frame.schema

    assert parquet.keeps_type(dtype) is is_kept


def test_rows_of_equal_keys_are_in_one_order_however_they_came() -> None:
    rows = pl.DataFrame(
        {"k": [2, 1, 1, None, 1], "a": ["x", "b", "a", "y", None], "n": [[1], [2], [3], [4], [5]]},
    )

    ordered = parquet.canonical(rows, ["k"])

    assert ordered.select("k", "a").rows() == [(None, "y"), (1, None), (1, "a"), (1, "b"), (2, "x")]
    assert parquet.canonical(rows[::-1], ["k"]).equals(ordered)
    assert (
        parquet.canonical(rows.filter(pl.col("n").list.first() != 3), ["k"], is_unique=True)["k"].to_list()[0] is None
    )


def test_rows_that_differ_only_in_a_nested_column_stay_as_they_came() -> None:
    numbers = range(1000)  # of fewer, or by one column, a sort that keeps no order keeps theirs all the same
    rows = pl.DataFrame({"k": [number % 3 for number in numbers], "a": "x", "n": [[number] for number in numbers]})

    ordered = parquet.canonical(rows, ["k"])

    assert ordered["n"].list.first().to_list() == [*numbers[::3], *numbers[1::3], *numbers[2::3]]
