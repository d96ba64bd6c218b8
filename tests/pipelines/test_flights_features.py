"""validated → features, dataset `flights`: each value is what was known at its time, and nothing else.

Every table is computed a second time here, by plain loops over the flights, and must agree to the last bit.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
import real_flights
from flights_oracle import EXPECTED, HOUR, TABLES, changing_register, lookback_flights, noon
from polars.testing import assert_frame_equal
from real_flights import SOURCES, validate_partition

from headrace.dataset import UNPARTITIONED, UTC_MICROSECONDS, FeatureTable
from headrace.transform import kernel
from headrace.validate.validate_partition import validate_frame

HOURLY = ("carrier_delays", "origin_traffic")
DAYS = ("2013-01-10", "2013-02-10", "2013-11-03")
"""The longest delay of the year (21.7 h), the day after the snow, the day the clock goes back."""


def computed(name: str, day: str, **replaced: pl.LazyFrame) -> pl.DataFrame:
    """The rows of a feature table on a real day, tables replaced."""
    return TABLES[name].transform(day=day, **{**read_by(name, day), **replaced}).collect()


def read_by(name: str, day: str, *, more: int = 0) -> dict[str, pl.LazyFrame]:
    """Keyword → rows that a feature table reads for a day; `more` days of lookback than declared."""
    return {
        keyword: real_flights.validated_rows(
            read.table.partition("/")[2], day, real_flights.lookback_days(read) + more if read.lookback else 0
        )
        for keyword, read in TABLES[name].inputs.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("day", DAYS)
@pytest.mark.parametrize("name", TABLES)
def test_every_value_is_what_a_plain_loop_over_the_facts_gives(name: str, day: str) -> None:
    planes = {"planes": changing_register(noon(day)).lazy()} if "planes" in TABLES[name].inputs else {}
    rows = computed(name, day, **planes)

    keys = [*TABLES[name].keys, "event_time"]
    expected = pl.DataFrame(EXPECTED[name](day), infer_schema_length=None).select(
        pl.col(column).cast(rows.schema[column]) for column in rows.columns
    )
    assert_frame_equal(rows.sort(keys), expected.sort(keys), check_exact=True)
    assert rows.height > 50


def test_the_register_of_the_loops_changes_in_the_course_of_the_day() -> None:
    rows = computed("aircraft_history", DAYS[1], planes=changing_register(noon(DAYS[1])).lazy())

    facts = rows.group_by("tailnum").agg(pl.col("seats").n_unique())
    assert facts.filter(pl.col("seats") > 1).height > 50


@pytest.mark.parametrize("name", TABLES)
def test_a_table_holds_its_declared_columns_and_one_row_a_key_and_time_of_its_day(name: str) -> None:
    table, rows = TABLES[name], computed(name, "2013-11-03")

    keys = dict.fromkeys(table.keys, pl.String())
    times = {"event_time": UTC_MICROSECONDS, "known_time": UTC_MICROSECONDS}
    assert dict(rows.schema) == {**keys, **times, **table.features}
    assert rows.select(pl.struct(*table.keys, "event_time").is_unique().all()).item()
    assert set(rows["event_time"].dt.date().cast(pl.String)) == {"2013-11-03"}
    assert rows.select(pl.any_horizontal(pl.col(*table.keys, "known_time").is_null()).any()).item() is False


@pytest.mark.parametrize("name", HOURLY)
def test_the_latest_fact_of_an_hour_was_known_by_then(name: str) -> None:
    rows = computed(name, "2013-02-10")

    assert (rows["known_time"] <= rows["event_time"]).all()


def rewritten_after(frames: Mapping[str, pl.LazyFrame], now: datetime) -> dict[str, pl.LazyFrame]:
    """The same facts up to `now`, and another course of everything that became known later."""
    rewrite = {"flights": rewritten_flights, "weather": rewritten_weather, "planes": rewritten_register}
    return {name: rewrite[name](frame.collect(), now).lazy() for name, frame in frames.items() if name in rewrite}


def rewritten_flights(flights: pl.DataFrame, now: datetime) -> pl.DataFrame:
    unknown = pl.col("departed_at").fill_null(pl.col("scheduled_at") + 24 * HOUR) > now
    later = pl.max_horizontal(pl.lit(now).cast(UTC_MICROSECONDS), "scheduled_at") + pl.duration(minutes=7)
    cancelled_now = unknown & ~pl.col("cancelled") & (pl.col("flight") % 3 == 0)
    cancelled_now &= pl.col("scheduled_at") + 24 * HOUR > now
    departed = pl.when(cancelled_now).then(None).when(unknown).then(later).otherwise("departed_at")
    maybe_landed = unknown | (pl.col("departed_at") + pl.duration(minutes=pl.col("air_time_min")) > now)
    return flights.filter((pl.col("scheduled_at") <= now) | ~unknown | (pl.col("flight") % 5 != 0)).with_columns(
        departed_at=departed,
        dep_delay_min=pl.when(cancelled_now).then(None).when(unknown).then(777).otherwise("dep_delay_min"),
        arr_delay_min=pl.when(maybe_landed).then(None).otherwise("arr_delay_min"),
        cancelled=pl.when(unknown).then(cancelled_now).otherwise("cancelled"),
        tailnum=pl.when(unknown).then(pl.lit("N1LATER")).otherwise("tailnum"),
    )


def rewritten_weather(weather: pl.DataFrame, now: datetime) -> pl.DataFrame:
    unknown = pl.col("updated_at") > now
    return weather.with_columns(
        wind_speed_mph=pl.when(unknown).then(99.0).otherwise("wind_speed_mph"),
        visibility_miles=pl.when(unknown).then(0.0).otherwise("visibility_miles"),
    )


def rewritten_register(planes: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """Entries after `now` are corrected, and each aircraft gets one more."""
    unknown = pl.col("updated_at") > now
    corrected = planes.with_columns(
        pl.when(unknown).then(777).otherwise(name).alias(name) for name in ("seats", "engines")
    )
    more = planes.unique("tailnum").with_columns(
        seats=pl.lit(888, pl.Int64), updated_at=pl.lit(now + timedelta(minutes=1)).cast(UTC_MICROSECONDS)
    )
    return pl.concat([corrected, more])


@pytest.mark.parametrize("hour", [0, 6, 13, 21])
@pytest.mark.parametrize("name", TABLES)
def test_what_becomes_known_later_changes_no_row(name: str, hour: int) -> None:
    now = datetime(2013, 2, 10, hour, tzinfo=UTC)
    frames = read_by(name, "2013-02-10")
    if "planes" in frames:
        frames["planes"] = changing_register(now).lazy()
    other = rewritten_after(frames, now)

    before, after = computed(name, "2013-02-10", **frames), computed(name, "2013-02-10", **other)

    by_now = pl.max_horizontal("event_time", "known_time") <= now
    assert before.filter(by_now).equals(after.filter(by_now))
    assert not before.equals(after)
    for keyword, frame in other.items():
        assert not computed(name, "2013-02-10", **{**frames, keyword: frame}).equals(before), keyword


def test_a_correction_of_the_register_a_year_later_is_in_no_row_of_before() -> None:
    planes = validate_partition("planes", UNPARTITIONED).accepted
    corrected = planes.with_columns(
        seats=pl.lit(999, pl.Int64), updated_at=pl.lit(datetime(2014, 6, 1, tzinfo=UTC)).cast(UTC_MICROSECONDS)
    )

    rows = computed("aircraft_history", "2013-01-10", planes=corrected.lazy())

    assert (rows["known_time"] < datetime(2013, 1, 11, tzinfo=UTC)).all()
    assert rows["seats"].null_count() == rows.height > 100


@pytest.mark.parametrize("name", TABLES)
def test_reading_more_days_than_declared_changes_nothing(name: str) -> None:
    assert computed(name, "2013-02-10", **read_by(name, "2013-02-10", more=3)).equals(computed(name, "2013-02-10"))


@pytest.mark.parametrize("name", [*HOURLY, "aircraft_history"])
def test_the_next_days_flights_change_nothing(name: str) -> None:
    with_next = pl.concat([lookback_flights(name, "2013-02-10"), validate_partition("flights", "2013-02-11").accepted])

    assert computed(name, "2013-02-10", flights=with_next.lazy()).equals(computed(name, "2013-02-10"))


def latest_flight(day: str) -> pl.LazyFrame:
    """The flight that becomes known as late as the contract allows for a day's object."""
    local = {"year": day[:4], "month": str(int(day[5:7])), "day": str(int(day[8:]))}
    flight = real_flights.flights()[day].head(1).with_columns(
        **{name: pl.lit(value) for name, value in local.items()},
        hour=pl.lit("23"), minute=pl.lit("59"), sched_dep_time=pl.lit("2359"), dep_time=pl.lit("2358"),
        dep_delay=pl.lit("1439"), arr_time=pl.lit("2330"), air_time=pl.lit("1100"), dest=pl.lit("SJU"),
        time_hour=pl.lit(f"{datetime.fromisoformat(day) + timedelta(hours=28):%Y-%m-%dT%H:%M:%SZ}"),
    )  # fmt: skip
    result = validate_frame(flight, SOURCES["flights"], day)
    assert result.counts == {}
    return result.accepted.lazy()


