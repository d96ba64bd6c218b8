"""On a Dask cluster a plan gives the same bytes; a dead worker costs its partitions only; other code is refused."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from distributed import Client
from raw import days, flights
from servers import HOST, answers, free_port, running
from workspaces import Workspace

from pipelines import engine, graph
from pipelines.settings import Settings
from pipelines.systems.dask import Executor, WorkerCodeError

pytestmark = pytest.mark.slow

DAYS = days(1, 6)
FLIGHTS = "validated/flights/flights"


@dataclass(frozen=True)
class Cluster:
    """A scheduler and two worker processes that run the code of one workspace."""

    address: str
    workspace: Workspace

    def run(self, table: str) -> engine.Ran:
        """Run the stage of `table` there."""
        stage = graph.stage("flights", table)
        return engine.run(stage, self.workspace.lake, Executor(self.settings))

    @property
    def settings(self) -> Settings:
        """Those of a run on this cluster."""
        return Settings(workspace=self.workspace.root, scheduler=self.address)

    def workers(self) -> dict[str, int]:
        """Address → process number of the workers."""
        with Client(self.address, set_as_default=False) as client:
            found: dict[str, int] = client.run(os.getpid)
        return found


@pytest.fixture
def cluster(workspace: Workspace, tmp_path: Path) -> Iterator[Cluster]:
    """A cluster in a workspace with six raw days."""
    workspace.raw.arrive(*DAYS)
    port = free_port()
    address = f"tcp://{HOST}:{port}"
    program = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    scheduler = [*program, "--host", HOST, "--port", str(port), "--no-dashboard"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--host", HOST, "--nworkers", "2"]
    worker += ["--nthreads", "1", "--no-dashboard", "--local-directory", str(tmp_path / "dask")]
    code = str(workspace.root)
    with (
        running(scheduler, tmp_path / "scheduler.log", lambda: answers(port), PYTHONPATH=code),
        running(worker, tmp_path / "worker.log", lambda: _workers(address) == 2, PYTHONPATH=code),
    ):
        yield Cluster(address, workspace)


def test_a_cluster_gives_the_same_bytes_as_threads(cluster: Cluster) -> None:
    elsewhere = cluster.workspace.clone("elsewhere")
    elsewhere.raw.arrive(*reversed(DAYS))
    elsewhere.refresh()

    for stage in graph.stages(cluster.workspace.dataset):
        cluster.run(stage.table)

    for table in elsewhere.lake.tables("flights"):
        assert cluster.workspace.lake.manifest(table) == elsewhere.lake.manifest(table)


def test_a_worker_that_is_killed_costs_its_own_partition_only(cluster: Cluster) -> None:
    victim = next(iter(cluster.workers().values()))
    killed = threading.Event()

    def kill(_table: str, done: int, _total: int) -> None:
        if done == 1 and not killed.is_set():
            killed.set()
            os.kill(victim, signal.SIGKILL)

    stage = graph.stage("flights", FLIGHTS)

    ran = engine.run(stage, cluster.workspace.lake, Executor(cluster.settings, kill))

    assert killed.is_set()
    assert sorted(ran.built) == DAYS
    assert ran.manifest.rows == sum(flights(day).height for day in DAYS)


def test_a_worker_whose_code_is_older_than_the_workspace_is_refused(cluster: Cluster) -> None:
    cluster.run(FLIGHTS)
    time.sleep(0.01)
    cluster.workspace.edit("pipelines/datasets/flights/sources/flights.py", "tolerance=", "tolerance=0.5 * ")

    with pytest.raises(
        WorkerCodeError, match=r"flights 2013-01-0\d: this Dask worker runs other code.*Start the workers"
    ):
        cluster.run(FLIGHTS)


def test_a_small_plan_asks_no_cluster(workspace: Workspace) -> None:
    workspace.raw.arrive(*days(1, 3))
    nobody = Settings(workspace=workspace.root, scheduler=f"tcp://{HOST}:{free_port()}")

    ran = engine.run(graph.stage("flights", FLIGHTS), workspace.lake, Executor(nobody))

    assert len(ran.built) == 3


def test_a_scheduler_that_does_not_answer_is_named_with_its_variable(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.systems.dask.CONNECT_SECONDS", 0.5)
    workspace.raw.arrive(*DAYS)
    address = f"tcp://{HOST}:{free_port()}"

    with pytest.raises(Exception, match=rf"{address} \(DASK_SCHEDULER_ADDRESS\) within 0.5 s"):
        engine.run(
            graph.stage("flights", FLIGHTS),
            workspace.lake,
            Executor(Settings(workspace=workspace.root, scheduler=address)),
        )


def _workers(address: str) -> int:
    try:
        with Client(address, timeout=2, set_as_default=False) as client:
            return len(client.scheduler_info()["workers"])
    except OSError:
        return 0
