"""Publish promises: whatever goes wrong, what was live stays live, and the message says what, where and what to do.

Faults are made in the real files and databases, by triggers and by hand.
"""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import feature_workspace
import polars as pl
import pytest
from feature_workspace import (
    AIRCRAFT,
    AIRCRAFT_ROWS,
    DATASET,
    NOON,
    ROUTES,
    WEATHER,
    execute_on_sqlite,
    online_delays,
    open_workspace_store,
    publish_release,
    write_table,
)
from published import published, table_store

from headrace.errors import HeadraceError, TableLockedError
from headrace.feast.definitions import DeploymentState, SlotState, dataset_objects, refuse_same_names
from headrace.feast.publish_log import PublisherFencedError, PublishLog, RegistryError
from headrace.publish.blue_green import Sides
from headrace.publish.snapshot import Snapshot
from headrace.publish.verification import differences
from headrace.retrieve.errors import (
    FeatureStoreError,
    MisplacedRowError,
    NameConflictError,
    NothingToPublishError,
    UnknownReleaseError,
    UnsupportedTypeError,
    VerificationFailedError,
)
from headrace.storage.table_store import TableStore

__all__ = ["published", "table_store"]


# --- what goes wrong ---


def test_a_wrong_online_value_is_named_and_the_service_is_not_switched(table_store: TableStore) -> None:
    write_table(table_store, AIRCRAFT, [{**AIRCRAFT_ROWS[0], "delay_min": 10.0}, AIRCRAFT_ROWS[1]])
    open_workspace_store(table_store).apply(
        [*dataset_objects(DATASET, DeploymentState(SlotState("b"), SlotState("a")))]
    )
    execute_on_sqlite(
        table_store,
        "CREATE TRIGGER fault AFTER INSERT ON headrace_aircraft_history__a"
        " BEGIN UPDATE headrace_aircraft_history__a SET delay_min = x'290000000000004940'"
        " WHERE entity_key = NEW.entity_key; END",
    )

    with pytest.raises(
        VerificationFailedError,
        match=r"aircraft_history__a tailnum=N2: delay_min is 50.0 in the online store, 10.0 offline.*was not switched",
    ):
        publish_release(table_store)

    assert online_delays(table_store, ["N2", "N3"]) == [-4.0, 3.0]
    execute_on_sqlite(table_store, "DROP TRIGGER fault")
    assert publish_release(table_store).switched
    assert online_delays(table_store, ["N2", "N3"]) == [10.0, 3.0]


def test_a_key_deleted_and_another_added_behind_our_back_is_repaired_by_publishing_again(
    table_store: TableStore,
) -> None:
    execute_on_sqlite(
        table_store,
        "UPDATE headrace_aircraft_history__b SET entity_key = CAST(replace(CAST(entity_key AS TEXT),"
        " 'N2', 'N9') AS BLOB)",
    )
    assert online_delays(table_store, ["N2", "N9"]) == [None, -4.0]

    done = publish_release(table_store)

    assert done.switched
    assert online_delays(table_store, ["N2", "N9"]) == [-4.0, None]


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


def test_a_publish_that_died_before_the_switch_is_finished_by_the_next(table_store: TableStore) -> None:
    write_table(table_store, AIRCRAFT, [{**AIRCRAFT_ROWS[0], "delay_min": 10.0}])
    snapshot = Snapshot.read(DATASET, table_store, "")
    sides = Sides.open(snapshot, table_store.root / "feature_repo", feature_workspace.settings(table_store.root))
    sides.attempt().load(sides.expected(None, {}))
    sides.close()
    assert online_delays(table_store, ["N2", "N3"]) == [-4.0, 3.0]

    done = publish_release(table_store)

    assert done.switched
    assert {load.written + load.deleted for load in done.loads.values()} == {0}
    assert online_delays(table_store, ["N2", "N3"]) == [10.0, None]


