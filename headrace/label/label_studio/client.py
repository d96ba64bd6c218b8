"""Projects of Label Studio, and who works in them."""

import difflib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import count
from typing import Any

import httpx
from label_studio_sdk import AllRolesProjectList, LabelStudio
from label_studio_sdk.core.api_error import ApiError
from label_studio_sdk.core.pagination import SyncPager

from headrace.label.item_signature import MARK_START
from headrace.label.label_studio.api import LabelStudioApi
from headrace.label.label_studio.errors import LabelConfigDriftError, LabelStudioError
from headrace.label.label_studio.tasks import NO_ANNOTATIONS, AnnotationCounts, ProjectTasks, TaskSummary

Page = SyncPager[AllRolesProjectList, Any]
COUNTS = "task_number,total_annotations_number,skipped_annotations_number"
FIELDS = f"id,title,description,label_config,maximum_annotations,model_version,{COUNTS}"
REMOVED = "Deleted"
"""What the server shows as the address of an account that was removed from the organization."""


@dataclass(frozen=True)
class LabelStudioProject:
    """A project of Label Studio, as it was when it was looked up.

    Attributes:
        id: Its number on the server.
        title: Its title, which people may change.
        is_marked: Whether its description has our mark, by which it is found again.
        annotators_per_item: How many people annotate each task.
        model_version: The model whose suggestions are shown.
        tasks: How many tasks it holds.
        counts: How many annotations and skips it holds.
    """

    id: int
    title: str
    is_marked: bool = True
    annotators_per_item: int = 1
    model_version: str = ""
    tasks: int = 0
    counts: AnnotationCounts = NO_ANNOTATIONS


@contextmanager
def open_label_studio(
    url: str, token: str, *, timeout_s: float = 60, retry_timeout_s: float = 20
) -> Iterator["LabelStudioClient"]:
    """The Label Studio at `url`, as the account of `token`.

    Args:
        url: Its address.
        token: A legacy token, or a personal access token, which the SDK exchanges for tokens of five minutes.
        timeout_s: How long to wait for one answer.
        retry_timeout_s: How long to retry a read, or to look for an import of unknown outcome; 0 for not at all.

    Raises:
        LabelStudioError: The token has expired, or there is none.
    """
    if not token:  # httpx would call the empty header a failed connection
        raise LabelStudioError(f"There is no token for Label Studio at {url}: set LABEL_STUDIO_API_KEY.")
    address = url.rstrip("/")
    clock = ServerClock()
    hooks = {"response": [clock.note]}
    with httpx.Client(timeout=timeout_s, follow_redirects=False, event_hooks=hooks) as http:
        try:
            # The slash at the end keeps a path in the address: the SDK joins the address for new tokens by urljoin.
            sdk = LabelStudio(base_url=f"{address}/", api_key=token, httpx_client=http)
        except ApiError:
            raise LabelStudioError(
                "The token in LABEL_STUDIO_API_KEY has expired. Take another one from Account & Settings > Access Token"
                f" at {address}, then run the same command again."
            ) from None
        yield LabelStudioClient(address, sdk, retry_timeout_s, clock)


@dataclass
class ServerClock:
    """The clock of the server, as its last response showed it.

    Attributes:
        offset: How far it is ahead of ours.
    """

    offset: timedelta = timedelta()

    def note(self, response: httpx.Response) -> None:
        """Read the header `Date` of a response."""
        with suppress(KeyError, TypeError, ValueError):
            self.offset = parsedate_to_datetime(response.headers["date"]).astimezone(UTC) - datetime.now(UTC)