@pytest.mark.parametrize("name", [*HOURLY, "aircraft_history"])
def test_the_lookback_is_as_long_as_the_latest_fact_needs_and_no_longer(name: str) -> None:
    day = "2013-02-10"
    lookback = real_flights.lookback_days(TABLES[name].inputs["flights"])
    days = real_flights.days_before(day, lookback + 1)

    first_unread, first_read = (computed(name, day, flights=_asked(name, day, days[i])) for i in (0, 1))
    nothing = computed(name, day, flights=_asked(name, day, None))

    assert first_unread.equals(nothing)
    assert not first_read.equals(nothing)


def _asked(name: str, day: str, extreme: str | None) -> pl.LazyFrame:
    """A day's own flights and one extreme flight of an earlier day, all of one carrier, airport and aircraft."""
    own = lookback_flights(name, day).filter(pl.col("scheduled_at") > datetime.fromisoformat(day).replace(tzinfo=UTC))
    frames = [own.lazy(), *([latest_flight(extreme)] if extreme else [])]
    return pl.concat(frames).with_columns(carrier=pl.lit("UA"), origin=pl.lit("EWR"), tailnum=pl.lit("N14228"))


@pytest.mark.parametrize("name", TABLES)
def test_days_computed_together_are_the_days_computed_one_by_one(name: str) -> None:
    table, days = TABLES[name], ["2013-03-08", "2013-03-09", "2013-03-10", "2013-03-11"]

    together = table.transform(day=days[0], end_day=days[-1], **read_by(name, days[-1], more=3)).collect()

    assert table.batch_size > 1
    for day, rows in kernel.split_partitions(together, days).items():
        assert rows.equals(computed(name, day)), day


