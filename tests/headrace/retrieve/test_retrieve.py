"""Retrieve promises: N rows in, N rows out, from the partitions that can matter; what can not be answered is refused.

The small tables are real files, read through Feast's own `get_historical_features`.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import feature_workspace
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pytest
from applied import applied, store, table_store
from feast import FeatureStore
from feature_workspace import (
    AIRCRAFT,
    DATASET,
    HOUR,
    NOON,
    WEATHER,
    requests_with_all_keys,
    retrieval_job,
    weather_requests,
    write_table,
)
from msgspec import structs

from headrace.dataset import UNPARTITIONED, UTC_MICROSECONDS
from headrace.errors import NotConfiguredError
from headrace.feast.definitions import SlotState, feature_view
from headrace.feast.offline_store import HeadraceOfflineStore
from headrace.feast.open import close_store, open_store
from headrace.feast.retrieve import feast_retrieval, published_rows
from headrace.publish.publish import publish
from headrace.retrieve.errors import (
    FeatureStoreError,
    FeatureStoreUnavailableError,
    InvalidRequestError,
    UnknownReleaseError,
    UnreadablePartitionError,
)
from headrace.retrieve.hash_cache import HashCache
from headrace.retrieve.retrieve import FeatureRequest, retrieve
from headrace.settings import Settings
from headrace.storage.digests import Digests
from headrace.storage.dvc.objects import md5_of
from headrace.storage.table_store import TableStore

__all__ = ["applied", "store", "table_store"]


# --- what is read ---


def test_only_partitions_within_the_requests_and_their_ttl_are_read(
    table_store: TableStore, store: FeatureStore
) -> None:
    days = [NOON + timedelta(days=day) for day in range(-9, 10)]
    write_table(table_store, AIRCRAFT, [{"tailnum": "N2", "event_time": day, "delay_min": 1.0} for day in days])
    needed = {str((NOON + timedelta(days=day)).date()) for day in range(-7, 1)}
    for name, entry in table_store.manifest("features/little/aircraft_history").partitions.items():
        if name not in needed:
            table_store.cache.path(entry.md5).unlink()
    frame = pl.DataFrame({"tailnum": ["N2"], "event_timestamp": [NOON]})

    assert retrieval_job(store, frame, "aircraft_history__a:delay_min").to_polars()["delay_min"].to_list() == [1.0]


def test_a_flipped_bit_in_a_partition_is_refused_with_its_name_and_the_next_command(
    table_store: TableStore, store: FeatureStore
) -> None:
    entry = table_store.manifest("features/little/origin_weather").partitions["2013-01-09"]
    path = table_store.cache.path(entry.md5)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)

    with pytest.raises(
        UnreadablePartitionError, match=r"origin_weather 2013-01-09: expected md5 .* Delete that file, then run"
    ):
        retrieval_job(store, weather_requests(["EWR"], [NOON]), "origin_weather__a:temp_c").to_polars()


def test_a_file_is_hashed_once_and_again_when_it_was_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "object"
    path.write_bytes(b"as it was")
    md5, hashed = md5_of(path), []

    def counted(file: Path) -> Digests:
        hashed.append(file)
        return Digests.of_bytes(file.read_bytes())

    monkeypatch.setattr("headrace.storage.digests.Digests.of_file", counted)

    def hash_later(seconds: float) -> bool:
        """Look at the file as a process that runs so long after its last change."""
        later_ns = path.stat().st_ctime_ns + int(seconds * 1e9)
        monkeypatch.setattr("headrace.retrieve.hash_cache.time.time_ns", lambda: later_ns)
        cache = HashCache.load(tmp_path)
        matches = cache.matches(path, md5)
        cache.append_unsaved()
        return matches

    assert hash_later(0.9)
    assert hash_later(1.1)
    assert hashed == [path] * 2, "a file that was just written may be written again within a tick of its clock"
    assert hash_later(1.2)
    assert hashed == [path] * 2

    time.sleep(0.02)  # a tick of the file system's clock
    os.utime(path)
    assert hash_later(1.1)
    assert hashed == [path] * 3
    before = path.stat()
    time.sleep(0.02)
    path.write_bytes(b"as it Was")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not hash_later(1.1)
    assert hashed == [path] * 4


def test_a_file_that_was_touched_within_a_second_is_hashed_again_as_its_clock_may_not_have_ticked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "object"
    path.write_bytes(b"as it was")
    md5, changed_ns = md5_of(path), path.stat().st_ctime_ns
    hashes = HashCache.load(tmp_path)

    monkeypatch.setattr(time, "time_ns", lambda: changed_ns + 1_000_000_000)
    assert hashes.matches(path, md5)
    assert not hashes.is_unchanged(path, md5)
    monkeypatch.setattr(time, "time_ns", lambda: changed_ns + 1_000_000_001)
    assert hashes.matches(path, md5)
    assert hashes.is_unchanged(path, md5)


def test_a_file_that_is_gone_is_not_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(b"as it was")
    hashes = HashCache(tmp_path / "verified", {md5_of(path): "any"})
    md5 = md5_of(path)
    path.unlink()

    assert not hashes.is_unchanged(path, md5)


def test_a_hash_cache_that_was_torn_or_cannot_be_written_costs_a_hash(tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(b"as it was")
    (tmp_path / ".headrace").mkdir()
    (tmp_path / ".headrace/verified").write_text(md5_of(path))

    hashes = HashCache.load(tmp_path)
    assert hashes.matches(path, md5_of(path))
    (tmp_path / ".headrace/verified").unlink()
    (tmp_path / ".headrace/verified").mkdir()
    hashes.append_unsaved()

    assert not hashes.matches(path, "0" * 32)


def test_a_table_that_lacks_a_declared_feature_is_refused_with_partition_and_column(
    table_store: TableStore, store: FeatureStore
) -> None:
    table = table_store.manifest("features/little/origin_weather")
    stored = table_store.cache.add(lambda path: pl.DataFrame({"origin": ["EWR"]}).write_parquet(path))
    day = table.partitions["2013-01-09"]
    table_store.checkout(table.with_partitions({"2013-01-09": structs.replace(day, md5=stored.md5, size=stored.size)}))

    with pytest.raises(
        UnreadablePartitionError, match=r"origin_weather 2013-01-09: expected the columns origin, event"
    ):
        retrieval_job(store, weather_requests(["EWR"], [NOON]), "origin_weather__a:temp_c").to_polars()


def test_a_table_of_one_partition_is_read_for_any_time(table_store: TableStore, store: FeatureStore) -> None:
    table = table_store.manifest("features/little/origin_weather")
    table_store.checkout(table.with_partitions({UNPARTITIONED: table.partitions["2013-01-09"]}))

    assert retrieval_job(store, weather_requests(["EWR"], [NOON]), "origin_weather__a:sky").to_polars()[
        "sky"
    ].to_list() == ["clear"]


def test_a_feature_comes_in_its_declared_type_whatever_the_file_holds(
    table_store: TableStore, store: FeatureStore
) -> None:
    table = table_store.manifest("features/little/origin_weather")
    day = table.partitions["2013-01-09"]
    rows = pl.read_parquet(table_store.cache.path(day.md5)).with_columns(gusts=pl.lit(3, pl.Int32))
    stored = table_store.cache.add(rows.write_parquet)
    table_store.checkout(table.with_partitions({"2013-01-09": structs.replace(day, md5=stored.md5, size=stored.size)}))

    assert (
        retrieval_job(store, weather_requests(["EWR"], [NOON]), "origin_weather__a:gusts").to_polars().schema["gusts"]
        == pl.Int64
    )


def test_no_requests_are_answered_with_no_rows_and_every_column(store: FeatureStore) -> None:
    answer = retrieval_job(store, weather_requests([], []), "origin_weather__a:gusts").to_polars()

    assert answer.schema == {"origin": pl.String, "event_timestamp": UTC_MICROSECONDS, "gusts": pl.Int64}
    assert answer.is_empty()


def test_a_release_is_read_as_it_was_however_much_came_since(table_store: TableStore, store: FeatureStore) -> None:
    first = feature_workspace.tag_release(table_store, 1)
    write_table(table_store, AIRCRAFT, [{"tailnum": "N2", "event_time": NOON - HOUR, "delay_min": 77.0}])
    store.apply([feature_view(DATASET, AIRCRAFT, SlotState("b", first))])
    frame = pl.DataFrame({"tailnum": ["N2"], "event_timestamp": [NOON]})

    now = retrieval_job(store, frame, "aircraft_history__a:delay_min").to_polars()
    then = retrieval_job(store, frame, "aircraft_history__b:delay_min").to_polars()

    assert (now["delay_min"].item(), then["delay_min"].item()) == (77.0, -4.0)


def test_a_release_that_does_not_exist_is_refused_with_where_to_look(
    table_store: TableStore, store: FeatureStore
) -> None:
    feature_workspace.tag_release(table_store, 1)
    store.apply([feature_view(DATASET, AIRCRAFT, SlotState("b", "little/9"))])
    frame = pl.DataFrame({"tailnum": ["N2"], "event_timestamp": [NOON]})

    with pytest.raises(UnknownReleaseError, match=r"no release little/9 .*git fetch --tags"):
        retrieval_job(store, frame, "aircraft_history__b:delay_min").to_polars()


def test_the_latest_rows_and_all_rows_of_a_range_are_there_for_feasts_own_materialize(
    table_store: TableStore, store: FeatureStore
) -> None:
    source = feature_view(DATASET, WEATHER, SlotState("a")).batch_source
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
    assert table_store.manifest("features/little/origin_weather").rows == 4


def test_rows_can_not_be_written_past_the_pipeline(table_store: TableStore, store: FeatureStore) -> None:
    rows = table_store.scan("features/little/origin_weather").collect().to_pandas()

    with pytest.raises(FeatureStoreError, match="headrace transform"):
        store.write_to_offline_store("origin_weather__a", rows, allow_registry_cache=False)


# --- requests that are refused ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop("event_timestamp"), r"Expected a column event_timestamp .*origin: String"),
        (
            lambda rows: rows.with_columns(pl.col("event_timestamp").dt.replace_time_zone(None)),
            r"event_timestamp .*expected times with a zone, found Datetime.*replace_time_zone\('UTC'\)",
        ),
        (
            lambda rows: rows.with_columns(pl.col("event_timestamp").cast(pl.String)),
            r"event_timestamp .*expected times with a zone, found String",
        ),
        (
            lambda rows: rows.with_columns(event_timestamp=pl.lit(None, UTC_MICROSECONDS)),
            r"null in 1 of 1 rows, first in row 0",
        ),
        (lambda rows: rows.drop("origin"), r"joined by origin: expected that column in the requests"),
        (
            lambda rows: rows.with_columns(origin=pl.lit(3)),
            r"joined by origin: expected String, found Int32 in the requests",
        ),
    ],
)
def test_a_request_that_can_not_be_placed_is_refused_with_what_was_expected_and_seen(
    store: FeatureStore, change: Callable[[pl.DataFrame], pl.DataFrame], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        retrieval_job(store, change(weather_requests(["EWR"], [NOON])), "origin_weather__a:temp_c").to_polars()


def test_times_of_pandas_without_a_zone_are_refused_too(store: FeatureStore) -> None:
    frame = pd.DataFrame({"origin": ["EWR"], "event_timestamp": pd.to_datetime(["2013-01-09 12:00"])})

    with pytest.raises(InvalidRequestError, match="expected times with a zone"):
        retrieval_job(store, frame, "origin_weather__a:temp_c")


def test_integer_keys_that_pandas_made_floats_are_refused_with_the_remedy(store: FeatureStore) -> None:
    frame = pd.DataFrame({"carrier_id": [1, None], "origin": "EWR", "event_timestamp": pd.to_datetime([NOON, NOON])})

    with pytest.raises(InvalidRequestError, match=r"carrier_id: expected Int64, found Float64.*use its Int64"):
        retrieval_job(store, frame, "route_traffic__a:temp_c").to_polars()


def test_a_query_in_sql_is_refused(store: FeatureStore) -> None:
    with pytest.raises(InvalidRequestError, match="Expected requests as a pandas, Polars or Arrow table"):
        retrieval_job(store, "select 1", "origin_weather__a:temp_c")


# --- the verb ---


def test_retrieve_answers_a_file_with_a_file_and_says_what_was_found(table_store: TableStore, tmp_path: Path) -> None:
    settings = feature_workspace.settings(table_store.root)
    publish(DATASET, table_store, settings, feature_workspace.tag_release(table_store, 1))
    given = requests_with_all_keys([NOON, NOON - timedelta(days=30), NOON])
    given.write_parquet(tmp_path / "requests.parquet")

    done = retrieve(
        DATASET,
        table_store,
        published_rows(table_store, settings),
        tmp_path / "requests.parquet",
        tmp_path / "out.parquet",
    )

    rows = pl.read_parquet(done.path)
    assert (done.rows, done.release) == (3, "little/1")
    assert done.matched_rows == {"origin_weather": 2, "aircraft_history": 2, "route_traffic": 2}
    assert rows.select(given.columns).equals(given)
    assert rows["origin_weather__temp_c"].to_list() == [2.5, None, 2.5]


def test_retrieve_at_a_release_needs_no_publish_and_gives_the_same_bytes_however_much_came_since(
    table_store: TableStore, tmp_path: Path
) -> None:
    first = feature_workspace.tag_release(table_store, 1)
    requests_with_all_keys([NOON]).write_parquet(tmp_path / "requests.parquet")
    files = [tmp_path / "before.parquet", tmp_path / "after.parquet"]

    for out in files:
        done = retrieve(
            DATASET,
            table_store,
            published_rows(table_store, Settings()),
            tmp_path / "requests.parquet",
            out,
            FeatureRequest(release=first),
        )
        write_table(table_store, AIRCRAFT, [{"tailnum": "N2", "event_time": NOON - HOUR, "delay_min": 77.0}])

    assert done.release == first
    assert pl.read_parquet(files[0])["aircraft_history__delay_min"].to_list() == [-4.0]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_service_that_is_not_published_is_named_with_the_command_that_publishes(table_store: TableStore) -> None:
    store = open_store(table_store.root / "feature_repo", feature_workspace.settings(table_store.root / "other"))

    with pytest.raises(FeatureStoreError, match=r"'little_service'.*Services there: none.*headrace publish little"):
        feast_retrieval(DATASET, store, requests_with_all_keys([NOON]))

    close_store(store)


def test_chosen_features_come_alone_under_the_names_of_their_tables(store: FeatureStore) -> None:
    names = ["route_traffic:temp_c", "origin_weather:sky"]

    rows = feast_retrieval(DATASET, store, requests_with_all_keys([NOON]), names).to_polars()

    assert rows.columns == [*requests_with_all_keys([]).columns, "route_traffic__temp_c", "origin_weather__sky"]
    assert rows.row(0)[-2:] == (7.0, "clear")


def test_a_feature_that_does_not_exist_is_named_beside_those_like_it(store: FeatureStore) -> None:
    with pytest.raises(FeatureStoreError, match=r"no feature origin_weather:temp_f; there is origin_weather:temp_c"):
        feast_retrieval(DATASET, store, requests_with_all_keys([NOON]), ["origin_weather:temp_f"])


def test_requests_that_are_no_parquet_file_are_refused_by_name(table_store: TableStore, tmp_path: Path) -> None:
    (tmp_path / "requests.parquet").write_text("origin,event_timestamp\n")

    with pytest.raises(InvalidRequestError, match=r"requests\.parquet: expected a Parquet file of requests"):
        retrieve(
            DATASET,
            table_store,
            published_rows(table_store, feature_workspace.settings(table_store.root)),
            tmp_path / "requests.parquet",
            tmp_path / "out.parquet",
        )

    assert not (tmp_path / "out.parquet").exists()


def test_an_unset_variable_of_the_configuration_is_named_with_the_file(
    table_store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FEAST_REGISTRY_URL", raising=False)
    monkeypatch.delenv("FEAST_ONLINE_STORE_PATH", raising=False)
    monkeypatch.chdir(table_store.root)

    with pytest.raises(
        NotConfiguredError, match=r"feature_store\.yaml: FEAST_ONLINE_STORE_PATH and FEAST_REGISTRY_URL are not set"
    ):
        open_store(table_store.root / "feature_repo", Settings())


NOTEBOOK = """
from feast import FeatureStore
store = FeatureStore(repo_path="feature_repo")
print(store.list_feature_views(), store.config.online_store.path)
"""


def run_notebook(folder: Path) -> "subprocess.CompletedProcess[str]":
    """What a notebook runs, without any of our settings in its environment, and without an import of ours."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FEAST", "HEADRACE"))}
    command = [sys.executable, "-c", NOTEBOOK]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow_lane
