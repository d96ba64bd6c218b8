"""Real failures of real commands: Airflow retries those that pass by themselves, and fails the others at once."""

# ruff: noqa: PLC0415  Airflow is imported when its home is set, which is where it writes

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from raw_data import days
from servers import free_port
from workspaces import Workspace, git


@pytest.fixture(autouse=True)
def airflow_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow can be imported here."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path_factory.getbasetemp() / "airflow"))


@pytest.fixture(autouse=True)
def in_workspace(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in the workspace of the test."""
    monkeypatch.setenv("HEADRACE_WORKSPACE", str(workspace.root))


def is_retried(task: Any) -> bool:  # noqa: ANN401  an operator
    """Whether Airflow tries the task again, which must fail."""
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    with pytest.raises(AirflowException) as failed:
        task.execute({"outlet_events": {}})
    return not isinstance(failed.value, AirflowFailException)


def command(typed: str) -> Any:  # noqa: ANN401
    from headrace.airflow.headrace_operator import HeadraceOperator

    return HeadraceOperator(task_id="t", command=typed)


def synced() -> Any:  # noqa: ANN401
    from headrace.airflow.headrace_operator import HeadraceOperator

    return HeadraceOperator(task_id="t", command="true", sync_workspace=True)


def test_a_table_that_another_run_holds_is_tried_again(workspace: Workspace) -> None:
    workspace.raw.add_days(*days(1, 1))

    with workspace.table_store.lock_table("validated/flights/flights"):
        assert is_retried(command("headrace validate flights --table flights --json"))


@pytest.mark.slow_lane
def test_a_server_that_does_not_answer_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{nobody}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "HEADRACE_DATABASE_URL": f"postgresql+psycopg://reader:password@{nobody}/source",
        "LABEL_STUDIO_URL": f"http://{nobody}",
        "LABEL_STUDIO_API_KEY": "token",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = command("headrace ingest flights --table flights --json")
    database = command("headrace ingest flights --table weather --json")
    label_studio = command("headrace label progress flights --json")

    with ThreadPoolExecutor(3) as pool:  # each command asks again for half a minute first
        retried = list(pool.map(is_retried, (bucket, database, label_studio)))

    assert retried == [True, True, True]


@pytest.mark.parametrize(
    "typed",
    [
        "headrace plan nope",  # no such dataset
        "headrace ingest flights --table flights",  # no credentials
        "headrace ingest flights --table weather --json",  # no address of the database
        "headrace validate flights --tabel flights",  # wrong usage
    ],
)
def test_what_a_person_must_fix_fails_at_once(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    monkeypatch.setenv("HEADRACE_BUCKET", workspace.bucket)
    monkeypatch.setenv("AWS_ENDPOINT_URL", workspace.remote.endpoint)

    assert not is_retried(command(typed))


# The workspace and its origin


def test_a_workspace_that_has_commits_of_its_own_is_not_synced_and_not_tried_again(workspace: Workspace) -> None:
    other = workspace.clone("other")
    for root in (workspace.root, other.root):
        (root / "params.yaml").write_text(f"# {root.name}\n")
        git(root, "commit", "--quiet", "--all", "--message", "A change")
    git(other.root, "push", "--quiet", "origin", "main")

    assert not is_retried(synced())


def test_an_origin_that_does_not_answer_is_tried_again(workspace: Workspace) -> None:
    git(workspace.root, "remote", "set-url", "origin", f"http://127.0.0.1:{free_port()}/origin.git")

    assert is_retried(synced())


def test_an_origin_that_is_not_there_fails_at_once(workspace: Workspace, tmp_path: Path) -> None:
    git(workspace.root, "remote", "set-url", "origin", str(tmp_path / "nowhere.git"))

    assert not is_retried(synced())


def test_two_pulls_that_meet_in_one_clone_are_tried_again(workspace: Workspace) -> None:
    lock = workspace.root / ".git" / "refs" / "remotes" / "origin" / "main.lock"
    other = workspace.clone("other")
    (other.root / "params.yaml").write_text("# other\n")
    git(other.root, "commit", "--quiet", "--all", "--message", "A change")
    git(other.root, "push", "--quiet", "origin", "main")
    lock.touch()

    assert is_retried(synced())


# DVC


def test_a_dvc_that_another_one_keeps_waiting_is_tried_again_and_a_stage_that_fails_is_not(
    workspace: Workspace,
) -> None:
    from headrace.airflow.training import training_dag

    (workspace.root / "dvc.yaml").write_text("stages:\n  train:\n    cmd: exit ${code}\n    outs: [nothing]\n")

    def train(code: int) -> Any:  # noqa: ANN401
        task: Any = training_dag("flights", stage="train", metrics="metrics.json").get_task("train")
        task.render_template_fields({"run_id": f"exit-{code}"})
        return task

    params = (workspace.root / "params.yaml").read_text()

    def exits(code: int) -> bool:
        (workspace.root / "params.yaml").write_text(f"{params}code: {code}\n")
        workspace.publish_code(f"Exit with {code}")
        return is_retried(train(code))

    assert exits(75)
    assert not exits(1)
    with holding_dvc(workspace.root / ".headrace/runs/flights/exit-1"):
        assert is_retried(train(1))


@contextmanager
def holding_dvc(root: Path) -> Iterator[None]:
    """Hold the lock of DVC in a workspace."""
    hold = "from dvc.repo import Repo; repo = Repo('.'); repo.lock.lock(); print('held', flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", hold], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
    )  # fmt: skip
    with process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        try:
            yield
        finally:
            process.communicate("\n")
