"""Dask: the stale partitions of a plan, on this process's threads or a cluster's workers; the same bytes either way."""

import gc
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipelines import graph
from pipelines.engine.build import Engine, Made, build_all
from pipelines.engine.code import RUNNING
from pipelines.engine.lake import Lake
from pipelines.engine.plan import Plan, Stale
from pipelines.engine.recipe import Recipe, code_and_libraries
from pipelines.engine.run import Done
from pipelines.errors import HeadraceError, NotConfiguredError
from pipelines.settings import Settings
from pipelines.systems.dvc.cache import Cache
from pipelines.systems.dvc.remote import Remote

INLINE = 3
"""So many stale partitions, or those of one query, are done in this thread: anything else costs more to start."""

RETRIES = 3
"""How often a partition is tried again when the worker that had it dies."""

GROUP_BYTES = 3 << 20
"""Partitions are computed together up to so many bytes of inputs, which unpack to ten or twenty times as many."""

CONNECT_SECONDS = 20
MOST_SHOWN = 5
"""Refused partitions whose message is shown in full."""

STARTED = time.time()
"""When this process loaded the code."""

Tell = Callable[[str, Made], None]
Progress = Callable[[str, int, int], None]
"""Called with a stage's table, partitions done, partitions in all."""


class PartitionsRefusedError(HeadraceError):
    """Several partitions did not meet their contract; the message holds each one's."""


class WorkerCodeError(HeadraceError):
    """A worker runs other code than the plan was made with."""


@dataclass(frozen=True)
class Executor:
    """Computes plans where the settings say."""

    settings: Settings
    progress: Progress = lambda _table, _done, _total: None

    def __call__(self, plan: Plan, lake: Lake, done: Done) -> None:
        """Compute every stale partition of `plan`, telling each to `done` as it is ready.

        Raises:
            HeadraceError: A partition was refused; all the others were computed and told first.
        """
        refused: dict[str, HeadraceError] = {}
        finished = 0

        def tell(partition: str, made: Made) -> None:
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
        how, few = self.settings.engine, len(plan.stale) <= INLINE
        if self.settings.scheduler and not few:
            _on_cluster(plan, lake, self.settings.scheduler, how, tell)
            return
        whole = groups(plan, lake, workers=1)
        if few or len(whole) == 1:
            for items in whole:
                for made in build_all(plan.stage, items, plan.recipe, lake, how):
                    tell(*made)
        else:
            threads = 1 if how == "gpu" else self.settings.threads or os.cpu_count() or 1
            _in_threads(plan, lake, threads, how, tell)


def groups(plan: Plan, lake: Lake, workers: int) -> list[Sequence[Stale]]:
    """The stale partitions in groups that are computed together, so that every worker has one and none is too large."""
    count = len(plan.stale)
    sizes = {md5: size for table in plan.stage.reads for md5, size in lake.manifest(table).objects.items()}
    read = {md5 for item in plan.stale for names in item.inputs.values() for md5 in names.values()}
    most = GROUP_BYTES * count // max(1, sum(sizes.get(md5, 0) for md5 in read))
    size = max(1, min(plan.stage.at_once, most, -(-count // workers)))
    return [plan.stale[first : first + size] for first in range(0, count, size)]


def _in_threads(plan: Plan, lake: Lake, threads: int, how: Engine, tell: Tell) -> None:
    from dask.callbacks import Callback  # noqa: PLC0415  a small plan does not pay for the import
    from dask.threaded import get  # noqa: PLC0415

    gc.freeze()  # what is loaded stays: the collector need not go through it for every partition

    def make(items: Sequence[Stale]) -> list[tuple[str, Made]]:
        return list(build_all(plan.stage, items, plan.recipe, lake, how))

    tasks = {str(number): (partial(make, items),) for number, items in enumerate(groups(plan, lake, threads))}

    def told(_key: str, made: list[tuple[str, Made]], *_: object) -> None:
        for each in made:
            tell(*each)

    with Callback(posttask=told):
        get(tasks, list(tasks), num_workers=threads)


def _on_cluster(plan: Plan, lake: Lake, address: str, how: Engine, tell: Tell) -> None:
    from distributed import Client, as_completed  # noqa: PLC0415  only a cluster pays for the import

    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except OSError as error:
        raise NotConfiguredError(
            f"No Dask scheduler answered at {address} (DASK_SCHEDULER_ADDRESS) within {CONNECT_SECONDS} s: {error}."
            " Start it, or unset the variable to use this machine's threads."
        ) from None
    with client:
        job = Job(plan.stage.dataset, plan.stage.table, plan.recipe, Place.of(lake), how)
        together = groups(plan, lake, max(1, sum(client.nthreads().values())))
        futures = [client.submit(make_there, items, job, pure=False, retries=RETRIES) for items in together]
        for _, made in as_completed(futures, loop=client.loop, with_results=True):
            for each in made:
                tell(*each)


@dataclass(frozen=True)
class Place:
    """Where a worker finds inputs and leaves outputs: a workspace on a disk that it shares, or the remote itself."""

    root: Path
    remote: Remote | None

    @classmethod
    def of(cls, lake: Lake) -> "Place":
        """The place of a lake; keys to a remote do not travel, a worker has its own."""
        return cls(lake.root, lake.cache.remote.without_keys() if lake.cache.passes_on else None)

    def lake(self) -> Lake:
        """The lake, as a worker sees it."""
        if self.remote is None:
            return Lake.at(self.root)
        return Lake(self.root, Cache(self.root, self.root, passes_on=True, lent=self.remote))


@dataclass(frozen=True)
class Job:
    """What a worker must know beside the partitions: whose stage, by which recipe, and where."""

    dataset: str
    table: str
    recipe: Recipe
    place: Place
    engine: Engine


def make_there(items: Sequence[Stale], job: Job) -> list[tuple[str, Made]]:
    """Compute partitions on a worker, with the worker's own code.

    Raises:
        WorkerCodeError: That code or its libraries are not the ones that the plan was made with.
    """
    stage = graph.stage(job.dataset, job.table)
    if code_and_libraries(stage) != (job.recipe.code, job.recipe.libraries) or _is_newer(job.recipe.code):
        raise WorkerCodeError(
            f"{job.table} {items[0].partition}: this Dask worker runs other code or libraries than the run in"
            f" {job.place.root}. Start the workers again, with that workspace's code and lock file, then run again."
        )
    return list(build_all(stage, items, job.recipe, job.place.lake(), job.engine))


def _is_newer(files: Iterable[str]) -> bool:
    """Whether one of these source files was written after this process began: then that is not what it runs."""
    return max((RUNNING / name).stat().st_mtime for name in files) > STARTED


def _together(plan: Plan, refused: list[HeadraceError]) -> HeadraceError:
    if len(refused) == 1:
        return refused[0]
    shown = "\n".join(f"- {error}" for error in refused[:MOST_SHOWN])
    more = f"\n… and {len(refused) - MOST_SHOWN} more" if len(refused) > MOST_SHOWN else ""
    return PartitionsRefusedError(f"{plan.stage.table}: {len(refused)} partitions refused.\n{shown}{more}")
