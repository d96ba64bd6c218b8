"""What there is to run: the tables in `headrace.lock`, which `headrace dvc-sync` writes from the declarations.

A declaration itself imports data libraries, which no DAG file may pay for. What its text alone shows to be broken is
found here all the same, so that a dataset that cannot run is visible in Airflow, by name.
"""

import ast
import re
import shlex
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from headrace.errors import HeadraceError
from headrace.workspace import DATASET_NAME, PACKAGE

STAGE = re.compile(r"(?P<dataset>[a-z0-9_]+)-(?P<command>validate|transform|label)-(?P<table>[a-z0-9_]+)")
DVC_SYNC = "Run `headrace dvc-sync`, commit dvc.yaml and headrace.lock, and push."

Tables = Mapping[str, list[str]]
"""Command → tables that it computes."""


@dataclass(frozen=True)
class DatasetProblem:
    """Why a dataset cannot run.

    Attributes:
        message: What is wrong, where, and what to do.
        command: A command that fails with the details.
    """

    message: str
    command: str


def dataset_tables(project: Path) -> dict[str, Tables]:
    """Dataset → its tables, as the project's `headrace.lock` has them, or `dvc.yaml` where an older engine wrote both.

    Raises:
        HeadraceError: The file cannot be read.
    """
    lock = project / "headrace.lock"
    listed = _read(lock, "tables") if lock.exists() and "tables:" in lock.read_text() else _stages_by_name(project)
    commands = ("validate", "transform", "label")
    return {name: {command: tables.get(command, []) for command in commands} for name, tables in listed.items()}


def _stages_by_name(project: Path) -> dict[str, dict[str, list[str]]]:
    tables: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in _read(project / "dvc.yaml", "stages"):
        if stage := STAGE.fullmatch(name):
            tables[stage["dataset"]][stage["command"]].append(stage["table"])
    return tables


def _read(path: Path, key: str) -> dict[str, Any]:
    try:
        return dict(yaml.load(path.read_text(), yaml.CSafeLoader)[key] or {})
    except (OSError, yaml.YAMLError, TypeError, KeyError) as error:
        raise HeadraceError(
            f"{path} cannot be read: expected a mapping with `{key}`, found {type(error).__name__}: {error}."
            f" Restore it (`git checkout {path.name}`), or write it anew with `headrace dvc-sync`."
        ) from None


def dataset_problems(project: Path, known: Collection[str]) -> dict[str, DatasetProblem]:
    """Dataset → why it cannot run, for the datasets whose folder or stages show it.

    Args:
        project: Folder of the project.
        known: Datasets that have tables in `headrace.lock`.
    """
    folders = {path.parent.name: path.parent for path in sorted((project / PACKAGE).glob("[!._]*/__init__.py"))}
    check = "headrace dvc-sync --check"
    problems = {
        name: DatasetProblem(
            f"headrace.lock has tables of {name}, but there is no folder {PACKAGE}/{name}. {DVC_SYNC}", check
        )
        for name in known
        if name not in folders
    }
    for name, folder in folders.items():
        if message := folder_problem(folder):
            problems[name] = DatasetProblem(message, f"headrace plan {shlex.quote(name)}")
        elif name not in known:
            problems[name] = DatasetProblem(f"headrace.lock has no table of the dataset {name}. {DVC_SYNC}", check)
    return problems


def folder_problem(folder: Path) -> str:
    """Why the dataset in `folder` cannot be loaded, as far as its text shows; empty if it shows nothing."""
    where = f"{PACKAGE}/{folder.name}"
    if not DATASET_NAME.fullmatch(folder.name):
        return (
            f"{where}: expected a folder name of lower-case letters, digits and underscores that begins with a letter."
            " Rename the folder."
        )
    for path in sorted(folder.rglob("*.py")):
        try:
            module = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None)
            place = f"{where}/{path.relative_to(folder)}{f':{line}' if line else ''}"
            return f"{place}: {type(error).__name__}: {getattr(error, 'msg', error)}. Fix it and push."
        if path == folder / "__init__.py" and not _binds(module, "DATASET"):
            return f"{where}/__init__.py: expected `DATASET = Dataset(...)`, found none. Declare it and push."
    return ""


def _binds(module: ast.Module, name: str) -> bool:
    """Whether a name is assigned or imported anywhere in the module; a star import may bring any."""
    return any(
        (isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store))
        or (isinstance(node, ast.alias) and (node.asname or node.name) in {name, "*"})
        for node in ast.walk(module)
    )
