"""Publish promises: online is the latest value of each key of one release, proved, and readers see it whole.

Real files, Feast's SQL registry and its SQLite online store; what readers see is read with Feast's own calls.
"""

import json
import runpy
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import feature_workspace
import polars as pl
import pytest
from feast import Entity, FeatureService, FeatureView
from feature_workspace import (
    AIRCRAFT,
    AIRCRAFT_CHANGES,
    AIRCRAFT_ROWS,
    DATASET,
    HOUR,
    NOON,
    ROUTES,
    WEATHER,
    offline_delays,
    online_delays,
    open_workspace_store,
    publish_release,
    retrieval_job,
    weather_requests,
    write_table,
)
from msgspec import structs
from published import published, table_store
from servers import PostgreSQL
from workspaces import git

from headrace.feast.definitions import DeploymentState, dataset_objects
from headrace.feast.key_checksum import KeyChecksum, from_tag, to_tag
from headrace.feast.open import close_store, open_store
from headrace.feast.publish_log import PublishLog
from headrace.lineage.freshness import read_freshness
from headrace.project.loading import dataset_names, load_dataset
from headrace.publish.publish import PublishOptions, publish
from headrace.publish.snapshot import Snapshot, latest_rows
from headrace.retrieve.errors import BreakingChangeError
from headrace.storage.pruned_releases import PrunedReleaseError, Tombstone, tombstone_files
from headrace.storage.table_store import TableStore
from headrace.transform.stage import time_span_metadata

__all__ = ["published", "table_store"]


# --- what is online ---


def test_the_latest_value_of_each_key_is_online_in_its_own_type(table_store: TableStore) -> None:
    store = open_workspace_store(table_store)
    service = store.get_feature_service(DATASET.service)
    keys = [{"origin": origin, "tailnum": "N2", "carrier_id": 2**53 + 1} for origin in ("EWR", "JFK")]

    answer = store.get_online_features(service, keys, full_feature_names=True).to_dict()

    assert answer["origin_weather__temp_c"] == [2.5, 0.1 + 0.2]
    assert answer["origin_weather__gusts"] == [None, 2**53 + 1]
    assert answer["origin_weather__frozen"] == [False, True]
    assert answer["origin_weather__sky"] == ["clear", None]
    assert answer["route_traffic__temp_c"] == [7.0, None]


def test_a_value_older_than_its_ttl_is_not_online(table_store: TableStore) -> None:
    store = open_workspace_store(table_store)

    answer = store.get_online_features(["origin_weather__b:temp_c"], [{"origin": "LGA"}]).to_dict()

    assert answer["temp_c"] == [None]


def test_values_of_the_first_and_last_year_that_there_are_can_be_published(table_store: TableStore) -> None:
    first, last = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, tzinfo=UTC)
    for at in (first, last):
        write_table(table_store, WEATHER, [{"origin": "EWR", "event_time": at, "temp_c": 1.5}])
        write_table(table_store, AIRCRAFT, [{"tailnum": "N1", "event_time": at}])
        write_table(table_store, ROUTES, [{"carrier_id": 1, "origin": "EWR", "event_time": at}])

        assert [proof.compared_keys for proof in publish_release(table_store).verifications] == [1, 1, 1]

    store = open_workspace_store(table_store)
    rows = retrieval_job(store, weather_requests(["EWR"], [last]), "origin_weather__b:temp_c").to_polars()
    assert rows["temp_c"].to_list() == [1.5]


@pytest.mark.parametrize("ttl", [timedelta.max, timedelta(-1), timedelta(days=365 * 1000 + 1), None])
def test_a_ttl_that_no_time_can_be_compared_with_is_refused_where_it_is_declared(ttl: timedelta) -> None:
    with pytest.raises(
        ValueError, match=r"feature table origin_weather: expected a ttl from 0 \(no limit\) to 365000 d"
    ):
        replace(WEATHER, ttl=ttl)


