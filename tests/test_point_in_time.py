"""Point-in-time promises: each request row gets what was known at its time, exactly, and keeps its place and types.

The small tables are real files, read through Feast's own `get_historical_features`; nested loops decide who is right.
"""

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import feature_lake
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pit_oracle
import polars as pl
import pyarrow as pa
import pytest
from applied import applied, lake, store
from feast import FeatureService, FeatureStore, FeatureView, Field
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64
from feature_lake import (
    AIRCRAFT,
    DATASET,
    HOUR,
    LARGE,
    NOON,
    ROUTES,
    WEATHER,
    all_keys,
    ask,
    fill,
    opened,
    weather,
)
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from pipelines.dataset import UTC_MICROSECONDS, FeatureTable
from pipelines.engine.lake import Lake
from pipelines.systems.feature_store import join
from pipelines.systems.feature_store.definitions import Holding, view
from pipelines.systems.feature_store.errors import RequestRefusedError, UnsupportedTypeError
from pipelines.systems.feature_store.job import Retrieval
from pipelines.systems.feature_store.offline import lookup
from pipelines.systems.feature_store.requests import Requests
from pipelines.systems.feature_store.search import Moments, newest
from pipelines.systems.feature_store.store import close_store, open_store

HOUR_NS = 3_600_000_000_000


__all__ = ["applied", "lake", "store"]


# --- exact ---

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
def shared(applied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lake, FeatureStore]]:
    lake = Lake.at(shutil.copytree(applied, tmp_path_factory.mktemp("shared") / "workspace"))
    store = open_store(lake.root / "feature_repo", feature_lake.settings(lake.root))
    yield lake, store
    close_store(store)


@given(rows=table_rows, wanted=requests)
@examples(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_request_gets_the_row_that_nested_loops_find(
    shared: tuple[Lake, FeatureStore], rows: list[dict[str, Any]], wanted: list[tuple[str | None, datetime, int]]
) -> None:
    lake, store = shared
    table = [
        {**row, "known_time": row["event_time"] + row["late"], "temp_c": float(number), "gusts": number}
        for number, row in enumerate(rows)
    ]
    fill(lake, WEATHER, [{name: row[name] for name in row if name != "late"} for row in table])
    asked = [(origin, nanoseconds(time) + shift) for origin, time, shift in wanted]
    stamps = pl.Series([at for _, at in asked], dtype=pl.Int64).cast(pl.Datetime("ns", "UTC"))
    frame = pl.DataFrame({"origin": [origin for origin, _ in asked]}, schema={"origin": pl.String()})

    answers = ask(store, frame.with_columns(event_timestamp=stamps), "origin_weather__a:temp_c").to_polars()

    # Of rows that share key, event time and known time, the file's own order decides: the greatest value is its last.
    plain = [
        {**row, "event_time": nanoseconds(row["event_time"]), "known_time": nanoseconds(row["known_time"])}
        for row in table
    ]
    for (origin, at), got in zip(asked, answers["temp_c"], strict=True):
        best = pit_oracle.answer({"origin": origin, "at": at}, plain, ["origin"], 6 * HOUR_NS)
        assert got == (None if best is None else best["temp_c"])


def nanoseconds(time: datetime) -> int:
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1_000


ends = st.sampled_from(["EWR", "JFK", "XXX", None])
routes = st.lists(
    st.tuples(st.sampled_from([1, LARGE, None]), st.sampled_from(["EWR", "JFK"]), moments, st.sampled_from([0, 1, 5])),
    max_size=16,
)


@given(
    rows=table_rows,
    several=routes,
    wanted=st.lists(st.tuples(ends, ends, st.sampled_from([1, LARGE, 7, None]), moments), max_size=9),
    memory=st.sampled_from([1, 3_000, 4 << 30]),
    group=st.sampled_from([1, 2, 100]),
    as_known=st.booleans(),
)
@examples(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_several_keys_and_one_view_under_two_names_are_exact_within_any_memory(  # noqa: PLR0913, PLR0917
    shared: tuple[Lake, FeatureStore],
    rows: list[dict[str, Any]],
    several: list[tuple[int | None, str, datetime, int]],
    wanted: list[tuple[str | None, str | None, int | None, datetime]],
    memory: int,
    group: int,
    *,
    as_known: bool,
) -> None:
    lake, _ = shared
    table = [
        {**row, "known_time": row["event_time"] + row["late"], "temp_c": float(number)}
        for number, row in enumerate(rows)
    ]
    other = [
        {"carrier_id": key, "origin": end, "event_time": at, "known_time": at + late * HOUR, "temp_c": float(number)}
        for number, (key, end, at, late) in enumerate(several)
    ]
    fill(lake, WEATHER, [{name: row[name] for name in row if name != "late"} for row in table])
    fill(lake, ROUTES, other)
    schema = {"from": pl.String(), "to": pl.String(), "carrier_id": pl.Int64(), "event_timestamp": UTC_MICROSECONDS}
    frame = pl.DataFrame(wanted, schema=schema, orient="row")
    lookups = [
        lookup(seen_from("here", WEATHER, {"origin": "from"}), {"temp_c": "here"}),
        lookup(seen_from("there", WEATHER, {"origin": "to"}), {"temp_c": "there"}),
        lookup(seen_from("route", ROUTES, {"origin": "from"}), {"temp_c": "route"}),
    ]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(join, "ROW_GROUP", group)
        asked = Requests.of(frame)
        answer = pl.concat(join.Join(lake, asked, lookups, as_known, memory=memory).checked().frames())

    assert answer.select(frame.columns).equals(frame)
    for (start, end, carrier, time), got in zip(wanted, answer.select("here", "there", "route").rows(), strict=True):
        best = [
            pit_oracle.answer({"origin": key, "at": time}, table, ["origin"], 6 * HOUR, as_known=as_known)  # type: ignore[arg-type]
            for key in (start, end)
        ]
        keys = {"carrier_id": carrier, "origin": start, "at": time}
        best.append(pit_oracle.answer(keys, other, ["carrier_id", "origin"], None, as_known=as_known))
        assert got == tuple(None if row is None else row["temp_c"] for row in best)


def seen_from(name: str, table: FeatureTable, keys: dict[str, str]) -> FeatureView:
    physical: FeatureView = view(DATASET, table, Holding("a"))
    renamed: FeatureView = physical.with_name(name).with_join_key_map(keys)
    return renamed


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([0, 1, 2, 2**40, 2**62]), st.integers(0, 3)), max_size=30
    ),
    wanted=st.lists(st.tuples(st.integers(0, 2), st.sampled_from([-1, 0, 1, 3, 2**40, 2**62, 2**62 + 5])), max_size=30),
    ttl=st.sampled_from([None, 0, 1, 2**40]),
    as_known=st.booleans(),
)
@examples(max_examples=300, deadline=None)
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
        best = pit_oracle.answer({"k": key, "at": at}, table, ["k"], ttl, as_known=as_known)
        assert got == (None if best is None else best["n"])


