"""The history of an annotation, whatever the server shows and in whatever order: checked against a model of its states.

The model keeps one state per annotation, what was seen last; the history has to add up to it.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from release_clones import QUESTION

from headrace.label.aggregation import aggregate_annotations, latest_events
from headrace.label.annotation_log import merge_events
from headrace.label.annotations import (
    Row,
    annotation_schema,
    diff_annotations,
    latest_states,
    parse_task,
    partition_of,
)
from headrace.label.errors import InvalidTaskError

KEYS = {"shop": pl.String()}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TASK = ("sample", 1)
SECRET = "a long random text"  # noqa: S105  of the test

annotations = st.fixed_dictionaries(
    {
        "choice": st.sampled_from(["fine", "poor"]),
        "minute": st.integers(-30, 30),  # of the clock of the server, which may be wrong or go back
        "is_skip": st.booleans(),
        "author": st.sampled_from([1, 2, None]),  # None once the account was deleted
    }
)
servers = st.lists(st.dictionaries(st.sampled_from([7, 8]), annotations, max_size=2), min_size=1, max_size=6)
"""What the server shows of one task, one look after the other: number of the annotation → its state."""


def task(shown: dict[int, dict[str, Any]], **changes: Any) -> dict[str, Any]:  # noqa: ANN401  anything JSON
    """A task as the server sends it."""
    return {
        "id": 1,
        "updated_at": NOON.isoformat(),
        "data": {"sample_id": "sample", "item": {"event_time": NOON.isoformat(), "shop": "a"}, **changes},
        "annotations": [annotation(number, state) for number, state in shown.items()],
    }


def annotation(number: int, state: dict[str, Any]) -> dict[str, Any]:
    """An annotation as the server sends it."""
    return {
        "id": number,
        "created_at": NOON.isoformat(),
        "updated_at": (NOON + timedelta(minutes=state["minute"])).isoformat(),
        "completed_by": state["author"],
        "was_cancelled": state["is_skip"],
        "lead_time": 1,
        "result": [{"type": "choices", "from_name": "state", "value": {"choices": [state["choice"]]}}],
    }


def look(history: pl.DataFrame, shown: dict[int, dict[str, Any]], minute: int = 0) -> list[Row]:
    """The new events of a look at the server, whose clock says so many minutes past noon."""
    states = latest_states(history)
    before = states[TASK].last_events if TASK in states else {}
    now = parse_task(task(shown), QUESTION, KEYS, SECRET)
    return list(diff_annotations(before, now, NOON + timedelta(minutes=minute)))


def append(history: pl.DataFrame, events: Sequence[Row]) -> pl.DataFrame:
    return pl.concat([history, pl.DataFrame(events, schema=annotation_schema(KEYS))])


def empty() -> pl.DataFrame:
    return pl.DataFrame(schema=annotation_schema(KEYS))


def check(history: pl.DataFrame, shown: dict[int, dict[str, Any]]) -> None:
    """Check that the history adds up to what the server shows, and that another look finds nothing."""
    last = {row["annotation_id"].partition("-")[0]: row for row in latest_events(history).iter_rows(named=True)}
    active = {int(number): row for number, row in last.items() if row["event"] != "deleted"}
    assert active.keys() == shown.keys()
    for number, state in shown.items():
        assert (active[number]["choice"], active[number]["was_cancelled"]) == (state["choice"], state["is_skip"])
        assert active[number]["annotator"]
    assert look(history, shown) == []


@given(servers, st.lists(st.integers(-30, 30), min_size=6, max_size=6))
@example([{7: {"choice": "fine", "minute": 0, "is_skip": False, "author": 1}}, {}] * 2, [5] * 6)
def test_after_each_look_the_history_adds_up_to_what_the_server_shows(
    looks: list[dict[int, dict[str, Any]]], minutes: list[int]
) -> None:
    history = empty()

    for shown, minute in zip(looks, minutes, strict=False):
        events = look(history, shown, minute)
        history = append(history, events)
        check(history, shown)

    times = history.select(pl.struct("annotation_id", "updated_at").is_unique()).to_series()
    assert times.all(), "no two events of an annotation have one time"


@given(servers, st.data())
def test_two_places_that_looked_at_different_moments_merge_to_what_was_seen_last(
    looks: list[dict[int, dict[str, Any]]], data: st.DataObject
) -> None:
    """The clock goes right here: a deletion is noticed after it was made, and an edit has the time of the edit."""
    shown_at = [
        {number: {**state, "minute": minute} for number, state in shown.items()} for minute, shown in enumerate(looks)
    ]
    histories = []
    for _ in range(2):
        history = empty()
        for minute, shown in enumerate(shown_at):
            if minute == len(looks) - 1 or data.draw(st.booleans()):
                history = append(history, look(history, shown, minute))
        histories.append(history)

    merged = merge_events(*histories)

    last = {row["annotation_id"].partition("-")[0]: row for row in latest_events(merged).iter_rows(named=True)}
    assert {int(number) for number, row in last.items() if row["event"] != "deleted"} == shown_at[-1].keys()


def test_an_answer_that_is_deleted_and_restored_from_a_backup_counts_again() -> None:
    shown, history, events = {7: {"choice": "fine", "minute": 0, "is_skip": False, "author": 1}}, empty(), []

    for number, state in enumerate([shown, {}, shown, shown, {}, shown]):
        found = look(history, state, minute=number + 1)
        events += [row["event"] for row in found]
        history = append(history, found)

    assert events == ["created", "deleted", "restored", "deleted", "restored"]
    assert aggregate_annotations(history, ["shop"], ["fine"]).labels["votes"].to_list() == [1]


def test_the_answers_of_deleted_accounts_stay_those_of_several_people() -> None:
    answers = {7: ("fine", 1), 8: ("fine", 2), 9: ("poor", 3)}
    known, unknown = (
        {
            number: {"choice": choice, "minute": number, "is_skip": False, "author": author if is_known else None}
            for number, (choice, author) in answers.items()
        }
        for is_known in (True, False)
    )
    seen_before = append(empty(), look(empty(), known))
    kept = append(seen_before, look(seen_before, unknown))
    fresh = append(empty(), look(empty(), unknown))

    for history in (kept, fresh):
        labels = aggregate_annotations(history, ["shop"], ["fine", "poor"]).labels
        assert labels.select("label", "votes", "agreement").rows() == [("fine", 3, 2 / 3)]
    assert kept.equals(seen_before), "who answered is known from before"


@pytest.mark.parametrize(
    "result",
    [
        None,
        [],
        {},
        "fine",
        [None],
        [{}],
        [{"type": "choices", "from_name": "state"}],
        [{"type": "choices", "from_name": "state", "value": None}],
        [{"type": "choices", "from_name": "state", "value": "fine"}],
        [{"type": "choices", "from_name": "state", "value": {"choices": None}}],
        [{"type": "choices", "from_name": "other", "value": {"choices": ["fine"]}}],
    ],
)
def test_what_is_no_answer_is_rejected_with_a_reason_and_the_others_count(result: object) -> None:
    good = annotation(7, {"choice": "fine", "minute": 0, "is_skip": False, "author": 1})
    bad = {**good, "id": 8, "result": result, "completed_by": {"email": "a@b.c"}, "lead_time": "long"}

    rows = parse_task({**task({}), "annotations": [good, bad]}, QUESTION, KEYS, SECRET)

    found = aggregate_annotations(append(empty(), list(diff_annotations({}, rows, NOON))), ["shop"], ["fine"])
    assert found.labels["votes"].to_list() == [1]
    assert found.rejected["reason"].to_list() == ["no choice was made"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"item": "a text"}, "expected a mapping in `item`, found 'a text'"),
        ({"item": {"event_time": "soon", "shop": "a"}}, "in `item.event_time`, found 'soon'"),
        ({"item": {"event_time": 7, "shop": "a"}}, "in `item.event_time`, found 7"),
        ({"item": {"shop": "a"}}, "expected a time in `item.event_time`, found none"),
        ({"item": {"event_time": "9999-12-31T23:59:59-14:00", "shop": "a"}}, "in `item.event_time`"),
        ({"item": {"event_time": NOON.isoformat(), "shop": 7}}, "expected String in `item.shop`, found 7"),
        ({"item": {"event_time": NOON.isoformat(), "shop": ["a"]}}, "expected String in `item.shop`"),
        ({"sample_id": 7}, "expected a text in `sample_id`, found 7"),
        ({"sample_id": None}, "expected a text in `sample_id`, found None"),
    ],
)
def test_a_task_that_somebody_has_edited_is_set_aside_by_its_number(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidTaskError) as refused:
        parse_task(task({}, **changes), QUESTION, KEYS, SECRET)

    assert refused.value.task == 1
    assert reason in refused.value.reason


@pytest.mark.parametrize("item", [None, "soon", 7, [], {}, {"event_time": None}, {"event_time": "soon"}])
def test_an_item_without_a_time_is_in_no_partition(item: object) -> None:
    assert partition_of(item) is None