def test_a_table_that_ended_days_ago_serves_nothing_and_the_others_go_on(table_store: TableStore) -> None:
    write_table(table_store, WEATHER, [{"origin": "EWR", "event_time": NOON - timedelta(days=3), "temp_c": 1.0}])

    done = publish_release(table_store)

    store = open_workspace_store(table_store)
    key = {"origin": "EWR", "tailnum": "N2", "carrier_id": 1}
    answer = store.get_online_features(
        store.get_feature_service(DATASET.service), [key], full_feature_names=True
    ).to_dict()
    assert (answer["origin_weather__temp_c"], answer["aircraft_history__delay_min"]) == ([None], [-4.0])
    assert [proof.compared_keys for proof in done.verifications] == [0, 2, 1]


def test_the_proof_covers_every_key_and_value_of_every_view(table_store: TableStore) -> None:
    done = publish_release(table_store)

    assert [
        (proof.view, proof.compared_keys, proof.compared_values, proof.served_keys) for proof in done.verifications
    ] == [
        ("origin_weather__b", 2, 10, 2),
        ("aircraft_history__b", 2, 4, 2),
        ("route_traffic__b", 1, 1, 1),
    ]
    assert not any(proof.mismatches for proof in done.verifications)


def test_now_is_when_all_of_the_release_is_known_and_no_clock(table_store: TableStore) -> None:
    late = {"tailnum": "N3", "event_time": NOON, "known_time": NOON + 2 * HOUR, "delay_min": 8.0}
    write_table(table_store, AIRCRAFT, [*AIRCRAFT_ROWS, late])

    done = publish_release(table_store)

    assert done.as_of == NOON + 2 * HOUR
    assert online_delays(table_store, ["N3"]) == [8.0]


def test_a_row_known_only_later_is_not_the_latest() -> None:
    rows = pl.DataFrame({"tailnum": ["N2", "N2"], "event_time": [NOON - HOUR, NOON], "known_time": [NOON, NOON + HOUR]})

    assert latest_rows(rows, AIRCRAFT, NOON)["event_time"].to_list() == [NOON - HOUR]


def test_published_again_it_proves_what_is_live_and_writes_nothing(table_store: TableStore) -> None:
    before = (table_store.root / "feast" / "online.db").read_bytes()

    done = publish_release(table_store)

    assert (done.switched, done.loads, done.slot) == (False, {}, "b")
    assert (table_store.root / "feast" / "online.db").read_bytes() == before


# --- what changes ---


@pytest.mark.slow
@pytest.mark.parametrize("change", AIRCRAFT_CHANGES)
def test_after_the_next_publish_online_is_offline_for_a_row_that_was(table_store: TableStore, change: str) -> None:
    rows, expected = AIRCRAFT_CHANGES[change]
    write_table(table_store, AIRCRAFT, rows)

    done = publish_release(table_store)

    assert online_delays(table_store, ["N2", "N3"]) == offline_delays(table_store, ["N2", "N3"], done) == expected


def test_the_standby_is_brought_to_a_release_by_the_difference_alone(table_store: TableStore) -> None:
    write_table(table_store, AIRCRAFT, [*AIRCRAFT_ROWS, {"tailnum": "N4", "event_time": NOON - HOUR, "delay_min": 1.0}])
    publish_release(table_store)
    # Side `b`, which is loaded now, holds N2 and N3 as they were first.
    write_table(table_store, AIRCRAFT, [AIRCRAFT_ROWS[0], {**AIRCRAFT_ROWS[1], "tailnum": "N5"}])

    done = publish_release(table_store)

    assert done.loads["aircraft_history"].to_dict() == {"written": 1, "deleted": 1, "unchanged": 1}
    assert done.loads["origin_weather"].to_dict() == {"written": 0, "deleted": 0, "unchanged": 2}
    assert online_delays(table_store, ["N2", "N3", "N4", "N5"]) == [-4.0, None, None, 3.0]


