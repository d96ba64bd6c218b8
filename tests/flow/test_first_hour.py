"""The first hour of a new user, with real servers: from `make up` to an own dataset that breaks and is repaired.

`make up` is `headrace stack up` in the environment that it makes; here without Label Studio, which nothing here needs.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
import psutil
import pytest
from workspaces import REPOSITORY, copy_working_tree, git

from headrace.stack import control
from headrace.stack.paths import StackPaths
from infra.demo.airflow_client import AirflowClient, DagRun, TaskFailedError, TaskInstance
from infra.demo.seed_sources import stack_s3

pytestmark = [pytest.mark.slow_lane, pytest.mark.timeout(1500)]

TUTORIAL = REPOSITORY / "docs/add-your-dataset.md"
KERNEL = "pipelines/sales/features/shop_turnover.py"
DAYS = ("2026-01-01", "2026-01-02")
MORE_DAYS = ("2026-01-03", "2026-01-04", "2026-01-05", "2026-01-06")
ORDERS = "order_id,shop,ordered_at,amount\n{number}1,east,{day}T09:00:00Z,10.10\n{number}2,west,{day}T10:00:00Z,20.20\n"


@dataclass(frozen=True)
class User:
    """A person with a clone, a shell and a browser."""

    clone: Path
    airflow: AirflowClient

    def type(self, *words: str, code: int = 0, workspace: Path | None = None) -> str:
        """What a command prints, typed in the clone, in a shell without any setting of the stack."""
        return type_in(workspace or self.clone, *words, code=code)

    def commit(self, message: str) -> str:
        git(self.clone, "add", "--all")
        git(self.clone, "commit", "--quiet", "--message", message)
        return git(self.clone, "rev-parse", "HEAD")

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.clone / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    def refresh(self, dataset: str) -> DagRun:
        """Trigger the DAG and follow it to its end."""
        run = self.airflow.trigger(f"{dataset}_refresh")
        self.airflow.follow(run, lambda _tasks: None)
        return run

    def log(self, run: DagRun, task: str, attempt: int = 1) -> str:
        path = f"dags/{run.dag}/dagRuns/{run.id}/taskInstances/{task}/logs/{attempt}"
        content = self.airflow.client.get(path).raise_for_status().json()["content"]
        return "\n".join(str(entry.get("event", "")) for entry in content)


def type_in(folder: Path, *words: str, code: int = 0) -> str:
    tools = Path(sys.executable).parent
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "HEADRACE_", "FEAST_"))}
    env = {**kept, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    folder = copy_working_tree(tmp_path / "clone")
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "The repository")
    yield folder
    control.down(folder / ".headrace")


def test_from_make_up_to_a_dataset_that_breaks_and_is_repaired(clone: Path) -> None:
    up = type_in(clone, "headrace", "stack", "up", "--only", "dask,airflow")
    env = control.read_env(StackPaths(clone / ".headrace"))
    user = User(clone, AirflowClient.connect(env, clone / ".headrace/logs/airflow"))
    assert f'Runs work on the last commit of {clone}: {git(clone, "rev-parse", "HEAD")[:10]} "The repository".' in up
    with user.airflow.client:
        see_the_demo(user)
        add_a_dataset(user, env)
        edit_a_kernel(user)
        break_and_repair_it(user)
        kill_the_runner_of_a_task(user, env)
        lose_most_days_and_accept_that(user, env)
        bring_the_releases_home(user)


def see_the_demo(user: User) -> None:
    assert "flights of 2013-01-01 to 2013-01-03" in user.type("headrace", "demo", "load", "--days", "3")
    user.airflow.wait_for_dags(["flights_refresh", "digits_refresh"])
    logs_while_running: list[str] = []
    run = user.airflow.trigger("flights_refresh")

    def look(tasks: list[TaskInstance]) -> None:
        running = [task for task in tasks if task.state == "running" and task.name in ("ingest", "validate")]
        logs_while_running.extend(user.log(run, task.id) for task in running)

    user.airflow.follow(run, look)

    assert any(re.search("headrace (ingest|validate) flights", log) for log in logs_while_running), logs_while_running
    log = user.log(run, "tables.validate")
    assert re.search(r"validated/flights/flights: 3 computed \(2013-01-01, 2013-01-02, 2013-01-03\)", log)
    assert '"stages"' not in log, "people read lines, programs XCom"


def add_a_dataset(user: User, env: Mapping[str, str]) -> None:
    files = re.findall(
        r"`(pipelines/\S+?\.py)`(?:(?!```).)*?```python\n(.*?)```", TUTORIAL.read_text("utf-8"), re.DOTALL
    )
    for path, code in files:
        file = user.clone / path
        file.parent.mkdir(parents=True, exist_ok=True)
        (file.parent / "__init__.py").touch()
        file.write_text(code)
    put_orders(env, *DAYS)
    user.type("headrace", "dvc-sync")
    typed = user.type("headrace", "run", "sales")
    user.commit("Sales")
    user.airflow.wait_for_dags(["sales_refresh"])
    run = user.refresh("sales")

    assert "features/sales/shop_turnover: 2 computed (2026-01-01, 2026-01-02)" in typed, "before the commit"
    assert user.airflow.task_result(run, "release.release")["name"] == "sales/1"
    dag = user.airflow.client.get("dags/sales_refresh").json()
    assert (dag["owners"], dag["description"]) == (["shops"], "Orders of our shops.")


def edit_a_kernel(user: User) -> None:
    user.edit(KERNEL, "cents / 100)", "cents / 100 + 1)")
    typed = user.type("headrace", "run", "sales")
    before = user.refresh("sales")
    newest = user.commit("A euro more")
    after = user.refresh("sales")

    assert "features/sales/shop_turnover: 2 computed" in typed, "the shell runs what is edited"
    assert f"Uncommitted changes are not in the run: {KERNEL}." in user.log(before, "start_run")
    assert computed(user, before) == []
    assert f'The run works on the last commit of {user.clone}: {newest[:10]} "A euro more".' in user.log(
        after, "start_run"
    )
    assert computed(user, after) == list(DAYS)
    assert user.airflow.task_result(after, "release.release")["name"] == "sales/2"


def computed(user: User, run: DagRun) -> list[str]:
    """Partitions of the feature table that a run computed."""
    return [day for stage in user.airflow.task_result(run, "tables.transform")["stages"] for day in stage["computed"]]


def break_and_repair_it(user: User) -> None:
    user.edit(KERNEL, "    week = orders", "    raise ValueError('no such shop')\n    week = orders")
    user.commit("Break it")
    with pytest.raises(TaskFailedError) as failure:
        user.refresh("sales")
    typed = user.type("headrace", "run", "sales", code=1)

    for message in (str(failure.value), typed):
        assert "shop_turnover" in message
        assert "2026-01-01" in message
        assert "no such shop" in message
        assert "Traceback" not in message
    assert "A retry would give the same answer" in str(failure.value)
    git(user.clone, "revert", "--no-edit", "HEAD")
    assert user.airflow.task_result(user.refresh("sales"), "release.release")["name"] == "sales/2", "as it was"


def kill_the_runner_of_a_task(user: User, env: Mapping[str, str]) -> None:
    put_orders(env, *MORE_DAYS)
    run = user.airflow.trigger("sales_refresh")
    ingest = wait_for(lambda: next(processes_of("headrace ingest sales", run), None), 120)
    runner = ingest.parent() if ingest else None
    assert runner
    runner.kill()

    def ended() -> list[TaskInstance]:
        tasks = user.airflow.tasks(run)
        assert not [task for task in tasks if task.state in ("failed", "upstream_failed")]
        return [task for task in tasks if task.id == "release.publish" and task.state == "success"]

    wait_for(ended, 300)
    attempts = {task.id: task.attempt for task in user.airflow.tasks(run)}
    assert attempts["tables.ingest"] > 1, "Airflow tried it again"
    assert user.airflow.task_result(run, "release.release")["name"] == "sales/3"


def processes_of(command: str, run: DagRun) -> Iterator[psutil.Process]:
    """The processes of a task's command."""
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if command in line and run.id in line:
            yield process


