"""Which project a stack serves: that of the current folder, with the installed engine and the project's declarations.

The projects here hold no engine, or one that must not run.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

import headrace
from headrace.settings import Settings
from headrace.stack import control
from headrace.stack.config import StackConfig, load_config
from headrace.stack.environment import find_program
from headrace.stack.errors import NotInstalledError, StackError
from headrace.stack.label_studio_environment import LabelStudioEnvironment
from headrace.stack.paths import StackPaths
from headrace.stack.process import process_tree, still_running
from headrace.stack.servers import label_studio, s3
from headrace.stack.state import read_state

pytestmark = pytest.mark.server

ENGINE = Path(headrace.__file__).parents[1]
HEADRACE = Path(sys.executable).with_name("headrace")
BASE = ("s3", "postgres")


def new_project(folder: Path) -> Path:
    """A project of three files, committed."""
    (folder / "pipelines").mkdir(parents=True)
    (folder / "pipelines" / "__init__.py").touch()
    (folder / "dvc.yaml").write_text("stages: {}\n")
    (folder / "README").write_text("A project.\n")
    git(folder, "init", "--quiet", "--initial-branch", "main")
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "-c", "user.name=A", "-c", "user.email=a@example.com", "commit", "--quiet", "--message", "A project")


def git(folder: Path, *arguments: str) -> str:
    return subprocess.check_output(["git", "-C", folder, *arguments], text=True).strip()


def stack(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """`headrace stack` as typed in a folder."""
    env = {**os.environ, "PYTHONPATH": str(ENGINE)}
    done = subprocess.run(
        [HEADRACE, "stack", *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def status(folder: Path, code: int = 0) -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads(stack(folder, "status", "--json", code=code).stdout)
    return content


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    folder = new_project(tmp_path / "project")
    yield folder
    control.down(folder / ".headrace")


def test_a_project_that_contains_no_engine_has_a_stack_of_its_own(project: Path) -> None:
    printed = stack(project / "pipelines", "up", "--only", "s3,postgres")

    found = status(project)
    settings = Settings(_env_file=project / ".headrace" / "stack.env")
    assert settings.database_url
    with psycopg.connect(settings.database_url.get_secret_value().replace("+psycopg", "")) as connection:
        database = connection.execute("SELECT current_database()").fetchone()

    assert f"serves {project} with s3, postgres" in printed.stdout
    assert (found["home"], found["project"]) == (str(project / ".headrace"), str(project))
    assert found["healthy"]
    assert [server["name"] for server in found["servers"]] == ["s3", "postgres"]
    assert found["endpoints"]["S3"] == settings.s3_endpoint
    assert database == ("source",)


def test_git_does_not_see_the_folder_of_the_stack_nor_what_it_writes_into_the_workspace(project: Path) -> None:
    stack(project, "up", "--only", "workspace")

    assert git(project, "status", "--porcelain") == ""
    assert git(project / ".headrace" / "workspace", "status", "--porcelain") == ""
    assert (project / ".headrace" / "workspace" / ".env").exists()


def test_up_while_up_says_which_project_is_served(project: Path) -> None:
    first = stack(project, "up", "--only", "s3")

    second = stack(project, "up", "--only", "s3")

    assert "running already" not in first.stderr
    assert "It was running already." in second.stderr
    assert f"serves {project} with s3" in second.stdout


def test_up_and_down_tell_a_script_in_json_what_they_did(project: Path) -> None:
    started = json.loads(stack(project, "up", "--only", "s3", "--json").stdout)
    settings = json.loads(stack(project, "env", "--json").stdout)
    stopped = [json.loads(stack(project, "down", "--json").stdout) for _ in range(2)]

    assert (started["healthy"], started["systems"]) == (True, ["s3"])
    assert settings["AWS_ENDPOINT_URL"] == started["endpoints"]["S3"]
    assert stopped == [{"stopped": True}, {"stopped": False}]


def test_inside_a_workspace_the_stack_is_the_one_that_it_belongs_to(project: Path) -> None:
    home = project / ".headrace" / "demo"
    with control.running(home, ["workspace"], project=project):
        found = status(home / "workspace")

    assert (found["home"], found["project"]) == (str(home), str(project))


def test_outside_of_a_project_the_message_says_what_is_missing_and_what_to_do(tmp_path: Path) -> None:
    done = stack(tmp_path, "up", code=1)

    assert f"There is no project here: expected dvc.yaml and pipelines/__init__.py in {tmp_path}" in done.stderr
    assert "Next: change into a project, or create one with `headrace init NAME`." in done.stderr


def test_servers_that_need_no_project_start_without_one_in_a_home_that_is_named(tmp_path: Path) -> None:
    home = tmp_path / "home"
    try:
        stack(tmp_path, "up", "--home", str(home), "--only", "s3")
        assert status_of(home)["project"] is None
        stack(tmp_path, "down", "--home", str(home))
        failed = stack(tmp_path, "up", "--home", str(home), "--only", "workspace", code=1)
    finally:
        control.down(home)

    assert "There is no project to serve" in failed.stderr


def status_of(home: Path) -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads(stack(home, "status", "--home", str(home), "--json").stdout)
    return content


def test_the_stack_of_one_project_is_not_taken_for_that_of_another(project: Path, tmp_path: Path) -> None:
    other = new_project(tmp_path / "other")
    control.up(project / ".headrace", ["workspace"], project=project)

    with pytest.raises(StackError, match=rf"serves {project}: expected the project {other}"):
        control.up(project / ".headrace", ["workspace"], project=other)


def test_a_project_below_the_top_of_its_repository_is_refused(project: Path) -> None:
    inner = project / "inner"
    (inner / "pipelines").mkdir(parents=True)

    with pytest.raises(StackError, match="is the folder inner/ of a git repository"):
        control.up(project / ".headrace", ["workspace"], project=inner)


def test_workers_run_the_installed_engine_on_the_declarations_of_the_workspace(project: Path) -> None:
    (project / "headrace").mkdir()
    (project / "headrace" / "__init__.py").write_text("raise RuntimeError('not the engine that is installed')\n")
    commit(project)
    script = (
        "import json, os; from distributed import Client; client = Client(os.environ['DASK_SCHEDULER_ADDRESS']);"
        "from headrace.project.loading import project_root;"
        "engines = client.run(eval, '__import__(\"headrace\").__file__');"
        "print(json.dumps([engines, {worker: str(root) for worker, root in client.run(project_root).items()}]))"
    )
    with control.running(project / ".headrace", ["dask"], project=project) as env:
        shell = {**os.environ, "PYTHONPATH": str(ENGINE), **env}
        done = subprocess.run([sys.executable, "-c", script], env=shell, check=True, capture_output=True, text=True)
    engines, projects = json.loads(done.stdout)

    assert set(engines.values()) == {headrace.__file__}
    assert set(projects.values()) == {str(project / ".headrace" / "workspace")}
    assert len(projects) == 2


# Homes that Headrace 0.1 left


def write_0_1_state(home: Path) -> None:
    """Write the state file as Headrace 0.1 did."""

    def identity(process: Mapping[str, Any]) -> dict[str, Any]:
        return {"pid": process["pid"], "started": process["started_at"]}

    file = home / "stack.json"
    state = json.loads(file.read_text())
    servers = [
        {name: server[name] for name in ("name", "log", "state")} | {"identity": identity(server["process"])}
        for server in state["servers"]
    ]
    old = {"keeper": identity(state["watchdog"]), "pages": state["endpoints"], "servers": servers, "why": ""}
    file.write_text(json.dumps(old | {name: state[name] for name in ("systems", "state")}))


def test_a_stack_that_headrace_0_1_started_is_found_and_stopped(project: Path) -> None:
    home = project / ".headrace"
    control.up(home, BASE, project=project)
    state = read_state(StackPaths(home))
    assert state
    members = process_tree([state.watchdog, *(server.process for server in state.servers)])
    write_0_1_state(home)

    found = status(project)
    stopped = control.down(home)

    assert found["healthy"]
    assert [server["name"] for server in found["servers"]] == list(BASE)
    assert stopped
    assert still_running(members) == []


def test_a_home_of_headrace_0_1_keeps_its_ports_and_its_data(project: Path) -> None:
    home = project / ".headrace"
    with control.running(home, BASE, project=project) as before:
        (home / "stack" / "s3" / "headrace" / "kept.txt").write_text("kept")
    write_0_1_state(home)

    assert status(project, code=3)["state"] == "stopped"
    with control.running(home, BASE, project=project) as after:
        assert after == before
    assert (home / "stack" / "s3" / "headrace" / "kept.txt").read_text() == "kept"


# What is not installed


def python_without(package: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a Python that lacks a package."""
    program = f"import sys; sys.modules[{package!r}] = None; from headrace.__main__ import main; main()"
    command = [sys.executable, "-c", program, *arguments]
    env = {**os.environ, "PYTHONPATH": str(ENGINE)}
    return subprocess.run(command, cwd=ENGINE, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["up", "down", "status", "env", "install"])