@pytest.mark.parametrize("name", TABLES)
def test_neither_the_order_of_rows_nor_the_engine_changes_a_bit(name: str) -> None:
    table, day = TABLES[name], "2013-02-10"
    shuffled = {
        keyword: frame.collect().sample(fraction=1, shuffle=True, seed=5).lazy()
        for keyword, frame in read_by(name, day).items()
    }

    rows = computed(name, day)

    assert table.transform(day=day, **shuffled).collect().equals(rows)
    assert table.transform(day=day, **shuffled).collect(engine="streaming").equals(rows)


def test_the_longest_delay_is_not_known_while_the_flight_still_stands() -> None:
    (late,) = lookback_flights("carrier_delays", "2013-01-10").filter(pl.col("dep_delay_min") == 1301).rows(named=True)

    rows = computed("carrier_delays", "2013-01-10").filter(pl.col("carrier") == late["carrier"])

    known = rows.filter(pl.col("dep_delay_mean_24h_min") > 500)["event_time"].min()
    assert known == late["departed_at"].replace(minute=0) + HOUR
    waits = computed("origin_traffic", "2013-01-10").filter(pl.col("origin") == late["origin"])
    assert waits.filter(pl.col("event_time") < late["departed_at"])["waiting"].min() == 1


def test_a_corrected_hour_of_weather_keeps_its_event_time_and_shows_when_it_became_known() -> None:
    corrected_at = datetime(2013, 1, 20, tzinfo=UTC)
    noon = pl.col("time_hour") == datetime(2013, 1, 9, 12, tzinfo=UTC)
    weather = real_flights.validated_rows("weather", "2013-01-09", 1).with_columns(
        updated_at=pl.when(noon).then(pl.lit(corrected_at).cast(UTC_MICROSECONDS)).otherwise("updated_at")
    )

    rows = computed("origin_weather", "2013-01-09", weather=weather)

    late = rows.filter(pl.col("known_time") == corrected_at)["event_time"]
    assert (late.min(), late.max()) == (datetime(2013, 1, 9, 12, tzinfo=UTC), datetime(2013, 1, 9, 23, tzinfo=UTC))


