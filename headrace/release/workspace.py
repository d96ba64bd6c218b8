"""The workspace after a release: it follows the release branch where nobody's work would be lost."""

import logging
import time
from pathlib import Path

from headrace import failpoints
from headrace.release.branches import Branches
from headrace.release.records import Records, contains_changes
from headrace.storage import git, git_commits

log = logging.getLogger(__name__)

TRIES = 5
"""Releases of several datasets in one workspace move its branch at the same time."""


def starting_points(root: Path, dataset: str) -> list[Records]:
    """What the tables of `dataset` in this workspace continue: HEAD, the recorded files, the last release made here."""
    made_here = git.resolve(root, _last_release(dataset))
    return [
        Records.at_commit(root, git.head(root)),
        Records.in_workspace(root),
        *([Records.at_commit(root, made_here)] if made_here else []),
    ]


def follow_release(root: Path, dataset: str, branches: Branches, commit: str) -> None:
    """Note that the workspace's tables of `dataset` are those of `commit`, and have its branch follow."""
    with failpoints.failpoint("git update-ref"):
        git.git(root, "update-ref", _last_release(dataset), commit)
    follow_branch(root, branches, commit)


def follow_branch(root: Path, branches: Branches, commit: str) -> None:
    """Fast-forward the branch of a workspace to `commit` if that is safe; otherwise the log says what to run."""
    branch = git.checked_out_branch(root)
    if branch != branches.release:
        log.info(
            "%s is on %s, not on %s: the files that record releases stay as they are here. `git switch %s && git pull`"
            " brings them up to date.",
            root,
            branch or "a detached HEAD",
            branches.release,
            branches.release,
        )
        return
    for _ in range(TRIES):
        if git.is_ancestor(root, commit, "HEAD"):
            return
        if not git.is_ancestor(root, "HEAD", commit):
            log.warning("%s has commits that %s/%s has not: `git pull --rebase`.", root, git.REMOTE, branch)
            return
        before = git.head(root)
        try:
            blocking = _fast_forward(root, before, commit)
        except git.GitError:
            if git.head(root) == before:  # else another release moved the branch at the same time
                raise
            time.sleep(0.05)
            continue
        if blocking:
            names = ", ".join(blocking)
            log.warning("%s: %s changed here, so the branch stays. Commit or stash, then `git pull`.", root, names)
        return


def _fast_forward(root: Path, before: str, commit: str) -> list[str]:
    records, had, here = Records.at_commit(root, commit), Records.at_commit(root, before), Records.in_workspace(root)
    return git_commits.fast_forward(root, commit, contains_changes(records, had, here))


def _last_release(dataset: str) -> str:
    """A ref of this worktree alone."""
    return f"refs/worktree/headrace/{dataset}"
