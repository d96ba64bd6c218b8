"""Retrieve promises: N request rows in, N rows out, in order, each with what was known at its time, and nothing else.

The small tables are real files, read through Feast's own `get_historical_features`; nested loops decide who is right.
"""

import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pytest
from feast import FeatureService, FeatureStore, FeatureView, Field
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from pipelines.dataset import UTC_MICROSECONDS
from pipelines.errors import NotConfiguredError
from pipelines.publish import publish
from pipelines.retrieve import features, retrieve
from pipelines.settings import Settings
from pipelines.systems.feature_store.definitions import Holding, Standing, objects, view
from pipelines.systems.feature_store.errors import (
    FeatureStoreError,
    RequestRefusedError,
    UnknownReleaseError,
    UnreadablePartitionError,
)
from pipelines.systems.feature_store.offline import HeadraceOfflineStore, Retrieval
from pipelines.systems.feature_store.search import Moments, newest
from pipelines.systems.feature_store.store import open_store
from pipelines.table import Lake
from tests import feature_lake, pit_oracle
from tests.feature_lake import AIRCRAFT, DATASET, HOUR, NOON, WEATHER, fill, fill_all

HOUR_NS = 3_600_000_000_000
LARGE = 2**53 + 1
"""The first whole number that a float can not hold."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose definitions are applied, to be copied: applying takes a second."""
    lake = feature_lake.workspace(tmp_path_factory.mktemp("template"))
    fill_all(lake)
    opened(lake)
    return lake.root


@pytest.fixture
def lake(template: Path, tmp_path: Path) -> Lake:
    return Lake.at(shutil.copytree(template, tmp_path / "workspace"))


@pytest.fixture
def store(lake: Lake) -> FeatureStore:
    return open_store(lake.root / "feature_repo", feature_lake.settings(lake.root))


def opened(lake: Lake) -> FeatureStore:
    store = open_store(lake.root / "feature_repo", feature_lake.settings(lake.root))
    store.apply([*objects(DATASET, Standing(Holding("a"), Holding("b")))])
    return store


def ask(store: FeatureStore, requests: object, *names: str, **options: Any) -> Retrieval:  # noqa: ANN401
    job = store.get_historical_features(requests, list(names), **options)
    assert isinstance(job, Retrieval)
    return job


def weather(origins: Sequence[str | None], times: Sequence[datetime]) -> pl.DataFrame:
    schema = {"origin": pl.String(), "event_timestamp": UTC_MICROSECONDS}
    return pl.DataFrame({"origin": origins, "event_timestamp": times}, schema=schema)


def all_keys(times: Sequence[datetime]) -> pl.DataFrame:
    count = len(times)
    return weather(["EWR"] * count, times).with_columns(tailnum=pl.lit("N2"), carrier_id=pl.lit(LARGE, pl.Int64))


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
def shared(template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, FeatureStore]:
    lake = Lake.at(shutil.copytree(template, tmp_path_factory.mktemp("shared") / "workspace"))
    return lake, open_store(lake.root / "feature_repo", feature_lake.settings(lake.root))


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


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from([0, 1, 2, 2**40, 2**62]), st.integers(0, 3)), max_size=30
    ),
    wanted=st.lists(st.tuples(st.integers(0, 5), st.sampled_from([-1, 0, 1, 3, 2**40, 2**62, 2**62 + 5])), max_size=30),
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


def test_one_switch_shows_what_came_in_later_and_feasts_own_flag_hides_it_again(lake: Lake) -> None:
    late = {"tailnum": "N2", "event_time": NOON, "known_time": NOON + HOUR, "delay_min": 50.0}
    fill(lake, AIRCRAFT, [late])
    config = lake.root / "feature_repo" / "feature_store.yaml"
    config.write_text(config.read_text().replace("as_known: true", "as_known: false"))
    store = open_store(lake.root / "feature_repo", feature_lake.settings(lake.root))
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


