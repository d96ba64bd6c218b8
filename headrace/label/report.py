"""annotations → what they are worth, and which items to ask one person more about."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from headrace.dataset import Dataset, LabelingTask, Thresholds
from headrace.label import (
    aggregation,
    consensus,
    crowdlab,
    item_model,
    labeling_functions,
    quality,
    review,
    table_names,
    tasks,
)
from headrace.label.connection import connect, project_of
from headrace.settings import Settings
from headrace.storage.table_store import Lake
from headrace.text import pluralize

SURE = 0.5
"""A label less likely than this is more likely wrong than right."""


@dataclass(frozen=True)
class Report:
    """Quality of the answers, the labeling functions measured, and how often people follow a suggestion.

    Attributes:
        quality: Of the answers.
        functions: Coverage, conflict and accuracy of each labeling function.
        anchoring: How often people's label is what was suggested, where it was `shown` and where they were `blind`.
        blind: Share of the sampled items shown without a suggestion, of those that one could be made for.
        until: When the newest answer was given or changed.
        unspoken: Answers that nobody accepted or refused yet.
        refused: Answers that somebody refused, and nobody accepted since.
    """

    quality: quality.Quality
    functions: list[labeling_functions.Function]
    anchoring: Mapping[str, float | None]
    blind: float | None
    until: str
    unspoken: int
    refused: int

    def lines(self) -> list[str]:
        """For people."""
        functions = [
            f"  {function.name}: votes on {function.coverage:.1%}, in conflict on {function.conflict:.1%}, right on"
            f" {quality.share(function.accuracy)} of those answered blind"
            for function in self.functions
        ]
        shown, blind = (quality.share(self.anchoring[name]) for name in ("shown", "blind"))
        without = f"{quality.share(self.blind)} of the suggestions were kept back"
        follow = [f"  {without}; people agree with them on {shown} where they saw them, on {blind} where not"]
        head = [
            f"  {self.quality.lines()[0]}",
            f"  {pluralize(self.unspoken, 'answer')} to accept or refuse, {self.refused} refused",
        ]
        return [*head, *self.quality.lines()[1:], *functions, *(follow if functions else [])]

    def content(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


def report(
    dataset: Dataset, labeling: LabelingTask, lake: Lake, params: Mapping[str, Any], *, gate: bool = False
) -> Report:
    """Measure what was collected; changes nothing.

    Raises:
        QualityError: With `gate`, the labels do not reach the declared thresholds.
    """
    rows = tasks.sampled(dataset, labeling, lake, params)
    history = table_names.history(dataset, labeling, lake)
    found = _measured(dataset, labeling, lake, history)
    if gate:
        quality.gate(found, labeling)
    cast, labels = labeling_functions.vote(rows, labeling), answered(dataset, labeling, lake)
    made = [labeling_functions.is_blind(item, labeling) for item in labeling_functions.majority(cast)]
    blind = sum(made) / len(made) if made else None
    functions, anchoring = (
        labeling_functions.report(cast, labeling, labels),
        labeling_functions.anchoring(cast, labeling, labels),
    )
    newest = pl.col("updated_at").max().dt.strftime("%Y-%m-%dT%H:%M:%S%.6f%:z")
    until, words = aggregation.newest(history).select(newest).item(), review.spoken(history)["word"]
    refused = int((words == "refused").sum())
    return Report(found, functions, anchoring, blind, until, words.null_count(), refused)


def refuse_poor(dataset: Dataset, labeling: LabelingTask, lake: Lake) -> None:
    """Hold what was collected to the declared thresholds, if there are any.

    Raises:
        QualityError: The labels do not reach them.
    """
    if labeling.thresholds != Thresholds() and lake.manifest(table_names.labels(dataset, labeling)).rows:
        history = table_names.history(dataset, labeling, lake)
        quality.gate(_measured(dataset, labeling, lake, history), labeling)


def ask_again(dataset: Dataset, labeling: LabelingTask, lake: Lake, settings: Settings) -> tuple[str, ...]:
    """Have one person more answer each item that is open; the items.

    Open is an item whose answers are a draw or were refused, that has no label, one less sure than `SURE`, or one that
    a model of the items doubts.

    Raises:
        LabelStudioError: The server refuses, or stays away.
    """
    history = table_names.history(dataset, labeling, lake)
    given = aggregation.answers(history, labeling.choices)
    opinions = dict(given.group_by("sample_id").len().iter_rows())
    there = aggregation.standing(history).group_by("sample_id").len().sort("sample_id")
    sure = set(aggregation.majority(given)["sample_id"]) & set(answered(dataset, labeling, lake, at_least=SURE))
    if items := _evidence(dataset, labeling, lake, history):
        sure -= set(crowdlab.suspects(answered(dataset, labeling, lake), items, labeling.choices))
    open_items = {item: count for item, count in there.iter_rows() if item not in sure}
    wanted = {
        item: count + 1
        for item, count in open_items.items()
        if opinions.get(item, 0) < labeling.max_annotators_per_item
    }
    if wanted:
        with connect(settings) as server:
            server.ask_again(project_of(server, labeling), wanted)
    return tuple(wanted)


def _measured(dataset: Dataset, labeling: LabelingTask, lake: Lake, history: pl.DataFrame) -> quality.Quality:
    items = _evidence(dataset, labeling, lake, history)
    return quality.measure(history, labeling, _gold(dataset, labeling, lake, history), items)


def _gold(dataset: Dataset, labeling: LabelingTask, lake: Lake, history: pl.DataFrame) -> dict[str, str]:
    """Sample id → true answer, for the items in the history that have one."""
    if not labeling.gold:
        return {}
    known = lake.scan(table_names.table(dataset, labeling.gold.table)).select(*labeling.keys, "answer").collect()
    asked = history.select("sample_id", *labeling.keys).unique("sample_id")
    return dict(asked.join(known, on=labeling.keys).select("sample_id", "answer").iter_rows())


def _evidence(dataset: Dataset, labeling: LabelingTask, lake: Lake, history: pl.DataFrame) -> item_model.Items | None:
    """What a model of the items may learn from, where the labeling declares it."""
    if not labeling.item_features:
        return None
    return consensus.evidence(labeling, history, lake.scan(consensus.evidence_table(labeling, dataset.name)))


def answered(dataset: Dataset, labeling: LabelingTask, lake: Lake, *, at_least: float = 0.0) -> dict[str, str]:
    """Sample id → label that people gave so far, with at least that confidence."""
    table = table_names.labels(dataset, labeling)
    if not lake.manifest(table).partitions:
        return {}
    labels = lake.scan(table).filter(pl.col("confidence") >= at_least)
    return dict(labels.select("sample_id", "label").collect().iter_rows())
