"""Where a stack is: the project that it serves, and its home, the folder of its data, logs, credentials and state."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.stack.errors import DamagedJsonError, StackError
from headrace.storage.files import atomic_write
from headrace.workspace import MARKERS, locate_workspace

HOME = ".headrace"
STATE_FILE = "stack.json"
WORKSPACE = "workspace"
LOW_DISK = 256 << 20
"""Bytes below which a server is likely to have failed for want of space: PostgreSQL alone writes 40 MiB at first."""


@dataclass(frozen=True)
class StackPaths:
    """The paths of one stack.

    Attributes:
        home: The folder that holds everything; removing it removes the stack.
        project: The project that the stack serves; None for servers that need no project.
    """

    home: Path
    project: Path | None = None

    @property
    def data(self) -> Path:
        """Data of the servers, one folder each."""
        return self.home / "stack"

    @property
    def logs(self) -> Path:
        """One log per process."""
        return self.home / "logs"

    @property
    def state(self) -> Path:
        """The processes that run: written by the supervisor, read by every command."""
        return self.home / STATE_FILE

    @property
    def env(self) -> Path:
        """The settings with which a pipeline reaches the servers (KEY=value lines)."""
        return self.home / "stack.env"

    @property
    def lock(self) -> Path:
        """Locked by the supervisor for as long as it lives."""
        return self.data / "lock"

    @property
    def origin(self) -> Path:
        """The bare git repository that releases are pushed to."""
        return self.home / "origin.git"

    @property
    def workspace(self) -> Path:
        """The clone in which stages run."""
        return self.home / WORKSPACE

    def log(self, name: str) -> Path:
        """The log of one process."""
        return self.logs / f"{name}.log"

    def create(self) -> None:
        """Create the folders, which only their owner can enter. Git ignores them: they hold credentials."""
        parents = [folder for folder in self.home.parents if folder.name == HOME]
        for folder in (*reversed(parents), self.home):
            _create_private(folder)
        for folder in (self.data, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        ignore = self.home / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")


def stack_paths(home: Path | None = None, project: Path | None = None) -> StackPaths:
    """The paths of the stack in `home`, by default in `.headrace` of the project.

    Inside the workspace of a stack, the defaults are that stack and the project that it serves.

    Args:
        home: The stack's folder.
        project: The project that it serves, by default that of the current folder.

    Raises:
        StackError: Neither a home was given nor is the current folder in a project.
    """
    current = locate_workspace()
    enclosing = _stack_of_workspace(current) if current else None
    if enclosing and project is None:
        return enclosing if home is None else StackPaths(home.expanduser().resolve(), enclosing.project)
    project = project or current
    if home is None and project is None:
        raise StackError(
            f"There is no project here: expected {' and '.join(MARKERS)} in {Path.cwd()} or a folder above it.\n"
            "Next: change into a project, or create one with `headrace init NAME`."
        )
    home = (project or Path()) / HOME if home is None else home.expanduser()
    return StackPaths(home.resolve(), project.resolve() if project else None)


def _stack_of_workspace(folder: Path) -> StackPaths | None:
    """The stack whose workspace is `folder`, if it is one."""
    if folder.name != WORKSPACE:
        return None
    try:
        project = read_json(folder.parent / STATE_FILE).get("project")
    except DamagedJsonError:
        return None
    return StackPaths(folder.parent.resolve(), Path(project)) if project else None


def low_disk_note(folder: Path) -> str:
    """A sentence for an error message if the disk is (almost) full, since then logs may not say so; else empty."""
    free = shutil.disk_usage(folder).free
    return f"\nOnly {free >> 20} MiB are free on the disk of {folder}: make room first." if free < LOW_DISK else ""


def disk_message(home: Path, error: OSError) -> str:
    """What to do about a file of the home that cannot be written, for example because the disk is full."""
    free = shutil.disk_usage(next(folder for folder in (home, *home.parents) if folder.exists())).free
    return (
        f"The stack cannot write to {home}: {error.strerror or error} ({free >> 20:,} MiB are free there).\n"
        "Next: make room on the disk, or make the folder writable, then `headrace stack up` again."
    )


def _create_private(folder: Path) -> None:
    """Create a folder with mode 0700; take the rights of others from one that an earlier version created."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid == os.geteuid() and status.st_mode & 0o077:
        folder.chmod(0o700)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one if there is no file.

    Raises:
        DamagedJsonError: The file holds no JSON object: it is empty, or was cut.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DamagedJsonError(f"{path} is damaged: expected a JSON object, found {error}.") from None
    if not isinstance(content, dict):
        raise DamagedJsonError(f"{path} is damaged: expected a JSON object, found {type(content).__name__}.")
    return content


def write_private(path: Path, text: str) -> None:
    """Write a file atomically that only its owner can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, text.encode(), is_private=True)
