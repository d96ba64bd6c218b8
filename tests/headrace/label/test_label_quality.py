"""answers → labels and their quality: weighed annotators, agreement, gold, suggestions chosen by measurement."""

from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any

import polars as pl
import pytest
from answers import SCHEMA, Event
from label_campaign import CONFIG, sample_rides, task_data

from headrace.dataset import Input, LabelingTask, Thresholds
from headrace.label import aggregation, crowdlab, dawid_skene, item_model, labeling_functions, quality

CHOICES = ("carrier", "weather", "security")


def first(row: Mapping[str, Any]) -> str | None:
    """Right about carriers; takes each of the other causes for the same wrong one every time."""
    return {"carrier": "carrier", "weather": "security", "security": "carrier"}[row["truth"]]


def second(row: Mapping[str, Any]) -> str | None:
    """Abstains on carriers; takes weather and security for each other."""
    return {"carrier": None, "weather": "security", "security": "weather"}[row["truth"]]


LABELING = LabelingTask(
    name="cause", title="Cause", config=CONFIG, control="cause", choices=CHOICES,
    inputs={"rides": Input("validated/r")},
    sample=sample_rides, keys=("car",), task=task_data, labeling_functions=(first, second), no_suggestion_share=0.5,
)  # fmt: skip


def given(*rows: tuple[str, str, str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["sample_id", "annotator", "choice"], orient="row")


def simulate_annotators(items: int, rates: Mapping[str, float]) -> tuple[pl.DataFrame, dict[str, str]]:
    """Answers of people who are wrong so often, and the truth."""
    dice = Random(7)  # noqa: S311  random data of a test, no secret
    truth = {f"item-{number:04}": dice.choice(CHOICES) for number in range(items)}
    rows = [
        (
            item,
            name,
            dice.choice([other for other in CHOICES if other != correct]) if dice.random() < rate else correct,
        )
        for item, correct in truth.items()
        for name, rate in rates.items()
    ]
    return given(*rows), truth


def accuracy(labels: pl.DataFrame, truth: Mapping[str, str]) -> float:
    found: dict[str, str] = dict(labels.select("sample_id", "label").iter_rows())
    return float(sum(found.get(item) == label for item, label in truth.items()) / len(truth))


# Weighing annotators


def test_weighing_annotators_beats_the_majority_where_they_are_of_different_reliability() -> None:
    answers, truth = simulate_annotators(400, {"ann": 0.05, "bob": 0.2, "eve": 0.5, "max": 0.6})

    weighed, plain = (
        accuracy(dawid_skene.aggregate_answers(answers, CHOICES), truth),
        accuracy(aggregation.majority_vote(answers), truth),
    )

    assert weighed > 0.9
    assert plain < weighed - 0.1


def test_the_order_of_the_answers_never_matters() -> None:
    answers, _ = simulate_annotators(60, {"ann": 0.1, "bob": 0.3})

    shuffled = answers.sample(fraction=1, shuffle=True, seed=3)

    assert dawid_skene.aggregate_answers(shuffled, CHOICES).equals(dawid_skene.aggregate_answers(answers, CHOICES))


def test_two_of_whom_nothing_else_is_known_and_who_differ_decide_nothing() -> None:
    answers = given(("a", "ann", "carrier"), ("a", "bob", "weather"))

    assert dawid_skene.aggregate_answers(answers, CHOICES).is_empty()
    assert aggregation.majority_vote(answers).is_empty()


def test_no_answers_are_no_labels() -> None:
    assert dawid_skene.aggregate_answers(given().cast(pl.String), CHOICES).is_empty()


# Weighing annotators and a model of the items


def item_features(truth: Mapping[str, str]) -> dict[str, list[float]]:
    """Numbers of each item that tell its true answer most of the time."""
    dice = Random(3)  # noqa: S311  random data of a test, no secret
    return {item: [dice.gauss(2.0 * (name == correct), 1.0) for name in CHOICES] for item, correct in truth.items()}


def test_a_model_of_the_items_decides_what_people_leave_open() -> None:
    answers, truth = simulate_annotators(300, {"ann": 0.15, "bob": 0.25, "eve": 0.35})
    answers = answers.sample(fraction=0.7, shuffle=True, seed=1)
    asked = {item: label for item, label in truth.items() if item in set(answers["sample_id"])}

    found = crowdlab.aggregate_answers(answers, item_features(truth), CHOICES)

    assert accuracy(found, asked) > accuracy(dawid_skene.aggregate_answers(answers, CHOICES), asked) + 0.03
    assert accuracy(found, asked) > accuracy(aggregation.majority_vote(answers), asked) + 0.1
    assert found.height == len(asked)
    assert found.equals(crowdlab.aggregate_answers(answers.reverse(), item_features(truth), CHOICES))


def test_an_item_that_the_model_knows_nothing_of_is_decided_by_majority() -> None:
    answers, truth = simulate_annotators(40, {"ann": 0.0, "bob": 0.1, "eve": 0.1})
    items = item_features(truth)
    items.pop("item-0000")

    found = dict(crowdlab.aggregate_answers(answers, items, CHOICES).select("sample_id", "label").iter_rows())

    assert found["item-0000"] == truth["item-0000"]


def test_one_answer_an_item_is_its_label_whatever_the_model_says() -> None:
    answers, truth = simulate_annotators(20, {"ann": 0.3})

    assert crowdlab.aggregate_answers(answers, item_features(truth), CHOICES).equals(aggregation.majority_vote(answers))


def test_annotators_who_never_agree_and_choices_that_nobody_makes_are_no_error() -> None:
    answers = given(("a", "ann", "carrier"), ("a", "bob", "weather"), ("b", "ann", "weather"), ("b", "bob", "carrier"))

    found = crowdlab.aggregate_answers(answers, {"a": [0.0], "b": [1.0]}, CHOICES)

    assert found["sample_id"].to_list() == ["a", "b"]


def test_planted_errors_are_doubted_the_worst_first_and_few_others() -> None:
    _, truth = simulate_annotators(400, {"ann": 0.0})
    planted = dict(list(truth.items())[:20])
    wrong = {item: CHOICES[(CHOICES.index(label) + 1) % 3] for item, label in planted.items()}

    doubted = crowdlab.label_issues(truth | wrong, item_features(truth), CHOICES)

    assert len(set(doubted) & set(wrong)) >= 14
    assert len(set(doubted[:10]) & set(wrong)) >= 8


def test_the_model_never_saw_the_label_that_it_judges() -> None:
    _, truth = simulate_annotators(100, {"ann": 0.0})
    lone = {item: [float(number == 7)] for number, item in enumerate(truth)}  # tells item 7 and nothing else

    before, after = (
        item_model.cross_validated_probabilities(lone, truth | {"item-0007": label}, CHOICES)[7]
        for label in ("carrier", "security")
    )

    assert before.tolist() == after.tolist()


def test_labels_of_one_kind_doubt_nothing() -> None:
    assert crowdlab.label_issues({"a": "carrier", "b": "carrier"}, {"a": [0.0], "b": [1.0]}, CHOICES) == []


# Agreement


def test_alpha_is_what_krippendorff_computes_by_hand() -> None:
    # Units 1 to 3 with values (a a), (a b), (b b): observed 1/3, expected 18/30.
    answers = given(
        ("1", "x", "a"), ("1", "y", "a"), ("2", "x", "a"), ("2", "y", "b"), ("3", "x", "b"), ("3", "y", "b"),
        ("4", "x", "a"),
    )  # fmt: skip

    assert quality.krippendorff_alpha(answers) == pytest.approx(1 - (1 / 3) / (18 / 30))


def test_full_agreement_is_one_chance_is_about_zero_and_single_answers_tell_nothing() -> None:
    same, _ = simulate_annotators(100, {"ann": 0.0, "bob": 0.0})
    chance, _ = simulate_annotators(1000, {"ann": 2 / 3, "bob": 2 / 3})

    assert quality.krippendorff_alpha(same) == 1
    assert quality.krippendorff_alpha(chance) == pytest.approx(0, abs=0.05)
    assert quality.krippendorff_alpha(given(("1", "x", "a"))) is None
    assert quality.krippendorff_alpha(given(("1", "x", "a"), ("1", "y", "a"))) == 1


# The report and the gate


def history(*events: Event) -> pl.DataFrame:
    return pl.DataFrame([event.row() for event in events], schema=SCHEMA)


ANSWERS = history(
    Event(1, "ann", "weather", item="a"), Event(2, "bob", "weather", item="a"),
    Event(3, "ann", "carrier", item="b"), Event(4, "bob", "weather", item="b"),
    Event(5, "ann", "carrier", item="c"), Event(6, "bob", None, "skipped", item="c"),
)  # fmt: skip


def test_the_quality_counts_answers_and_shows_who_is_correct_and_what_is_undecided() -> None:
    found = quality.measure_quality(ANSWERS, LABELING, {"a": "weather", "c": "weather"})

    assert (found.items, found.answers, found.undecided) == (3, 5, 1)
    assert (found.gold_items, found.gold_accuracy) == (2, 0.5)
    ann, bob = found.annotators
    assert (ann.answers, ann.skips, ann.agreement, ann.gold_items, ann.gold_accuracy) == (3, 0, 0.5, 2, 0.5)
    assert (bob.answers, bob.skips, bob.agreement, bob.gold_items, bob.gold_accuracy) == (2, 1, 0.5, 1, 1.0)
    assert found.summary_lines()[0].startswith("5 answers to 3 items, 1 undecided; alpha")
    assert found.summary_lines()[2].endswith(
        "2 answers, 1 skip, agrees with others 50.0%, 100.0% correct on 1 gold item"
    )


def test_counts_of_one_are_singular() -> None:
    found = quality.measure_quality(history(Event(1, "ann", "weather", item="a")), LABELING, {"a": "weather"})

    assert found.summary_lines()[0].startswith("1 answer to 1 item, 0 undecided;")


def test_the_gate_names_every_threshold_that_is_missed_and_what_to_do() -> None:
    strict = replace(LABELING, thresholds=Thresholds(agreement=0.9, gold=0.8))
    found = quality.measure_quality(ANSWERS, strict, {"a": "weather", "c": "weather"})

    with pytest.raises(
        quality.QualityError, match=r"agreement: expected at least 0.9.*gold: expected at least 0.8, found 0.5"
    ):
        quality.check_thresholds(found, strict)
    quality.check_thresholds(found, LABELING)


# Suggestions


def items(count: int) -> tuple[labeling_functions.Votes, dict[str, str]]:
    rows = [{"sample_id": f"item-{number:03}", "truth": CHOICES[number % 3]} for number in range(count)]
    return labeling_functions.apply_labeling_functions(pl.DataFrame(rows), LABELING), {
        row["sample_id"]: row["truth"] for row in rows
    }


def test_a_majority_of_the_votes_suggests_until_there_are_enough_answers_without_a_suggestion() -> None:
    cast, truth = items(40)

    suggested = labeling_functions.suggest_choices(cast, LABELING, truth)

    assert suggested.model_version.startswith("majority-")
    assert "a model needs 50" in suggested.reason
    assert not any(labeling_functions.is_without_suggestion(item, LABELING) for item in suggested.by_item)


def test_with_enough_answers_without_a_suggestion_the_better_model_is_used_and_the_reason_says_how_much_better() -> (
    None
):
    cast, truth = items(300)

    suggested = labeling_functions.suggest_choices(cast, LABELING, truth)

    assert suggested.model_version.startswith("logistic-")
    assert "logistic regression 100.0% (cross-validated)" in suggested.reason
    assert {item: made.choice for item, made in suggested.by_item.items()} == {
        item: label for item, label in truth.items() if not labeling_functions.is_without_suggestion(item, LABELING)
    }


def test_the_same_evidence_gives_the_same_model_and_more_of_it_another() -> None:
    cast, truth = items(300)
    fewer = dict(list(truth.items())[:200])

    assert labeling_functions.suggest_choices(cast, LABELING, truth) == labeling_functions.suggest_choices(
        cast, LABELING, dict(reversed(truth.items()))
    )
    assert (
        labeling_functions.suggest_choices(cast, LABELING, truth).model_version
        != labeling_functions.suggest_choices(cast, LABELING, fewer).model_version
    )


def test_answers_that_people_gave_after_a_suggestion_are_no_evidence() -> None:
    cast, truth = items(300)
    suggested = {
        item: label for item, label in truth.items() if not labeling_functions.is_without_suggestion(item, LABELING)
    }

    assert labeling_functions.suggest_choices(cast, LABELING, suggested).reason.startswith(
        "0 labels of items shown without a suggestion"
    )
    assert [function.accuracy for function in labeling_functions.measure_functions(cast, LABELING, suggested)] == [
        None,
        None,
    ]


def test_each_function_is_measured_for_coverage_conflict_and_accuracy() -> None:
    cast, truth = items(300)

    one, other = labeling_functions.measure_functions(cast, LABELING, truth)

    assert (one.name, one.coverage, round(one.conflict, 2)) == ("first", 1.0, 0.33)
    assert (other.name, round(other.coverage, 2)) == ("second", 0.67)
    assert one.accuracy == pytest.approx(1 / 3, abs=0.1)
    assert other.accuracy == 0


def test_following_the_suggestion_shows_as_a_gap_between_items_with_and_without_it() -> None:
    cast, truth = items(300)
    follows = {
        item: truth[item]
        if labeling_functions.is_without_suggestion(item, LABELING)
        else labeling_functions.majority_choices(cast)[item].choice
        for item in labeling_functions.majority_choices(cast)
    }

    found = labeling_functions.measure_anchoring(cast, LABELING, follows)

    assert found["with_suggestion"] == 1.0
    assert (found["without_suggestion"] or 0) < 0.7