def test_repeated_rows_unknown_keys_null_keys_and_rows_too_early_or_too_late_all_keep_their_place(
    store: FeatureStore,
) -> None:
    origins = ["EWR", "EWR", None, "XXX", "LGA", "EWR", "JFK"]
    times = [NOON, NOON, NOON, NOON, NOON, NOON - timedelta(days=30), NOON]

    answers = ask(store, weather(origins, times), "origin_weather__a:temp_c").to_polars()

    assert answers["origin"].to_list() == origins
    assert answers["event_timestamp"].to_list() == times
    assert answers["temp_c"].to_list() == [2.5, 2.5, None, None, None, None, 0.1 + 0.2]


def test_a_value_is_served_up_to_its_ttl_and_not_a_nanosecond_longer(store: FeatureStore) -> None:
    event, ttl = nanoseconds(NOON - 2 * HOUR), 6 * HOUR_NS
    stamps = pl.Series([event - 1, event, event + ttl, event + ttl + 1]).cast(pl.Datetime("ns", "UTC"))
    frame = pl.DataFrame({"origin": ["JFK"] * 4, "event_timestamp": stamps})

    answers = ask(store, frame, "origin_weather__a:frozen").to_polars()

    assert answers["frozen"].to_list() == [None, True, True, None]
    assert answers["event_timestamp"].equals(stamps.alias("event_timestamp"))


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_times_of_any_unit_and_zone_are_the_same_moments(store: FeatureStore, unit: Any) -> None:  # noqa: ANN401
    frame = weather(["EWR"], [NOON]).with_columns(
        pl.col("event_timestamp").cast(pl.Datetime(unit, "UTC")).dt.convert_time_zone("America/New_York")
    )

    assert ask(store, frame, "origin_weather__a:sky").to_polars()["sky"].to_list() == ["clear"]


