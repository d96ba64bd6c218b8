"""The wait for people. It holds no worker: the triggerer asks Label Studio now and then, with a few small requests."""

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import BaseSensorOperator, Context
from airflow.sdk.exceptions import AirflowFailException
from airflow.triggers.base import BaseTrigger, TriggerEvent

REQUEST_TIMEOUT_S = 30
"""Timeout of one request."""

NEXT_STEP = "The token is LABEL_STUDIO_API_KEY of the triggerer; once that is right, clear this task to wait again."

GRACE = timedelta(minutes=10)
"""The trigger ends the wait by itself; Airflow's own time limit, which fails the task, comes this much later."""


SETTLED_S = 15.0
"""No event comes sooner. A task that returns from its trigger before the scheduler has noted that it was deferred is
taken for one that died (Airflow 3.3), and tried again minutes later. A busy scheduler needed five seconds."""


class LabelStudioSensor(BaseSensorOperator):
    """Wait until people have answered enough of a Label Studio project, or until the deadline; the run goes on in both.

    Args:
        project_url: Address of the project; a template.
        share: Share of its tasks that must have as many answers as are wanted, or be skipped; a template.
        hours: How long to wait at most; the run continues with what has been answered by then. A template.
        poll_interval_s: Seconds between two requests; a template.
    """

    template_fields: Sequence[str] = ("project_url", "share", "hours", "poll_interval_s")
    ui_color = "#f7efe6"

    def __init__(self, *, project_url: str, share: str, hours: str, poll_interval_s: str, **settings: Any) -> None:  # noqa: ANN401  Airflow's own
        super().__init__(**settings)
        self.project_url, self.share, self.hours, self.poll_interval_s = project_url, share, hours, poll_interval_s

    def execute(self, context: Context) -> None:  # noqa: ARG002  Airflow's own
        """Hand over to the trigger."""
        limit = timedelta(hours=float(self.hours))
        until = datetime.now(UTC) + limit
        self.log.info("waiting for people at %s until %s", self.project_url, f"{until:%Y-%m-%d %H:%M} UTC")
        trigger = LabelStudioTrigger(
            self.project_url, float(self.share), float(self.poll_interval_s), until.isoformat()
        )
        self.defer(trigger=trigger, method_name="resume", timeout=limit + GRACE)

    def resume(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002  Airflow's own
        """Continue with what the trigger found.

        Raises:
            AirflowFailException: The server refused, or never answered; the trigger has retried long enough.
        """
        if "error" in event:
            raise AirflowFailException(event["error"])
        self.log.info("%(answered)s of %(tasks)s tasks answered or skipped; ended by %(ended_by)s", event)
        return event


class LabelStudioTrigger(BaseTrigger):
    """Fires once: when enough is answered, when time is up, or when the server refuses.

    A server that is unavailable is asked again. The token is read from the environment of the triggerer
    (LABEL_STUDIO_API_KEY) and stored nowhere.
    """

    def __init__(self, project_url: str, share: float, poll_interval_s: float, until: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.project_url, self.share, self.poll_interval_s, self.until = project_url, share, poll_interval_s, until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """As Airflow stores it, to recreate it in the triggerer."""
        names = ("project_url", "share", "poll_interval_s", "until")
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Ask until there is something to report."""
        settled = time.monotonic() + SETTLED_S
        found = await self._wait()
        await asyncio.sleep(max(0.0, settled - time.monotonic()))
        yield TriggerEvent(found)  # type: ignore[no-untyped-call]

    async def _wait(self) -> dict[str, Any]:
        until = datetime.fromisoformat(self.until)
        counts: dict[str, int] | None = None
        unavailable = ""
        while True:
            try:
                counts = await count_tasks(self.project_url)
            except ConnectionError as error:
                unavailable = str(error)
                self.log.warning("%s; next request in %s s", error, self.poll_interval_s)
            except PermissionError as error:
                return {"error": str(error)}
            else:
                if counts["answered"] >= math.ceil(self.share * counts["tasks"]):
                    return {**counts, "ended_by": "answers"}
            if datetime.now(UTC) >= until:
                return {**counts, "ended_by": "deadline"} if counts else {"error": f"{unavailable} {NEXT_STEP}"}
            await asyncio.sleep(self.poll_interval_s)


async def count_tasks(project_url: str) -> dict[str, int]:
    """`answered`: tasks that nobody needs to, or can, answer any more; `tasks`: all tasks of the project.

    Raises:
        ConnectionError: The server is unavailable.
        PermissionError: The server refuses.
    """
    return await asyncio.to_thread(_count_tasks, project_url)


def _count_tasks(project_url: str) -> dict[str, int]:
    # The SDK takes a second to import, and DAG files load this module, too.
    from headrace.label.label_studio.client import LabelStudioProject, open_label_studio  # noqa: PLC0415
    from headrace.label.label_studio.errors import LabelStudioError  # noqa: PLC0415
    from headrace.label.label_studio.finished import count_finished  # noqa: PLC0415

    url, _, number = project_url.rpartition("/projects/")
    token = os.environ.get("LABEL_STUDIO_API_KEY", "")
    try:
        with open_label_studio(url, token, timeout_s=REQUEST_TIMEOUT_S, retry_timeout_s=0) as client:
            answered, tasks = count_finished(client, LabelStudioProject(int(number), ""))
    except LabelStudioError as error:
        if error.is_transient:
            raise ConnectionError(str(error)) from None
        raise PermissionError(f"{error} {NEXT_STEP}") from None
    return {"answered": answered, "tasks": tasks}