def test_a_publish_that_was_overtaken_does_not_switch(table_store: TableStore) -> None:
    snapshot = Snapshot.read(DATASET, table_store, "")
    stale = Sides.open(snapshot, table_store.root / "feature_repo", feature_workspace.settings(table_store.root))
    attempt, expected = stale.attempt(), stale.expected(None, {})
    write_table(table_store, AIRCRAFT, [{**AIRCRAFT_ROWS[0], "delay_min": 10.0}])
    publish_release(table_store)

    with pytest.raises(
        PublisherFencedError, match=r"publish 2 was fenced off .* by the later publish 3|a later publish \(3\)"
    ):
        attempt.load(expected)
    with pytest.raises(PublisherFencedError, match=r"a later publish \(3\) than this one \(2\) holds the lead"):
        attempt.switch({}, {})

    stale.close()
    assert online_delays(table_store, ["N2"]) == [10.0]


def test_two_publishes_at_once_are_refused(table_store: TableStore) -> None:
    with table_store.lock_table("online/little"), pytest.raises(TableLockedError):
        publish_release(table_store)


def test_a_release_that_does_not_exist_changes_nothing(table_store: TableStore) -> None:
    feature_workspace.tag_release(table_store, 1)

    with pytest.raises(UnknownReleaseError, match="no release little/7"):
        publish_release(table_store, "little/7")

    assert online_delays(table_store, ["N2"]) == [-4.0]


def test_a_table_without_a_partition_is_refused_with_the_command_that_makes_one(table_store: TableStore) -> None:
    write_table(table_store, AIRCRAFT, [])

    with pytest.raises(NothingToPublishError, match=r"aircraft_history has no partition\. Run `headrace run little`"):
        publish_release(table_store)


def test_a_stamp_from_the_future_that_ages_every_value_is_refused_with_the_time(table_store: TableStore) -> None:
    future = {"tailnum": "N2", "event_time": NOON, "known_time": NOON + timedelta(days=900), "delay_min": 1.0}
    write_table(table_store, AIRCRAFT, [future])
    write_table(table_store, ROUTES, [{"carrier_id": None, "origin": "EWR", "event_time": NOON}])

    with pytest.raises(NothingToPublishError, match=r"2015-06-28T12:00.*a time in the future"):
        publish_release(table_store)

    assert online_delays(table_store, ["N2"]) == [-4.0]


def test_a_row_in_the_partition_of_another_day_is_refused_with_partition_and_time(table_store: TableStore) -> None:
    table = table_store.manifest("features/little/aircraft_history")
    table_store.checkout(table.with_partitions({"2013-01-08": table.partitions["2013-01-09"]}))

    with pytest.raises(
        MisplacedRowError, match=r"aircraft_history 2013-01-08: expected event times from 2013-01-08T00"
    ):
        publish_release(table_store)


def test_an_online_store_that_can_not_be_written_is_named_and_nothing_is_switched(table_store: TableStore) -> None:
    write_table(table_store, AIRCRAFT, AIRCRAFT_ROWS[:1])
    open_workspace_store(table_store).apply(
        [*dataset_objects(DATASET, DeploymentState(SlotState("b"), SlotState("a")))]
    )
    execute_on_sqlite(
        table_store,
        'CREATE TRIGGER full BEFORE INSERT ON "headrace_aircraft_history__a"'
        " BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END",
    )

    with pytest.raises(
        FeatureStoreError, match=r"online\.db.*aircraft_history__a.*disk is full.*publish again"
    ) as full:
        publish_release(table_store)

    assert not full.value.is_transient
    assert online_delays(table_store, ["N2", "N3"]) == [-4.0, 3.0]


def test_a_registry_that_fails_at_the_switch_is_named_and_the_next_publish_completes_it(
    table_store: TableStore,
) -> None:
    write_table(table_store, AIRCRAFT, AIRCRAFT_ROWS[:1])
    registry = table_store.root / "feast" / "registry.db"
    with closing(sqlite3.connect(registry)) as database:
        database.execute(
            "CREATE TRIGGER down BEFORE UPDATE ON feature_services BEGIN SELECT RAISE(ABORT, 'no space left'); END"
        )

    named = r"little: the registry's database at .* refuses: .*no space left.* What was served"
    with pytest.raises(RegistryError, match=named) as full:
        publish_release(table_store)

    assert not full.value.is_transient
    assert online_delays(table_store, ["N2", "N3"]) == [-4.0, 3.0]
    with closing(sqlite3.connect(registry)) as database:
        database.execute("DROP TRIGGER down")
    assert publish_release(table_store).switched
    assert online_delays(table_store, ["N2", "N3"]) == [-4.0, None]


