"""What the stack gives its servers: a workspace that loses nothing, workers that are replaced, accounts."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from distributed.core import rpc
from distributed.security import Security
from servers import HOST, wait_until
from stack_processes import listening_addresses

from headrace.stack import control, environment
from headrace.stack.annotator import create_annotator
from headrace.stack.console import describe_stack, status_json
from headrace.stack.errors import StartFailedError
from headrace.stack.paths import StackPaths
from headrace.stack.served_clone import CloneConflictError, serve_last_commit
from headrace.stack.state import Event

pytestmark = pytest.mark.server


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    control.down(tmp_path / "home")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A clone with one commit, to make a workspace from."""
    clone = tmp_path / "clone"
    (clone / ".dvc").mkdir(parents=True)
    (clone / ".dvc" / ".gitignore").write_text("/config.local\n")
    git(clone, "init", "--quiet", "--initial-branch", "main")
    git(clone, "config", "user.name", "A")
    git(clone, "config", "user.email", "a@example.com")
    commit(clone, "first")
    return clone


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder: Path, text: str) -> str:
    (folder / "file.txt").write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "--quiet", "-m", text)
    return git(folder, "rev-parse", "HEAD")


def test_the_workspace_is_a_clone_of_what_is_committed_and_can_reach_the_bucket(home: Path, repository: Path) -> None:
    (repository / "draft.txt").write_text("not committed")
    events: list[Event] = []

    with control.running(home, ["workspace"], events.append, repository) as env:
        notes = [event.detail for event in events if event.state == "note"]

    workspace = home / "workspace"
    assert (workspace / "file.txt").read_text() == "first"
    assert notes == ["uncommitted changes are not in the workspace: it holds what is committed"]
    assert (workspace / ".env").read_text() == (home / "stack.env").read_text()
    assert f"secret_access_key = {env['AWS_SECRET_ACCESS_KEY']}" in (workspace / ".dvc" / "config.local").read_text()
    assert git(workspace, "remote", "get-url", "origin") == str((home / "origin.git").resolve())


def served(home: Path) -> str:
    """The commit whose code the branch of the origin has."""
    return git(home / "origin.git", "rev-parse", "refs/headrace/served")


def show(home: Path, path: str, where: str = "origin.git") -> str:
    return git(home / where, "show", f"main:{path}")


def release(home: Path, table: str) -> str:
    """What a release does: a commit on the origin's branch."""
    other = home.parent / "releaser"
    if not other.exists():
        git(home.parent, "clone", "--quiet", str(home / "origin.git"), str(other))
        git(other, "config", "user.name", "R")
        git(other, "config", "user.email", "r@example.com")
    git(other, "pull", "--quiet", "--ff-only")
    (other / "data" / "shop").mkdir(parents=True, exist_ok=True)
    (other / "data" / "shop" / f"{table}.dvc").write_text("outs: []\n")
    git(other, "add", "-A")
    git(other, "commit", "--quiet", "-m", f"release {table}")
    git(other, "push", "--quiet", "origin", "main")
    return git(other, "rev-parse", "HEAD")


def test_a_commit_is_enough_for_a_running_stack_to_serve_it(home: Path, repository: Path) -> None:
    with control.running(home, ["workspace"], project=repository):
        second = commit(repository, "second")

        assert wait_until(lambda: git(home / "workspace", "rev-parse", "HEAD") == second)
        assert served(home) == second
        released = release(home, "orders")
        third = commit(repository, "third")
        assert wait_until(lambda: served(home) == third)
        assert wait_until(lambda: (home / "workspace" / "file.txt").read_text() == "third")

    assert show(home, "data/shop/orders.dvc") == "outs: []", "the release is still there"
    assert git(home / "origin.git", "merge-base", "main", released) == released


def test_releases_come_home_by_a_plain_git_pull(home: Path, repository: Path) -> None:
    with control.running(home, ["workspace"], project=repository):
        release(home, "orders")
        third = commit(repository, "third")
        control.up(home, ["workspace"], project=repository)
        assert served(home) == third, "`up` waits until it is"

        git(repository, "pull", "--quiet", "--tags", str(home / "origin.git"), "main")

        assert (repository / "data" / "shop" / "orders.dvc").exists()
        assert git(repository, "log", "-1", "--format=%H") == git(home / "origin.git", "rev-parse", "main")
        assert wait_until(lambda: served(home) == git(repository, "rev-parse", "HEAD"))


def follow(home: Path, repository: Path) -> str:
    return serve_last_commit(StackPaths(home, repository), repository)


def start(home: Path, repository: Path) -> str:
    """The repositories without a process that follows."""
    home.mkdir()
    return follow(home, repository)


