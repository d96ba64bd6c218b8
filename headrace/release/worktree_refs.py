"""What a workspace notes of the release branch: two refs per dataset below `refs/worktree`, which no other clone sees.

They say what the tables here started from. HEAD does not: a `git pull` moves it, and the tables stay as they are.
"""

from pathlib import Path

from headrace import failpoints
from headrace.release.branches import Branches
from headrace.storage import git

LISTED_AFTER, RELEASED = "listed-after", "released"


def note_listing(root: Path, dataset: str) -> None:
    """Note that the sources of `dataset` are about to be listed: the raw tables will be newer than today's releases."""
    branch, noted = f"refs/remotes/{git.REMOTE}/{Branches.configured(root).release}", _ref(LISTED_AFTER, dataset)
    commits = git.refs(root, branch, noted)
    if branch in commits and commits[branch] != commits.get(noted):
        _note(root, LISTED_AFTER, dataset, commits[branch])


def note_release(root: Path, dataset: str, commit: str) -> None:
    """Note that `commit` records the tables of `dataset` as they are here."""
    _note(root, RELEASED, dataset, commit)


def listed_after(root: Path, dataset: str) -> str:
    """The tip of the release branch when the sources were last listed; empty if they were not since there was one."""
    return git.resolve(root, _ref(LISTED_AFTER, dataset))


def last_release(root: Path, dataset: str) -> str:
    """The last release that was made here; empty if there is none."""
    return git.resolve(root, _ref(RELEASED, dataset))


def _note(root: Path, kind: str, dataset: str, commit: str) -> None:
    with failpoints.failpoint("git update-ref"):
        git.git(root, "update-ref", _ref(kind, dataset), commit)


def _ref(kind: str, dataset: str) -> str:
    return f"refs/worktree/headrace/{kind}/{dataset}"
