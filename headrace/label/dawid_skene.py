"""answers → labels: each annotator's answers weighed by how often they seem to be right.

Method: Dawid and Skene, "Maximum likelihood estimation of observer error-rates using the EM algorithm", Applied
Statistics 28 (1979). Who is right is not known, so both are estimated in turn, from all answers at once, until they
agree: the labels from what each annotator tends to answer to each of them, and that from the labels. It starts from the
majority. A prior of mostly correct annotators keeps somebody with three answers from counting as infallible.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

Numbers = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

MAX_ITERATIONS, TOLERANCE = 100, 1e-6
PRIOR_ANSWERS, PRIOR_ACCURACY = 4.0, 0.7
"""What is assumed of an annotator before their first answer: as if so many answers, this share right, were seen."""
DIGITS = 4
"""Of a confidence: beyond these, two processors may differ."""


@dataclass(frozen=True)
class _Answers:
    """Item, annotator and choice of each answer, as indices, and how many there are of each."""

    items: Indices
    annotators: Indices
    choices: Indices
    shape: tuple[int, int, int]


def aggregate_answers(answers: pl.DataFrame, choices: Sequence[str]) -> pl.DataFrame:
    """`sample_id`, `label` and `confidence` of each item that is decided; one with two equally likely labels is not.

    Args:
        answers: `sample_id`, `annotator`, `choice`; one row per annotator and item.
        choices: The answers there may be.
    """
    if answers.is_empty():
        return pl.DataFrame(schema={"sample_id": pl.String, "label": pl.String, "confidence": pl.Float64})
    ordered = answers.sort("sample_id", "annotator")
    names = ordered["sample_id"].unique(maintain_order=True)
    probabilities = _estimate(_to_indices(ordered, choices)).round(DIGITS)
    best = probabilities.argmax(axis=1)
    labels = pl.DataFrame(
        {
            "sample_id": names,
            "label": [choices[index] for index in best],
            "confidence": probabilities.max(axis=1),
        },
        schema_overrides={"label": pl.String},
    )
    is_unique = (probabilities == probabilities.max(axis=1, keepdims=True)).sum(axis=1) == 1
    return labels.filter(pl.Series(is_unique))


def _to_indices(ordered: pl.DataFrame, choices: Sequence[str]) -> _Answers:
    def indices(column: str, values: Sequence[Any] | pl.Series) -> Indices:
        index = {value: number for number, value in enumerate(values)}
        return np.array([index[value] for value in ordered[column]], dtype=np.int64)

    items, annotators = (ordered[name].unique().sort() for name in ("sample_id", "annotator"))
    columns = indices("sample_id", items), indices("annotator", annotators), indices("choice", choices)
    return _Answers(*columns, (len(items), len(annotators), len(choices)))


def _estimate(answers: _Answers) -> Numbers:
    """Probability of each choice (columns) for each item (rows)."""
    items, annotators, choices = answers.shape
    probabilities: Numbers = np.zeros((items, choices))
    np.add.at(probabilities, (answers.items, answers.choices), 1.0)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    prior = np.full((choices, choices), (1 - PRIOR_ACCURACY) / max(choices - 1, 1))
    np.fill_diagonal(prior, PRIOR_ACCURACY)
    for _ in range(MAX_ITERATIONS):
        # M step: each annotator's confusion matrix (annotator, true choice, answer), and how frequent each choice is.
        confusion = np.tile(prior * PRIOR_ANSWERS, (annotators, 1, 1))
        np.add.at(confusion.transpose(0, 2, 1), (answers.annotators, answers.choices), probabilities[answers.items])
        confusion /= confusion.sum(axis=2, keepdims=True)
        frequencies = (probabilities.sum(axis=0) + 1) / (items + choices)
        # E step, in logarithms: products of many probabilities underflow.
        logs = np.tile(np.log(frequencies), (items, 1))
        np.add.at(logs, answers.items, np.log(confusion[answers.annotators, :, answers.choices]))
        updated: Numbers = np.exp(logs - logs.max(axis=1, keepdims=True))
        updated /= updated.sum(axis=1, keepdims=True)
        if np.abs(updated - probabilities).max() < TOLERANCE:
            return updated
        probabilities = updated
    return probabilities
