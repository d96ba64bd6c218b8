"""The workspace and the release branch: what its tables started from, and how it follows the branch after a release."""

import logging
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from headrace.release import worktree_refs
from headrace.release.branches import Branches
from headrace.release.build import StartingPoint
from headrace.release.records import Records, contains_changes
from headrace.storage import git, git_commits

log = logging.getLogger(__name__)

TRIES, PAUSE_S = 10, 0.1
"""Releases of several datasets in one workspace move its branch at the same time."""


def starting_point(
    root: Path, dataset: str, merged: Sequence[str], history_tables: Collection[str] = ()
) -> StartingPoint:
    """What the tables of `dataset` in this workspace started from.

    Args:
        root: The workspace.
        dataset: Name of the dataset.
        merged: Commits whose annotations and histories were merged into the workspace.
        history_tables: Raw tables that are histories.
    """
    head = Records.at_commit(root, git.head(root))
    listed_after, made_here = worktree_refs.listed_after(root, dataset), worktree_refs.last_release(root, dataset)
    last = [Records.at_commit(root, made_here)] if made_here else []
    return StartingPoint(
        head,
        raw=[Records.at_commit(root, listed_after) if listed_after else head, *last],
        histories=[*last, *(Records.at_commit(root, commit) for commit in merged)],
        history_tables=history_tables,
    )


def follow_release(root: Path, dataset: str, branches: Branches, commit: str) -> None:
    """Note that the workspace's tables of `dataset` are those of `commit`, and have its branch follow."""
    worktree_refs.note_release(root, dataset, commit)
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
    for tries_left in reversed(range(TRIES)):
        if git.is_ancestor(root, commit, "HEAD"):
            return
        if not git.is_ancestor(root, "HEAD", commit):
            log.warning("%s has commits that %s/%s has not: `git pull --rebase`.", root, git.REMOTE, branch)
            return
        before = git.head(root)
        try:
            blocking = _fast_forward(root, before, commit)
        except git.GitError:
            # Another release may be moving the branch: it changes the index and the files first, HEAD last.
            if not tries_left:
                raise
            time.sleep(PAUSE_S)
            continue
        if blocking:
            names = ", ".join(blocking)
            log.warning("%s: %s changed here, so the branch stays. Commit or stash, then `git pull`.", root, names)
        return


def _fast_forward(root: Path, before: str, commit: str) -> list[str]:
    records, had, here = Records.at_commit(root, commit), Records.at_commit(root, before), Records.in_workspace(root)
    return git_commits.fast_forward(root, commit, contains_changes(records, had, here))
