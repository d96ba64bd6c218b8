"""The workspace: a clone of what the stack serves, in which stages run, so that the user's own clone stays untouched.

`origin.git` is the bare repository between the two: it follows the user's clone, releases are pushed there, and
`git pull` from it brings them home (`headrace.stack.served_clone`).
"""

import asyncio
import configparser
import io
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from headrace.stack import environment
from headrace.stack.config import StackConfig
from headrace.stack.errors import StackError
from headrace.stack.paths import StackPaths, write_private
from headrace.stack.served_clone import BRANCH, CloneConflictError, check_clone, serve_last_commit, served_clone
from headrace.stack.server import CommandRunner, Server, System
from headrace.stack.servers import s3
from headrace.storage import git
from headrace.workspace import MARKERS, SERVED_PROJECT, VARIABLE

NAME = "workspace"
DEFAULT_REMOTE = "storage"

IGNORED = "/.env\n/.headrace/\n/.dvc/config.local\n"
"""What the stack and commands write into the workspace; the project's own `.gitignore` may not list it."""


def workspace_system(config: StackConfig) -> System:
    """Two repositories to prepare before anything that runs stages, and the process that has them follow the clone.

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
        for note in await asyncio.to_thread(lambda: list(update_workspace(config.paths, project))):
            run.note(note)
        write_access(config)

    follower = ("-P", "-m", "headrace.stack.clone_follower")
    where = ("--home", str(config.paths.home), "--project", str(project))
    server = Server(
        NAME,
        command=(sys.executable, *follower, *where),
        prepare=prepare,
        env=environment.base_environment() | environment.engine_path() | {"GIT_TERMINAL_PROMPT": "0"},
        stop_timeout_s=3,
        max_restarts=5,
    )
    return System(NAME, (server,))


def environment_for_stages(config: StackConfig) -> dict[str, str]:
    """What a process needs to run the installed engine on the workspace's declarations.

    HEADRACE_WORKSPACE selects the declarations (`headrace.workspace`). The workspace is not on PYTHONPATH: it may hold
    an engine, as the clone of this repository does, and that one must not run.
    """
    return environment.base_environment() | environment.engine_path() | {
        VARIABLE: str(config.paths.workspace),
        SERVED_PROJECT: str(config.paths.project or ""),
        "GIT_TERMINAL_PROMPT": "0",
        "DVC_NO_ANALYTICS": "true",
        "FEAST_USAGE": "False",
    }  # fmt: skip


def update_workspace(paths: StackPaths, project: Path) -> Iterator[str]:
    """Create origin and workspace, or have them follow the clone; notes for the user about what was left as it is.

    Raises:
        StackError: The project cannot be served.
    """
    check_clone(project)
    try:
        serve_last_commit(paths, project)
    except CloneConflictError as error:
        yield str(error)
    if not paths.workspace.exists():
        clone_workspace(paths)
    # The folder may have been moved or copied since.
    git.git(paths.workspace, "remote", "set-url", git.REMOTE, str(paths.origin))
    try:
        git.git(paths.workspace, "pull", "--ff-only", "--tags", "--quiet", git.REMOTE, BRANCH)
    except git.GitError:
        behind = git.git(paths.workspace, "rev-list", "--count", f"HEAD..{git.REMOTE}/{BRANCH}")
        yield (
            f"the workspace is {behind} commits behind its origin and cannot be fast-forwarded: "
            f"see `git -C {paths.workspace} status`"
        )
    if served_clone(paths, project).uncommitted:
        yield "uncommitted changes are not in the workspace: it holds what is committed"


def clone_workspace(paths: StackPaths) -> None:
    """Clone the workspace atomically; releases are commits, so it needs an author."""
    draft = paths.home / "workspace.new"
    shutil.rmtree(draft, ignore_errors=True)
    git.git(paths.home, "clone", "--quiet", "--branch", BRANCH, str(paths.origin), str(draft))
    for key, value in git.FALLBACK_IDENTITY.items():
        if not git.config_value(draft, key):
            git.git(draft, "config", key, value)
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
