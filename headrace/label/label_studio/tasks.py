"""The tasks of a project of Label Studio: listed, counted, read with their answers, deleted.

A task is known by our `sample_id` in its data. Page numbers skip tasks that move, and a page size is no promise: tasks
are therefore listed by id, past the last one seen.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

from headrace.label.label_studio.http import Wire
from headrace.label.label_studio.totals import Totals

Json = dict[str, Any]
LISTED = "id,data,updated_at,total_annotations,cancelled_annotations"
ANSWERED = "id,data,updated_at,annotations,result,completed_by,was_cancelled,lead_time,created_at,draft_exists"
"""The fields of a task and of its annotations: the server names them in one list."""
Item = TypeVar("Item")

LOOKUP_BATCH = 400
"""Sample ids a look-up; the server cuts addresses at 65 kB."""
PAGE, ANSWERED_PAGE, FEW = 1000, 500, 100


@dataclass(frozen=True)
class Listed:
    """A task as a listing shows it.

    Attributes:
        id: Its number on the server, which SQLite gives again to another task once this one is deleted.
        sample_id: Our id; empty for a task that somebody else put into the project.
        item: What we sent along under `item`, to know the row again.
        answers: Annotations that people gave or skipped.
        updated_at: When it, or an annotation of it, last changed.
    """

    id: int
    sample_id: str
    item: Json
    answers: int
    updated_at: datetime


@dataclass(frozen=True)
class Tasks:
    """The tasks of one project.

    Attributes:
        wire: The server, and an account on it.
        project: Number of the project there.
    """

    wire: Wire
    project: int

    def changed(self, since: datetime | None) -> Iterator[Listed]:
        """The tasks that changed at that time or later, in the order of their ids; without a time, all."""
        return self._listed(_since(since))

    def changed_if_few(self, since: datetime | None) -> list[Json] | None:
        """What `changed` lists, with all annotations, in one request; None if that does not hold them all."""
        page = self._page(_since(since), size=FEW, annotations=True)
        return page["tasks"] if page["total"] <= len(page["tasks"]) else None

    def between(self, ids: tuple[int, int]) -> Iterator[Listed]:
        """The tasks with ids from the first to the last of `ids`."""
        return self._listed([_between(ids)])

    def find(self, sample_ids: Iterable[str]) -> dict[str, list[Listed]]:
        """Sample id → its tasks on the server, by id; what is not there is not in it."""
        found: dict[str, list[Listed]] = {}
        for batch in batches(sample_ids, LOOKUP_BATCH):
            for task in self._listed([only("data.sample_id", "in_list", "List", batch)]):
                found.setdefault(task.sample_id, []).append(task)
        return found

    def totals(self, ids: tuple[int, int] | None = None) -> Totals:
        """What the tasks that we sent hold, in two cheap counts; with `ids`, those from the first to the last of them.

        A task that several people skipped is one skip here; in `Project.holds` it is several.
        """
        ours = [only("data.sample_id", "empty", "String", value=False), *([_between(ids)] if ids else [])]
        skipped = only("cancelled_annotations", "greater", "Number", 0)
        answers = self._page(ours, size=1)["total_annotations"]
        return Totals(answers, self._page([*ours, skipped], size=1)["total"])

    def count(self, filters: Sequence[Json] = ()) -> int:
        """How many tasks the project holds that pass these filters, whoever sent them."""
        return int(self._page(filters, size=1)["total"])

    def newest_change(self) -> datetime | None:
        """When a task of the project last changed; None if it has none."""
        newest = self._page([], size=1, ordering="-tasks:updated_at")["tasks"]
        return _moment(newest[0]["updated_at"]) if newest else None

    def answered(self) -> Iterator[Json]:
        """Every task that somebody answered or skipped, with all its annotations."""
        skipped = only("cancelled_annotations", "greater", "Number", 0)
        for filters in (
            [only("total_annotations", "greater", "Number", 0)],
            [only("total_annotations", "equal", "Number", 0), skipped],
        ):
            yield from self._listing(filters, annotations=True)

    def with_answers(self, task_ids: Iterable[int]) -> Iterator[Json]:
        """These tasks, with all their annotations; the server's export would leave two files there at each call."""
        for batch in batches(task_ids, ANSWERED_PAGE):
            chosen = {"all": False, "included": batch}
            yield from self._page([], size=len(batch), annotations=True, selectedItems=chosen)["tasks"]

    def untouched(self, task_ids: Sequence[int]) -> list[int]:
        """Those of the tasks that are still there and that nobody answered, skipped or has begun on."""
        chosen = {"all": False, "included": list(task_ids)}
        page = self._page([], size=len(task_ids), annotations=True, selectedItems=chosen)
        return [task["id"] for task in page["tasks"] if not (task["annotations"] or task["draft_exists"])]

    def delete(self, task_ids: Sequence[int]) -> None:
        """Take tasks away, with all that is in them."""
        chosen = {"all": False, "included": list(task_ids)}
        self.wire.write("POST", f"/api/dm/actions?id=delete_tasks&project={self.project}", {"selectedItems": chosen})

    def _listed(self, filters: Sequence[Json]) -> Iterator[Listed]:
        return (_as_listed(task) for task in self._listing(filters))

    def _listing(self, filters: Sequence[Json], *, annotations: bool = False) -> Iterator[Json]:
        last, size = 0, ANSWERED_PAGE if annotations else PAGE
        while True:
            past = only("id", "greater", "Number", last)
            page = self._page([*filters, past], size=size, annotations=annotations)
            yield from page["tasks"]
            if page["total"] <= len(page["tasks"]):
                return
            last = page["tasks"][-1]["id"]

    def _page(
        self,
        filters: Sequence[Json],
        *,
        size: int,
        annotations: bool = False,
        ordering: str = "tasks:id",
        **more: Json,
    ) -> Any:  # noqa: ANN401  any JSON
        query = {"filters": {"conjunction": "and", "items": filters}, "ordering": [ordering], **more}
        return self.wire.read(
            "/api/tasks/",
            {
                "project": self.project,
                "page_size": size,
                "include": ANSWERED if annotations else LISTED,
                **({"fields": "all"} if annotations else {}),
                "resolve_uri": "false",
                "query": json.dumps(query),
            },
        )


def _as_listed(task: Json) -> Listed:
    return Listed(
        id=task["id"],
        sample_id=str(task["data"].get("sample_id") or ""),
        item=task["data"].get("item") or {},
        answers=(task["total_annotations"] or 0) + (task["cancelled_annotations"] or 0),
        updated_at=_moment(task["updated_at"]),
    )


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _since(moment: datetime | None) -> list[Json]:
    return [only("updated_at", "greater_or_equal", "Datetime", _stamp(moment))] if moment else []


def _between(ids: tuple[int, int]) -> Json:
    return only("id", "in", "Number", {"min": ids[0], "max": ids[1]})


def only(column: str, operator: str, kind: str, value: object) -> Json:
    """A filter: tasks whose column is so."""
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


def _stamp(moment: datetime) -> str:
    """A time as the server's filter wants it: with microseconds, also when they are zero."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """`items` in lists of at most `size`."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
