"""Publish promises: online is the latest value of each key of one release, proved, and readers see it whole.

Real files, Feast's SQL registry and its SQLite online store; what readers see is read with Feast's own calls.
"""

import runpy
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView

from pipelines.dataset import Dataset
from pipelines.datasets import NAMES, load
from pipelines.errors import TableBusyError
from pipelines.publish import Published, publish
from pipelines.retrieve import features
from pipelines.systems.feature_store.definitions import Holding, Standing, objects
from pipelines.systems.feature_store.errors import (
    FeatureStoreError,
    MisplacedRowError,
    NothingToPublishError,
    OvertakenError,
    ProofFailedError,
    UnknownReleaseError,
    UnsupportedTypeError,
)
from pipelines.systems.feature_store.proof import differences
from pipelines.systems.feature_store.sides import Sides
from pipelines.systems.feature_store.snapshot import Snapshot
from pipelines.systems.feature_store.store import open_store
from pipelines.table import Lake
from tests import feature_lake
from tests.feature_lake import AIRCRAFT, DATASET, HOUR, NOON, WEATHER, fill, fill_all

FLOWN = [
    {"tailnum": "N2", "event_time": NOON - 2 * HOUR, "delay_min": -4.0},
    {"tailnum": "N3", "event_time": NOON - HOUR, "delay_min": 3.0},
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose tables are published on side `b`, to be copied."""
    lake = feature_lake.workspace(tmp_path_factory.mktemp("template"))
    fill_all(lake)
    fill(lake, AIRCRAFT, FLOWN)
    put(lake)
    return lake.root


@pytest.fixture
def lake(template: Path, tmp_path: Path) -> Lake:
    return Lake.at(shutil.copytree(template, tmp_path / "workspace"))


def put(lake: Lake, release: str | None = None, dataset: Dataset = DATASET) -> Published:
    return publish(dataset, lake, feature_lake.settings(lake.root), release)


def opened(lake: Lake) -> FeatureStore:
    return open_store(lake.root / "feature_repo", feature_lake.settings(lake.root))


def served(lake: Lake, tailnums: Sequence[str]) -> list[float | None]:
    store = opened(lake)
    rows = [{"tailnum": tailnum, "origin": "EWR", "carrier_id": 1} for tailnum in tailnums]
    service = store.get_feature_service(DATASET.service)
    answer = store.get_online_features(service, rows, full_feature_names=True).to_dict()
    return list(answer["aircraft_history__delay_min"])


def offline(lake: Lake, tailnums: Sequence[str], at: Published) -> list[float | None]:
    asked = pl.DataFrame({"tailnum": tailnums}).with_columns(
        origin=pl.lit("EWR"), carrier_id=pl.lit(1, pl.Int64), event_timestamp=pl.lit(at.as_of)
    )
    return features(DATASET, opened(lake), asked)["aircraft_history__delay_min"].to_list()


def execute(lake: Lake, statement: str) -> None:
    with closing(sqlite3.connect(lake.root / "feast" / "online.db")) as database:
        database.executescript(statement)


# --- what is online ---


def test_the_latest_value_of_each_key_is_online_in_its_own_type(lake: Lake) -> None:
    store = opened(lake)
    service = store.get_feature_service(DATASET.service)
    keys = [{"origin": origin, "tailnum": "N2", "carrier_id": 2**53 + 1} for origin in ("EWR", "JFK")]

    answer = store.get_online_features(service, keys, full_feature_names=True).to_dict()

    assert answer["origin_weather__temp_c"] == [2.5, 0.1 + 0.2]
    assert answer["origin_weather__gusts"] == [None, 2**53 + 1]
    assert answer["origin_weather__frozen"] == [False, True]
    assert answer["origin_weather__sky"] == ["clear", None]
    assert answer["route_traffic__temp_c"] == [7.0, None]


def test_a_value_older_than_its_ttl_is_not_online(lake: Lake) -> None:
    store = opened(lake)

    answer = store.get_online_features(["origin_weather__b:temp_c"], [{"origin": "LGA"}]).to_dict()

    assert answer["temp_c"] == [None]


def test_a_table_that_ended_days_ago_serves_nothing_and_the_others_go_on(lake: Lake) -> None:
    fill(lake, WEATHER, [{"origin": "EWR", "event_time": NOON - timedelta(days=3), "temp_c": 1.0}])

    done = put(lake)

    store = opened(lake)
    key = {"origin": "EWR", "tailnum": "N2", "carrier_id": 1}
    answer = store.get_online_features(
        store.get_feature_service(DATASET.service), [key], full_feature_names=True
    ).to_dict()
    assert (answer["origin_weather__temp_c"], answer["aircraft_history__delay_min"]) == ([None], [-4.0])
    assert [proof.keys for proof in done.proofs] == [0, 2, 1]


def test_the_proof_covers_every_key_and_value_of_every_view(lake: Lake) -> None:
    done = put(lake)

    assert [(proof.view, proof.keys, proof.values, proof.sampled) for proof in done.proofs] == [
        ("origin_weather__b", 2, 10, 2),
        ("aircraft_history__b", 2, 4, 2),
        ("route_traffic__b", 1, 1, 1),
    ]
    assert not any(proof.mismatches for proof in done.proofs)


def test_now_is_when_all_of_the_release_is_known_and_no_clock(lake: Lake) -> None:
    late = {"tailnum": "N3", "event_time": NOON, "known_time": NOON + 2 * HOUR, "delay_min": 8.0}
    fill(lake, AIRCRAFT, [*FLOWN, late])

    done = put(lake)

    assert done.as_of == NOON + 2 * HOUR
    assert served(lake, ["N3"]) == [8.0]


def test_published_again_it_proves_what_is_live_and_writes_nothing(lake: Lake) -> None:
    before = (lake.root / "feast" / "online.db").read_bytes()

    done = put(lake)

    assert (done.switched, done.loads, done.side) == (False, {}, "b")
    assert (lake.root / "feast" / "online.db").read_bytes() == before


# --- what changes ---


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([{**FLOWN[0], "delay_min": 99.0}, FLOWN[1]], [99.0, 3.0], id="corrected at the same time"),
        pytest.param([FLOWN[0]], [-4.0, None], id="deleted"),
        pytest.param(
            [*FLOWN, {"tailnum": "N3", "event_time": NOON - HOUR / 2, "known_time": NOON, "delay_min": 5.0}],
            [-4.0, 5.0],
            id="late, and newer than what was there",
        ),
        pytest.param(
            [*FLOWN, {"tailnum": "N3", "event_time": NOON - 3 * HOUR, "known_time": NOON, "delay_min": 5.0}],
            [-4.0, 3.0],
            id="late, and older than what was there",
        ),
        pytest.param([FLOWN[0], {**FLOWN[1], "delay_min": None}], [-4.0, None], id="withdrawn"),
        pytest.param(
            [FLOWN[0], {**FLOWN[1], "event_time": NOON - timedelta(days=8)}], [-4.0, None], id="older than its TTL"
        ),
        pytest.param(
            [FLOWN[0], {**FLOWN[1], "event_time": NOON - timedelta(days=6)}], [-4.0, 3.0], id="an older event"
        ),
    ],
)
def test_after_the_next_publish_online_is_offline_for_a_row_that_was(
    lake: Lake, rows: Sequence[dict[str, object]], expected: list[float | None]
) -> None:
    fill(lake, AIRCRAFT, rows)

    done = put(lake)

    assert served(lake, ["N2", "N3"]) == offline(lake, ["N2", "N3"], done) == expected


def test_the_standby_is_brought_to_a_release_by_the_difference_alone(lake: Lake) -> None:
    fill(lake, AIRCRAFT, [*FLOWN, {"tailnum": "N4", "event_time": NOON - HOUR, "delay_min": 1.0}])
    put(lake)
    # Side `b`, which is loaded now, holds N2 and N3 as they were first.
    fill(lake, AIRCRAFT, [FLOWN[0], {**FLOWN[1], "tailnum": "N5"}])

    done = put(lake)

    assert vars(done.loads["aircraft_history"]) == {"written": 1, "deleted": 1, "kept": 1}
    assert vars(done.loads["origin_weather"]) == {"written": 0, "deleted": 0, "kept": 2}
    assert served(lake, ["N2", "N3", "N4", "N5"]) == [-4.0, None, None, 3.0]


def test_a_release_can_be_put_back_with_its_deletions_and_without_a_write(lake: Lake) -> None:
    first = feature_lake.release(lake, 1)
    put(lake, first)
    fill(lake, AIRCRAFT, [{**FLOWN[1], "delay_min": 6.0}])
    put(lake, feature_lake.release(lake, 2))

    done = put(lake, first)

    assert done.switched
    assert {load.written + load.deleted for load in done.loads.values()} == {0}
    assert served(lake, ["N2", "N3"]) == [-4.0, 3.0]


def test_the_release_is_recorded_on_the_service_and_on_each_side(lake: Lake) -> None:
    put(lake, feature_lake.release(lake, 1))
    fill(lake, AIRCRAFT, FLOWN[:1])

    done = put(lake, feature_lake.release(lake, 2))

    standing = Standing.of(opened(lake), DATASET)
    assert (standing.live.release, standing.standby.release) == ("little/2", "little/1")
    assert (standing.live.side, standing.live.as_of) == (done.side, done.as_of.isoformat())


# --- what goes wrong ---


def test_a_wrong_online_value_is_named_and_the_service_is_not_switched(lake: Lake) -> None:
    fill(lake, AIRCRAFT, [{**FLOWN[0], "delay_min": 10.0}, FLOWN[1]])
    opened(lake).apply([*objects(DATASET, Standing(Holding("b"), Holding("a")))])
    execute(
        lake,
        "CREATE TRIGGER fault AFTER INSERT ON \"headrace_aircraft_history__a\" WHEN NEW.feature_name = 'delay_min'"
        " BEGIN UPDATE \"headrace_aircraft_history__a\" SET value = x'290000000000004940'"
        " WHERE feature_name = 'delay_min' AND entity_key = NEW.entity_key; END",
    )

    with pytest.raises(
        ProofFailedError,
        match=r"aircraft_history__a tailnum=N2: delay_min is 50.0 in the online store, 10.0 offline.*was not switched",
    ):
        put(lake)

    assert served(lake, ["N2", "N3"]) == [-4.0, 3.0]
    execute(lake, "DROP TRIGGER fault")
    assert put(lake).switched
    assert served(lake, ["N2", "N3"]) == [10.0, 3.0]


def test_a_key_deleted_and_another_added_behind_our_back_is_repaired_by_publishing_again(lake: Lake) -> None:
    execute(
        lake,
        "UPDATE \"headrace_aircraft_history__b\" SET entity_key = CAST(replace(CAST(entity_key AS TEXT), 'N2', 'N9')"
        " AS BLOB)",
    )
    assert served(lake, ["N2", "N9"]) == [None, -4.0]

    done = put(lake)

    assert done.switched
    assert served(lake, ["N2", "N9"]) == [-4.0, None]


def test_differences_are_keys_and_values_and_never_nulls_or_nans_that_agree() -> None:
    kinds = {"tailnum": pl.String(), "delay_min": pl.Float64(), "flights_7d": pl.Int32()}
    here = pl.DataFrame([("N1", None, 1), ("N2", float("nan"), 2), ("N3", 1.0, 3)], schema=kinds, orient="row")
    there = pl.DataFrame([("N1", None, None), ("N2", float("nan"), 2), ("N4", 1.0, 3)], schema=kinds, orient="row")

    found = [str(found) for found in differences(here, there, AIRCRAFT, "view", "online")]

    assert found == [
        "view tailnum=N3 is 'missing' online, 'there' offline",
        "view tailnum=N4 is 'there' online, 'missing' offline",
        "view tailnum=N1: flights_7d is None online, 1 offline",
    ]


def test_a_publish_that_died_before_the_switch_is_finished_by_the_next(lake: Lake) -> None:
    fill(lake, AIRCRAFT, [{**FLOWN[0], "delay_min": 10.0}])
    snapshot = Snapshot.of(DATASET, lake, "")
    sides = Sides.open(snapshot, lake.root / "feature_repo", feature_lake.settings(lake.root))
    sides.load(sides.standing.standby.side)
    assert served(lake, ["N2", "N3"]) == [-4.0, 3.0]

    done = put(lake)

    assert done.switched
    assert {load.written + load.deleted for load in done.loads.values()} == {0}
    assert served(lake, ["N2", "N3"]) == [10.0, None]


def test_a_publish_that_was_overtaken_does_not_switch(lake: Lake) -> None:
    snapshot = Snapshot.of(DATASET, lake, "")
    stale = Sides.open(snapshot, lake.root / "feature_repo", feature_lake.settings(lake.root))
    fill(lake, AIRCRAFT, [{**FLOWN[0], "delay_min": 10.0}])
    put(lake)

    with pytest.raises(OvertakenError, match="another publish switched it"):
        stale.switch(stale.standing.standby.side)

    assert served(lake, ["N2"]) == [10.0]


def test_two_publishes_at_once_are_refused(lake: Lake) -> None:
    with lake.lease("online/little"), pytest.raises(TableBusyError):
        put(lake)


def test_a_release_that_does_not_exist_changes_nothing(lake: Lake) -> None:
    feature_lake.release(lake, 1)

    with pytest.raises(UnknownReleaseError, match="no release little/7"):
        put(lake, "little/7")

    assert served(lake, ["N2"]) == [-4.0]


def test_a_table_without_a_partition_is_refused_with_the_command_that_makes_one(lake: Lake) -> None:
    fill(lake, AIRCRAFT, [])

    with pytest.raises(NothingToPublishError, match=r"aircraft_history has no partition\. Run `headrace run little`"):
        put(lake)


def test_a_stamp_from_the_future_that_ages_every_value_is_refused_with_the_time(lake: Lake) -> None:
    future = {"tailnum": "N2", "event_time": NOON, "known_time": NOON + timedelta(days=900), "delay_min": 1.0}
    little = replace(DATASET, features=(WEATHER, AIRCRAFT))
    fill(lake, AIRCRAFT, [future])

    with pytest.raises(NothingToPublishError, match=r"2015-06-28T12:00.*a stamp from the future"):
        put(lake, dataset=little)

    assert served(lake, ["N2"]) == [-4.0]


def test_a_row_in_the_partition_of_another_day_is_refused_with_partition_and_time(lake: Lake) -> None:
    table = lake.manifest("features/little/aircraft_history")
    lake.commit(table.with_partitions({"2013-01-08": table.partitions["2013-01-09"]}))

    with pytest.raises(MisplacedRowError, match=r"aircraft_history 2013-01-08: expected event times of that UTC day"):
        put(lake)


def test_an_online_store_that_can_not_be_written_is_named_and_nothing_is_switched(lake: Lake) -> None:
    fill(lake, AIRCRAFT, FLOWN[:1])
    opened(lake).apply([*objects(DATASET, Standing(Holding("b"), Holding("a")))])
    execute(
        lake,
        'CREATE TRIGGER full BEFORE INSERT ON "headrace_aircraft_history__a"'
        " BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END",
    )

    with pytest.raises(FeatureStoreError, match=r"online\.db.*aircraft_history__a.*disk is full.*publish again"):
        put(lake)

    assert served(lake, ["N2", "N3"]) == [-4.0, 3.0]


def test_a_feature_whose_type_feast_would_change_is_refused(lake: Lake) -> None:
    timed = replace(WEATHER, features={"observed_at": pl.Datetime("us", "UTC")})

    with pytest.raises(UnsupportedTypeError, match=r"observed_at is declared Datetime.*count of seconds"):
        put(lake, dataset=replace(DATASET, features=(timed,)))


def test_a_dataset_without_features_has_nothing_to_publish(lake: Lake) -> None:
    with pytest.raises(NothingToPublishError, match="little declares no features"):
        put(lake, dataset=replace(DATASET, features=()))


# --- what Feast is told ---


def test_the_registry_holds_every_entity_view_and_service_that_the_datasets_declare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEAST_REGISTRY_URL", f"sqlite:///{tmp_path}/registry.db")
    monkeypatch.setenv("FEAST_ONLINE_STORE_PATH", f"{tmp_path}/online.db")
    found = runpy.run_path(str(feature_lake.REPO / "feature_repo" / "definitions.py"))
    named: list[Any] = [item for item in found.values() if isinstance(item, Entity | FeatureView | FeatureService)]
    store = open_store(feature_lake.REPO / "feature_repo", feature_lake.settings(tmp_path))

    store.apply(named)

    tables = [table for name in NAMES for table in load(name).features]
    assert {view.name for view in store.list_feature_views()} == {f"{t.name}__{s}" for t in tables for s in "ab"}
    assert {entity.name for entity in store.list_entities()} >= {key for table in tables for key in table.keys}
    assert {service.name for service in store.list_feature_services()} == {load(name).service for name in NAMES}
    columns = {view.name: {field.name for field in view.features} for view in store.list_feature_views()}
    assert all(columns[f"{table.name}__a"] == set(table.features) for table in tables)


def test_definitions_applied_by_hand_switch_nothing(lake: Lake) -> None:
    store = opened(lake)
    standing = Standing.of(store, DATASET)

    store.apply([*objects(DATASET, standing)])

    assert Standing.of(store, DATASET) == standing
    assert (standing.live.side, put(lake).switched) == ("b", False)
    assert served(lake, ["N2"]) == [-4.0]


def test_no_other_verb_pays_for_feast() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, pipelines.publish, pipelines.retrieve; print('feast' in sys.modules)"],
        capture_output=True,
        check=True,
        text=True,
    )

    assert done.stdout == "False\n"