@pytest.mark.parametrize("damage", ["missing", "corrupt"])
def test_a_partition_that_is_missing_or_corrupt_is_named_and_nothing_is_switched(
    table_store: TableStore, damage: str
) -> None:
    write_table(table_store, AIRCRAFT, [{**AIRCRAFT_ROWS[0], "delay_min": 12.0}])
    path = table_store.cache.path(table_store.manifest("features/little/aircraft_history").partitions["2013-01-09"].md5)
    path.unlink()
    if damage == "corrupt":
        path.write_bytes(b"PAR1 but no more")

    with pytest.raises(HeadraceError, match=r"features/little/aircraft_history 2013-01-09|remote"):
        publish_release(table_store)

    assert online_delays(table_store, ["N2", "N3"]) == [-4.0, 3.0]


def test_a_feature_whose_type_feast_would_change_is_refused(table_store: TableStore) -> None:
    timed = replace(WEATHER, features={"observed_at": pl.Datetime("us", "UTC")})

    with pytest.raises(UnsupportedTypeError, match=r"observed_at is declared as Datetime.*count of seconds"):
        publish_release(table_store, dataset=replace(DATASET, features=(timed,)))


def test_a_dataset_without_features_has_nothing_to_publish(table_store: TableStore) -> None:
    with pytest.raises(NothingToPublishError, match="little declares no features"):
        publish_release(table_store, dataset=replace(DATASET, features=()))


def test_two_datasets_with_a_feature_table_of_one_name_are_refused_and_what_is_served_stays(
    table_store: TableStore,
) -> None:
    other = replace(DATASET, name="other", service="other_service")

    with pytest.raises(
        NameConflictError, match=r"other names a feature table or service origin_weather, and so does lit"
    ):
        refuse_same_names([DATASET, other])
    table_store.checkout(
        replace(table_store.manifest("features/little/origin_weather"), table="features/other/origin_weather")
    )
    table_store.checkout(
        replace(table_store.manifest("features/little/aircraft_history"), table="features/other/aircraft_history")
    )
    table_store.checkout(
        replace(table_store.manifest("features/little/route_traffic"), table="features/other/route_traffic")
    )
    with pytest.raises(NameConflictError, match=r"other_origin_weather"):
        publish_release(table_store, dataset=other)

    assert online_delays(table_store, ["N2", "N3"]) == [-4.0, 3.0]


def test_a_registry_that_refuses_the_publishers_row_is_named_with_its_reason(tmp_path: Path) -> None:
    registry = tmp_path / "registry.db"
    with closing(sqlite3.connect(f"{registry}.headrace")) as database:
        database.execute(
            "CREATE TABLE headrace_publications (dataset TEXT PRIMARY KEY, generation INTEGER CHECK (generation > 0),"
            " switched_at TEXT, proof TEXT)"
        )

    refused = pytest.raises(RegistryError, match=r"little: the registry.*refuses.*CHECK constraint failed")
    with closing(PublishLog.at(f"sqlite:///{registry}", "little")) as publish_log, refused:
        publish_log.take_lead()


def test_a_publisher_whose_row_is_gone_does_not_take_it_for_a_later_publish(tmp_path: Path) -> None:
    registry = tmp_path / "registry.db"
    with closing(PublishLog.at(f"sqlite:///{registry}", "little")) as publish_log:
        generation = publish_log.take_lead()
        with closing(sqlite3.connect(f"{registry}.headrace", isolation_level=None)) as database:
            database.execute("DELETE FROM headrace_publications")

        lost = pytest.raises(RegistryError, match=r"has lost who publishes it.*headrace publish little")
        with lost, publish_log.hold_lead(generation):
            pytest.fail("nobody holds the lead")


def test_publishers_that_make_their_row_at_once_get_generations_of_their_own(tmp_path: Path) -> None:
    def take_lead(_number: int) -> int:
        with closing(PublishLog.at(f"sqlite:///{tmp_path}/registry.db", "little")) as publish_log:
            return publish_log.take_lead()

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(take_lead, range(8))) == list(range(1, 9))
