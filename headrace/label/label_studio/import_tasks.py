"""Tasks into Label Studio, each exactly once, though its import has no key of idempotence.

Look up, send only what is missing, never repeat a write whose outcome is not known, and look again until every task
stands there once. A task that the server does not take is found and set aside; it keeps no other from being sent.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from headrace.label.label_studio.client import LabelStudio, Project
from headrace.label.label_studio.http import LabelStudioError, LostAnswerError, RefusedError
from headrace.label.label_studio.tasks import Json, Listed, batches

IMPORT_BATCH = 250
"""Tasks a request: one transaction of well under a second on the server, so little hangs on an unknown outcome."""
COPIES_BATCH = 100
"""Copies that are looked at, then deleted, in one go: nobody should begin on one in between."""
SEND_ATTEMPTS = 4


@dataclass(frozen=True)
class Delivery:
    """Outcome of a send.

    Attributes:
        already: Tasks that stood there.
        sent: Tasks that were missing.
        copies_removed: Extra copies taken away.
        refused: Sample id → why the server does not take its task; the others are there.
    """

    already: int
    sent: int
    copies_removed: int
    refused: Mapping[str, str]


@dataclass(frozen=True)
class Sender:
    """Sends tasks to a server."""

    server: LabelStudio

    def send(
        self, project: Project, tasks: Mapping[str, Json], predictions: Mapping[str, Json] | None = None
    ) -> Delivery:
        """Bring it about that each of `tasks` (sample id → data) stands in the project exactly once.

        A batch that is refused for some of its tasks is halved until they are found; the rest is sent.

        Args:
            project: The project.
            tasks: Sample id → data.
            predictions: Sample id → the suggestion that a new task goes with.

        Raises:
            LabelStudioError: The server refuses all, or does not come back. What was stored stays; the same call
                again sends the rest.
        """
        found = self.server.tasks_of(project).find(tasks) if project.tasks else {}
        already, refused = len(found), dict[str, RefusedError]()
        for _ in range(SEND_ATTEMPTS):
            missing = [name for name in tasks if name not in found and name not in refused]
            bodies = {name: _body(tasks[name], (predictions or {}).get(name)) for name in missing}
            arrived, errors = self._import_all(project, bodies)
            if not found and len(errors) == len(bodies):
                raise errors[missing[0]]
            refused |= errors
            if arrived and self._adds_up(project, len(missing) - len(errors)):
                copies = self._remove_copies(project, found)
                reasons = {name: error.reason for name, error in refused.items()}
                return Delivery(already, len(tasks) - already - len(refused), copies, reasons)
            project = replace(project, tasks=self.server.tasks_of(project).count())
            found = self.server.tasks_of(project).find(tasks)
        raise LabelStudioError(
            f"Project {project.title!r} on {self.server.wire.url}: {len(missing)} of {len(tasks)} tasks are still not"
            f" there after {SEND_ATTEMPTS} attempts. See the server's log; then run the same command again, which sends"
            " only those."
        )

    def _adds_up(self, project: Project, sent: int) -> bool:
        """Whether the project grew by what was acknowledged and nothing else: no other sender, no late arrival."""
        return not sent or self.server.tasks_of(project).count() == project.tasks + sent

    def _import_all(self, project: Project, bodies: Mapping[str, Json]) -> tuple[bool, dict[str, RefusedError]]:
        """Post batch after batch, up to one of unknown outcome; whether all that is good arrived, and what was refused.

        Where all of the first batch are refused it is not the tasks that are wrong, and the rest is not tried.
        """
        refused: dict[str, RefusedError] = {}
        for batch in batches(bodies, IMPORT_BATCH):
            arrived, errors = self._import(project, {name: bodies[name] for name in batch})
            refused |= errors
            if not arrived:
                return False, refused
            if len(refused) == len(batch) and not project.tasks:
                return True, refused | dict.fromkeys(bodies, errors[batch[0]])
        return True, refused

    def _import(self, project: Project, bodies: Mapping[str, Json]) -> tuple[bool, dict[str, RefusedError]]:
        """Post one batch; whether all that is good arrived, and what was refused."""
        arrived, refused, parts = True, dict[str, RefusedError](), [dict(bodies)]
        while parts:
            part = parts.pop()
            try:
                arrived = self._post(project, part) and arrived
            except RefusedError as error:
                if len(part) > 1:
                    parts += _halves(part)
                else:
                    refused |= dict.fromkeys(part, error)
        return arrived, refused

    def _post(self, project: Project, bodies: Mapping[str, Json]) -> bool:
        """Post some tasks, once. False if the answer was lost: they may be stored, under way, or never arrive."""
        try:
            self.server.wire.write("POST", f"/api/projects/{project.id}/import", list(bodies.values()))
        except LostAnswerError:
            self._settle(project, list(bodies))
            return False
        return True

    def _settle(self, project: Project, sample_ids: Sequence[str]) -> None:
        """Wait until a batch whose answer was lost shows up (a batch is one transaction), or patience ends."""
        deadline = time.monotonic() + self.server.wire.patience_s
        while time.monotonic() < deadline and not self.server.tasks_of(project).find(sample_ids[:1]):
            time.sleep(0.5)

    def _remove_copies(self, project: Project, found: Mapping[str, list[Listed]]) -> int:
        """Delete what stands there twice and nobody touched; the one that someone answered stays, else the first."""
        extra: list[Listed] = []
        for copies in found.values():
            extra += sorted(copies, key=lambda task: (-task.answers, task.id))[1:]
        removed = 0
        for batch in batches([task.id for task in extra], COPIES_BATCH):
            untouched = self.server.tasks_of(project).untouched(batch)
            if untouched:
                self.server.tasks_of(project).delete(untouched)
            removed += len(untouched)
        return removed


def _body(data: Json, prediction: Json | None) -> Json:
    return {"data": data, "predictions": [prediction]} if prediction else {"data": data}


def _halves(bodies: Mapping[str, Json]) -> list[dict[str, Json]]:
    items, middle = list(bodies.items()), len(bodies) // 2
    return [dict(items[middle:]), dict(items[:middle])]