def test_a_retrieval_can_be_kept_as_a_file(store: FeatureStore, tmp_path: Path) -> None:
    job = ask(store, weather(["EWR"], [NOON]), "origin_weather__a:gusts")

    job.persist(SavedDatasetFileStorage(str(tmp_path / "kept.parquet")))

    assert pl.read_parquet(tmp_path / "kept.parquet").equals(job.to_polars())


# --- what is read ---


def test_only_partitions_within_the_requests_and_their_ttl_are_read(lake: Lake, store: FeatureStore) -> None:
    days = [NOON + timedelta(days=day) for day in range(-9, 10)]
    fill(lake, AIRCRAFT, [{"tailnum": "N2", "event_time": day, "delay_min": 1.0} for day in days])
    needed = {str((NOON + timedelta(days=day)).date()) for day in range(-7, 1)}
    for name, entry in lake.manifest("features/little/aircraft_history").partitions.items():
        if name not in needed:
            lake.cache.path(entry.md5).unlink()
    frame = pl.DataFrame({"tailnum": ["N2"], "event_timestamp": [NOON]})

    assert ask(store, frame, "aircraft_history__a:delay_min").to_polars()["delay_min"].to_list() == [1.0]


def test_a_flipped_bit_in_a_partition_is_refused_with_its_name_and_the_next_command(
    lake: Lake, store: FeatureStore
) -> None:
    entry = lake.manifest("features/little/origin_weather").partitions["2013-01-09"]
    path = lake.cache.path(entry.md5)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)

    with pytest.raises(
        UnreadablePartitionError, match=r"origin_weather 2013-01-09: expected md5 .* Delete that file, then run"
    ):
        ask(store, weather(["EWR"], [NOON]), "origin_weather__a:temp_c").to_polars()


def test_a_table_that_lacks_a_declared_feature_is_refused_with_partition_and_column(
    lake: Lake, store: FeatureStore
) -> None:
    table = lake.manifest("features/little/origin_weather")
    stored = lake.cache.add(lambda path: pl.DataFrame({"origin": ["EWR"]}).write_parquet(path))
    day = table.partitions["2013-01-09"]
    lake.commit(table.with_partitions({"2013-01-09": type(day)("other", stored.md5, stored.size, 1)}))

    with pytest.raises(
        UnreadablePartitionError, match=r"origin_weather 2013-01-09: expected the columns origin, event"
    ):
        ask(store, weather(["EWR"], [NOON]), "origin_weather__a:temp_c").to_polars()


def test_no_requests_are_answered_with_no_rows_and_every_column(store: FeatureStore) -> None:
    answer = ask(store, weather([], []), "origin_weather__a:gusts").to_polars()

    assert answer.schema == {"origin": pl.String, "event_timestamp": UTC_MICROSECONDS, "gusts": pl.Int64}
    assert answer.is_empty()


def test_a_release_is_read_as_it_was_however_much_came_since(lake: Lake, store: FeatureStore) -> None:
    first = feature_lake.release(lake, 1)
    fill(lake, AIRCRAFT, [{"tailnum": "N2", "event_time": NOON - HOUR, "delay_min": 77.0}])
    store.apply([view(DATASET, AIRCRAFT, Holding("b", first))])
    frame = pl.DataFrame({"tailnum": ["N2"], "event_timestamp": [NOON]})

    now = ask(store, frame, "aircraft_history__a:delay_min").to_polars()
    then = ask(store, frame, "aircraft_history__b:delay_min").to_polars()

    assert (now["delay_min"].item(), then["delay_min"].item()) == (77.0, -4.0)


def test_a_release_that_does_not_exist_is_refused_with_where_to_look(lake: Lake, store: FeatureStore) -> None:
    feature_lake.release(lake, 1)
    store.apply([view(DATASET, AIRCRAFT, Holding("b", "little/9"))])
    frame = pl.DataFrame({"tailnum": ["N2"], "event_timestamp": [NOON]})

    with pytest.raises(UnknownReleaseError, match=r"no release little/9 .*git fetch --tags"):
        ask(store, frame, "aircraft_history__b:delay_min").to_polars()


