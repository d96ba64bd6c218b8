"""annotations → report: the quality of the answers and of the labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import polars as pl

from headrace.dataset import Dataset, LabelingTask, Thresholds
from headrace.label import aggregation, consensus, item_model, labeling_functions, quality, review, table_names, tasks
from headrace.storage.table_store import TableStore
from headrace.text import pluralize

SHOWN_DISPUTES = 20


@dataclass(frozen=True)
class LabelReport:
    """Quality of the answers, the labeling functions measured, and how often people follow a suggestion.

    Attributes:
        quality: Of the answers.
        labeling_functions: Coverage, conflict and accuracy of each.
        anchoring: How often people's label is the suggested one, `with_suggestion` and `without_suggestion`.
        no_suggestion_share: Share of the sampled items shown without a suggestion, of those that one was made for;
            None if none was made.
        before: Just after the newest answer in this report, as `label accept --before` and `label reject --before` take
            it.
        unreviewed: Answers that nobody accepted or rejected yet.
        rejected: Answers that somebody rejected, and nobody accepted since.
        disputed: Annotation id → why an answer is set aside as perhaps not its author's.
        held: Answers that make no label before a reviewer accepts them.
    """

    quality: quality.AnnotationQuality
    labeling_functions: list[labeling_functions.FunctionStatistics]
    anchoring: Mapping[str, float | None]
    no_suggestion_share: float | None
    before: str
    unreviewed: int
    rejected: int
    disputed: Mapping[str, str]
    held: int

    def summary_lines(self) -> list[str]:
        """The report as text."""
        functions = [
            f"  {one.name}: votes on {one.coverage:.1%}, in conflict on {one.conflict:.1%}, correct on"
            f" {quality.format_percent(one.accuracy)} of the answered items shown without a suggestion"
            for one in self.labeling_functions
        ]
        with_it, without_it = (
            quality.format_percent(self.anchoring[name]) for name in ("with_suggestion", "without_suggestion")
        )
        anchoring = (
            f"  {quality.format_percent(self.no_suggestion_share)} of the suggestions were not shown; people agree with"
            f" {with_it} of those shown, with {without_it} of the others"
        )
        summary, *details = self.quality.summary_lines()
        reviewed = f"  {pluralize(self.unreviewed, 'answer')} to accept or reject, {self.rejected} rejected"
        waiting = [f"  {pluralize(self.held, 'answer')} held until a reviewer accepts them"] if self.held else []
        disputed = [f"  {name} is set aside: {reason}" for name, reason in list(self.disputed.items())[:SHOWN_DISPUTES]]
        if len(self.disputed) > SHOWN_DISPUTES:
            disputed.append(f"  {pluralize(len(self.disputed) - SHOWN_DISPUTES, 'more answer')} set aside like these")
        on_suggestions = [*functions, *([anchoring] if functions else [])]
        return [f"  {summary}", reviewed, *waiting, *disputed, *details, *on_suggestions]


def create_label_report(
    dataset: Dataset, labeling: LabelingTask, table_store: TableStore, params: Mapping[str, Any], *, gate: bool = False
) -> LabelReport:
    """Measure what was collected; changes nothing.

    Raises:
        QualityError: With `gate`, the labels do not reach the declared thresholds.
        NothingCollectedError: There are no answers yet.
    """
    rows = tasks.draw_sample(dataset, labeling, table_store, params)
    history = table_names.read_history(dataset, labeling, table_store)
    measured = _measure(dataset, labeling, table_store, history)
    if gate:
        quality.check_thresholds(measured, labeling)
    votes, labels = (
        labeling_functions.apply_labeling_functions(rows, labeling),
        read_labels(dataset, labeling, table_store),
    )
    suggested = labeling_functions.majority_choices(votes)
    hidden = [labeling_functions.is_without_suggestion(item, labeling) for item in suggested]
    after_newest = (pl.col("updated_at").max() + timedelta(microseconds=1)).dt.strftime("%Y-%m-%dT%H:%M:%S%.6f%:z")
    decisions = review.with_decisions(history)["decision"]
    disputed = aggregation.disputed_answers(history)
    holds = consensus.holds_unreviewed(labeling)
    status_counts = aggregation.aggregate_annotations(history, labeling.keys, labeling.choices, hold_unreviewed=holds)
    return LabelReport(
        quality=measured,
        labeling_functions=labeling_functions.measure_functions(votes, labeling, labels),
        anchoring=labeling_functions.measure_anchoring(votes, labeling, labels),
        no_suggestion_share=sum(hidden) / len(hidden) if hidden else None,
        before=aggregation.latest_events(history).select(after_newest).item(),
        unreviewed=decisions.null_count(),
        rejected=int((decisions == "rejected").sum()),
        disputed=disputed,
        held=status_counts.counts[aggregation.HELD],
    )


def enforce_thresholds(dataset: Dataset, labeling: LabelingTask, table_store: TableStore) -> None:
    """Check the labels, if there are any, against the declared thresholds, if there are any.

    Raises:
        UnfinishedLabelsError: They do not reach them while answers are still being collected.
        QualityError: They do not reach them.
    """
    if labeling.thresholds != Thresholds() and table_store.manifest(table_names.labels_table(dataset, labeling)).rows:
        history = table_names.read_history(dataset, labeling, table_store)
        measured = _measure(dataset, labeling, table_store, history)
        quality.check_thresholds(measured, labeling, quality.count_open_items(history, labeling))


def read_labels(
    dataset: Dataset, labeling: LabelingTask, table_store: TableStore, *, min_confidence: float = 0.0
) -> dict[str, str]:
    """Sample id → label that people gave so far, of those with at least that confidence."""
    table = table_names.labels_table(dataset, labeling)
    if not table_store.manifest(table).partitions:
        return {}
    labels = table_store.scan(table).filter(pl.col("confidence") >= min_confidence)
    return aggregation.labels_by_item(labels.select("sample_id", "label").collect())


def read_feature_vectors(
    dataset: Dataset, labeling: LabelingTask, table_store: TableStore, history: pl.DataFrame
) -> item_model.FeatureVectors | None:
    """What a model of the items may learn from; None where the labeling task declares nothing."""
    if not labeling.item_features:
        return None
    return consensus.feature_vectors(
        labeling, history, table_store.scan(consensus.item_features_table(dataset, labeling))
    )


def _measure(
    dataset: Dataset, labeling: LabelingTask, table_store: TableStore, history: pl.DataFrame
) -> quality.AnnotationQuality:
    items = read_feature_vectors(dataset, labeling, table_store, history)
    return quality.measure_quality(history, labeling, _gold_answers(dataset, labeling, table_store, history), items)


def _gold_answers(
    dataset: Dataset, labeling: LabelingTask, table_store: TableStore, history: pl.DataFrame
) -> dict[str, str]:
    """Sample id → true answer, for the items in the history that have one."""
    if not labeling.gold:
        return {}
    gold = (
        table_store.scan(table_names.input_table(dataset, labeling.gold.local_table))
        .select(*labeling.keys, "answer")
        .collect()
    )
    items = history.select("sample_id", *labeling.keys).unique("sample_id")
    return dict(items.join(gold, on=labeling.keys).select("sample_id", "answer").iter_rows())
