"""validated → Label Studio: every sampled row becomes one task, however often this runs or is interrupted.

The tasks on the server carry our sample id, which shows what was sent. There is no other record that could disagree.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace import failpoints
from headrace.dataset import Dataset, LabelingTask
from headrace.label import labeling_functions, table_names, tasks
from headrace.label.connection import connect, ensure_project, item_signer, own_task_check
from headrace.label.errors import InvalidItemError
from headrace.label.label_studio.import_tasks import TaskImporter
from headrace.label.report import read_labels
from headrace.label.shown_media import embed_media
from headrace.label.sync import count_annotations
from headrace.settings import Settings
from headrace.storage.files import atomic_write
from headrace.storage.locks import wait_for_lock
from headrace.storage.table_store import TableStore


@dataclass(frozen=True)
class SendResult:
    """Result of a send.

    Attributes:
        sampled: Rows of the sample.
        existing: Tasks that were on the server before.
        sent: Tasks that were missing.
        duplicates_removed: Duplicates that were deleted.
        rejected: Sample id → why its task cannot be sent, or why Label Studio rejects it.
        foreign: Number → sample id of tasks with an id of ours that somebody edited or imported; they are left alone.
        rejected_path: The file of the workspace that holds the rejected tasks; empty if there are none.
        suggestions: Items that are shown with a suggestion.
        model_version: The model of the suggestions.
        model_reason: Why this model was chosen.
        project_url: Where people open the project.
    """

    sampled: int
    existing: int
    sent: int
    duplicates_removed: int
    rejected: Mapping[str, str]
    foreign: Mapping[int, str]
    rejected_path: str
    suggestions: int
    model_version: str
    model_reason: str
    project_url: str


def send_tasks(
    dataset: Dataset, labeling: LabelingTask, table_store: TableStore, settings: Settings, params: Mapping[str, Any]
) -> SendResult:
    """Create one task in the project for every sampled row that has none.

    Args:
        dataset: The dataset.
        labeling: The labeling task.
        table_store: The workspace.
        settings: Where Label Studio is.
        params: The parameters of the sample, `params.yaml` below `<dataset>.<labeling>`.

    Raises:
        InvalidItemError: The sample is not what the declaration says.
        LabelStudioError: The server rejects the tasks, or does not answer.
        LabelConfigDriftError: The project has another label configuration.
        LabelsWouldVanishError: There is no project, although answers were collected from it.
    """
    rows = tasks.draw_sample(dataset, labeling, table_store, params)
    rejected: dict[str, str] = {}
    data = embed_media(dataset, table_store, tasks.task_data(dataset, labeling, rows, rejected), rejected)
    if rejected and not data:
        name, reason = next(iter(rejected.items()))
        raise InvalidItemError(
            f"labeling task {labeling.name}: none of the {rows.height:,} sampled rows has a task that can be sent,"
            f" {name} first: {reason}. Nothing was sent. Correct the function, then run the same command again."
        )
    signer = item_signer(labeling, settings)
    wanted = {name: signer.sign(one) for name, one in data.items()}
    votes = labeling_functions.apply_labeling_functions(rows, labeling)
    suggestions = labeling_functions.suggest_choices(votes, labeling, read_labels(dataset, labeling, table_store))
    predictions = tasks.task_predictions(labeling, suggestions)

    with wait_for_lock(table_store, f"sent/{dataset.name}/{labeling.name}"), connect(settings) as client:
        collected = count_annotations(table_store.manifest(table_names.annotations_table(dataset, labeling)))
        project = ensure_project(client, labeling, collected)
        client.set_annotators_per_item(project, labeling.annotators_per_item)
        importer = TaskImporter(client, own_task_check(client.project_tasks(project), signer))
        result = importer.import_tasks(project, wanted, predictions)
        client.set_model_version(project, suggestions.model_version)
        project_url = client.project_url(project)

    return SendResult(
        sampled=rows.height,
        existing=result.existing,
        sent=result.imported,
        duplicates_removed=result.duplicates_removed,
        rejected=rejected | dict(result.rejected),
        foreign=result.foreign,
        rejected_path=_write_rejected(dataset, labeling, table_store, wanted, rejected | dict(result.rejected)),
        suggestions=len(suggestions.by_item),
        model_version=suggestions.model_version,
        model_reason=suggestions.reason,
        project_url=project_url,
    )


def _write_rejected(
    dataset: Dataset,
    labeling: LabelingTask,
    table_store: TableStore,
    wanted: Mapping[str, Any],
    rejected: Mapping[str, str],
) -> str:
    """Keep the tasks that the server rejects, each with the reason; the path of the file in the workspace."""
    path = table_store.root / ".headrace" / "refused" / "tasks" / dataset.name / f"{labeling.name}.json"
    if not rejected:
        with failpoints.failpoint("remove the rejected tasks of an earlier send"):
            path.unlink(missing_ok=True)
        return ""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {name: {"reason": reason, "data": wanted.get(name)} for name, reason in rejected.items()}
    atomic_write(path, json.dumps(content, indent=2, default=str).encode())
    return path.relative_to(table_store.root).as_posix()
