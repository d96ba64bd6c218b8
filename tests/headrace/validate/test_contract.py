"""raw → validated: rows in = rows accepted + rows rejected; a rejected row keeps its text and all checks it failed."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.dataset import UNPARTITIONED, UTC_MICROSECONDS, ObjectSource, Source
from headrace.validate import contract
from headrace.validate.contract import TimeBounds, split
from headrace.validate.validate_partition import duplicates

DAY = "2013-01-09"


def unread(_path: Path) -> pl.DataFrame:
    raise NotImplementedError


def as_it_is(rows: pl.DataFrame) -> pl.DataFrame:
    return rows


def reverse_and_drop(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.head(1)


def breaks(data: pa.PolarsData) -> pl.LazyFrame:
    return data.lazyframe.select(pl.col("no such column") > 0)


def source(**changes: pa.Column) -> Source:
    columns = {
        "at": pa.Column(UTC_MICROSECONDS, metadata={"within": TimeBounds(timedelta(0), timedelta(hours=30))}),
        "place": pa.Column(pl.String, pa.Check.isin(["EWR", "JFK"])),
        "count": pa.Column(pl.Int64, pa.Check.in_range(0, 9), nullable=True),
        "speed": pa.Column(pl.Float64, pa.Check.ge(0), nullable=True),
    }
    schema = pa.DataFrameSchema({**columns, **changes}, strict=True)
    return Source("readings", ObjectSource("readings/", ".*", ".csv"), unread, schema, as_it_is, ("at", "place"))


def rows(*values: Sequence[str | None]) -> pl.DataFrame:
    return pl.DataFrame(values, schema=dict.fromkeys(["at", "place", "count", "speed"], pl.String), orient="row")


GOOD = ("2013-01-09T05:00:00Z", "EWR", "1", "2.5")


def test_a_good_row_goes_on_typed_with_its_time_in_utc_microseconds() -> None:
    verdict = split(rows(GOOD), source(), DAY)

    assert verdict.accepted.rows() == [(datetime(2013, 1, 9, 5, tzinfo=UTC), "EWR", 1, 2.5)]
    assert verdict.accepted.schema["at"] == UTC_MICROSECONDS
    assert verdict.rejected.is_empty()


def test_a_bad_row_keeps_its_text_its_number_and_every_check_it_failed() -> None:
    bad = ("2013-01-11T00:00:00Z", "LGA", "12", "-inf")

    verdict = split(rows(GOOD, bad), source(), DAY)

    assert verdict.accepted.height == 1
    assert verdict.rejected.drop("checks").rows() == [(2, *bad)]
    assert set(verdict.rejected["checks"][0]) == {
        "at: before(day +30 h)",
        "place: isin(['EWR', 'JFK'])",
        "count: in_range(0, 9)",
        "speed: finite",
        "speed: greater_than_or_equal_to(0)",
    }


def test_the_checks_are_counted_most_frequent_first() -> None:
    verdict = split(
        rows(("2013-01-09T01:00:00Z", "LGA", "12", None), ("2013-01-09T02:00:00Z", "LGA", "1", None)), source(), DAY
    )

    assert list(verdict.counts.items()) == [("place: isin(['EWR', 'JFK'])", 2), ("count: in_range(0, 9)", 1)]


VALUES = {
    "at": [
        "2013-01-09T05:00:00Z",
        "2013-01-09T06:00:00+01:00",
        "2013-01-09T05:00:00",
        "soon",
        "2999-01-01T00:00:00Z",
        None,
    ],
    "place": ["EWR", "JFK", "LGA", "", None],
    "count": ["1", "99", "1.5", "one", None],
    "speed": ["1", "NaN", "inf", "-3", "1e3", "fast", None],
}


@settings(deadline=None)
@given(st.lists(st.tuples(*(st.sampled_from(choices) for choices in VALUES.values())), max_size=12))
def test_no_row_is_lost_and_none_counts_twice(values: list[tuple[str | None, ...]]) -> None:
    frame = rows(*([GOOD, ("2013-01-09T07:00:00Z", "JFK", "2", "2"), *values]))

    verdict = split(frame, source(), DAY)

    assert verdict.rows_in == frame.height
    together = pl.concat([verdict.kept, verdict.rejected.drop("checks")]).sort("row")
    assert together["row"].to_list() == list(range(1, frame.height + 1))
    assert together.drop("row").equals(frame)
    assert all(len(checks) for checks in verdict.rejected["checks"])
    assert verdict.accepted.select("at", "place").is_unique().all()


def test_a_partition_without_rows_has_an_empty_verdict() -> None:
    verdict = split(rows(), source(), DAY)

    assert (verdict.rows_in, verdict.counts) == (0, {})
    assert verdict.accepted.schema["at"] == UTC_MICROSECONDS


def test_of_two_rows_with_one_key_the_first_in_the_file_stays() -> None:
    verdict = split(rows(GOOD, ("2013-01-09T06:00:00+01:00", "EWR", "9", None)), source(), DAY)

    assert verdict.accepted["count"].to_list() == [1]
    assert verdict.counts == {"unique(at, place)": 1}
    assert verdict.rejected["row"].to_list() == [2]


def test_a_row_rejected_for_another_reason_takes_no_key() -> None:
    verdict = split(rows(("2013-01-09T05:00:00Z", "EWR", "99", None), GOOD), source(), DAY)

    assert verdict.kept["row"].to_list() == [2]


def test_a_key_that_stands_in_another_partition_is_rejected_like_any_other() -> None:
    verdict = split(rows(("2013-01-09T04:00:00Z", "EWR", "1", None), GOOD), source(), DAY)
    earlier = split(rows(GOOD), source(), DAY).accepted.lazy()

    known = duplicates(verdict.accepted, earlier, ("at", "place"))
    judged = verdict.reject(known, contract.unique_check(("at", "place")))

    assert known.to_list() == [False, True]
    assert judged.rejected.rows() == [(2, *GOOD, ["unique(at, place)"])]
    assert (judged.rows_in, judged.accepted.height) == (2, 1)


def test_a_missing_column_is_refused() -> None:
    with pytest.raises(contract.SchemaChangedError, match=r"readings 2013-01-09: .*missing speed\. Expected at, pl"):
        split(rows(GOOD).drop("speed"), source(), DAY)


def test_a_renamed_column_is_refused_with_a_hint() -> None:
    with pytest.raises(contract.SchemaChangedError, match=r"Renamed: new velocity, missing speed\?"):
        split(rows(GOOD).rename({"speed": "velocity"}), source(), DAY)


def test_an_added_column_is_refused_with_what_to_do() -> None:
    with pytest.raises(contract.SchemaChangedError, match=r"new gate\..*name the column in its contract.*headrace val"):
        split(rows(GOOD).with_columns(gate=pl.lit("A1")), source(), DAY)


def test_a_contract_that_is_not_strict_leaves_added_columns_behind() -> None:
    open_minded = source()
    open_minded.contract.strict = False

    verdict = split(rows(GOOD).with_columns(gate=pl.lit("A1")), open_minded, DAY)

    assert verdict.accepted.columns == ["at", "place", "count", "speed"]


def test_a_column_of_which_no_value_is_of_its_type_is_refused_as_retyped() -> None:
    frame = rows(("2013-01-09T05:00:00Z", "EWR", "one", None), ("2013-01-09T06:00:00Z", "EWR", "two", None))

    with pytest.raises(contract.RetypedColumnError, match=r"count was retyped: expected Int64, .* 'one', 'two'"):
        split(frame, source(), DAY)


def test_a_database_column_of_another_kind_is_refused_as_retyped() -> None:
    typed = split(rows(GOOD), source(), DAY).accepted

    with pytest.raises(contract.RetypedColumnError, match="place was retyped: expected String"):
        split(typed.with_columns(place=pl.lit(7)), source(), DAY)


def test_a_single_value_of_another_type_fails_only_that() -> None:
    verdict = split(rows(GOOD, ("2013-01-09T06:00:00Z", "EWR", "1.5", "1,5")), source(), DAY)

    assert verdict.rejected["checks"].to_list() == [["count: dtype(Int64)", "speed: dtype(Float64)"]]


def test_a_value_that_does_not_parse_is_not_called_missing_too() -> None:
    needed = source(count=pa.Column(pl.Int64))

    verdict = split(
        rows(GOOD, ("2013-01-09T06:00:00Z", "EWR", "x", None), ("2013-01-09T07:00:00Z", "EWR", None, None)), needed, DAY
    )

    assert verdict.rejected["checks"].to_list() == [["count: dtype(Int64)"], ["count: not_null"]]


def test_a_database_may_widen_a_type_but_not_lose_a_fraction() -> None:
    typed = split(rows(GOOD, ("2013-01-09T06:00:00Z", "EWR", "3", "1")), source(), DAY).accepted
    widened = typed.with_columns(pl.col("count").cast(pl.Int16), speed=pl.Series([1, 2], dtype=pl.Int32))
    halves = typed.with_columns(count=pl.Series([1.0, 1.5]))

    assert split(widened, source(), DAY).rejected.is_empty()
    assert split(halves, source(), DAY).counts == {"count: dtype(Int64)": 1}


def test_one_time_without_a_zone_is_rejected() -> None:
    verdict = split(rows(GOOD, ("2013-01-09T06:00:00", "EWR", None, None)), source(), DAY)

    assert verdict.counts == {"at: zone": 1}


def test_a_column_of_times_without_a_zone_is_refused() -> None:
    with pytest.raises(contract.NaiveTimeError, match=r"name no zone: '2013-01-09T06:00:00'.*headrace ingest"):
        split(rows(("2013-01-09T06:00:00", "EWR", None, None)), source(), DAY)


def test_a_database_column_of_times_without_a_zone_is_refused() -> None:
    naive = split(rows(GOOD), source(), DAY).accepted.with_columns(pl.col("at").dt.replace_time_zone(None))

    with pytest.raises(contract.NaiveTimeError, match=r"the column at name no zone: .*`timestamptz`"):
        split(naive, source(), DAY)


def test_times_in_another_zone_and_unit_become_utc_microseconds() -> None:
    typed = split(rows(GOOD), source(), DAY).accepted
    abroad = typed.with_columns(pl.col("at").dt.cast_time_unit("ms").dt.convert_time_zone("America/New_York"))

    assert split(abroad, source(), DAY).accepted.equals(typed)


@pytest.mark.parametrize("at", ["2013-01-09 06:30:00+00:00", "2013-01-09T01:30:00-0500", "2013-01-09 06:30:00.000Z"])
def test_a_time_may_be_written_in_any_iso_form_that_names_its_zone(at: str) -> None:
    verdict = split(rows((at, "EWR", None, None)), source(), DAY)

    assert verdict.accepted["at"].to_list() == [datetime(2013, 1, 9, 6, 30, tzinfo=UTC)]


def test_nan_and_infinities_are_refused_unless_the_contract_allows_them() -> None:
    frame = rows(
        *(
            (f"2013-01-09T0{hour}:00:00Z", "EWR", None, value)
            for hour, value in enumerate(("NaN", "inf", "-inf", "1", None))
        )
    )

    strict = split(frame, source(speed=pa.Column(pl.Float64, nullable=True)), DAY)
    loose = split(frame, source(speed=pa.Column(pl.Float64, nullable=True, metadata={"finite": False})), DAY)

    assert strict.counts == {"speed: finite": 3}
    assert loose.rejected.is_empty()


@pytest.mark.parametrize(
    ("at", "check"),
    [
        ("2013-01-08T23:59:59Z", "at: not_before(day +0 h)"),
        ("2013-01-10T06:00:00Z", "at: before(day +30 h)"),
        ("2999-01-01T00:00:00Z", "at: before(day +30 h)"),
    ],
)
def test_a_time_outside_the_day_of_its_partition_is_rejected(at: str, check: str) -> None:
    verdict = split(rows(GOOD, (at, "EWR", None, None)), source(), DAY)

    assert verdict.counts == {check: 1}


def test_a_source_of_one_partition_bounds_its_times_by_fixed_ones() -> None:
    fixed = TimeBounds(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
    table = source(at=pa.Column(UTC_MICROSECONDS, metadata={"within": fixed}))

    verdict = split(rows(GOOD, ("2999-01-01T00:00:00Z", "EWR", None, None)), table, UNPARTITIONED)

    assert verdict.counts == {"at: before(2100-01-01)": 1}
    with pytest.raises(contract.ContractFaultError, match="needs fixed times"):
        split(rows(GOOD), source(), UNPARTITIONED)


def test_a_check_that_cannot_run_is_a_fault_of_the_contract_and_rejects_no_row() -> None:
    faulty = source()
    faulty.contract.checks = [pa.Check(breaks, name="breaks")]

    with pytest.raises(contract.ContractFaultError, match=r"'breaks'.*The contract is at fault"):
        split(rows(GOOD), faulty, DAY)


def test_tidying_that_loses_rows_is_a_fault_of_the_contract() -> None:
    declared = source()
    lossy = Source(**{**vars(declared), "tidy": reverse_and_drop})

    with pytest.raises(contract.ContractFaultError, match="tidying made 1 of 2 rows"):
        split(rows(GOOD, ("2013-01-09T06:00:00Z", "EWR", None, None)), lossy, DAY)
