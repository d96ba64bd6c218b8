"""Can this machine and workspace do the work? Each check looks at one thing and says what it saw, and what mends it."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from pipelines import repro
from pipelines.errors import HeadraceError
from pipelines.settings import Settings
from pipelines.systems import git
from pipelines.systems.dvc import Cache

PYTHON = ((3, 11), (3, 14))


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    is_well: bool
    seen: str


def examine(settings: Settings) -> list[Check]:
    """Everything a run needs, looked at in turn; a check that fails does not keep the others from being made."""
    return [_made(name, look) for name, look in _checks(settings)]


def _checks(settings: Settings) -> Iterator[tuple[str, Callable[[], str]]]:
    root = settings.workspace
    yield "Python", _python
    yield "libraries", _libraries
    yield "workspace", lambda: f"{root.resolve()} at {git.head(root)[:10]}"
    yield "dvc.yaml", lambda: f"{repro.check(root)} stages, as the datasets declare"
    yield "DVC remote verifies what it pulls", lambda: _verifies(settings)
    yield "DVC remote", lambda: _remote(settings)
    yield "git remote", lambda: f"{len(git.remote_tags(root, ''))} tags on {git.REMOTE}"


def _made(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, is_well=True, seen=look())
    except HeadraceError as error:
        return Check(name, is_well=False, seen=str(error))


def _python() -> str:
    low, high = PYTHON
    seen = sys.version.split()[0]
    if not low <= sys.version_info[:2] < high:
        raise HeadraceError(f"expected 3.11 to 3.13, seen {seen}. Run `make install PYTHON=python3.12`.")
    return seen


def _libraries() -> str:
    names = ("apache-airflow", "dask", "dvc", "feast", "polars", "pyarrow")
    try:
        return ", ".join(f"{name} {version(name)}" for name in names)
    except PackageNotFoundError as error:
        raise HeadraceError(f"{error.name} is not installed. Run `make install`.") from None


def _verifies(settings: Settings) -> str:
    if not Cache.of(settings.workspace.resolve()).remote.is_verified:
        raise HeadraceError(
            "verify is not set, so that `dvc pull` hands out a corrupt object as good."
            " Run `dvc remote modify storage verify true`."
        )
    return "verify = true"


def _remote(settings: Settings) -> str:
    remote = Cache.of(settings.workspace.resolve()).remote
    next(remote.bucket.list(remote.prefix + "/"), None)
    return f"s3://{remote.bucket.name}/{remote.prefix} answers"
