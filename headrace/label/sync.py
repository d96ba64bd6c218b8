"""Synchronize the annotations table with Label Studio: read what changed, append what that means.

The cursor is the newest change in the table itself, while the clocks of the server and of this machine agree. What no
change of a task shows (a task that was deleted) is visible in the server's totals: where they differ from ours, a range
of tasks at a time, the tasks of that range are compared.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import pairwise
from typing import Any

import polars as pl

from headrace.dataset import LabelingTask
from headrace.guards.vanished import Loss, TableLoss
from headrace.label.aggregation import DISPUTES
from headrace.label.annotation_log import AnnotationLogWriter, read_statistics
from headrace.label.annotations import (
    Row,
    TaskKey,
    TaskState,
    annotation_id,
    diff_annotations,
    parse_task,
    parse_timestamp,
    partition_of,
)
from headrace.label.errors import InvalidTaskError
from headrace.label.item_signature import NOT_SIGNED, is_signed
from headrace.label.label_studio.client import LabelStudioClient, LabelStudioProject
from headrace.label.label_studio.tasks import (
    AnnotationCounts,
    Json,
    ProjectTasks,
    TaskSummary,
    claims_item,
    sample_id_of,
    task_data,
)
from headrace.storage.manifest import Manifest
from headrace.text import pluralize

OVERLAP = timedelta(minutes=10)
"""Tasks are looked at again that changed this much before the newest change we hold: the server stamps a change before
it commits it, so that it may become visible after a later one."""

RANGE_SIZE = 1000
"""Tasks that are compared, or read again, at once."""

LAST_ID = 2**62
"""Beyond the number of any task."""

FEW_ANSWERS = 3
"""What fewer than these answers lose is no mass: of two answers, one or both may go."""

LOSSES = ("deleted", *DISPUTES)
"""Events after which an answer does not count any more."""

NO_ITEM = "somebody has removed its `sample_id` or `item`; what was collected of it stays"

NOT_A_TASK = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    pl.exceptions.PolarsError,
)
"""What reading a task may raise that somebody has edited into something else."""


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
        started_at: When the reading began, by the clock of this machine.
        lost: Annotation id → the event by which an answer that counted is deleted, or set aside; filled likewise.
    """

    client: LabelStudioClient
    project: LabelStudioProject
    labeling: LabelingTask
    keys: Mapping[str, pl.DataType]
    secret: str
    invalid_tasks: dict[int, str] = field(default_factory=dict)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    lost: dict[str, str] = field(default_factory=dict)

    @cached_property
    def project_tasks(self) -> ProjectTasks:
        """The project's tasks."""
        return self.client.project_tasks(self.project)

    @cached_property
    def first_signed(self) -> int | None:
        """Number of the project's first task with a signature; None if none has one."""
        return self.project_tasks.first_signed()

    @cached_property
    def unsigned_items(self) -> dict[str, Sequence[object]]:
        """Sample id → event time and keys of an item whose task has no signature, as first read by this reader."""
        return {}

    @property
    def set_aside(self) -> dict[int, str]:
        """Number → why a task was not read."""
        return {**self.invalid_tasks, **self.project_tasks.unreadable}

    def new_events(self, log: AnnotationLogWriter, task: Json, before: Mapping[str, Row]) -> list[Row]:
        """What happened to the annotations of a task since they were `before`."""
        try:
            now = parse_task(task, self.labeling, self.keys, self.secret)
            if not is_signed(task["data"]):
                self._check_unsigned(log, task["id"], now)
            changed_at = trusted_time(parse_timestamp(task["updated_at"]), self.started_at)
            now = {name: row | {"task_changed_at": changed_at} for name, row in now.items()}
            return self.compare(before, now, changed_at)
        except InvalidTaskError as error:
            self.invalid_tasks[error.task] = error.reason
        except NOT_A_TASK as error:
            self.invalid_tasks[task["id"]] = f"{type(error).__name__}: {error}"
        return []

    def compare(self, before: Mapping[str, Row], now: Mapping[str, Row], deleted_at: datetime) -> list[Row]:
        """What happened to the annotations of one task, as `diff_annotations` says; notes what is lost by it."""
        events = list(diff_annotations(before, now, deleted_at))
        for row in events:
            last = before.get(row["annotation_id"])
            if last and row["event"] in LOSSES and last["event"] not in LOSSES and not last["was_cancelled"]:
                self.lost[row["annotation_id"]] = row["event"]
        return events

    def _check_unsigned(self, log: AnnotationLogWriter, task: int, rows: Mapping[str, Row]) -> None:
        """Check a task without a signature against what is known of its item: a version up to 0.2 may have sent it.

        Raises:
            InvalidTaskError: Somebody has edited or imported it.
        """
        if self.first_signed is not None and task > self.first_signed:
            raise InvalidTaskError(task, NOT_SIGNED)
        known = log.known_items()
        for name, row in rows.items():
            item = (row["sample_id"], row["event_time"], *(row[key] for key in self.keys))
            before = known.by_annotation.get(name) or known.by_sample.get(row["sample_id"])
            before = before or self.unsigned_items.setdefault(row["sample_id"], item)
            if item != before:
                raise InvalidTaskError(task, f"expected the item as it was first collected, {before}, found {item}")


