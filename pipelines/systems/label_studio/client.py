"""Label Studio, through the few calls of its HTTP API that the label verb needs.

A task is known by our `sample_id` in its data. Page numbers skip tasks that move, and a page size is no promise: tasks
are therefore listed by id, past the last one seen.
"""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any, TypeVar

from pipelines.errors import HeadraceError
from pipelines.systems.label_studio.totals import NOTHING, Totals
from pipelines.systems.label_studio.wire import LabelStudioError, Wire

Json = dict[str, Any]
COUNTED = ("task_number", "total_annotations_number", "skipped_annotations_number")
FIELDS = ",".join(("id", "title", "label_config", "maximum_annotations", "model_version", *COUNTED))
LISTED = "id,data,updated_at,total_annotations,cancelled_annotations"
ANSWERED = "id,data,updated_at,annotations,result,completed_by,was_cancelled,lead_time,created_at,draft_exists"
"""The fields of a task and of its annotations: the server names them in one list."""
REMOVED = "Deleted"
"""What the server tells in place of the address of an account that was removed from the organization."""
Item = TypeVar("Item")

LOOKUP_BATCH = 400
"""Sample ids a look-up; the server cuts addresses at 65 kB."""
PAGE, ANSWERED_PAGE, FEW = 1000, 500, 100


class LabelConfigDriftError(HeadraceError):
    """The project on the server asks another question than the declaration."""


@dataclass(frozen=True)
class Project:
    """A project of Label Studio.

    Attributes:
        id: Its number on the server.
        title: Its title.
        opinions: People who answer each task.
        model: Version of the model whose suggestions are shown.
        tasks: How many tasks it held when it was looked up.
        holds: How many answers and skips.
    """

    id: int
    title: str
    opinions: int = 1
    model: str = ""
    tasks: int = 0
    holds: Totals = NOTHING


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


@contextmanager
def opened(url: str, token: str, *, timeout_s: float = 60, patience_s: float = 20) -> Iterator["LabelStudio"]:
    """The Label Studio at `url`, as the account of `token`.

    Args:
        url: Its address.
        token: A legacy token, or a personal access token.
        timeout_s: How long one answer may take.
        patience_s: How long a server that is away, or an import of unknown outcome, is waited for.
    """
    wire = Wire(url, token, timeout_s, patience_s)
    try:
        yield LabelStudio(wire)
    finally:
        wire.close()


