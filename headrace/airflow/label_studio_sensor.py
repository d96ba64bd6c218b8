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

NEXT_STEP = (
    "The address is LABEL_STUDIO_URL and the token LABEL_STUDIO_API_KEY of the triggerer; once they are right, clear"
    " this task to wait again."
)

UNREACHED = timedelta(minutes=10)
"""A wait whose deadline comes after the server has not answered for this long has failed: what people answered
meanwhile is unknown. A shorter outage is forgiven."""

GRACE = timedelta(minutes=10)
"""The trigger ends the wait by itself; Airflow's own time limit, which fails the task, comes this much later."""


SETTLED_S = 15.0
"""No event comes sooner. A task that returns from its trigger before the scheduler has noted that it was deferred is
taken for one that died (Airflow 3.3), and tried again minutes later. A busy scheduler needed five seconds."""


class LabelStudioSensor(BaseSensorOperator):
    """Wait until people have answered enough of a Label Studio project, or until the deadline; the run goes on in both.

    Args:
        project_url: Address of the project; a template. Only its number is kept while the task waits.
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
            project_path(self.project_url), float(self.share), float(self.poll_interval_s), until.isoformat()
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

    A server that is unavailable is asked again. Its address and the token are read from the environment of the
    triggerer at each request (LABEL_STUDIO_URL, LABEL_STUDIO_API_KEY) and stored nowhere: the server may move during a
    wait.
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
        reached_at = datetime.now(UTC)
        while True:
            try:
                counts = await count_tasks(self.project_url)
            except ConnectionError as error:
                unavailable = str(error)
                self.log.warning("%s; next request in %s s", error, self.poll_interval_s)
            except PermissionError as error:
                return {"error": str(error)}
            else:
                unavailable, reached_at = "", datetime.now(UTC)
                if counts["answered"] >= math.ceil(self.share * counts["tasks"]):
                    return {**counts, "ended_by": "answers"}
            if (now := datetime.now(UTC)) >= until:
                if counts and not (unavailable and now - reached_at > UNREACHED):
                    return {**counts, "ended_by": "deadline"}
                return {"error": f"{unavailable} {NEXT_STEP}"}
            await asyncio.sleep(self.poll_interval_s)


def project_path(project_url: str) -> str:
    """What of a project's address does not change when the server moves: `/projects/7`."""
    return "/projects/" + project_url.rpartition("/projects/")[2]


async def count_tasks(project_url: str) -> dict[str, int]:
    """`answered`: tasks that nobody needs to, or can, answer any more; `tasks`: all tasks of the project.

    Raises:
        ConnectionError: The server is unavailable.
        PermissionError: The server refuses.
    """
    return await asyncio.to_thread(_count_tasks, project_url)


def _count_tasks(project_url: str) -> dict[str, int]:
    # The SDK is slow to import, and DAG files load this module, too.
    from headrace.label.label_studio.client import LabelStudioProject, open_label_studio  # noqa: PLC0415
    from headrace.label.label_studio.errors import LabelStudioError  # noqa: PLC0415
    from headrace.label.label_studio.finished import count_finished  # noqa: PLC0415

    # A wait that an earlier version began has the address that it was started with.
    stored_url, _, number = project_url.rpartition("/projects/")
    url, token = os.environ.get("LABEL_STUDIO_URL", "") or stored_url, os.environ.get("LABEL_STUDIO_API_KEY", "")
    if not url:
        raise PermissionError(f"LABEL_STUDIO_URL is not set in the environment of the triggerer. {NEXT_STEP}")
    try:
        with open_label_studio(url, token, timeout_s=REQUEST_TIMEOUT_S, retry_timeout_s=0) as client:
            answered, tasks = count_finished(client, LabelStudioProject(int(number), ""))
    except LabelStudioError as error:
        if error.is_transient:
            raise ConnectionError(str(error)) from None
        raise PermissionError(f"{error} {NEXT_STEP}") from None
    return {"answered": answered, "tasks": tasks}
