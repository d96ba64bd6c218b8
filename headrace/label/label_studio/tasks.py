"""The tasks of a project of Label Studio: listed, counted, read with their annotations, deleted.

A task is recognized by our `sample_id` in its data. Pages by number skip tasks that move, and the server may return
fewer tasks than a page should hold: tasks are therefore listed by id, past the last one received.
"""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from label_studio_sdk.actions import CreateActionsRequestSelectedItemsIncluded
from label_studio_sdk.data_manager import Column, Filters, Operator, Type

from headrace.batches import batched
from headrace.label import item_signature
from headrace.label.annotations import parse_timestamp
from headrace.label.label_studio.api import LabelStudioApi
from headrace.label.label_studio.errors import LabelStudioServerError

Json = dict[str, Any]
SUMMARY_FIELDS = "id,data,updated_at,total_annotations,cancelled_annotations"
ANNOTATION_FIELDS = (
    "id,data,updated_at,annotations,result,completed_by,updated_by,was_cancelled,lead_time,created_at,draft_exists"
)
"""Fields of the task and of its annotations: the server takes both in one list."""

LOOKUP_BATCH = 400
"""Sample ids per lookup: httpx refuses addresses of more than 65 kB."""
SUMMARY_PAGE, ANNOTATED_PAGE = 1000, 500
UNREADABLE_CHARACTERS = 200
INLINE_LIMIT = 100
"""As many changed tasks are read with their annotations in the request that finds them."""

IS_SKIPPED = Filters.item(Column.cancelled_annotations, Operator.GREATER, Type.Number, 0)
IS_SIGNED = Filters.item(Column.data(item_signature.FIELD), Operator.EMPTY, Type.String, value=False)
IS_OURS = Filters.item(Column.data("sample_id"), Operator.EMPTY, Type.String, value=False)


class AnnotationCounts(NamedTuple):
    """How many annotations a project, or a range of its tasks, holds, and how many skips."""

    annotations: int
    skips: int


NO_ANNOTATIONS = AnnotationCounts(0, 0)


@dataclass(frozen=True)
class TaskSummary:
    """A task as a listing shows it.

    Attributes:
        id: Its number on the server. SQLite gives the number of a deleted task to another one.
        data: What it holds.
        annotations: How many annotations people submitted or skipped.
        updated_at: When the task, or an annotation of it, last changed.
    """

    id: int
    data: Json
    annotations: int
    updated_at: datetime

    @property
    def sample_id(self) -> str:
        """Our id; empty for a task that somebody else imported."""
        return sample_id_of(self.data)

    @property
    def item(self) -> Any:  # noqa: ANN401  anything that somebody imports
        """What we sent along under `item`, to find the row again."""
        return self.data.get("item")

    @property
    def is_ours(self) -> bool:
        """Whether it says that it is about an item of ours."""
        return claims_item(self.data)