@dataclass(frozen=True)
class LabelStudio:
    """A Label Studio server and an account on it."""

    wire: Wire

    def find_project(self, title: str, config: str) -> Project | None:
        """The project `title`, after its question was compared with `config`; None if there is none.

        Raises:
            LabelConfigDriftError: Its label configuration is not `config`.
            LabelStudioError: Several projects have that title.
        """
        found = [item for item in self._projects(title) if item["title"] == title]
        if not found:
            return None
        if len(found) > 1:
            raise LabelStudioError(
                f"Label Studio at {self.wire.url}: expected one project {title!r}, seen {len(found)}"
                f" (ids {', '.join(str(item['id']) for item in found)}). Rename or delete all but the one that people"
                " work in, then run the same command again."
            )
        self._compare(found[0], config)
        item = found[0]
        tasks, answers, skips = (item[name] or 0 for name in COUNTED)
        return Project(
            item["id"], title, item["maximum_annotations"], item["model_version"] or "", tasks, Totals(answers, skips)
        )

    def project(self, title: str, config: str) -> Project:
        """The project `title`, made if there is none.

        Raises:
            LabelConfigDriftError: It is there with another label configuration.
        """
        found = self.find_project(title, config)
        if found:
            return found
        made = self.wire.write("POST", "/api/projects", {"title": title, "label_config": config})
        return Project(made["id"], title)

    def set_up(self, project: Project, *, opinions: int) -> None:
        """Have so many people answer each task.

        Only what differs is written: to write the number again would undo `ask_again`.
        """
        if project.opinions != opinions:
            self.wire.write("PATCH", f"/api/projects/{project.id}/", {"maximum_annotations": opinions})

    def show(self, project: Project, model: str) -> None:
        """Show people the suggestions of `model`, if the project has any; those of other models are shown no more."""
        if model != project.model and model in self.wire.read(f"/api/projects/{project.id}/model-versions/", {}):
            shown = {"model_version": model, "show_collab_predictions": True}
            self.wire.write("PATCH", f"/api/projects/{project.id}/", shown)

    def counted(self, project: Project) -> Json:
        """`task_number` and `finished_task_number`: all tasks, and those with as many answers as are wanted.

        Raises:
            LabelStudioError: There is no such project.
        """
        query = {"ids": project.id, "include": "id,task_number,finished_task_number"}
        found: list[Json] = self.wire.read("/api/projects", query)["results"]
        if not found:
            raise LabelStudioError(
                f"Label Studio at {self.wire.url} has no project {project.id}: was it deleted? Run `headrace label"
                " send` again (in Airflow: clear the first task)."
            )
        return found[0]

    def people(self) -> int:
        """How many accounts there are, ours among them, those that were removed aside.

        The free edition lets each of them see every project; it does not tell who was switched off by `is_active`.
        """
        return sum(account["email"] != REMOVED for account in self.wire.read("/api/users", {}))

    def ask_again(self, project: Project, opinions: Mapping[str, int]) -> None:
        """Hand tasks out until so many people have answered: sample id → people, all told."""
        for sample_id, copies in self.find(project, opinions).items():
            change = {"overlap": opinions[sample_id], "is_labeled": False}
            self.wire.write("PATCH", f"/api/tasks/{copies[0].id}/", change)

    def _projects(self, title: str) -> Iterator[Json]:
        page = 1
        while True:
            answer = self.wire.read(
                "/api/projects", {"title": title, "page": page, "page_size": 100, "include": FIELDS}
            )
            yield from answer["results"]
            if not answer["next"]:
                return
            page += 1

    def _compare(self, found: Json, config: str) -> None:
        here, there = _lines(config), _lines(found["label_config"])
        if here == there:
            return
        diff = "\n".join(difflib.unified_diff(here, there, "declared", "on the server", lineterm="", n=1))
        raise LabelConfigDriftError(
            f"Project {found['title']!r} ({self.wire.url}/projects/{found['id']}) asks another question than its"
            f" declaration, so nothing was sent or collected:\n{diff}\nPut the declared configuration back under"
            " Settings > Labeling Interface; or, if the question is to change, give the declaration a new title:"
            " that starts a new project, and the old answers stay with the old question."
        )

    def changed(self, project: Project, since: datetime | None) -> Iterator[Listed]:
        """The tasks that changed at that time or later, in the order of their ids; without a time, all."""
        return self._listed(project, _since(since))

    def changed_if_few(self, project: Project, since: datetime | None) -> list[Json] | None:
        """What `changed` lists, with all annotations, in one request; None if it is more than `FEW` tasks."""
        page = self._page(project, _since(since), size=FEW, annotations=True)
        return page["tasks"] if page["total"] <= FEW else None

    def between(self, project: Project, ids: tuple[int, int]) -> Iterator[Listed]:
        """The tasks with ids from the first to the last of `ids`."""
        return self._listed(project, [_between(ids)])

    def find(self, project: Project, sample_ids: Iterable[str]) -> dict[str, list[Listed]]:
        """Sample id → its tasks on the server, by id; what is not there is not in it."""
        found: dict[str, list[Listed]] = {}
        for batch in batches(sample_ids, LOOKUP_BATCH):
            for task in self._listed(project, [only("data.sample_id", "in_list", "List", batch)]):
                found.setdefault(task.sample_id, []).append(task)
        return found

    def totals(self, project: Project, ids: tuple[int, int] | None = None) -> Totals:
        """What the tasks that we sent hold, in two cheap counts; with `ids`, those from the first to the last of them.

        A task that several people skipped is one skip here; in `Project.holds` it is several.
        """
        ours = [only("data.sample_id", "empty", "String", value=False), *([_between(ids)] if ids else [])]
        skipped = only("cancelled_annotations", "greater", "Number", 0)
        answers = self._page(project, ours, size=1)["total_annotations"]
        return Totals(answers, self._page(project, [*ours, skipped], size=1)["total"])

    def count(self, project: Project, filters: Sequence[Json] = ()) -> int:
        """How many tasks the project holds that pass these filters, whoever sent them."""
        return int(self._page(project, filters, size=1)["total"])

    def newest_change(self, project: Project) -> datetime | None:
        """When a task of the project last changed; None if it has none."""
        newest = self._page(project, [], size=1, ordering="-tasks:updated_at")["tasks"]
        return _moment(newest[0]["updated_at"]) if newest else None

    def now(self) -> datetime:
        """The server's clock, to the second."""
        return parsedate_to_datetime(self.wire.head("/health", {}).headers["date"]).astimezone(UTC)

    def answered(self, project: Project) -> Iterator[Json]:
        """Every task that somebody answered or skipped, with all its annotations."""
        skipped = only("cancelled_annotations", "greater", "Number", 0)
        for filters in (
            [only("total_annotations", "greater", "Number", 0)],
            [only("total_annotations", "equal", "Number", 0), skipped],
        ):
            yield from self._listing(project, filters, annotations=True)

    def with_answers(self, project: Project, task_ids: Iterable[int]) -> Iterator[Json]:
        """These tasks, with all their annotations; the server's export would leave two files there at each call."""
        for batch in batches(task_ids, ANSWERED_PAGE):
            chosen = {"all": False, "included": batch}
            yield from self._page(project, [], size=len(batch), annotations=True, selectedItems=chosen)["tasks"]

    def untouched(self, project: Project, task_ids: Sequence[int]) -> list[int]:
        """Those of the tasks that are still there and that nobody answered, skipped or has begun on."""
        chosen = {"all": False, "included": list(task_ids)}
        page = self._page(project, [], size=len(task_ids), annotations=True, selectedItems=chosen)
        return [task["id"] for task in page["tasks"] if not (task["annotations"] or task["draft_exists"])]

    def delete(self, project: Project, task_ids: Sequence[int]) -> None:
        """Take tasks away, with all that is in them."""
        chosen = {"all": False, "included": list(task_ids)}
        self.wire.write("POST", f"/api/dm/actions?id=delete_tasks&project={project.id}", {"selectedItems": chosen})

    def _listed(self, project: Project, filters: Sequence[Json]) -> Iterator[Listed]:
        return (_as_listed(task) for task in self._listing(project, filters))

    def _listing(self, project: Project, filters: Sequence[Json], *, annotations: bool = False) -> Iterator[Json]:
        last, size = 0, ANSWERED_PAGE if annotations else PAGE
        while True:
            past = only("id", "greater", "Number", last)
            page = self._page(project, [*filters, past], size=size, annotations=annotations)
            yield from page["tasks"]
            if page["total"] <= len(page["tasks"]):
                return
            last = page["tasks"][-1]["id"]

    def _page(
        self,
        project: Project,
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
                "project": project.id,
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


def _lines(config: str) -> list[str]:
    """The lines of a configuration, without indentation and empty lines."""
    return [" ".join(line.split()) for line in config.splitlines() if line.strip()]


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """`items` in lists of at most `size`."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
