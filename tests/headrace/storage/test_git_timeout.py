"""A git remote that accepts the connection and never answers is given up in time, as a temporary failure."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from workspaces import git as run_git

from headrace.storage import git, git_remote


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port on which somebody accepts, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("scheme", ["http", "git"])
def test_a_remote_that_never_answers_is_given_up(
    tmp_path: Path, silent_port: int, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_GIT_TIMEOUT_S", "0.5")
    run_git(tmp_path, "init", "--quiet")
    run_git(tmp_path, "remote", "add", "origin", f"{scheme}://127.0.0.1:{silent_port}/project.git")
    started = time.monotonic()

    with pytest.raises(git.GitUnavailableError, match=r"timed out after 0\.5 s \(HEADRACE_GIT_TIMEOUT_S\)"):
        git_remote.remote_refs(tmp_path)

    assert time.monotonic() - started < 30
    left = [each.name() for each in psutil.Process(os.getpid()).children(recursive=True)]
    assert not [name for name in left if name.startswith("git")]


def test_who_has_more_to_show_waits_a_shorter_time(tmp_path: Path, silent_port: int) -> None:
    run_git(tmp_path, "init", "--quiet")
    run_git(tmp_path, "remote", "add", "origin", f"git://127.0.0.1:{silent_port}/project.git")

    with git.wait_at_most(0.2), pytest.raises(git.GitUnavailableError, match=r"timed out after 0\.2 s$"):
        git_remote.remote_refs(tmp_path)


def test_a_command_in_the_repository_has_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_GIT_TIMEOUT_S", "0.000001")
    run_git(tmp_path, "init", "--quiet")

    assert git.git(tmp_path, "status", "--short") == ""
