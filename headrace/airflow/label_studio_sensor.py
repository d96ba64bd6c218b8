"""The wait for people: it holds no worker, the triggerer asks Label Studio now and then, with a few small requests."""

import asyncio
import math
import os
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowException
from airflow.triggers.base import BaseTrigger, TriggerEvent

ASK_S = 30
"""How long one answer of the server may take."""

MEND = "The token is LABEL_STUDIO_API_KEY of the triggerer; once it is mended, clear this task to wait again."

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
    """Tasks of the project that nobody need, or can, answer any more, and all tasks.

    Raises:
        ConnectionError: The server is away.
        PermissionError: The server refuses.
    """
    return await asyncio.to_thread(_counted, project)


def _counted(project: str) -> dict[str, int]:
    from headrace.label.label_studio.client import Project, opened  # noqa: PLC0415  DAG files load this module too
    from headrace.label.label_studio.http import LabelStudioError, LostAnswerError, RefusedError  # noqa: PLC0415
    from headrace.label.label_studio.progress import progress as counted  # noqa: PLC0415

    url, _, number = project.rpartition("/projects/")
    try:
        with opened(url, os.environ.get("LABEL_STUDIO_API_KEY", ""), timeout_s=ASK_S, patience_s=0) as server:
            answered, tasks = counted(server, Project(int(number), ""))
    except LostAnswerError as error:
        raise ConnectionError(str(error)) from None
    except RefusedError as error:
        if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise ConnectionError(str(error)) from None
        raise PermissionError(f"{error} {MEND}") from None
    except LabelStudioError as error:
        raise PermissionError(f"{error} {MEND}") from None
    return {"answered": answered, "tasks": tasks}


def _event(content: dict[str, Any]) -> TriggerEvent:
    return TriggerEvent(content)  # type: ignore[no-untyped-call]
