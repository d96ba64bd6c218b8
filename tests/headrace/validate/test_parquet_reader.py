"""Parquet is held to the contract by its footer, no more than that is read, and odd values arrive or are named."""

from dataclasses import replace
from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.dataset import ObjectSource, Source
from headrace.validate.columns import utc_time
from headrace.validate.errors import ColumnTypeChangedError, NaiveTimeError, SchemaChangedError
from headrace.validate.parquet_reader import read_parquet
from headrace.validate.read_request import ReadRequest
from headrace.validate.result import ValidationResult
from headrace.validate.unreadable import UnreadableError
from headrace.validate.validate_partition import validate_partition

DAY = "2013-01-09"
LOCATION = ObjectSource("orders/", r"orders/(?P<partition>[0-9-]+)\.parquet", ".parquet")


OPTIONAL = dy.List(dy.Int64(nullable=True))


class Orders(dy.Schema):
    order_id = dy.Int64()
    amount = dy.Decimal(10, 2, nullable=True)


def source(contract: type[dy.Schema] = Orders, key: str = "order_id", **options: Any) -> Source:  # noqa: ANN401
    return Source("orders", LOCATION, read_parquet, contract, lambda rows: rows, (key,), 1.0, **options)


def write(folder: Path, columns: dict[str, Any], **options: Any) -> Path:  # noqa: ANN401
    path = folder / f"{DAY}.parquet"
    pq.write_table(pa.table(columns), path, **options)
    return path


def validate(path: Path, declared: Source) -> ValidationResult:
    return validate_partition(declared, DAY, {DAY: path})


def contract_of_one(column: dy.Column) -> type[dy.Schema]:
    return type("One", (dy.Schema,), {"id": dy.Int64(), "v": column})


def outcomes(folder: Path, values: pa.Array, column: dy.Column) -> tuple[list[Any], list[str | None]]:
    """What arrives of values, and the text of those whose rows are rejected."""
    path = write(folder, {"id": pa.array(range(len(values))), "v": values})
    result = validate(path, source(contract_of_one(column), "id"))
    return result.accepted["v"].to_list(), result.rejected["v"].to_list()


def read_all(path: Path) -> pl.DataFrame:
    return read_parquet(path)


def damage(path: Path, column: str) -> None:
    """Overwrite the values of a column; the footer stays as it is."""
    facts = pq.read_metadata(path).row_group(0)
    chunk = next(facts.column(n) for n in range(facts.num_columns) if facts.column(n).path_in_schema == column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + chunk.total_compressed_size] = b"\xee" * chunk.total_compressed_size
    path.write_bytes(content)


def test_a_column_that_is_not_in_the_contract_is_never_read_where_it_is_dropped(tmp_path: Path) -> None:
    path = write(tmp_path, {"order_id": [1, 2], "amount": [Decimal("1.50"), None], "note": ["a", "b"] * 1})
    damage(path, "note")
    with pytest.raises(pl.exceptions.PolarsError):
        pl.read_parquet(path)

    result = validate(path, source(extra_columns="drop"))

    assert result.accepted.rows() == [(1, Decimal("1.50")), (2, None)]


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"order_id": [1]}, SchemaChangedError, "missing amount"),
        ({"order_id": [1], "amount": [1], "note": ["a"]}, SchemaChangedError, "new note"),
        ({"order_id": [datetime(2013, 1, 9, tzinfo=UTC)], "amount": [1]}, ColumnTypeChangedError, "expected Int64"),
        ({"order_id": [b"1"], "amount": [1]}, ColumnTypeChangedError, "the column order_id was retyped"),
    ],
    ids=["missing", "new", "a time", "bytes"],
)
def test_a_schema_that_cannot_fit_is_refused_before_a_value_is_read(
    tmp_path: Path, columns: dict[str, Any], error: type[Exception], message: str
) -> None:
    path = write(tmp_path, columns)
    damage(path, "order_id")

    with pytest.raises(error, match=f"orders {DAY}: .*{message}"):
        validate(path, source())


def test_times_without_a_zone_are_refused_by_the_footer(tmp_path: Path) -> None:
    path = write(tmp_path, {"id": [1], "v": pa.array([0], pa.timestamp("us"))})
    damage(path, "v")

    with pytest.raises(NaiveTimeError, match=r"the times of the column v name no zone\. Expected"):
        validate(path, source(contract_of_one(utc_time()), "id"))


def test_the_footer_and_the_values_give_the_same_refusal_where_a_reader_does_not_ask_for_the_contract(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, {"order_id": [b"1"], "amount": [1]})
    plain = replace(source(), read=read_all)

    with pytest.raises(ColumnTypeChangedError, match="none of its 1 values is; found Binary: '31'"):
        validate(path, plain)


def test_all_row_groups_count_towards_the_bounds_and_dropped_columns_do_not(tmp_path: Path) -> None:
    path = write(tmp_path, {"order_id": range(10_000), "note": ["x" * 100] * 10_000}, row_group_size=100)
    wanted = ReadRequest({"order_id": pl.Int64()}, "drop")

    assert read_parquet(path, max_fields=10_000, max_bytes=200_000, request=wanted).shape == (10_000, 1)
    with pytest.raises(UnreadableError, match="it has 20,000 fields, more than the 10,000 allowed"):
        read_parquet(path, max_fields=10_000)
    with pytest.raises(UnreadableError, match="unpacked bytes, more than the 50,000 allowed"):
        read_parquet(path, max_bytes=50_000, request=wanted)