@dataclass(frozen=True)
class LabelStudioClient(LabelStudioApi):
    """What the label commands do with a server, beyond its tasks.

    Attributes:
        clock: The clock of the server.
    """

    clock: ServerClock = field(default_factory=ServerClock)

    @property
    def clock_offset(self) -> timedelta:
        """How far the clock of the server is ahead of ours, by its last response."""
        return self.clock.offset

    def project_url(self, project: LabelStudioProject) -> str:
        """Where people open the project."""
        return f"{self.url}/projects/{project.id}"

    def find_project(self, title: str, config: str, mark: str) -> LabelStudioProject | None:
        """The project with our mark in its description, whatever its title; None if there is none.

        Without any, it is the project `title` that has no mark: versions up to 0.2 set none.

        Raises:
            LabelConfigDriftError: Its label configuration is not `config`.
            LabelStudioError: There are several.
        """
        titled = [project for project in self._list_projects(title) if project.title == title]
        found = [project for project in titled if mark in (project.description or "")]
        found = found or [project for project in self._list_projects() if mark in (project.description or "")]
        found = found or [project for project in titled if MARK_START not in (project.description or "")]
        if not found:
            return None
        if len(found) > 1:
            raise LabelStudioError(
                f"Label Studio at {self.url}: expected one project {title!r}, found {len(found)}"
                f" (ids {', '.join(str(project.id) for project in found)}). Delete all but the one that people work in,"
                f" or take {mark!r} out of their descriptions and rename them, then run the same command again."
            )
        [project] = found
        self._check_config(project, config)
        # The SDK's models declare every field as optional, and these counts as text where the server sends numbers.
        annotations, skips = project.total_annotations_number, project.skipped_annotations_number
        return LabelStudioProject(
            id=project.id or 0,
            title=project.title or "",
            is_marked=mark in (project.description or ""),
            annotators_per_item=project.maximum_annotations or 1,
            model_version=project.model_version or "",
            tasks=int(project.task_number or 0),
            counts=AnnotationCounts(int(annotations or 0), int(skips or 0)),
        )

    def create_project(self, title: str, config: str, mark: str) -> LabelStudioProject:
        """A new project, with our mark in its description."""
        created = self.call_once(self.sdk.projects.create, title=title, label_config=config, description=mark)
        return LabelStudioProject(created.id or 0, title)

    def mark_project(self, project: LabelStudioProject, mark: str) -> None:
        """Add our mark to the description of a project, if it lacks it."""
        if not project.is_marked:
            description = self.call_with_retries(self.sdk.projects.get, project.id).description or ""
            self.call_once(self.sdk.projects.update, project.id, description=f"{description}\n\n{mark}".strip())

    def find_marked(self, start: str) -> list[LabelStudioProject]:
        """Projects with a mark in their description that begins with `start`, whatever their label configuration."""
        found = [project for project in self._list_projects() if start in (project.description or "")]
        return [LabelStudioProject(it.id or 0, it.title or "", tasks=int(it.task_number or 0)) for it in found]

    def replace_mark(self, project: LabelStudioProject, old: str, new: str) -> None:
        """Put another mark of ours in the place of one."""
        description = self.call_with_retries(self.sdk.projects.get, project.id).description or ""
        self.call_once(self.sdk.projects.update, project.id, description=description.replace(old, new))

    def set_annotators_per_item(self, project: LabelStudioProject, number: int) -> None:
        """Have `number` people annotate each task.

        Nothing is written if that is so: the server would set the number of every task, and undo `request_more`.
        """
        if project.annotators_per_item != number:
            self.call_once(self.sdk.projects.update, project.id, maximum_annotations=number)

    def set_model_version(self, project: LabelStudioProject, version: str) -> None:
        """Show the suggestions of this model and no other, if the project holds any of it."""
        held = f"/api/projects/{project.id}/model-versions/"
        if version != project.model_version and version in self.get_json(held):
            update = self.sdk.projects.update
            self.call_once(update, project.id, model_version=version, show_collab_predictions=True)

    def project_tasks(self, project: LabelStudioProject) -> ProjectTasks:
        """The tasks of a project."""
        return ProjectTasks(self, project.id)

    def task_counts(self, project: LabelStudioProject) -> tuple[int, int]:
        """Tasks with as many annotations as are wanted, and all tasks.

        Raises:
            LabelStudioError: There is no such project.
        """
        fields = "id,task_number,finished_task_number"
        page: Page = self.call_with_retries(self.sdk.projects.list, ids=str(project.id), include=fields)
        if not page.items:
            raise LabelStudioError(
                f"Label Studio at {self.url} has no project {project.id}: was it deleted? Run `headrace label send`"
                " again (in Airflow: clear the first task)."
            )
        return int(page.items[0].finished_task_number or 0), int(page.items[0].task_number or 0)

    def count_users(self) -> int:
        """How many accounts there are, ours included, without those that were removed from the organization.

        In the free edition each account sees every project, and `is_active` does not tell who was switched off.
        """
        return sum(user.email != REMOVED for user in self.call_with_retries(self.sdk.users.list))

    def request_more(
        self,
        project: LabelStudioProject,
        annotators: Mapping[str, int],
        is_ours: Callable[[TaskSummary], bool] = lambda _task: True,
    ) -> None:
        """Show tasks to people until so many have annotated them: sample id → number of annotators in all."""
        for sample_id, copies in self.project_tasks(project).find_by_sample_id(annotators).items():
            own = [task for task in copies if is_ours(task)]
            if not own:
                continue
            task, wanted = str(own[0].id), annotators[sample_id]
            self.call_once(self.sdk.tasks.update, task, overlap=wanted, is_labeled=False)

    def server_time(self) -> datetime:
        """The server's clock, to the second."""
        headers = self.call_with_retries(self.sdk.versions.with_raw_response.get).headers
        return parsedate_to_datetime(headers["date"]).astimezone(UTC)

    def _list_projects(self, title: str | None = None) -> Iterator[AllRolesProjectList]:
        """Projects whose title contains `title`; by default all.

        Page by page as far as the server says that there is another: the SDK's pager asks once more and takes the 404.
        """
        for number in count(1):
            page: Page = self.call_with_retries(
                self.sdk.projects.list, title=title, include=FIELDS, page=number, page_size=100
            )
            yield from page.items or ()
            if not page.response.next:
                return

    def _check_config(self, project: AllRolesProjectList, config: str) -> None:
        declared, stored = _config_lines(config), _config_lines(project.label_config or "")
        if declared == stored:
            return
        diff = "\n".join(difflib.unified_diff(declared, stored, "declared", "on the server", lineterm="", n=1))
        raise LabelConfigDriftError(
            f"The label configuration of project {project.title!r} ({self.url}/projects/{project.id}) is not the"
            f" declared one, so nothing was sent or collected:\n{diff}\nRestore the declared configuration under"
            " Settings > Labeling Interface; or, if the question is to change, give the declaration a new title: that"
            " starts a new project, and the old answers stay with the old question."
        )


def _config_lines(config: str) -> list[str]:
    """The lines of a configuration, without indentation and empty lines."""
    return [" ".join(line.split()) for line in config.splitlines() if line.strip()]
