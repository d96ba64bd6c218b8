"""Which branch a release is on, which tags count, and what of a clone and of a user's git may differ."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from release_clones import Clone, Origin, dataset

from headrace.release.branches import Branches, latest_local_release, list_releases
from headrace.release.workspace import follow_branch
from headrace.storage import git, git_remote
from headrace.storage.git import GitError
from headrace.storage.git_remote import MovedTagError

FLIGHTS = dataset("flights")


def protect_main(origin: Origin) -> None:
    """Refuse pushes to main, as a host does with a protected branch."""
    hook = origin.folder / "origin.git/hooks/pre-receive"
    hook.write_text('#!/bin/sh\nwhile read -r old new ref; do [ "$ref" != refs/heads/main ] || exit 1; done\n')
    hook.chmod(0o755)


def test_a_protected_main_refuses_the_release_and_nothing_is_left(origin: Origin) -> None:
    protect_main(origin)

    with pytest.raises(GitError, match="HEADRACE_RELEASE_BRANCH"):
        origin.first.release(FLIGHTS, 1)

    assert origin.tags() == []
    assert origin.first.git("tag") == ""
    assert origin.first.git("rev-list", "--count", "HEAD") == "1"


def test_releases_on_a_branch_of_their_own_have_the_last_release_and_the_code_as_parents(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_RELEASE_BRANCH", "releases")
    code = origin.git("rev-parse", "main")
    protect_main(origin)

    first = origin.first.release(FLIGHTS, 1)
    other = origin.clone("other").release(dataset("digits"), 1)
    (origin.folder / "origin.git/hooks/pre-receive").unlink()
    origin.clone("writer").push_file("README.md", "New code.\n")
    changed = origin.git("rev-parse", "main")
    second = origin.first.release(FLIGHTS, 2)

    parents = {name: origin.git("log", "-1", "--format=%P", name).split() for name in origin.tags()}
    assert parents == {
        "flights/1": [code],
        "digits/1": [first.commit, code],
        "flights/2": [other.commit, changed],
    }
    assert origin.git("rev-parse", "main") == changed
    assert origin.git("show", "flights/2:README.md") == "New code."
    lock = origin.git("show", "releases:dvc.lock")
    assert "digits-transform-totals" in lock
    assert origin.first.git("rev-parse", "--abbrev-ref", "HEAD") == "main"
    assert list_releases(origin.first.table_store, "flights") == ["flights/1", "flights/2"]
    assert origin.first.release(FLIGHTS).commit == second.commit


def test_two_clones_release_one_dataset_in_turn_beside_a_protected_main(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HEAD is on the code branch, which records no table: what a run started from is noted elsewhere."""
    monkeypatch.setenv("HEADRACE_RELEASE_BRANCH", "releases")
    protect_main(origin)
    ours, theirs = origin.first, origin.clone("colleague")

    names = []
    for amount, clone in enumerate((ours, theirs, ours), start=1):
        clone.git("fetch", "--quiet")
        names.append(clone.release(FLIGHTS, amount).name)

    assert names == ["flights/1", "flights/2", "flights/3"]


