"""The workspace: a clone of this repository's HEAD in which stages run, so that the user's own clone stays clean.

origin.git is the bare repository between the two: releases are pushed there, and `git pull` from it brings them home.
"""

import configparser
import io
import shutil
from functools import partial
from typing import Protocol

from headrace.stack import environment
from headrace.stack.errors import StackError
from headrace.stack.paths import Home, Site, write_private
from headrace.stack.server import Runner, Server, System
from headrace.stack.servers import s3

BRANCH = "main"
REMOTE = "storage"


class Git(Protocol):
    """One git command: its output."""

    async def __call__(self, *arguments: str, check: bool = True) -> str:
        """Run it; raise when it fails, unless told not to."""
        ...


def system(site: Site) -> System:
    """Nothing that runs: two folders to prepare before anything that runs stages."""

    async def prepare(run: Runner) -> None:
        await bring_up_to_date(site.home, run)
        write_access(site)

    return System("workspace", (Server("workspace", prepare=prepare),))


def env(site: Site) -> dict[str, str]:
    """What a process needs to run the workspace's code rather than the code of the clone beside it."""
    workspace = str(site.home.workspace)
    return environment.plain() | {
        "HEADRACE_WORKSPACE": workspace,
        "PYTHONPATH": workspace,
        "GIT_TERMINAL_PROMPT": "0",
        "DVC_NO_ANALYTICS": "true",
        "FEAST_USAGE": "False",
    }


async def bring_up_to_date(home: Home, run: Runner) -> None:
    """Make origin and workspace, or move them forward where that loses nothing."""
    git = partial(run, "git", env=environment.plain() | {"GIT_TERMINAL_PROMPT": "0"})
    if not await git("-C", str(home.repository), "rev-parse", "--verify", "--quiet", "HEAD", check=False):
        raise StackError(
            f"{home.repository} has no commit yet, so there is nothing to clone a workspace from.\nNext: `git commit`."
        )
    if await git("-C", str(home.repository), "status", "--porcelain"):
        run.note("uncommitted changes are not in the workspace: it holds what is committed")
    await refresh_origin(home, git, run)
    if not home.workspace.exists():
        await clone(home, git)
        return
    await git("-C", str(home.workspace), "pull", "--ff-only", "--tags", "--quiet", "origin", BRANCH, check=False)
    await _say_if_behind(home, git, run)


async def _say_if_behind(home: Home, git: Git, run: Runner) -> None:
    behind = await git("-C", str(home.workspace), "rev-list", "--count", f"HEAD..origin/{BRANCH}", check=False)
    if behind not in ("", "0"):
        run.note(
            f"the workspace lacks {behind} commits of its origin and cannot simply go forward: "
            f"look with `git -C {home.workspace} status`"
        )


async def refresh_origin(home: Home, git: Git, run: Runner) -> None:
    """Take in the clone's HEAD when that is a step forward; otherwise say what differs, and leave it."""
    at = partial(git, "-C", str(home.origin))
    if not home.origin.exists():
        await git("init", "--quiet", "--bare", "--initial-branch", BRANCH, str(home.origin))
    await at("fetch", "--quiet", "--update-shallow", str(home.repository), "+HEAD:refs/headrace/clone")
    mine = await at("rev-parse", "refs/headrace/clone")
    theirs = await at("rev-parse", "--verify", "--quiet", f"refs/heads/{BRANCH}", check=False)
    base = await at("merge-base", mine, theirs, check=False) if theirs else theirs
    if base == theirs:
        await at("update-ref", f"refs/heads/{BRANCH}", mine)
    elif base != mine:
        run.note(
            f"your clone ({mine[:8]}) and the workspace's origin ({theirs[:8]}) have gone separate ways; the workspace "
            f"keeps its own. To join them: `git pull {home.origin} {BRANCH}` in your clone, then `headrace stack up`"
        )


async def clone(home: Home, git: Git) -> None:
    """Clone the workspace, whole or not at all; releases are commits, so it needs an author."""
    draft = home.root / "workspace.new"
    shutil.rmtree(draft, ignore_errors=True)
    await git("clone", "--quiet", "--branch", BRANCH, str(home.origin), str(draft))
    for key, value in (("user.name", "Headrace"), ("user.email", "headrace@localhost")):
        if not await git("-C", str(draft), "config", key, check=False):
            await git("-C", str(draft), "config", key, value)
    draft.rename(home.workspace)


def write_access(site: Site) -> None:
    """Addresses and keys, in files that git ignores, so that plain `dvc pull` and `headrace` work there."""
    workspace = site.home.workspace
    write_private(workspace / ".env", site.home.env.read_text())
    if not (workspace / ".dvc").is_dir():
        return
    access = s3.exports(site)
    config = configparser.ConfigParser()
    config[f"'remote \"{REMOTE}\"'"] = {
        "endpointurl": access["AWS_ENDPOINT_URL"],
        "access_key_id": access["AWS_ACCESS_KEY_ID"],
        "secret_access_key": access["AWS_SECRET_ACCESS_KEY"],
    }
    text = io.StringIO()
    config.write(text)
    write_private(workspace / ".dvc" / "config.local", text.getvalue())
