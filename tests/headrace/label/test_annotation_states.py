"""The history of an annotation, whatever the server shows and in whatever order: checked against a model of its states.

The model keeps one state per annotation, what was seen last; the history has to add up to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from release_clones import QUESTION

from headrace.dataset import Guards
from headrace.label import aggregation, sync
from headrace.label.aggregation import aggregate_annotations, latest_events
from headrace.label.annotation_log import merge_events
from headrace.label.annotations import (
    TICK,
    Row,
    annotation_schema,
    diff_annotations,
    latest_states,
    parse_task,
    partition_of,
)
from headrace.label.errors import InvalidTaskError
from headrace.label.review import ReviewDecision

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
        "editor": st.sampled_from([1, 2, None]),
    }
)
shown_tasks = st.dictionaries(st.sampled_from([7, 8]), annotations, max_size=2)
servers = st.lists(shown_tasks, min_size=1, max_size=6)
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
        "updated_by": state.get("editor"),
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


@dataclass
class AnswerModel:
    """What is known of one annotation, told without events: the state machine that the history stands for."""

    author: int | None
    seen_at: datetime
    content: tuple[object, ...] = ()
    is_deleted: bool = False
    is_disputed: bool = False
    review: str | None = None

    def look(self, state: dict[str, Any] | None, at: datetime, *, is_first: bool) -> None:
        """Take note of what the server shows; None for an annotation that is not there."""
        if state is None:
            if not self.is_deleted:
                self.is_deleted, self.is_disputed, self.review = True, False, None
                self.seen_at = max(at, self.seen_at + TICK)
            return
        was_disputed, was_author = self.is_disputed, self.author
        self.author = self.author or state["author"]
        if state["author"] not in (None, self.author):
            self.is_disputed = True
        elif state["editor"]:
            self.is_disputed = state["editor"] != self.author
        stamp, content = NOON + timedelta(minutes=state["minute"]), (state["choice"], state["is_skip"])
        is_new = is_first or self.is_deleted or stamp > self.seen_at or content != self.content
        if is_new or was_disputed != self.is_disputed or was_author != self.author:
            self.review, self.is_deleted = None, False
            self.seen_at = stamp if is_first else max(stamp, self.seen_at + TICK)
        self.content = content

    def decide(self, decision: ReviewDecision) -> None:
        """Take note of a review."""
        is_accepted = decision.decision == "accepted"
        if self.is_deleted or self.content[1] or (is_accepted and self.is_disputed and not decision.include_disputed):
            return
        if self.review is None or decision.include_reviewed:
            self.review = decision.decision

    def status(self, *, hold: bool) -> str:
        """What becomes of it; an answer that counts may be superseded by another one of the same person."""
        if self.is_deleted:
            return "deleted"
        if self.is_disputed and self.review != "accepted":
            return "rejected"
        if self.content[1]:
            return "skipped"
        if self.review == "rejected":
            return "rejected"
        return "held" if hold and self.review is None else "counts"


decisions = st.builds(
    ReviewDecision,
    decision=st.sampled_from(["accepted", "rejected"]),
    reviewer=st.just("Grace"),
    include_reviewed=st.booleans(),
    include_disputed=st.booleans(),
)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(shown_tasks, st.integers(-30, 30), st.none() | decisions), max_size=6))
def test_whatever_is_looked_at_and_reviewed_in_any_order_each_answer_has_the_state_of_the_model(
    steps: list[tuple[dict[int, dict[str, Any]], int, ReviewDecision | None]],
) -> None:
    history, model = empty(), dict[int, AnswerModel]()

    for number, (shown, minute, decision) in enumerate(steps):
        at = NOON + timedelta(minutes=minute)
        history = append(history, look(history, shown, minute))
        for name in shown.keys() | model.keys():
            is_first = name not in model
            answer = model.setdefault(name, AnswerModel(None, at))
            answer.look(shown.get(name), at, is_first=is_first)
        if decision:
            decided_at = NOON + timedelta(days=1, minutes=number)
            history = append(history, list(decision.new_events(history, "grace", decided_at)))
            for answer in model.values():
                answer.decide(decision)

        assert look(history, shown, minute) == []
        for hold in (False, True):
            found = status_by_number(history, hold=hold)
            assert found == {name: answer.status(hold=hold) for name, answer in model.items()}


def status_by_number(history: pl.DataFrame, *, hold: bool) -> dict[int, str]:
    """Number of the annotation → its status."""
    found = aggregation.with_status(history, ["fine", "poor"], hold_unreviewed=hold)
    counts = {"accepted": "counts", "superseded": "counts"}
    return {
        int(name.partition("-")[0]): counts.get(status, status)
        for name, status in found.select("annotation_id", "status").iter_rows()
    }


ANSWER = {"choice": "fine", "minute": 0, "is_skip": False, "author": 1, "editor": 1}


@pytest.mark.parametrize(
    ("change", "event", "reason"),
    [
        ({"author": 2}, "reassigned", "its author in Label Studio is not "),
        ({"author": 2, "editor": 2, "minute": 1}, "reassigned", "its author in Label Studio is not "),
        ({"editor": 2}, "edited_by_other", "somebody else than "),
        ({"editor": 2, "choice": "poor", "minute": 1}, "edited_by_other", "somebody else than "),
        ({"editor": 2, "is_skip": True, "minute": 1}, "edited_by_other", "somebody else than "),
    ],
)
def test_an_answer_that_may_not_be_its_authors_counts_only_once_the_author_or_a_reviewer_says_so(
    change: dict[str, Any], event: str, reason: str
) -> None:
    history = append(empty(), look(empty(), {7: ANSWER}))
    first = history["annotator"].item()

    history = append(history, look(history, {7: {**ANSWER, **change}}))

    found = aggregate_annotations(history, ["shop"], ["fine", "poor"])
    assert history["event"].to_list() == ["created", event]
    assert (history["annotator"] == first).all()
    assert (found.labels.height, found.counts["rejected"]) == (0, 1)
    assert found.rejected["reason"].item().startswith(reason)
    assert list(aggregation.disputed_answers(history)) == [history["annotation_id"][0]]
    assert list(ReviewDecision("accepted", "Grace").new_events(history, "grace", NOON)) == []
    corrected = append(history, look(history, {7: {**ANSWER, "minute": 2}}))
    assert aggregate_annotations(corrected, ["shop"], ["fine", "poor"]).labels["votes"].to_list() == [1]
    accepted = ReviewDecision("accepted", "Grace", include_disputed=True)
    reviewed = append(history, list(accepted.new_events(history, "grace", NOON)))
    is_answer = not change.get("is_skip")
    assert aggregate_annotations(reviewed, ["shop"], ["fine", "poor"]).labels.height == is_answer


def test_an_answer_that_somebody_gave_as_another_person_is_set_aside_at_first_sight() -> None:
    history = append(empty(), look(empty(), {7: {**ANSWER, "editor": 2}}))

    assert history["event"].to_list() == ["edited_by_other"]
    assert aggregate_annotations(history, ["shop"], ["fine"]).labels.height == 0


def test_a_dispute_does_not_end_when_the_account_of_who_changed_the_answer_is_deleted() -> None:
    history = append(empty(), look(empty(), {7: ANSWER}))
    history = append(history, look(history, {7: {**ANSWER, "editor": 2, "choice": "poor", "minute": 1}}))

    history = append(history, look(history, {7: {**ANSWER, "editor": None, "choice": "poor", "minute": 2}}))

    assert history["event"].to_list() == ["created", "edited_by_other", "edited_by_other"]


def test_a_held_answer_makes_a_label_that_is_known_since_it_was_accepted() -> None:
    history = append(empty(), look(empty(), {7: ANSWER}))
    held = aggregate_annotations(history, ["shop"], ["fine"], hold_unreviewed=True)
    decided_at = NOON + timedelta(days=3)

    history = append(history, list(ReviewDecision("accepted", "Grace").new_events(history, "grace", decided_at)))

    label = aggregate_annotations(history, ["shop"], ["fine"], hold_unreviewed=True).labels
    assert (held.labels.height, held.counts["held"], held.rejected.height) == (0, 1, 0)
    assert label.select("label", "known_time").rows() == [("fine", decided_at)]
    without_hold = aggregate_annotations(history, ["shop"], ["fine"]).labels
    assert without_hold["known_time"].to_list() == [NOON]


# Clocks


@given(
    st.lists(
        st.tuples(st.integers(1, 300), st.sampled_from([-9, -5, 0, 1, 30, 120, 1440]), st.booleans()),
        min_size=1,
        max_size=20,
    )
)
def test_no_change_is_missed_however_far_ahead_the_clock_of_the_server_was_before(
    steps: list[tuple[int, int, bool]],
) -> None:
    """Minutes that pass, minutes that the server's clock is ahead meanwhile, and whether somebody looks afterwards."""
    now, newest, stamps = NOON, None, dict[int, datetime]()
    unseen: set[int] = set()
    for number, (minutes, ahead, is_look) in enumerate(steps):
        now += timedelta(minutes=minutes)
        stamps[number % 3] = now + timedelta(minutes=ahead)
        unseen.add(number % 3)
        if is_look:
            since = sync.find_cursor(newest, now, timedelta(minutes=ahead))
            listed = {task for task, stamp in stamps.items() if since is None or stamp >= since}
            assert unseen <= listed
            times = [sync.trusted_time(stamps[task], now) for task in listed]
            newest, unseen = max([*times, *([newest] if newest else [])]), set()