def test_a_release_can_be_put_back_with_its_deletions_and_without_a_write(table_store: TableStore) -> None:
    first = feature_workspace.tag_release(table_store, 1)
    publish_release(table_store, first)
    write_table(table_store, AIRCRAFT, [{**AIRCRAFT_ROWS[1], "delay_min": 6.0}])
    publish_release(table_store, feature_workspace.tag_release(table_store, 2))

    done = publish_release(table_store, first)

    assert done.switched
    assert {load.written + load.deleted for load in done.loads.values()} == {0}
    assert online_delays(table_store, ["N2", "N3"]) == [-4.0, 3.0]


def test_features_that_come_and_go_are_switched_with_the_values(table_store: TableStore) -> None:
    grown = replace(WEATHER, features={"temp_c": pl.Float64(), "wind_kt": pl.Int64()})
    changed = replace(DATASET, features=(grown, *DATASET.features[1:]))
    write_table(table_store, grown, [{"origin": "EWR", "event_time": NOON, "temp_c": 4.0, "wind_kt": 12}])

    with pytest.raises(BreakingChangeError, match=r"- origin_weather.gusts Int64.*--allow-breaking-changes"):
        publish_release(table_store, dataset=changed)
    done = publish(
        changed,
        table_store,
        feature_workspace.settings(table_store.root),
        how=PublishOptions(allow_breaking_changes=True),
    )

    store = open_workspace_store(table_store)
    service = store.get_feature_service(DATASET.service)
    keys = [{"origin": "EWR", "tailnum": "N2", "carrier_id": 1}]
    answer = store.get_online_features(service, keys, full_feature_names=True).to_dict()
    assert {name: answer[name] for name in answer if name.startswith("origin_weather")} == {
        "origin_weather__temp_c": [4.0],
        "origin_weather__wind_kt": [12],
    }
    assert publish_release(table_store, dataset=changed).switched is False
    assert done.switched


def test_the_release_is_recorded_on_the_service_and_on_each_side(table_store: TableStore) -> None:
    publish_release(table_store, feature_workspace.tag_release(table_store, 1))
    write_table(table_store, AIRCRAFT, AIRCRAFT_ROWS[:1])

    done = publish_release(table_store, feature_workspace.tag_release(table_store, 2))

    deployment = DeploymentState.read(open_workspace_store(table_store), DATASET)
    assert (deployment.live.release, deployment.standby.release) == ("little/2", "little/1")
    assert (deployment.live.side, deployment.live.as_of) == (done.slot, done.as_of.isoformat())


def test_a_release_that_a_colleague_has_pruned_does_not_go_online_and_what_is_live_stays(
    table_store: TableStore, tmp_path: Path
) -> None:
    live = publish_release(table_store, feature_workspace.tag_release(table_store, 1))
    write_table(table_store, AIRCRAFT, AIRCRAFT_ROWS[:1])
    pruned = feature_workspace.tag_release(table_store, 2)
    origin, colleague = tmp_path / "origin.git", tmp_path / "colleague"
    git(tmp_path, "clone", "--quiet", "--bare", str(table_store.root), str(origin))
    git(table_store.root, "remote", "add", "origin", str(origin))
    git(tmp_path, "clone", "--quiet", str(origin), str(colleague))
    branch = git(colleague, "branch", "--show-current")
    tombstone = Tombstone(
        release=pruned,
        commit=git(colleague, "rev-parse", pruned),
        released_at="2026-01-01T00:00:00+00:00",
        tables={},
        reason="keep_last=1",
        pruned_by="a colleague",
        pruned_at="2026-02-01T00:00:00+00:00",
    )
    for path, content in tombstone_files(colleague, "HEAD", "little", [tombstone]).items():
        (colleague / path).parent.mkdir(parents=True, exist_ok=True)
        (colleague / path).write_bytes(content)
    git(colleague, "add", "releases")
    git(colleague, "commit", "--quiet", "--message", "Prune")
    git(colleague, "push", "--quiet", "--atomic", "origin", f"{branch}:main", f":refs/tags/{pruned}")

    with pytest.raises(PrunedReleaseError, match=r"little/2 was pruned on 2026-02-01 by a colleague: keep_last=1"):
        publish_release(table_store, pruned)

    deployment = DeploymentState.read(open_workspace_store(table_store), DATASET)
    assert (deployment.live.release, deployment.live.side) == ("little/1", live.slot)