@dataclass(frozen=True)
class SyncResult:
    """Result of a synchronization.

    Attributes:
        manifest: The table with the new events.
        events: Event → how often it was appended.
        partitions: Partitions that received events.
        unknown_tasks: Tasks of the project that we did not send.
        invalid_tasks: Number → why a task was set aside: somebody has edited or imported it.
        disputed: Annotation id → the event that set an answer aside as perhaps not its author's.
        loss: What of the answers disappears.
        replaced: What is wrong with a project that has nothing of what was collected; empty if it has some.
    """

    manifest: Manifest
    events: Mapping[str, int]
    partitions: tuple[str, ...]
    unknown_tasks: int
    invalid_tasks: Mapping[int, str]
    disputed: Mapping[str, str]
    loss: TableLoss
    replaced: str


def count_annotations(manifest: Manifest) -> int:
    """Annotations in the table that were not deleted, skips aside."""
    return _totals(manifest, "skips").annotations


def sync_annotations(log: AnnotationLogWriter, reader: AnnotationReader, *, full: bool = False) -> SyncResult:
    """Append what happened since the last time; the bytes go into the cache, nothing is visible yet.

    Args:
        log: The table.
        reader: The project.
        full: Compare every task, whatever the clocks say about when it changed.
    """
    before = log.manifest
    since = None if full else _cursor(before, reader)
    unknown = _sync_since(log, reader, since) if before.partitions else _sync_full(log, reader)
    if _totals(log.manifest, "skips") != reader.project.counts:
        # People annotate while we read.
        unknown = max(unknown, _sync_since(log, reader, _cursor(log.manifest, reader)))
        if _totals(log.manifest, "skipped_tasks") != reader.project_tasks.annotation_counts():
            _sync_deleted(log, reader)
    loss = answer_loss(before.table, count_annotations(before), reader.lost)
    if replaced := _describe_replaced(before, log, reader):
        loss = replace(loss, state=[f"{name} {md5}" for name, md5 in before.md5s.items()])
    return SyncResult(
        manifest=log.manifest,
        events=dict(log.event_counts),
        partitions=log.changed_partitions(before),
        unknown_tasks=unknown,
        invalid_tasks=reader.set_aside,
        disputed=log.disputed,
        loss=loss,
        replaced=replaced,
    )


def _describe_replaced(before: Manifest, log: AnnotationLogWriter, reader: AnnotationReader) -> str:
    """What is wrong with a project that lost everything that was collected; empty if it has any of it.

    It was created again, its answers were deleted, or it is on another server. Few answers are guarded, too, whatever
    the bound.
    """
    totals = _totals(before, "skips")
    held, answers = totals.annotations + totals.skips, reader.project.counts.annotations
    is_emptied = totals.annotations and not answers
    if not is_emptied and (not held or log.event_counts["deleted"] < held):
        return ""
    others = ", only others: it is not the project that they came from" if answers else ""
    return (
        f"project {reader.project.title!r} on {reader.client.url} holds none of the {pluralize(held, 'answer')}"
        f" collected from it{others}. Restore the server's data, or set LABEL_STUDIO_URL to the right server, then run"
        " the same command again; if its data is lost, declare new questions as another labeling task, and keep this"
        " one: its labels stay"
    )


def answer_loss(table: str, held: int, lost: Mapping[str, str]) -> TableLoss:
    """What a collect would take away, for the bound on what may disappear at once.

    Args:
        table: The annotations.
        held: Answers that were collected before and not deleted.
        lost: Annotation id → the event by which it disappears: it is deleted, or set aside.
    """
    losses = [Loss("answer", len(lost), held)] if len(lost) >= FEW_ANSWERS else []
    return TableLoss(table, losses, sorted(lost), [f"{name} {event}" for name, event in lost.items()])


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
        if not claims_item(task_data(task)):
            unknown += 1
        elif horizon and parse_timestamp(task["updated_at"]) <= horizon:
            log.append(reader.new_events(log, task, {}))
    log.flush()
    return unknown


