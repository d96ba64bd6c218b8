"""Where a stack is: the project that it serves, and its home, the folder of its data, logs, credentials and state."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.stack.errors import StackError
from headrace.storage.files import atomic_write
from headrace.workspace import MARKERS, locate_workspace

HOME = ".headrace"
STATE_FILE = "stack.json"
WORKSPACE = "workspace"


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
        """Create the folders. Git ignores them: they hold credentials."""
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
    project = read_json(folder.parent / STATE_FILE).get("project")
    return StackPaths(folder.parent.resolve(), Path(project)) if project else None


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one if there is no file."""
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return content


def write_private(path: Path, text: str) -> None:
    """Write a file atomically that only its owner can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, text.encode(), is_private=True)