def test_a_change_from_the_future_that_an_earlier_version_stored_makes_all_tasks_be_compared() -> None:
    assert sync.find_cursor(NOON + timedelta(hours=1), NOON, timedelta()) is None
    assert sync.find_cursor(None, NOON, timedelta()) is None
    assert sync.find_cursor(NOON, NOON, timedelta(hours=-1)) is None
    assert sync.find_cursor(NOON, NOON, timedelta(minutes=1)) == NOON - sync.OVERLAP


# Mass disappearance


@pytest.mark.parametrize(
    ("held", "lost", "is_refused"),
    [
        (48, 48, True),
        (48, 24, False),
        (48, 25, True),
        (3, 2, False),
        (3, 3, True),
        (100_000, 50_000, False),
        (0, 0, False),
    ],
)
def test_more_than_half_of_the_answers_do_not_disappear_at_once_without_a_persons_word(
    held: int, lost: int, *, is_refused: bool
) -> None:
    events = {f"{number:06}": ("deleted", "reassigned", "edited_by_other")[number % 3] for number in range(lost)}

    loss = sync.answer_loss("annotations/rides/cause", held, events)

    finding = loss.finding(Guards(), "since the last collect")
    assert bool(finding) == is_refused
    if finding:
        assert f"{lost:,} of {held:,} answers would vanish (000000, 000001, 000002" in finding.text
        again = sync.answer_loss("annotations/rides/cause", held, {**events, "another": "deleted"})
        other = again.finding(Guards(), "since the last collect")
        assert other
        assert other.id != finding.id, "other answers need another acceptance"


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
