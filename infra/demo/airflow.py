"""Airflow through its REST API, as any script would use it: trigger a run, follow it, ask what it found."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from infra.demo.errors import DemoError

Json = dict[str, Any]
ENDED = ("success", "failed")
BROKEN = ("failed", "upstream_failed", "up_for_retry")
"""The servers of the demo are its own: what fails once is told at once, not tried again for minutes."""
POLL_S = 0.5
PARSE_S = 120
RUN_S = 600
LAST_LINES = 25


@dataclass(frozen=True)
class Task:
    """A task of a run, as it stands."""

    id: str
    title: str
    state: str
    seconds: float
    attempt: int


@dataclass(frozen=True)
class Run:
    """A run of a DAG."""

    dag: str
    id: str


class TaskFailedError(DemoError):
    """A task failed; with the end of its log."""


@dataclass(frozen=True)
class Airflow:
    """A running Airflow, and an account on it."""

    client: httpx.Client
    logs: Path

    @classmethod
    def of(cls, env: Mapping[str, str], logs: Path) -> "Airflow":
        """That of a running stack, by its `stack.env`."""
        url = env["HEADRACE_AIRFLOW_URL"]
        account = {"username": env["HEADRACE_AIRFLOW_USER"], "password": env["HEADRACE_AIRFLOW_PASSWORD"]}
        token = httpx.post(f"{url}/auth/token", json=account, timeout=60).raise_for_status().json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        return cls(httpx.Client(base_url=f"{url}/api/v2", headers=headers, timeout=60), logs)

    def wait_for_dags(self, names: Iterable[str]) -> None:
        """Until the DAG processor has read them all.

        Raises:
            DemoError: It has not within two minutes; with what it could not import.
        """
        wanted, until = set(names), time.monotonic() + PARSE_S
        while missing := wanted - {item["dag_id"] for item in self._get("dags")["dags"]}:
            errors = [item["stack_trace"] for item in self._get("importErrors")["import_errors"]]
            if errors or time.monotonic() > until:
                raise DemoError(
                    f"Airflow does not know the DAGs {', '.join(sorted(missing))}: expected them within {PARSE_S} s."
                    f"\n{''.join(errors)}\nThe log: {self.logs / 'dag_processor'}"
                )
            time.sleep(POLL_S)

    def pause(self, dag: str, *, paused: bool = True) -> None:
        """Stop (or let) the DAG be started by its schedule."""
        self._ask("PATCH", f"dags/{dag}", {"is_paused": paused})

    def trigger(self, dag: str, **params: Any) -> Run:  # noqa: ANN401  any JSON
        """Start a run."""
        made = self._ask("POST", f"dags/{dag}/dagRuns", {"logical_date": None, "conf": params})
        return Run(dag, made["dag_run_id"])

    def next_run(self, dag: str, *, within_s: float = 60) -> Run:
        """The newest run of a DAG that something else starts.

        Raises:
            DemoError: Nothing started one.
        """
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            if runs := self._get(f"dags/{dag}/dagRuns", order_by="-id", limit=1)["dag_runs"]:
                return Run(dag, runs[0]["dag_run_id"])
            time.sleep(POLL_S)
        raise DemoError(f"{dag}: expected a run within {within_s:.0f} s, seen none. Look at {self.client.base_url}.")

    def follow(self, run: Run, tell: Callable[[list[Task]], None]) -> None:
        """Tell how its tasks stand until it has ended.

        Raises:
            TaskFailedError: A task of it failed.
        """
        for tasks in self.steps(run):
            tell(tasks)

    def steps(self, run: Run) -> Iterator[list[Task]]:
        """Its tasks, again and again, until it has ended.

        Raises:
            TaskFailedError: A task of it failed.
        """
        until = time.monotonic() + RUN_S
        while time.monotonic() < until:
            state = self._get(f"dags/{run.dag}/dagRuns/{run.id}")["state"]
            tasks = self.tasks(run)
            yield tasks
            if broken := [task for task in tasks if task.state in BROKEN]:
                raise TaskFailedError(self._why(run, broken[0]))
            if state in ENDED:
                return
            time.sleep(POLL_S)
        raise DemoError(f"{run.dag}: expected an end within {RUN_S} s, seen none. Its logs: {self._folder(run)}")

    def tasks(self, run: Run) -> list[Task]:
        """Its tasks, those that ran first come first."""
        found = self._get(f"dags/{run.dag}/dagRuns/{run.id}/taskInstances")["task_instances"]
        found.sort(key=lambda item: item["start_date"] or "9999")
        return [
            Task(
                item["task_id"],
                item["task_display_name"],
                item["state"] or "waiting",
                item["duration"] or 0.0,
                item["try_number"],
            )
            for item in found
        ]

    def found(self, run: Run, task: str) -> Any:  # noqa: ANN401  any JSON
        """What a task of the run returned."""
        path = f"dags/{run.dag}/dagRuns/{run.id}/taskInstances/{task}/xcomEntries/return_value"
        return self._get(path, deserialize=True)["value"]

    def approve(self, run: Run, task: str) -> None:
        """Say yes where a run asks a person."""
        path = f"dags/{run.dag}/dagRuns/{run.id}/taskInstances/{task}/-1/hitlDetails"
        self._ask("PATCH", path, {"chosen_options": ["Accept"], "params_input": {}})

    def asset_events(self) -> list[Json]:
        """What the assets have told, oldest first."""
        found: list[Json] = self._get("assets/events", order_by="timestamp", limit=100)["asset_events"]
        return found

    def _folder(self, run: Run) -> Path:
        return self.logs / f"dag_id={run.dag}" / f"run_id={run.id}"

    def _why(self, run: Run, task: Task) -> str:
        log = self._folder(run) / f"task_id={task.id}" / f"attempt={max(task.attempt, 1)}.log"
        shown = self._get(f"dags/{run.dag}/dagRuns/{run.id}/taskInstances/{task.id}/logs/{max(task.attempt, 1)}")
        lines = [line for item in shown["content"] for line in _said(item)]
        ending = "\n".join(f"  | {line}" for line in lines[-LAST_LINES:])
        return f"{run.dag}: the task {task.id} ({task.title}) failed. The end of its log:\n{ending}\nThe log: {log}"

    def _get(self, path: str, **query: Any) -> Json:  # noqa: ANN401  httpx's own
        return self._ask("GET", path, None, query)

    def _ask(self, method: str, path: str, body: Json | None = None, query: Json | None = None) -> Json:
        answer = self.client.request(method, path, json=body, params=query)
        if answer.is_error:
            raise DemoError(
                f"Airflow refuses {method} {answer.request.url.path}: {answer.status_code} {answer.text[:500]}"
            )
        content: Json = answer.json()
        return content


def _said(item: Json) -> list[str]:
    """An entry of a task's log, with the error that it tells of; marks that fold lines in the UI are left out."""
    errors = [f"{error['exc_type']}: {error['exc_value']}" for error in item.get("error_detail") or ()]
    lines = [str(item.get("event", "")), *errors]
    return [line for line in lines if not line.startswith("::")]