def test_a_correction_is_hidden_until_it_was_known(lake: Lake, store: FeatureStore) -> None:
    corrected = {"tailnum": "N2", "event_time": NOON, "known_time": NOON + 2 * HOUR, "delay_min": 50.0}
    fill(lake, AIRCRAFT, [{"tailnum": "N2", "event_time": NOON - HOUR, "delay_min": 5.0}, corrected])
    times = [NOON, NOON + 2 * HOUR - timedelta(microseconds=1), NOON + 2 * HOUR]
    frame = pl.DataFrame({"tailnum": ["N2"] * 3, "event_timestamp": times})

    answers = ask(store, frame, "aircraft_history__a:delay_min").to_polars()

    assert answers["delay_min"].to_list() == [5.0, 5.0, 50.0]


def test_an_older_event_that_comes_late_does_not_hide_a_newer_one(lake: Lake, store: FeatureStore) -> None:
    late = {"tailnum": "N2", "event_time": NOON - 2 * HOUR, "known_time": NOON + HOUR, "delay_min": 50.0}
    fill(lake, AIRCRAFT, [late, {"tailnum": "N2", "event_time": NOON - HOUR, "delay_min": 5.0}])
    frame = pl.DataFrame({"tailnum": ["N2"], "event_timestamp": [NOON + 2 * HOUR]})

    assert ask(store, frame, "aircraft_history__a:delay_min").to_polars()["delay_min"].to_list() == [5.0]


def test_one_switch_shows_what_came_in_later_and_feasts_own_flag_hides_it_again(lake: Lake) -> None:
    late = {"tailnum": "N2", "event_time": NOON, "known_time": NOON + HOUR, "delay_min": 50.0}
    fill(lake, AIRCRAFT, [late])
    config = lake.root / "feature_repo" / "feature_store.yaml"
    config.write_text(config.read_text().replace("as_known: true", "as_known: false"))
    store = opened(lake)
    frame = pl.DataFrame({"tailnum": ["N2"], "event_timestamp": [NOON]})

    shown = ask(store, frame, "aircraft_history__a:delay_min").to_polars()
    hidden = ask(store, frame, "aircraft_history__a:delay_min", filter_by_created_timestamp=True).to_polars()

    assert shown["delay_min"].to_list() == [50.0]
    assert hidden["delay_min"].to_list() == [None]


# --- types and names ---


def test_whole_numbers_beside_nulls_are_exact_in_polars_arrow_and_pandas(store: FeatureStore) -> None:
    names = [f"origin_weather__a:{name}" for name in WEATHER.features]
    job = ask(store, weather(["EWR", "XXX", "JFK"], [NOON - HOUR, NOON, NOON]), *names)

    rows, frame = job.to_polars(), job.to_df()

    assert {name: rows.schema[name] for name in WEATHER.features} == dict(WEATHER.features)
    assert rows["gusts"].to_list() == [LARGE, None, LARGE]
    assert job.to_arrow()["gusts"].to_pylist() == [LARGE, None, LARGE]
    assert frame["gusts"].tolist() == [LARGE, pd.NA, LARGE]
    assert str(frame["frozen"].dtype) == "boolean"


def test_a_pandas_request_comes_back_as_it_was_with_the_features_beside_it(store: FeatureStore) -> None:
    given = pd.DataFrame(
        {
            "carrier_id": pd.array([LARGE, None], dtype="Int64"),
            "origin": ["EWR", "EWR"],
            "event_timestamp": pd.to_datetime([NOON, NOON]),
            "late": [True, False],
        },
        index=[7, 7],
    )

    answer = ask(store, given, "route_traffic__a:temp_c").to_df()

    pd.testing.assert_frame_equal(answer[given.columns], given.reset_index(drop=True))
    assert answer["temp_c"].tolist()[0] == 7.0
    assert pd.isna(answer["temp_c"].tolist()[1])


def test_views_with_the_same_feature_and_other_keys_are_joined_under_full_names(store: FeatureStore) -> None:
    refs = ["origin_weather__a:temp_c", "route_traffic__a:temp_c", "aircraft_history__a:delay_min"]

    answer = ask(store, all_keys([NOON]), *refs, full_feature_names=True).to_polars()

    assert answer.row(0)[-3:] == (2.5, 7.0, -4.0)
    assert answer.columns[-3:] == [ref.replace(":", "__") for ref in refs]


def test_a_request_column_named_like_a_feature_is_refused(store: FeatureStore) -> None:
    frame = weather(["EWR"], [NOON]).with_columns(temp_c=pl.lit(0.0))

    with pytest.raises(RequestRefusedError, match=r"two columns temp_c.*full_feature_names=True"):
        ask(store, frame, "origin_weather__a:temp_c").to_polars()


