"""Point-in-time promises: each request row gets what was known at its time, exactly, and keeps its place.

The small tables are real files, read through Feast's own `get_historical_features`; nested loops decide who is right.
"""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import feature_workspace
import numpy as np
import pit_oracle
import polars as pl
import pytest
from applied import applied, store, table_store
from feast import FeatureStore, FeatureView
from feature_workspace import (
    AIRCRAFT,
    DATASET,
    HOUR,
    LARGE_INT,
    NOON,
    ROUTES,
    WEATHER,
    open_workspace_store,
    retrieval_job,
    weather_requests,
    write_table,
)
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from headrace.dataset import UTC_MICROSECONDS, FeatureTable
from headrace.feast.definitions import SlotState, feature_view
from headrace.feast.offline_store import lookup
from headrace.feast.open import close_store, open_store
from headrace.retrieve import join
from headrace.retrieve.asof import Moments, newest
from headrace.retrieve.requests import Requests
from headrace.storage.table_store import TableStore

HOUR_NS = 3_600_000_000_000


__all__ = ["applied", "store", "table_store"]


moments = st.integers(-12 * 60, 12 * 60).map(lambda minutes: NOON + timedelta(minutes=30 * (minutes // 30)))
table_rows = st.lists(
    st.fixed_dictionaries(
        {
            "origin": st.sampled_from(["EWR", "JFK", "LGA", None]),
            "event_time": moments,
            "late": st.sampled_from([timedelta(0), timedelta(microseconds=1), HOUR, 3 * HOUR, -HOUR]),
        }
    ),
    max_size=24,
)
requests = st.lists(
    st.tuples(
        st.sampled_from(["EWR", "JFK", "XXX", None]),
        moments,
        st.sampled_from([0, 1, -1, 999, 1_000, -1_000, 6 * HOUR_NS, 6 * HOUR_NS + 1]),
    ),
    max_size=12,
)


@pytest.fixture(scope="module")
def shared(applied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TableStore, FeatureStore]]:
    table_store = TableStore.at(shutil.copytree(applied, tmp_path_factory.mktemp("shared") / "workspace"))
    store = open_store(table_store.root / "feature_repo", feature_workspace.settings(table_store.root))
    yield table_store, store
    close_store(store)


@given(rows=table_rows, wanted=requests)
@examples(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_request_gets_the_row_that_nested_loops_find(
    shared: tuple[TableStore, FeatureStore], rows: list[dict[str, Any]], wanted: list[tuple[str | None, datetime, int]]
) -> None:
    table_store, store = shared
    table = [
        {**row, "known_time": row["event_time"] + row["late"], "temp_c": float(number), "gusts": number}
        for number, row in enumerate(rows)
    ]
    write_table(table_store, WEATHER, [{name: row[name] for name in row if name != "late"} for row in table])
    asked = [(origin, nanoseconds(time) + shift) for origin, time, shift in wanted]
    stamps = pl.Series([at for _, at in asked], dtype=pl.Int64).cast(pl.Datetime("ns", "UTC"))
    frame = pl.DataFrame({"origin": [origin for origin, _ in asked]}, schema={"origin": pl.String()})

    answers = retrieval_job(store, frame.with_columns(event_timestamp=stamps), "origin_weather__a:temp_c").to_polars()

    # Of rows that share key, event time and known time, the file's own order decides: the greatest value is its last.
    plain = [
        {**row, "event_time": nanoseconds(row["event_time"]), "known_time": nanoseconds(row["known_time"])}
        for row in table
    ]
    for (origin, at), got in zip(asked, answers["temp_c"], strict=True):
        best = pit_oracle.expected_row({"origin": origin, "at": at}, plain, ["origin"], 6 * HOUR_NS)
        assert got == (None if best is None else best["temp_c"])


def nanoseconds(time: datetime) -> int:
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1_000


ends = st.sampled_from(["EWR", "JFK", "XXX", None])
routes = st.lists(
    st.tuples(
        st.sampled_from([1, LARGE_INT, None]), st.sampled_from(["EWR", "JFK"]), moments, st.sampled_from([0, 1, 5])
    ),
    max_size=16,
)


@pytest.mark.slow_lane
@pytest.mark.slow
@given(
    rows=table_rows,
    several=routes,
    wanted=st.lists(st.tuples(ends, ends, st.sampled_from([1, LARGE_INT, 7, None]), moments), max_size=9),
    memory=st.sampled_from([1, 3_000, 4 << 30]),
    group=st.sampled_from([1, 2, 100]),
    few=st.sampled_from([0, join.FEW]),
    as_known=st.booleans(),
)
@examples(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_several_keys_and_one_view_under_two_names_are_exact_within_any_memory(  # noqa: PLR0913, PLR0917
    shared: tuple[TableStore, FeatureStore],
    rows: list[dict[str, Any]],
    several: list[tuple[int | None, str, datetime, int]],
    wanted: list[tuple[str | None, str | None, int | None, datetime]],
    memory: int,
    group: int,
    few: int,
    *,
    as_known: bool,
) -> None:
    table_store, _ = shared
    table = [
        {**row, "known_time": row["event_time"] + row["late"], "temp_c": float(number)}
        for number, row in enumerate(rows)
    ]
    other = [
        {"carrier_id": key, "origin": end, "event_time": at, "known_time": at + late * HOUR, "temp_c": float(number)}
        for number, (key, end, at, late) in enumerate(several)
    ]
    write_table(table_store, WEATHER, [{name: row[name] for name in row if name != "late"} for row in table])
    write_table(table_store, ROUTES, other)
    schema = {"from": pl.String(), "to": pl.String(), "carrier_id": pl.Int64(), "event_timestamp": UTC_MICROSECONDS}
    frame = pl.DataFrame(wanted, schema=schema, orient="row")
    lookups = [
        lookup(seen_from("here", WEATHER, {"origin": "from"}), {"temp_c": "here"}),
        lookup(seen_from("there", WEATHER, {"origin": "to"}), {"temp_c": "there"}),
        lookup(seen_from("route", ROUTES, {"origin": "from"}), {"temp_c": "route"}),
    ]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(join, "ROW_GROUP", group)
        patched.setattr(join, "FEW", few)
        asked = Requests.read(frame)
        answer = pl.concat(join.Join(table_store, asked, lookups, as_known, memory=memory).checked().frames())

    assert answer.select(frame.columns).equals(frame)
    for (start, end, carrier, time), got in zip(wanted, answer.select("here", "there", "route").rows(), strict=True):
        best = [
            pit_oracle.expected_row({"origin": key, "at": time}, table, ["origin"], 6 * HOUR, as_known=as_known)  # type: ignore[arg-type]
            for key in (start, end)
        ]
        keys = {"carrier_id": carrier, "origin": start, "at": time}
        best.append(pit_oracle.expected_row(keys, other, ["carrier_id", "origin"], None, as_known=as_known))
        assert got == tuple(None if row is None else row["temp_c"] for row in best)


def seen_from(name: str, table: FeatureTable, keys: dict[str, str]) -> FeatureView:
    physical: FeatureView = feature_view(DATASET, table, SlotState("a"))
    renamed: FeatureView = physical.with_name(name).with_join_key_map(keys)
    return renamed


half_days = st.integers(0, 12)


@pytest.mark.slow
@given(
    rows=st.lists(st.tuples(st.integers(1, 2), half_days, st.sampled_from([0, 0, 1, 3, 9])), min_size=1, max_size=24),
    wanted=st.lists(st.tuples(st.integers(1, 3), half_days), min_size=1, max_size=12),
    ttl=st.sampled_from([None, timedelta(0), timedelta(days=2)]),
    memory=st.sampled_from([1, 1_000, 4 << 30]),
    as_known=st.booleans(),
)
@examples(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_few_requests_that_read_the_newest_days_first_get_what_nested_loops_find(  # noqa: PLR0913
    shared: tuple[TableStore, FeatureStore],
    rows: list[tuple[int, int, int]],
    wanted: list[tuple[int, int]],
    ttl: timedelta | None,
    memory: int,
    *,
    as_known: bool,
) -> None:
    table_store, _ = shared
    at = [NOON + half * 12 * HOUR for half in range(22)]
    table = [
        {"carrier_id": key, "origin": "EWR", "event_time": at[half], "known_time": at[half + late], "temp_c": float(n)}
        for n, (key, half, late) in enumerate(rows)
    ]
    write_table(table_store, ROUTES, table)
    asked = [{"carrier_id": key, "origin": "EWR", "event_timestamp": at[half]} for key, half in wanted]
    found = lookup(feature_view(DATASET, ROUTES, SlotState("a")), {"temp_c": "temp_c"})
    found = replace(found, ttl=None if ttl is None else ttl // timedelta(microseconds=1))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(join, "FEW", 0)
        joined = join.Join(table_store, Requests.read(pl.DataFrame(asked)), [found], as_known, memory=memory).checked()
        answer = pl.concat(joined.frames())

    for request, got in zip(asked, answer["temp_c"], strict=True):
        keys = {**request, "at": request["event_timestamp"]}
        best = pit_oracle.expected_row(keys, table, ["carrier_id", "origin"], ttl, as_known=as_known)  # type: ignore[arg-type]
        assert got == (None if best is None else best["temp_c"])


@pytest.mark.slow
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([0, 1, 2, 2**40, 2**62]), st.integers(0, 3)), max_size=30
    ),
    wanted=st.lists(st.tuples(st.integers(0, 2), st.sampled_from([-1, 0, 1, 3, 2**40, 2**62, 2**62 + 5])), max_size=30),
    ttl=st.sampled_from([None, 0, 1, 2**40]),
    as_known=st.booleans(),
)
@examples(max_examples=100, deadline=None)
def test_the_search_is_exact_for_any_span_of_time_and_ttl(
    rows: list[tuple[int, int, int]], wanted: list[tuple[int, int]], ttl: int | None, *, as_known: bool
) -> None:
    table = [
        {"k": key, "event_time": time, "known_time": time + late, "n": n} for n, (key, time, late) in enumerate(rows)
    ]
    schema = {"k": pl.Int64, "event_time": pl.Int64, "known_time": pl.Int64}
    frame = pl.DataFrame([{name: row[name] for name in schema} for row in table], schema=schema)
    times = np.array([at for _, at in wanted], np.int64)
    asked = pl.DataFrame({"k": [key for key, _ in wanted]}, schema={"k": pl.Int64})

    found = newest(frame, asked, Moments(times, times), {"k": "k"}, ttl, as_known=as_known)

    for (key, at), got in zip(wanted, found, strict=True):
        best = pit_oracle.expected_row({"k": key, "at": at}, table, ["k"], ttl, as_known=as_known)
        assert got == (None if best is None else best["n"])


@pytest.mark.parametrize("last", [1, 1 << 40])
def test_a_null_is_no_key_and_above_all_not_key_0(last: int) -> None:
    """Whole numbers that lie close together are their own codes; with `last` far away they are not."""
    rows = pl.DataFrame({"k": [0, None, last], "event_time": [1, 2, 1], "known_time": [1, 2, 1]})
    requests = pl.DataFrame({"k": [None, 0, last, last - 1]})
    times = np.full(4, 3)

    found = newest(rows, requests, Moments(times, times), {"k": "k"})

    assert found.to_list() == [None, 0, 2, 0 if last == 1 else None]


def test_a_row_without_an_event_time_or_a_known_time_is_never_found() -> None:
    rows = pl.DataFrame(
        {"k": [1, 1, 1, 2, 3], "event_time": [5, None, 7, None, 4], "known_time": [5, 6, None, 3, None]}
    )
    requests = pl.DataFrame({"k": [1, 2, 3]})
    times = np.full(3, 9)

    for as_known in (True, False):
        found = newest(rows, requests, Moments(times, times), {"k": "k"}, as_known=as_known)
        assert found.to_list() == [0, None, None]


def test_of_rows_with_equal_times_the_last_in_the_table_is_found_whatever_order_the_keys_have() -> None:
    rows = pl.DataFrame({"k": [2, 1, 2, 1, 2], "event_time": [4, 4, 4, 4, 3], "known_time": [4, 5, 4, 4, 9]})
    times = np.full(2, 9)

    found = newest(rows, pl.DataFrame({"k": [1, 2]}), Moments(times, times), {"k": "k"})

    assert found.to_list() == [1, 2], "the newest known of equal events, then the last of equal ones"


def test_times_of_every_unit_are_taken_down_and_up_to_whole_microseconds() -> None:
    def moments_of(ticks: list[int], unit: Any) -> tuple[list[int], list[int], bool]:  # noqa: ANN401
        taken = Moments.from_series(pl.Series(ticks, dtype=pl.Int64).cast(pl.Datetime(unit, "UTC")))
        return taken.floor.tolist(), taken.ceiling.tolist(), taken.is_whole

    assert moments_of([-1, 0, 2], "ms") == ([-1000, 0, 2000], [-1000, 0, 2000], True)
    assert moments_of([-1, 0, 2], "us") == ([-1, 0, 2], [-1, 0, 2], True)
    assert moments_of([-1, 0, 1000, 1001], "ns") == ([-1, 0, 1, 1], [0, 0, 1, 2], False)


@pytest.mark.parametrize("keys", [1 << 16, (1 << 16) + 1, 200_000])
def test_any_number_of_keys_is_told_apart(keys: int) -> None:
    draw = np.random.default_rng(keys)
    rows, wanted = draw.permutation(np.repeat(np.arange(keys), 2)), draw.permutation(np.arange(-1, keys + 1))
    event = draw.permutation(rows.size)
    table = pl.DataFrame({"k": rows, "event_time": event, "known_time": event})
    last = pl.DataFrame({"k": wanted}).join(
        table.with_row_index("n").sort("event_time").group_by("k").last(), "k", how="left", maintain_order="left"
    )
    times = np.full(wanted.size, rows.size)

    found = newest(table, pl.DataFrame({"k": wanted}), Moments(times, times), {"k": "k"})

    assert found.to_list() == last["n"].to_list()


def test_repeated_rows_unknown_keys_null_keys_and_rows_too_early_or_too_late_all_keep_their_place(
    store: FeatureStore,
) -> None:
    origins = ["EWR", "EWR", None, "XXX", "LGA", "EWR", "JFK"]
    times = [NOON, NOON, NOON, NOON, NOON, NOON - timedelta(days=30), NOON]

    answers = retrieval_job(store, weather_requests(origins, times), "origin_weather__a:temp_c").to_polars()

    assert answers["origin"].to_list() == origins
    assert answers["event_timestamp"].to_list() == times
    assert answers["temp_c"].to_list() == [2.5, 2.5, None, None, None, None, 0.1 + 0.2]


def test_few_requests_that_find_nothing_in_a_large_table_get_nulls(
    table_store: TableStore, store: FeatureStore
) -> None:
    expired = [NOON - 10 * HOUR + timedelta(seconds=number) for number in range(60)]
    write_table(table_store, WEATHER, [{"origin": "EWR", "event_time": time, "temp_c": 1.0} for time in expired])

    answers = retrieval_job(store, weather_requests(["EWR"], [NOON]), "origin_weather__a:temp_c").to_polars()

    assert answers["temp_c"].to_list() == [None]


def test_a_value_is_served_up_to_its_ttl_and_not_a_nanosecond_longer(store: FeatureStore) -> None:
    event, ttl = nanoseconds(NOON - 2 * HOUR), 6 * HOUR_NS
    stamps = pl.Series([event - 1, event, event + ttl, event + ttl + 1]).cast(pl.Datetime("ns", "UTC"))
    frame = pl.DataFrame({"origin": ["JFK"] * 4, "event_timestamp": stamps})

    answers = retrieval_job(store, frame, "origin_weather__a:frozen").to_polars()

    assert answers["frozen"].to_list() == [None, True, True, None]
    assert answers["event_timestamp"].equals(stamps.alias("event_timestamp"))


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_times_of_any_unit_and_zone_are_the_same_moments(store: FeatureStore, unit: Any) -> None:  # noqa: ANN401
    frame = weather_requests(["EWR"], [NOON]).with_columns(
        pl.col("event_timestamp").cast(pl.Datetime(unit, "UTC")).dt.convert_time_zone("America/New_York")
    )

    assert retrieval_job(store, frame, "origin_weather__a:sky").to_polars()["sky"].to_list() == ["clear"]


def test_a_correction_is_hidden_until_it_was_known(table_store: TableStore, store: FeatureStore) -> None:
    corrected = {"tailnum": "N2", "event_time": NOON, "known_time": NOON + 2 * HOUR, "delay_min": 50.0}
    write_table(table_store, AIRCRAFT, [{"tailnum": "N2", "event_time": NOON - HOUR, "delay_min": 5.0}, corrected])
    times = [NOON, NOON + 2 * HOUR - timedelta(microseconds=1), NOON + 2 * HOUR]
    frame = pl.DataFrame({"tailnum": ["N2"] * 3, "event_timestamp": times})

    answers = retrieval_job(store, frame, "aircraft_history__a:delay_min").to_polars()

    assert answers["delay_min"].to_list() == [5.0, 5.0, 50.0]


def test_an_older_event_that_comes_late_does_not_hide_a_newer_one(table_store: TableStore, store: FeatureStore) -> None:
    late = {"tailnum": "N2", "event_time": NOON - 2 * HOUR, "known_time": NOON + HOUR, "delay_min": 50.0}
    write_table(table_store, AIRCRAFT, [late, {"tailnum": "N2", "event_time": NOON - HOUR, "delay_min": 5.0}])
    frame = pl.DataFrame({"tailnum": ["N2"], "event_timestamp": [NOON + 2 * HOUR]})

    assert retrieval_job(store, frame, "aircraft_history__a:delay_min").to_polars()["delay_min"].to_list() == [5.0]


def test_one_switch_shows_what_came_in_later_and_feasts_own_flag_hides_it_again(table_store: TableStore) -> None:
    late = {"tailnum": "N2", "event_time": NOON, "known_time": NOON + HOUR, "delay_min": 50.0}
    write_table(table_store, AIRCRAFT, [late])
    config = table_store.root / "feature_repo" / "feature_store.yaml"
    config.write_text(config.read_text().replace("as_known: true", "as_known: false"))
    store = open_workspace_store(table_store)
    frame = pl.DataFrame({"tailnum": ["N2"], "event_timestamp": [NOON]})

    shown = retrieval_job(store, frame, "aircraft_history__a:delay_min").to_polars()
    hidden = retrieval_job(store, frame, "aircraft_history__a:delay_min", filter_by_created_timestamp=True).to_polars()

    assert shown["delay_min"].to_list() == [50.0]
    assert hidden["delay_min"].to_list() == [None]