@dataclass(frozen=True)
class ProjectTasks:
    """The tasks of one project.

    Attributes:
        api: The server, and an account on it.
        project: Number of the project there.
        unreadable: Number → why a task cannot be read: the server fails to show what somebody has stored in it. Filled
            while tasks are read.
    """

    api: LabelStudioApi
    project: int
    unreadable: dict[int, str] = field(default_factory=dict)

    def list_changed(self, since: datetime | None) -> Iterator[TaskSummary]:
        """Tasks that changed at that time or later, ordered by id; without a time, all."""
        return self._summaries(_changed_since(since))

    def read_changed_inline(self, since: datetime | None) -> list[Json] | None:
        """The tasks of `list_changed` with all annotations, in one request; None if they are too many for it."""
        try:
            page = self._page(_changed_since(since), size=INLINE_LIMIT, annotations=True)
        except LabelStudioServerError:
            return None
        return page["tasks"] if page["total"] <= len(page["tasks"]) else None

    def list_range(self, ids: tuple[int, int]) -> Iterator[TaskSummary]:
        """Tasks with ids from the first to the last of `ids`."""
        return self._summaries([_in_range(ids)])

    def find_by_sample_id(self, sample_ids: Iterable[str]) -> dict[str, list[TaskSummary]]:
        """Sample id → its tasks on the server, ordered by id. A sample without a task is not in it."""
        found: dict[str, list[TaskSummary]] = {}
        for batch in batched(sample_ids, LOOKUP_BATCH):
            for task in self._summaries([Filters.item(Column.data("sample_id"), Operator.IN_LIST, Type.List, batch)]):
                found.setdefault(task.sample_id, []).append(task)
        return found

    def annotation_counts(self, ids: tuple[int, int] | None = None) -> AnnotationCounts:
        """Annotations and skips of the tasks that we sent, in two cheap counts; with `ids`, of those in that range.

        A task that several people skipped is one skip here; in `LabelStudioProject.counts` it is several.
        """
        ours = [IS_OURS, *([_in_range(ids)] if ids else [])]
        annotations = self._page(ours, size=1, include="id")["total_annotations"]
        return AnnotationCounts(annotations, self._page([*ours, IS_SKIPPED], size=1, include="id")["total"])

    def count(self, filters: Sequence[Json] = ()) -> int:
        """How many tasks of the project pass these filters, whoever sent them."""
        return int(self._page(filters, size=1, include="id")["total"])

    def first_signed(self) -> int | None:
        """Number of the first task that carries a signature; None if none does."""
        found = self._page([IS_SIGNED], size=1, include="id")["tasks"]
        return int(found[0]["id"]) if found else None

    def last_change(self) -> datetime | None:
        """When a task of the project last changed; None if it has none."""
        newest = self._page([], size=1, ordering=f"-{Column.updated_at}", include="id,updated_at")["tasks"]
        return parse_timestamp(newest[0]["updated_at"]) if newest else None

    def read_annotated(self) -> Iterator[Json]:
        """Every task that somebody annotated or skipped, with all its annotations."""
        for filters in (
            [Filters.item(Column.total_annotations, Operator.GREATER, Type.Number, 0)],
            [Filters.item(Column.total_annotations, Operator.EQUAL, Type.Number, 0), IS_SKIPPED],
        ):
            yield from self._list(filters, annotations=True)

    def read_by_id(self, task_ids: Iterable[int]) -> Iterator[Json]:
        """These tasks with all their annotations. Not by an export: the server keeps two files of each."""
        for batch in batched(task_ids, ANNOTATED_PAGE):
            yield from self._read_selected(batch, annotations=True)

    def find_unannotated(self, task_ids: Sequence[int]) -> list[int]:
        """Those of the tasks that still exist and that nobody annotated, skipped or has begun to annotate."""
        for _ in range(2):
            with suppress(LabelStudioServerError):  # the server fails where another sender deletes what it reads
                return self._find_unannotated(task_ids)
            time.sleep(0.5)
        return self._find_unannotated(task_ids)

    def _find_unannotated(self, task_ids: Sequence[int]) -> list[int]:
        page = self._page([], size=len(task_ids), annotations=True, selectedItems=_only(task_ids))
        return [task["id"] for task in page["tasks"] if not (task["annotations"] or task["draft_exists"])]

    def replace_data(self, task: int, data: Json) -> None:
        """Write the data of a task; its annotations stay."""
        self.api.call_once(self.api.sdk.tasks.update, str(task), data=data)

    def delete_tasks(self, task_ids: Sequence[int]) -> None:
        """Delete tasks with all that is in them."""
        selected = CreateActionsRequestSelectedItemsIncluded(included=list(task_ids))
        delete = self.api.sdk.actions.create
        self.api.call_once(delete, id="delete_tasks", project=self.project, selected_items=selected)

    def _summaries(self, filters: Sequence[Json]) -> Iterator[TaskSummary]:
        return map(_summarize, self._list(filters))

    def _list(self, filters: Sequence[Json], *, annotations: bool = False) -> Iterator[Json]:
        last, size = 0, ANNOTATED_PAGE if annotations else SUMMARY_PAGE
        while True:
            later = [*filters, Filters.item(Column.id, Operator.GREATER, Type.Number, last)]
            try:
                page = self._page(later, size=size, annotations=annotations)
            except LabelStudioServerError:
                page = self._page(later, size=size, include="id")  # what the server cannot show is in none of these
                yield from self._read_selected([task["id"] for task in page["tasks"]], annotations=annotations)
            else:
                yield from page["tasks"]
            if page["total"] <= len(page["tasks"]):
                return
            last = page["tasks"][-1]["id"]

    def _read_selected(self, task_ids: Sequence[int], *, annotations: bool) -> Iterator[Json]:
        """These tasks. Where the server fails, they are halved until those are found that it fails to show."""
        try:
            tasks = self._page([], size=len(task_ids), annotations=annotations, selectedItems=_only(task_ids))["tasks"]
        except LabelStudioServerError as error:
            if len(task_ids) == 1:
                self.unreadable[task_ids[0]] = f"the server fails to show it ({error.reason[:UNREADABLE_CHARACTERS]})"
                return
            middle = len(task_ids) // 2
            for half in (task_ids[:middle], task_ids[middle:]):
                yield from self._read_selected(half, annotations=annotations)
        else:
            yield from tasks

    def _page(
        self,
        filters: Sequence[Json],
        *,
        size: int,
        annotations: bool = False,
        ordering: str = Column.id,
        include: str = "",
        **selection: Json,
    ) -> Any:  # noqa: ANN401  any JSON
        query = {"filters": Filters.create(Filters.AND, filters), "ordering": [ordering], **selection}
        return self.api.get_json(
            "/api/tasks/",
            project=self.project,
            page_size=size,
            include=include or (ANNOTATION_FIELDS if annotations else SUMMARY_FIELDS),
            fields="all" if annotations else "task_only",
            resolve_uri=False,
            query=json.dumps(query),
        )


def task_data(task: Json) -> Json:
    """The data of a task; nothing if somebody has made something else of it."""
    data = task.get("data")
    return data if isinstance(data, dict) else {}


def sample_id_of(data: Json) -> str:
    """Our id in the data of a task; empty if there is none."""
    sample_id = data.get("sample_id")
    return sample_id if isinstance(sample_id, str) else ""


def claims_item(data: Json) -> bool:
    """Whether a task says that it is about an item of ours, or once did: the signature is there."""
    return item_signature.is_signed(data) or bool(data.get("sample_id") and data.get("item"))


def _summarize(task: Json) -> TaskSummary:
    return TaskSummary(
        id=task["id"],
        data=task_data(task),
        annotations=(task["total_annotations"] or 0) + (task["cancelled_annotations"] or 0),
        updated_at=parse_timestamp(task["updated_at"]),
    )


def _changed_since(time: datetime | None) -> list[Json]:
    """The server answers 500 to a time without microseconds; the SDK writes them also when they are zero."""
    if not time:
        return []
    value = Filters.value(time.astimezone(UTC))
    return [Filters.item(Column.updated_at, Operator.GREATER_OR_EQUAL, Type.Datetime, value)]


def _in_range(ids: tuple[int, int]) -> Json:
    in_range: Json = Filters.item(Column.id, Operator.IN, Type.Number, Filters.value(*ids))
    return in_range


def _only(task_ids: Sequence[int]) -> Json:
    return {"all": False, "included": list(task_ids)}
