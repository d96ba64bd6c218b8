"""The wait for people: it holds no worker, the triggerer asks Label Studio now and then, with two small requests."""

import asyncio
import json
import math
import os
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowException
from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    import httpx

ASK_S = 30
"""How long one answer of the server may take."""

GRACE = timedelta(minutes=10)
"""The trigger ends the wait by itself; Airflow's own time limit, which fails the task, comes this much later."""


class WaitForAnswers(BaseOperator):
    """Wait until people have answered enough of a Label Studio project, or until the deadline; both are an end.

    Args:
        project: Address of the project; a template.
        share: Share of its tasks that must have as many answers as are wanted, or be skipped; a template.
        hours: How long to wait at most; what has been answered by then goes on. A template.
        poll_s: Seconds between two looks; a template.
    """

    template_fields: Sequence[str] = ("project", "share", "hours", "poll_s")
    ui_color = "#f7efe6"

    def __init__(self, *, project: str, share: str, hours: str, poll_s: str, **settings: Any) -> None:  # noqa: ANN401  Airflow's own
        super().__init__(**settings)
        self.project, self.share, self.hours, self.poll_s = project, share, hours, poll_s

    def execute(self, context: Context) -> None:  # noqa: ARG002  Airflow's own
        """Hand over to the trigger."""
        limit = timedelta(hours=float(self.hours))
        until = datetime.now(UTC) + limit
        self.log.info("waiting for people at %s until %s", self.project, f"{until:%Y-%m-%d %H:%M} UTC")
        trigger = AnswersTrigger(self.project, float(self.share), float(self.poll_s), until.isoformat())
        self.defer(trigger=trigger, method_name="resume", timeout=limit + GRACE)

    def resume(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002  Airflow's own
        """Go on with what the trigger saw.

        Raises:
            AirflowException: The server refused to say.
        """
        if "refused" in event:
            raise AirflowException(event["refused"])
        self.log.info("%(answered)s of %(tasks)s tasks answered or skipped; ended by %(ended_by)s", event)
        return event


class AnswersTrigger(BaseTrigger):
    """Fires once, when enough is answered or time is up. A server that is away is asked again.

    The token is read from the environment of the triggerer (LABEL_STUDIO_API_KEY) and stored nowhere.
    """

    def __init__(self, project: str, share: float, poll_s: float, until: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.project, self.share, self.poll_s, self.until = project, share, poll_s, until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """As Airflow stores it, to make it again in the triggerer."""
        fields = {"project": self.project, "share": self.share, "poll_s": self.poll_s, "until": self.until}
        return f"{__name__}.{type(self).__name__}", fields

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Ask until there is something to say."""
        until = datetime.fromisoformat(self.until)
        seen = {"answered": 0, "tasks": 0}
        while True:
            try:
                seen = await progress(self.project)
            except ConnectionError as error:
                self.log.warning("%s; asked again in %s s", error, self.poll_s)
            except PermissionError as error:
                yield _event({"refused": str(error)})
                return
            else:
                if seen["answered"] >= math.ceil(self.share * seen["tasks"]):
                    yield _event({**seen, "ended_by": "answers"})
                    return
            if datetime.now(UTC) >= until:
                yield _event({**seen, "ended_by": "deadline"})
                return
            await asyncio.sleep(self.poll_s)


async def progress(project: str) -> dict[str, int]:
    """Tasks of the project that nobody need answer any more, and all tasks.

    Raises:
        ConnectionError: The server is away.
        PermissionError: The server refuses.
    """
    import httpx  # noqa: PLC0415  DAG files load this module too

    from pipelines.systems.label_studio_wire import Token  # noqa: PLC0415

    url, _, number = project.rpartition("/projects/")
    auth = Token(os.environ.get("LABEL_STUDIO_API_KEY", ""))
    try:
        async with httpx.AsyncClient(base_url=url, auth=auth, timeout=ASK_S) as client:
            found = await _counted(client, number)
            passed_over = await _passed_over(client, number)
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status >= httpx.codes.INTERNAL_SERVER_ERROR or status == httpx.codes.TOO_MANY_REQUESTS:
            raise ConnectionError(f"Label Studio at {url} answered HTTP {status}") from None
        raise PermissionError(
            f"Label Studio refuses to show {project} (HTTP {status}). Check that the project is there and that "
            "LABEL_STUDIO_API_KEY of the triggerer holds a valid token, then clear this task to wait again."
        ) from None
    except httpx.TransportError as error:
        raise ConnectionError(f"Label Studio at {url} does not answer ({type(error).__name__})") from None
    return {"answered": found["finished_task_number"] + passed_over, "tasks": found["task_number"]}


async def _counted(client: "httpx.AsyncClient", project: str) -> dict[str, int]:
    """All tasks, and those with as many answers as are wanted."""
    content = {"ids": project, "include": "id,task_number,finished_task_number"}
    answer = (await client.get("/api/projects", params=content)).raise_for_status().json()["results"]
    if not answer:
        raise PermissionError(
            f"Label Studio has no project {project}: was it deleted? Send again: clear the first task."
        )
    found: dict[str, int] = answer[0]
    return found


async def _passed_over(client: "httpx.AsyncClient", project: str) -> int:
    """Tasks that were skipped and that nobody answered."""
    items = [_count_of("cancelled_annotations", "greater"), _count_of("total_annotations", "equal")]
    query = json.dumps({"filters": {"conjunction": "and", "items": items}})
    content: dict[str, str | int] = {"project": project, "page_size": 1, "include": "id", "query": query}
    answer = await client.get("/api/tasks/", params=content)
    return int(answer.raise_for_status().json()["total"])


def _event(content: dict[str, Any]) -> TriggerEvent:
    return TriggerEvent(content)  # type: ignore[no-untyped-call]


def _count_of(column: str, operator: str) -> dict[str, Any]:
    """The number in `column` compared with zero."""
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": "Number", "value": 0}
