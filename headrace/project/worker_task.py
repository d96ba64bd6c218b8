"""Tasks for the processes of Dask workers, computed there with the run's code and the worker's engine and libraries."""

import pickle
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import headrace
from headrace.engine.code_hash import current_hashes, library_version
from headrace.engine.compute import Engine, PartitionResult, compute_partitions
from headrace.engine.fingerprint import Fingerprint, stage_code
from headrace.engine.plan import StalePartition
from headrace.engine.result_versions import result_version
from headrace.engine.stage import Stage
from headrace.errors import HeadraceError
from headrace.project import graph
from headrace.project.loading import project_root
from headrace.storage.dvc.cache import Cache
from headrace.storage.dvc.remote import Remote
from headrace.storage.table_store import TableStore


class WorkerCodeError(HeadraceError):
    """A worker has another engine, other libraries or other unreleased packages than the run."""


@dataclass(frozen=True)
class WorkerStorage:
    """Where a worker reads inputs and writes outputs: a workspace on a shared disk, or the DVC remote."""

    root: Path
    remote: Remote | None

    @classmethod
    def from_table_store(cls, table_store: TableStore) -> "WorkerStorage":
        """The storage behind a workspace's tables. Credentials are not sent; a worker has its own."""
        return cls(
            table_store.root,
            table_store.cache.remote.without_credentials() if table_store.cache.is_remote_only else None,
        )

    def table_store(self) -> TableStore:
        """The tables, as a worker reads and writes them."""
        if self.remote is None:
            return TableStore.at(self.root)
        return TableStore(self.root, Cache(self.root, self.root, is_remote_only=True, remote_override=self.remote))


@dataclass(frozen=True)
class WorkerTask:
    """What a worker must know besides the partitions: the stage, its fingerprint, the storage, and CPU or GPU."""

    dataset: str
    table: str
    fingerprint: Fingerprint
    place: WorkerStorage
    engine: Engine

    def request(self, items: Sequence[StalePartition]) -> bytes:
        """The request to compute partitions. The engine's version can be read though classes have changed."""
        return pickle.dumps((headrace.__version__, pickle.dumps((self, tuple(items)))))


def run_request(request: bytes) -> list[tuple[str, PartitionResult]]:
    """Compute what a request asks for, with the project that this process loads.

    Raises:
        WorkerCodeError: The engine or a library differs from what the plan was made with.
    """
    version, content = pickle.loads(request)  # noqa: S301  Dask runs what its clients send
    try:
        job, items = pickle.loads(content)  # noqa: S301
    except (AttributeError, ImportError, TypeError):
        if version == headrace.__version__:
            raise
        raise _other_code("a request", [_difference("headrace", headrace.__version__, version)]) from None
    return compute(items, job)


def compute(items: Sequence[StalePartition], job: WorkerTask) -> list[tuple[str, PartitionResult]]:
    """Compute partitions, with the project that this process loads.

    Raises:
        WorkerCodeError: The engine or a library differs from what the plan was made with.
    """
    subject = f"{job.table} {items[0].partition}"
    # First what is installed: without it the project might not load, with a message that blames its code.
    if differences := list(_installed_differences(job.fingerprint, project_root())):
        raise _other_code(subject, differences)
    stage = graph.find_stage(job.dataset, job.table)
    if differences := list(_differences(stage, job.fingerprint)):
        raise _other_code(subject, differences)
    return list(compute_partitions(stage, items, job.fingerprint, job.place.table_store(), job.engine))


def _installed_differences(wanted: Fingerprint, root: Path) -> Iterator[str]:
    """How libraries and unreleased packages differ from those of the run. The project itself is the run's."""
    libraries = {name: _installed_version(name) for name in wanted.libraries}
    yield from _compare(libraries, wanted.libraries)
    packages = {name: digest for name, digest in wanted.code.items() if not (root / name).is_file()}
    yield from _compare({name: " ".join(current_hashes(name, root)) for name in packages}, packages)


def _differences(stage: Stage, wanted: Fingerprint) -> Iterator[str]:
    code, version = stage_code(stage), result_version(stage.verb)
    yield from _compare({**code.files, **code.packages}, wanted.code)
    yield from _compare(code.libraries, wanted.libraries)
    if version != wanted.result_version:
        there = f"{version} (headrace {headrace.__version__})"
        yield _difference(f"result version of {stage.verb}", there, str(wanted.result_version))


def _compare(there: Mapping[str, str], here: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(there.keys() | here.keys()):
        if there.get(name, "") != here.get(name, ""):
            yield _difference(name, there.get(name, ""), here.get(name, ""))


def _difference(name: str, there: str, here: str) -> str:
    return f"{name}: {there or 'none'} there, {here or 'none'} here"


def _installed_version(name: str) -> str:
    try:
        return library_version(name)
    except PackageNotFoundError:
        return ""


def _other_code(subject: str, differences: Sequence[str]) -> WorkerCodeError:
    return WorkerCodeError(
        f"{subject}: the Dask worker on {socket.gethostname()} computes with something else than this run:"
        f" {'; '.join(differences)}. Nothing was computed there. Start the workers with the engine and the libraries of"
        " the run's lock file (`headrace.lock`), then run again; for the local stack, `headrace stack up` does that."
    )