def test_amended_and_abandoned_commits_do_not_come_back(home: Path, repository: Path) -> None:
    start(home, repository)
    commit(repository, "a mistake")
    (repository / "mistake.txt").write_text("!")
    git(repository, "add", "-A")
    git(repository, "commit", "--quiet", "-m", "more of it")
    follow(home, repository)
    release(home, "orders")

    git(repository, "reset", "--quiet", "--hard", "HEAD~2")
    follow(home, repository)
    after_reset = (show(home, "file.txt"), git(home / "origin.git", "ls-tree", "--name-only", "main"))
    commit(repository, "right")
    git(repository, "commit", "--quiet", "--amend", "-m", "right, and well said")
    tip = follow(home, repository)

    assert after_reset[0] == "first"
    assert "mistake.txt" not in after_reset[1]
    assert (show(home, "file.txt"), show(home, "data/shop/orders.dvc")) == ("right", "outs: []")
    assert follow(home, repository) == tip, "nothing new, nothing done"
    git(repository, "pull", "--quiet", "--ff-only", str(home / "origin.git"), "main")


@pytest.mark.parametrize("how", [["switch", "-c", "feature/x"], ["checkout", "--detach"]])
def test_whatever_is_checked_out_in_the_clone_is_served(home: Path, repository: Path, how: list[str]) -> None:
    start(home, repository)
    git(repository, *how, "--quiet")
    newest = commit(repository, "on another branch")

    assert follow(home, repository) == newest
    git(repository, "switch", "--quiet", "main")
    follow(home, repository)
    assert show(home, "file.txt") == "first"


def test_a_release_and_a_commit_that_both_change_dvc_yaml_are_joined(home: Path, repository: Path) -> None:
    (repository / "dvc.yaml").write_text("stages: {}\n")
    commit(repository, "a project")
    start(home, repository)
    release(home, "orders")
    releaser = home.parent / "releaser"
    (releaser / "dvc.yaml").write_text("stages:\n  train:\n    cmd: echo\n")
    (releaser / "dvc.lock").write_text("schema: '2.0'\nstages:\n  train:\n    cmd: echo\n")
    git(releaser, "add", "-A")
    git(releaser, "commit", "--quiet", "-m", "release train")
    git(releaser, "push", "--quiet", "origin", "main")
    (repository / "dvc.yaml").write_text("stages:\n  report:\n    cmd: true\n")
    commit(repository, "a stage")

    follow(home, repository)

    assert "report" in show(home, "dvc.yaml")
    assert "train" in show(home, "dvc.lock"), "what the release recorded stays"


def test_changes_of_the_same_file_on_both_sides_are_named_with_what_to_do(home: Path, repository: Path) -> None:
    start(home, repository)
    first = served(home)
    other = home.parent / "other"
    git(home.parent, "clone", "--quiet", str(home / "origin.git"), str(other))
    git(other, "config", "user.name", "B")
    git(other, "config", "user.email", "b@example.com")
    theirs = commit(other, "theirs")
    git(other, "push", "--quiet", "origin", "main")
    ours = commit(repository, "ours")

    with pytest.raises(CloneConflictError) as error:
        follow(home, repository)

    advice = f"git pull --no-rebase --tags {home / 'origin.git'} main"
    assert "have diverged: both have changed file.txt. Runs work on the commit that was served before." in str(
        error.value
    )
    assert advice in str(error.value)
    assert (served(home), git(home / "origin.git", "rev-parse", "main")) == (first, theirs)
    subprocess.run(advice.split(), cwd=repository, check=False, capture_output=True)
    commit(repository, "both")
    assert follow(home, repository) == git(repository, "rev-parse", "HEAD")
    assert git(repository, "merge-base", "HEAD", ours) == ours


def test_up_while_up_says_which_clone_and_commit_it_serves(home: Path, repository: Path) -> None:
    with control.running(home, ["workspace"], project=repository):
        second = commit(repository, "second")
        (repository / "draft.txt").write_text("not committed")

        found = control.up(home, ["workspace"], project=repository)

    text = describe_stack(found)
    assert found.was_running
    assert f"serves {repository} with s3, workspace" in text
    assert f'Runs work on the last commit of {repository}: {second[:10]} "second".' in text
    assert "uncommitted changes, which only commands in the clone see: draft.txt." in text
    assert (status_json(found)["commit"], status_json(found)["uncommitted"]) == (second, ["draft.txt"])


