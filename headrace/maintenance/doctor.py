"""Checks of the machine, the workspace and the project, and of every referenced object.

Each check looks at one thing and reports what it found and how to fix it. After the checks come the problems that
stock DVC does not see, which can be repaired: lost and corrupt objects, and what killed processes left behind.
"""

import os
import re
import resource
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import headrace
from headrace.dataset import Dataset
from headrace.errors import HeadraceError
from headrace.maintenance.integrity import find_damage
from headrace.maintenance.references import ReferencedObjects, tagged_revisions
from headrace.maintenance.repair import RepairResult, repair_objects
from headrace.maintenance.stale_files import StaleFile, find_stale_files
from headrace.project import dvc_stages, engine_lock
from headrace.project.loading import load_datasets
from headrace.runs.old_runs import live_run_revisions
from headrace.runs.run_refs import RunRefs
from headrace.settings import Settings, load_settings
from headrace.storage import git, git_remote, golden
from headrace.storage.dvc.cache import Cache
from headrace.storage.files import read_config
from headrace.storage.table_store import TableStore
from headrace.text import pluralize
from headrace.unexpected_errors import describe_error, is_known_os_error, to_filesystem_error

PYTHON_VERSIONS = ((3, 11), (3, 14))
REMOTE = "DVC remote"
MIN_OPEN_FILES = 1024
MIN_FREE_BYTES = 1024**3
REPAIR_ROUNDS = 3
"""A repaired directory object lists files that may be damaged, too."""

LIBRARIES = ("dask", "dvc", "polars", "pyarrow")
OPTIONAL_LIBRARIES = ("apache-airflow", "feast", "label-studio-sdk")
"""Libraries that an extra installs, and that are reported only if they are installed."""

VARIABLE = re.compile(r"\$\{(\w+)\}")


class CheckWarningError(HeadraceError):
    """A check found something that only some commands need. It does not make `doctor` fail."""


@dataclass(frozen=True)
class CheckResult:
    """Result of one check.

    Attributes:
        name: What was checked.
        ok: Whether it is as it should be.
        detail: What was found; if it is not ok, with the next command.
        is_warning: Whether it matters to some commands only, so that `doctor` does not fail.
    """

    name: str
    ok: bool
    detail: str
    is_warning: bool = False


@dataclass(frozen=True)
class CleanupResult:
    """What became of one stale file.

    Attributes:
        stale_file: The file.
        removed: Whether it was removed.
        error: Why it could not be removed; empty if that was not tried.
    """

    stale_file: StaleFile
    removed: bool = False
    error: str = ""


@dataclass(frozen=True)
class IntegrityReport:
    """Damaged objects and stale files, and what was done about them.

    Attributes:
        objects: Number of objects that were checked.
        revisions: Number of releases, and of states of runs, that reference them, HEAD included.
        repairs: Damaged objects.
        cleanups: Stale files.
    """

    objects: int
    revisions: int
    repairs: Sequence[RepairResult]
    cleanups: Sequence[CleanupResult]

    @property
    def ok(self) -> bool:
        """Whether nothing remains to be repaired."""
        return all(item.repaired for item in self.repairs) and all(item.removed for item in self.cleanups)


def check_integrity(table_store: TableStore, *, deep: bool = False, repair: bool = False) -> IntegrityReport:
    """Check every object that a release, HEAD, a run or the workspace references, and look for stale files.

    Args:
        table_store: The workspace's tables.
        deep: Hash every byte instead of comparing sizes.
        repair: Repair what can be repaired, and remove stale files.
    """
    with suppress(HeadraceError):  # whether the git remote answers is a check of its own
        git_remote.fetch(table_store.root)
    runs = _run_revisions(table_store)
    cleanups = [_remove(item) if repair else CleanupResult(item) for item in find_stale_files(table_store)]
    repairs: dict[str, RepairResult] = {}
    for _ in range(REPAIR_ROUNDS):
        revisions = tagged_revisions(table_store) | runs
        referenced = ReferencedObjects.collect(table_store, revisions)
        damages = [damage for damage in find_damage(table_store, referenced, deep=deep) if damage.md5 not in repairs]
        results = repair_objects(table_store, damages) if repair else map(RepairResult, damages)
        repairs |= {result.damage.md5: result for result in results}
        if not (repair and damages):
            break
    return IntegrityReport(len(referenced.sizes), len(revisions), list(repairs.values()), cleanups)


def _run_revisions(table_store: TableStore) -> dict[str, str]:
    """What live runs have recorded and pushed; nothing if the git remote does not answer."""
    settings = load_settings(table_store.root)
    with suppress(HeadraceError):
        return live_run_revisions(RunRefs.pushed(table_store.root, settings), settings)
    return {}


def remote_available(results: Iterable[CheckResult]) -> bool:
    """Whether the DVC remote answered. Without it the integrity of objects cannot be checked."""
    return all(result.ok for result in results if result.name == REMOTE)


def _remove(stale_file: StaleFile) -> CleanupResult:
    try:
        stale_file.remove()
    except (HeadraceError, OSError) as error:
        return CleanupResult(stale_file, error=str(error))
    return CleanupResult(stale_file, removed=True)


def run_checks(settings: Settings) -> list[CheckResult]:
    """Everything that a run needs, one check after the other. A check that fails does not stop the others."""
    root = settings.workspace
    checks: dict[str, Callable[[], str]] = {
        "Python": _check_python,
        "libraries": _check_libraries,
        "Parquet writer": _check_parquet_writer,
        "workspace": lambda: f"{root.resolve()} at {git.head(root)[:10]}",
        engine_lock.FILE: lambda: _check_engine_lock(root),
        "dvc.yaml": lambda: _check_dvc_files(root),
    }
    results = [_run_check(name, check) for name, check in checks.items()]
    results += _check_datasets()
    services: dict[str, Callable[[], str]] = {
        "DVC remote verifies what it pulls": lambda: _check_verify_option(root),
        REMOTE: lambda: _check_remote(root),
        "git remote": lambda: f"{pluralize(len(git_remote.remote_refs(root, 'refs/tags/*')), 'tag')} on {git.REMOTE}",
        "Feast's configuration": lambda: _check_feast(root),
        "open files": _check_open_files,
        "disk": lambda: _check_disk(root),
    }
    return [*results, *(_run_check(name, check) for name, check in services.items())]