def test_an_aircraft_that_is_not_registered_has_a_history_and_no_facts() -> None:
    rows = computed("aircraft_history", "2013-01-10")

    unknown = rows.join(validate_partition("planes", UNPARTITIONED).accepted, on="tailnum", how="anti")
    assert unknown.height > 100
    assert unknown["seats"].null_count() == unknown.height
    assert unknown["last_dep_delay_min"].null_count() < unknown.height


def test_an_arrival_where_the_clock_is_not_known_counts_only_when_it_must_have_happened() -> None:
    table = TABLES["aircraft_history"]
    flights = lookback_flights("aircraft_history", "2013-01-10").filter(pl.col("dest") == "SJU").head(1)
    (flight,) = flights.rows(named=True)
    latest = flight["departed_at"] + timedelta(minutes=flight["air_time_min"] + 300)

    rows = table.transform(
        day=f"{latest:%Y-%m-%d}",
        flights=flights.lazy(),
        planes=validate_partition("planes", UNPARTITIONED).accepted.lazy(),
        airports=validate_partition("airports", UNPARTITIONED).accepted.lazy(),
    ).collect()

    assert rows.filter(pl.col("last_arr_delay_min").is_not_null())["event_time"].to_list() == [latest]


def test_two_departures_of_an_aircraft_in_one_minute_make_one_row_and_the_longer_is_the_last() -> None:
    one = lookback_flights("aircraft_history", "2013-01-10").filter(~pl.col("cancelled")).head(1)
    day = f"{one['departed_at'].item():%Y-%m-%d}"
    twice = pl.concat([one.with_columns(pl.lit(delay, pl.Int64).alias("dep_delay_min")) for delay in (9, 5)])

    rows = computed("aircraft_history", day, flights=twice.lazy()).filter(pl.col("departed_24h") > 0)

    first = rows.select("departed_24h", "last_dep_delay_min", "dep_delay_mean_24h_min").row(0)
    assert first == (2, 9, 7.0)
    assert rows["event_time"].is_unique().all()


def test_the_feature_tables_read_only_the_datasets_own_sources() -> None:
    tables: set[FeatureTable | str] = {read.table for table in TABLES.values() for read in table.inputs.values()}

    assert tables == {f"validated/{name}" for name in SOURCES}