def test_feast_alone_finds_the_settings_of_the_local_stack_in_a_notebook(table_store: TableStore) -> None:
    (table_store.root / ".headrace").mkdir(exist_ok=True)
    lines = [
        f"FEAST_REGISTRY_URL=sqlite:///{table_store.root}/registry.db",
        f"FEAST_ONLINE_STORE_PATH={table_store.root}/online.db",
    ]
    stack_env = table_store.root / ".headrace" / "stack.env"
    (table_store.root / "pipelines").mkdir(exist_ok=True)
    for marker in ("dvc.yaml", "pipelines/__init__.py"):
        (table_store.root / marker).touch()

    without = run_notebook(table_store.root)
    stack_env.write_text("\n".join(lines))
    found = run_notebook(table_store.root)

    assert (
        "FEAST_REGISTRY_URL is not set: expected it in the environment, or in .env or .headrace/stack.env"
        in without.stderr
    )
    assert (found.stdout, found.returncode) == (f"[] {table_store.root}/online.db\n", 0), found.stderr


def test_a_registry_that_does_not_answer_is_named_without_its_password(table_store: TableStore) -> None:
    values = {
        "FEAST_REGISTRY_URL": "postgresql+psycopg://feast:hush@127.0.0.1:9/feast",
        "FEAST_ONLINE_STORE_PATH": "online.db",
    }

    with pytest.raises(FeatureStoreUnavailableError, match=r"feast:\*\*\*@127.0.0.1:9/feast does not answer") as raised:
        open_store(table_store.root / "feature_repo", Settings.model_validate(values))

    assert "hush" not in str(raised.value)
