"""The git remote: its refs, fetches from it, and the one atomic push that makes a release."""

import random
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from headrace import failpoints
from headrace.errors import NotConfiguredError, TransientError
from headrace.storage.git import REMOTE, GitError, GitUnavailableError, RefLockedError, git, refs, simulate_stale_lock

FETCHES = 8
"""Fetches of one clone at the same time meet at its remote-tracking refs; the later ones begin again."""

FIXED_TAG = re.compile(r"refs/tags/[a-z][a-z0-9_]*/[1-9][0-9]*")
"""Tags that are numbered below a dataset's name: releases, which never move."""

PROTECTED = re.compile(r"hook declined|protected branch", re.IGNORECASE)
"""What the server prints where a branch does not take the push."""

LOST_RACE = re.compile(
    r"\[rejected\]"
    r"|is at [0-9a-f]{40,64} but expected [0-9a-f]{40,64}|incorrect old value provided|reference already exists"
    r"|\[remote rejected\].*\((cannot lock ref|failed to (lock|update))"
)
"""A push to a branch that moved: before git asked for it, or (the server says so) between its question and its push."""


class StaleReleaseError(TransientError):
    """Somebody else's commit came first: the release lost the race for the branch."""


class MovedTagError(GitError):
    """The tag of a release names another commit here than on the remote."""


def remote_refs(root: Path, *patterns: str) -> dict[str, str]:
    """Full name → commit of the refs on the remote that match: what is there is released, whatever is here."""
    lines = git(root, "ls-remote", REMOTE, *patterns).splitlines()
    found = {name: commit for commit, name in (line.split("\t") for line in lines)}
    return {name: found.get(f"{name}^{{}}", commit) for name, commit in found.items() if not name.endswith("^{}")}


def push(  # noqa: PLR0913  what one push does
    root: Path,
    commit: str,
    branch: str,
    expected: str = "",
    tags: Mapping[str, str] | None = None,
    *,
    deleted: Mapping[str, str] | None = None,
) -> None:
    """Push a commit to a branch of the remote, and tags, in one step that happens whole or not at all.

    Args:
        root: The workspace.
        commit: The commit; nothing needs to be checked out.
        branch: Name of the branch.
        expected: The commit that the branch must have there; empty if it must not exist.
        tags: Name → object.
        deleted: Full names of refs that the same step deletes → the commits that they must have there.

    Raises:
        StaleReleaseError: The branch has another commit, a tag exists, or a ref to delete has another commit.
        GitUnavailableError: The remote does not answer.
        GitError: It does not let us push.
    """
    names = [f"{name}:refs/tags/{tag}" for tag, name in (tags or {}).items()]
    names += [f":{ref}" for ref in deleted or {}]
    known = {f"refs/heads/{branch}": expected, **(deleted or {})}
    leases = [f"--force-with-lease={ref}:{value}" for ref, value in known.items()]
    try:
        with failpoints.failpoint("git push"):
            git(root, "push", "--quiet", "--atomic", *leases, REMOTE, f"{commit}:refs/heads/{branch}", *names)
    except GitError as error:
        if PROTECTED.search(str(error)):
            raise GitError(
                f"{REMOTE} refuses pushes to {branch}; nothing was released. Let this user push there, or push releases"
                f" to a branch of their own: HEADRACE_RELEASE_BRANCH=releases. ({error})"
            ) from None
        if not LOST_RACE.search(str(error)):
            raise
        raise StaleReleaseError(
            f"{root}: {REMOTE}/{branch} moved on while the release was pushed; nothing was pushed. Run the same command"
            f" again. ({error})"
        ) from None


def fetch(root: Path, *branches: str) -> dict[str, str]:
    """Bring branches (by default all) and tags of the remote here, and the history that a shallow clone lacks.

    Returns:
        Full name → commit of the remote's branches and tags, all as they were at one moment.

    Raises:
        GitUnavailableError: The remote does not answer.
        NotConfiguredError: The workspace has no remote called `origin`, or it refuses.
        MovedTagError: The tag of a release names another commit there than here.
        RefLockedError: Other fetches of this clone came first every time.
    """
    for attempt in range(FETCHES - 1):
        with suppress(RefLockedError):  # another fetch of this clone has brought a ref meanwhile
            return _fetch_once(root, branches)
        time.sleep(random.uniform(0, 0.05 * 2**attempt))  # noqa: S311  no secret
    return _fetch_once(root, branches)


def _fetch_once(root: Path, branches: Sequence[str]) -> dict[str, str]:
    try:
        there = remote_refs(root, "refs/heads/*", "refs/tags/*")
    except GitUnavailableError:
        raise
    except GitError as error:
        raise NotConfiguredError(
            f"{root}: releases are pushed to the git remote {REMOTE!r}, and it cannot be read."
            f" Set it with `git remote add {REMOTE} …`. ({error})"
        ) from None
    here = refs(root, "refs/tags", f"refs/remotes/{REMOTE}")
    _refuse_moved_tags(root, here, there)
    wanted = [f"refs/heads/{name}" for name in branches] or [name for name in there if name.startswith("refs/heads/")]
    tracked = {name: f"refs/remotes/{REMOTE}/{name.removeprefix('refs/heads/')}" for name in wanted if name in there}
    local = tracked | {name: name for name in there if name.startswith("refs/tags/")}
    refspecs = [f"+{name}:{mine}" for name, mine in local.items() if here.get(mine) != there[name]]
    depth = ["--unshallow"] if git(root, "rev-parse", "--is-shallow-repository") == "true" else []
    if depth or refspecs:
        with failpoints.failpoint("git fetch", lambda: simulate_stale_lock(root, f"refs/remotes/{REMOTE}/main")):
            options = ("--quiet", "--no-tags", "--no-write-fetch-head", *depth, "--stdin")
            git(root, "fetch", *options, REMOTE, given="".join(f"{line}\n" for line in refspecs))
    return there


def _refuse_moved_tags(root: Path, here: Mapping[str, str], there: Mapping[str, str]) -> None:
    for name, commit in there.items():
        if FIXED_TAG.fullmatch(name) and here.get(name, commit) != commit:
            tag = name.removeprefix("refs/tags/")
            raise MovedTagError(
                f"{root}: expected the tag {tag} to name one commit, found {here[name]} here and {commit} on {REMOTE}."
                f" The tag of a release never moves. Find out who moved it; if {REMOTE} is right:"
                f" `git fetch {REMOTE} +{name}:{name}`."
            )
