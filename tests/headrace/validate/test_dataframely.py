"""The compiled query gives what `Schema.filter`, the public way, gives; the private names are where we take them."""

from datetime import UTC, datetime
from typing import Any

import dataframely as dy
import numpy as np
import polars as pl
import pytest
import real_flights
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.validate.columns import one_of, partition_start, utc_time
from headrace.validate.compile_contract import compile_contract
from headrace.validate.dataframely_rules import rule_expression, schema_rules
from headrace.validate.query import CheckedRows, row_query
from headrace.validate.reserved_names import START
from pipelines.flights.sources.flights import Flights
from pipelines.flights.sources.weather import Weather


def run(frame: pl.DataFrame, schema: type[dy.Schema]) -> CheckedRows:
    contract = compile_contract(schema)
    return row_query(contract, tuple(frame.select(list(contract.columns)).dtypes)).run(frame)


class Odd(dy.Schema):
    """Every kind of column, names that could clash, checks over several columns and over several rows."""

    row = dy.Int64(min=0, max_exclusive=10)
    checks = dy.Float64(min_exclusive=-2, nullable=True)
    place = dy.String(check=one_of("a", "b"), max_length=1)
    kind = dy.Enum(["x", "y"], nullable=True)
    at = dy.Datetime(time_zone="UTC", time_unit="us", resolution="1h", nullable=True)
    tags = dy.List(dy.Int64(min=0), nullable=True, max_length=2)
    pair = dy.Struct({"a": dy.Int64(min=0)}, nullable=True)
    spaced = dy.Int64(alias="time hour", unique=True)
    amount = dy.Decimal(10, 2, min=0, check=[lambda column: column < 5, lambda column: column != 3], nullable=True)

    @dy.rule()
    def below(cls) -> pl.Expr:
        return cls.row.col < cls.checks.col

    @dy.rule()
    def few_per_place(cls) -> pl.Expr:
        return (pl.len() <= 2).over("place")


class Child(Odd):
    place = dy.String(nullable=True)

    @dy.rule()
    def below(cls) -> pl.Expr:
        return cls.row.col <= cls.checks.col


class Uncle(dy.Schema):
    other = dy.Int64()

    @dy.rule()
    def other_is_odd(cls) -> pl.Expr:
        return cls.other.col % 2 == 1


class Nephew(Child, Uncle):
    kind = dy.Enum(["x"], nullable=True)


VALUES: dict[str, list[Any]] = {
    "row": [None, -1, 0, 9, 10],
    "checks": [None, -1.0, 0.5, float("nan"), float("inf"), 20.0],
    "place": [None, "a", "b", "cc"],
    "kind": [None, "x"],
    "at": [None, datetime(2013, 1, 1, 5, tzinfo=UTC), datetime(2013, 1, 1, 5, 30, tzinfo=UTC)],
    "tags": [None, [], [1], [-1, None], [1, 2, 3]],
    "pair": [None, {"a": 1}, {"a": -1}, {"a": None}],
    "time hour": [0, 1, 2, 3],
    "amount": [None, "-1", "3", "4.99"],
    "other": [None, 1, 2],
}
ROWS = st.lists(st.fixed_dictionaries({name: st.sampled_from(values) for name, values in VALUES.items()}), max_size=8)


@pytest.mark.slow_lane
@pytest.mark.slow
@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(ROWS, st.sampled_from([Odd, Child, Nephew]))
def test_rows_checks_and_counts_are_those_of_dataframely_s_own_filter(
    rows: list[dict[str, object]], schema: type[dy.Schema]
) -> None:
    types = {name: column.dtype for name, column in schema.columns().items()}
    texts = pl.DataFrame(rows, schema={**dict.fromkeys(VALUES), **types, "amount": pl.String})
    frame = texts.select(list(types)).cast({"amount": types["amount"]})
    good, failure = schema.filter(frame)

    found = run(frame, schema)

    assert found.typed.filter(~found.is_bad).equals(good)
    assert {column.name: column.sum() for column in found.failed if column.any()} == failure.counts()
    details = failure.details()
    rules = [name for name in details.columns if name not in failure.invalid().columns]
    expected = [{rule for rule in rules if row[rule] == "invalid"} for row in details.rows(named=True)]
    assert [set(checks) for checks in (found.failed_checks() if found.is_bad.any() else ())] == expected


def typed(raw: pl.DataFrame, schema: type[dy.Schema]) -> pl.DataFrame:
    """The rows as the contract types them."""
    contract = compile_contract(schema)
    raw = raw.select(list(contract.columns))
    parsed = row_query(contract, tuple(raw.dtypes)).typed
    return raw.select(expression.alias(name) for name, expression in parsed.items() if expression is not None)


def test_the_shipped_contracts_agree_with_dataframely_s_own_filter_on_spoiled_rows() -> None:
    nth, day = pl.int_range(pl.len()), "2013-01-09"
    spoiled = {
        Flights: typed(real_flights.flights()[day], Flights).with_columns(
            month=pl.when(nth % 7 == 0).then(13).otherwise("month"),
            arr_time=pl.when(nth % 11 != 0).then("arr_time"),
            dep_delay=pl.when(nth % 13 != 0).then("dep_delay"),
            carrier=pl.when(nth % 17 == 0).then(pl.lit("United")).otherwise("carrier"),
        ),
        Weather: typed(real_flights.weather()[day], Weather).with_columns(
            wind_speed=pl.when(nth % 3 == 0).then(float("nan")).otherwise("wind_speed"), hour=nth % 24
        ),
    }
    for schema, frame in spoiled.items():
        start = pl.lit(partition_start(day)).dt.cast_time_unit("us").alias(START)

        found = run(frame.with_columns(start), schema)

        _, failure = schema.filter(frame)
        ours = tuple(f"|{rule}" for rule in ("not_before", "before"))  # dataframely knows no partitions
        counts = {each.name: each.sum() for each in found.failed if each.any() and not each.name.endswith(ours)}
        assert counts == failure.counts() != {}


# The private names


def test_dataframely_still_keeps_its_rules_where_we_take_them() -> None:
    moved = "dataframely moved its rules: adapt headrace/validate/dataframely_rules.py, the only module that takes them"
    assert hasattr(Odd, "_validation_rules"), moved
    rules = Odd._validation_rules(with_cast=False)  # noqa: SLF001  as the module does
    assert [name for name in rules if "|" not in name] == ["below", "few_per_place"], moved
    assert {name for name in rules if name.startswith("row|")} == {"row|nullability", "row|min", "row|max_exclusive"}, (
        moved
    )
    assert all(isinstance(rule.expr, pl.Expr) for rule in rules.values()), moved


def test_a_rule_that_a_subclass_declares_again_is_the_subclass_s() -> None:
    (parent, child) = (rule_expression(schema_rules(schema)["below"]) for schema in (Odd, Child))

    assert isinstance(parent, pl.Expr)
    assert isinstance(child, pl.Expr)
    assert not parent.meta.eq(child)


def test_dataframely_has_the_limits_of_floats_that_numpy_has() -> None:
    """`headrace.dataframely_import` answers for NumPy until somebody imports it."""
    for column, dtype in ((dy.Float32, np.float32), (dy.Float64, np.float64)):
        assert column.max_value == float(np.finfo(dtype).max)
        assert column.min_value == float(np.finfo(dtype).min)
    assert dy.Float64().dtype == pl.Float64()
    assert utc_time().dtype == pl.Datetime("us", "UTC")


def test_dataframely_can_still_make_samples_with_numpy() -> None:
    assert Uncle.sample(3).height == 3
