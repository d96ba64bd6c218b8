"""A publish that would empty the online store is refused, and what was live stays live, until a person accepts it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import feature_workspace
import pytest
from feature_workspace import NOON, WEATHER, open_workspace_store, tag_release, write_table
from msgspec import structs
from published import published, table_store

from headrace.dataset import Dataset, Guards
from headrace.guards.finding import FindingRecord
from headrace.guards.finding_log import open_publish_log
from headrace.guards.gate import FindingsError, accept_finding
from headrace.publish import guards
from headrace.publish.publish import PublishOptions, PublishResult, publish
from headrace.retrieve.errors import NothingToPublishError
from headrace.storage.table_store import TableStore

__all__ = ["published", "table_store"]

FUTURE = datetime(2999, 1, 1, tzinfo=UTC)
DATASET = replace(
    feature_workspace.DATASET, features=(WEATHER,), service="weather_service", name="little", guards=Guards()
)
ABC = [{"origin": name, "event_time": NOON, "temp_c": 1.0} for name in "abc"]


def publish_rows(
    table_store: TableStore, rows: Sequence[dict[str, Any]], dataset: Dataset = DATASET, *, verify_all: bool = False
) -> PublishResult:
    write_table(table_store, WEATHER, rows)
    options = PublishOptions(verify_all=verify_all)
    return publish(dataset, table_store, feature_workspace.settings(table_store.root), how=options)


def online(table_store: TableStore, *origins: str) -> list[float | None]:
    store = open_workspace_store(table_store)
    service = store.get_feature_service(DATASET.service)
    answer = store.get_online_features(service, [{"origin": name} for name in origins]).to_dict()
    values: list[float | None] = answer["temp_c"]
    return values


def accept_all(table_store: TableStore, refused: FindingsError) -> None:
    for finding in refused.findings:
        accept_finding(open_publish_log(table_store, "little"), finding.id, by="ann", reason="a test")


@pytest.fixture
def abc(table_store: TableStore) -> TableStore:
    """A workspace in which a, b and c are online."""
    publish_rows(table_store, ABC)
    assert online(table_store, "a", "b", "c") == [1.0, 1.0, 1.0]
    return table_store


@pytest.mark.parametrize("time", [FUTURE, NOON + timedelta(days=400)])
def test_one_row_ahead_of_all_others_does_not_empty_the_online_store(abc: TableStore, time: datetime) -> None:
    with pytest.raises(FindingsError) as refused:
        publish_rows(abc, [*ABC, {"origin": "d", "event_time": time, "temp_c": 9.0}])

    text = str(refused.value)
    assert "online/little/origin_weather: 3 of 3 keys would vanish (origin=a, origin=b, origin=c)" in text
    assert f"{time.isoformat()}, comes from origin=d in features/little/origin_weather {time.date()}" in text
    assert "Tables of a workspace stays online. Find out why. If it is intended, run `headrace accept little" in text
    assert online(abc, "a", "b", "c", "d") == [1.0, 1.0, 1.0, None]


def test_a_row_beyond_the_clock_is_a_finding_of_its_own(abc: TableStore) -> None:
    with pytest.raises(FindingsError) as refused:
        publish_rows(abc, [*ABC, {"origin": "d", "event_time": FUTURE, "temp_c": 9.0}])

    assert [each.check for each in refused.value.findings] == ["vanished", "future"]
    assert refused.value.findings[1].partition == "2999-01-01"


def test_accepted_findings_pass_and_the_report_has_them(abc: TableStore) -> None:
    rows = [*ABC, {"origin": "d", "event_time": FUTURE, "temp_c": 9.0}]
    with pytest.raises(FindingsError) as refused:
        publish_rows(abc, rows)
    accept_all(abc, refused.value)

    done = publish_rows(abc, rows)

    assert [each.reason for each in done.accepted] == ["a test", "a test"]
    assert done.report["accepted"][0]["by"] == "ann"
    assert online(abc, "a", "d") == [None, 9.0]
    assert open_publish_log(abc, "little").read().acceptances == ()


def test_other_bytes_need_their_own_acceptance(abc: TableStore) -> None:
    row = {"origin": "d", "event_time": NOON + timedelta(days=1), "temp_c": 9.0}
    with pytest.raises(FindingsError) as refused:
        publish_rows(abc, [*ABC, row])
    accept_all(abc, refused.value)

    with pytest.raises(FindingsError, match="3 of 3 keys"):
        publish_rows(abc, [*ABC, {**row, "temp_c": 8.0}])


def test_deleted_rows_are_refused_by_key(abc: TableStore) -> None:
    four = [*ABC, {**ABC[0], "origin": "e"}]
    publish_rows(abc, four)

    with pytest.raises(FindingsError, match=r"3 of 4 keys would vanish \(origin=b, origin=c, origin=e\)"):
        publish_rows(abc, ABC[:1])


def test_one_or_two_keys_may_go_while_others_stay(abc: TableStore) -> None:
    assert publish_rows(abc, ABC[:1]).switched


def test_the_last_key_may_not_go_unseen(abc: TableStore) -> None:
    publish_rows(abc, ABC[:1])

    with pytest.raises(FindingsError, match=r"1 of 1 key would vanish \(origin=a\)"):
        publish_rows(abc, [{"origin": "z", "event_time": NOON + timedelta(days=1)}])


def test_half_of_the_keys_may_go(abc: TableStore) -> None:
    assert publish_rows(abc, ABC[:2]).switched


def test_keys_that_replace_others_do_not_make_up_for_them(abc: TableStore) -> None:
    others = [{**row, "origin": f"{row['origin']}2"} for row in ABC]

    with pytest.raises(FindingsError, match="3 of 3 keys would vanish"):
        publish_rows(abc, others)


def test_the_bounds_are_declared(abc: TableStore) -> None:
    loose = replace(DATASET, guards=Guards(max_vanished_share=1, max_future=None))

    done = publish_rows(abc, [*ABC, {"origin": "d", "event_time": FUTURE, "temp_c": 9.0}], loose)

    assert done.switched
    assert list(done.accepted) == []


def test_a_first_publish_has_no_keys_that_could_vanish(table_store: TableStore) -> None:
    first = replace(DATASET, name="little", service="another_service")

    assert publish_rows(table_store, ABC, first).switched


def test_a_first_publish_with_a_row_of_the_future_is_refused(table_store: TableStore) -> None:
    with pytest.raises(FindingsError, match="2999-01-01T00:00:00"):
        publish_rows(table_store, [{"origin": "d", "event_time": FUTURE, "temp_c": 9.0}])


def test_a_known_time_of_the_future_that_leaves_nothing_is_named(abc: TableStore) -> None:
    late = [{**row, "known_time": FUTURE} for row in ABC]

    with pytest.raises(NothingToPublishError, match="a source has a time in the future"):
        publish_rows(abc, late)

    assert online(abc, "a", "b", "c") == [1.0, 1.0, 1.0]


def test_a_known_time_of_the_future_beside_good_rows_is_named(abc: TableStore) -> None:
    late = {**ABC[0], "known_time": FUTURE}
    fresh = {"origin": "z", "event_time": FUTURE - timedelta(hours=1), "known_time": FUTURE, "temp_c": 2.0}

    with pytest.raises(FindingsError, match="3 of 3 keys would vanish"):
        publish_rows(abc, [late, *ABC[1:], fresh])


def test_releases_are_compared_by_the_partitions_that_differ(abc: TableStore) -> None:
    for number in (1, 2):
        write_table(abc, WEATHER, [*ABC, {"origin": "e", "event_time": NOON - timedelta(hours=number)}])
        publish(DATASET, abc, feature_workspace.settings(abc.root), tag_release(abc, number))
    write_table(abc, WEATHER, ABC[:1])
    release = tag_release(abc, 3)

    with pytest.raises(FindingsError, match=r"3 of 4 keys would vanish \(origin=b, origin=c, origin=e\).*little/2 has"):
        publish(DATASET, abc, feature_workspace.settings(abc.root), release)

    assert online(abc, "a", "b", "c") == [1.0, 1.0, 1.0]


def test_what_a_publish_has_reported_leaves_the_log_and_findings_of_other_steps_stay(abc: TableStore) -> None:
    rows = [*ABC, {"origin": "d", "event_time": FUTURE, "temp_c": 9.0}]
    with pytest.raises(FindingsError) as refused:
        publish_rows(abc, rows)
    accept_all(abc, refused.value)
    log = open_publish_log(abc, "little")
    [first, *_] = log.read().findings
    other = structs.replace(first, step="ingest")
    log.update(lambda record: FindingRecord((*record.findings, other), record.acceptances))

    publish_rows(abc, rows)

    assert [each.step for each in log.read().findings] == ["ingest"]


@pytest.mark.parametrize(("beyond", "is_found"), [(timedelta(0), False), (timedelta(microseconds=1), True)])
def test_a_release_may_be_as_far_ahead_as_the_guard_says(
    abc: TableStore, monkeypatch: pytest.MonkeyPatch, *, beyond: timedelta, is_found: bool
) -> None:
    dataset = replace(DATASET, guards=Guards(max_future=timedelta(days=1), max_vanished_share=1))
    monkeypatch.setattr(guards, "clock", lambda: NOON + timedelta(hours=1) - beyond)
    row = {"origin": "d", "event_time": NOON + timedelta(days=1, hours=1), "temp_c": 9.0}

    if is_found:
        with pytest.raises(FindingsError, match="beyond"):
            publish_rows(abc, [*ABC, row], dataset)
    else:
        assert publish_rows(abc, [*ABC, row], dataset).switched
