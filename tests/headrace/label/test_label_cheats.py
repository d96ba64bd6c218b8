"""A free Label Studio lets everybody edit everything: what people do to tasks and answers there takes no label away.

Everything runs against a real Label Studio, where each annotator has an account.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from label_campaign import ANNOTATIONS, LABELS, REJECTED, Campaign
from label_server import Annotator, answer_body

from headrace.guards.finding_log import open_finding_log
from headrace.guards.gate import FindingsError, accept_finding
from headrace.label.item_signature import FIELD
from headrace.label.label_studio.tasks import ProjectTasks
from headrace.label.request_more import request_more_annotations
from headrace.label.review import NOBODY, ReviewDecision, ReviewResult, review_annotations

pytestmark = pytest.mark.slow


def edit_task(campaign: Campaign, task: int, **changes: Any) -> None:  # noqa: ANN401  anything JSON
    """Edit the data of a task; what is changed to None is removed."""
    data = {**campaign.server.task_data(task), **changes}
    data = {name: value for name, value in data.items() if value is not None}
    campaign.server.http.patch(f"/api/tasks/{task}/", json={"data": data}).raise_for_status()


def account(annotator: Annotator) -> int:
    """Number of the annotator's account."""
    return int(annotator.http.get("/api/current-user/whoami").raise_for_status().json()["id"])


def accept(campaign: Campaign, reviewer: str = "Grace", *, include_disputed: bool = False) -> ReviewResult:
    """Accept the answers that were not reviewed."""
    decision = ReviewDecision("accepted", reviewer, include_disputed=include_disputed)
    return review_annotations(campaign.dataset, campaign.labeling, campaign.table_store, campaign.settings, decision)


# Tasks


def test_a_task_that_somebody_imported_with_an_id_of_ours_never_takes_the_place_of_ours(
    campaign: Campaign, ann: Annotator
) -> None:
    campaign.send()
    ours = campaign.tasks()
    sent = campaign.server.task_data(ours["ride-0"])
    other_time = {**sent["item"], "event_time": "2013-01-02T12:00:00+00:00"}
    foreign = [
        campaign.server.import_task(campaign.project, data)
        for data in (
            {"text": "?", "sample_id": "ride-0"},
            {**sent, "item": other_time},
            {name: value for name, value in sent.items() if name != FIELD},
            {**sent, "item": "a text"},
        )
    ]
    for task in foreign:
        ann.submit(task, "security")

    again = campaign.send()
    ann.submit(ours["ride-0"], "weather")
    collected = campaign.collect()

    assert (again.sent, again.duplicates_removed) == (0, 0)
    assert again.foreign == dict.fromkeys(foreign, "ride-0")
    assert campaign.server.tasks(campaign.project)["ride-0"] == [ours["ride-0"], *foreign]
    assert campaign.labels() == {"ride-0": "weather"}
    assert (collected.unknown_tasks, set(collected.invalid_tasks)) == (1, set(foreign[1:]))
    request_more_annotations(campaign.dataset, campaign.labeling, campaign.table_store, campaign.settings)


