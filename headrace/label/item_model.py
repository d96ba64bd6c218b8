"""items and their labels → how likely each answer is, by a model that did not see the item's own label.

A logistic regression on the declared numbers of an item, fitted in turn to four fifths of the labeled items and asked
about the rest (Stone, 1974: cross-validation). An item's fifth hangs on its id alone, so a new label moves no other.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Items = Mapping[str, Sequence[float]]
"""Sample id → what the model may learn from."""

FOLDS = 5
STRENGTH = 0.1
"""Of what the labels say against all weights being zero: a campaign begins with few labels and many numbers."""
DOUBT = 0.02
"""Share given to every answer alike: one that no labeled item has is not impossible."""
DIGITS = 4
"""Of a probability: beyond these, two processors may differ."""


def probabilities(items: Items, labels: Mapping[str, str], choices: Sequence[str]) -> Numbers:
    """A row an item in the order of their ids, a column a choice; every row adds up to one."""
    names = sorted(items)
    numbers = np.array([items[name] for name in names], dtype=np.float64).reshape(len(names), -1)
    folds = np.array([int(sha256(name.encode()).hexdigest()[:8], 16) % FOLDS for name in names])
    known = np.array([name in labels for name in names])
    found = np.full((len(names), len(choices)), 1 / len(choices))
    for fold in range(FOLDS):
        asked, shown = np.flatnonzero(folds == fold), np.flatnonzero((folds != fold) & known)
        answers = [labels[names[place]] for place in shown]
        if len(asked) and len(set(answers)) > 1:
            found[asked] = _fitted(numbers[shown], answers, numbers[asked], choices)
    mixed: Numbers = (found * (1 - DOUBT) + DOUBT / len(choices)).round(DIGITS)
    mixed /= mixed.sum(axis=1, keepdims=True)
    return mixed


def _fitted(shown: Numbers, answers: Sequence[str], asked: Numbers, choices: Sequence[str]) -> Numbers:
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  seconds, that no other way to labels needs
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    model = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=1000)).fit(shown, answers)
    found: Numbers = np.zeros((len(asked), len(choices)))
    found[:, [choices.index(str(name)) for name in model.classes_]] = model.predict_proba(asked)
    return found
