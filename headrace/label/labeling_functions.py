"""sample → suggestions: labeling functions vote, and a model of their votes suggests a choice.

At first that is the majority of the votes. Once enough people have answered items that were shown *without* a
suggestion, a logistic regression on the votes is fitted to those answers, and the better of the two is used, measured
by cross-validation on them. Answers to items with a suggestion are no evidence: people follow what they are shown.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import polars as pl

from headrace.dataset import LabelingTask
from headrace.engine.code_hash import fingerprint, source_code
from headrace.extras import require_extra
from headrace.label.sampling import in_holdout
from headrace.text import pluralize

ENOUGH_ANSWERS = 50
FOLDS = 5
DIGITS = 4

Votes = Mapping[str, Mapping[str, str | None]]
"""Sample id → labeling function → the choice it votes for, None where it abstains."""


@dataclass(frozen=True)
class Suggestion:
    """A choice that people see before they give theirs, and how confident the model is, from 0 to 1."""

    choice: str
    confidence: float


@dataclass(frozen=True)
class Suggestions:
    """Suggestions for a sample, and the model that made them.

    Attributes:
        by_item: Sample id → suggestion. Items shown without one, and those that every function abstains on, have none.
        model_version: The model and a hash of what it is made of, as Label Studio shows it.
        reason: The measurement that chose the model.
    """

    by_item: Mapping[str, Suggestion]
    model_version: str
    reason: str


@dataclass(frozen=True)
class FunctionStatistics:
    """Measurements of a labeling function.

    Attributes:
        name: Of the function.
        coverage: Share of the items that it votes on.
        conflict: Share of the items on which another function votes otherwise.
        accuracy: Share of its votes that people agree with, on items shown without a suggestion; None if there is none.
    """

    name: str
    coverage: float
    conflict: float
    accuracy: float | None


def is_without_suggestion(sample_id: str, labeling: LabelingTask) -> bool:
    """Whether an item is shown without a suggestion.

    The purpose is part of the hash: with another text, other items would count as shown without one than were.
    """
    return in_holdout(sample_id, labeling.no_suggestion_share, f"blind {labeling.name}")


def apply_labeling_functions(rows: pl.DataFrame, labeling: LabelingTask) -> Votes:
    """The votes of each function on each sampled row."""
    return {
        row["sample_id"]: {function.__name__: function(row) for function in labeling.labeling_functions}
        for row in rows.iter_rows(named=True)
    }


def suggest_choices(votes: Votes, labeling: LabelingTask, labels: Mapping[str, str]) -> Suggestions:
    """Suggestions for the items that are to be shown with one.

    Args:
        votes: Of all sampled items.
        labeling: The question.
        labels: Sample id → label that people gave.
    """
    evidence = {
        item: labels[item] for item in sorted(votes.keys() & labels.keys()) if is_without_suggestion(item, labeling)
    }
    suggestions, model, reason = _choose_model(votes, labeling, evidence)
    shown = {item: made for item, made in suggestions.items() if not is_without_suggestion(item, labeling)}
    fitted_to = f"{sorted(evidence.items())}" if model == "logistic" else ""
    code = fingerprint(source_code([*labeling.modules, labeling.sample.__module__]).files)
    version = f"{model}-{sha256((code + fitted_to).encode()).hexdigest()[:8]}"
    return Suggestions(shown, version, reason)


def majority_choices(votes: Votes) -> dict[str, Suggestion]:
    """Sample id → the choice with most votes; items where several lead are left out."""
    suggestions = {}
    for item, by_function in votes.items():
        tally = Counter(choice for choice in by_function.values() if choice is not None).most_common(2)
        if tally and (len(tally) == 1 or tally[0][1] > tally[1][1]):
            cast = sum(choice is not None for choice in by_function.values())
            suggestions[item] = Suggestion(tally[0][0], round(tally[0][1] / cast, DIGITS))
    return suggestions


def measure_functions(votes: Votes, labeling: LabelingTask, labels: Mapping[str, str]) -> list[FunctionStatistics]:
    """Coverage, conflict and accuracy of each labeling function."""
    return [_measure_function(one.__name__, votes, labeling, labels) for one in labeling.labeling_functions]


def measure_anchoring(votes: Votes, labeling: LabelingTask, labels: Mapping[str, str]) -> dict[str, float | None]:
    """How often people's label is the majority of the functions, `with_suggestion` and `without_suggestion`.

    A much higher share with a suggestion means that people follow it rather than judge.
    """
    agrees: dict[str, list[bool]] = {"with_suggestion": [], "without_suggestion": []}
    for item, made in majority_choices(votes).items():
        if item in labels:
            name = "without_suggestion" if is_without_suggestion(item, labeling) else "with_suggestion"
            agrees[name].append(made.choice == labels[item])
    return {name: sum(values) / len(values) if values else None for name, values in agrees.items()}


def _measure_function(name: str, votes: Votes, labeling: LabelingTask, labels: Mapping[str, str]) -> FunctionStatistics:
    cast = {item: choice for item, by_function in votes.items() if (choice := by_function[name]) is not None}
    conflicts = (any(other not in (None, choice) for other in votes[item].values()) for item, choice in cast.items())
    evidence = [item for item in cast if item in labels and is_without_suggestion(item, labeling)]
    correct = [cast[item] == labels[item] for item in evidence]
    size = max(len(votes), 1)
    accuracy = sum(correct) / len(correct) if correct else None
    return FunctionStatistics(name, len(cast) / size, sum(conflicts) / size, accuracy)


def _choose_model(
    votes: Votes, labeling: LabelingTask, evidence: Mapping[str, str]
) -> tuple[dict[str, Suggestion], str, str]:
    """All suggestions of the better model, its name, and why it was chosen."""
    by_majority = majority_choices(votes)
    if len(evidence) < ENOUGH_ANSWERS or len(set(evidence.values())) < 2:  # noqa: PLR2004  a classifier needs two classes
        labeled = pluralize(len(evidence), "label")
        return by_majority, "majority", f"{labeled} of items shown without a suggestion; a model needs {ENOUGH_ANSWERS}"
    correct = sum(item in by_majority and by_majority[item].choice == label for item, label in evidence.items())
    plain, fitted = correct / len(evidence), _cross_validated_accuracy(votes, labeling, evidence)
    reason = (
        f"correct on {len(evidence)} items shown without a suggestion: majority {plain:.1%}, logistic regression"
        f" {fitted:.1%} (cross-validated)"
    )
    if fitted <= plain:
        return by_majority, "majority", reason
    return _fit_predict(votes, labeling, evidence, votes), "logistic", reason


def _cross_validated_accuracy(votes: Votes, labeling: LabelingTask, evidence: Mapping[str, str]) -> float:
    items = list(evidence)
    correct = 0
    for fold in range(FOLDS):
        held_out = items[fold::FOLDS]
        training = {item: label for item, label in evidence.items() if item not in held_out}
        predicted = _fit_predict(votes, labeling, training, held_out) if len(set(training.values())) > 1 else {}
        correct += sum(item in predicted and predicted[item].choice == evidence[item] for item in held_out)
    return correct / len(items)


def _fit_predict(
    votes: Votes, labeling: LabelingTask, training: Mapping[str, str], wanted: Mapping[str, Any] | Sequence[str]
) -> dict[str, Suggestion]:
    """A multinomial logistic regression on the votes, one column per function and choice, applied to `wanted`."""
    require_extra("labeling", "Weighing the votes of labeling functions")
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  seconds, for labeling functions only

    def features(items: Sequence[str]) -> list[list[float]]:
        return [
            [float(vote == choice) for vote in votes[item].values() for choice in labeling.choices] for item in items
        ]

    items = list(wanted)
    model = LogisticRegression(max_iter=1000).fit(features(list(training)), list(training.values()))
    return {
        item: Suggestion(str(model.classes_[row.argmax()]), round(float(row.max()), DIGITS))
        for item, row in zip(items, model.predict_proba(features(items)), strict=True)
    }