@pytest.mark.parametrize("was", [0.0, None])
def test_a_zero_that_loses_its_sign_is_a_change(table_store: TableStore, was: float | None) -> None:
    write_table(table_store, AIRCRAFT, [{**AIRCRAFT_ROWS[0], "delay_min": was}, AIRCRAFT_ROWS[1]])
    before = Snapshot.read(DATASET, table_store, feature_workspace.tag_release(table_store, 1))
    write_table(
        table_store, AIRCRAFT, [{**AIRCRAFT_ROWS[0], "delay_min": -0.0}, {**AIRCRAFT_ROWS[1], "delay_min": 3.0}]
    )

    affected = Snapshot.read(DATASET, table_store, "").changed_keys(AIRCRAFT, before)

    assert affected["tailnum"].to_list() == ["N2"]


def test_a_set_of_keys_has_one_checksum_in_any_order_and_another_for_every_other_set() -> None:
    keys = pl.Series([f"key {number}".encode() for number in range(1000)], dtype=pl.Binary)
    other = pl.concat([keys.tail(999), pl.Series([b"another"], dtype=pl.Binary)])

    checksum = KeyChecksum.from_keys

    assert checksum(keys) == checksum(keys.reverse()) == checksum(keys.head(400)) + checksum(keys.tail(600))
    assert checksum(other) == checksum(keys) + checksum(other.tail(1)) - checksum(keys.head(1)) != checksum(keys)
    assert from_tag(to_tag({"a": checksum(keys), "b": checksum(keys.clear())})) == {
        "a": checksum(keys),
        "b": KeyChecksum(0, 0),
    }


