"""Git against remotes that fail: an unavailable one and a lost race pass by themselves, a refusal does not."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from servers import HOST, free_port
from workspaces import git

from headrace.errors import HeadraceError, NotConfiguredError
from headrace.storage import git as storage_git
from headrace.storage import git_remote
from headrace.storage.git import GitError, GitUnavailableError
from headrace.storage.git_remote import StaleReleaseError


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with one commit, and its bare origin beside it."""
    monkeypatch.setenv("GIT_TERMINAL_PROMPT", "0")
    monkeypatch.setenv("NO_PROXY", "*")
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch", "main", "origin.git")
    git(tmp_path, "clone", "--quiet", "origin.git", "clone")
    root = tmp_path / "clone"
    commit(root, "first")
    git(root, "push", "--quiet", "origin", "main")
    return root


def commit(root: Path, text: str) -> None:
    (root / "file").write_text(text)
    git(root, "add", "file")
    git(root, "commit", "--quiet", "--message", text)


@contextmanager
def http_server(status: int) -> Iterator[str]:
    """A server that answers everything with one status; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((HOST, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{HOST}:{server.server_port}/origin.git"
    finally:
        server.shutdown()
        server.server_close()


def push(root: Path) -> None:
    """Push HEAD to the branch as this clone knows it."""
    git_remote.push(root, "HEAD", "main", storage_git.resolve(root, "origin/main"))


def failure(call: Callable[[Path], object], root: Path) -> HeadraceError:
    with pytest.raises(HeadraceError) as raised:
        call(root)
    return raised.value


@pytest.mark.parametrize("call", [git_remote.fetch, push])
def test_a_remote_that_is_down_is_unavailable(clone: Path, call: Callable[[Path], object]) -> None:
    for scheme in ("http", "git"):
        git(clone, "remote", "set-url", "origin", f"{scheme}://{HOST}:{free_port()}/origin.git")

        assert isinstance(failure(call, clone), GitUnavailableError)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "is_transient"), [(500, True), (503, True), (429, True), (403, False), (404, False)]
)
def test_a_server_that_is_overloaded_is_unavailable_and_one_that_refuses_is_not(
    clone: Path, status: int, is_transient: bool
) -> None:
    with http_server(status) as url:
        git(clone, "remote", "set-url", "origin", url)
        errors = [failure(call, clone) for call in (git_remote.fetch, push)]

    assert [error.is_transient for error in errors] == [is_transient] * 2


def test_a_remote_that_is_not_there_must_be_set_by_a_person(clone: Path, tmp_path: Path) -> None:
    git(clone, "remote", "set-url", "origin", str(tmp_path / "nowhere.git"))

    error = failure(git_remote.fetch, clone)

    assert isinstance(error, NotConfiguredError)
    assert "git remote add origin" in str(error)


def test_a_push_to_a_branch_that_moved_before_lost_the_race(clone: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "origin.git", "other")
    commit(tmp_path / "other", "other")
    git(tmp_path / "other", "push", "--quiet", "origin", "main")
    commit(clone, "mine")

    assert isinstance(failure(push, clone), StaleReleaseError)


def test_a_push_to_a_branch_that_moves_while_it_is_pushed_lost_the_race(clone: Path, tmp_path: Path) -> None:
    origin = tmp_path / "origin.git"
    first = git(origin, "rev-parse", "main")
    commit(clone, "theirs")
    git(clone, "push", "--quiet", "origin", "main:theirs")
    hook = origin / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\nunset GIT_QUARANTINE_PATH\ngit update-ref refs/heads/main refs/heads/theirs\n")
    hook.chmod(0o755)
    git(clone, "reset", "--quiet", "--hard", first)
    commit(clone, "mine")

    assert isinstance(failure(push, clone), StaleReleaseError)


def test_a_push_that_a_hook_of_the_server_declines_is_refused(clone: Path, tmp_path: Path) -> None:
    hook = tmp_path / "origin.git" / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'cannot lock ref, says the policy' >&2\nexit 1\n")
    hook.chmod(0o755)
    commit(clone, "mine")

    error = failure(push, clone)

    assert isinstance(error, GitError)
    assert not error.is_transient


def test_a_lock_that_another_git_holds_on_is_unavailable_and_is_logged(
    clone: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="headrace.storage.git")
    monkeypatch.setattr(storage_git, "STALE_AFTER_S", 0.05)
    monkeypatch.setattr(storage_git, "_is_git_running", lambda _root: True)
    (clone / "file").write_text("changed")
    (clone / ".git" / "index.lock").touch()

    error = failure(lambda root: storage_git.git(root, "add", "file"), clone)

    assert isinstance(error, GitUnavailableError)
    assert "index.lock exists: waiting up to" in caplog.text


def test_a_git_that_meets_a_worktree_that_another_one_is_adding_waits_for_it(clone: Path) -> None:
    half = clone / ".git/worktrees/half"
    half.mkdir(parents=True)
    (half / "gitdir").write_text(f"{clone.parent}/half/.git\n")
    (half / "HEAD").write_text("0" * 40 + "\n")
    (half / "commondir").touch()
    with pytest.raises(GitUnavailableError, match="failed to read"):
        storage_git.git(clone, "worktree", "add", "--quiet", "--detach", "../other")

    added = threading.Timer(0.5, lambda: (half / "commondir").write_text("../..\n"))
    added.start()
    storage_git.git(clone, "worktree", "add", "--quiet", "--detach", "../other")

    added.join()
    assert (clone.parent / "other/file").exists()


def test_a_fetch_that_meets_a_worktree_without_a_commit_yet_waits_for_it(clone: Path) -> None:
    git(clone, "worktree", "add", "--quiet", "--detach", "../other")
    head, commit_id = clone / ".git/worktrees/other/HEAD", git(clone, "rev-parse", "HEAD")
    git(clone.parent, "clone", "--quiet", "origin.git", "colleague")
    commit(clone.parent / "colleague", "second")
    git(clone.parent / "colleague", "push", "--quiet", "origin", "main")
    head.write_text("0" * 40 + "\n")

    added = threading.Timer(0.5, lambda: head.write_text(f"{commit_id}\n"))
    added.start()
    git_remote.fetch(clone)

    added.join()
    assert git(clone, "log", "-1", "--format=%s", "origin/main") == "second"
