"""raw → validated: rows in = rows accepted + rows rejected; a rejected row keeps its text and all checks it failed."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl
import pytest
from accepted_rows import accepted_raw
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.dataset import UNPARTITIONED, UTC_MICROSECONDS, ObjectSource, Source
from headrace.validate.columns import TimeBounds, one_of, utc_time
from headrace.validate.csv_dialect import CsvDialect
from headrace.validate.csv_reader import read_csv
from headrace.validate.errors import (
    ColumnTypeChangedError,
    InvalidContractError,
    NaiveTimeError,
    SchemaChangedError,
)
from headrace.validate.uniqueness import is_known_key, unique_check
from headrace.validate.unreadable import UnreadableError
from headrace.validate.validate_partition import read_raw, validate_frame, validate_frames

DAY = "2013-01-09"


def read_nothing(_path: Path) -> pl.DataFrame:
    raise NotImplementedError


def read_text(path: Path) -> Any:  # noqa: ANN401  not the frame that is expected
    return path.read_text()


def keep_rows(rows: pl.DataFrame) -> pl.DataFrame:
    return rows


def first_row_only(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.head(1)


class Readings(dy.Schema):
    at = utc_time(within=TimeBounds(timedelta(0), timedelta(hours=30)))
    place = dy.String(check=one_of("EWR", "JFK"))
    count = dy.Int64(min=0, max=9, nullable=True)
    speed = dy.Float64(min=0, nullable=True)


SOURCE = Source("readings", ObjectSource("readings/", ".*", ".csv"), read_nothing, Readings, keep_rows, ("at", "place"))


def source(**changes: dy.Column) -> Source:
    return replace(SOURCE, contract=type("Changed", (Readings,), changes))


def rows(*values: Sequence[str | None]) -> pl.DataFrame:
    return pl.DataFrame(values, schema=dict.fromkeys(["at", "place", "count", "speed"], pl.String), orient="row")


GOOD = ("2013-01-09T05:00:00Z", "EWR", "1", "2.5")


def test_a_good_row_goes_on_typed_with_its_time_in_utc_microseconds() -> None:
    result = validate_frame(rows(GOOD), SOURCE, DAY)

    assert result.accepted.rows() == [(datetime(2013, 1, 9, 5, tzinfo=UTC), "EWR", 1, 2.5)]
    assert result.accepted.schema["at"] == UTC_MICROSECONDS
    assert result.rejected.is_empty()


def test_a_bad_row_keeps_its_text_its_number_and_every_check_it_failed() -> None:
    bad = ("2013-01-11T00:00:00Z", "LGA", "12", "-inf")

    result = validate_frame(rows(GOOD, bad), SOURCE, DAY)

    assert result.accepted.height == 1
    assert result.rejected.drop("_failed_checks").rows() == [(2, *bad)]
    assert set(result.rejected["_failed_checks"][0]) == {
        "at|before",
        "place|check__one_of",
        "count|max",
        "speed|inf",
        "speed|min",
    }


def test_the_checks_are_counted_most_frequent_first() -> None:
    result = validate_frame(
        rows(("2013-01-09T01:00:00Z", "LGA", "12", None), ("2013-01-09T02:00:00Z", "LGA", "1", None)), SOURCE, DAY
    )

    assert list(result.counts.items()) == [("place|check__one_of", 2), ("count|max", 1)]


def test_checks_that_as_many_rows_failed_are_counted_in_the_order_of_their_names() -> None:
    result = validate_frame(rows(("2013-01-09T01:00:00Z", "LGA", "12", "-1")), SOURCE, DAY)

    assert list(result.counts.items()) == [("count|max", 1), ("place|check__one_of", 1), ("speed|min", 1)]


def test_bytes_that_cannot_be_read_are_named_with_the_partition_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "2013-01-09.csv"
    path.write_bytes(b"at,place,at\n2013-01-09T05:00:00Z,EW,x\n")
    declared = replace(SOURCE, read=lambda file: read_csv(file, CsvDialect()))

    with pytest.raises(
        UnreadableError, match=r"2013-01-09: the header names 'at' more.*kept as they came in .*`headrace ingest`"
    ):
        read_raw(declared, DAY, path)
    with pytest.raises(InvalidContractError, match="expected a polars DataFrame"):
        read_raw(replace(SOURCE, read=read_text), DAY, path)


def test_a_column_of_nothing_but_nulls_keeps_the_type_of_its_contract() -> None:
    result = validate_frame(rows((GOOD[0], "EWR", None, None)), SOURCE, DAY)

    assert result.accepted.select("count", "speed").rows() == [(None, None)]
    assert result.accepted.schema == validate_frame(rows(GOOD), SOURCE, DAY).accepted.schema


def test_texts_that_look_alike_are_different_keys() -> None:
    alike = ["Zu\u0308rich", "Z\u00fcrich", "Z\u00fcrich\u200b", "\u202eZ\u00fcrich", "Z\u00fcrich ", "\U0001f6eb"]
    wide = source(place=dy.String())
    frame = rows(*((GOOD[0], place, "1", None) for place in alike))

    result = validate_frame(frame, wide, DAY)

    assert result.accepted["place"].to_list() == alike
    assert result.counts == {}


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

    result = validate_frame(frame, SOURCE, DAY)

    assert result.rows_in == frame.height
    together = pl.concat([accepted_raw(result), result.rejected.drop("_failed_checks")]).sort("_row")
    assert together["_row"].to_list() == list(range(1, frame.height + 1))
    assert together.drop("_row").equals(frame)
    assert all(len(checks) for checks in result.rejected["_failed_checks"])
    assert result.accepted.select("at", "place").is_unique().all()


def test_a_partition_without_rows_has_an_empty_result() -> None:
    result = validate_frame(rows(), SOURCE, DAY)

    assert (result.rows_in, result.counts) == (0, {})
    assert result.accepted.schema["at"] == UTC_MICROSECONDS


def test_of_two_rows_with_one_key_the_first_in_the_file_stays() -> None:
    result = validate_frame(rows(GOOD, ("2013-01-09T06:00:00+01:00", "EWR", "9", None)), SOURCE, DAY)

    assert result.accepted["count"].to_list() == [1]
    assert result.counts == {"unique(at, place)": 1}
    assert result.rejected["_row"].to_list() == [2]


def test_a_row_rejected_for_another_reason_takes_no_key() -> None:
    result = validate_frame(rows(("2013-01-09T05:00:00Z", "EWR", "99", None), GOOD), SOURCE, DAY)

    assert accepted_raw(result)["_row"].to_list() == [2]


def test_a_key_that_stands_in_another_partition_is_rejected_like_any_other() -> None:
    result = validate_frame(rows(("2013-01-09T04:00:00Z", "EWR", "1", None), GOOD), SOURCE, DAY)
    earlier = validate_frame(rows(GOOD), SOURCE, DAY).accepted.lazy()

    known = is_known_key(result.accepted, earlier, ("at", "place"))
    both = result.reject(known, unique_check(("at", "place")))

    assert known.to_list() == [False, True]
    assert both.rejected.rows() == [(2, *GOOD, ["unique(at, place)"])]
    assert (both.rows_in, both.accepted.height) == (2, 1)


def test_a_missing_column_is_refused() -> None:
    with pytest.raises(SchemaChangedError, match=r"readings 2013-01-09: .*missing speed\. Expected at, pl"):
        validate_frame(rows(GOOD).drop("speed"), SOURCE, DAY)


def test_a_renamed_column_is_refused_with_a_hint() -> None:
    with pytest.raises(SchemaChangedError, match=r"Renamed: new velocity, missing speed\?"):
        validate_frame(rows(GOOD).rename({"speed": "velocity"}), SOURCE, DAY)


def test_an_added_column_is_refused_with_what_to_do() -> None:
    with pytest.raises(SchemaChangedError, match=r"new gate\..*contract Readings: `gate = dy.String\(\)`.*headrace"):
        validate_frame(rows(GOOD).with_columns(gate=pl.lit("A1")), SOURCE, DAY)


def test_a_source_may_leave_added_columns_behind() -> None:
    lenient = replace(SOURCE, extra_columns="drop")

    result = validate_frame(rows(GOOD).with_columns(gate=pl.lit("A1")), lenient, DAY)

    assert result.accepted.columns == ["at", "place", "count", "speed"]


def test_a_column_of_which_no_value_is_of_its_type_is_refused_as_retyped() -> None:
    frame = rows(("2013-01-09T05:00:00Z", "EWR", "one", None), ("2013-01-09T06:00:00Z", "EWR", "two", None))

    with pytest.raises(ColumnTypeChangedError, match=r"count was retyped: expected Int64, .* 'one', 'two'"):
        validate_frame(frame, SOURCE, DAY)


def test_a_database_column_of_another_kind_is_refused_as_retyped() -> None:
    typed = validate_frame(rows(GOOD), SOURCE, DAY).accepted

    with pytest.raises(ColumnTypeChangedError, match="place was retyped: expected String"):
        validate_frame(typed.with_columns(place=pl.lit(7)), SOURCE, DAY)


def test_a_single_value_of_another_type_fails_only_that() -> None:
    result = validate_frame(rows(GOOD, ("2013-01-09T06:00:00Z", "EWR", "1.5", "1,5")), SOURCE, DAY)

    assert result.rejected["_failed_checks"].to_list() == [["count|dtype", "speed|dtype"]]


def test_a_value_that_does_not_parse_is_not_called_missing_too() -> None:
    needed = source(count=dy.Int64())

    result = validate_frame(
        rows(GOOD, ("2013-01-09T06:00:00Z", "EWR", "x", None), ("2013-01-09T07:00:00Z", "EWR", None, None)), needed, DAY
    )

    assert result.rejected["_failed_checks"].to_list() == [["count|dtype"], ["count|nullability"]]


def test_a_database_may_widen_a_type_but_not_lose_a_fraction() -> None:
    typed = validate_frame(rows(GOOD, ("2013-01-09T06:00:00Z", "EWR", "3", "1")), SOURCE, DAY).accepted
    widened = typed.with_columns(pl.col("count").cast(pl.Int16), speed=pl.Series([1, 2], dtype=pl.Int32))
    halves = typed.with_columns(count=pl.Series([1.0, 1.5]))

    assert validate_frame(widened, SOURCE, DAY).rejected.is_empty()
    assert validate_frame(halves, SOURCE, DAY).counts == {"count|dtype": 1}


def test_one_time_without_a_zone_is_rejected() -> None:
    result = validate_frame(rows(GOOD, ("2013-01-09T06:00:00", "EWR", None, None)), SOURCE, DAY)

    assert result.counts == {"at|zone": 1}


def test_a_column_of_times_without_a_zone_is_refused() -> None:
    with pytest.raises(NaiveTimeError, match=r"name no zone: '2013-01-09T06:00:00'.*headrace ingest"):
        validate_frame(rows(("2013-01-09T06:00:00", "EWR", None, None)), SOURCE, DAY)


def test_a_database_column_of_times_without_a_zone_is_refused() -> None:
    naive = validate_frame(rows(GOOD), SOURCE, DAY).accepted.with_columns(pl.col("at").dt.replace_time_zone(None))

    with pytest.raises(NaiveTimeError, match=r"the column at name no zone: .*`timestamptz`"):
        validate_frame(naive, SOURCE, DAY)


def test_times_in_another_zone_and_unit_become_utc_microseconds() -> None:
    typed = validate_frame(rows(GOOD), SOURCE, DAY).accepted
    abroad = typed.with_columns(pl.col("at").dt.cast_time_unit("ms").dt.convert_time_zone("America/New_York"))

    assert validate_frame(abroad, SOURCE, DAY).accepted.equals(typed)


@pytest.mark.parametrize("at", ["2013-01-09 06:30:00+00:00", "2013-01-09T01:30:00-0500", "2013-01-09 06:30:00.000Z"])
def test_a_time_may_be_written_in_any_iso_form_that_names_its_zone(at: str) -> None:
    result = validate_frame(rows((at, "EWR", None, None)), SOURCE, DAY)

    assert result.accepted["at"].to_list() == [datetime(2013, 1, 9, 6, 30, tzinfo=UTC)]


def test_nan_and_infinities_are_refused_unless_the_contract_allows_them() -> None:
    frame = rows(
        *(
            (f"2013-01-09T0{hour}:00:00Z", "EWR", None, value)
            for hour, value in enumerate(("NaN", "inf", "-inf", "1", None))
        )
    )

    strict = validate_frame(frame, source(speed=dy.Float64(nullable=True)), DAY)
    loose = validate_frame(frame, source(speed=dy.Float64(nullable=True, allow_nan=True, allow_inf=True)), DAY)

    assert strict.counts == {"speed|inf": 2, "speed|nan": 1}
    assert loose.rejected.is_empty()


@pytest.mark.parametrize(
    ("at", "check"),
    [
        ("2013-01-08T23:59:59Z", "at|not_before"),
        ("2013-01-10T06:00:00Z", "at|before"),
        ("2999-01-01T00:00:00Z", "at|before"),
    ],
)
def test_a_time_outside_the_day_of_its_partition_is_rejected(at: str, check: str) -> None:
    result = validate_frame(rows(GOOD, (at, "EWR", None, None)), SOURCE, DAY)

    assert result.counts == {check: 1}


def test_a_source_of_one_partition_bounds_its_times_by_fixed_ones() -> None:
    fixed = TimeBounds(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
    table = source(at=utc_time(within=fixed))

    result = validate_frame(rows(GOOD, ("2999-01-01T00:00:00Z", "EWR", None, None)), table, UNPARTITIONED)

    assert result.counts == {"at|before": 1}


@pytest.mark.parametrize("partition", [UNPARTITIONED, "2026-01", "20130109", "2013-1-9", "2013-02-30", "backfill"])
def test_bounds_that_count_from_a_day_need_partitions_named_by_days(partition: str) -> None:
    with pytest.raises(InvalidContractError, match=rf"readings {partition}: .*found '{partition}'.*fixed times"):
        validate_frame(rows(GOOD), SOURCE, partition)


class Broken(Readings):
    @dy.rule()
    def breaks(cls) -> pl.Expr:
        return pl.col("no such column") > 0


def test_a_check_that_cannot_run_is_a_fault_of_the_contract_and_rejects_no_row() -> None:
    faulty = replace(SOURCE, contract=Broken)

    with pytest.raises(
        InvalidContractError, match=r"readings: the contract Broken .*'breaks': it reads 'no such column'"
    ):
        validate_frame(rows(GOOD), faulty, DAY)


def test_a_transform_that_loses_rows_is_a_fault_of_the_declaration() -> None:
    lossy = replace(SOURCE, transform=first_row_only)

    with pytest.raises(InvalidContractError, match=r"readings 2013-01-09: `transform` .* gave 1 of 2 rows"):
        validate_frame(rows(GOOD, ("2013-01-09T06:00:00Z", "EWR", None, None)), lossy, DAY)


def far_later(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.col("at") + timedelta(days=3_000_000))


def test_a_transform_that_makes_times_which_python_cannot_hold_is_a_fault_of_the_declaration() -> None:
    with pytest.raises(InvalidContractError, match=r"1 times in the column 'at' before the year 1 or after 9999"):
        validate_frame(rows(GOOD), replace(SOURCE, transform=far_later), DAY)


def nested_naive_times(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(span=pl.struct(hours=pl.concat_list(pl.col("at").dt.replace_time_zone(None))))


def test_a_transform_that_makes_times_without_a_zone_inside_a_value_is_a_fault_of_the_declaration() -> None:
    with pytest.raises(InvalidContractError, match=r"the column 'span' as Struct.*: times are UTC in microseconds"):
        validate_frame(rows(GOOD), replace(SOURCE, transform=nested_naive_times), DAY)


def raises(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(pl.col("plaice"))


def test_a_transform_that_raises_is_named_with_its_partition() -> None:
    with pytest.raises(
        InvalidContractError, match=r"readings 2013-01-09: `transform` .* ColumnNotFoundError: .*plaice"
    ):
        validate_frame(rows(GOOD), replace(SOURCE, transform=raises), DAY)


def without_place(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.drop("place")


def test_a_transform_that_drops_a_column_of_the_key_is_named_with_it() -> None:
    with pytest.raises(InvalidContractError, match=r"gave no column 'place', which the key names"):
        validate_frame(rows(GOOD), replace(SOURCE, transform=without_place), DAY)


# Files of text: any declared type is parsed, exactly


class Typed(dy.Schema):
    is_open = dy.Bool()
    day = dy.Date()
    clock = dy.Time()
    kind = dy.Enum(["a", "b"])
    word = dy.Categorical()
    price = dy.Decimal(10, 2)
    at = utc_time()


TYPED = replace(SOURCE, contract=Typed, key=("at",))


def read(folder: Path, *lines: str) -> pl.DataFrame:
    """A file of these lines."""
    path = folder / "2013-01-09.csv"
    path.write_text("\n".join(["is_open,day,clock,kind,word,price,at", *lines, ""]))
    return read_csv(path, CsvDialect())


GOOD_LINE = "true,2013-01-09,05:00:00,a,x,1.20,2013-01-09T05:00:00Z"


def test_a_file_of_text_may_be_declared_with_any_type_that_a_text_can_be(tmp_path: Path) -> None:
    result = validate_frame(read(tmp_path, GOOD_LINE), TYPED, DAY)

    assert result.rejected.is_empty()
    at = datetime(2013, 1, 9, 5, tzinfo=UTC)
    assert result.accepted.rows() == [(True, at.date(), at.time(), "a", "x", Decimal("1.20"), at)]


def test_each_value_that_is_not_exactly_of_its_type_is_rejected_with_its_text(tmp_path: Path) -> None:
    bad = "1,13-01-09,0500,c,x,1.239,2012-06-30T23:59:60Z"

    result = validate_frame(read(tmp_path, GOOD_LINE, bad), TYPED, DAY)

    columns = ("is_open", "day", "clock", "kind", "price", "at")
    assert result.rejected["_failed_checks"].to_list() == [[f"{column}|dtype" for column in columns]]
    assert result.rejected.drop("_row", "_failed_checks").row(0) == tuple(bad.split(","))


class Lasting(dy.Schema):
    at = utc_time()
    lasts = dy.Duration()


def test_a_text_that_cannot_be_of_the_declared_type_is_refused_with_what_to_declare_instead() -> None:
    frame = pl.DataFrame({"at": ["2013-01-09T05:00:00Z"], "lasts": ["300"]})

    with pytest.raises(
        ColumnTypeChangedError, match=r"lasts was .*Duration.*'300'.*dy\.String and parse it in `transform`"
    ):
        validate_frame(frame, replace(SOURCE, contract=Lasting, key=("at",)), DAY)


@pytest.mark.parametrize("at", ["2013-01-09T05:00", "2013-01-09 05:00:00", "2013-01-09T05:00:00.5"])
def test_a_time_without_a_zone_is_called_that_however_it_is_written(at: str) -> None:
    assert validate_frame(rows(GOOD, (at, "EWR", None, None)), SOURCE, DAY).counts == {"at|zone": 1}
    with pytest.raises(NaiveTimeError):
        validate_frame(rows((at, "EWR", None, None)), SOURCE, DAY)


# Checks that fail on values: the row is rejected for what it is, and no panic of Polars comes through


def new_york(time: pl.Expr) -> pl.Expr:
    return time.dt.convert_time_zone("America/New_York").dt.replace_time_zone(None)


class Delayed(Readings):
    count = dy.Int64(max=1440, nullable=True)

    @dy.rule()
    def leaves_within_the_day(cls) -> pl.Expr:
        return new_york(cls.at.col + pl.duration(minutes=cls.count.col)).dt.year() == 2013


MILLIONS_OF_YEARS = "10000000000000"


def test_a_value_that_its_own_check_rejects_makes_no_other_check_panic() -> None:
    delayed = replace(SOURCE, contract=Delayed)

    result = validate_frame(rows(GOOD, ("2013-01-09T06:00:00Z", "EWR", MILLIONS_OF_YEARS, None)), delayed, DAY)

    assert result.counts == {"count|max": 1}
    assert result.rejected["count"].to_list() == [MILLIONS_OF_YEARS]
    assert result.accepted["count"].to_list() == [1]


def test_partitions_together_and_alone_agree_where_one_of_them_makes_a_check_panic() -> None:
    delayed = replace(SOURCE, contract=Delayed, batch_size=8)
    frames = {
        "2013-01-09": rows(GOOD, ("2013-01-09T06:00:00Z", "EWR", MILLIONS_OF_YEARS, None)),
        "2013-01-10": rows(("2013-01-10T06:00:00Z", "EWR", "9999999", None)),
    }

    together = validate_frames(frames, delayed)

    for day, frame in frames.items():
        assert together[day].rejected.equals(validate_frame(frame, delayed, day).rejected)
    assert together["2013-01-10"].counts == {"count|max": 1, "leaves_within_the_day": 1}


class PlaceAsNumber(Readings):
    @dy.rule()
    def place_is_a_number(cls) -> pl.Expr:
        return (cls.place.col + "0").cast(pl.Int64) >= cls.count.col


def from_epoch(count: pl.Expr) -> pl.Expr:
    return new_york((count * 10**12).cast(UTC_MICROSECONDS)).dt.year() > 2000


@pytest.mark.parametrize(
    ("contract", "check"),
    [
        (PlaceAsNumber, "place_is_a_number"),
        (type("Epoch", (Readings,), {"count": dy.Int64(check=from_epoch)}), "count|check__from_epoch"),
    ],
)
def test_a_check_that_fails_on_good_values_is_named_and_is_a_fault_of_the_contract(
    contract: type[dy.Schema], check: str
) -> None:
    frame = rows(("2013-01-09T06:00:00Z", "EWR", "9000000", None))

    with pytest.raises(InvalidContractError, match=rf"readings 2013-01-09: the check '{re.escape(check)}' cannot be"):
        validate_frame(frame, replace(SOURCE, contract=contract), DAY)