T = TypeVar("T")


def wait_for(look: Callable[[], T], timeout_s: float) -> T:
    """What `look` finds, as soon as it finds something."""
    until = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < until, f"nothing within {timeout_s} s"
        time.sleep(0.02)
    return found


def put_orders(env: Mapping[str, str], *days: str) -> None:
    for day in days:
        body = ORDERS.format(day=day, number=int(day[-2:])).encode()
        stack_s3(env).put_object(Bucket=env["HEADRACE_BUCKET"], Key=f"orders/{day}.csv", Body=body)


def lose_most_days_and_accept_that(user: User, env: Mapping[str, str]) -> None:
    for day in MORE_DAYS:
        stack_s3(env).delete_object(Bucket=env["HEADRACE_BUCKET"], Key=f"orders/{day}.csv")
    run = user.airflow.trigger("sales_refresh")
    wait_for(lambda: [each for each in user.airflow.tasks(run) if each.state == "awaiting_input"], 120)
    shown = json.loads(
        user.type("headrace", "-q", "status", "sales", "--json", workspace=user.clone / ".headrace/workspace")
    )
    time.sleep(3)  # Airflow 3.3 fails a task that is answered within a moment of its question

    question = user.airflow.question(run, "tables.ingest")
    user.airflow.approve(run, "tables.ingest", reason="archived")
    user.airflow.follow(run, lambda _tasks: None)

    assert "4 of 6 partitions would vanish (2026-01-03, 2026-01-04, 2026-01-05, …)" in question["body"]
    assert [each["check"] for each in shown["findings"]] == ["vanished"]
    released = user.airflow.task_result(run, "release.release")
    assert released["name"] == "sales/4"
    assert [each["reason"] for each in released["accepted"]] == ["archived"]


def bring_the_releases_home(user: User) -> None:
    git(user.clone, "checkout", "--quiet", "--", ".")
    user.type("git", "pull", "--quiet", "--tags", ".headrace/origin.git", "main")

    assert {"flights/1", "sales/1", "sales/2", "sales/3", "sales/4"} <= set(git(user.clone, "tag").split())
    head, until = git(user.clone, "rev-parse", "HEAD"), time.monotonic() + 30
    status = json.loads(user.type("headrace", "stack", "status", "--json"))
    while status["commit"] != head and time.monotonic() < until:  # the stack follows the clone a moment later
        status = json.loads(user.type("headrace", "stack", "status", "--json"))
    assert status["commit"] == head
    login = {"username": "admin", "password": "wrong"}
    assert httpx.post(f"{status['endpoints']['Airflow']}/auth/token", json=login).is_error