def test_the_latest_rows_and_all_rows_of_a_range_are_there_for_feasts_own_materialize(
    lake: Lake, store: FeatureStore
) -> None:
    source = view(DATASET, WEATHER, Holding("a")).batch_source
    assert source is not None
    start, end = NOON - 2 * HOUR, NOON

    latest = HeadraceOfflineStore.pull_latest_from_table_or_query(
        store.config, source, ["origin"], ["temp_c"], "event_time", "known_time", start, end
    ).to_polars()
    every = HeadraceOfflineStore.pull_all_from_table_or_query(
        store.config, source, ["origin"], ["temp_c"], "event_time", "known_time", start, end
    ).to_polars()

    assert sorted(latest.select("origin", "temp_c").iter_rows()) == [("EWR", 2.5), ("JFK", 0.1 + 0.2)]
    assert sorted(every["temp_c"]) == [0.1 + 0.2, 1.5, 2.5]
    assert lake.manifest("features/little/origin_weather").rows == 4


def test_rows_can_not_be_written_past_the_pipeline(lake: Lake, store: FeatureStore) -> None:
    rows = lake.scan("features/little/origin_weather").collect().to_pandas()

    with pytest.raises(FeatureStoreError, match="headrace transform"):
        store.write_to_offline_store("origin_weather__a", rows, allow_registry_cache=False)


# --- requests that are refused ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop("event_timestamp"), r"Expected a column event_timestamp .*origin: String"),
        (
            lambda rows: rows.with_columns(pl.col("event_timestamp").dt.replace_time_zone(None)),
            r"event_timestamp .*expected times with a zone, seen Datetime.*replace_time_zone\('UTC'\)",
        ),
        (
            lambda rows: rows.with_columns(pl.col("event_timestamp").cast(pl.String)),
            r"event_timestamp .*expected times with a zone, seen String",
        ),
        (
            lambda rows: rows.with_columns(event_timestamp=pl.lit(None, UTC_MICROSECONDS)),
            r"null in 1 of 1 rows, first in row 0",
        ),
        (lambda rows: rows.drop("origin"), r"joined by origin: expected that column in the requests"),
        (
            lambda rows: rows.with_columns(origin=pl.lit(3)),
            r"joined by origin: expected String, seen Int32 in the requests",
        ),
    ],
)
def test_a_request_that_can_not_be_placed_is_refused_with_what_was_expected_and_seen(
    store: FeatureStore, change: Callable[[pl.DataFrame], pl.DataFrame], message: str
) -> None:
    with pytest.raises(RequestRefusedError, match=message):
        ask(store, change(weather(["EWR"], [NOON])), "origin_weather__a:temp_c").to_polars()


def test_times_of_pandas_without_a_zone_are_refused_too(store: FeatureStore) -> None:
    frame = pd.DataFrame({"origin": ["EWR"], "event_timestamp": pd.to_datetime(["2013-01-09 12:00"])})

    with pytest.raises(RequestRefusedError, match="expected times with a zone"):
        ask(store, frame, "origin_weather__a:temp_c")


def test_integer_keys_that_pandas_made_floats_are_refused_with_the_remedy(store: FeatureStore) -> None:
    frame = pd.DataFrame({"carrier_id": [1, None], "origin": "EWR", "event_timestamp": pd.to_datetime([NOON, NOON])})

    with pytest.raises(RequestRefusedError, match=r"carrier_id: expected Int64, seen Float64.*use its Int64"):
        ask(store, frame, "route_traffic__a:temp_c").to_polars()


def test_a_query_in_sql_is_refused(store: FeatureStore) -> None:
    with pytest.raises(RequestRefusedError, match="Expected requests as a pandas, Polars or Arrow table"):
        ask(store, "select 1", "origin_weather__a:temp_c")


# --- the verb ---


