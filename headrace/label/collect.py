"""Label Studio → annotations → labels: what annotators did since the last time, collected once.

The history in the annotations table, which is only ever appended to, shows what was collected.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from headrace.dataset import Dataset, LabelingTask
from headrace.guards.finding import GuardFinding
from headrace.guards.gate import enforce
from headrace.label import table_names
from headrace.label.annotation_log import AnnotationLogWriter
from headrace.label.connection import connect, find_project, pseudonym_key
from headrace.label.errors import InvalidItemError
from headrace.label.stage import run_label_stage
from headrace.label.sync import AnnotationReader, SyncResult, count_annotations, sync_annotations
from headrace.settings import Settings
from headrace.storage.manifest import Manifest
from headrace.storage.table_store import TableStore


@dataclass(frozen=True)
class CollectResult:
    """Result of a collect.

    Attributes:
        events: Event (`created`, `changed`, `skipped`, `deleted`, `restored`) → how often it happened since the last
            time.
        annotation_partitions: Partitions of the annotations that received events.
        label_partitions: Partitions of the labels that were computed.
        labels: Rows of the whole labels table.
        rejected: Rejected answers in the whole table.
        unknown_tasks: Tasks in the project that we did not send; they are not read.
        invalid_tasks: Number → why a task was set aside: somebody has edited or imported it.
        disputed: Annotation id → `reassigned` or `edited_by_other`: answers that are set aside since this collect, as
            perhaps not their authors'.
        held: Answers in the whole table that make no label before a reviewer accepts them.
    """

    events: Mapping[str, int]
    annotation_partitions: tuple[str, ...]
    label_partitions: tuple[str, ...]
    labels: int
    rejected: int
    unknown_tasks: int
    invalid_tasks: Mapping[int, str]
    disputed: Mapping[str, str]
    held: int


def collect_annotations(
    dataset: Dataset,
    labeling: LabelingTask,
    table_store: TableStore,
    settings: Settings,
    *,
    full: bool = False,
) -> CollectResult:
    """Append what people did since the last time to the annotations, and bring the labels up to date.

    Args:
        dataset: The dataset.
        labeling: The labeling task.
        table_store: The workspace.
        settings: Where Label Studio is, and the secret of pseudonyms.
        full: Compare every task, whatever the clocks say about when it changed.

    Raises:
        FindingsError: Most answers would disappear, and nobody has accepted that.
        LabelsWouldVanishError: There is no project, although answers were collected from one.
        LabelStudioError: The server rejects the request, or does not answer.
        LabelConfigDriftError: The project has another label configuration.
    """
    table = table_names.annotations_table(dataset, labeling)
    secret = pseudonym_key(settings)
    with table_store.lock_table(table), connect(settings) as client:
        before = table_store.manifest(table)
        project = find_project(client, labeling, collected=count_annotations(before))
        keys = _key_types(dataset, labeling, table_store, before)
        reader = AnnotationReader(client, project, labeling, keys, secret)
        log = AnnotationLogWriter(before, table_store, keys)
        log.rewrite_without_field_ids()
        synced = sync_annotations(log, reader, full=full)
        _enforce_guards(dataset, table_store, synced)
        table_store.checkout(synced.manifest)
    stage = run_label_stage(dataset, labeling, table_store)
    return CollectResult(
        events=synced.events,
        annotation_partitions=synced.partitions,
        label_partitions=tuple(stage.computed),
        labels=stage.manifest.rows,
        rejected=sum(entry.metadata["rejected"] for entry in stage.manifest.partitions.values()),
        unknown_tasks=synced.unknown_tasks,
        invalid_tasks=synced.invalid_tasks,
        disputed=synced.disputed,
        held=sum(entry.metadata.get("held", 0) for entry in stage.manifest.partitions.values()),
    )


def _enforce_guards(dataset: Dataset, table_store: TableStore, synced: SyncResult) -> None:
    """Refuse to lose most answers at once, unless that was accepted."""
    table = synced.manifest.table
    note = (
        ". Ask in the project who deleted or changed so much, and compare LABEL_STUDIO_URL and HEADRACE_PSEUDONYM_KEY"
        " with those of the last collect: with another key each answer has another author"
    )
    if synced.replaced:
        found: GuardFinding | None = synced.loss.as_finding(f"{table}: {synced.replaced}")
    else:
        found = synced.loss.finding(dataset.guards_of(table), "since the last collect", note=note)
    enforce(
        [found] if found else [],
        dataset=dataset.name,
        step="label collect",
        tables=[table],
        table_store=table_store,
        consequence="Nothing was collected.",
    )


def _key_types(
    dataset: Dataset, labeling: LabelingTask, table_store: TableStore, before: Manifest
) -> dict[str, pl.DataType]:
    """Types of the key columns, as the history has them, else as the tables do that the sample is drawn from."""
    inputs = [table_names.input_table(dataset, read.local_table) for read in labeling.inputs.values()]
    for table in (before.table, *inputs):
        for partition in sorted(table_store.manifest(table).partitions)[:1]:
            schema = pl.read_parquet_schema(table_store.paths(table, [partition])[partition])
            if all(name in schema for name in labeling.keys):
                return {name: schema[name] for name in labeling.keys}
    raise InvalidItemError(
        f"labels {dataset.name} {labeling.name}: expected the keys {', '.join(labeling.keys)} in one of"
        f" {', '.join(inputs)}, found them in none. Run `headrace run {dataset.name}`, or correct the declaration."
    )
