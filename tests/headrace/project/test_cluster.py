"""On a Dask cluster a plan gives the same bytes; a dead worker costs its partitions only; other code is refused."""

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from distributed import Client
from raw_data import RawPartitions, days, flights
from servers import HOST, free_port, is_listening, run_server
from workspaces import Workspace

from headrace.engine.run import StageResult, plan_stage, run_stage
from headrace.project import graph
from headrace.project.executors import Executor, SchedulerLostError, SchedulerUnavailableError, results_as_completed
from headrace.release.release import create_release
from headrace.settings import Settings
from headrace.storage.manifest import MANIFEST
from headrace.storage.table_store import Lake

pytestmark = pytest.mark.slow

DAYS = days(1, 6)
FLIGHTS = "validated/flights/flights"


@dataclass(frozen=True)
class Cluster:
    """A scheduler and two worker processes that run the code of one workspace."""

    address: str
    workspace: Workspace

    def run(self, table: str) -> StageResult:
        """Run the stage of `table` there."""
        stage = graph.find_stage("flights", table)
        return run_stage(stage, self.workspace.lake, Executor(self.settings))

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
    workspace.raw.add_days(*DAYS)
    port = free_port()
    address = f"tcp://{HOST}:{port}"
    program = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    scheduler = [*program, "--host", HOST, "--port", str(port), "--no-dashboard"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--host", HOST, "--nworkers", "2"]
    worker += ["--nthreads", "1", "--no-dashboard", "--local-directory", str(tmp_path / "dask")]
    code = {
        "PYTHONPATH": str(workspace.root),
        "AWS_ACCESS_KEY_ID": workspace.remote.access_key,
        "AWS_SECRET_ACCESS_KEY": workspace.remote.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with (
        run_server(scheduler, tmp_path / "scheduler.log", lambda: is_listening(port), environment=code),
        run_server(worker, tmp_path / "worker.log", lambda: _workers(address) == 2, environment=code),
    ):
        yield Cluster(address, workspace)


def test_a_cluster_gives_the_same_bytes_as_threads(cluster: Cluster) -> None:
    elsewhere = cluster.workspace.clone("elsewhere")
    elsewhere.raw.add_days(*reversed(DAYS))
    elsewhere.refresh()

    for stage in graph.dataset_stages(cluster.workspace.dataset):
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

    stage = graph.find_stage("flights", FLIGHTS)

    ran = run_stage(stage, cluster.workspace.lake, Executor(cluster.settings, kill))

    assert killed.is_set()
    assert sorted(ran.built) == DAYS
    assert ran.manifest.rows == sum(flights(day).height for day in DAYS)


def test_a_scheduler_that_dies_is_unavailable_and_what_was_computed_by_then_is_remembered(cluster: Cluster) -> None:
    with Client(cluster.address, set_as_default=False) as client:
        scheduler: int = client.run_on_scheduler(os.getpid)
    killed = threading.Event()

    def kill(_table: str, done: int, _total: int) -> None:
        if done == 1 and not killed.is_set():
            killed.set()
            os.kill(scheduler, signal.SIGKILL)

    stage = graph.find_stage("flights", FLIGHTS)

    with pytest.raises(SchedulerUnavailableError, match=r"stopped answering.*run the same command again"):
        run_stage(stage, cluster.workspace.lake, Executor(cluster.settings, kill))

    here = Settings(workspace=cluster.workspace.root)
    left = [item.partition for item in plan_stage(stage, cluster.workspace.lake).stale]
    assert 0 < len(left) < len(DAYS)
    assert sorted(run_stage(stage, cluster.workspace.lake, Executor(here)).built) == sorted(left)


def test_a_scheduler_that_dies_while_a_result_is_fetched_is_lost_and_nothing_waits_for_it(cluster: Cluster) -> None:
    with Client(cluster.address, set_as_default=False) as client:
        scheduler: int = client.run_on_scheduler(os.getpid)

        class KillsScheduler:
            """A worker pickles it when its result is fetched."""

            def __reduce__(self) -> tuple[type[str], tuple[()]]:
                os.kill(scheduler, signal.SIGKILL)
                return str, ()

        future = client.submit(lambda: KillsScheduler(), pure=False)  # noqa: PLW0108  the class travels with it

        with pytest.raises(SchedulerLostError):
            list(results_as_completed(client, [future]))


def test_an_error_of_a_task_that_looks_like_one_of_the_connection_is_raised_as_it_is(cluster: Cluster) -> None:
    def fill_disk() -> None:
        raise OSError(28, "No space left on device")

    with Client(cluster.address, set_as_default=False) as client, pytest.raises(OSError, match="No space left"):
        list(results_as_completed(client, [client.submit(fill_disk, pure=False)]))


def test_a_worker_whose_code_is_older_than_the_workspace_is_refused(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.run(FLIGHTS)
    cluster.workspace.edit("pipelines/flights/sources/flights.py", "max_rejected_share=", "max_rejected_share=0.5 * ")
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.address)

    said = cluster.workspace.command("headrace", "validate", "flights", "--table", "flights", fails=True)

    assert "this Dask worker runs other code" in said
    assert "Start the workers again" in said


def test_workers_commit_straight_to_the_remote_and_nothing_passes_through_the_drivers_disk(cluster: Cluster) -> None:
    workspace = cluster.workspace
    elsewhere = workspace.clone("elsewhere")
    elsewhere.raw.add_days(*DAYS)
    elsewhere.refresh()
    lake = remote_only_lake(workspace)

    for stage in graph.dataset_stages(workspace.dataset):
        run_stage(stage, lake, Executor(cluster.settings))
    create_release(workspace.dataset, lake)

    for table in lake.tables("flights"):
        manifest = lake.manifest(table)
        assert manifest == elsewhere.lake.manifest(table)
        assert [path.name for path in lake.folder(table).iterdir()] == [MANIFEST]
        assert not any(lake.cache.path(entry.md5).exists() for entry in manifest.partitions.values())


@pytest.mark.slow_lane
def test_a_fresh_clone_pulls_what_workers_committed_and_dvc_finds_nothing_changed(cluster: Cluster) -> None:
    lake = remote_only_lake(cluster.workspace)
    for stage in graph.dataset_stages(cluster.workspace.dataset):
        run_stage(stage, lake, Executor(cluster.settings))
    create_release(cluster.workspace.dataset, lake)
    clone = cluster.workspace.clone("colleague")

    clone.dvc("pull")

    assert not clone.stale_stages()
    assert "Running stage" not in clone.dvc("repro", *clone.stages())
    rows = clone.lake.scan("features/flights/carrier_delays").collect().height
    assert rows == lake.manifest("features/flights/carrier_delays").rows > 0


def test_a_small_plan_asks_no_cluster(workspace: Workspace) -> None:
    workspace.raw.add_days(*days(1, 3))
    nobody = Settings(workspace=workspace.root, scheduler=f"tcp://{HOST}:{free_port()}")

    ran = run_stage(graph.find_stage("flights", FLIGHTS), workspace.lake, Executor(nobody))

    assert len(ran.built) == 3


def test_a_scheduler_that_does_not_answer_is_named_with_its_variable(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.project.executors.CONNECT_SECONDS", 0.5)
    workspace.raw.add_days(*DAYS)
    address = f"tcp://{HOST}:{free_port()}"

    with pytest.raises(SchedulerUnavailableError, match=rf"{address} \(DASK_SCHEDULER_ADDRESS\) within 0.5 s"):
        run_stage(
            graph.find_stage("flights", FLIGHTS),
            workspace.lake,
            Executor(Settings(workspace=workspace.root, scheduler=address)),
        )


def remote_only_lake(workspace: Workspace) -> Lake:
    """A lake whose raw days are on the remote alone."""
    shutil.rmtree(workspace.root / "data")
    shutil.rmtree(workspace.root / ".dvc/cache")
    lake = Lake.at(workspace.root, passes_on=True)
    RawPartitions(lake).add_days(*DAYS)
    return lake


def _workers(address: str) -> int:
    try:
        with Client(address, timeout=2, set_as_default=False) as client:
            return len(client.scheduler_info()["workers"])
    except OSError:
        return 0
