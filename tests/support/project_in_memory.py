"""A project of Label Studio in memory, as `label.sync` reads it, for what a real server cannot be made to do on cue.

Somebody may act between any two of its responses. That a real server answers likewise is shown by the tests that
collect from one.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import polars as pl
from release_clones import QUESTION

from headrace.label.annotation_log import AnnotationLogWriter
from headrace.label.item_signature import ItemSigner, project_mark
from headrace.label.label_studio.client import LabelStudioClient, LabelStudioProject
from headrace.label.label_studio.tasks import AnnotationCounts, Json, TaskSummary, claims_item
from headrace.label.sync import AnnotationReader, SyncResult, sync_annotations
from headrace.storage.manifest import Manifest
from headrace.storage.table_store import TableStore

KEYS = {"shop": pl.String()}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECRET = "a long random text"  # noqa: S105  of the test
TABLE = "annotations/shops/state"


@dataclass
class ProjectInMemory:
    """The project, and the table that is collected from it.

    Attributes:
        table_store: Where the table is.
        inline_limit: As many changed tasks come with their annotations at once.
        clock_offset: How far the clock of the server is ahead.
        tasks: Number → task, as the server sends it.
        before: Request → what somebody does right before its response, once.
        requests: The requests that were made.
        manifest: The annotations as of the last collect.
    """

    table_store: TableStore
    inline_limit: int = 100
    clock_offset: timedelta = timedelta()
    tasks: dict[int, Json] = field(default_factory=dict)
    before: dict[str, Callable[[], object]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    manifest: Manifest = field(default_factory=lambda: Manifest(TABLE))
    unreadable: dict[int, str] = field(default_factory=dict)
    url: str = "http://127.0.0.1:8080"

    # --- what people do ---

    def send(self, *numbers: int, is_signed: bool = True, minute: int = 0, **data: Any) -> None:  # noqa: ANN401  JSON
        """Import tasks, `shop-1` for number 1 and so on."""
        for number in numbers:
            item = {"event_time": NOON.isoformat(), "shop": f"shop-{number}"}
            sent = {"sample_id": f"shop-{number}", "item": item, **data}
            if is_signed:
                sent = ItemSigner(project_mark(QUESTION), SECRET).sign(sent)
            self.tasks[number] = {"id": number, "data": sent, "updated_at": at(minute), "annotations": []}

    def answer(self, task: int, choice: str = "fine", *, minute: int, by: int = 1, is_skip: bool = False) -> int:
        """Answer a task, or change the answer that this person gave; the annotation's number."""
        annotations = self.tasks[task]["annotations"]
        own = next((each for each in annotations if each["completed_by"] == by), None)
        if own is None:
            annotations.append(own := {"id": 100 * task + by, "created_at": at(minute), "completed_by": by})
        value = {"choices": [choice]}
        own |= {
            "updated_at": at(minute),
            "updated_by": by,
            "was_cancelled": is_skip,
            "lead_time": 1.5,
            "result": [{"type": "choices", "from_name": "state", "to_name": "text", "value": value}],
        }
        self.tasks[task]["updated_at"] = at(minute)
        return cast("int", own["id"])

    def withdraw(self, task: int, *, minute: int, by: int = 1) -> None:
        """Delete an answer."""
        shown = self.tasks[task]
        shown["annotations"] = [each for each in shown["annotations"] if each["completed_by"] != by]
        shown["updated_at"] = at(minute)

    def collect(self, *, minute: int, full: bool = False) -> SyncResult:
        """Collect at that time."""
        client = cast("LabelStudioClient", self)
        project = LabelStudioProject(1, "State of the shop", counts=self.counts)
        now = NOON + timedelta(minutes=minute)
        reader = AnnotationReader(client, project, QUESTION, KEYS, SECRET, started_at=now)
        result = sync_annotations(AnnotationLogWriter(self.manifest, self.table_store, KEYS), reader, full=full)
        self.manifest = result.manifest
        return result

    def collected(self) -> dict[str, list[str]]:
        """Shop → the choices in its history, oldest first; a deletion as `-`, a skip as `skip`."""
        history: dict[str, list[str]] = {}
        for entry in self.manifest.partitions.values():
            rows = pl.read_parquet(self.table_store.cache.fetch(entry.md5, entry.sha256)).sort("updated_at")
            for row in rows.iter_rows(named=True):
                shown = {"deleted": "-", "skipped": "skip"}.get(row["event"], row["choice"])
                history.setdefault(row["sample_id"], []).append(shown)
        return history

    # --- what the server answers ---

    def _respond(self, request: str) -> list[Json]:
        self.requests.append(request)
        self.before.pop(request, lambda: None)()
        return [{**task, "annotations": [{**each} for each in task["annotations"]]} for task in self.tasks.values()]

    @property
    def counts(self) -> AnnotationCounts:
        """As `LabelStudioProject.counts`: a task that two people skipped has two skips."""
        skips = [each["was_cancelled"] for task in self.tasks.values() for each in task["annotations"]]
        return AnnotationCounts(len(skips) - sum(skips), sum(skips))

    def project_tasks(self, _project: LabelStudioProject) -> "ProjectInMemory":
        """The tasks of the project."""
        return self

    def server_time(self) -> datetime:
        """The time by the clock of the server."""
        return NOON + timedelta(days=1)

    def first_signed(self) -> int | None:
        """As `ProjectTasks.first_signed`."""
        return min((number for number, task in self.tasks.items() if "item_signature" in task["data"]), default=None)

    def last_change(self) -> datetime | None:
        """As `ProjectTasks.last_change`."""
        return max((changed_at(task) for task in self._respond("last_change")), default=None)

    def read_annotated(self) -> Iterator[Json]:
        """As `ProjectTasks.read_annotated`, a task per page."""
        for task in self._respond("read_annotated"):
            [shown] = [each for each in self._respond(f"task {task['id']}") if each["id"] == task["id"]]
            if shown["annotations"]:
                yield shown

    def read_changed_inline(self, since: datetime | None) -> list[Json] | None:
        """As `ProjectTasks.read_changed_inline`."""
        changed = [task for task in self._respond("read_changed_inline") if since is None or changed_at(task) >= since]
        return changed if len(changed) <= self.inline_limit else None

    def list_changed(self, since: datetime | None) -> Iterator[TaskSummary]:
        """As `ProjectTasks.list_changed`."""
        changed = [task for task in self._respond("list_changed") if since is None or changed_at(task) >= since]
        return map(summarize, changed)

    def list_range(self, ids: tuple[int, int]) -> Iterator[TaskSummary]:
        """As `ProjectTasks.list_range`."""
        first, last = ids
        return map(summarize, [task for task in self._respond("list_range") if first <= task["id"] <= last])

    def read_by_id(self, task_ids: Iterable[int]) -> Iterator[Json]:
        """As `ProjectTasks.read_by_id`."""
        wanted = set(task_ids)
        return iter([task for task in self._respond("read_by_id") if task["id"] in wanted] if wanted else [])

    def annotation_counts(self, ids: tuple[int, int] | None = None) -> AnnotationCounts:
        """As `ProjectTasks.annotation_counts`: a task that two people skipped is one skip."""
        first, last = ids or (0, 2**62)
        tasks = [task for task in self._respond("annotation_counts") if first <= task["id"] <= last]
        skips = [[each["was_cancelled"] for each in task["annotations"]] for task in tasks if claims_item(task["data"])]
        return AnnotationCounts(sum(len(each) - sum(each) for each in skips), sum(map(any, skips)))


def at(minute: float) -> str:
    """A time as the server writes it."""
    return (NOON + timedelta(minutes=minute)).isoformat()


def changed_at(task: Json) -> datetime:
    """When a task last changed."""
    return datetime.fromisoformat(task["updated_at"])


def summarize(task: Json) -> TaskSummary:
    """A task as a listing shows it."""
    return TaskSummary(task["id"], task["data"], len(task["annotations"]), changed_at(task))
