"""The workspace: a clone of the project's HEAD in which stages run, so that the user's own clone stays untouched.

`origin.git` is the bare repository between the two: releases are pushed there, and `git pull` from it brings them home.
"""

import configparser
import io
import shutil
from functools import partial
from pathlib import Path
from typing import Protocol

from headrace.stack import environment
from headrace.stack.config import StackConfig
from headrace.stack.errors import StackError
from headrace.stack.paths import StackPaths, write_private
from headrace.stack.server import CommandRunner, Server, System
from headrace.stack.servers import s3
from headrace.storage.git import clean_options
from headrace.workspace import MARKERS, VARIABLE

NAME = "workspace"
BRANCH = "main"
DEFAULT_REMOTE = "storage"
IGNORED = "/.env\n/.headrace/\n/.dvc/config.local\n"
"""What the stack and commands write into the workspace; the project's own `.gitignore` may not list it."""


class GitCommand(Protocol):
    """Runs one git command and returns its output."""

    async def __call__(self, *arguments: str, check: bool = True) -> str:
        """Run it; raise if it fails, unless `check` is off."""
        ...


def workspace_system(config: StackConfig) -> System:
    """No process: two repositories to prepare before anything that runs stages.

    Raises:
        StackError: The stack has no project.
    """
    project = config.paths.project
    if project is None:
        raise StackError(
            f"There is no project to serve: expected {' and '.join(MARKERS)} in the current folder or a folder above"
            " it.\nNext: change into a project; s3, postgres and label-studio start without one (`--only`)."
        )

    async def prepare(run: CommandRunner) -> None:
        await update_workspace(config.paths, project, run)
        write_access(config)

    return System(NAME, (Server(NAME, prepare=prepare),))


def environment_for_stages(config: StackConfig) -> dict[str, str]:
    """What a process needs to run the installed engine on the workspace's declarations.

    HEADRACE_WORKSPACE selects the declarations (`headrace.workspace`). The workspace is not on PYTHONPATH: it may hold
    an engine, as the clone of this repository does, and that one must not run.
    """
    return environment.base_environment() | environment.engine_path() | {
        VARIABLE: str(config.paths.workspace),
        "GIT_TERMINAL_PROMPT": "0",
        "DVC_NO_ANALYTICS": "true",
        "FEAST_USAGE": "False",
    }  # fmt: skip


async def update_workspace(paths: StackPaths, project: Path, run: CommandRunner) -> None:
    """Create origin and workspace, or fast-forward them; what is not a fast-forward is reported and left."""
    variables = environment.base_environment() | {"GIT_TERMINAL_PROMPT": "0"}
    git = partial(run, "git", *clean_options(), env=variables)
    if not await git("-C", str(project), "rev-parse", "--verify", "--quiet", "HEAD", check=False):
        raise StackError(
            f"{project} has no commit yet, so there is nothing to clone a workspace from.\n"
            "Next: `git add --all && git commit`, with `git init` before it if this is not a git repository."
        )
    if prefix := await git("-C", str(project), "rev-parse", "--show-prefix"):
        raise StackError(
            f"{project} is the folder {prefix} of a git repository: expected a project at the top of its repository.\n"
            "Next: give the project a repository of its own."
        )
    if await git("-C", str(project), "status", "--porcelain"):
        run.note("uncommitted changes are not in the workspace: it holds what is committed")
    await update_origin(paths, project, git, run)
    if not paths.workspace.exists():
        await clone_workspace(paths, git)
        return
    await git("-C", str(paths.workspace), "pull", "--ff-only", "--tags", "--quiet", "origin", BRANCH, check=False)
    await _note_if_behind(paths, git, run)


async def _note_if_behind(paths: StackPaths, git: GitCommand, run: CommandRunner) -> None:
    behind = await git("-C", str(paths.workspace), "rev-list", "--count", f"HEAD..origin/{BRANCH}", check=False)
    if behind not in ("", "0"):
        run.note(
            f"the workspace is {behind} commits behind its origin and cannot be fast-forwarded: "
            f"see `git -C {paths.workspace} status`"
        )


async def update_origin(paths: StackPaths, project: Path, git: GitCommand, run: CommandRunner) -> None:
    """Fast-forward the origin to the project's HEAD; report histories that have diverged, and leave them."""
    in_origin = partial(git, "-C", str(paths.origin))
    if not paths.origin.exists():
        await git("init", "--quiet", "--bare", "--initial-branch", BRANCH, str(paths.origin))
    await in_origin("fetch", "--quiet", "--update-shallow", str(project), "+HEAD:refs/headrace/clone")
    ours = await in_origin("rev-parse", "refs/headrace/clone")
    theirs = await in_origin("rev-parse", "--verify", "--quiet", f"refs/heads/{BRANCH}", check=False)
    base = await in_origin("merge-base", ours, theirs, check=False) if theirs else theirs
    if base == theirs:
        await in_origin("update-ref", f"refs/heads/{BRANCH}", ours)
    elif base != ours:
        run.note(
            f"your clone ({ours[:8]}) and the workspace's origin ({theirs[:8]}) have diverged; the workspace keeps its "
            f"own commits. To join them: `git pull {paths.origin} {BRANCH}` in your clone, then `headrace stack up`"
        )


async def clone_workspace(paths: StackPaths, git: GitCommand) -> None:
    """Clone the workspace atomically; releases are commits, so it needs an author."""
    draft = paths.home / "workspace.new"
    shutil.rmtree(draft, ignore_errors=True)
    await git("clone", "--quiet", "--branch", BRANCH, str(paths.origin), str(draft))
    for key, value in (("user.name", "Headrace"), ("user.email", "headrace@localhost")):
        if not await git("-C", str(draft), "config", key, check=False):
            await git("-C", str(draft), "config", key, value)
    with (draft / ".git" / "info" / "exclude").open("a") as ignored:
        ignored.write(IGNORED)
    draft.rename(paths.workspace)


def write_access(config: StackConfig) -> None:
    """Addresses and credentials, in files that git ignores, so that plain `dvc pull` and `headrace` work there."""
    workspace = config.paths.workspace
    write_private(workspace / ".env", config.paths.env.read_text())
    if not (workspace / ".dvc").is_dir():
        return
    access = s3.s3_exports(config)
    local = configparser.ConfigParser()
    local[f"'remote \"{default_remote(workspace)}\"'"] = {
        "endpointurl": access["AWS_ENDPOINT_URL"],
        "access_key_id": access["AWS_ACCESS_KEY_ID"],
        "secret_access_key": access["AWS_SECRET_ACCESS_KEY"],
    }
    text = io.StringIO()
    local.write(text)
    write_private(workspace / ".dvc" / "config.local", text.getvalue())


def default_remote(workspace: Path) -> str:
    """Name of the DVC remote that the project pushes to."""
    shared = configparser.ConfigParser(interpolation=None)
    shared.read(workspace / ".dvc" / "config")
    return shared.get("core", "remote", fallback=DEFAULT_REMOTE)
