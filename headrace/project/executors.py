"""Compute the stale partitions of a plan: in this thread, in threads, or on a Dask cluster, with the same bytes."""

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.engine.compute import Engine, PartitionResult, compute_partitions, with_sha256s
from headrace.engine.fingerprint import Fingerprint, stage_code
from headrace.engine.plan import Plan, StalePartition
from headrace.engine.result_versions import result_version
from headrace.engine.run import Done
from headrace.engine.stage import Stage
from headrace.errors import HeadraceError, TransientError
from headrace.project import graph
from headrace.project.engine_lock import check_environment
from headrace.project.loading import project_root
from headrace.settings import Settings
from headrace.storage.dvc.cache import Cache
from headrace.storage.dvc.remote import Remote
from headrace.storage.table_store import Lake

if TYPE_CHECKING:
    from distributed import Client, Future

INLINE_LIMIT = 3
"""Up to so many stale partitions, or those of one query, are computed in this thread: threads cost more to start."""

RETRIES = 3
"""How often a partition is tried again when its worker dies."""

GROUP_BYTES = 3 << 20
"""Bytes of inputs up to which partitions are computed together; unpacked they are ten to twenty times as many."""

CONNECT_SECONDS = 20
MOST_SHOWN = 5
"""Refused partitions whose message is shown in full."""

STARTED = time.time()
"""When this process loaded the code."""

Tell = Callable[[str, PartitionResult], None]
Progress = Callable[[str, int, int], None]
"""Called with a stage's table, the number of partitions that are done, and the number of all."""


class PartitionsRefusedError(HeadraceError):
    """Several partitions could not be computed, at least one for a terminal reason; the message has the reasons."""


class PartitionsUnavailableError(TransientError):
    """Several partitions could not be computed, each for a transient reason."""


class SchedulerUnavailableError(TransientError):
    """The Dask scheduler does not answer."""


class SchedulerLostError(TransientError):
    """The connection to the Dask scheduler broke."""


class WorkerCodeError(HeadraceError):
    """A worker runs other code or libraries than the process that made the plan."""


@dataclass(frozen=True)
class Executor:
    """Computes plans: in this process, or on the Dask cluster that the settings name."""

    settings: Settings
    progress: Progress = lambda _table, _done, _total: None

    def __call__(self, plan: Plan, lake: Lake, done: Done) -> None:
        """Compute every stale partition of `plan`; `done` is called with each as it is ready.

        Raises:
            EngineMismatchError: The engine or a library is not the one that `headrace.lock` names.
            HeadraceError: A partition was refused; all the others were computed first.
        """
        check_environment(lake.root)
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

        self._compute(plan, lake, tell)
        if refused:
            raise _together(plan, [refused[name] for name in sorted(refused)])

    def _compute(self, plan: Plan, lake: Lake, tell: Tell) -> None:
        how, few = self.settings.engine, len(plan.stale) <= INLINE_LIMIT
        if self.settings.scheduler and not few:
            _on_cluster(plan, lake, self.settings.scheduler, how, tell)
            return
        whole = group_partitions(plan, lake, workers=1)
        if few or len(whole) == 1:
            for items in whole:
                for made in compute_partitions(plan.stage, with_sha256s(items, lake), plan.fingerprint, lake, how):
                    tell(*made)
        else:
            threads = 1 if how == "gpu" else self.settings.threads or os.cpu_count() or 1
            _in_threads(plan, lake, threads, how, tell)


