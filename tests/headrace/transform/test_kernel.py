"""Feature rows that could never be retrieved are refused where they are made: by table, day, column and count."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

import polars as pl
import pytest
from minimal_dataset import FEATURES

from headrace.dataset import END_US, FIRST_US, UNPARTITIONED, UTC_MICROSECONDS, FeatureTable
from headrace.transform.kernel import UndeclaredFeatureError, check_rows, compute_rows

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAY = "2026-01-01"


def rows(**columns: pl.Series) -> pl.DataFrame:
    """Two rows of the table `totals`, with some columns replaced."""
    good = {"shop": ["east", "west"], "event_time": NOON, "known_time": NOON, "amount": [1, 2]}
    schema = {"event_time": UTC_MICROSECONDS, "known_time": UTC_MICROSECONDS}
    return pl.DataFrame(good, schema_overrides=schema).with_columns(**columns)


def returning(frame: pl.DataFrame, table: FeatureTable = FEATURES) -> FeatureTable:
    return replace(table, transform=lambda **_inputs: frame.lazy(), inputs={})


def steps(*microseconds: int | None) -> pl.Series:
    return pl.Series(microseconds, dtype=pl.Int64).cast(UTC_MICROSECONDS)


NOON_US = int(NOON.timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"known_time": steps(NOON_US, None)}, "expected a value of known_time in every row, found null in 1 of 2"),
        ({"event_time": steps(None, None)}, "expected a value of event_time in every row, found null in 2 of 2"),
        ({"shop": pl.Series(["east", None])}, "expected a value of shop in every row, found null in 1 of 2"),
        ({"known_time": steps(NOON_US, 2**63 - 1)}, "years 1 to 9999 in known_time, found 1 others"),
        ({"known_time": steps(NOON_US, END_US)}, "years 1 to 9999 in known_time, found 1 others"),
        ({"event_time": steps(FIRST_US - 1, NOON_US)}, "years 1 to 9999 in event_time, found 1 others"),
        ({"due": steps(None, END_US)}, "years 1 to 9999 in due, found 1 others"),
        ({"due": pl.Series([0, 2_932_897], dtype=pl.Int32).cast(pl.Date)}, "years 1 to 9999 in due, found 1 others"),
        ({"event_time": steps(NOON_US, NOON_US + 86_400_000_000)}, "event times of that UTC day, found 1 others"),
        ({"shop": pl.Series(["east", "east"])}, "one row per key and event time, found 2 that share theirs"),
    ],
)
def test_a_row_that_could_never_be_retrieved_is_refused(columns: Mapping[str, pl.Series], message: str) -> None:
    with pytest.raises(UndeclaredFeatureError, match=f"features totals {DAY}: .*{message}"):
        check_rows(FEATURES, DAY, rows(**columns))


def test_rows_may_have_any_time_in_a_table_of_one_partition() -> None:
    check_rows(FEATURES, UNPARTITIONED, rows(event_time=steps(FIRST_US, END_US - 1)))

    with pytest.raises(UndeclaredFeatureError, match="found null in 1 of 2"):
        check_rows(FEATURES, UNPARTITIONED, rows(event_time=steps(FIRST_US, None)))


def test_a_day_without_rows_is_good() -> None:
    check_rows(FEATURES, DAY, rows().clear())


@pytest.mark.parametrize("dtype", [pl.Int64(), pl.Binary()])
def test_a_key_of_another_type_than_declared_is_refused_with_where_it_is_declared(dtype: pl.DataType) -> None:
    table = returning(rows(shop=pl.Series([None, None], dtype=dtype)))

    with pytest.raises(UndeclaredFeatureError, match=r"expected shop: String; .* shop: .*declared in `key_types`"):
        compute_rows(table, DAY, {})

    declared = replace(table, key_types={"shop": dtype})
    assert compute_rows(declared, DAY, {}).collect_schema()["shop"] == dtype


def test_a_missing_key_is_refused_by_name() -> None:
    with pytest.raises(UndeclaredFeatureError, match="expected shop: String; its kernel returned event_time"):
        compute_rows(returning(rows().drop("shop")), DAY, {})
