"""sample → suggestions: labeling functions vote, a model of their votes suggests an answer.

A majority of the votes at first. Once enough people have answered items that were shown *without* a suggestion, a
logistic regression on the votes is fitted to those answers, and the better of the two, measured by cross-validation on
them, is taken. Answers to items with a suggestion are no evidence: people follow what they are shown.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import polars as pl

from headrace.dataset import LabelingTask
from headrace.engine.code_hash import fingerprint, source_code
from headrace.label.sampling import falls
from headrace.text import pluralize

ENOUGH_ANSWERS = 50
FOLDS = 5
DIGITS = 4

Votes = Mapping[str, Mapping[str, str | None]]
"""Sample id → function → its vote."""


@dataclass(frozen=True)
class Suggestion:
    """An answer that is shown before the person gives theirs, and how sure it is."""

    choice: str
    confidence: float


@dataclass(frozen=True)
class Suggested:
    """What is suggested, by which model, and why by that one.

    Attributes:
        by_item: Sample id → suggestion; blind items, and those that every function abstains on, have none.
        model: Its version, as people's tool shows it.
        why: The measurement that chose it.
    """

    by_item: Mapping[str, Suggestion]
    model: str
    why: str


@dataclass(frozen=True)
class Function:
    """A labeling function measured: share of rows it votes on, on which others vote otherwise, right on blind items."""

    name: str
    coverage: float
    conflict: float
    accuracy: float | None


def is_blind(sample_id: str, labeling: LabelingTask) -> bool:
    """Whether an item is shown without a suggestion."""
    return falls(sample_id, labeling.no_suggestion_share, f"blind {labeling.name}")


def vote(rows: pl.DataFrame, labeling: LabelingTask) -> Votes:
    """What each function says of each sampled row."""
    return {
        row["sample_id"]: {function.__name__: function(row) for function in labeling.labeling_functions}
        for row in rows.iter_rows(named=True)
    }


def suggest(votes: Votes, labeling: LabelingTask, answered: Mapping[str, str]) -> Suggested:
    """Suggestions for the items that are not blind.

    Args:
        votes: Of all sampled items.
        labeling: The question.
        answered: Sample id → label that people gave.
    """
    blind = {item: answered[item] for item in sorted(votes.keys() & answered.keys()) if is_blind(item, labeling)}
    found, name, why = _choose(votes, labeling, blind)
    shown = {item: made for item, made in found.items() if not is_blind(item, labeling)}
    evidence = f"{sorted(blind.items())}" if name == "logistic" else ""
    code = fingerprint(source_code([*labeling.modules, labeling.sample.__module__]).files)
    return Suggested(shown, f"{name}-{sha256((code + evidence).encode()).hexdigest()[:8]}", why)


def report(votes: Votes, labeling: LabelingTask, answered: Mapping[str, str]) -> list[Function]:
    """Coverage, conflict and accuracy of each function; accuracy on items shown without a suggestion alone."""
    return [_measured(function.__name__, votes, labeling, answered) for function in labeling.labeling_functions]


def anchoring(votes: Votes, labeling: LabelingTask, answered: Mapping[str, str]) -> dict[str, float | None]:
    """How often people's label is what a majority of the functions says, where they saw that and where they did not.

    A much higher share where they saw it means that they follow rather than judge.
    """
    same: dict[str, list[bool]] = {"shown": [], "blind": []}
    for item, made in majority(votes).items():
        if item in answered:
            same["blind" if is_blind(item, labeling) else "shown"].append(made.choice == answered[item])
    return {name: sum(agree) / len(agree) if agree else None for name, agree in same.items()}


def _measured(name: str, votes: Votes, labeling: LabelingTask, answered: Mapping[str, str]) -> Function:
    given = {item: choice for item, cast in votes.items() if (choice := cast[name]) is not None}
    others = (any(other not in (None, choice) for other in votes[item].values()) for item, choice in given.items())
    blind = [item for item in given if item in answered and is_blind(item, labeling)]
    judged = [given[item] == answered[item] for item in blind]
    accuracy = sum(judged) / len(judged) if judged else None
    size = max(len(votes), 1)
    return Function(name, len(given) / size, sum(others) / size, accuracy)


def _choose(votes: Votes, labeling: LabelingTask, blind: Mapping[str, str]) -> tuple[dict[str, Suggestion], str, str]:
    """All suggestions of the better model, its name, and why it was taken."""
    simple = majority(votes)
    if len(blind) < ENOUGH_ANSWERS or len(set(blind.values())) < 2:  # noqa: PLR2004  a regression tells apart two at least
        why = f"{pluralize(len(blind), 'blind answer')}; {ENOUGH_ANSWERS} are needed to fit anything better"
        return simple, "majority", why
    plain = sum(item in simple and simple[item].choice == label for item, label in blind.items()) / len(blind)
    fitted = _cross_validated(votes, labeling, blind)
    seen = (
        f"right on {len(blind)} blind items: majority {plain:.1%}, logistic regression {fitted:.1%} (cross-validated)"
    )
    if fitted <= plain:
        return simple, "majority", seen
    return _fit(votes, labeling, blind, votes), "logistic", seen


def majority(votes: Votes) -> dict[str, Suggestion]:
    """The choice with most votes; of several, none."""
    found = {}
    for item, cast in votes.items():
        tally = Counter(choice for choice in cast.values() if choice is not None).most_common(2)
        if tally and (len(tally) == 1 or tally[0][1] > tally[1][1]):
            given = sum(choice is not None for choice in cast.values())
            found[item] = Suggestion(tally[0][0], round(tally[0][1] / given, DIGITS))
    return found


def _cross_validated(votes: Votes, labeling: LabelingTask, blind: Mapping[str, str]) -> float:
    items = list(blind)
    right = 0
    for fold in range(FOLDS):
        held = items[fold::FOLDS]
        known = {item: label for item, label in blind.items() if item not in held}
        found = _fit(votes, labeling, known, held) if len(set(known.values())) > 1 else {}
        right += sum(item in found and found[item].choice == blind[item] for item in held)
    return right / len(items)


def _fit(
    votes: Votes, labeling: LabelingTask, known: Mapping[str, str], wanted: Mapping[str, Any] | Sequence[str]
) -> dict[str, Suggestion]:
    """A multinomial logistic regression on the votes, one column a function and choice, as it sees `wanted`."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  no other verb needs it

    def columns(items: Sequence[str]) -> list[list[float]]:
        return [
            [float(cast == choice) for cast in votes[item].values() for choice in labeling.choices] for item in items
        ]

    items = list(wanted)
    model = LogisticRegression(max_iter=1000).fit(columns(list(known)), list(known.values()))
    return {
        item: Suggestion(str(model.classes_[row.argmax()]), round(float(row.max()), DIGITS))
        for item, row in zip(items, model.predict_proba(columns(items)), strict=True)
    }