def group_partitions(plan: Plan, lake: Lake, workers: int) -> list[Sequence[StalePartition]]:
    """The stale partitions in groups that are computed together, so that every worker has one and none is too large."""
    count = len(plan.stale)
    sizes = {md5: size for table in plan.stage.reads for md5, size in lake.manifest(table).objects.items()}
    read = {md5 for item in plan.stale for names in item.inputs.values() for md5 in names.values()}
    most = GROUP_BYTES * count // max(1, sum(sizes.get(md5, 0) for md5 in read))
    size = max(1, min(plan.stage.batch_size, most, -(-count // workers)))
    return [plan.stale[first : first + size] for first in range(0, count, size)]


def _in_threads(plan: Plan, lake: Lake, threads: int, how: Engine, tell: Tell) -> None:
    from dask.callbacks import Callback  # noqa: PLC0415  a small plan does not pay for the import
    from dask.threaded import get  # noqa: PLC0415

    gc.freeze()  # the garbage collector need not traverse what is loaded for every partition

    def make(items: Sequence[StalePartition]) -> list[tuple[str, PartitionResult]]:
        return list(compute_partitions(plan.stage, with_sha256s(items, lake), plan.fingerprint, lake, how))

    tasks = {str(number): (partial(make, items),) for number, items in enumerate(group_partitions(plan, lake, threads))}

    def tell_each(_key: str, made: list[tuple[str, PartitionResult]], *_: object) -> None:
        for each in made:
            tell(*each)

    with Callback(posttask=tell_each):
        get(tasks, list(tasks), num_workers=threads)


def _on_cluster(plan: Plan, lake: Lake, address: str, how: Engine, tell: Tell) -> None:
    from distributed import Client  # noqa: PLC0415  only a cluster pays for the import

    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except OSError as error:
        raise SchedulerUnavailableError(
            f"No Dask scheduler answered at {address} (DASK_SCHEDULER_ADDRESS) within {CONNECT_SECONDS} s: {error}."
            " Start it, or unset the variable to use this machine's threads."
        ) from None
    with client:
        job = WorkerTask(plan.stage.dataset, plan.stage.table, plan.fingerprint, WorkerStorage.from_lake(lake), how)
        together = group_partitions(plan, lake, max(1, sum(client.nthreads().values())))
        futures = [  # with the hashes: a worker that has the remote alone has no manifests
            client.submit(compute_on_worker, with_sha256s(items, lake), job, pure=False, retries=RETRIES)
            for items in together
        ]
        try:
            for computed in results_as_completed(client, futures):
                for each in computed:
                    tell(*each)
        except SchedulerLostError as error:
            raise SchedulerUnavailableError(
                f"{plan.stage.table}: the Dask scheduler at {address} (DASK_SCHEDULER_ADDRESS) stopped answering:"
                f" {' '.join(str(error).split())} What was computed until then is kept; run the same command"
                " again once it is back."
            ) from None


def results_as_completed(client: "Client", futures: Sequence["Future[Any]"]) -> Iterator[Any]:
    """The results of the futures, each as soon as it is there.

    Not `as_completed(with_results=True)`: where the scheduler dies while a result is fetched, that waits forever
    (distributed 2026.8). Fetching them one after the other costs 2 ms for each.

    Raises:
        SchedulerLostError: The connection to the scheduler broke.
        Exception: What a task raised.
    """
    from distributed import CancelledError, as_completed  # noqa: PLC0415

    for future in as_completed(futures, loop=client.loop):
        try:
            result = future.result()
        except (CancelledError, OSError) as error:
            if future.status == "error":  # raised by the task itself
                raise
            raise SchedulerLostError(str(error)) from None
        yield result


@dataclass(frozen=True)
class WorkerStorage:
    """Where a worker reads inputs and writes outputs: a workspace on a shared disk, or the DVC remote."""

    root: Path
    remote: Remote | None

    @classmethod
    def from_lake(cls, lake: Lake) -> "WorkerStorage":
        """The storage behind a workspace's tables. Credentials are not sent; a worker has its own."""
        return cls(lake.root, lake.cache.remote.without_credentials() if lake.cache.is_remote_only else None)

    def lake(self) -> Lake:
        """The tables, as a worker reads and writes them."""
        if self.remote is None:
            return Lake.at(self.root)
        return Lake(self.root, Cache(self.root, self.root, is_remote_only=True, remote_override=self.remote))


@dataclass(frozen=True)
class WorkerTask:
    """What a worker must know besides the partitions: the stage, its fingerprint, the storage, and CPU or GPU."""

    dataset: str
    table: str
    fingerprint: Fingerprint
    place: WorkerStorage
    engine: Engine


def compute_on_worker(items: Sequence[StalePartition], job: WorkerTask) -> list[tuple[str, PartitionResult]]:
    """Compute partitions on a worker, with the worker's own code.

    Raises:
        WorkerCodeError: That code or its libraries differ from those that the plan was made with.
    """
    stage = graph.find_stage(job.dataset, job.table)
    if not _runs(stage, job.fingerprint):
        raise WorkerCodeError(
            f"{job.table} {items[0].partition}: this Dask worker runs other code or libraries than the run in"
            f" {job.place.root}. Start the workers again, with that workspace's code and lock file, then run again."
        )
    return list(compute_partitions(stage, items, job.fingerprint, job.place.lake(), job.engine))


def _runs(stage: Stage, wanted: Fingerprint) -> bool:
    """Whether this process runs the code, libraries and result version of the fingerprint."""
    code = stage_code(stage)
    mine = Fingerprint({**code.files, **code.packages}, wanted.params, code.libraries, result_version(stage.verb))
    root = project_root()
    # A file written after this process started is not the code that it runs.
    return mine == wanted and all((root / name).stat().st_mtime <= STARTED for name in code.files)


def _together(plan: Plan, refused: list[HeadraceError]) -> HeadraceError:
    if len(refused) == 1:
        return refused[0]
    shown = "\n".join(f"- {error}" for error in refused[:MOST_SHOWN])
    more = f"\n… and {len(refused) - MOST_SHOWN} more" if len(refused) > MOST_SHOWN else ""
    if all(error.is_transient for error in refused):
        return PartitionsUnavailableError(f"{plan.stage.table}: {len(refused)} partitions unavailable.\n{shown}{more}")
    return PartitionsRefusedError(f"{plan.stage.table}: {len(refused)} partitions refused.\n{shown}{more}")
