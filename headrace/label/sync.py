"""Synchronize the annotations table with Label Studio: read what changed, append what that means.

The cursor is the newest change in the table itself. What no change of a task shows (a task that was deleted) is visible
in the server's totals: where they differ from ours, a range of tasks at a time, the tasks of that range are compared.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import polars as pl

from headrace.dataset import LabelingTask
from headrace.label.annotation_log import AnnotationLogWriter, read_statistics
from headrace.label.annotations import (
    Row,
    TaskKey,
    TaskState,
    diff_annotations,
    parse_task,
    parse_timestamp,
    partition_of,
)
from headrace.label.errors import InvalidTaskError, LabelsWouldVanishError
from headrace.label.label_studio.client import LabelStudioClient, LabelStudioProject
from headrace.label.label_studio.tasks import AnnotationCounts, Json, ProjectTasks, TaskSummary
from headrace.storage.manifest import Manifest
from headrace.text import pluralize

OVERLAP = timedelta(minutes=10)
"""Tasks are looked at again that changed this much before the newest change we hold: the server stamps a change before
it commits it, so that it may become visible after a later one."""

RANGE_SIZE = 1000
"""Tasks that are compared, or read again, at once."""

LAST_ID = 2**62
"""Beyond the number of any task."""


@dataclass(frozen=True)
class AnnotationReader:
    """Reads the annotations of a labeling task.

    Attributes:
        client: Label Studio.
        project: The project there, with its current counts.
        labeling: The labeling task.
        keys: The items' key columns and their types.
        secret: Key of the annotators' pseudonyms.
        invalid_tasks: Number → why a task was set aside; filled while tasks are read.
    """

    client: LabelStudioClient
    project: LabelStudioProject
    labeling: LabelingTask
    keys: Mapping[str, pl.DataType]
    secret: str
    invalid_tasks: dict[int, str] = field(default_factory=dict)

    @property
    def project_tasks(self) -> ProjectTasks:
        """The project's tasks."""
        return self.client.project_tasks(self.project)

    def new_events(self, task: Json, before: Mapping[str, Row]) -> Iterator[Row]:
        """What happened to the annotations of a task since they were `before`."""
        try:
            now = parse_task(task, self.labeling, self.keys, self.secret)
        except InvalidTaskError as error:
            self.invalid_tasks[error.task] = error.reason
            return
        yield from diff_annotations(before, now, parse_timestamp(task["updated_at"]))


@dataclass(frozen=True)
class SyncResult:
    """Result of a synchronization.

    Attributes:
        manifest: The table with the new events.
        events: Event → how often it was appended.
        partitions: Partitions that received events.
        unknown_tasks: Tasks of the project that we did not send.
        invalid_tasks: Number → why a task was set aside: somebody has edited or imported it.
    """

    manifest: Manifest
    events: Mapping[str, int]
    partitions: tuple[str, ...]
    unknown_tasks: int
    invalid_tasks: Mapping[int, str]


def count_annotations(manifest: Manifest) -> int:
    """Annotations in the table that were not deleted, skips aside."""
    return _totals(manifest, "skips").annotations


def sync_annotations(log: AnnotationLogWriter, reader: AnnotationReader, *, allow_empty: bool = False) -> SyncResult:
    """Append what happened since the last time; the bytes go into the cache, nothing is visible yet.

    Raises:
        LabelsWouldVanishError: The project holds none of the annotations that the table holds, unless `allow_empty`.
    """
    before = log.manifest
    if not allow_empty:
        _check_not_emptied(before, reader)
    unknown = _sync_since(log, reader) if before.partitions else _sync_full(log, reader)
    if _totals(log.manifest, "skips") != reader.project.counts:
        unknown = max(unknown, _sync_since(log, reader))  # people annotate while we read
        if _totals(log.manifest, "skipped_tasks") != reader.project_tasks.annotation_counts():
            _sync_deleted(log, reader)
    if not allow_empty:
        _check_not_replaced(before, log, reader)
    return SyncResult(
        log.manifest, dict(log.event_counts), log.changed_partitions(before), unknown, reader.invalid_tasks
    )


def _check_not_emptied(manifest: Manifest, reader: AnnotationReader) -> None:
    held = count_annotations(manifest)
    if held and not reader.project.counts.annotations:
        raise LabelsWouldVanishError(
            f"Project {reader.project.title!r} on {reader.client.url} holds no answer, but {held:,} were collected from"
            " it. Nothing was changed. Restore the server's data, or set LABEL_STUDIO_URL to the right server, then run"
            " the same command again; with `--allow-empty` if they were deleted on purpose."
        )


def _check_not_replaced(before: Manifest, log: AnnotationLogWriter, reader: AnnotationReader) -> None:
    """Refuse a project that was created again: its answers are new, and each one that was collected before is gone."""
    totals = _totals(before, "skips")
    held = totals.annotations + totals.skips
    if held and log.event_counts["deleted"] >= held:
        raise LabelsWouldVanishError(
            f"Project {reader.project.title!r} on {reader.client.url} holds none of the {pluralize(held, 'answer')}"
            " collected from it, only others: it is not the project that they came from. Nothing was changed. Restore"
            " the server's data, or set LABEL_STUDIO_URL to the right server, then run the same command again; with"
            " `--allow-empty` if they were deleted on purpose. If the server's data is lost, declare new questions as"
            " another labeling task, and keep this one: its labels stay."
        )


def _totals(manifest: Manifest, skips: str) -> AnnotationCounts:
    """What the table says that the project holds: annotations, and skips by that statistic."""
    statistics = read_statistics(manifest)
    return AnnotationCounts(sum(part["annotations"] for part in statistics), sum(part[skips] for part in statistics))