def test_without_the_extra_a_command_names_the_package_and_what_installs_it(command: str) -> None:
    done = python_without("psutil", "stack", command)

    assert done.returncode == 1
    assert "headrace stack needs psutil, which is not installed: `pip install 'headrace[stack]'`." in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_extra_help_works() -> None:
    assert "Start the servers" in python_without("psutil", "stack", "--help").stdout
    assert "stack" in python_without("psutil", "--help").stdout


def test_a_program_that_is_missing_is_named_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(StackPaths(tmp_path))
    monkeypatch.setattr("headrace.stack.environment.bin_folder", lambda: tmp_path)

    with pytest.raises(NotInstalledError, match=rf"rclone is not installed: expected {tmp_path}/rclone\.") as missing:
        s3.s3_system(StackConfig(config.paths, config.credentials, {"s3": 1}))

    assert "`pip install 'headrace[stack]'`" in str(missing.value)
    with pytest.raises(NotInstalledError, match="airflow is not installed"):
        find_program("airflow")


def test_a_missing_label_studio_is_named_with_what_installs_it_and_what_starts_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = LabelStudioEnvironment(tmp_path / ".venv-label-studio")
    monkeypatch.setattr("headrace.stack.servers.label_studio.label_studio_environment", lambda: missing)

    with pytest.raises(NotInstalledError, match="Label Studio is not installed") as error:
        label_studio.label_studio_system(load_config(StackPaths(tmp_path)))

    assert "`headrace stack install`" in str(error.value)
    assert "`headrace stack up --only s3,postgres,dask,airflow`" in str(error.value)
