"""answers → labels: annotators weighed against each other and against a model of the items.

Method: CROWDLAB (Goh, Tkachenko, Mueller, 2022). The model is fitted to the majority votes, and asked only about items
that it was not fitted to. cleanlab computes the weights; it is slow to import, so it is imported in the
functions that need it.
"""

import warnings
from collections.abc import Mapping, Sequence
from hashlib import sha256

import numpy as np
import polars as pl

from headrace.extras import require_extra
from headrace.label import aggregation, item_model

TIE_BREAKER = 1e-6
"""Smaller than what a probability is rounded to."""


def aggregate_answers(answers: pl.DataFrame, items: item_model.FeatureVectors, choices: Sequence[str]) -> pl.DataFrame:
    """`sample_id`, `label` and `confidence` of each item that is decided. Every item that the model knows is.

    The confidence is cautious: on digits, four in five of the wrong labels were below one half (docs/labeling.md).

    Args:
        answers: `sample_id`, `annotator`, `choice`; one row per annotator and item.
        items: What the model may learn from; an item that is not in it is decided by majority vote.
        choices: The answers there may be.
    """
    majority = aggregation.majority_vote(answers)
    known = answers.filter(pl.col("sample_id").is_in(list(items))).sort("sample_id", "annotator")
    if not known["sample_id"].is_duplicated().any():
        return majority  # one answer per item says nothing about the people who gave it
    names = known["sample_id"].unique(maintain_order=True).to_list()
    vectors = {name: items[name] for name in names}
    predicted = item_model.cross_validated_probabilities(vectors, aggregation.labels_by_item(majority), choices)
    weighed = _weigh(known, predicted, choices)
    others = majority.filter(~pl.col("sample_id").is_in(names))
    return pl.concat([weighed, others]).sort("sample_id")


def label_issues(labels: Mapping[str, str], items: item_model.FeatureVectors, choices: Sequence[str]) -> list[str]:
    """Items whose label is likely wrong, the worst first (confident learning: Northcutt, Jiang, Chuang, 2021).

    Args:
        labels: Sample id → label.
        items: What the model may learn from.
        choices: The answers there may be.
    """
    require_extra("labeling", "Finding label issues")
    from cleanlab.filter import find_label_issues  # noqa: PLC0415  slow to import

    names = sorted(labels.keys() & items.keys())
    if len({labels[name] for name in names}) < 2:  # noqa: PLR2004  a classifier needs two classes
        return []
    predicted = item_model.cross_validated_probabilities({name: items[name] for name in names}, labels, choices)
    given = np.array([choices.index(labels[name]) for name in names])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a choice has few labels: cleanlab then doubts none of them
        issues = find_label_issues(given, predicted, return_indices_ranked_by="self_confidence", n_jobs=1)
    return [names[index] for index in issues]


def _weigh(answers: pl.DataFrame, predicted: item_model.Numbers, choices: Sequence[str]) -> pl.DataFrame:
    require_extra("labeling", "The consensus of CROWDLAB")
    from cleanlab.multiannotator import get_label_quality_multiannotator  # noqa: PLC0415  slow to import

    index = pl.col("choice").replace_strict(list(choices), list(range(len(choices))), return_dtype=pl.Float64)
    table = answers.with_columns(index).pivot("annotator", index="sample_id", values="choice", sort_columns=True)
    matrix = table.drop("sample_id").to_numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that annotators never agree, which the report says
        quality = get_label_quality_multiannotator(
            matrix,
            predicted + _tie_breaker(table["sample_id"].to_list(), choices),
            return_detailed_quality=False,
            return_annotator_stats=False,
            verbose=False,
        )["label_quality"]
    return pl.DataFrame(
        {
            "sample_id": table["sample_id"],
            "label": [choices[int(index)] for index in quality["consensus_label"]],
            "confidence": np.asarray(quality["consensus_quality_score"], dtype=np.float64).round(item_model.DIGITS),
        },
        schema_overrides={"label": pl.String},
    )


def _tie_breaker(names: Sequence[str], choices: Sequence[str]) -> item_model.Numbers:
    """A tiny number that differs for each item and choice: cleanlab breaks ties at random, so there must be none."""
    ranks = [[int(sha256(f"{name}:{choice}".encode()).hexdigest()[:8], 16) for choice in choices] for name in names]
    return np.array(ranks) * (TIE_BREAKER / 16**8)