def _sync_full(log: AnnotationLogWriter, reader: AnnotationReader) -> int:
    """Read all annotations into an empty table, a page at a time.

    What changed after the reading began is left to the next time: otherwise the newest change in the table could be
    newer than one that the reading had already passed by.

    Returns:
        How many tasks of the project we did not send.
    """
    horizon, unknown = reader.project_tasks.last_change(), 0
    for task in reader.project_tasks.read_annotated():
        if not _is_ours(task["data"]):
            unknown += 1
        elif horizon and parse_timestamp(task["updated_at"]) <= horizon:
            log.append(reader.new_events(task, {}))
    log.flush()
    return unknown


def _sync_since(log: AnnotationLogWriter, reader: AnnotationReader) -> int:
    """Append what changed since the newest change in the table; how many of those tasks we did not send."""
    since = _cursor(log.manifest)
    if (few := reader.project_tasks.read_changed_inline(since)) is not None:
        return _sync_inline(log, reader, few)
    changed = list(reader.project_tasks.list_changed(since))
    ours = [task for task in changed if task.sample_id and task.item]
    for start in range(0, len(ours), RANGE_SIZE):
        part = ours[start : start + RANGE_SIZE]
        states = log.task_states(_days(task.item for task in part), [task.id for task in part])
        _sync_changed(log, reader, part, states)
    log.flush()
    return len(changed) - len(ours)


def _sync_deleted(log: AnnotationLogWriter, reader: AnnotationReader) -> None:
    """Find what no change of a task shows: where a range of our tasks holds other totals than the table, compare."""
    counts = log.count_by_task()
    for ids in _id_ranges(counts["task_id"].to_list()):
        known = counts.filter(pl.col("task_id").is_between(*ids))
        totals = AnnotationCounts(int(known["annotations"].sum()), int(known["skipped"].sum()))
        if totals != reader.project_tasks.annotation_counts(ids):
            _sync_range(log, reader, ids, known)


def _days(items: Iterable[Any]) -> set[str]:
    """The partitions of items, less those that have none."""
    return {day for item in items if (day := partition_of(item))}


def _is_ours(data: Json) -> bool:
    return bool(data.get("sample_id") and data.get("item"))


def _sync_inline(log: AnnotationLogWriter, reader: AnnotationReader, tasks: list[Json]) -> int:
    """Append what happened to these tasks, which came with their annotations; how many we did not send."""
    ours = [task for task in tasks if _is_ours(task["data"])]
    states = log.task_states(_days(task["data"]["item"] for task in ours), [task["id"] for task in ours])
    _append(log, reader, ours, states)
    log.flush()
    return len(tasks) - len(ours)


def _append(
    log: AnnotationLogWriter, reader: AnnotationReader, tasks: Iterable[Json], states: Mapping[TaskKey, TaskState]
) -> None:
    for task in tasks:
        state = states.get((task["data"]["sample_id"], task["id"]))
        log.append(reader.new_events(task, state.last_events if state else {}))


def _cursor(manifest: Manifest) -> datetime | None:
    """Since when to look for changes; None for all."""
    changes = [part["last_task_change"] for part in read_statistics(manifest)]
    return parse_timestamp(max(changes)) - OVERLAP if changes else None


def _has_changes(task: TaskSummary, states: Mapping[TaskKey, TaskState]) -> bool:
    """Whether a task may have annotations that we do not hold, or has lost one that we do."""
    state = states.get((task.sample_id, task.id))
    if not state:
        return bool(task.annotations)
    return (state.changed_at, state.active) != (task.updated_at, task.annotations)


def _sync_changed(
    log: AnnotationLogWriter,
    reader: AnnotationReader,
    listed: list[TaskSummary],
    states: Mapping[TaskKey, TaskState],
) -> None:
    """Append what happened to these tasks up to the newest change of those listed; later changes are for the next time.

    So the newest change in the table is never newer than a change that the listing missed.
    """
    horizon = max((task.updated_at for task in listed), default=None)
    tasks = reader.project_tasks.read_by_id([task.id for task in listed if _has_changes(task, states)])
    ours = (
        task for task in tasks if horizon and parse_timestamp(task["updated_at"]) <= horizon and _is_ours(task["data"])
    )
    _append(log, reader, ours, states)


def _id_ranges(task_ids: list[int]) -> Iterable[tuple[int, int]]:
    """First and last ids of ranges that together hold every task there may be."""
    firsts = task_ids[RANGE_SIZE::RANGE_SIZE]
    return [(low, high - 1) for low, high in pairwise([0, *firsts, LAST_ID])]


def _sync_range(log: AnnotationLogWriter, reader: AnnotationReader, ids: tuple[int, int], known: pl.DataFrame) -> None:
    listed = [task for task in reader.project_tasks.list_range(ids) if task.sample_id and task.item]
    days = {*known["day"], *_days(task.item for task in listed)}
    states = log.task_states(days, {*known["task_id"], *(task.id for task in listed)})
    existing = {(task.sample_id, task.id) for task in listed}
    _sync_changed(log, reader, listed, states)
    gone = states.keys() - existing
    deleted = sorted(key for key in gone if states[key].active and key[1] not in reader.invalid_tasks)
    if deleted:
        deleted_at = reader.client.server_time()  # the server keeps no time of it, so it is when we noticed
        for key in deleted:
            log.append(diff_annotations(states[key].last_events, {}, deleted_at))
    log.flush()
