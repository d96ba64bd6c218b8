"""Lock files of training sets are found wherever somebody has committed them, whoever wrote them."""

import json
from pathlib import Path

import pytest
from workspaces import git

from headrace.maintenance.training_set_locks import find_locks, locked_release
from headrace.release.branches import Branches
from headrace.storage.git import GitError

MAIN = Branches("main", "main")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of a repository with one commit on main."""
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch", "main", "origin.git")
    git(tmp_path, "clone", "--quiet", "origin.git", "clone")
    root = tmp_path / "clone"
    (root / ".gitignore").write_text("scratch/\n")
    commit(root, "main")
    return root


def commit(root: Path, branch: str) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "Work")
    git(root, "push", "--quiet", "origin", f"HEAD:refs/heads/{branch}")


def write(root: Path, path: str, release: str, **changes: object) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    content = {"format": 2, "spec": {"dataset": "flights", "release": release}, **changes}
    (root / path).write_text(json.dumps(content, indent=2))


def test_files_of_the_workspace_and_of_every_branch_are_found_once(clone: Path) -> None:
    write(clone, "models/a.lock.json", "flights/1")
    commit(clone, "main")
    git(clone, "switch", "--quiet", "--create", "trial")
    write(clone, "models/b", "flights/2")
    write(clone, "models/a.lock.json", "flights/3")
    commit(clone, "trial")
    git(clone, "switch", "--quiet", "main")
    write(clone, "new/c.json", "flights/2")
    write(clone, "scratch/ignored.json", "flights/9")

    assert find_locks(clone, "flights", MAIN) == {
        "flights/1": ["models/a.lock.json"],
        "flights/2": ["new/c.json", "origin/trial:models/b"],
        "flights/3": ["origin/trial:models/a.lock.json"],
    }


def test_a_lock_file_that_was_deleted_on_the_code_branch_needs_nothing_any_more(clone: Path) -> None:
    write(clone, "a.json", "flights/1")
    commit(clone, "main")
    commit_of_release = git(clone, "rev-parse", "HEAD")
    (clone / "a.json").unlink()
    commit(clone, "main")
    git(clone, "push", "--quiet", "origin", f"{commit_of_release}:refs/heads/merged")

    assert find_locks(clone, "flights", MAIN) == {}


def test_the_release_branch_has_only_copies(clone: Path) -> None:
    write(clone, "a.json", "flights/1")
    commit(clone, "releases")

    assert find_locks(clone, "flights", Branches("main", "releases")) == {"flights/1": ["a.json"]}
    (clone / "a.json").unlink()
    assert find_locks(clone, "flights", Branches("main", "releases")) == {}


def test_locks_of_other_datasets_and_files_that_only_look_like_locks_do_not_count(clone: Path) -> None:
    write(clone, "eu.json", "flights_eu/1")
    (clone / "notes.json").write_text('{"release": "flights/1"}')
    (clone / "notes.md").write_text('`"release": "flights/1"` is a line of a lock file')

    assert find_locks(clone, "flights", MAIN) == {}


@pytest.mark.parametrize(
    ("content", "release"),
    [
        (b'{"format": 2, "spec": {"release": "flights/3"}}', "flights/3"),
        (b'{"question": {"release": "flights/3"}}', "flights/3"),
        (b'{"format": 9, "spec":{"release":"flights/3"}, "more": 1}', "flights/3"),
        (b'{"spec": {"release": ""}}', ""),
        (b'{"spec": {"release": "flights/3; rm"}}', ""),
        (b"[1]", ""),
        (b"{torn", ""),
    ],
)
def test_the_release_of_a_lock_file_of_any_version(content: bytes, release: str) -> None:
    assert locked_release(content) == release


def test_a_search_that_fails_is_an_error_and_not_the_answer_that_nothing_was_found(tmp_path: Path) -> None:
    with pytest.raises(GitError, match="git grep"):
        find_locks(tmp_path, "flights", MAIN)
