"""answers → labels: each person's answers weighed by how often they seem to be right (Dawid and Skene, 1979).

Who is right is not known, so both are estimated in turn, from all answers at once, until they agree: the labels from
what each person tends to answer to each of them, and that from the labels. Starts from the majority; a prior for people
who are mostly right keeps somebody with three answers from counting as infallible.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

Numbers = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

ROUNDS, CLOSE = 100, 1e-6
PRIOR_ANSWERS, PRIOR_RIGHT = 4.0, 0.7
"""What is believed of a person before their first answer: as if so many answers, this share right, were seen."""
DIGITS = 4
"""Of a confidence: beyond these, two processors may differ."""


@dataclass(frozen=True)
class _Given:
    """The answers as numbers: item, person and choice of each."""

    items: Places
    people: Places
    choices: Places
    shape: tuple[int, int, int]


def judge(everyone: pl.DataFrame, choices: Sequence[str]) -> pl.DataFrame:
    """`sample_id`, `label` and `confidence` of each item of `everyone`'s answers; a draw is not decided."""
    if everyone.is_empty():
        return pl.DataFrame(schema={"sample_id": pl.String, "label": pl.String, "confidence": pl.Float64})
    ordered = everyone.sort("sample_id", "annotator")
    names = ordered["sample_id"].unique(maintain_order=True)
    belief = _believed(_numbered(ordered, choices)).round(DIGITS)
    best = belief.argmax(axis=1)
    found = pl.DataFrame(
        {"sample_id": names, "label": [choices[place] for place in best], "confidence": belief.max(axis=1)},
        schema_overrides={"label": pl.String},
    )
    alone = (belief == belief.max(axis=1, keepdims=True)).sum(axis=1) == 1
    return found.filter(pl.Series(alone))


def _numbered(ordered: pl.DataFrame, choices: Sequence[str]) -> _Given:
    def places(column: str, names: Sequence[Any] | pl.Series) -> Places:
        numbers = {name: place for place, name in enumerate(names)}
        return np.array([numbers[value] for value in ordered[column]], dtype=np.int64)

    items, people = (ordered[name].unique().sort() for name in ("sample_id", "annotator"))
    given = places("sample_id", items), places("annotator", people), places("choice", choices)
    return _Given(*given, (len(items), len(people), len(choices)))


def _believed(given: _Given) -> Numbers:
    """Of each item and choice: how likely it is the true one."""
    items, people, choices = given.shape
    belief: Numbers = np.zeros((items, choices))
    np.add.at(belief, (given.items, given.choices), 1.0)
    belief /= belief.sum(axis=1, keepdims=True)
    prior = np.full((choices, choices), (1 - PRIOR_RIGHT) / max(choices - 1, 1))
    np.fill_diagonal(prior, PRIOR_RIGHT)
    for _ in range(ROUNDS):
        tells = np.tile(prior * PRIOR_ANSWERS, (people, 1, 1))  # person, true choice, answer
        np.add.at(tells.transpose(0, 2, 1), (given.people, given.choices), belief[given.items])
        tells /= tells.sum(axis=2, keepdims=True)
        often = (belief.sum(axis=0) + 1) / (items + choices)
        logs = np.tile(np.log(often), (items, 1))
        np.add.at(logs, given.items, np.log(tells[given.people, :, given.choices]))
        after: Numbers = np.exp(logs - logs.max(axis=1, keepdims=True))
        after /= after.sum(axis=1, keepdims=True)
        if np.abs(after - belief).max() < CLOSE:
            return after
        belief = after
    return belief
