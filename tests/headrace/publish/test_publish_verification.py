"""A publish switches only to what all of its readers would get, and when nobody reads the slot any more.

The online store is compared with the latest rows; point-in-time retrieval and Feast's own online read with both.
"""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import feature_workspace
import polars as pl
import pytest
from feature_workspace import (
    AIRCRAFT,
    AIRCRAFT_ROWS,
    DATASET,
    HOUR,
    NOON,
    execute_on_sqlite,
    online_delays,
    open_workspace_store,
    publish_release,
    tag_release,
    write_table,
)
from published import published, table_store

from headrace.feast.definitions import DeploymentState, SlotState, dataset_objects
from headrace.feast.online_stores.response_builder import FastOnlineResponse
from headrace.feast.publish_log import PublishLog
from headrace.feast.retrieval_job import HeadraceRetrievalJob
from headrace.publish.blue_green import Sides
from headrace.publish.publish import PublishOptions, publish
from headrace.publish.snapshot import Snapshot
from headrace.retrieve.errors import VerificationFailedError
from headrace.storage.table_store import TableStore

__all__ = ["published", "table_store"]


def test_a_value_that_point_in_time_retrieval_answers_otherwise_is_not_switched_to(
    table_store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(table_store, AIRCRAFT, [{**AIRCRAFT_ROWS[0], "delay_min": 10.0}, AIRCRAFT_ROWS[1]])
    answer = HeadraceRetrievalJob.to_polars

    def wrong_answer(job: HeadraceRetrievalJob) -> pl.DataFrame:
        rows = answer(job)
        return rows.with_columns(pl.col("^delay_min$").replace(10.0, 11.0))

    with monkeypatch.context() as patch:
        patch.setattr(HeadraceRetrievalJob, "to_polars", wrong_answer)
        with pytest.raises(VerificationFailedError, match=r"N2: delay_min is 11.0 for a request at that time, 10.0"):
            publish_release(table_store)

    assert online_delays(table_store, ["N2"]) == [-4.0]
    assert publish_release(table_store).switched


def test_a_value_that_feast_serves_otherwise_is_not_switched_to(
    table_store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(table_store, AIRCRAFT, [{**AIRCRAFT_ROWS[0], "delay_min": 10.0}, AIRCRAFT_ROWS[1]])
    answer = FastOnlineResponse.to_dict

    def wrong_answer(response: FastOnlineResponse) -> dict[str, list[object]]:
        columns = answer(response)
        return {name: [11.0 if value == 10.0 else value for value in values] for name, values in columns.items()}

    with monkeypatch.context() as patch:
        patch.setattr(FastOnlineResponse, "to_dict", wrong_answer)
        with pytest.raises(VerificationFailedError, match=r"N2: delay_min is 11.0 from get_online_features, 10.0"):
            publish_release(table_store)

    assert online_delays(table_store, ["N2"]) == [-4.0]


def test_of_many_keys_64_spread_over_all_are_read_through_feast(table_store: TableStore) -> None:
    rows = [{"tailnum": f"M{number:03}", "event_time": NOON, "delay_min": float(number)} for number in range(200)]
    write_table(table_store, AIRCRAFT, rows)

    [aircraft] = [each for each in publish_release(table_store).verifications if each.view.startswith(AIRCRAFT.name)]

    assert (aircraft.served_keys, aircraft.compared_keys, aircraft.compared_values) == (64, 200, 400)


# --- the readers of the slot that is loaded ---


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that a publish waited, instead of waiting."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


def test_a_slot_is_loaded_only_when_no_server_can_still_read_it(table_store: TableStore, waits: list[float]) -> None:
    write_table(table_store, AIRCRAFT, AIRCRAFT_ROWS[:1])
    settings, patient = feature_workspace.settings(table_store.root), PublishOptions(wait_for_readers=True)
    set_switched_at(table_store, datetime.now(UTC))

    assert publish(DATASET, table_store, settings, how=patient).switched

    [seconds] = waits
    ttl_s = 10  # cache_ttl_seconds of feature_store.yaml
    assert ttl_s - 5 < seconds <= ttl_s


def test_nothing_is_waited_for_once_every_server_has_looked_or_if_nobody_asked(
    table_store: TableStore, waits: list[float]
) -> None:
    settings, patient = feature_workspace.settings(table_store.root), PublishOptions(wait_for_readers=True)
    set_switched_at(table_store, datetime.now(UTC))
    write_table(table_store, AIRCRAFT, AIRCRAFT_ROWS[:1])
    assert publish(DATASET, table_store, settings).switched
    set_switched_at(table_store, datetime.now(UTC) - HOUR)
    write_table(table_store, AIRCRAFT, AIRCRAFT_ROWS)
    assert publish(DATASET, table_store, settings, how=patient).switched

    assert waits == []


def set_switched_at(table_store: TableStore, moment: datetime) -> None:
    """Record the last switch as of that time."""
    change_note(table_store, f"switched_at = '{moment.isoformat()}'")


# --- what is known of a slot ---


def test_what_a_slot_held_is_known_only_by_the_digest_that_it_was_verified_with(table_store: TableStore) -> None:
    release = tag_release(table_store, 1)
    snapshot = Snapshot.read(DATASET, table_store, release)
    write_table(table_store, AIRCRAFT, AIRCRAFT_ROWS[:1])
    sides = Sides.open(
        Snapshot.read(DATASET, table_store, ""),
        table_store.root / "feature_repo",
        feature_workspace.settings(table_store.root),
    )
    with closing(sides):
        held = SlotState("a", release, snapshot.digest, snapshot.now.isoformat())
        known = sides.verified_snapshot(held)
        unknown = (
            sides.verified_snapshot(replace(held, digest="that of other tables")),
            sides.verified_snapshot(replace(held, release="little/7")),
            sides.verified_snapshot(replace(held, release="")),
            sides.verified_snapshot(replace(held, digest="")),
        )

    assert known is not None
    assert known.digest == snapshot.digest
    assert unknown == (None,) * 4


def test_a_live_slot_that_holds_the_release_already_is_noted_with_the_release(table_store: TableStore) -> None:
    first = publish_release(table_store, tag_release(table_store, 1))
    change_note(table_store, "proof = ''")

    again = publish_release(table_store, "little/1")

    assert (again.switched, again.slot) == (False, first.slot)
    noted = read_note(table_store)
    assert (noted["release"], noted["digest"]) == ("little/1", first.digest)


def test_a_note_of_another_release_or_digest_is_replaced_by_that_of_the_live_slot(table_store: TableStore) -> None:
    publish_release(table_store, tag_release(table_store, 1))
    for name in ("release", "digest"):
        change_note(table_store, f"proof = json_set(proof, '$.{name}', 'another')")

        assert not publish_release(table_store, "little/1").switched

        assert read_note(table_store)[name] != "another"


@contextmanager
def open_publish_log(table_store: TableStore) -> Iterator[PublishLog]:
    """The log beside the registry of the workspace."""
    with closing(PublishLog.at(f"sqlite:///{table_store.root}/feast/registry.db", DATASET.name)) as publish_log:
        yield publish_log


def read_note(table_store: TableStore) -> dict[str, object]:
    """What the last publish recorded."""
    with open_publish_log(table_store) as publish_log:
        noted = publish_log.online()
    return noted.report if noted else {}


def change_note(table_store: TableStore, assignment: str) -> None:
    """Change what the last publish recorded."""
    with open_publish_log(table_store) as publish_log, publish_log.engine.begin() as database:
        database.exec_driver_sql(f"UPDATE headrace_publications SET {assignment}")  # noqa: S608  of the test


# --- what is compared ---


def test_a_sample_has_so_many_keys_of_many_and_all_of_a_few_and_is_always_the_same(table_store: TableStore) -> None:
    rows = [
        {"tailnum": f"M{number:03}", "event_time": NOON - day * timedelta(days=1), "delay_min": 1.0}
        for day in range(3)
        for number in range(day * 50, day * 50 + 60)
    ]
    write_table(table_store, AIRCRAFT, rows)
    snapshot = Snapshot.read(DATASET, table_store, "")

    few, all_of_them = snapshot.sample(AIRCRAFT, 20)["tailnum"], snapshot.sample(AIRCRAFT, 1000)["tailnum"]

    assert (few.len(), few.n_unique()) == (20, 20)
    assert max(few) > f"M{int(min(few)[1:]) + 30:03}", "spread over its partition, not the first ones of it"
    assert sorted(all_of_them) == [f"M{number:03}" for number in range(160)]
    assert Snapshot.read(DATASET, table_store, "").sample(AIRCRAFT, 20)["tailnum"].equals(few)


def test_the_newest_event_and_the_newest_knowledge_of_a_table_are_told_apart(table_store: TableStore) -> None:
    write_table(table_store, AIRCRAFT, [{**AIRCRAFT_ROWS[0], "known_time": NOON + HOUR}, AIRCRAFT_ROWS[1]])

    span = Snapshot.read(DATASET, table_store, "").spans[AIRCRAFT.name]

    assert (span.event, span.known) == (NOON - HOUR, NOON + HOUR)


def test_a_key_that_is_stored_as_another_is_missing_and_superfluous_and_is_not_switched_to(
    table_store: TableStore,
) -> None:
    write_table(table_store, AIRCRAFT, [{**AIRCRAFT_ROWS[0], "delay_min": 10.0}, AIRCRAFT_ROWS[1]])
    open_workspace_store(table_store).apply(
        [*dataset_objects(DATASET, DeploymentState(SlotState("b"), SlotState("a")))]
    )
    execute_on_sqlite(
        table_store,
        "CREATE TRIGGER fault AFTER INSERT ON headrace_aircraft_history__a BEGIN UPDATE headrace_aircraft_history__a"
        " SET entity_key = CAST(replace(CAST(entity_key AS TEXT), 'N3', 'N9') AS BLOB); END",
    )

    with pytest.raises(VerificationFailedError) as refused:
        publish_release(table_store)

    assert "tailnum=N3 is 'missing' in the online store, 'there' offline" in str(refused.value)
    assert "tailnum=N9 is 'there' in the online store, 'missing' offline" in str(refused.value)