def test_up_restarts_a_stack_whose_servers_run_another_engine(
    home: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = control.up(home, ["s3", "workspace"], project=repository)
    events: list[Event] = []
    monkeypatch.setattr(control, "engine_version", lambda: "another one")

    second = control.up(home, ["s3"], events.append, repository)

    assert "the engine has changed since the stack was started" in events[0].detail
    assert second.is_healthy
    assert not second.was_running
    assert {server.process.pid for server, _ in first.servers}.isdisjoint(
        server.process.pid for server, _ in second.servers
    )
    assert [server.name for server, _ in second.servers] == ["s3", "workspace"], "with the systems that it had"


def test_the_workspace_of_a_moved_project_pushes_to_the_origin_beside_it(home: Path, repository: Path) -> None:
    with control.running(home, ["workspace"], project=repository):
        pass
    moved = home.rename(home.with_name("moved"))

    try:
        with control.running(moved, ["workspace"], project=repository):
            assert git(moved / "workspace", "remote", "get-url", "origin") == str(moved / "origin.git")
    finally:
        control.down(moved)


def test_a_clone_without_a_commit_is_told_what_to_do(home: Path, repository: Path) -> None:
    shutil.rmtree(repository / ".git")
    git(repository, "init", "--quiet")

    with pytest.raises(StartFailedError, match=r"has no commit yet[\s\S]*Next: `git add --all && git commit`"):
        control.up(home, ["workspace"], project=repository)


def test_a_dask_worker_that_dies_is_replaced(home: Path, repository: Path) -> None:
    found = control.up(home, ["dask"], project=repository)
    victim = next(server.process for server, _ in found.servers if server.name == "dask-worker-1")

    os.kill(victim.pid, signal.SIGKILL)

    assert wait_until(lambda: victim not in [server.process for server, _ in control.status(home).servers])
    assert wait_until(lambda: control.status(home).is_healthy)


STRANGERS = {
    "nothing": ("tls", Security()),
    "a certificate of their own": ("tls", Security.temporary()),
    "no encryption": ("tcp", Security()),
}


def test_only_who_holds_the_key_of_the_stack_can_run_code_on_its_dask_cluster(home: Path, repository: Path) -> None:
    with control.running(home, ["dask"], project=repository) as env:
        address = env["DASK_SCHEDULER_ADDRESS"]
        refused = {who: connect(address.replace("tls", protocol), how) for who, (protocol, how) in STRANGERS.items()}
        holder = Security(
            tls_ca_file=env["DASK_DISTRIBUTED__COMM__TLS__CA_FILE"],
            tls_client_cert=env["DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT"],
            tls_client_key=env["DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY"],
        )
        user, *workers = run_client(env)
        listening = listening_addresses(home)
        admitted = [connect(server, holder) for server in (address, *workers)]
        for worker in workers:
            refused[worker] = connect(worker, Security())

    assert user == str(os.getuid())
    assert [worker.partition("://")[0] for worker in workers] == ["tls", "tls"]
    assert admitted == [True, True, True]
    assert refused == dict.fromkeys(refused, False)
    assert set(listening) == {HOST}, "nothing of the scheduler and the workers is on another address"


@pytest.mark.slow_lane
def test_the_key_of_the_dask_cluster_is_readable_by_its_owner_alone_and_is_new_at_each_start(
    home: Path, repository: Path
) -> None:
    keys = []
    for _ in range(2):
        with control.running(home, ["dask"], project=repository) as env:
            key = Path(env["DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY"])
            keys.append(key.read_text())
            assert key.stat().st_mode & 0o777 == 0o600

    assert "PRIVATE KEY" in keys[0]
    assert keys[0] != keys[1]


def run_client(env: Mapping[str, str]) -> list[str]:
    """Run code on the cluster as whoever has set the variables of `stack.env`: the user there, and the workers."""
    script = (
        "import os; from distributed import Client; client = Client(os.environ['DASK_SCHEDULER_ADDRESS']);"
        "print(client.submit(os.getuid).result(), *client.run(os.getpid))"
    )
    command, shell = [sys.executable, "-c", script], {**os.environ, **env}
    return subprocess.run(command, env=shell, check=True, capture_output=True, text=True).stdout.split()


def connect(address: str, security: Security) -> bool:
    """Whether somebody with these credentials reaches a server of Dask."""

    async def ask() -> bool:
        arguments = security.get_connection_args("client")
        try:
            async with rpc(address, timeout=3, connection_args=arguments) as server:
                return bool(await server.identity())
        except (OSError, TypeError):  # refused, or Dask does not even try without a certificate
            return False

    return asyncio.run(ask())


def test_label_studio_is_closed_to_strangers_and_gives_an_annotator_an_account_of_his_own(home: Path) -> None:
    stranger = {"email": "stranger@example.com", "password": "let-me-in-please"}
    with control.running(home, ["label-studio"]) as env:
        url = env["LABEL_STUDIO_URL"]

        token = create_annotator(url, env["LABEL_STUDIO_API_KEY"], "ann@example.com", "a-good-password")
        again = create_annotator(url, env["LABEL_STUDIO_API_KEY"], "ann@example.com", "a-good-password")
        person = httpx.get(f"{url}/api/current-user/whoami", headers={"Authorization": f"Token {token}"}).json()
        with httpx.Client(base_url=url) as browser:
            browser.get("/user/signup/")
            form = stranger | {"csrfmiddlewaretoken": browser.cookies["csrftoken"]}
            refused = browser.post("/user/signup/", data=form)
        listening = listening_addresses(home)

    assert token == again
    assert person["email"] == "ann@example.com"
    assert refused.status_code == 403
    assert set(listening) == {HOST}


def test_a_shell_whose_input_is_a_socket_still_finds_our_python_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".bashrc").write_text("PATH=/nowhere:$PATH; echo read\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    ours, theirs = socket.socketpair()

    with ours, theirs:
        done = subprocess.run(
            ["bash", "-c", "command -v python"],
            stdin=theirs.fileno(), env=environment.base_environment(), check=True, capture_output=True, text=True,
        )  # fmt: skip

    assert done.stdout.strip() == str(environment.bin_folder() / "python")
