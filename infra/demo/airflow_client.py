"""Airflow through its REST API, as any script would use it: trigger a DAG run, follow it, read its results."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from infra.demo.errors import DemoError

Json = dict[str, Any]
FINISHED = ("success", "failed")
BROKEN = ("failed", "upstream_failed", "up_for_retry")
"""The demo's servers are its own: a task that fails once is reported at once, not retried for minutes."""
POLL_S = 0.5
PARSE_TIMEOUT_S = 120
RUN_TIMEOUT_S = 600
LOG_TAIL_LINES = 25


@dataclass(frozen=True)
class TaskInstance:
    """A task of a DAG run."""

    id: str
    title: str
    state: str
    duration_s: float
    attempt: int

    @property
    def name(self) -> str:
        """Its id without the task group."""
        return self.id.rsplit(".", 1)[-1]


@dataclass(frozen=True)
class DagRun:
    """A run of a DAG."""

    dag: str
    id: str


class TaskFailedError(DemoError):
    """A task failed; the message has the end of its log."""


@dataclass(frozen=True)
class AirflowClient:
    """A running Airflow, with a login."""

    client: httpx.Client
    logs: Path

    @classmethod
    def connect(cls, env: Mapping[str, str], logs: Path) -> "AirflowClient":
        """The Airflow of a running stack, by its `stack.env`."""
        url = env["HEADRACE_AIRFLOW_URL"]
        login = {"username": env["HEADRACE_AIRFLOW_USER"], "password": env["HEADRACE_AIRFLOW_PASSWORD"]}
        token = httpx.post(f"{url}/auth/token", json=login, timeout=60).raise_for_status().json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        return cls(httpx.Client(base_url=f"{url}/api/v2", headers=headers, timeout=60), logs)

    def wait_for_dags(self, names: Iterable[str]) -> None:
        """Wait until the DAG processor has parsed them all.

        Raises:
            DemoError: It has not within two minutes; with the import errors.
        """
        wanted, deadline = set(names), time.monotonic() + PARSE_TIMEOUT_S
        while missing := wanted - {item["dag_id"] for item in self._get("dags")["dags"]}:
            errors = [item["stack_trace"] for item in self._get("importErrors")["import_errors"]]
            if errors or time.monotonic() > deadline:
                raise DemoError(
                    f"Airflow does not know the DAGs {', '.join(sorted(missing))}: expected them within "
                    f"{PARSE_TIMEOUT_S} s.\n{''.join(errors)}\nThe log: {self.logs / 'dag_processor'}"
                )
            time.sleep(POLL_S)

    def pause(self, dag: str, *, paused: bool = True) -> None:
        """Pause a DAG, or unpause it."""
        self._request("PATCH", f"dags/{dag}", {"is_paused": paused})

    def trigger(self, dag: str, **params: Any) -> DagRun:  # noqa: ANN401  any JSON
        """Start a run."""
        created = self._request("POST", f"dags/{dag}/dagRuns", {"logical_date": None, "conf": params})
        return DagRun(dag, created["dag_run_id"])

    def wait_for_dag_run(self, dag: str, *, timeout_s: float = 60) -> DagRun:
        """The newest run of a DAG that something else starts.

        Raises:
            DemoError: Nothing started one.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if runs := self._get(f"dags/{dag}/dagRuns", order_by="-id", limit=1)["dag_runs"]:
                return DagRun(dag, runs[0]["dag_run_id"])
            time.sleep(POLL_S)
        raise DemoError(f"{dag}: expected a run within {timeout_s:.0f} s, found none. See {self.client.base_url}.")

    def follow(self, run: DagRun, on_tasks: Callable[[list[TaskInstance]], None]) -> None:
        """Report its tasks until it has finished.

        Raises:
            TaskFailedError: A task of it failed.
        """
        for tasks in self.poll_tasks(run):
            on_tasks(tasks)

    def poll_tasks(self, run: DagRun) -> Iterator[list[TaskInstance]]:
        """Its tasks, again and again, until it has finished.

        Raises:
            TaskFailedError: A task of it failed.
        """
        deadline = time.monotonic() + RUN_TIMEOUT_S
        while time.monotonic() < deadline:
            state = self._get(f"dags/{run.dag}/dagRuns/{run.id}")["state"]
            tasks = self.tasks(run)
            yield tasks
            if broken := [task for task in tasks if task.state in BROKEN]:
                raise TaskFailedError(self._failure_message(run, broken[0]))
            if state in FINISHED:
                return
            time.sleep(POLL_S)
        raise DemoError(f"{run.dag} did not finish within {RUN_TIMEOUT_S} s. Its logs: {self._log_folder(run)}")

    def tasks(self, run: DagRun) -> list[TaskInstance]:
        """Its tasks in the order in which they started."""
        items = self._get(f"dags/{run.dag}/dagRuns/{run.id}/taskInstances")["task_instances"]
        items.sort(key=lambda item: item["start_date"] or "9999")
        return [
            TaskInstance(
                item["task_id"],
                item["task_display_name"],
                item["state"] or "waiting",
                item["duration"] or 0.0,
                item["try_number"],
            )
            for item in items
        ]

    def task_result(self, run: DagRun, task: str) -> Any:  # noqa: ANN401  any JSON
        """What a task of the run returned."""
        path = f"dags/{run.dag}/dagRuns/{run.id}/taskInstances/{task}/xcomEntries/return_value"
        return self._get(path, deserialize=True)["value"]

    def question(self, run: DagRun, task: str) -> Json:
        """What a run asks a person."""
        return self._get(_question_path(run, task))

    def approve(self, run: DagRun, task: str, **answers: str) -> None:
        """Accept where a run asks a person."""
        self._request("PATCH", _question_path(run, task), {"chosen_options": ["Accept"], "params_input": answers})

    def asset_events(self) -> list[Json]:
        """Events of all assets, oldest first."""
        events: list[Json] = self._get("assets/events", order_by="timestamp", limit=100)["asset_events"]
        return events

    def _log_folder(self, run: DagRun) -> Path:
        return self.logs / f"dag_id={run.dag}" / f"run_id={run.id}"

    def _failure_message(self, run: DagRun, task: TaskInstance) -> str:
        attempt = max(task.attempt, 1)
        log = self._log_folder(run) / f"task_id={task.id}" / f"attempt={attempt}.log"
        content = self._get(f"dags/{run.dag}/dagRuns/{run.id}/taskInstances/{task.id}/logs/{attempt}")["content"]
        lines = [line for entry in content for line in _log_lines(entry)]
        tail = "\n".join(f"  | {line}" for line in lines[-LOG_TAIL_LINES:])
        return f"{run.dag}: the task {task.id} ({task.title}) failed. The end of its log:\n{tail}\nThe log: {log}"

    def _get(self, path: str, **query: Any) -> Json:  # noqa: ANN401  httpx's own
        return self._request("GET", path, None, query)

    def _request(self, method: str, path: str, body: Json | None = None, query: Json | None = None) -> Json:
        response = self.client.request(method, path, json=body, params=query)
        if response.is_error:
            raise DemoError(
                f"Airflow rejected {method} {response.request.url.path}: {response.status_code} {response.text[:500]}"
            )
        content: Json = response.json()
        return content


def _question_path(run: DagRun, task: str) -> str:
    return f"dags/{run.dag}/dagRuns/{run.id}/taskInstances/{task}/-1/hitlDetails"


def _log_lines(entry: Json) -> list[str]:
    """An entry of a task's log with its errors; the marks that fold lines in the UI are left out."""
    errors = [f"{error['exc_type']}: {error['exc_value']}" for error in entry.get("error_detail") or ()]
    lines = [str(entry.get("event", "")), *errors]
    return [line for line in lines if not line.startswith("::")]
