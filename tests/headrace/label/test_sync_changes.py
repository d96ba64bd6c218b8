"""No answer is missed or taken twice, whatever people do between two requests of a collect.

The project is in memory, so that somebody acts exactly then. With `many`, changes are too many for one request.
"""

from datetime import timedelta
from pathlib import Path

import pytest
from project_in_memory import ProjectInMemory

from headrace.label import sync
from headrace.storage.table_store import TableStore


@pytest.fixture(params=["few", "many"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> ProjectInMemory:
    """A project with three answers that were not collected yet."""
    project = ProjectInMemory(TableStore.at(tmp_path), inline_limit=100 if request.param == "few" else 0)
    project.send(1, 2, 3)
    for task in project.tasks:
        project.answer(task, minute=0)
    return project


def test_an_answer_that_is_changed_while_the_first_collect_reads_is_collected_by_its_second_look(
    project: ProjectInMemory,
) -> None:
    project.before["task 3"] = lambda: project.answer(3, "poor", minute=1)

    assert project.collect(minute=2).events == {"created": 3}

    assert project.collected()["shop-3"] == ["poor"]


def test_a_change_that_the_first_collect_had_passed_by_is_found_however_late_the_last_change_was(
    project: ProjectInMemory,
) -> None:
    def change_two() -> None:
        project.answer(1, "poor", minute=1)
        project.answer(3, "poor", minute=60)

    project.before["task 3"] = change_two

    project.collect(minute=61)
    project.collect(minute=62)

    assert {shop: choices[-1] for shop, choices in project.collected().items()} == {
        "shop-1": "poor",
        "shop-2": "fine",
        "shop-3": "poor",
    }


def test_a_change_that_the_listing_missed_is_found_however_late_the_last_change_was(tmp_path: Path) -> None:
    project = ProjectInMemory(TableStore.at(tmp_path), inline_limit=0)
    project.send(1, 2)
    project.answer(1, minute=0)
    project.answer(2, minute=0)
    project.collect(minute=1)
    project.answer(1, "poor", minute=30)

    def change_two() -> None:
        project.answer(2, "poor", minute=31)
        project.answer(1, "good", minute=90)

    project.before["read_by_id"] = change_two
    project.collect(minute=91)
    project.collect(minute=92)

    assert project.collected() == {"shop-1": ["fine", "good"], "shop-2": ["fine", "poor"]}


@pytest.mark.parametrize("late", [1, 10])
def test_a_change_that_becomes_visible_up_to_ten_minutes_after_its_stamp_is_collected(
    project: ProjectInMemory, late: int
) -> None:
    project.answer(2, "poor", minute=30)
    project.collect(minute=30)
    project.answer(1, "poor", minute=30 - late)

    assert project.collect(minute=31).events == {"changed": 1}
    assert project.collected()["shop-1"] == ["fine", "poor"]


def test_changes_that_were_collected_are_not_looked_for_again(project: ProjectInMemory) -> None:
    project.answer(2, "poor", minute=30)
    project.collect(minute=30)
    project.answer(1, "poor", minute=19)

    assert project.collect(minute=31).events == {}, "older than the overlap, and no total tells of it"
    assert project.collect(minute=31, full=True).events == {"changed": 1}


def test_where_the_clocks_disagree_every_task_is_compared(project: ProjectInMemory) -> None:
    project.answer(2, "poor", minute=30)
    project.collect(minute=30)
    project.answer(1, "poor", minute=1)
    project.clock_offset = timedelta(minutes=11)

    assert project.collect(minute=31).events == {"changed": 1}


def test_a_stamp_of_the_future_does_not_hide_the_changes_before_it(project: ProjectInMemory) -> None:
    project.answer(2, "poor", minute=300)
    project.collect(minute=20)
    project.answer(1, "poor", minute=15)

    assert project.collect(minute=21).events == {"changed": 1}


def test_an_answer_that_arrives_during_a_collect_is_in_it_or_in_the_next_one_once(project: ProjectInMemory) -> None:
    project.send(4)
    project.collect(minute=1)
    project.answer(1, "poor", minute=2)
    request = "read_by_id" if project.inline_limit == 0 else "read_changed_inline"
    project.before[request] = lambda: project.answer(4, minute=3)

    project.collect(minute=4)
    project.collect(minute=5)

    assert (project.collected()["shop-1"], project.collected()["shop-4"]) == (["fine", "poor"], ["fine"])


def test_an_answer_that_somebody_deletes_is_lost_and_one_that_is_changed_or_a_skip_is_not(
    project: ProjectInMemory,
) -> None:
    project.send(4, 5)
    skip = project.answer(4, minute=0, is_skip=True)
    project.answer(5, minute=0)
    project.collect(minute=1)
    for task in (1, 2, 3, 4):
        project.withdraw(task, minute=2)
    project.answer(5, "poor", minute=2)

    result = project.collect(minute=3)

    assert result.events == {"deleted": 4, "changed": 1}
    assert {name.partition("-")[0] for name in result.loss.names} == {"101", "201", "301"}
    assert str(skip) not in str(result.loss)
    assert [(loss.lost, loss.total) for loss in result.loss.losses] == [(3, 4)]


def test_an_answer_that_is_lost_once_is_not_lost_again(project: ProjectInMemory) -> None:
    project.send(4)
    project.answer(4, minute=0)
    project.collect(minute=1)
    for task in (1, 2, 3):
        project.answer(task, "poor", minute=2)
        project.tasks[task]["annotations"][0]["updated_by"] = 2  # so that each is set aside
    assert len(project.collect(minute=3).loss.names) == 3
    for task in (1, 2, 3):
        project.withdraw(task, minute=4)

    result = project.collect(minute=5)

    assert (result.events, list(result.loss.names)) == ({"deleted": 3}, [])


def test_tasks_that_several_people_skipped_make_no_collect_compare_ranges(project: ProjectInMemory) -> None:
    project.answer(1, minute=0, by=2, is_skip=True)
    project.answer(1, minute=0, by=3, is_skip=True)
    project.collect(minute=1)
    project.requests.clear()

    assert project.collect(minute=2).events == {}
    assert not {"list_range", "annotation_counts"} & {*project.requests}


def test_among_tasks_of_others_too_a_collect_after_several_skips_of_one_task_compares_no_ranges(
    project: ProjectInMemory,
) -> None:
    project.send(7, is_signed=False, sample_id="", item=None)
    project.answer(7, minute=0)
    project.answer(1, minute=0, by=2, is_skip=True)
    project.answer(1, minute=0, by=3, is_skip=True)
    project.collect(minute=1)
    project.requests.clear()

    assert project.collect(minute=2).events == {}
    assert project.requests.count("annotation_counts") == 1, "of all tasks that we sent, and of no range"


def test_of_tasks_that_are_deleted_only_their_range_is_compared(
    project: ProjectInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "RANGE_SIZE", 2)
    project.send(4, 5, 6)
    for task in (4, 5, 6):
        project.answer(task, minute=0)
    project.answer(5, minute=0, by=2, is_skip=True)
    project.collect(minute=1)
    project.requests.clear()
    del project.tasks[5]

    result = project.collect(minute=2)

    assert (result.events, result.invalid_tasks) == ({"deleted": 2}, {})
    assert project.requests.count("list_range") == 1
    assert {shop: choices for shop, choices in project.collected().items() if choices != ["fine"]} == {
        "shop-5": ["fine", "skip", "-", "-"]
    }
    assert project.collect(minute=3).events == {}


def test_a_skip_whose_task_is_deleted_is_found_although_the_answers_are_as_many(project: ProjectInMemory) -> None:
    project.send(4)
    project.answer(4, minute=0, is_skip=True)
    project.collect(minute=1)
    del project.tasks[4]

    assert project.collect(minute=2).events == {"deleted": 1}
    assert project.collected()["shop-4"] == ["skip", "-"]


def test_a_deleted_task_and_a_new_answer_that_keep_the_total_are_both_found_in_the_end(
    project: ProjectInMemory,
) -> None:
    project.send(4)
    project.collect(minute=1)
    del project.tasks[1]
    project.answer(4, minute=2)

    project.collect(minute=3)
    project.collect(minute=4)

    assert (project.collected()["shop-1"], project.collected()["shop-4"]) == (["fine", "-"], ["fine"])


def test_a_project_that_holds_none_of_the_collected_answers_is_said_to_be_replaced(project: ProjectInMemory) -> None:
    assert project.collect(minute=1).replaced == ""
    for task in (1, 2, 3):
        project.withdraw(task, minute=2)

    result = project.collect(minute=3)

    assert result.events == {"deleted": 3}
    assert "holds none of the 3 answers collected from it. Restore" in result.replaced


def test_a_project_that_was_created_again_is_said_to_be_replaced(project: ProjectInMemory) -> None:
    project.answer(3, minute=0, is_skip=True)
    project.collect(minute=1)
    project.tasks.clear()
    project.send(11)
    project.answer(11, minute=2)

    result = project.collect(minute=3)

    assert result.events == {"created": 1, "deleted": 3}
    assert "holds none of the 3 answers collected from it, only others: it is not the project" in result.replaced


def test_a_project_that_kept_one_of_its_answers_is_not_replaced(project: ProjectInMemory) -> None:
    project.collect(minute=1)
    for task in (1, 2):
        project.withdraw(task, minute=2)

    assert project.collect(minute=3).replaced == ""


def test_tasks_of_others_are_counted_and_not_read(project: ProjectInMemory) -> None:
    project.send(7, is_signed=False, sample_id="", item=None)
    project.answer(7, minute=0)

    assert project.collect(minute=1).unknown_tasks == 1
    project.answer(7, "poor", minute=2)
    assert project.collect(minute=3).unknown_tasks == 1
    assert project.collected().keys() == {"shop-1", "shop-2", "shop-3"}


def test_a_task_without_a_signature_is_taken_while_it_is_older_than_every_signed_one(tmp_path: Path) -> None:
    project = ProjectInMemory(TableStore.at(tmp_path))
    project.send(1, 9, is_signed=False)
    project.send(5)
    for task in (1, 5, 9):
        project.answer(task, minute=0)

    result = project.collect(minute=1)

    assert project.collected().keys() == {"shop-1", "shop-5"}
    assert [*result.invalid_tasks] == [9]
    assert "no signature" in result.invalid_tasks[9]


def test_a_task_without_a_signature_stays_about_the_item_that_it_was_first_collected_for(tmp_path: Path) -> None:
    project = ProjectInMemory(TableStore.at(tmp_path))
    project.send(1, 2, is_signed=False)
    for task in (1, 2):
        project.answer(task, minute=0)
    project.collect(minute=1)
    project.tasks[1]["data"]["item"]["shop"] = "another"
    for task in (1, 2):
        project.answer(task, "poor", minute=2)

    result = project.collect(minute=3)

    assert [*result.invalid_tasks] == [1]
    assert "as it was first collected" in result.invalid_tasks[1]
    assert project.collected() == {"shop-1": ["fine"], "shop-2": ["fine", "poor"]}


def test_an_answered_task_that_loses_its_item_is_set_aside_and_its_answer_stays(project: ProjectInMemory) -> None:
    project.collect(minute=1)
    project.tasks[2]["data"] = {"text": "nothing of ours"}
    project.tasks[2]["updated_at"] = project.tasks[2]["annotations"][0]["updated_at"]

    for minute in (2, 3):
        result = project.collect(minute=minute, full=True)
        assert (dict(result.events), result.unknown_tasks) == ({}, 0)
        assert [*result.invalid_tasks] == [2]
    assert project.collected()["shop-2"] == ["fine"]