def test_the_times_of_a_partition_are_in_its_manifest_entry_and_no_file_is_opened(
    table_store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {table.name: table_store.manifest(f"features/little/{table.name}") for table in DATASET.features}
    spans = Snapshot.read(DATASET, table_store, "").spans
    for manifest in made.values():
        with_spans = {
            name: structs.replace(
                entry, metadata=time_span_metadata(pl.read_parquet(table_store.cache.path(entry.md5)))
            )
            for name, entry in manifest.partitions.items()
        }
        table_store.checkout(manifest.with_partitions(with_spans))
    monkeypatch.setattr("pyarrow.parquet.read_metadata", None)

    assert Snapshot.read(DATASET, table_store, "").spans == spans


# --- what a publish reports ---


def test_the_proof_of_the_switch_is_kept_beside_the_registry_and_in_a_file(table_store: TableStore) -> None:
    done = publish_release(table_store, feature_workspace.tag_release(table_store, 1))
    kept = json.loads((table_store.root / "reports/little/online.json").read_text())

    publish_release(table_store, "little/1")

    with closing(PublishLog.at(f"sqlite:///{table_store.root}/feast/registry.db", "little")) as publish_log:
        noted = publish_log.online()
    assert noted is not None
    assert noted.report == kept == done.report
    assert json.loads((table_store.root / "reports/little/online.json").read_text()) == kept
    assert (kept["release"], kept["digest"], kept["slot"]) == ("little/1", done.digest, done.slot)
    assert [view["compared_keys"] for view in kept["verifications"]] == [2, 2, 1]
    assert [view["mismatches"] for view in kept["verifications"]] == [[], [], []]


def test_freshness_is_the_age_of_the_newest_value_of_each_table_and_what_is_not_online_yet(
    table_store: TableStore,
) -> None:
    publish_release(table_store, feature_workspace.tag_release(table_store, 1))

    online = read_freshness(feature_workspace.settings(table_store.root), "little", NOON + 3 * HOUR)

    assert online is not None
    assert {table: found.age / HOUR for table, found in online.views.items()} == {
        "origin_weather": 3,
        "aircraft_history": 4,
        "route_traffic": 4,
    }
    head, first, *_ = online.format_lines("little/2")
    assert head.endswith("; little/2 is released but not online")
    assert first == "  origin_weather: newest event 2013-01-09T12:00:00+00:00, 3 h old, known after 0 min"


def test_before_the_first_publish_there_is_no_freshness_and_no_file_is_made(tmp_path: Path) -> None:
    assert read_freshness(feature_workspace.settings(tmp_path), "little") is None
    assert list(tmp_path.iterdir()) == []


def test_a_change_of_definitions_is_logged_before_it_is_made(
    table_store: TableStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="headrace.publish")
    grown = replace(AIRCRAFT, features={**AIRCRAFT.features, "seats": pl.Int32()}, ttl=timedelta(days=9))
    changed = replace(DATASET, features=(WEATHER, grown, DATASET.features[2]))
    write_table(table_store, grown, AIRCRAFT_ROWS)

    publish(changed, table_store, feature_workspace.settings(table_store.root))

    assert caplog.messages == [
        "little_service: + aircraft_history.seats Int32",
        "little_service: ~ aircraft_history ttl 7 days, 0:00:00 → 9 days, 0:00:00",
    ]


# --- what Feast's registry holds ---


def test_the_registry_holds_every_entity_view_and_service_that_the_datasets_declare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEAST_REGISTRY_URL", f"sqlite:///{tmp_path}/registry.db")
    monkeypatch.setenv("FEAST_ONLINE_STORE_PATH", f"{tmp_path}/online.db")
    found = runpy.run_path(str(feature_workspace.REPO / "feature_repo" / "definitions.py"))
    named: list[Any] = [item for item in found.values() if isinstance(item, Entity | FeatureView | FeatureService)]
    store = open_store(feature_workspace.REPO / "feature_repo", feature_workspace.settings(tmp_path))

    store.apply(named)
    close_store(store)

    tables = [table for name in dataset_names() for table in load_dataset(name).features]
    assert {view.name for view in store.list_feature_views()} == {f"{t.name}__{s}" for t in tables for s in "ab"}
    assert {entity.name for entity in store.list_entities()} >= {key for table in tables for key in table.keys}
    assert {service.name for service in store.list_feature_services()} == {
        load_dataset(name).service for name in dataset_names() if load_dataset(name).features
    }
    columns = {view.name: {field.name for field in view.features} for view in store.list_feature_views()}
    assert all(columns[f"{table.name}__a"] == set(table.features) for table in tables)


def test_definitions_applied_by_hand_switch_nothing(table_store: TableStore) -> None:
    store = open_workspace_store(table_store)
    deployment = DeploymentState.read(store, DATASET)

    store.apply([*dataset_objects(DATASET, deployment)])

    assert DeploymentState.read(store, DATASET) == deployment
    assert (deployment.live.side, publish_release(table_store).switched) == ("b", False)
    assert online_delays(table_store, ["N2"]) == [-4.0]


def test_a_registry_on_postgresql_holds_the_same(table_store: TableStore, postgres: PostgreSQL) -> None:
    settings = feature_workspace.settings(table_store.root).model_copy(
        update={"feast_registry_url": postgres.address(postgres.new_database())}
    )
    publish(DATASET, table_store, settings)
    write_table(table_store, AIRCRAFT, AIRCRAFT_ROWS[:1])

    done = publish(DATASET, table_store, settings)

    store = open_store(table_store.root / "feature_repo", settings)
    deployment = DeploymentState.read(store, DATASET)
    close_store(store)
    assert (deployment.live.side, deployment.live.digest) == (done.slot, Snapshot.read(DATASET, table_store, "").digest)
    assert (done.switched, publish(DATASET, table_store, settings).switched) == (True, False)


def test_no_other_verb_pays_for_feast() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, headrace.publish.publish, headrace.retrieve.retrieve; print('feast' in sys.modules)",
        ],
        capture_output=True,
        check=True,
        text=True,
    )

    assert done.stdout == "False\n"
