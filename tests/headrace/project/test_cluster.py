"""On a Dask cluster a plan gives the same bytes, with the run's own code; what dies costs its partitions only."""

import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import psutil
import pytest
from distributed import Client, KilledWorker
from raw_data import RawPartitions, days, flights
from servers import HOST, S3, free_port, is_listening, run_server
from workspaces import Workspace

from headrace.engine.run import StageResult, plan_stage, run_stage
from headrace.errors import NotConfiguredError
from headrace.project import graph
from headrace.project.executors import Executor, SchedulerLostError, SchedulerUnavailableError, results_as_completed
from headrace.release.release import create_release
from headrace.settings import Settings
from headrace.storage.manifest_entries import FOLDER
from headrace.storage.table_store import TableStore

pytestmark = pytest.mark.slow

DAYS = days(1, 6)
FLIGHTS = "validated/flights/flights"
VALIDATE = ("headrace", "validate", "flights", "--table", "flights")
SOURCE = "pipelines/flights/sources/flights.py"
KILL = "__import__('os').kill(__import__('os').getpid(), 9)"
READ = '''    """One day's object as text; `NA` and nothing are null."""
'''


@dataclass(frozen=True)
class DaskServers:
    """A scheduler and two worker processes that know no project."""

    address: str
    log: Path


@dataclass(frozen=True)
class Cluster:
    """Servers, and a workspace whose commands run there."""

    servers: DaskServers
    workspace: Workspace

    @property
    def address(self) -> str:
        """Of the scheduler."""
        return self.servers.address

    def run(self, table: str) -> StageResult:
        """Run the stage of `table` there."""
        stage = graph.find_stage("flights", table)
        return run_stage(stage, self.workspace.table_store, Executor(self.settings))

    @property
    def settings(self) -> Settings:
        """Those of a run on this cluster."""
        return Settings(workspace=self.workspace.root, scheduler=self.address)

    def workers(self) -> dict[str, int]:
        """Address → process number of the workers."""
        with Client(self.address, set_as_default=False) as client:
            found: dict[str, int] = client.run(os.getpid)
        return found


@pytest.fixture(scope="module")
def dask(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskServers]:
    """Servers for the tests that leave every process of them alone."""
    with run_dask(s3, tmp_path_factory.mktemp("dask")) as started:
        yield started