def test_a_fresh_clone_beside_a_protected_main_pulls_the_tables_and_shows_the_status(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_RELEASE_BRANCH", "releases")
    push_project(origin.first)
    protect_main(origin)
    origin.first.release(FLIGHTS, 1)
    clone = origin.clone("reader")

    run(clone, "dvc", "pull")
    assert "last release flights/1" in run(clone, "headrace", "status", "flights")

    clone.git("switch", "--quiet", "releases")
    before = run(clone, "headrace", "status", "flights")
    run(clone, "dvc", "pull")
    assert clone.tables(FLIGHTS) == origin.first.tables(FLIGHTS)
    status = run(clone, "headrace", "status", "flights")
    assert status == before, "git records what the tables are"
    assert "features/flights/totals: 1 partitions" in status
    assert "unreleased" not in status


@pytest.mark.parametrize(
    "options", [("--depth", "1"), ("--filter=blob:none",), ("--single-branch", "--no-tags")], ids=lambda each: each[0]
)
def test_a_clone_that_lacks_objects_or_branches_releases_like_any_other(
    origin: Origin, options: tuple[str, ...]
) -> None:
    origin.git("config", "uploadpack.allowFilter", "true")
    for amount in (1, 2):
        origin.first.release(FLIGHTS, amount)
    clone = origin.clone("clone", *options)
    made = clone.release(FLIGHTS, 3)

    assert made.name == "flights/3"
    assert origin.git("rev-parse", "main") == made.commit
    assert origin.git("rev-list", "--count", "main") == "4"
    assert list_releases(clone.table_store, "flights") == ["flights/1", "flights/2", "flights/3"]


def test_signatures_hooks_and_columns_of_the_user_do_not_matter(origin: Origin, tmp_path: Path) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("pre-commit", "commit-msg", "pre-push", "reference-transaction", "post-merge"):
        (hooks / name).write_text("#!/bin/sh\nexit 1\n")
        (hooks / name).chmod(0o755)
    place = origin.first
    options = {
        "commit.gpgsign": "true",
        "tag.gpgsign": "true",
        "gpg.program": "false",
        "push.gpgSign": "true",
        "column.ui": "always",
        "color.ui": "always",
        "log.showSignature": "true",
        "core.hooksPath": str(hooks),
        "push.followTags": "true",
        "diff.noprefix": "true",
        "status.showUntrackedFiles": "no",
    }
    place.git("tag", "flights/paper-2026")
    for name, value in options.items():
        place.git("config", name, value)

    names = [place.release(FLIGHTS, amount).name for amount in (1, 2)]

    assert names == list_releases(place.table_store, "flights") == ["flights/1", "flights/2"]
    assert origin.tags() == names, "the user's own tag was not pushed"
    assert place.git("rev-parse", "HEAD") == origin.git("rev-parse", "main")


def test_only_numbered_tags_on_the_release_branch_are_releases(origin: Origin) -> None:
    place, forger = origin.first, origin.clone("forger")
    place.release(FLIGHTS, 1)
    for name in ("flights/paper-2026", "flights/2-rc1", "flights/02", "flights/x/9"):
        place.git("tag", name)
        place.git("push", "--quiet", "origin", name)
    forger.git("commit", "--quiet", "--allow-empty", "--message", "Forged")
    forger.git("tag", "flights/7")
    forger.git("push", "--quiet", "origin", "flights/7")

    assert place.release(FLIGHTS).name == "flights/1", "nothing has changed since"
    made = place.release(FLIGHTS, 2)

    assert made.name == "flights/8", "a number that nobody has"
    assert list_releases(place.table_store, "flights") == ["flights/1", "flights/8"]
    assert latest_local_release(place.table_store, "flights") == "flights/8"


def test_a_release_whose_tag_moved_is_an_error_that_names_both_commits(origin: Origin) -> None:
    place = origin.first
    made = place.release(FLIGHTS, 1)
    other = origin.git("rev-parse", f"{made.commit}^")
    origin.git("tag", "--force", "flights/1", other)

    for call in (lambda: place.release(FLIGHTS, 2), lambda: git_remote.fetch(place.root)):
        with pytest.raises(MovedTagError) as raised:
            call()
        assert "flights/1" in str(raised.value)
        assert made.commit in str(raised.value)
        assert other in str(raised.value)


def test_a_workspace_follows_the_branch_and_keeps_what_somebody_changed(
    origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    place = origin.first
    (place.root / "notes.txt").write_text("Mine.\n")
    origin.clone("writer").push_file("README.md", "Theirs.\n")

    place.release(FLIGHTS, 1)

    assert place.git("rev-parse", "HEAD") == origin.git("rev-parse", "main")
    assert (place.root / "README.md").read_text() == "Theirs.\n"
    assert place.git("status", "--porcelain") == "?? notes.txt"

    (place.root / "README.md").write_text("Mine.\n")
    origin.clone("another").push_file("README.md", "Theirs again.\n")
    head = place.git("rev-parse", "HEAD")
    with caplog.at_level(logging.WARNING, logger="headrace"):
        made = place.release(FLIGHTS, 2)

    assert "README.md changed here" in caplog.text
    assert place.git("rev-parse", "HEAD") == head
    assert (place.root / "README.md").read_text() == "Mine.\n"
    assert origin.git("rev-parse", "main") == made.commit
    assert place.release(FLIGHTS, 3).name == "flights/3", "its own release is nobody else's"


def test_a_local_commit_stays_local(origin: Origin) -> None:
    place = origin.first
    place.git("commit", "--quiet", "--allow-empty", "--message", "Mine")

    place.release(FLIGHTS, 1)

    assert "Mine" not in origin.git("log", "--format=%s", "main")
    assert place.git("log", "-1", "--format=%s") == "Mine"


def test_every_commit_can_be_pulled_by_dvc(origin: Origin) -> None:
    """A stage is in `dvc.yaml` from the release on that records it."""
    place = origin.first
    place.release(FLIGHTS, 1)
    place.release(dataset("digits"), 1)

    for commit in origin.git("rev-list", "main").split():
        pulled(origin, commit)


def pulled(origin: Origin, commit: str) -> None:
    clone = origin.clone(commit[:8])
    clone.git("switch", "--quiet", "--detach", commit)
    run(clone, "dvc", "pull")
    wanted = clone.git("ls-files", "dvc.yaml")
    assert not wanted or (clone.root / "data/validated").exists()


def push_project(clone: Clone) -> None:
    """Push what makes a clone a project: an empty `dvc.yaml`, and the declaration of the dataset."""
    declarations = {"__init__.py": "", "flights/__init__.py": "from test_release_branches import FLIGHTS as DATASET\n"}
    for name, text in declarations.items():
        path = clone.root / "pipelines" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (clone.root / "dvc.yaml").write_text("stages: {}\n")
    clone.git("add", "pipelines", "dvc.yaml")
    clone.git("commit", "--quiet", "--message", "Declare a dataset")
    clone.git("push", "--quiet", "origin", "HEAD:main")


def run(clone: Clone, program: str, *arguments: str) -> str:
    """What a program of this environment prints in the clone; it must succeed."""
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=clone.root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_workspace_follows_while_another_release_has_moved_its_index_and_not_yet_its_head(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone, writer = origin.first, origin.clone("writer")
    for number in range(2):
        writer.push_file("dvc.lock", f"schema: '2.0'\nstages: {{}}\n# {number}\n")
    clone.git("fetch", "origin")
    before, first, last = (clone.git("rev-parse", name) for name in ("HEAD", "origin/main~1", "origin/main"))
    hash_files = git.hash_files
    moved: list[str] = []

    def hash_while_the_other_moves(root: Path, paths: Iterable[str]) -> dict[str, str]:
        if not moved:
            moved.append(clone.git("read-tree", "-m", "-u", before, first))
        return hash_files(root, paths)

    monkeypatch.setattr(git, "hash_files", hash_while_the_other_moves)
    follow_branch(clone.root, Branches.configured(clone.root), last)

    assert moved
    assert clone.git("rev-parse", "HEAD") == last
    assert clone.git("status", "--porcelain") == ""
