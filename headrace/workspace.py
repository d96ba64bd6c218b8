"""The workspace: the git clone of a project in which commands run. It imports only the standard library."""

import os
import re
import sys
from importlib import invalidate_caches
from pathlib import Path

from headrace.errors import HeadraceError
from headrace.project_modules import watch_imports

PACKAGE = "pipelines"
"""The folder and Python package that holds a project's datasets. No other module of Headrace names it."""

DATASET_NAME = re.compile(r"[a-z][a-z0-9_]*")
"""What a dataset's folder, a source and a table may be called: the name of a package, a file and a column."""

VARIABLE = "HEADRACE_WORKSPACE"
ENV_FILES = (".env", ".headrace/stack.env")
"""Files of a workspace with environment variables; the first that sets one decides."""

SERVED_PROJECT = "HEADRACE_SERVED_PROJECT"
"""Variable of the local stack: the clone whose last commit its runs work on."""

SERVED_REF = "refs/headrace/served"
"""Ref of the local stack's origin: the commit of that clone which the origin has followed to."""

MARKERS = ("dvc.yaml", f"{PACKAGE}/__init__.py")


def find_workspace(folder: Path) -> Path | None:
    """The nearest folder, from `folder` upwards, that is a Headrace project; None if there is none."""
    return next((path for path in (folder, *folder.parents) if is_project(path)), None)


def is_project(folder: Path) -> bool:
    """Whether `folder` is the top of a Headrace project."""
    return all((folder / marker).exists() for marker in MARKERS)


def locate_workspace() -> Path | None:
    """The folder that HEADRACE_WORKSPACE names, or the nearest project from the current folder upwards."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else find_workspace(Path.cwd())


def enter_workspace() -> None:
    """Make the current workspace the one of this process and of those that it starts."""
    root = locate_workspace()
    if root is not None:
        os.environ[VARIABLE] = str(root)
        use_project(root)


def current_workspace(workspace: Path | None = None) -> Path:
    """The given workspace, else the one that HEADRACE_WORKSPACE names, else the nearest one upwards.

    Raises:
        HeadraceError: There is none.
    """
    if workspace is not None or os.environ.get(VARIABLE):
        return (workspace or Path(os.environ[VARIABLE])).resolve()
    root = find_workspace(Path.cwd())
    if root is None:
        raise _no_project(f"in {Path.cwd()} or a folder above it")
    return root


def check_project(root: Path) -> None:
    """Check that a folder is the top of a Headrace project.

    Raises:
        HeadraceError: It is not.
    """
    if not is_project(root):
        raise _no_project(f"in {root.resolve()}")


def _no_project(where: str) -> HeadraceError:
    return HeadraceError(
        f"There is no project here: expected {' and '.join(MARKERS)} {where}. Change into a clone of the project, set"
        f" {VARIABLE} to it, or make one with `headrace init NAME`."
    )


def use_project(root: Path) -> None:
    """Import declarations from the project `root` from here on.

    Raises:
        HeadraceError: The process has already imported those of another project.
    """
    root = root.resolve()
    loaded = sys.modules.get(PACKAGE)
    folder = Path(next(iter(loaded.__path__))).resolve() if loaded else root / PACKAGE
    if folder.parent != root:
        raise HeadraceError(
            f"This process has loaded the datasets of {folder.parent}, so it cannot load those of {root}."
            " Use one process per project."
        )
    watch_imports(root)
    if sys.path[:1] != [str(root)]:
        sys.path.insert(0, str(root))
        invalidate_caches()


def load_env_files(root: Path | None = None) -> None:
    """Set the variables that the files of a workspace hold and the environment does not.

    Args:
        root: The workspace, by default the one that HEADRACE_WORKSPACE names, or the current folder.
    """
    from dotenv import load_dotenv  # noqa: PLC0415  only a command that runs pays for the import

    for name in ENV_FILES:
        load_dotenv((root or Path(os.environ.get(VARIABLE, ""))) / name, override=False)
