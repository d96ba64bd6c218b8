"""`headrace init`: a new project, written beside its place and then renamed: it is there completely or not at all."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

import headrace
from headrace import failpoints
from headrace.errors import HeadraceError
from headrace.storage import git
from headrace.templates.example_data import rental_files
from headrace.workspace import VARIABLE, find_workspace

NAME = re.compile(r"[a-z][a-z0-9_-]*")
BRANCH = "main"
SAMPLE = Path("pipelines/bikes/sample/rentals")
DOT, SUFFIX = "dot_", ".tmpl"
"""Names of templates that git, DVC, uv and Ruff would otherwise take for this repository's own: `dot_gitignore`,
`pyproject.toml.tmpl`."""


class ProjectError(HeadraceError):
    """A project cannot be made here, or not under this name."""


class ProjectTemplate(Template):
    """Text with `@@{name}`: the dollar sign belongs to make, Docker and GitHub."""

    delimiter = "@@"


def create_project(name: str, folder: Path) -> Path:
    """Make the project `name` below `folder`: files, `dvc.yaml`, `headrace.lock` and a first commit.

    Returns:
        The project's folder.

    Raises:
        ProjectError: The name cannot be used, or something else is in its place.
    """
    target = folder / name
    _check_name(name)
    _check_place(target)
    _remove_drafts(target)
    draft = _draft(target, os.getpid())
    try:
        _write_files(name, draft)
        _sync(draft)
        git.git(draft, "init", "--quiet", "--initial-branch", BRANCH)
        git.commit(draft, ["."], f"Start {name} with Headrace {headrace.__version__}")
        with failpoints.failpoint("rename the project"):
            draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def project_files(name: str) -> dict[str, str]:
    """Path → content of the files of a new project, all but those that are generated from them."""
    values = {"name": name, "package": name.replace("-", "_"), "version": headrace.__version__}
    written = {path: ProjectTemplate(text).substitute(values) for path, text in _templates()}
    return written | {f"{SAMPLE}/{path}": text for path, text in rental_files().items()}


def _templates(folder: Traversable | None = None, above: str = "") -> Iterator[tuple[str, str]]:
    """Path in the project → text, of every template in the wheel."""
    for item in (folder or files("headrace.templates") / "project").iterdir():
        path = above + re.sub(f"^{DOT}", ".", item.name).removesuffix(SUFFIX)
        if not item.is_dir():
            yield path, item.read_text("utf-8")
        elif item.name != "__pycache__":  # installers compile the templates that are Python
            yield from _templates(item, f"{path}/")


def _write_files(name: str, draft: Path) -> None:
    with failpoints.failpoint("write the project"):
        for path, text in project_files(name).items():
            file = draft / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")


def _sync(project: Path) -> None:
    """Write `dvc.yaml` and `headrace.lock`, in a process of its own: this one may have loaded another project."""
    environment = {**os.environ, VARIABLE: str(project)}
    command = [sys.executable, "-m", "headrace", "dvc-sync"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ProjectError(f"{project}: `headrace dvc-sync` failed, so the project was not made: {done.stderr.strip()}")


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ProjectError(
            f"A project's name has lower-case letters, digits, `-` and `_`, and begins with a letter; found {name!r}."
            f" {_suggestion(name)}"
        )


def _suggestion(name: str) -> str:
    plain = re.sub(r"[^a-z0-9_]+", "-", Path(name).name.lower()).strip("-_0123456789")
    return f"`headrace init {plain}`?" if plain else "Next: `headrace init NAME`."


def _check_place(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise ProjectError(
            f"{target} exists and is not an empty folder. Nothing was written. Choose another name, or remove it first."
        )
    folder = target.parent
    project = find_workspace(folder)
    if project:
        raise ProjectError(
            f"{folder} is in the project {project}, and a project in another one would share its git history and its"
            " DVC files. Change into a folder outside it. To add a dataset to this project:"
            " `headrace new NAME --from SAMPLE`."
        )
    repository = _repository(folder)
    if repository:
        raise ProjectError(
            f"{folder} is in the git repository {repository}, and releases of a project are commits of a repository of"
            " its own. Change into a folder outside it."
        )


def _repository(folder: Path) -> str:
    """The git repository around `folder`; empty if there is none."""
    return git.run(folder, "rev-parse", "--show-toplevel").stdout.decode().strip()


def _draft(target: Path, process: int) -> Path:
    return target.with_name(f".{target.name}.{process}.new")


def _remove_drafts(target: Path) -> None:
    """Remove what an interrupted run left: a draft whose process is gone."""
    for left in target.parent.glob(f".{target.name}.*.new"):
        try:
            os.kill(int(left.name.split(".")[-2]), 0)
        except (ProcessLookupError, ValueError):
            shutil.rmtree(left, ignore_errors=True)
        except PermissionError:
            continue