def test_one_view_can_be_joined_twice_under_other_keys(store: FeatureStore) -> None:
    physical = view(DATASET, WEATHER, Holding("a"))
    here = physical.with_name("here").with_join_key_map({"origin": "from"})
    there = physical.with_name("there").with_join_key_map({"origin": "to"})
    store.apply([FeatureService(name="both_ends", features=[here[["temp_c"]], there[["temp_c"]]])])
    frame = pl.DataFrame({"from": ["EWR"], "to": ["JFK"], "event_timestamp": [NOON]})

    job = store.get_historical_features(
        frame,
        store.get_feature_service("both_ends"),
        full_feature_names=True,
    )

    assert isinstance(job, Retrieval)
    assert job.to_polars().select("here__temp_c", "there__temp_c").row(0) == (2.5, 0.1 + 0.2)


def test_views_that_feast_computes_on_demand_get_their_inputs(store: FeatureStore) -> None:
    physical: FeatureView = view(DATASET, WEATHER, Holding("a"))

    @on_demand_feature_view(  # type: ignore[untyped-decorator]
        sources=[physical], schema=[Field(name="temp_f", dtype=Float64)], mode="pandas"
    )
    def fahrenheit(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"temp_f": inputs["temp_c"] * 9 / 5 + 32})

    with pytest.warns(RuntimeWarning, match="On demand feature view"):
        store.apply([fahrenheit])
    refs = ["origin_weather__a:temp_c", "fahrenheit:temp_f"]

    assert ask(store, weather(["EWR"], [NOON]), *refs).to_df()["temp_f"].tolist() == [36.5]


def test_arrow_batches_a_file_and_pandas_hold_what_polars_holds(store: FeatureStore, tmp_path: Path) -> None:
    job = ask(store, all_keys([NOON] * 5), "origin_weather__a:gusts", "route_traffic__a:temp_c")
    rows = job.to_polars()

    batches = list(job.to_batches(2))

    assert [batch.num_rows for batch in batches] == [2, 2, 1]
    assert pl.DataFrame(pa.Table.from_batches(batches)).equals(rows)
    assert pl.read_parquet(job.to_parquet(tmp_path / "rows.parquet")).equals(rows)
    assert pl.from_pandas(job.to_df()).cast(rows.schema).equals(rows)


def test_requests_in_a_file_are_answered_without_being_read_whole(store: FeatureStore, tmp_path: Path) -> None:
    given = all_keys([NOON + timedelta(seconds=second) for second in range(50)])
    given.write_parquet(tmp_path / "requests.parquet", row_group_size=7)

    answer = ask(store, tmp_path / "requests.parquet", "origin_weather__a:gusts").to_polars()

    assert answer.equals(ask(store, given, "origin_weather__a:gusts").to_polars())


def test_not_a_number_stays_apart_from_null_and_float32_as_narrow_as_declared(lake: Lake, store: FeatureStore) -> None:
    hour = {"origin": "EWR", "event_time": NOON}
    fill(lake, WEATHER, [{**hour, "temp_c": math.nan, "humidity": 0.1}, {**hour, "origin": "JFK"}])

    answer = ask(store, weather(["EWR", "JFK"], [NOON] * 2), "origin_weather__a:temp_c", "origin_weather__a:humidity")

    rows = answer.to_polars()
    assert rows["temp_c"].is_nan().to_list() == [True, None]
    assert rows["humidity"].to_list() == [np.float32(0.1), None]
    assert rows.schema["humidity"] == pl.Float32


@pytest.mark.parametrize(
    "kind", [pl.Datetime("us", "UTC"), pl.Datetime("ns"), pl.Date(), pl.UInt64(), pl.Decimal(9, 2)]
)
def test_a_type_that_would_change_on_its_way_online_is_refused_when_it_is_defined(kind: pl.DataType) -> None:
    table = replace(WEATHER, features={"stamp": kind})

    with pytest.raises(UnsupportedTypeError, match=r"stamp is declared .*can not give back as it was"):
        view(DATASET, table, Holding("a"))


def test_a_retrieval_can_be_kept_as_a_file(store: FeatureStore, tmp_path: Path) -> None:
    job = ask(store, weather(["EWR"], [NOON]), "origin_weather__a:gusts")

    job.persist(SavedDatasetFileStorage(str(tmp_path / "kept.parquet")))

    assert pl.read_parquet(tmp_path / "kept.parquet").equals(job.to_polars())
