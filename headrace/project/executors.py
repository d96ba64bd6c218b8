"""Compute the stale partitions of a plan: in this thread, in threads, or on a Dask cluster, with the same bytes."""

import gc
import os
import pickle
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import headrace
from headrace.engine.code_hash import source_code
from headrace.engine.compute import Engine, PartitionResult, compute_partitions, with_input_files
from headrace.engine.fingerprint import check_code_unchanged
from headrace.engine.partition_errors import combine_stage_errors
from headrace.engine.plan import Plan, StalePartition
from headrace.engine.run import Done
from headrace.engine.stage import Stage
from headrace.errors import HeadraceError, NotConfiguredError, TransientError
from headrace.project import graph
from headrace.project.code_bundle import CodeBundle
from headrace.project.engine_lock import FILE, check_environment
from headrace.project.loading import load_dataset, project_root
from headrace.project.worker_processes import ComputationFailedError, ProcessDiedError, compute_on_worker
from headrace.project.worker_task import WorkerCodeError, WorkerStorage, WorkerTask
from headrace.project_modules import loaded_source
from headrace.settings import Settings
from headrace.storage.table_store import TableStore
from headrace.workspace import PACKAGE

if TYPE_CHECKING:
    from distributed import Client, Future

INLINE_LIMIT = 3
"""Up to so many stale partitions, or those of one query, are computed in this thread: threads cost more to start."""

RETRIES = 3
"""How often a partition is tried again when its worker dies."""

GROUP_BYTES, GROUP_ROWS = 3 << 20, 1 << 20
"""Bytes and rows of inputs up to which partitions are computed together: equal values take hardly any bytes packed."""

CONNECT_SECONDS = 20
TLS_VARIABLES = "DASK_DISTRIBUTED__COMM__TLS__CA_FILE, …__CLIENT__CERT and …__CLIENT__KEY"
PROCESSES_PER_THREAD = {"cpu": 2, "gpu": 1}
"""Processes that a worker keeps for each thread: runs of two commits take turns without a start. A GPU has no room."""

PROJECT_FILES = ("dvc.yaml", FILE, "params.yaml")
"""What makes a folder a project, beside its code."""

Tell = Callable[[str, PartitionResult], None]
Progress = Callable[[str, int, int], None]
"""Called with a stage's table, the number of partitions that are done, and the number of all."""


class SchedulerUnavailableError(TransientError):
    """The Dask scheduler does not answer."""


class SchedulerLostError(TransientError):
    """The connection to the Dask scheduler broke."""


class WorkerDiedError(HeadraceError):
    """Every process that computed the partition died before it was ready."""


@dataclass(frozen=True)
class Executor:
    """Computes plans: in this process, or on the Dask cluster that the settings name."""

    settings: Settings
    progress: Progress = lambda _table, _done, _total: None

    def __call__(self, plan: Plan, table_store: TableStore, done: Done) -> None:
        """Compute every stale partition of `plan`; `done` is called with each as it is ready.

        Raises:
            EngineMismatchError: The engine or a library is not the one that `headrace.lock` names.
            HeadraceError: A partition was refused; all the others were computed first.
        """
        check_environment(table_store.root)
        refused: dict[str, HeadraceError] = {}
        finished = 0

        def tell(partition: str, made: PartitionResult) -> None:
            nonlocal finished
            finished += 1
            if isinstance(made, HeadraceError):
                refused[partition] = made
            else:
                done(partition, made)
            self.progress(plan.stage.table, finished, len(plan.stale))

        self._compute(plan, table_store, tell)
        if refused:
            raise combine_stage_errors(plan, table_store, refused)

    def _compute(self, plan: Plan, table_store: TableStore, tell: Tell) -> None:
        how, few = self.settings.engine, len(plan.stale) <= INLINE_LIMIT
        if self.settings.scheduler and not few:
            _on_cluster(plan, table_store, self.settings.scheduler, how, tell)
            return
        whole = group_partitions(plan, table_store, workers=1)
        if few or len(whole) == 1:
            for items in whole:
                for made in compute_partitions(
                    plan.stage, with_input_files(items, table_store), plan.fingerprint, table_store, how
                ):
                    tell(*made)
        else:
            threads = 1 if how == "gpu" else self.settings.threads or os.cpu_count() or 1
            _in_threads(plan, table_store, threads, how, tell)


