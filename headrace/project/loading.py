"""The datasets of a project: every folder of `pipelines/` is one, and its name is the dataset's name.

The declarations are those of the current workspace (`headrace.workspace`), in a command as in a training script or a
notebook: no process needs `PYTHONPATH`. A Dask worker loads those of the run (`worker_processes`). A broken
folder is an error of that dataset alone.
"""

import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from headrace.dataset import Dataset
from headrace.errors import HeadraceError
from headrace.project.declaration_check import check_declaration
from headrace.project.findings import Finding, errors
from headrace.unexpected_errors import is_failure, name_error
from headrace.workspace import DATASET_NAME, PACKAGE, locate_workspace, use_project


class DatasetError(HeadraceError):
    """The folder of a dataset cannot be loaded, or what it declares can only fail.

    Attributes:
        findings: What is wrong, each with file and line.
    """

    def __init__(self, message: str, findings: Sequence[Finding] = ()) -> None:
        super().__init__(message)
        self.findings = tuple(findings)


def project_root() -> Path:
    """Folder of the project whose declarations this process imports.

    Raises:
        HeadraceError: No project can be imported.
    """
    folder = _package_folder()
    if folder is None:
        raise HeadraceError(
            f"There is no project here: expected a package `{PACKAGE}` in {Path.cwd()} or a folder above it."
            " Change into a project, or make one with `headrace init NAME`."
        )
    return folder.parent


def dataset_names(root: Path | None = None) -> tuple[str, ...]:
    """Names of a project's datasets, sorted: every folder of `pipelines/` that has an `__init__.py`.

    Folders whose names begin with `_` or `.` hold shared code and are skipped. Without `root`, the project is the one
    that this process imports.
    """
    return tuple(sorted(path.parent.name for path in _dataset_files((root or project_root()) / PACKAGE)))


@cache
def load_dataset(name: str) -> Dataset:
    """The declaration of the dataset `name`, checked.

    Raises:
        DatasetError: There is no such folder, it cannot be loaded, or what it declares can only fail.
    """
    dataset = import_dataset(name)
    if wrong := errors(check_declaration(dataset, project_root())):
        raise _declaration_error(name, wrong)
    return dataset


def import_dataset(name: str) -> Dataset:
    """The declaration of the dataset `name`, as its folder has it.

    Raises:
        DatasetError: There is no such folder, or it cannot be imported.
    """
    check_declared(name, project_root())
    if not DATASET_NAME.fullmatch(name):
        raise DatasetError(
            f"{PACKAGE}/{name}: expected a folder name of lower-case letters, digits and underscores that begins with a"
            f" letter, found {name!r}. Rename the folder."
        )
    try:
        declared = getattr(import_module(f"{PACKAGE}.{name}"), "DATASET", None)
    except BaseException as error:  # whatever a declaration raises is an error of that dataset
        if not is_failure(error):
            raise
        raise _import_error(name, error) from error
    if not isinstance(declared, Dataset):
        found = "none" if declared is None else type(declared).__name__
        raise DatasetError(
            f"{PACKAGE}/{name}/__init__.py: expected `DATASET = Dataset(...)`, found {found}. A folder of shared code"
            " has a name that begins with an underscore."
        )
    if declared.name not in {"", name}:
        raise DatasetError(
            f"{PACKAGE}/{name}/__init__.py: DATASET is named {declared.name!r}, its folder {name!r}. The folder names"
            " the dataset: leave `name` out."
        )
    return replace(declared, name=name)


def check_declared(name: str, root: Path) -> None:
    """Check that the project in `root` has a folder of that name; nothing is imported.

    Raises:
        DatasetError: It has none.
    """
    names = dataset_names(root)
    if name not in names:
        raise DatasetError(
            f"There is no dataset {name!r} in {root / PACKAGE}. Declared there: {', '.join(names) or 'none'}."
            " `headrace new` adds one from a sample."
        )


def load_datasets() -> tuple[list[Dataset], dict[str, DatasetError]]:
    """Every dataset of the project that loads, and dataset name → error for those that do not."""
    loaded, broken = [], {}
    for name in dataset_names():
        try:
            loaded.append(load_dataset(name))
        except DatasetError as error:
            broken[name] = error
    return loaded, broken


def _package_folder() -> Path | None:
    module = sys.modules.get(PACKAGE)
    if module is not None:
        return Path(next(iter(module.__path__))).resolve()
    if (root := locate_workspace()) is not None:
        use_project(root)
    spec = find_spec(PACKAGE)
    return (
        Path(next(iter(spec.submodule_search_locations))).resolve()
        if spec and spec.submodule_search_locations
        else None
    )


def _dataset_files(package: Path) -> Iterator[Path]:
    return (path for path in package.glob("*/__init__.py") if not path.parent.name.startswith(("_", ".")))


def _declaration_error(name: str, wrong: Sequence[Finding]) -> DatasetError:
    first, *others = wrong
    if others:
        lines = "".join(f"\n  {finding.file}:{finding.line}: {finding.problem}" for finding in wrong)
        what, fix = f"{lines}\n", "Fix them"
    else:
        what, fix = f" {first.problem} ", f"Fix it in {first.file}:{first.line}"
    return DatasetError(
        f"The dataset {name} ({PACKAGE}/{name}) cannot be loaded:{what}{fix}, then run the command again; the other"
        " datasets are not affected.",
        wrong,
    )


def _import_error(name: str, error: BaseException) -> DatasetError:
    """The error, with the last line of the dataset's own code in its traceback."""
    marker = f"/{PACKAGE}/"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if marker in frame.filename]
    file, line = f"{PACKAGE}/{name}/__init__.py", 1
    if isinstance(error, SyntaxError) and error.filename:
        file, line = error.filename, error.lineno or 1
    elif frames:
        file, line = frames[-1].filename, frames[-1].lineno or 1
    shown = file[file.index(marker) + 1 :] if marker in file else file
    found = name_error(error)
    finding = Finding(shown, line, f"{found}. Fix it; nothing of the dataset can be loaded.", "error", name)
    return DatasetError(
        f"The dataset {name} cannot be loaded: {found} ({file}:{line}). Fix it, then run the command again; the other"
        " datasets are not affected.",
        [finding],
    )
