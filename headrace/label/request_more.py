"""Items whose answers leave the label open → one more annotator each."""

import polars as pl

from headrace.dataset import Dataset, LabelingTask
from headrace.label import aggregation, crowdlab, table_names
from headrace.label.connection import connect, find_project, item_signer, own_task_check
from headrace.label.consensus import holds_unreviewed
from headrace.label.report import read_feature_vectors, read_labels
from headrace.settings import Settings
from headrace.storage.table_store import TableStore

MIN_CONFIDENCE = 0.5
"""A label less likely than this is more likely wrong than right."""


def request_more_annotations(
    dataset: Dataset, labeling: LabelingTask, table_store: TableStore, settings: Settings
) -> tuple[str, ...]:
    """Have one more person annotate each open item.

    Open is an item without a label, because its answers are tied or were rejected, one whose label is less confident
    than `MIN_CONFIDENCE`, and one whose label a model of the items doubts.

    Returns:
        The sample ids of the items that were requested.

    Raises:
        NothingCollectedError: There are no answers yet.
        LabelStudioError: The server rejects the request, or does not answer.
    """
    history = table_names.read_history(dataset, labeling, table_store)
    answers = aggregation.accepted_answers(history, labeling.choices)
    answer_counts = dict(answers.group_by("sample_id").len().iter_rows())
    annotation_counts = aggregation.active_annotations(history).group_by("sample_id").len().sort("sample_id")

    confident = read_labels(dataset, labeling, table_store, min_confidence=MIN_CONFIDENCE)
    by_majority = set(aggregation.majority_vote(answers)["sample_id"])
    decided = by_majority & (confident.keys() | _held_items(labeling, history))
    if items := read_feature_vectors(dataset, labeling, table_store, history):
        labels = read_labels(dataset, labeling, table_store)
        decided -= set(crowdlab.label_issues(labels, items, labeling.choices))

    wanted = {
        item: annotations + 1
        for item, annotations in annotation_counts.iter_rows()
        if item not in decided and answer_counts.get(item, 0) < labeling.max_annotators_per_item
    }
    if wanted:
        with connect(settings) as client:
            project = find_project(client, labeling)
            is_ours = own_task_check(client.project_tasks(project), item_signer(labeling, settings))
            client.request_more(project, wanted, is_ours)
    return tuple(wanted)


def _held_items(labeling: LabelingTask, history: pl.DataFrame) -> set[str]:
    """Items whose answers wait for their review: that they have no label yet says nothing about their answers."""
    if not holds_unreviewed(labeling):
        return set()
    counting = aggregation.accepted_answers(history, labeling.choices, hold_unreviewed=True)
    return set(aggregation.accepted_answers(history, labeling.choices)["sample_id"]) - set(counting["sample_id"])
