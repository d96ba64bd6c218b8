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
from servers import wait_until

from headrace.stack import control, environment
from headrace.stack.annotator import create_annotator
from headrace.stack.errors import StartFailedError
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


def test_a_new_commit_reaches_the_workspace_at_the_next_up(home: Path, repository: Path) -> None:
    with control.running(home, ["workspace"], project=repository):
        pass
    second = commit(repository, "second")

    with control.running(home, ["workspace"], project=repository):
        assert git(home / "workspace", "rev-parse", "HEAD") == second


def test_a_workspace_that_went_its_own_way_is_kept_and_the_difference_is_named(home: Path, repository: Path) -> None:
    with control.running(home, ["workspace"], project=repository):
        release = commit(home / "workspace", "a release")
        git(home / "workspace", "push", "--quiet", "origin", "main")
    commit(repository, "another way")
    events: list[Event] = []

    with control.running(home, ["workspace"], events.append, repository):
        assert git(home / "workspace", "rev-parse", "HEAD") == release
    notes = [event.detail for event in events if event.state == "note"]
    assert len(notes) == 1
    assert "have diverged" in notes[0]
    assert f"git pull {(home / 'origin.git').resolve()} main" in notes[0]


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
        admitted = [connect(server, holder) for server in (address, *workers)]
        for worker in workers:
            refused[worker] = connect(worker, Security())

    assert user == str(os.getuid())
    assert [worker.partition("://")[0] for worker in workers] == ["tls", "tls"]
    assert admitted == [True, True, True]
    assert refused == dict.fromkeys(refused, False)


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

    assert token == again
    assert person["email"] == "ann@example.com"
    assert refused.status_code == 403


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
