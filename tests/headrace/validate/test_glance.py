"""The glance at a partition says "all good" exactly where Pandera finds nothing."""

import pandera.polars as pa
import polars as pl
import pytest
from pandera.errors import SchemaErrors

from headrace.validate.fast_path import look

SCHEMA = pa.DataFrameSchema(
    {
        "shop": pa.Column(pl.String, pa.Check.isin(["east", "west"])),
        "amount": pa.Column(pl.Int64, [pa.Check.ge(0), pa.Check.le(9)], nullable=True),
        "price": pa.Column(pl.Float64, nullable=False),
    },
    checks=[pa.Check(lambda data: data.lazyframe.select(pl.col("price") < 100), name="price: below(100)")],
    strict=True,
)
GOOD = {"shop": "east", "amount": 1, "price": 1.5}


def frame(**changes: object) -> pl.DataFrame:
    """A good row, and one with these changes."""
    return pl.DataFrame(
        [GOOD, {**GOOD, **changes}], schema={"shop": pl.String, "amount": pl.Int64, "price": pl.Float64}
    )


def all_good(rows: pl.DataFrame, schema: pa.DataFrameSchema) -> bool:
    seen = look(rows, schema)
    return seen is not None and seen.is_good


def finds_nothing(rows: pl.DataFrame, schema: pa.DataFrameSchema) -> bool:
    try:
        schema.validate(rows, lazy=True)
    except SchemaErrors:
        return False
    return True


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"amount": None}, True),
        ({"amount": -1}, False),
        ({"amount": 10}, False),
        ({"shop": "north"}, False),
        ({"shop": None}, False),
        ({"price": None}, False),
        ({"price": float("nan")}, False),
        ({"price": 100.0}, False),
    ],
)
def test_it_agrees_with_pandera_on_every_kind_of_row(changes: dict[str, object], expected: bool) -> None:
    rows = frame(**changes)

    assert (all_good(rows, SCHEMA), finds_nothing(rows, SCHEMA)) == (expected, expected)


def test_a_check_that_takes_nulls_for_failures_is_held_to_that() -> None:
    schema = pa.DataFrameSchema({"n": pa.Column(pl.Int64, pa.Check.ge(0, ignore_na=False), nullable=True)})

    assert not all_good(pl.DataFrame({"n": [1, None]}), schema)
    assert not finds_nothing(pl.DataFrame({"n": [1, None]}), schema)


def test_what_only_pandera_can_say_is_left_to_it() -> None:
    rows = pl.DataFrame({"n": [1, 2]})

    assert not all_good(rows, pa.DataFrameSchema({"n": pa.Column(pl.Int64)}, unique=["n"]))
    assert not all_good(rows, pa.DataFrameSchema({"n": pa.Column(pl.String)}))
    assert not all_good(rows, pa.DataFrameSchema({"n": pa.Column(pl.Int64, pa.Check(_broken))}))


def test_a_check_that_does_more_than_select_is_left_to_pandera() -> None:
    rows = pl.DataFrame({"n": [1, 2]})
    checks = (pa.Check(_filtered), pa.Check(_both), pa.Check(lambda n: n > 0, element_wise=True))

    for check in checks:
        schema = pa.DataFrameSchema({"n": pa.Column(pl.Int64, check)})
        assert look(rows, schema) is None
        assert finds_nothing(rows, schema)


def test_what_is_seen_of_a_part_is_what_is_in_it() -> None:
    seen = look(pl.DataFrame({"n": ["1", "2", "x", "4"]}), pa.DataFrameSchema({"n": pa.Column(pl.Int64)}))

    assert seen
    assert [seen.is_good, seen.part(0, 2).is_good, seen.part(2, 2).is_good] == [False, True, False]
    assert seen.part(3, 1).typed["n"].to_list() == [4]


def _filtered(data: pa.PolarsData) -> pl.LazyFrame:
    return data.lazyframe.filter(pl.col("n") > 0).select(pl.col("n") > 0)


def _both(data: pa.PolarsData) -> pl.LazyFrame:
    return data.lazyframe.select(pl.all() > 0)


def _broken(data: pa.PolarsData) -> pl.LazyFrame:
    return data.lazyframe.select(pl.col("no such column") > 0)
