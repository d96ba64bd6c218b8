"""annotations → labels: the majority of people's newest answers, and nothing that nobody answered."""

from collections.abc import Sequence
from datetime import timedelta

import polars as pl
import pytest
from answers import NOON, SCHEMA, Event
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.label import aggregation
from headrace.label.aggregation import AggregationResult
from headrace.label.review import with_decisions

CHOICES = ("carrier", "weather")


def aggregate(*events: Event, choices: Sequence[str] = CHOICES) -> AggregationResult:
    frame = pl.DataFrame([event.row() for event in events], schema=SCHEMA)
    return aggregation.aggregate_annotations(frame, ("car",), choices)


def label(result: AggregationResult) -> tuple[str, int, float]:
    [row] = result.labels.select("label", "votes", pl.col("agreement").round(2)).iter_rows()
    return row


def known_minute(result: AggregationResult) -> float:
    [at] = result.labels["known_time"]
    return float((at - NOON) / timedelta(minutes=1))


def test_the_majority_decides_and_the_share_that_agrees_is_kept() -> None:
    result = aggregate(Event(1, "ann", "weather"), Event(2, "bob", "carrier"), Event(3, "eve", "weather"))

    assert label(result) == ("weather", 3, 0.67)
    assert result.labels["annotation_ids"].to_list() == [["ride-1 by ann", "ride-1 by bob", "ride-1 by eve"]]


def test_without_a_majority_there_is_no_label_and_every_answer_is_rejected() -> None:
    result = aggregate(Event(1, "ann", "weather"), Event(2, "bob", "carrier"))

    assert result.labels.is_empty()
    assert result.rejected["reason"].to_list() == ["no majority: as many people chose another answer"] * 2
    assert result.counts["rejected"] == 2


def test_a_tie_of_some_items_or_for_the_second_place_undecides_no_other() -> None:
    people = ("ann", "bob", "eve", "joe", "sue")
    tied = [Event(1, who, choice) for who, choice in zip(people, ("weather", "carrier"), strict=False)]
    led = [
        Event(1, who, choice, item="ride-2")
        for who, choice in zip(people, ("weather", "carrier", "weather", "security"), strict=False)
    ]
    three = [
        Event(1, who, choice, item="ride-3")
        for who, choice in zip(people, ("weather", "carrier", "security"), strict=False)
    ]

    result = aggregate(*tied, *led, *three, choices=(*CHOICES, "security"))

    assert result.labels.select("sample_id", "label", "votes", "confidence").rows() == [("ride-2", "weather", 4, 0.5)]
    assert sorted(result.rejected["sample_id"]) == ["ride-1"] * 2 + ["ride-3"] * 3


def test_of_one_persons_answers_to_an_item_the_newest_counts() -> None:
    result = aggregate(
        Event(1, "ann", "weather", annotation="first"),
        Event(9, "ann", "carrier", annotation="second"),
        Event(5, "bob", "carrier"),
    )

    assert label(result) == ("carrier", 2, 1.0)
    assert result.counts["superseded"] == 1


def test_a_skip_after_an_answer_leaves_the_answer_of_that_person() -> None:
    result = aggregate(
        Event(1, "ann", "weather", annotation="first"), Event(2, "ann", "carrier", "skipped", annotation="second")
    )

    assert label(result) == ("weather", 1, 1.0)


def test_an_annotation_that_was_turned_into_a_skip_is_no_answer_any_more() -> None:
    result = aggregate(Event(1, "ann", "weather"), Event(2, "ann", "weather", "skipped"))

    assert result.labels.is_empty()
    assert (result.counts["rows_in"], result.counts["skipped"]) == (1, 1)


def test_an_answer_outside_the_choices_never_outvotes_and_never_supersedes() -> None:
    result = aggregate(
        Event(1, "ann", "weather", annotation="first"),
        Event(2, "ann", "gremlins", annotation="second"),
        Event(3, "bob", None),
    )

    assert label(result) == ("weather", 1, 1.0)
    assert sorted(result.rejected["reason"]) == [
        "gremlins is none of the choices (carrier, weather)",
        "no choice was made",
    ]


def test_a_label_is_known_from_its_newest_answer_on() -> None:
    assert known_minute(aggregate(Event(1, "ann", "weather"), Event(7, "bob", "weather"))) == 7


def test_a_label_that_a_withdrawal_decided_is_known_from_the_withdrawal_on() -> None:
    tied = (Event(1, "ann", "weather"), Event(2, "bob", "carrier"))

    result = aggregate(*tied, Event(30, "bob", "carrier", "deleted"))

    assert (label(result), known_minute(result)) == (("weather", 1, 1.0), 30)


def test_a_skip_by_somebody_who_never_answered_does_not_make_the_label_later() -> None:
    assert known_minute(aggregate(Event(1, "ann", "weather"), Event(9, "bob", "weather", "skipped"))) == 1


def test_a_rejection_is_read_also_in_the_word_of_0_1() -> None:
    answer, old = Event(1, "ann", "weather"), Event(1, "boss", None, "refused", annotation="ride-1 by ann")

    result = aggregate(answer, old)

    assert result.labels.is_empty()
    assert result.rejected["reason"].to_list() == ["rejected by boss on 2026-11-20 12:01 UTC: no reason given"]
    decisions = with_decisions(pl.DataFrame([answer.row(), old.row()], schema=SCHEMA))
    assert decisions["decision"].to_list() == ["rejected"]


EVENTS = st.builds(
    Event,
    minute=st.integers(0, 30),
    person=st.sampled_from(["ann", "bob", "eve"]),
    choice=st.sampled_from([*CHOICES, "gremlins", None]),
    event=st.sampled_from(["created", "changed", "skipped", "deleted"]),
    annotation=st.sampled_from(["", "again-ann"]),
    item=st.sampled_from(["ride-1", "ride-2"]),
).map(lambda event: Event(**{**vars(event), "annotation": f"{event.item} {event.person}{event.annotation}"}))


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(EVENTS, min_size=1, unique_by=lambda event: (event.row()["annotation_id"], event.minute)))
def test_every_annotation_becomes_exactly_one_thing_and_the_order_of_events_in_the_file_never_matters(
    events: list[Event],
) -> None:
    result = aggregate(*events)

    counts = dict(result.counts)
    assert counts.pop("rows_in") == sum(counts.values()) == len({event.annotation for event in events})
    assert result.labels["votes"].sum() == counts["accepted"]
    assert result.rejected.height == counts["rejected"]
    again = aggregate(*reversed(events))
    assert again.labels.equals(result.labels)
    assert again.rejected.sort(pl.all()).equals(result.rejected.sort(pl.all()))