def _run_check(name: str, check: Callable[[], str]) -> CheckResult:
    try:
        return CheckResult(name, ok=True, detail=check())
    except CheckWarningError as warning:
        return CheckResult(name, ok=False, detail=str(warning), is_warning=True)
    except HeadraceError as error:
        return CheckResult(name, ok=False, detail=str(error))
    except Exception as error:  # noqa: BLE001  the one command that must say what is wrong never fails itself
        known = to_filesystem_error(error) if is_known_os_error(error) else describe_error(error)
        return CheckResult(name, ok=False, detail=str(known))


def _check_python() -> str:
    lowest, below = PYTHON_VERSIONS
    found = sys.version.split()[0]
    if not lowest <= sys.version_info[:2] < below:
        raise HeadraceError(
            f"expected Python 3.11 to 3.13, found {found}. Create an environment with one of them, for example"
            " `python3.12 -m venv .venv`, and install Headrace there."
        )
    return found


def _check_libraries() -> str:
    try:
        versions = {name: version(name) for name in LIBRARIES}
    except PackageNotFoundError as error:
        raise HeadraceError(f"{error.name} is not installed. Run `pip install headrace`.") from None
    for name in OPTIONAL_LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def _check_parquet_writer() -> str:
    golden.check_writer()
    return "writes the bytes that tables are recorded with"


def _check_engine_lock(root: Path) -> str:
    lock = engine_lock.EngineLock.read(root)
    if lock is None:
        raise CheckWarningError(
            f"there is no {engine_lock.FILE}, so nothing stops another environment from computing other values. Run"
            " `headrace dvc-sync`, then commit it."
        )
    engine_lock.check_environment(root)
    return f"headrace {headrace.__version__} and {len(lock.libraries)} libraries are the ones it names"


def _check_dvc_files(root: Path) -> str:
    if not (root / "dvc.yaml").exists():
        raise HeadraceError(f"there is no dvc.yaml in {root.resolve()}. Run `headrace dvc-sync`, then commit it.")
    files = dvc_stages.check_dvc_files(root)
    unchecked = f"; not checked: those of {', '.join(files.broken)}" if files.broken else ""
    return f"{files.stages} stages, as the datasets declare{unchecked}"


def _check_datasets() -> Iterator[CheckResult]:
    """One result per dataset: a folder that cannot be loaded does not hide the others."""
    try:
        datasets, broken = load_datasets()
    except HeadraceError as error:
        yield CheckResult("datasets", ok=False, detail=str(error))
        return
    results = [CheckResult(f"dataset {dataset.name}", ok=True, detail=_describe(dataset)) for dataset in datasets]
    results += [CheckResult(f"dataset {name}", ok=False, detail=str(error)) for name, error in broken.items()]
    yield from sorted(results, key=lambda result: result.name)


def _describe(dataset: Dataset) -> str:
    return ", ".join(
        (
            pluralize(len(dataset.sources), "source"),
            pluralize(len(dataset.features), "feature table"),
            pluralize(len(dataset.labels), "labeling task"),
        )
    )


def _check_verify_option(root: Path) -> str:
    if not Cache.of(root.resolve()).remote.is_verified:
        remote = read_config(root).get("core", {}).get("remote", "storage")
        raise HeadraceError(
            "`verify` is not set, so `dvc pull` does not notice corrupt objects."
            f" Run `dvc remote modify {remote} verify true`."
        )
    return "verify = true"


def _check_remote(root: Path) -> str:
    remote = Cache.of(root.resolve()).remote
    next(remote.bucket.list(remote.prefix + "/"), None)
    return f"s3://{remote.bucket.name}/{remote.prefix} answers"


def _check_feast(root: Path) -> str:
    """Whether the variables are set that `feature_store.yaml` refers to."""
    path = root / "feature_repo" / "feature_store.yaml"
    text = re.sub(r"(^|\s)#.*", r"\1", path.read_text("utf-8"), flags=re.MULTILINE) if path.exists() else ""
    names = sorted(set(VARIABLE.findall(text)))
    if unset := [name for name in names if not os.environ.get(name)]:
        raise CheckWarningError(
            f"{' and '.join(unset)} not set; publish and retrieve need {'them' if len(unset) > 1 else 'it'}. `headrace"
            " stack up` sets them for the local stack; otherwise add them to .env."
        )
    return f"{', '.join(names) or 'no variable'} set"


def _check_open_files() -> str:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < MIN_OPEN_FILES:
        raise CheckWarningError(
            f"expected a limit of at least {MIN_OPEN_FILES:,}, found {soft:,}. Run `ulimit -n {MIN_OPEN_FILES}`."
        )
    return "no limit" if soft == resource.RLIM_INFINITY else f"a limit of {soft:,}"


def _check_disk(root: Path) -> str:
    cache = Cache.of(root.resolve()).folder
    free = min(shutil.disk_usage(path).free for path in (root, cache if cache.exists() else root))
    if free < MIN_FREE_BYTES:
        raise HeadraceError(
            f"expected at least 1 GiB free, found {free:,} bytes. `headrace gc` lists objects that can be deleted."
        )
    return f"{free / MIN_FREE_BYTES:,.1f} GiB free"