def _sync_since(log: AnnotationLogWriter, reader: AnnotationReader, since: datetime | None) -> int:
    """Append what changed since then, or, without a time, in all tasks; how many of those we did not send."""
    if (few := reader.project_tasks.read_changed_inline(since)) is not None:
        return _sync_inline(log, reader, few)
    changed = list(reader.project_tasks.list_changed(since))
    ours = [task for task in changed if task.is_ours]
    for start in range(0, len(ours), RANGE_SIZE):
        part = ours[start : start + RANGE_SIZE]
        states = log.task_states(_days(task.item for task in part), [task.id for task in part])
        _sync_changed(log, reader, part, states)
    log.flush()
    others = [task.id for task in changed if task.annotations and not task.is_ours]
    return len(changed) - len(ours) - _set_aside_known(log, reader, reader.project_tasks.read_by_id(others))


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


def _sync_inline(log: AnnotationLogWriter, reader: AnnotationReader, tasks: list[Json]) -> int:
    """Append what happened to these tasks, which came with their annotations; how many we did not send."""
    ours = [task for task in tasks if claims_item(task_data(task))]
    states = log.task_states(_days(task["data"].get("item") for task in ours), [task["id"] for task in ours])
    _append(log, reader, ours, states)
    log.flush()
    others = [task for task in tasks if not claims_item(task_data(task))]
    return len(others) - _set_aside_known(log, reader, others)


def _set_aside_known(log: AnnotationLogWriter, reader: AnnotationReader, tasks: Iterable[Json]) -> int:
    """Set those of the tasks aside that hold annotations of the table, although they name no item; how many.

    A number alone proves nothing: SQLite gives the number of a deleted task to the next one.
    """
    count = 0
    for task in tasks:
        if any(annotation_id(each) in log.known_items().by_annotation for each in task["annotations"] or ()):
            reader.invalid_tasks.setdefault(task["id"], NO_ITEM)
            count += 1
    return count


def _append(
    log: AnnotationLogWriter, reader: AnnotationReader, tasks: Iterable[Json], states: Mapping[TaskKey, TaskState]
) -> None:
    for task in tasks:
        state = states.get((sample_id_of(task["data"]), task["id"]))
        log.append(reader.new_events(log, task, state.last_events if state else {}))


def _cursor(manifest: Manifest, reader: AnnotationReader) -> datetime | None:
    changes = [part["last_task_change"] for part in read_statistics(manifest)]
    newest = parse_timestamp(max(changes)) if changes else None
    return find_cursor(newest, reader.started_at, reader.client.clock_offset)


def trusted_time(stamp: datetime, now: datetime) -> datetime:
    """When a task changed, by the server; `now` by our clock if the server says that it has not happened yet.

    The newest change in the table says since when to look for changes: a time from the future would hide those that
    come before it.
    """
    return min(stamp, now)


def find_cursor(newest: datetime | None, now: datetime, clock_offset: timedelta) -> datetime | None:
    """Since when to look for changes, by the clock of the server; None to compare all tasks.

    Args:
        newest: The newest change that the table holds; None if it holds none.
        now: The time by our clock.
        clock_offset: How far the clock of the server is ahead of ours. Where the two disagree, neither is believed.
    """
    if newest is None or newest > now + OVERLAP or abs(clock_offset) > OVERLAP:
        return None
    return newest - OVERLAP


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
        task
        for task in tasks
        if horizon and parse_timestamp(task["updated_at"]) <= horizon and claims_item(task_data(task))
    )
    _append(log, reader, ours, states)


def _id_ranges(task_ids: list[int]) -> Iterable[tuple[int, int]]:
    """First and last ids of ranges that together hold every task there may be."""
    firsts = task_ids[RANGE_SIZE::RANGE_SIZE]
    return [(low, high - 1) for low, high in pairwise([0, *firsts, LAST_ID])]


def _sync_range(log: AnnotationLogWriter, reader: AnnotationReader, ids: tuple[int, int], known: pl.DataFrame) -> None:
    tasks = list(reader.project_tasks.list_range(ids))
    listed = [task for task in tasks if task.is_ours]
    days = {*known["day"], *_days(task.item for task in listed)}
    states = log.task_states(days, {*known["task_id"], *(task.id for task in listed)})
    existing = {(task.sample_id, task.id) for task in listed}
    _sync_changed(log, reader, listed, states)
    gone = {key for key in states.keys() - existing if states[key].active}
    edited = sorted({task.id for task in tasks} & {number for _, number in gone} - reader.set_aside.keys())
    _set_aside_known(log, reader, reader.project_tasks.read_by_id(edited))
    deleted = sorted(key for key in gone if key[1] not in reader.set_aside)
    if deleted:
        deleted_at = reader.client.server_time()  # the server keeps no time of it, so it is when we noticed
        for key in deleted:
            log.append(reader.compare(states[key].last_events, {}, deleted_at))
    log.flush()
