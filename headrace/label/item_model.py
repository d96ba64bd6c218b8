"""items and their labels → probability of each choice, by a model that did not see the item's own label.

A logistic regression on the declared features of an item, fitted in turn to four fifths of the labeled items and
applied to the rest (cross-validation: Stone, 1974). An item's fold depends on its id alone, so a new label moves no
other item to another fold.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from headrace.extras import require_extra

Numbers = npt.NDArray[np.float64]
FeatureVectors = Mapping[str, Sequence[float]]
"""Sample id → what the model may learn from."""

FOLDS = 5
INVERSE_REGULARIZATION = 0.1
"""scikit-learn's `C`. Stronger than its default of 1: a campaign begins with few labels and many features."""
SMOOTHING = 0.02
"""Share given to all choices alike: one that no labeled item has is not impossible."""
DIGITS = 4
"""Of a probability: beyond these, two processors may differ."""


def cross_validated_probabilities(items: FeatureVectors, labels: Mapping[str, str], choices: Sequence[str]) -> Numbers:
    """One row per item in the order of their ids, one column per choice; each row adds up to one."""
    names = sorted(items)
    features = np.array([items[name] for name in names], dtype=np.float64).reshape(len(names), -1)
    folds = np.array([int(sha256(name.encode()).hexdigest()[:8], 16) % FOLDS for name in names])
    is_labeled = np.array([name in labels for name in names])
    predicted = np.full((len(names), len(choices)), 1 / len(choices))
    for fold in range(FOLDS):
        held_out, training = np.flatnonzero(folds == fold), np.flatnonzero((folds != fold) & is_labeled)
        targets = [labels[names[index]] for index in training]
        if len(held_out) and len(set(targets)) > 1:
            predicted[held_out] = _fit_predict(features[training], targets, features[held_out], choices)
    smoothed: Numbers = (predicted * (1 - SMOOTHING) + SMOOTHING / len(choices)).round(DIGITS)
    smoothed /= smoothed.sum(axis=1, keepdims=True)
    return smoothed


def _fit_predict(training: Numbers, targets: Sequence[str], held_out: Numbers, choices: Sequence[str]) -> Numbers:
    require_extra("labeling", "A model of the items")
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  seconds, that no other consensus needs
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    regression = LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=1000)
    model = make_pipeline(StandardScaler(), regression).fit(training, targets)
    predicted: Numbers = np.zeros((len(held_out), len(choices)))
    predicted[:, [choices.index(str(name)) for name in model.classes_]] = model.predict_proba(held_out)
    return predicted