def test_an_edited_task_is_set_aside_by_its_number_and_its_answer_stays_with_the_true_item(
    campaign: Campaign, ann: Annotator, bob: Annotator, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign.send()
    tasks = campaign.tasks()
    for task in tasks.values():
        ann.submit(task, "weather")
    campaign.collect()
    before = campaign.md5s(ANNOTATIONS), campaign.labels()
    item = campaign.server.task_data(tasks["ride-0"])["item"]
    edits: dict[str, dict[str, Any]] = {
        "ride-0": {"item": {**item, "event_time": "2013-01-02T12:00:00+00:00"}},
        "ride-1": {"sample_id": "ride-9"},
        "ride-2": {"item": {**item, "car": "two"}},
        "ride-3": {"sample_id": None, "item": None},
        "ride-4": {"sample_id": ["ride-4"]},
        "ride-5": {"sample_id": None, "item": None, FIELD: None},
    }
    for ride, changes in edits.items():
        edit_task(campaign, tasks[ride], **changes)
        bob.submit(tasks[ride], "security")

    for inline_limit in (100, 1):  # changes come with their annotations, and without
        monkeypatch.setattr("headrace.label.label_studio.tasks.INLINE_LIMIT", inline_limit)
        collected = campaign.collect()

        assert collected.events == {}
        assert collected.invalid_tasks.keys() == {tasks[ride] for ride in edits}
        assert (campaign.md5s(ANNOTATIONS), campaign.labels()) == before
    assert all(collected.invalid_tasks.values())
    assert campaign.send().sent == len(edits), "each question has a task again that is as it was sent"
    edit_task(campaign, tasks["ride-0"], item=item)
    assert campaign.send().duplicates_removed == 1
    assert campaign.collect().events == {"created": 1}


def test_what_the_server_itself_fails_to_show_does_not_stop_the_others(campaign: Campaign, ann: Annotator) -> None:
    campaign.send()
    tasks = campaign.tasks()
    ann.submit(tasks["ride-3"], "weather")
    campaign.collect()
    headers = {"Content-Type": "application/json"}
    half_a_character = '{"data": {"text": "\\ud800", "sample_id": "ride-3", "item": {}}}'
    campaign.server.http.patch(f"/api/tasks/{tasks['ride-3']}/", content=half_a_character, headers=headers)
    endless = json.dumps({**answer_body("carrier"), "lead_time": 1}).replace('"lead_time": 1', '"lead_time": 1e999')
    ann.http.post(f"/api/tasks/{tasks['ride-4']}/annotations/", content=endless, headers=headers)
    ann.submit(tasks["ride-5"], "security")

    collected = campaign.collect()

    assert collected.invalid_tasks.keys() == {tasks["ride-3"], tasks["ride-4"]}
    assert all("the server fails to show it (HTTP 500" in reason for reason in collected.invalid_tasks.values())
    assert campaign.labels() == {"ride-3": "weather", "ride-5": "security"}
    assert campaign.send().sent == 1


def test_tasks_of_a_version_that_signed_none_are_collected_and_others_are_not_taken_for_them(
    campaign: Campaign, ann: Annotator
) -> None:
    campaign.send(campaign.settings.model_copy(update={"pseudonym_key": None}), sample=2)
    tasks = campaign.tasks()
    old = campaign.server.task_data(tasks["ride-0"])
    assert FIELD not in old
    campaign.send()
    late = campaign.server.import_task(campaign.project, {**old, "sample_id": "ride-77"})
    for task in (tasks["ride-0"], tasks["ride-1"], late):
        ann.submit(task, "weather")

    first = campaign.collect()
    edit_task(campaign, tasks["ride-1"], item={**old["item"], "event_time": "2013-01-02T12:00:00+00:00"})
    second = campaign.collect()

    assert campaign.labels() == {"ride-0": "weather", "ride-1": "weather"}
    assert first.invalid_tasks.keys() == {late}
    assert {late, tasks["ride-1"]} >= second.invalid_tasks.keys() >= {tasks["ride-1"]}
    assert "expected the item as it was first collected" in second.invalid_tasks[tasks["ride-1"]]


# Answers


def test_an_answer_that_was_changed_or_given_by_somebody_else_is_set_aside_until_a_reviewer_accepts_it(
    campaign: Campaign, ann: Annotator, bob: Annotator
) -> None:
    campaign.send()
    tasks = campaign.tasks()
    given = {ride: ann.submit(task, "weather") for ride, task in tasks.items() if ride != "ride-3"}
    campaign.collect()
    bob.edit(given["ride-0"], "security")
    taken = {"completed_by": account(bob)}
    bob.http.patch(f"/api/annotations/{given['ride-1']}/", json=taken).raise_for_status()
    bob.submit(tasks["ride-3"], "carrier", completed_by=account(ann))
    ann.edit(given["ride-2"], "carrier")

    collected = campaign.collect()

    assert collected.events == {"edited_by_other": 2, "reassigned": 1, "changed": 1}
    assert sorted(collected.disputed.values()) == ["edited_by_other", "edited_by_other", "reassigned"]
    assert campaign.labels() == {"ride-2": "carrier", "ride-4": "weather", "ride-5": "weather"}
    assert {row["sample_id"] for row in campaign.rows(REJECTED)} == {"ride-0", "ride-1", "ride-3"}
    assert campaign.collect().events == {}
    assert (accept(campaign).disputed, sorted(campaign.labels())) == (3, ["ride-2", "ride-4", "ride-5"])
    ann.edit(given["ride-0"], "weather")
    assert campaign.collect().events == {"changed": 1}
    assert (accept(campaign, include_disputed=True).disputed, len(campaign.labels())) == (0, 6)


def test_labels_that_nobody_reviewed_are_held_unless_the_declaration_says_otherwise(
    campaign: Campaign, ann: Annotator
) -> None:
    campaign.labeling = replace(campaign.labeling, unreviewed="hold")
    campaign.send()
    tasks = campaign.tasks()
    first = ann.submit(tasks["ride-0"], "weather")

    collected = campaign.collect()
    wanted = request_more_annotations(campaign.dataset, campaign.labeling, campaign.table_store, campaign.settings)
    by_nobody = accept(campaign, NOBODY)
    held = campaign.labels()
    accept(campaign)
    reviewed = campaign.labels()
    ann.edit(first, "carrier")
    campaign.collect()

    assert (collected.labels, collected.held, wanted) == (0, 1, ())
    assert (by_nobody.answers, held, reviewed) == (0, {}, {"ride-0": "weather"})
    assert campaign.labels() == {}, "the answer in its new state has not been reviewed"
    accept(campaign)
    [label] = campaign.rows(LABELS)
    [*_, decision] = [row["created_at"] for row in campaign.rows(ANNOTATIONS) if row["event"] == "accepted"]
    assert (label["label"], label["known_time"]) == ("carrier", decision)


def test_many_answers_never_disappear_at_once_until_a_person_accepts_it(
    campaign: Campaign, ann: Annotator, bob: Annotator
) -> None:
    campaign.send()
    given = [ann.submit(task, "weather") for task in campaign.tasks().values()]
    campaign.collect()
    before = campaign.md5s(ANNOTATIONS)
    for annotation in given[:4]:
        bob.delete(annotation)

    with pytest.raises(FindingsError, match=r"annotations/rides/cause: 4 of 6 answers would vanish") as refused:
        campaign.collect()

    assert campaign.md5s(ANNOTATIONS) == before
    [finding] = refused.value.findings
    accept_finding(open_finding_log(campaign.table_store, "rides"), finding.id, by="Grace", reason="a test")
    assert campaign.collect().events == {"deleted": 4}


# Clocks


def test_a_correction_is_seen_after_a_change_that_the_server_stamped_two_hours_ahead(
    campaign: Campaign, ann: Annotator, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign.send()
    tasks = campaign.tasks()
    given = [ann.submit(tasks[ride], "weather") for ride in ("ride-0", "ride-1")]
    with server_clock_ahead(monkeypatch, timedelta(hours=2)):
        campaign.collect()

    ann.edit(given[1], "carrier")
    collected = campaign.collect()

    assert collected.events == {"changed": 1}
    assert campaign.labels() == {"ride-0": "weather", "ride-1": "carrier"}
    ann.edit(given[0], "security")
    assert campaign.collect().events == {"changed": 1}


@contextmanager
def server_clock_ahead(monkeypatch: pytest.MonkeyPatch, offset: timedelta) -> Iterator[None]:
    """Have the server stamp changes so much too late."""
    read_page = ProjectTasks._page  # noqa: SLF001  the one place where responses are read

    def shifted(tasks: ProjectTasks, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401  any JSON
        page = read_page(tasks, *arguments, **options)
        for task in page["tasks"]:
            for record in (task, *task.get("annotations", ())):
                if "updated_at" in record:
                    record["updated_at"] = (datetime.fromisoformat(record["updated_at"]) + offset).isoformat()
        return page

    with monkeypatch.context() as patch:
        patch.setattr(ProjectTasks, "_page", shifted)
        yield


# The server


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "169.254.169.254"])
def test_the_server_of_the_stack_imports_nothing_from_an_internal_address(campaign: Campaign, host: str) -> None:
    campaign.send()
    before = campaign.server.count(campaign.project)
    port = httpx.URL(campaign.server.url).port

    refused = campaign.server.http.post(
        f"/api/projects/{campaign.project}/import", data={"url": f"http://{host}:{port}/health"}
    )

    assert refused.status_code in (400, 403), refused.text
    assert "reserved network address" in refused.text
    assert campaign.server.count(campaign.project) == before