def group_partitions(plan: Plan, table_store: TableStore, workers: int) -> list[Sequence[StalePartition]]:
    """The stale partitions in groups that are computed together, so that every worker has one and none is too large."""
    count = len(plan.stale)
    if plan.stage.batch_size == 1:
        return [[item] for item in plan.stale]
    packed, rows = _input_sizes(plan, table_store)
    most = min(GROUP_BYTES * count // max(1, packed), GROUP_ROWS * count // max(1, rows))
    size = max(1, min(plan.stage.batch_size, most, -(-count // workers)))
    return [plan.stale[first : first + size] for first in range(0, count, size)]


def _input_sizes(plan: Plan, table_store: TableStore) -> tuple[int, int]:
    """Bytes of what the stale partitions read, and rows as far as they are counted: raw bytes are not."""
    size = rows = 0
    for table in plan.stage.reads:
        names = {name for item in plan.stale for name in item.inputs.get(table, ())}
        entries = table_store.manifest(table).entries
        size += sum(entries.pick("size", names).values())
        rows += sum(count or 0 for count in entries.pick("rows", names).values())
    return size, rows


def _in_threads(plan: Plan, table_store: TableStore, threads: int, how: Engine, tell: Tell) -> None:
    from dask.callbacks import Callback  # noqa: PLC0415  a small plan does not pay for the import
    from dask.threaded import get  # noqa: PLC0415

    gc.freeze()  # the garbage collector need not traverse what is loaded for every partition

    def make(items: Sequence[StalePartition]) -> list[tuple[str, PartitionResult]]:
        return list(
            compute_partitions(plan.stage, with_input_files(items, table_store), plan.fingerprint, table_store, how)
        )

    tasks = {
        str(number): (partial(make, items),)
        for number, items in enumerate(group_partitions(plan, table_store, threads))
    }

    def tell_each(_key: str, made: list[tuple[str, PartitionResult]], *_: object) -> None:
        for each in made:
            tell(*each)

    with Callback(posttask=tell_each):
        get(tasks, list(tasks), num_workers=threads)


def _on_cluster(plan: Plan, table_store: TableStore, address: str, how: Engine, tell: Tell) -> None:
    from dask import config  # noqa: PLC0415  only a cluster pays for the import
    from distributed import Client  # noqa: PLC0415

    if address.startswith("tls:") and not config.get("distributed.comm.tls.client.cert"):
        raise NotConfiguredError(
            f"The Dask scheduler at {address} (DASK_SCHEDULER_ADDRESS) admits only who shows the cluster's certificate:"
            f" expected its files in {TLS_VARIABLES}, found none. `headrace stack env` prints those of the local stack."
        )
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except OSError as error:
        raise SchedulerUnavailableError(
            f"No Dask scheduler answered at {address} (DASK_SCHEDULER_ADDRESS) within {CONNECT_SECONDS} s: {error}."
            " Start it, or unset the variable to use this machine's threads."
        ) from None
    job = WorkerTask(
        plan.stage.dataset, plan.stage.table, plan.fingerprint, WorkerStorage.from_table_store(table_store), how
    )
    with client:
        try:
            code = _send_code(client, plan)
            groups = group_partitions(plan, table_store, max(1, sum(client.nthreads().values())))
            _compute_groups(client, [with_input_files(items, table_store) for items in groups], code, job, tell)
        except SchedulerLostError as error:
            raise SchedulerUnavailableError(
                f"{plan.stage.table}: the Dask scheduler at {address} (DASK_SCHEDULER_ADDRESS) stopped answering:"
                f" {' '.join(str(error).split())} What was computed until then is kept; run the same command"
                " again once it is back."
            ) from None


def _compute_groups(
    client: "Client",
    groups: Iterable[Sequence[StalePartition]],
    code: "Future[CodeBundle]",
    job: WorkerTask,
    tell: Tell,
) -> None:
    kept = PROCESSES_PER_THREAD[job.engine]
    futures = {
        client.submit(compute_on_worker, code, job.request(items), kept, pure=False, retries=RETRIES): items
        for items in groups
    }
    alone: list[Sequence[StalePartition]] = []
    for future, answer in results_as_completed(client, list(futures)):
        items = futures[future]
        if not isinstance(answer, Exception):
            for each in pickle.loads(answer):  # noqa: S301  by our own worker
                tell(*each)
        elif len(items) > 1:
            alone += [[item] for item in items]  # so that the one that needs too much memory is named
        else:
            tell(items[0].partition, _worker_died(job, items[0], answer))
    if alone:
        _compute_groups(client, alone, code, job, tell)


def _send_code(client: "Client", plan: Plan) -> "Future[CodeBundle]":
    """The project's code on every worker, as the result of a task: if all that have it die, Dask makes it again.

    Raises:
        CodeChangedError: A file is not what the plan was made with any more.
        WorkerCodeError: The workers have no Headrace that can take it.
    """
    bundle = bundle_code(graph.dataset_stages(load_dataset(plan.stage.dataset)))
    check_code_unchanged(plan.stage, plan.fingerprint)
    code = client.submit(CodeBundle, bundle.files, key=f"headrace-code-{uuid.uuid4().hex}")
    try:
        error = code.exception()
        if not code.cancelled() and error is None:
            client.replicate(code)  # Dask gives tasks to workers that have what they need
    except OSError as lost:
        raise SchedulerLostError(str(lost)) from None
    if code.cancelled():
        raise SchedulerLostError(str(error))
    if error is not None:
        raise WorkerCodeError(
            f"{plan.stage.table}: the Dask workers cannot load this run's code by headrace {headrace.__version__}:"
            f" {error!r}. Start the workers with the engine and the libraries of the run's lock file"
            " (`headrace.lock`), then run again."
        )
    return code


def bundle_code(stages: Iterable[Stage]) -> CodeBundle:
    """The project's code as this process runs it: all below `pipelines/`, and what else of the project `stages` use."""
    root = project_root()
    names = {*PROJECT_FILES, *(path.relative_to(root).as_posix() for path in (root / PACKAGE).rglob("*.py"))}
    for stage in stages:
        names |= {*source_code(stage.modules, root).files, *stage.files}
    contents = ((name, _content(root / name)) for name in sorted(names))
    return CodeBundle({name: content for name, content in contents if content is not None})


def _content(path: Path) -> bytes | None:
    """The bytes that were compiled if it is a loaded module, else those of the file; None if there is none."""
    loaded = loaded_source(path)
    if loaded is None and path.is_file():
        return path.read_bytes()
    return loaded


def _worker_died(job: WorkerTask, item: StalePartition, error: Exception) -> WorkerDiedError:
    return WorkerDiedError(
        f"{job.table} {item.partition}: each process that computed it on the Dask cluster died before it was ready, in"
        f" {RETRIES + 1} attempts. The last one: {error}. The usual cause is too little memory; the workers' logs may"
        " say more. Give the workers more memory or fewer threads, then run the same command again."
    )


def results_as_completed(client: "Client", futures: Sequence["Future[Any]"]) -> Iterator[tuple["Future[Any]", Any]]:
    """The futures, each with its result as soon as it is there, or with the error that says that its workers died.

    Not `as_completed(with_results=True)`: where the scheduler dies while a result is fetched, that waits forever
    (distributed 2026.8).

    Raises:
        SchedulerLostError: The connection to the scheduler broke.
        Exception: What a task raised.
    """
    from distributed import CancelledError, KilledWorker, as_completed  # noqa: PLC0415

    for future in as_completed(futures, loop=client.loop):
        result: Any
        try:
            result = future.result()
        except (KilledWorker, ProcessDiedError) as error:
            result = error
        except ComputationFailedError as error:
            raise pickle.loads(error.args[0]) from None  # noqa: S301  by our own worker
        except (CancelledError, OSError) as error:
            if future.status == "error":  # raised by the task itself
                raise
            raise SchedulerLostError(str(error)) from None
        yield future, result