def test_retrieve_answers_a_file_with_a_file_and_says_what_was_found(lake: Lake, tmp_path: Path) -> None:
    settings = feature_lake.settings(lake.root)
    publish(DATASET, lake, settings, feature_lake.release(lake, 1))
    given = all_keys([NOON, NOON - timedelta(days=30), NOON])
    given.write_parquet(tmp_path / "requests.parquet")

    done = retrieve(DATASET, lake, settings, tmp_path / "requests.parquet", tmp_path / "out.parquet")

    rows = pl.read_parquet(done.path)
    assert (done.rows, done.release) == (3, "little/1")
    assert done.answered == {"origin_weather": 2, "aircraft_history": 2, "route_traffic": 2}
    assert rows.select(given.columns).equals(given)
    assert rows["origin_weather__temp_c"].to_list() == [2.5, None, 2.5]


def test_retrieve_at_a_release_needs_no_publish_and_gives_the_same_bytes_however_much_came_since(
    lake: Lake, tmp_path: Path
) -> None:
    first = feature_lake.release(lake, 1)
    all_keys([NOON]).write_parquet(tmp_path / "requests.parquet")
    files = [tmp_path / "before.parquet", tmp_path / "after.parquet"]

    for out in files:
        done = retrieve(DATASET, lake, Settings(), tmp_path / "requests.parquet", out, release=first)
        fill(lake, AIRCRAFT, [{"tailnum": "N2", "event_time": NOON - HOUR, "delay_min": 77.0}])

    assert done.release == first
    assert pl.read_parquet(files[0])["aircraft_history__delay_min"].to_list() == [-4.0]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_service_that_is_not_published_is_named_with_the_command_that_publishes(lake: Lake) -> None:
    store = open_store(lake.root / "feature_repo", feature_lake.settings(lake.root / "other"))

    with pytest.raises(FeatureStoreError, match=r"'little_service'.*Services there: none.*headrace publish little"):
        features(DATASET, store, all_keys([NOON]))


def test_chosen_features_come_alone_under_the_names_of_their_tables(store: FeatureStore) -> None:
    names = ["route_traffic:temp_c", "origin_weather:sky"]

    rows = features(DATASET, store, all_keys([NOON]), names)

    assert rows.columns == [*all_keys([]).columns, "route_traffic__temp_c", "origin_weather__sky"]
    assert rows.row(0)[-2:] == (7.0, "clear")


def test_a_feature_that_does_not_exist_is_named_beside_those_like_it(store: FeatureStore) -> None:
    with pytest.raises(FeatureStoreError, match=r"no feature origin_weather:temp_f; there is origin_weather:temp_c"):
        features(DATASET, store, all_keys([NOON]), ["origin_weather:temp_f"])


def test_requests_that_are_no_parquet_file_are_refused_by_name(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "requests.parquet").write_text("origin,event_timestamp\n")

    with pytest.raises(RequestRefusedError, match=r"requests\.parquet: expected a Parquet file of requests"):
        retrieve(
            DATASET,
            lake,
            feature_lake.settings(lake.root),
            tmp_path / "requests.parquet",
            tmp_path / "out.parquet",
        )

    assert not (tmp_path / "out.parquet").exists()


def test_an_unset_variable_of_the_configuration_is_named_with_the_file(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FEAST_REGISTRY_URL", raising=False)
    monkeypatch.delenv("FEAST_ONLINE_STORE_PATH", raising=False)
    monkeypatch.chdir(lake.root)

    with pytest.raises(
        NotConfiguredError, match=r"feature_store\.yaml: FEAST_ONLINE_STORE_PATH and FEAST_REGISTRY_URL are not set"
    ):
        open_store(lake.root / "feature_repo", Settings())


def test_a_registry_that_does_not_answer_is_named_without_its_password(lake: Lake) -> None:
    values = {
        "FEAST_REGISTRY_URL": "postgresql+psycopg://feast:hush@127.0.0.1:9/feast",
        "FEAST_ONLINE_STORE_PATH": "online.db",
    }

    with pytest.raises(FeatureStoreError, match=r"feast:\*\*\*@127.0.0.1:9/feast does not answer") as raised:
        open_store(lake.root / "feature_repo", Settings.model_validate(values))

    assert "hush" not in str(raised.value)
