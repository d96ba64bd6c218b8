"""raw → validated, dataset `flights`: what each contract does with the dirt of the real data."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import real_flights
from accepted_rows import accepted_raw
from real_flights import SOURCES, validate_partition

from headrace.dataset import UNPARTITIONED, ObjectSource
from headrace.project.loading import load_dataset
from headrace.validate.errors import ColumnTypeChangedError, SchemaChangedError
from headrace.validate.unreadable import UnreadableError
from headrace.validate.validate_partition import validate_frame

FALL_BACK = "2013-11-03"
SNOW = "2013-02-09"


def changed(day: str, row: int, **values: str | None) -> pl.DataFrame:
    """One real day with values of one row changed."""
    frame = real_flights.flights()[day].with_row_index()
    at = pl.col("index") == row
    new = [pl.when(at).then(pl.lit(value)).otherwise(name).alias(name) for name, value in values.items()]
    return frame.with_columns(new).drop("index")


def checks_of(day: str, row: int, **values: str | None) -> set[str]:
    """The checks that one real flight fails after the change."""
    rejected = validate_frame(changed(day, row, **values), SOURCES["flights"], day).rejected
    return set(rejected["_failed_checks"].explode(empty_as_null=False))


@pytest.mark.slow
def test_all_flights_of_2013_are_accepted_and_no_key_stands_twice() -> None:
    results = [validate_partition("flights", day) for day in real_flights.flights()]

    assert sum(result.rows_in for result in results) == 336_776
    assert sum((Counter(result.counts) for result in results), Counter()) == {}
    accepted = pl.concat([result.accepted for result in results])
    assert accepted.height == 336_776
    assert accepted.select(pl.struct(SOURCES["flights"].key).is_unique().all()).item()


@pytest.mark.slow
def test_of_all_weather_only_the_hour_of_the_impossible_wind_is_rejected() -> None:
    results = {day: validate_partition("weather", day) for day in real_flights.weather()}

    assert sum(result.rows_in for result in results.values()) == 26_115
    rejected = {day: result for day, result in results.items() if result.rejected.height}
    assert list(rejected) == ["2013-02-12"]
    (row,) = rejected["2013-02-12"].rejected.rows(named=True)
    assert (row["origin"], row["wind_speed"], row["_failed_checks"]) == ("EWR", "1048.36058", ["wind_speed|max"])


@pytest.mark.parametrize("source", load_dataset("flights").sources, ids=lambda source: str(source.name))
def test_the_real_data_stays_within_the_tolerance(source: object) -> None:
    partition = {"flights": SNOW, "weather": "2013-02-12"}
    name = getattr(source, "name", "")
    result = validate_partition(name, partition.get(name, UNPARTITIONED))

    assert result.rejected.height <= SOURCES[name].max_rejected_share * result.rows_in


def test_airports_in_the_wrong_half_of_the_world_are_rejected() -> None:
    rejected = validate_partition("airports", UNPARTITIONED).rejected

    assert rejected.select("faa", "_failed_checks").rows() == [
        ("DVT", ["tzone|check__one_of"]),
        ("EEN", ["lon_suits_tz"]),
        ("MYF", ["tzone|check__one_of"]),
    ]


def test_an_airport_without_a_zone_is_accepted_with_none() -> None:
    zones = dict(validate_partition("airports", UNPARTITIONED).accepted.select("airport", "zone").iter_rows())

    assert zones["YAK"] is None
    assert zones["LAX"] == "America/Los_Angeles"


def test_all_planes_are_accepted_and_what_is_not_known_is_null() -> None:
    result = validate_partition("planes", UNPARTITIONED)

    assert (result.accepted.height, result.rejected.height) == (3322, 0)
    assert result.accepted["built_year"].null_count() == 70


def test_an_object_becomes_typed_flights_with_units_in_the_names(tmp_path: Path) -> None:
    path = tmp_path / "2013-01-01.csv.gz"
    path.write_bytes(real_flights.flights_object("2013-01-01"))

    first = validate_frame(SOURCES["flights"].read(path), SOURCES["flights"], "2013-01-01").accepted.row(0, named=True)

    assert first == {
        "scheduled_at": datetime(2013, 1, 1, 10, 15, tzinfo=UTC),
        "carrier": "UA",
        "flight": 1545,
        "origin": "EWR",
        "dest": "IAH",
        "tailnum": "N14228",
        "departed_at": datetime(2013, 1, 1, 10, 17, tzinfo=UTC),
        "dep_delay_min": 2,
        "arr_delay_min": 11,
        "arrival_clock_min": 510,
        "air_time_min": 227,
        "distance_miles": 1400,
        "cancelled": False,
    }


def test_2400_is_midnight_of_the_day_that_the_delay_says() -> None:
    day = next(day for day, rows in real_flights.flights().items() if "2400" in rows["dep_time"])
    result = validate_partition("flights", day)

    at_midnight = result.accepted.filter(accepted_raw(result)["dep_time"] == "2400")
    local = at_midnight["departed_at"].dt.convert_time_zone("America/New_York")
    assert local.dt.hour().to_list() == [0] * at_midnight.height
    assert (at_midnight["departed_at"] > at_midnight["scheduled_at"]).all()


def test_on_the_day_the_clock_goes_back_local_hours_repeat_and_utc_does_not() -> None:
    raw = real_flights.weather()[FALL_BACK]
    result = validate_partition("weather", FALL_BACK)

    local = ["origin", "year", "month", "day", "hour"]
    assert raw.height - raw.unique(local).height == 3
    assert result.rejected.is_empty()
    assert result.accepted.select(pl.struct("time_hour", "origin").is_unique().all()).item()


@pytest.mark.parametrize(("day", "offset"), [("2013-03-09", 5), ("2013-03-10", 4), ("2013-11-02", 4), (FALL_BACK, 5)])
def test_scheduled_times_follow_the_change_of_the_clock(day: str, offset: int) -> None:
    result = validate_partition("flights", day)

    minutes = pl.col("hour").cast(pl.Int64) * 60 + pl.col("minute").cast(pl.Int64) + offset * 60
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    expected = accepted_raw(result).select(pl.lit(start) + pl.duration(minutes=minutes)).to_series()
    assert (result.accepted["scheduled_at"] == expected).all()


def test_a_cancelled_flight_is_accepted_without_departure_or_tail_number() -> None:
    cancelled = validate_partition("flights", SNOW).accepted.filter("cancelled")

    assert cancelled.height > 300
    assert cancelled["departed_at"].null_count() == cancelled.height
    assert 0 < cancelled["tailnum"].null_count() < cancelled.height


def test_a_flight_that_left_and_never_arrived_as_planned_is_accepted_without_arrival() -> None:
    lost = validate_partition("flights", "2013-01-01").accepted.filter(
        ~pl.col("cancelled") & pl.col("arr_delay_min").is_null()
    )

    assert lost.height == 7
    assert lost["departed_at"].null_count() == 0


def test_aircraft_and_airports_that_nobody_knows_are_no_fault_of_the_flight() -> None:
    flights = validate_partition("flights", "2013-01-01").accepted

    assert flights.join(validate_partition("planes", UNPARTITIONED).accepted, on="tailnum", how="anti").height > 100
    unknown = flights.join(
        validate_partition("airports", UNPARTITIONED).accepted, left_on="dest", right_on="airport", how="anti"
    )
    assert set(unknown["dest"]) <= {"BQN", "PSE", "SJU", "STT"}
    assert unknown.height > 10


@pytest.mark.parametrize(
    ("values", "check"),
    [
        ({"dep_time": "560"}, "dep_time|check__clock_time"),
        ({"dep_time": "518"}, "dep_time_agrees_with_dep_delay"),
        ({"dep_delay": None}, "dep_time_comes_with_dep_delay"),
        ({"dep_delay": "1440"}, "dep_delay|max"),
        ({"dep_time": None, "dep_delay": None}, "arrival_follows_departure"),
        ({"hour": "6"}, "time_hour_agrees_with_local_time"),
        ({"month": "13"}, "month|max"),
        ({"sched_dep_time": "516"}, "sched_dep_time_agrees_with_hour_and_minute"),
        ({"time_hour": "2013-01-01T10:30:00Z"}, "time_hour_agrees_with_local_time"),
        ({"time_hour": "2013-01-01T10:00:00"}, "time_hour|zone"),
        ({"time_hour": "2999-01-01T10:00:00Z"}, "time_hour|before"),
        ({"carrier": "United"}, "carrier|regex"),
        ({"origin": "BOS"}, "origin|check__one_of"),
        ({"flight": None}, "flight|nullability"),
        ({"distance": "NaN"}, "distance|dtype"),
        ({"air_time": "9999"}, "air_time|max"),
    ],
)
def test_a_flight_that_contradicts_itself_is_rejected_by_name(values: dict[str, str | None], check: str) -> None:
    assert check in checks_of("2013-01-01", 0, **values)


def test_a_flight_sent_twice_is_kept_once() -> None:
    day = real_flights.flights()["2013-01-01"]

    result = validate_frame(pl.concat([day, day.head(2)]), SOURCES["flights"], "2013-01-01")

    assert result.counts == {"unique(scheduled_at, carrier, flight, origin)": 2}
    assert result.rejected["_row"].to_list() == [day.height + 1, day.height + 2]


def test_a_wind_that_is_no_number_is_rejected() -> None:
    rows = real_flights.weather()["2013-01-09"]
    wind = [float("nan"), float("inf"), *rows["wind_speed"][2:]]

    result = validate_frame(rows.with_columns(wind_speed=pl.Series(wind)), SOURCES["weather"], "2013-01-09")

    assert result.rejected.height == 2
    assert (result.counts["wind_speed|nan"], result.counts["wind_speed|inf"]) == (1, 1)


def test_a_renamed_column_stops_the_day_with_a_hint() -> None:
    day = real_flights.flights()["2013-01-09"].rename({"dep_delay": "departure_delay"})

    with pytest.raises(
        SchemaChangedError, match=r"flights 2013-01-09: .*Renamed: new departure_delay, missing dep_del"
    ):
        validate_frame(day, SOURCES["flights"], "2013-01-09")


def test_a_column_that_became_text_stops_the_day() -> None:
    day = real_flights.flights()["2013-01-09"].with_columns(flight=pl.col("carrier") + pl.col("flight"))

    with pytest.raises(
        ColumnTypeChangedError, match=r"flights 2013-01-09: the column flight was retyped: expected Int64"
    ):
        validate_frame(day, SOURCES["flights"], "2013-01-09")


@pytest.mark.parametrize("kept", [0, 10, 1000, -1])
def test_an_object_cut_short_stops_the_day_with_its_name_and_the_next_command(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "2013-01-09.csv.gz"
    path.write_bytes(real_flights.flights_object("2013-01-09")[:kept])

    with pytest.raises(UnreadableError, match=r"2013-01-09\.csv\.gz: .*`headrace ingest`"):
        SOURCES["flights"].read(path)


def test_each_source_says_which_objects_are_its_own() -> None:
    origins = [
        source.location for source in load_dataset("flights").sources if isinstance(source.location, ObjectSource)
    ]

    assert [(origin.location, origin.suffix) for origin in origins] == [("flights/", ".csv.gz"), ("airports/", ".csv")]