@pytest.fixture
def cluster(workspace: Workspace, dask: DaskServers, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster, and a workspace with six raw days whose commands run on it."""
    return _join(workspace, dask, monkeypatch)


@pytest.fixture
def own_cluster(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The same with a scheduler and workers that the test may kill."""
    with run_dask(workspace.remote, tmp_path) as started:
        yield _join(workspace, started, monkeypatch)


def _join(workspace: Workspace, dask: DaskServers, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    workspace.raw.add_days(*DAYS)
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", dask.address)
    return Cluster(dask, workspace)


@contextmanager
def run_dask(remote: S3, folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[DaskServers]:
    """Run a scheduler, and workers that have credentials of the remote."""
    port = free_port()
    address = f"tcp://{HOST}:{port}"
    program = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    scheduler = [*program, "--host", HOST, "--port", str(port), "--no-dashboard"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--host", HOST, "--nworkers", "2"]
    worker += ["--nthreads", "1", "--no-dashboard", "--local-directory", str(folder / "dask")]
    keys = {
        "AWS_ACCESS_KEY_ID": remote.access_key,
        "AWS_SECRET_ACCESS_KEY": remote.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        **(environment or {}),
    }
    log = folder / "worker.log"
    with (
        run_server(scheduler, folder / "scheduler.log", lambda: is_listening(port)),
        run_server(worker, log, lambda: _workers(address) == 2, environment=keys),
    ):
        yield DaskServers(address, log)


def test_a_cluster_gives_the_same_bytes_as_threads(cluster: Cluster) -> None:
    elsewhere = cluster.workspace.clone("elsewhere")
    elsewhere.raw.add_days(*reversed(DAYS))
    elsewhere.refresh()

    for stage in graph.dataset_stages(cluster.workspace.dataset):
        cluster.run(stage.table)

    for table in elsewhere.table_store.tables("flights"):
        assert cluster.workspace.table_store.manifest(table) == elsewhere.table_store.manifest(table)


def test_a_worker_that_is_killed_costs_its_own_partition_only(own_cluster: Cluster) -> None:
    victim = next(iter(own_cluster.workers().values()))
    killed = threading.Event()

    def kill(_table: str, done: int, _total: int) -> None:
        if done == 1 and not killed.is_set():
            killed.set()
            os.kill(victim, signal.SIGKILL)

    stage = graph.find_stage("flights", FLIGHTS)

    ran = run_stage(stage, own_cluster.workspace.table_store, Executor(own_cluster.settings, kill))

    assert killed.is_set()
    assert sorted(ran.computed) == DAYS
    assert ran.manifest.rows == sum(flights(day).height for day in DAYS)


def test_a_scheduler_that_dies_is_unavailable_and_what_was_computed_by_then_is_remembered(own_cluster: Cluster) -> None:
    with Client(own_cluster.address, set_as_default=False) as client:
        scheduler: int = client.run_on_scheduler(os.getpid)
    killed = threading.Event()

    def kill(_table: str, done: int, _total: int) -> None:
        if done == 1 and not killed.is_set():
            killed.set()
            os.kill(scheduler, signal.SIGKILL)

    stage = graph.find_stage("flights", FLIGHTS)

    with pytest.raises(SchedulerUnavailableError, match=r"stopped answering.*run the same command again"):
        run_stage(stage, own_cluster.workspace.table_store, Executor(own_cluster.settings, kill))

    here = Settings(workspace=own_cluster.workspace.root)
    left = [item.partition for item in plan_stage(stage, own_cluster.workspace.table_store).stale]
    assert 0 < len(left) < len(DAYS)
    assert sorted(run_stage(stage, own_cluster.workspace.table_store, Executor(here)).computed) == sorted(left)


def test_a_scheduler_that_dies_while_a_result_is_fetched_is_lost_and_nothing_waits_for_it(own_cluster: Cluster) -> None:
    with Client(own_cluster.address, set_as_default=False) as client:
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


def test_a_task_whose_workers_all_die_has_an_error_for_a_result_so_that_the_others_go_on(own_cluster: Cluster) -> None:
    with Client(own_cluster.address, set_as_default=False) as client:
        killing = client.submit(lambda: os.kill(os.getpid(), signal.SIGKILL), pure=False)
        results = dict(results_as_completed(client, [killing, client.submit(int, pure=False)]))

    assert isinstance(results.pop(killing), KilledWorker)
    assert list(results.values()) == [0]


def test_a_push_between_two_runs_needs_no_restart_of_workers(cluster: Cluster) -> None:
    workspace, workers = cluster.workspace, cluster.workers()
    workspace.command(*VALIDATE)
    before = distances(workspace)

    workspace.edit(SOURCE, 'distance_miles="distance"', 'distance_miles=pl.col("distance") + 1')
    workspace.command(*VALIDATE)
    after = distances(workspace)
    workspace.edit(SOURCE, 'distance_miles=pl.col("distance") + 1', 'distance_miles="distance"')
    workspace.command(*VALIDATE)

    assert after.equals(before + 1)
    assert distances(workspace).equals(before)
    assert cluster.workers() == workers


def test_two_runs_of_different_code_at_the_same_time_each_give_the_bytes_of_their_own(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = cluster.workspace, cluster.workspace.clone("elsewhere")
    theirs.raw.add_days(*DAYS)
    theirs.edit(SOURCE, 'distance_miles="distance"', 'distance_miles=pl.col("distance") + 1')

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda workspace: workspace.command(*VALIDATE), (ours, theirs)))
    made = [workspace.table_store.manifest(FLIGHTS).objects for workspace in (ours, theirs)]
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS")
    for workspace in (ours, theirs):
        shutil.rmtree(workspace.root / "data" / FLIGHTS)
        shutil.rmtree(workspace.root / ".headrace", ignore_errors=True)
        workspace.command(*VALIDATE)

    assert made == [workspace.table_store.manifest(FLIGHTS).objects for workspace in (ours, theirs)]
    assert distances(theirs).equals(distances(ours) + 1)


def test_a_declared_file_and_a_module_at_the_root_travel_with_the_code(cluster: Cluster) -> None:
    workspace = cluster.workspace
    (workspace.root / "extra.csv").write_text("miles\n7\n")
    (workspace.root / "roadmap.py").write_text(
        "from pathlib import Path\nimport polars as pl\n"
        "def extra():\n    return pl.read_csv(Path(__file__).parent / 'extra.csv')['miles'][0]\n"
    )
    workspace.command(*VALIDATE)
    before = distances(workspace)

    workspace.edit(SOURCE, "from pathlib import Path\n", "from pathlib import Path\nfrom roadmap import extra\n")
    workspace.edit(SOURCE, 'distance_miles="distance"', 'distance_miles=pl.col("distance") + extra()')
    workspace.edit(SOURCE, "batch_size=16,", 'batch_size=16, files=("extra.csv",),')
    workspace.command(*VALIDATE)

    assert distances(workspace).equals(before + 7)


def test_what_a_kernel_prints_is_in_the_log_of_the_worker_and_disturbs_nothing(own_cluster: Cluster) -> None:
    own_cluster.workspace.edit(SOURCE, READ, f"{READ}    print('a kernel' * 20_000, flush=True)\n")

    own_cluster.workspace.command(*VALIDATE)

    assert sorted(own_cluster.workspace.table_store.manifest(FLIGHTS).partitions) == DAYS
    assert "a kernel" * 20_000 in own_cluster.servers.log.read_text()


def test_a_kernel_that_kills_its_process_once_is_run_again(cluster: Cluster, tmp_path: Path) -> None:
    marker = tmp_path / "killed"
    die = f"    if not Path({str(marker)!r}).exists():\n        Path({str(marker)!r}).touch()\n        {KILL}\n"
    cluster.workspace.edit(SOURCE, READ, READ + die)

    cluster.workspace.command(*VALIDATE)

    assert marker.exists()
    assert sorted(cluster.workspace.table_store.manifest(FLIGHTS).partitions) == DAYS


def test_a_partition_that_kills_every_process_is_named_and_all_others_are_computed(cluster: Cluster) -> None:
    workspace, workers = cluster.workspace, cluster.workers()
    die = f"    if b'\\n2013,1,3,' in __import__('gzip').decompress(path.read_bytes()):\n        {KILL}\n"
    workspace.edit(SOURCE, READ, READ + die)

    said = workspace.command(*VALIDATE, fails=True)

    assert re.search(rf"{FLIGHTS} 2013-01-03 \(s3://.*\): each process that computed it on the Dask cluster died", said)
    assert "The last one: ended by SIGKILL" in said
    assert [day for day in DAYS if f"{FLIGHTS} {day}" in said] == ["2013-01-03"]
    stage = graph.find_stage("flights", FLIGHTS)
    workspace.edit(SOURCE, die, "")
    assert "2013-01-03" in {item.partition for item in plan_stage(stage, workspace.table_store).stale}
    assert cluster.workers() == workers, "no worker died"


@pytest.mark.parametrize("raised", ["ZeroDivisionError('odd')", "pl.exceptions.PanicException('odd')", "Odd(1, 2)"])
def test_what_a_reader_raises_on_a_worker_is_an_error_of_its_partition(cluster: Cluster, raised: str) -> None:
    workspace = cluster.workspace
    odd = "class Odd(BaseException):\n    def __init__(self, a, b):\n        self.f = lambda: None\n\n\n"
    workspace.edit(SOURCE, "def read", f"{odd}def read")
    test = "    if b'\\n2013,1,3,' in __import__('gzip').decompress(path.read_bytes()):\n"
    workspace.edit(SOURCE, READ, f"{READ}{test}        raise {raised}\n")

    said = workspace.command(*VALIDATE, fails=True)

    assert f"{FLIGHTS} 2013-01-03" in said
    assert raised.partition("(")[0].rpartition(".")[2] in said
    assert f"({SOURCE}, line " in said
    assert "Traceback" not in said
    stage = graph.find_stage("flights", FLIGHTS)
    workspace.edit(SOURCE, f"{test}        raise {raised}\n", "")
    assert not [day for day in DAYS if f"{FLIGHTS} {day}" in said and day != "2013-01-03"]
    journal = (workspace.root / ".headrace/journal" / f"{stage.table.replace('/', '.')}.jsonl").read_text()
    assert len(journal.splitlines()) == len(DAYS) - 1


def test_a_worker_that_is_killed_leaves_no_process_behind_idle_or_busy(own_cluster: Cluster, tmp_path: Path) -> None:
    workspace, workers = own_cluster.workspace, own_cluster.workers().values()
    workspace.command(*VALIDATE)
    idle = code_processes(own_cluster)
    busy = tmp_path / "busy"
    wait = f"    Path({str(busy)!r}).write_text(str(__import__('os').getpid()))\n    __import__('time').sleep(600)\n"
    workspace.edit(SOURCE, READ, READ + wait)

    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(workspace.command, *VALIDATE, fails=True)
        assert wait_until(lambda: busy.exists() and busy.read_text() != "")
        processes = [*idle, *code_processes(own_cluster)]
        assert psutil.Process(int(busy.read_text())) in processes
        with Client(own_cluster.address, set_as_default=False) as client:
            scheduler: int = client.run_on_scheduler(os.getpid)
        os.kill(scheduler, signal.SIGKILL)  # so that the run ends, and no worker begins it again
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        run.result()

    assert idle
    assert wait_until(lambda: all(has_ended(process) for process in processes))


def test_a_worker_with_another_version_of_a_library_computes_nothing_and_the_versions_are_named(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site/polars-9.9.9.dist-info/METADATA"
    installed.parent.mkdir(parents=True)
    installed.write_text("Metadata-Version: 2.1\nName: polars\nVersion: 9.9.9\n")
    paths = os.pathsep.join((str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])))

    workspace.raw.add_days(*DAYS)
    with run_dask(workspace.remote, tmp_path, {"PYTHONPATH": paths}) as dask:
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", dask.address)
        said = workspace.command(*VALIDATE, fails=True)

    assert f"polars: 9.9.9 there, {pl.__version__} here." in said
    assert "Start the workers with the engine and the libraries of the run's lock file" in said
    assert not workspace.table_store.manifest(FLIGHTS).partitions


def test_workers_commit_straight_to_the_remote_and_nothing_passes_through_the_drivers_disk(cluster: Cluster) -> None:
    workspace = cluster.workspace
    elsewhere = workspace.clone("elsewhere")
    elsewhere.raw.add_days(*DAYS)
    elsewhere.refresh()
    table_store = remote_only_table_store(workspace)

    for stage in graph.dataset_stages(workspace.dataset):
        run_stage(stage, table_store, Executor(cluster.settings))
    create_release(workspace.dataset, table_store)

    for table in table_store.tables("flights"):
        manifest = table_store.manifest(table)
        assert manifest == elsewhere.table_store.manifest(table)
        assert [path.name for path in table_store.folder(table).iterdir()] == [FOLDER]
        assert not any(table_store.cache.path(entry.md5).exists() for entry in manifest.partitions.values())


@pytest.mark.slow_lane
def test_a_fresh_clone_pulls_what_workers_committed_and_dvc_finds_nothing_changed(cluster: Cluster) -> None:
    table_store = remote_only_table_store(cluster.workspace)
    for stage in graph.dataset_stages(cluster.workspace.dataset):
        run_stage(stage, table_store, Executor(cluster.settings))
    create_release(cluster.workspace.dataset, table_store)
    clone = cluster.workspace.clone("colleague")

    clone.dvc("pull")

    assert not clone.stale_stages()
    assert "Running stage" not in clone.dvc("repro", *clone.stages())
    rows = clone.table_store.scan("features/flights/carrier_delays").collect().height
    assert rows == table_store.manifest("features/flights/carrier_delays").rows > 0


def test_a_small_plan_asks_no_cluster(workspace: Workspace) -> None:
    workspace.raw.add_days(*days(1, 3))
    nobody = Settings(workspace=workspace.root, scheduler=f"tcp://{HOST}:{free_port()}")

    ran = run_stage(graph.find_stage("flights", FLIGHTS), workspace.table_store, Executor(nobody))

    assert len(ran.computed) == 3


def test_a_scheduler_that_does_not_answer_is_named_with_its_variable(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.project.executors.CONNECT_SECONDS", 0.5)
    workspace.raw.add_days(*DAYS)
    address = f"tcp://{HOST}:{free_port()}"

    with pytest.raises(SchedulerUnavailableError, match=rf"{address} \(DASK_SCHEDULER_ADDRESS\) within 0.5 s"):
        run_stage(
            graph.find_stage("flights", FLIGHTS),
            workspace.table_store,
            Executor(Settings(workspace=workspace.root, scheduler=address)),
        )


def test_a_cluster_with_tls_and_no_certificate_here_names_the_variables(workspace: Workspace) -> None:
    workspace.raw.add_days(*DAYS)
    settings = Settings(workspace=workspace.root, scheduler=f"tls://{HOST}:{free_port()}")

    with pytest.raises(NotConfiguredError, match=r"DASK_DISTRIBUTED__COMM__TLS__CA_FILE, …__CLIENT__CERT"):
        run_stage(graph.find_stage("flights", FLIGHTS), workspace.table_store, Executor(settings))


def distances(workspace: Workspace) -> pl.Series:
    """Distances of all validated flights, in the order of the table."""
    return workspace.table_store.scan(FLIGHTS).collect()["distance_miles"]


def code_processes(cluster: Cluster) -> list[psutil.Process]:
    """The processes of the workers that run the code of projects."""
    children = [child for worker in cluster.workers().values() for child in psutil.Process(worker).children()]
    return [child for child in children if "headrace.project.worker_processes" in child.cmdline()]


def has_ended(process: psutil.Process) -> bool:
    """Whether it is gone, or a zombie that nobody has waited for."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def wait_until(is_so: Callable[[], bool], seconds: float = 60) -> bool:
    """Whether it became so in time."""
    until = time.monotonic() + seconds
    while not (result := is_so()) and time.monotonic() < until:
        time.sleep(0.05)
    return result


def remote_only_table_store(workspace: Workspace) -> TableStore:
    """A table store whose raw days are on the remote alone."""
    shutil.rmtree(workspace.root / "data")
    shutil.rmtree(workspace.root / ".dvc/cache")
    table_store = TableStore.at(workspace.root, is_remote_only=True)
    RawPartitions(table_store).add_days(*DAYS)
    return table_store


def _workers(address: str) -> int:
    try:
        with Client(address, timeout=2, set_as_default=False) as client:
            return len(client.scheduler_info()["workers"])
    except OSError:
        return 0
