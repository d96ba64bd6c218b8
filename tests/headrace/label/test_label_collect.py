"""Label Studio → annotations → labels: each answer is collected once, kept for ever, and counts for one item's label.

Everything runs against a real Label Studio; answers are given by annotators with accounts of their own.
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from label_campaign import ANNOTATIONS, DAYS, LABELS, REJECTED, Campaign, simulate_kill
from label_server import Annotator

from headrace.dataset import Guards
from headrace.errors import HeadraceError, NotConfiguredError
from headrace.guards.gate import FindingsError
from headrace.label.errors import LabelsWouldVanishError
from headrace.label.label_studio.tasks import Json, ProjectTasks

pytestmark = pytest.mark.slow


def test_an_answer_becomes_a_label_that_joins_back_to_its_row(campaign: Campaign, ann: Annotator) -> None:
    campaign.send()
    ann.submit(campaign.tasks()["ride-4"], "weather")

    collected = campaign.collect()

    [row], [event] = campaign.rows(LABELS), campaign.rows(ANNOTATIONS)
    assert (collected.events, collected.annotation_partitions, collected.labels) == ({"created": 1}, ("2013-01-02",), 1)
    assert row == {
        "started_at": datetime(2013, 1, 2, 12, tzinfo=UTC), "car": 4, "sample_id": "ride-4",
        "event_time": datetime(2013, 1, 2, 12, tzinfo=UTC), "known_time": event["updated_at"], "label": "weather",
        "votes": 1, "agreement": 1.0, "confidence": 1.0, "annotation_ids": [event["annotation_id"]],
    }  # fmt: skip
    assert (event["event"], event["choice"], event["lead_time_s"]) == ("created", "weather", 2.5)
    joined = campaign.table_store.scan("validated/rides/rides").join(
        campaign.table_store.scan(LABELS), on=["started_at", "car"]
    )
    assert joined.collect()["label"].to_list() == ["weather"]


def test_annotators_enter_the_history_under_a_pseudonym_that_needs_the_secret(
    campaign: Campaign, ann: Annotator, bob: Annotator
) -> None:
    campaign.send()
    tasks = campaign.tasks()
    for person, ride in ((ann, "ride-0"), (ann, "ride-1"), (bob, "ride-2")):
        person.submit(tasks[ride], "weather")
    campaign.collect()

    [first, second, other] = [row["annotator"] for row in campaign.rows(ANNOTATIONS)]
    assert first == second != other
    assert "example.com" not in str(campaign.rows(ANNOTATIONS))
    campaign.settings = campaign.settings.model_copy(update={"pseudonym_key": None})
    with pytest.raises(NotConfiguredError, match="HEADRACE_PSEUDONYM_KEY"):
        campaign.collect()


def test_collecting_twice_changes_no_byte(campaign: Campaign, ann: Annotator) -> None:
    campaign.send()
    for task in campaign.tasks().values():
        ann.submit(task, "carrier")
    campaign.collect()
    before = {path: path.read_bytes() for path in sorted((campaign.table_store.root / "data").rglob("*.*"))}

    again = campaign.collect()

    assert (again.events, again.annotation_partitions, again.label_partitions) == ({}, (), ())
    assert {path: path.read_bytes() for path in sorted((campaign.table_store.root / "data").rglob("*.*"))} == before


@pytest.mark.usefixtures("changes")
def test_a_changed_answer_changes_exactly_the_day_of_its_item_and_the_history_keeps_the_old_one(
    campaign: Campaign, ann: Annotator
) -> None:
    campaign.send()
    given = {ride: ann.submit(task, "carrier") for ride, task in campaign.tasks().items()}
    campaign.collect()
    labels, annotations = campaign.md5s(LABELS), campaign.md5s(ANNOTATIONS)

    ann.edit(given["ride-5"], "weather")
    collected = campaign.collect()

    assert collected.events == {"changed": 1}
    assert collected.annotation_partitions == collected.label_partitions == ("2013-01-02",)
    assert campaign.md5s(LABELS)["2013-01-01"] == labels["2013-01-01"]
    assert campaign.md5s(ANNOTATIONS)["2013-01-01"] == annotations["2013-01-01"]
    assert campaign.labels()["ride-5"] == "weather"
    history = [(row["event"], row["choice"]) for row in campaign.rows(ANNOTATIONS) if row["sample_id"] == "ride-5"]
    assert history == [("created", "carrier"), ("changed", "weather")]


def test_a_skip_is_never_a_label_though_it_carries_an_answer(campaign: Campaign, ann: Annotator) -> None:
    campaign.send()
    ann.skip(campaign.tasks()["ride-0"], "weather")

    collected = campaign.collect()

    assert (collected.events, collected.labels, collected.rejected) == ({"skipped": 1}, 0, 0)
    [facts] = [entry.metadata for entry in campaign.table_store.manifest(LABELS).partitions.values()]
    assert (facts["rows_in"], facts["skipped"]) == (1, 1)


@pytest.mark.usefixtures("changes")
def test_a_deleted_annotation_becomes_an_event_and_its_label_is_removed(campaign: Campaign, ann: Annotator) -> None:
    campaign.send()
    tasks = campaign.tasks()
    ann.submit(tasks["ride-1"], "carrier")
    given = ann.submit(tasks["ride-0"], "weather")
    campaign.collect()

    ann.delete(given)
    collected = campaign.collect()

    assert collected.events == {"deleted": 1}
    assert campaign.labels() == {"ride-1": "carrier"}
    assert [row["choice"] for row in campaign.rows(ANNOTATIONS)] == ["weather", "weather", "carrier"]


def test_a_deleted_task_becomes_an_event_though_the_server_keeps_no_trace_of_it(
    campaign: Campaign, ann: Annotator
) -> None:
    campaign.send()
    tasks = campaign.tasks()
    for ride in ("ride-0", "ride-4"):
        ann.submit(tasks[ride], "weather")
    campaign.collect()

    campaign.server.http.delete(f"/api/tasks/{tasks['ride-0']}/").raise_for_status()
    collected = campaign.collect()

    assert (collected.events, collected.annotation_partitions) == ({"deleted": 1}, ("2013-01-01",))
    assert campaign.labels() == {"ride-4": "weather"}


def test_a_project_that_lost_all_its_answers_removes_no_label(campaign: Campaign, ann: Annotator) -> None:
    campaign.send()
    for task in campaign.tasks().values():
        ann.submit(task, "carrier")
    campaign.collect()

    campaign.server.http.delete(f"/api/projects/{campaign.project}/").raise_for_status()
    with pytest.raises(LabelsWouldVanishError, match="6 answers were collected"):
        campaign.collect()
    send_from_elsewhere(campaign)
    with pytest.raises(FindingsError, match=r"holds none of the 6 answers collected.*Restore") as refused:
        campaign.collect()
    assert len(campaign.labels()) == 6

    campaign.accept(refused.value)
    assert campaign.collect().events == {"deleted": 6}
    assert campaign.labels() == {}


def send_from_elsewhere(campaign: Campaign) -> None:
    """Send the sample from a workspace that does not know of any answer."""
    other = Campaign(campaign.server, campaign.table_store.root / "elsewhere", campaign.labeling.title)
    other.write_rides(DAYS)
    other.send()


def test_a_project_that_was_created_again_removes_no_label_once_somebody_has_answered_there(
    campaign: Campaign, ann: Annotator
) -> None:
    campaign.send()
    for task in campaign.tasks().values():
        ann.submit(task, "carrier")
    campaign.collect()
    before = campaign.md5s(ANNOTATIONS)

    campaign.server.http.delete(f"/api/projects/{campaign.project}/").raise_for_status()
    send_from_elsewhere(campaign)
    ann.submit(campaign.tasks()["ride-0"], "weather")
    with pytest.raises(FindingsError, match=r"none of the 6 answers.*only others.*another labeling task") as refused:
        campaign.collect()

    assert campaign.md5s(ANNOTATIONS) == before
    assert set(campaign.labels().values()) == {"carrier"}
    campaign.accept(refused.value)
    ann.submit(campaign.tasks()["ride-1"], "weather")  # people go on answering while somebody decides
    assert campaign.collect().events == {"created": 2, "deleted": 6}
    assert campaign.labels() == {"ride-0": "weather", "ride-1": "weather"}


def test_the_last_answer_of_a_project_is_guarded_whatever_the_bound(campaign: Campaign, ann: Annotator) -> None:
    campaign.dataset = replace(campaign.dataset, guards=Guards(max_vanished_share=1))
    campaign.send()
    given = ann.submit(campaign.tasks()["ride-0"], "carrier")
    campaign.collect()
    ann.delete(given)

    with pytest.raises(FindingsError, match="holds none of the 1 answer collected from it") as refused:
        campaign.collect()

    assert campaign.labels() == {"ride-0": "carrier"}
    campaign.accept(refused.value)
    assert campaign.collect().events == {"deleted": 1}


def test_an_answer_that_the_question_does_not_offer_is_rejected_with_the_reason(
    campaign: Campaign, ann: Annotator, bob: Annotator
) -> None:
    campaign.send()
    ann.submit(campaign.tasks()["ride-0"], "gremlins")
    bob.submit(campaign.tasks()["ride-0"], "weather")

    collected = campaign.collect()

    [rejected] = campaign.rows(REJECTED)
    assert (collected.labels, collected.rejected) == (1, 1)
    assert campaign.labels() == {"ride-0": "weather"}
    assert rejected["reason"] == "gremlins is none of the choices (carrier, weather, security)"


def test_what_is_no_answer_and_a_task_that_was_edited_stop_no_other(campaign: Campaign, ann: Annotator) -> None:
    campaign.send()
    tasks = campaign.tasks()
    ann.submit(tasks["ride-0"], "weather")
    ann.submit(tasks["ride-1"], "carrier")
    ann.http.post(f"/api/tasks/{tasks['ride-2']}/annotations/", json={}).raise_for_status()
    data = campaign.server.task_data(tasks["ride-1"])
    data["item"]["started_at"] = "soon"
    campaign.server.http.patch(f"/api/tasks/{tasks['ride-1']}/", json={"data": data}).raise_for_status()

    collected = campaign.collect()

    assert campaign.labels() == {"ride-0": "weather"}
    assert [row["reason"] for row in campaign.rows(REJECTED)] == ["no choice was made"]
    assert collected.invalid_tasks.keys() == {tasks["ride-1"]}
    assert "`item.started_at`, found 'soon'" in collected.invalid_tasks[tasks["ride-1"]]
    data["item"]["started_at"] = "2013-01-01T12:00:00+00:00"
    campaign.server.http.patch(f"/api/tasks/{tasks['ride-1']}/", json={"data": data}).raise_for_status()
    assert campaign.collect().invalid_tasks == {}
    assert campaign.labels() == {"ride-0": "weather", "ride-1": "carrier"}


def test_a_label_stays_where_an_answered_task_is_edited_beyond_recognition(campaign: Campaign, ann: Annotator) -> None:
    campaign.send()
    tasks = campaign.tasks()
    for ride in ("ride-0", "ride-1"):
        ann.submit(tasks[ride], "weather")
    campaign.collect()
    data = {**campaign.server.task_data(tasks["ride-1"]), "item": "a text"}
    campaign.server.http.patch(f"/api/tasks/{tasks['ride-1']}/", json={"data": data}).raise_for_status()
    campaign.server.http.delete(f"/api/tasks/{tasks['ride-0']}/").raise_for_status()

    collected = campaign.collect()

    assert (collected.events, list(collected.invalid_tasks)) == ({"deleted": 1}, [tasks["ride-1"]])
    assert campaign.labels() == {"ride-1": "weather"}


def test_the_answers_of_accounts_that_were_deleted_count_as_before(campaign: Campaign, tmp_path: Path) -> None:
    campaign.send()
    people = [campaign.server.person(name) for name in ("gone-1", "gone-2", "gone-3")]
    for person, choice in zip(people, ("weather", "weather", "carrier"), strict=True):
        person.submit(campaign.tasks()["ride-0"], choice)
    campaign.collect()
    before = campaign.md5s(ANNOTATIONS)
    for person in people:
        account = person.http.get("/api/current-user/whoami").raise_for_status().json()["id"]
        campaign.server.http.delete(f"/api/users/{account}/").raise_for_status()

    collected = campaign.collect()
    other = Campaign(campaign.server, tmp_path / "elsewhere", campaign.labeling.title)
    other.write_rides(DAYS)
    other.collect()

    assert (collected.events, campaign.md5s(ANNOTATIONS)) == ({}, before)
    for place in (campaign, other):
        [label] = place.rows(LABELS)
        assert (label["label"], label["votes"]) == ("weather", 3)


@pytest.mark.parametrize("act", ["give", "change"])
def test_an_answer_given_or_changed_while_others_are_collected_is_collected_once(
    campaign: Campaign, ann: Annotator, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    campaign.send()
    tasks = campaign.tasks()
    given, other = (ann.submit(tasks[ride], "weather") for ride in ("ride-0", "ride-3"))
    campaign.collect()
    read_changed = ProjectTasks.read_changed_inline

    def read_before_somebody_acts(self: ProjectTasks, since: datetime | None) -> list[Json] | None:
        changed = read_changed(self, since)
        monkeypatch.setattr(ProjectTasks, "read_changed_inline", read_changed)
        if act == "give":
            ann.submit(tasks["ride-4"], "carrier")
        else:
            ann.edit(given, "carrier")  # no total tells of it
        return changed

    monkeypatch.setattr(ProjectTasks, "read_changed_inline", read_before_somebody_acts)
    ann.edit(other, "security")
    for _ in range(2):
        campaign.collect()

    history = sorted((row["sample_id"], row["event"], row["choice"]) for row in campaign.rows(ANNOTATIONS))
    before = [("ride-0", "created", "weather"), ("ride-3", "created", "weather"), ("ride-3", "changed", "security")]
    acted = ("ride-4", "created", "carrier") if act == "give" else ("ride-0", "changed", "carrier")
    assert history == sorted([*before, acted])
    assert campaign.labels()[acted[0]] == "carrier"


@pytest.mark.usefixtures("changes")
def test_a_history_rebuilt_from_nothing_gives_the_same_labels(
    campaign: Campaign, ann: Annotator, bob: Annotator
) -> None:
    campaign.send()
    tasks = campaign.tasks()
    given = {ride: ann.submit(task, "carrier") for ride, task in tasks.items()}
    campaign.collect()
    for ride in ("ride-1", "ride-4"):
        ann.edit(given[ride], "security")
    for task in tasks.values():
        bob.submit(task, "security")
    campaign.collect()
    grown = campaign.md5s(LABELS)

    other = Campaign(campaign.server, campaign.table_store.root / "elsewhere", campaign.labeling.title)
    other.write_rides(DAYS)
    other.collect()

    assert other.md5s(LABELS) == grown
    assert other.labels() == {"ride-1": "security", "ride-4": "security"}


def test_tasks_that_somebody_else_imported_are_counted_not_read(campaign: Campaign, ann: Annotator) -> None:
    campaign.send()
    ann.submit(campaign.server.import_task(campaign.project, {"text": "by hand"}), "weather")

    collected = campaign.collect()

    assert (collected.unknown_tasks, collected.labels) == (1, 0)


def test_a_collect_that_died_before_the_labels_is_finished_by_the_next_one(
    campaign: Campaign, ann: Annotator, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign.send()
    ann.submit(campaign.tasks()["ride-0"], "weather")
    with monkeypatch.context() as patch:
        patch.setattr("headrace.label.collect.run_label_stage", simulate_kill)
        with pytest.raises(HeadraceError, match="died"):
            campaign.collect()

    collected = campaign.collect()

    assert (collected.events, collected.label_partitions) == ({}, ("2013-01-01",))
    assert campaign.labels() == {"ride-0": "weather"}


def test_where_annotators_are_weighed_any_answer_recomputes_all_labels_and_they_are_known_from_then_on(
    campaign: Campaign, ann: Annotator, bob: Annotator
) -> None:
    campaign.labeling = replace(campaign.labeling, consensus="dawid_skene")
    campaign.send()
    tasks = campaign.tasks()
    given = {ride: ann.submit(task, "carrier") for ride, task in tasks.items()}
    for task in tasks.values():
        bob.submit(task, "carrier")
    campaign.collect()

    ann.edit(given["ride-5"], "weather")
    collected = campaign.collect()

    newest = max(row["updated_at"] for row in campaign.rows(ANNOTATIONS))
    assert (collected.annotation_partitions, collected.label_partitions) == (("2013-01-02",), ("all",))
    assert campaign.labels().keys() >= tasks.keys() - {"ride-5"}
    assert {row["known_time"] for row in campaign.rows(LABELS)} == {newest}
    assert all(0.5 < row["confidence"] <= 1 for row in campaign.rows(LABELS))
