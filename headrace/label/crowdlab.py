"""answers → labels: people weighed against each other and against a model of the items (CROWDLAB, Goh et al., 2022).

The model is fitted to what a majority says, and asked only about items that it was not fitted to. cleanlab computes the
weights; it takes a second to import and is imported only where this way is asked for.
"""

import warnings
from collections.abc import Mapping, Sequence
from hashlib import sha256

import numpy as np
import polars as pl

from headrace.label import aggregation, item_model

TIE = 1e-6
"""Below what a probability is rounded to."""


def judge(everyone: pl.DataFrame, items: item_model.Items, choices: Sequence[str]) -> pl.DataFrame:
    """`sample_id`, `label` and `confidence` of each item that is decided: all that the model may judge.

    The confidence is a careful one: on digits, four in five of the wrong labels were below one half (docs/labeling.md).

    Args:
        everyone: Answers: `sample_id`, `annotator`, `choice`.
        items: What the model may learn from; an item that is not in it is decided by majority.
        choices: The answers there may be.
    """
    plain = aggregation.majority(everyone)
    given = everyone.filter(pl.col("sample_id").is_in(list(items))).sort("sample_id", "annotator")
    if not given["sample_id"].is_duplicated().any():
        return plain  # one answer an item says nothing about the people who gave it
    names = given["sample_id"].unique(maintain_order=True).to_list()
    likely = item_model.probabilities({name: items[name] for name in names}, _labels(plain), choices)
    weighed = _weighed(given, likely, choices)
    others = plain.filter(~pl.col("sample_id").is_in(names))
    return pl.concat([weighed, others]).sort("sample_id")


def suspects(labels: Mapping[str, str], items: item_model.Items, choices: Sequence[str]) -> list[str]:
    """Items whose label is likely wrong, the worst first (confident learning, Northcutt et al., 2021).

    Args:
        labels: Sample id → label.
        items: What the model may learn from.
        choices: The answers there may be.
    """
    from cleanlab.filter import find_label_issues  # noqa: PLC0415  a second

    names = sorted(labels.keys() & items.keys())
    if len({labels[name] for name in names}) < 2:  # noqa: PLR2004  a model tells apart two at least
        return []
    likely = item_model.probabilities({name: items[name] for name in names}, labels, choices)
    places = np.array([choices.index(labels[name]) for name in names])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a choice has few labels: none of them is doubted then
        found = find_label_issues(places, likely, return_indices_ranked_by="self_confidence", n_jobs=1)
    return [names[place] for place in found]


def _labels(found: pl.DataFrame) -> dict[str, str]:
    return dict(found.select("sample_id", "label").iter_rows())


def _weighed(given: pl.DataFrame, likely: item_model.Numbers, choices: Sequence[str]) -> pl.DataFrame:
    from cleanlab.multiannotator import get_label_quality_multiannotator  # noqa: PLC0415  a second

    place = pl.col("choice").replace_strict(list(choices), list(range(len(choices))), return_dtype=pl.Float64)
    table = given.with_columns(place).pivot("annotator", index="sample_id", values="choice", sort_columns=True)
    answers, likely = table.drop("sample_id").to_numpy(), likely + _lots(table["sample_id"].to_list(), choices)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that people never agree, which the report says
        found = get_label_quality_multiannotator(
            answers, likely, return_detailed_quality=False, return_annotator_stats=False, verbose=False
        )["label_quality"]
    return pl.DataFrame(
        {
            "sample_id": table["sample_id"],
            "label": [choices[int(place)] for place in found["consensus_label"]],
            "confidence": np.asarray(found["consensus_quality_score"], dtype=np.float64).round(item_model.DIGITS),
        },
        schema_overrides={"label": pl.String},
    )


def _lots(names: Sequence[str], choices: Sequence[str]) -> item_model.Numbers:
    """Next to nothing, and another for every item and choice: cleanlab breaks ties by chance, so there must be none."""
    lots = [[int(sha256(f"{name}:{choice}".encode()).hexdigest()[:8], 16) for choice in choices] for name in names]
    return np.array(lots) * (TIE / 16**8)
