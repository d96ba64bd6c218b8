"""The project of a renamed labeling task goes on: no task is sent twice, no answer is collected twice or lost."""

from dataclasses import replace

import pytest
from label_campaign import Campaign, simulate_kill
from label_server import Annotator

from headrace.dataset import LabelingTask
from headrace.errors import HeadraceError
from headrace.label.label_studio.client import LabelStudioClient
from headrace.label.renamed_project import RenamedProject, find_projects, rename_project
from headrace.maintenance.rename import find_renaming, rename_tables

pytestmark = pytest.mark.slow


@pytest.fixture
def renamed(campaign: Campaign, ann: Annotator) -> Campaign:
    """The campaign, of which one answer was collected; its labeling task is renamed in the declaration."""
    campaign.send()
    ann.submit(campaign.tasks()["ride-4"], "weather")
    campaign.collect()
    labeling = campaign.with_declaration(name="reason")
    other = Campaign(campaign.server, campaign.table_store.root, campaign.labeling.title)
    other.labeling, other.dataset = labeling, replace(campaign.dataset, labels=(labeling,))
    return other


def rename_all(campaign: Campaign) -> RenamedProject:
    renaming = find_renaming(campaign.dataset, "cause", "reason", campaign.table_store)
    rename_tables(campaign.dataset, renaming, campaign.table_store, reason="a test", dry_run=False)
    return rename_project(campaign.labeling, "cause", campaign.settings, dry_run=False)


def titles(campaign: Campaign) -> list[str]:
    """The campaign's project, if it has the new name; other tests have projects on the server, too."""
    found = find_projects("reason", campaign.settings).values()
    return [title for title in found if title == campaign.labeling.title]


def test_the_tasks_are_recognized_and_answers_are_collected_on(renamed: Campaign, ann: Annotator) -> None:
    tasks = renamed.tasks()

    done = rename_all(renamed)
    sent, first = renamed.send(), renamed.collect()
    ann.submit(tasks["ride-5"], "security")
    second = renamed.collect()

    assert (done.signed, done.foreign, done.title) == (6, 0, renamed.labeling.title)
    assert (sent.existing, sent.sent, sent.foreign, renamed.tasks()) == (6, 0, {}, tasks)
    assert (dict(first.events), first.invalid_tasks, first.labels) == ({}, {}, 1)
    assert (dict(second.events), second.labels) == ({"created": 1}, 2)
    rows = renamed.rows("annotations/rides/reason")
    assert sorted((row["sample_id"], row["choice"]) for row in rows) == [("ride-4", "weather"), ("ride-5", "security")]


def test_a_dry_run_writes_nothing_and_an_interrupted_rename_is_finished_by_the_next(
    renamed: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = rename_project(renamed.labeling, "cause", renamed.settings)
    assert (shown.signed, titles(renamed)) == (6, [])
    with monkeypatch.context() as patch:
        patch.setattr(LabelStudioClient, "replace_mark", simulate_kill)
        with pytest.raises(HeadraceError, match="died"):
            rename_all(renamed)

    again = rename_all(renamed)

    assert (again.signed, again.foreign) == (0, 0)
    assert titles(renamed) == [renamed.labeling.title]
    assert rename_project(renamed.labeling, "cause", renamed.settings, dry_run=False) == RenamedProject()
    assert renamed.send().sent == 0


def test_a_task_that_somebody_edited_is_not_signed_again(renamed: Campaign) -> None:
    task = renamed.tasks()["ride-0"]
    data = {**renamed.server.task_data(task), "item": {"event_time": "2013-01-01T12:00:00+00:00", "car": 99}}
    renamed.server.http.patch(f"/api/tasks/{task}", json={"data": data}).raise_for_status()

    done = rename_all(renamed)

    assert (done.signed, done.foreign) == (5, 1)
    assert renamed.server.task_data(task) == data
    assert task in renamed.send().foreign


def test_another_title_is_another_project(renamed: Campaign) -> None:
    other: LabelingTask = replace(renamed.labeling, title="Another question")

    assert rename_project(other, "cause", renamed.settings, dry_run=False) == RenamedProject()