def test_columns_after_nested_ones_are_counted_by_their_own_size(tmp_path: Path) -> None:
    nested = pa.array([{"a": 1, "b": [{"c": 1}]}] * 1000)
    path = write(tmp_path, {"nested": nested, "id": range(1000)})

    wanted = ReadRequest({"id": pl.Int64()}, "drop")

    assert read_parquet(path, max_fields=1000, request=wanted).columns == ["id"]
    with pytest.raises(UnreadableError, match="it has 2,000 fields"):
        read_parquet(path, max_fields=1999, request=ReadRequest({"nested": pl.Struct({})}, "drop"))


@pytest.mark.parametrize("cut", [4, 8, 40, -9, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path, {"order_id": [1], "amount": [Decimal("1.50")]})
    path.write_bytes(path.read_bytes()[:cut])

    with pytest.raises(UnreadableError, match=f"orders {DAY}: expected a Parquet file"):
        validate(path, source())


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["order_id", "order_id"]), path)

    with pytest.raises(UnreadableError, match="order_id"):
        read_parquet(path)


@pytest.mark.parametrize(
    ("values", "column", "arrived", "rejected"),
    [
        (pa.array([1, 2**63, None], pa.uint64()), dy.Int64(nullable=True), [1, None], ["9223372036854775808"]),
        (
            pa.array([Decimal("1.2300"), Decimal("1.2345")]),
            dy.Decimal(10, 2),
            [Decimal("1.23")],
            ["1.2345"],
        ),
        (
            pa.array([1000, 1001], pa.timestamp("ns", "UTC")),
            utc_time(),
            [datetime(1970, 1, 1, 0, 0, 0, 1, UTC)],
            ["1970-01-01 00:00:00.000001001+00:00"],
        ),
        (
            pa.array([1.0, float("nan"), float("inf"), 0.5]),
            dy.Int64(),
            [1],
            ["NaN", "inf", "0.5"],
        ),
        (pa.array(["a", "b", None]).dictionary_encode(), dy.String(nullable=True), ["a", "b", None], []),
        (pa.array(["1", "x"]).dictionary_encode(), dy.Int64(), [1], ["x"]),
        (pa.nulls(2), dy.Int64(nullable=True), [None, None], []),
        (pa.array([[1, None], None, []], pa.list_(pa.int32())), OPTIONAL, [[1, None], []], [None]),
        (pa.array([[1.0], [1.5]]), dy.List(dy.Int64()), [[1]], ['["1.5"]']),
        (
            pa.array([[[1]], [[300]]], pa.list_(pa.list_(pa.int64()))),
            dy.List(dy.List(dy.UInt8())),
            [[[1]]],
            ["[[300]]"],
        ),
        (
            pa.array([{"b": 1, "a": 1.0}, {"b": 2, "a": 0.5}, {"b": None, "a": None}]),
            dy.Struct({"a": dy.Int64(nullable=True), "b": dy.Int16(nullable=True)}),
            [{"a": 1, "b": 1}, {"a": None, "b": None}],
            ['{"b":2,"a":"0.5"}'],
        ),
    ],
    ids=[
        *("uint64", "decimal", "nanoseconds", "NaN", "dictionary", "dictionary to numbers", "nulls"),
        *("nested nulls", "list of floats", "lists of lists", "struct"),
    ],
)
def test_an_odd_value_arrives_without_loss_or_its_row_is_rejected_with_its_text(
    tmp_path: Path, values: pa.Array, column: dy.Column, arrived: list[Any], rejected: list[str]
) -> None:
    assert outcomes(tmp_path, values, column) == (arrived, rejected)


@pytest.mark.parametrize(
    ("values", "column"),
    [
        (pa.array([[b"1"]]), dy.List(dy.Int64())),
        (pa.array([{"a": 1}]), dy.Struct({"a": dy.Int64(), "b": dy.Int64()})),
        (pa.array([{"a": 1, "c": 1}]), dy.Struct({"a": dy.Int64()})),
    ],
    ids=["items of bytes", "a field too few", "a field too many"],
)
def test_a_nested_type_without_a_value_in_common_refuses_the_partition(
    tmp_path: Path, values: pa.Array, column: dy.Column
) -> None:
    with pytest.raises(ColumnTypeChangedError, match="the column v was retyped"):
        outcomes(tmp_path, values, column)


def test_a_time_of_day_outside_of_the_day_in_a_dropped_column_refuses_nothing(tmp_path: Path) -> None:
    late = pa.array([24 * 3600 * 10**6]).view(pa.time64("us"))
    path = write(tmp_path, {"id": [1], "v": pa.array([time(5)], pa.time64("us")), "late": late})

    result = validate(path, source(contract_of_one(dy.Time()), "id", extra_columns="drop"))

    assert result.accepted["v"].to_list() == [time(5)]
    with pytest.raises(UnreadableError, match="the column late holds the time 24:00:00"):
        read_parquet(path)
