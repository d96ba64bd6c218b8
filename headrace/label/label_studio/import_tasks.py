"""Import tasks into Label Studio, each exactly once, although its import has no idempotency key.

Look up the tasks, import only the missing ones, never repeat a write of unknown outcome, and look again until every
task exists exactly once. A task that the server rejects is found and reported; it keeps no other from being imported.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from headrace.batches import batched
from headrace.label.label_studio.client import LabelStudioClient, LabelStudioProject
from headrace.label.label_studio.errors import LabelStudioError, LabelStudioHttpError, UnknownOutcomeError
from headrace.label.label_studio.tasks import Json, TaskSummary

IMPORT_BATCH = 250
"""Tasks per request: one transaction on the server, so an unknown outcome concerns few."""
DUPLICATES_BATCH = 100
"""Duplicates that are checked, then deleted, at once: nobody should begin to annotate one in between."""
IMPORT_ATTEMPTS = 4


@dataclass(frozen=True)
class ImportResult:
    """What an import did.

    Attributes:
        existing: Tasks that existed before.
        imported: Tasks that were missing.
        duplicates_removed: Duplicates that were deleted.
        rejected: Sample id → why the server rejects its task; all others exist.
        foreign: Number → sample id of tasks with an id of ours that are not what was sent; they are left alone.
    """

    existing: int
    imported: int
    duplicates_removed: int
    rejected: Mapping[str, str]
    foreign: Mapping[int, str]


@dataclass(frozen=True)
class TaskImporter:
    """Imports tasks into the projects of a server.

    Attributes:
        client: The server.
        is_ours: Whether a task with an id of ours is what was sent.
    """

    client: LabelStudioClient
    is_ours: Callable[[TaskSummary], bool] = lambda _task: True

    def import_tasks(
        self, project: LabelStudioProject, tasks: Mapping[str, Json], predictions: Mapping[str, Json] | None = None
    ) -> ImportResult:
        """Make each of `tasks` exist in the project exactly once.

        A batch that is rejected because of some of its tasks is halved until they are found; the rest is imported.

        Args:
            project: The project.
            tasks: Sample id → data.
            predictions: Sample id → the suggestion that a new task carries.

        Raises:
            LabelStudioError: The server rejects all tasks, or does not come back. What was stored stays; the same call
                imports the rest.
        """
        found, foreign = self._find(project, tasks) if project.tasks else ({}, {})
        existing, rejected = len(found), dict[str, LabelStudioHttpError]()
        for _ in range(IMPORT_ATTEMPTS):
            missing = [name for name in tasks if name not in found and name not in rejected]
            requests = {name: _request(tasks[name], (predictions or {}).get(name)) for name in missing}
            all_arrived, errors = self._import_all(project, requests)
            if not found and len(errors) == len(requests):
                raise errors[missing[0]]
            rejected |= errors
            if all_arrived and self._has_grown_by(project, len(missing) - len(errors)):
                removed = self._remove_duplicates(project, found)
                reasons = {name: error.reason for name, error in rejected.items()}
                return ImportResult(existing, len(tasks) - existing - len(rejected), removed, reasons, foreign)
            project = replace(project, tasks=self.client.project_tasks(project).count())
            found, foreign = self._find(project, tasks)
        raise LabelStudioError(
            f"Project {project.title!r} on {self.client.url}: {len(missing)} of {len(tasks)} tasks are still missing"
            f" after {IMPORT_ATTEMPTS} attempts. See the server's log; then run the same command again, which sends"
            " only those."
        )

    def _find(
        self, project: LabelStudioProject, tasks: Mapping[str, Json]
    ) -> tuple[dict[str, list[TaskSummary]], dict[int, str]]:
        """Sample id → its tasks, all about one item; and the tasks with such an id that are not what was sent."""
        found: dict[str, list[TaskSummary]] = {}
        foreign: dict[int, str] = {}
        for name, copies in self.client.project_tasks(project).find_by_sample_id(tasks).items():
            own = [task for task in copies if self.is_ours(task)]
            as_sent = [task for task in own if task.item == tasks[name].get("item")] or own
            own = [task for task in own if task.item == as_sent[0].item]
            if own:
                found[name] = own
            foreign |= {task.id: name for task in copies if task not in own}
        return found, foreign

    def _has_grown_by(self, project: LabelStudioProject, imported: int) -> bool:
        """Whether the project grew by what was acknowledged and nothing else: no other sender, no late arrival."""
        return not imported or self.client.project_tasks(project).count() == project.tasks + imported

    def _import_all(
        self, project: LabelStudioProject, requests: Mapping[str, Json]
    ) -> tuple[bool, dict[str, LabelStudioHttpError]]:
        """Import batch after batch, up to one of unknown outcome.

        Where the server rejects every task of the first batch, the tasks are not to blame, and the rest is not tried.

        Returns:
            Whether all tasks that the server takes have arrived, and those that it rejects.
        """
        rejected: dict[str, LabelStudioHttpError] = {}
        for batch in batched(requests, IMPORT_BATCH):
            all_arrived, errors = self._import_batch(project, {name: requests[name] for name in batch})
            rejected |= errors
            if not all_arrived:
                return False, rejected
            if len(rejected) == len(batch) and not project.tasks:
                return True, rejected | dict.fromkeys(requests, errors[batch[0]])
        return True, rejected

    def _import_batch(
        self, project: LabelStudioProject, requests: Mapping[str, Json]
    ) -> tuple[bool, dict[str, LabelStudioHttpError]]:
        """Import one batch. A part of it that is rejected is halved, down to single tasks.

        Returns:
            Whether no answer was lost, and the tasks that the server rejects.
        """
        all_arrived, rejected, parts = True, dict[str, LabelStudioHttpError](), [dict(requests)]
        while parts:
            part = parts.pop()
            try:
                all_arrived = self._send(project, part) and all_arrived
            except LabelStudioHttpError as error:
                if len(part) > 1:
                    parts += _halves(part)
                else:
                    rejected |= dict.fromkeys(part, error)
        return all_arrived, rejected

    def _send(self, project: LabelStudioProject, requests: Mapping[str, Json]) -> bool:
        """Send some tasks, once. False if the answer was lost: they may be stored, under way, or never arrive."""
        tasks = list(requests.values())
        try:
            self.client.call_once(self.client.sdk.projects.import_tasks, project.id, request=tasks)  # type: ignore[arg-type]
        except UnknownOutcomeError:
            self._wait_for(project, list(requests))
            return False
        return True

    def _wait_for(self, project: LabelStudioProject, sample_ids: Sequence[str]) -> None:
        """Wait until a batch whose answer was lost shows up (a batch is one transaction), but not for ever."""
        deadline = time.monotonic() + self.client.retry_timeout_s
        while time.monotonic() < deadline and not self.client.project_tasks(project).find_by_sample_id(sample_ids[:1]):
            time.sleep(0.5)

    def _remove_duplicates(self, project: LabelStudioProject, found: Mapping[str, list[TaskSummary]]) -> int:
        """Delete duplicates that nobody annotated. The task that somebody annotated stays, else the first."""
        duplicates: list[TaskSummary] = []
        for copies in found.values():
            duplicates += sorted(copies, key=lambda task: (-task.annotations, task.id))[1:]
        removed, tasks = 0, self.client.project_tasks(project)
        for batch in batched([task.id for task in duplicates], DUPLICATES_BATCH):
            unannotated = tasks.find_unannotated(batch)
            if unannotated:
                tasks.delete_tasks(unannotated)
            removed += len(unannotated)
        return removed


def _request(data: Json, prediction: Json | None) -> Json:
    """Not the SDK's `ImportApiRequest`: its `PredictionRequest` demands the number of the task, which has none yet."""
    return {"data": data, "predictions": [prediction]} if prediction else {"data": data}


def _halves(requests: Mapping[str, Json]) -> list[dict[str, Json]]:
    items, middle = list(requests.items()), len(requests) // 2
    return [dict(items[middle:]), dict(items[:middle])]
