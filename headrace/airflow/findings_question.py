"""What a guard found, as a question to a person: *Required Actions* in Airflow.

The refused task itself waits, in the state `awaiting_input`, which occupies no worker. So a DAG has no task for it, and
a run without findings never waits.
"""

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from airflow.sdk import Context, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskAwaitingInput

ACCEPT, REFUSE = "Accept", "Refuse"
RESPONSE_TIMEOUT = timedelta(days=1)
MIN_RESPONSE = timedelta(minutes=15)
"""What a person has at least, on a schedule of many runs an hour or shortly before the next run."""

SHOWN = 30
"""Findings that the question names."""

HELP = """
Find out why first. Where it is repaired at its source, or is no mistake of the source at all, choose:

- **Accept**, if it is intended: your reason is kept with the release, and the step is run again.
- **Refuse** otherwise: the run fails, and nothing was changed. The next run looks again.

The question ends after a day, or when the next run of the schedule is due: that run looks again, and asks if it must.
"""
REASON = Param(
    "", type="string", minLength=1, title="Why", description="It is recorded with the decision, in git: name nobody."
)

RefusedStep = Mapping[str, Any]
"""The error of a refused command as it prints it: `dataset`, `findings`, `consequence`, `message`."""


def ask(context: Context, refused: RefusedStep, method_name: str) -> NoReturn:
    """Ask about the findings, and have the task wait; the answer goes to its method `method_name`.

    Raises:
        TaskAwaitingInput: Always: it is how a task says that it waits.
    """
    from airflow.sdk.execution_time.hitl import upsert_hitl_detail  # noqa: PLC0415  no DAG file pays for it

    upsert_hitl_detail(
        ti_id=context["task_instance"].id,
        options=[ACCEPT, REFUSE],
        subject=f"{refused['dataset']}: accept what was found?",
        body=describe(refused),
        params={"reason": REASON.serialize()},
    )
    schedule = getattr(context["task"].dag, "schedule", None)
    timeout = response_timeout(getattr(schedule, "expression", ""), datetime.now(UTC))
    raise TaskAwaitingInput(method_name=method_name, kwargs={"refused": dict(refused)}, timeout=timeout)


def response_timeout(schedule: str, now: datetime) -> timedelta:
    """How long a question waits: until the next run is due, which the waiting one would hold up, or a day.

    Args:
        schedule: When the DAG runs: a cron expression in UTC; empty for never by itself.
        now: The time.
    """
    if not schedule:
        return RESPONSE_TIMEOUT
    from croniter import croniter  # noqa: PLC0415  what Airflow reads the expression with; no DAG file pays for it

    due: datetime = croniter(schedule, now).get_next(datetime)
    return min(RESPONSE_TIMEOUT, max(MIN_RESPONSE, due - now))


def describe(refused: RefusedStep) -> str:
    """Markdown: the findings, what refusing means, and what the choices do."""
    findings: Sequence[Mapping[str, str]] = refused["findings"]
    lines = [f"- `{each['check']}` {each['text']}" for each in findings[:SHOWN]]
    if len(findings) > SHOWN:
        lines.append(f"- and {len(findings) - SHOWN:,} more, which `headrace status {refused['dataset']}` shows")
    return "\n".join((*lines, "", refused["consequence"], HELP))


def accept_command(command: str, refused: RefusedStep, answer: Mapping[str, Any]) -> str:
    """The command that records what a person answered about the findings of `command`.

    Args:
        command: The refused command; the acceptance is for the same run.
        refused: Its error.
        answer: As Airflow gives it.

    Raises:
        AirflowException: The answer has no reason; Airflow asks again.
        AirflowFailException: The findings are refused, or nobody answered.
    """
    if "error" in answer:
        late = "Nobody answered within a day, or before the next run was due, which looks again"
        who = late if answer.get("error_type") == "timeout" else str(answer["error"])
        raise AirflowFailException(f"{who}: the findings stay. {refused['message']}")
    person = (answer.get("responded_by_user") or {}).get("name") or "Airflow"
    reason = ((answer.get("params_input") or {}).get("reason") or "").strip()
    if ACCEPT not in answer["chosen_options"]:
        raise AirflowFailException(
            f"{person} refused the findings{f' ({reason})' if reason else ''}. {refused['message']}"
        )
    if not reason:
        raise AirflowException(f"{person} accepted the findings without a reason. Airflow asks again.")
    words = shlex.split(command)
    run = words[words.index("--run") :][:2] if "--run" in words else []
    ids = [each["id"] for each in refused["findings"]]
    # A name or reason may begin with a dash.
    options = (f"--reason={reason}", f"--by={person}", *run, "--json")
    return shlex.join(("headrace", "accept", refused["dataset"], *ids, *options))
