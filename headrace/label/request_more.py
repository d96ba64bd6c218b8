"""Items whose answers leave the label open → one more annotator each."""

from headrace.dataset import Dataset, LabelingTask
from headrace.label import aggregation, crowdlab, table_names
from headrace.label.connection import connect, find_project
from headrace.label.report import read_feature_vectors, read_labels
from headrace.settings import Settings
from headrace.storage.table_store import Lake

MIN_CONFIDENCE = 0.5
"""A label less likely than this is more likely wrong than right."""


def request_more_annotations(
    dataset: Dataset, labeling: LabelingTask, lake: Lake, settings: Settings
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
    history = table_names.read_history(dataset, labeling, lake)
    answers = aggregation.accepted_answers(history, labeling.choices)
    answer_counts = dict(answers.group_by("sample_id").len().iter_rows())
    annotation_counts = aggregation.active_annotations(history).group_by("sample_id").len().sort("sample_id")

    confident = read_labels(dataset, labeling, lake, min_confidence=MIN_CONFIDENCE)
    decided = set(aggregation.majority_vote(answers)["sample_id"]) & confident.keys()
    if items := read_feature_vectors(dataset, labeling, lake, history):
        labels = read_labels(dataset, labeling, lake)
        decided -= set(crowdlab.label_issues(labels, items, labeling.choices))

    wanted = {
        item: annotations + 1
        for item, annotations in annotation_counts.iter_rows()
        if item not in decided and answer_counts.get(item, 0) < labeling.max_annotators_per_item
    }
    if wanted:
        with connect(settings) as client:
            client.request_more(find_project(client, labeling), wanted)
    return tuple(wanted)
