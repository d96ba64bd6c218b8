"""Label Studio, through the few calls of its HTTP API that the label verb needs: projects, and who works in them."""

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from headrace.errors import HeadraceError
from headrace.label.label_studio.http import LabelStudioError, Wire
from headrace.label.label_studio.tasks import Json, Tasks
from headrace.label.label_studio.totals import NOTHING, Totals

COUNTED = ("task_number", "total_annotations_number", "skipped_annotations_number")
FIELDS = ",".join(("id", "title", "label_config", "maximum_annotations", "model_version", *COUNTED))
REMOVED = "Deleted"
"""What the server tells in place of the address of an account that was removed from the organization."""


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

    def tasks_of(self, project: Project) -> Tasks:
        """The tasks of a project."""
        return Tasks(self.wire, project.id)

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
        for sample_id, copies in self.tasks_of(project).find(opinions).items():
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

    def now(self) -> datetime:
        """The server's clock, to the second."""
        return parsedate_to_datetime(self.wire.head("/health", {}).headers["date"]).astimezone(UTC)


def _lines(config: str) -> list[str]:
    """The lines of a configuration, without indentation and empty lines."""
    return [" ".join(line.split()) for line in config.splitlines() if line.strip()]
