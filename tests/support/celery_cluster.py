"""Airflow on Celery: a control machine and two workers with a disk of their own each; a pytest plug-in.

They share the git remote, S3, PostgreSQL and Redis. Each machine is a folder that has its HOME, its temporary files,
its copy of the DAG files and, for a worker, its clone with the cache in it. The settings are those of `infra/celery`.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from hashlib import md5
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from cryptography.fernet import Fernet
from dotenv import dotenv_values
from online_stores import postgresql_store, redis_server
from projects import Project
from servers import HOST, S3, PostgreSQL, free_port, run_server, wait_until
from workspaces import REPOSITORY, git

from infra.demo.airflow_client import AirflowClient, DagRun, TaskInstance
from infra.demo.data import FlightYear
from infra.demo.seed_sources import SourceSystems

DAG = "flights_refresh"
QUEUES = {
    "start_run": "one",
    "tables.ingest": "two",
    "tables.validate": "one",
    "tables.transform": "two",
    "release.release": "one",
    "release.publish": "two",
}
"""Task → queue, which has the name of the worker that listens to it."""

HOSTNAMES = {"one": "127.0.0.1", "two": "localhost"}
"""Worker → name of its machine."""

POLICY = f"""
from datetime import timedelta
from airflow.sdk.definitions.timetables.simple import NullTimetable

def task_policy(task):
    task.queue = {QUEUES!r}.get(task.task_id, "one")
    task.retry_delay = timedelta(seconds=1)

def dag_policy(dag):
    dag.timetable = NullTimetable()
"""
"""Policies of Airflow's: consecutive tasks go to different workers, a retry waits for a second, and no run starts by
itself."""

AIRFLOW = str(Path(sys.executable).with_name("airflow"))
START_TIMEOUT_S = 180
RUN_TIMEOUT_S = 400


@dataclass(frozen=True)
class Shared:
    """What the machines share."""

    s3: S3
    postgres: PostgreSQL
    redis_port: int
    bucket: str
    source_database: str
    feast_database: str

    @property
    def variables(self) -> dict[str, str]:
        """Settings of the commands, with their credentials."""
        return {
            **self.s3.variables,
            "AWS_DEFAULT_REGION": "us-east-1",
            "HEADRACE_BUCKET": self.bucket,
            "HEADRACE_DATABASE_URL": self.postgres.address(self.source_database),
            "FEAST_REGISTRY_URL": self.postgres.address(self.feast_database),
        }


@dataclass(frozen=True)
class RemoteProject:
    """A project with its git remote and its DVC remote."""

    origin: Path
    s3: S3
    bucket: str

    def clone(self, root: Path) -> Path:
        """A clone of the project, as docs/operations.md has a worker make it."""
        git(root.parent, "clone", "--quiet", self.origin.as_uri(), str(root))
        return root

    def releases(self) -> list[str]:
        """Names of the releases."""
        return git(self.origin, "for-each-ref", "--sort=creatordate", "--format=%(refname:short)", "refs/tags").split()

    def run_refs(self) -> list[str]:
        """Names of the refs of runs that have not ended."""
        return git(self.origin, "for-each-ref", "--format=%(refname)", "refs/headrace").split()

    def released_files(self, release: str) -> dict[str, str]:
        """Path → md5 of every file of a release, read with git and plain S3 requests alone, and hashed."""
        entries = self._show(release, "dvc.lock")["stages"].values()
        outs = {out["path"]: out["md5"] for stage in entries for out in stage.get("outs", ())}
        for pointer in git(self.origin, "ls-tree", "-r", "--name-only", release, "data/").split():
            outs |= {pointer.removesuffix(".dvc"): out["md5"] for out in self._show(release, pointer)["outs"]}
        files: dict[str, str] = {}
        for folder, digest in outs.items():
            listed = json.loads(self._read(digest))
            files |= {f"{folder}/{item['relpath']}": md5(self._read(item["md5"])).hexdigest() for item in listed}  # noqa: S324
        return files

    def _show(self, revision: str, path: str) -> dict[str, Any]:
        content: dict[str, Any] = yaml.safe_load(git(self.origin, "show", f"{revision}:{path}"))
        return content

    def _read(self, digest: str) -> bytes:
        key = f"dvc/files/md5/{digest[:2]}/{digest[2:]}"
        content: bytes = self.s3.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return content


@dataclass(frozen=True)
class CeleryWorker:
    """A worker: the machine's folder, and its process."""

    folder: Path
    process: "subprocess.Popen[bytes]"

    @property
    def clone(self) -> Path:
        """Its clone of the project."""
        return self.folder / "workspace"

    def journals(self) -> list[Path]:
        """Journals of tables that a command is computing here."""
        return list(self.clone.glob(".headrace/runs/flights/*/.headrace/journal/*.jsonl"))

    def cached_objects(self) -> set[str]:
        """Objects in the cache of its clone."""
        return {path.parent.name + path.name for path in (self.clone / ".dvc/cache/files/md5").glob("*/*")}

    def freeze(self) -> None:
        """Stop every process of the machine, as it is at this moment."""
        signal_all(self.process, signal.SIGSTOP)

    def kill(self) -> None:
        """Kill every process of the machine at once, as a power cut does."""
        signal_all(self.process, signal.SIGKILL)


@dataclass(frozen=True)
class CeleryCluster:
    """Airflow on Celery, and a clone of a second, equal project in which the same commands run without Airflow."""

    shared: Shared
    sources: SourceSystems
    project: RemoteProject
    local: RemoteProject
    local_clone: Path
    control: "ControlMachine"
    airflow: AirflowClient
    workers: Mapping[str, CeleryWorker]

    def wait_for_run(self, run: DagRun) -> None:
        """Wait for a DAG run, which must succeed."""
        self.wait_for(run, lambda tasks: all(task.state == "success" for task in tasks), "to succeed")

    def wait_for(self, run: DagRun, holds: Callable[[Sequence[TaskInstance]], bool], what: str) -> None:
        """Wait until something holds of the tasks of a DAG run; the test fails if one has failed for good."""
        deadline = time.monotonic() + RUN_TIMEOUT_S
        while True:
            tasks = self.airflow.tasks(run)
            if tasks and holds(tasks):
                return
            states = {task.id: task.state for task in tasks}
            if "failed" in states.values() or time.monotonic() > deadline:
                pytest.fail(f"expected the DAG run {what}, found {states}; the logs are below {self.airflow.logs}")
            time.sleep(0.2)

    def executed_by(self, run: DagRun) -> dict[str, str]:
        """Task → worker that has executed it, as it told Airflow."""
        workers = {host: worker for worker, host in HOSTNAMES.items()}
        return {item["task_id"]: workers[item["hostname"]] for item in self._get(run)["task_instances"]}

    def log(self, run: DagRun, task: str) -> str:
        """The log of a task's first attempt, which the API server asks its worker for."""
        return str(self._get(run, f"/{task}/logs/1")["content"])

    def _get(self, run: DagRun, path: str = "") -> dict[str, Any]:
        found = self.airflow.client.get(f"dags/{run.dag}/dagRuns/{run.id}/taskInstances{path}").raise_for_status()
        content: dict[str, Any] = found.json()
        return content

    def hand_queue(self, queue: str, worker: str) -> None:
        """Have a worker listen to another queue, too."""
        options = ("--celery-hostname", f"celery@{worker}", "--queues", queue)
        command = [AIRFLOW, "celery", "add-queue", *options]
        subprocess.run(command, env={**os.environ, **self.control.environment}, check=True, capture_output=True)

    def run_locally(self) -> str:
        """The same refresh, from the same sources, in one process in the second project; the release's name."""
        project = Project(self.local_clone)
        project.headrace("run", "flights", "--release", settings=self.shared.variables)
        return self.local.releases()[-1]


@contextmanager
def new_cluster(template: Path, s3: S3, postgres: PostgreSQL, folder: Path) -> Iterator[CeleryCluster]:
    """Airflow on Celery, with sources that have no day yet, until the block ends."""
    names = [postgres.new_database() for _ in range(2)]
    shared = Shared(s3, postgres, free_port(), s3.new_bucket().name, *names)
    sources = SourceSystems.connect(shared.variables, FlightYear.installed())
    sources.create()
    store = postgresql_store(postgres, postgres.port)
    project, local = (create_project(template, folder / name, s3, store.configure) for name in ("project", "local"))
    local_clone = local.clone(folder / "local-clone")
    control = ControlMachine(folder / "control", shared, project, free_port())
    with redis_server(shared.redis_port, folder), start_airflow(folder, control) as (airflow, workers):
        yield CeleryCluster(shared, sources, project, local, local_clone, control, airflow, workers)


def create_project(template: Path, folder: Path, s3: S3, configure: Callable[[Path], None]) -> RemoteProject:
    """This repository's project with a git remote and a DVC remote of its own."""
    bucket = s3.new_bucket().name
    git(folder.parent, "clone", "--quiet", str(template), str(folder))
    configure(folder)
    config = folder / ".dvc/config"
    config.write_text(config.read_text().replace("s3://headrace/dvc", f"s3://{bucket}/dvc"))
    git(folder, "commit", "--quiet", "--all", "--message", "Choose the DVC remote and the online store")
    origin = folder.with_suffix(".git")
    git(folder.parent, "clone", "--quiet", "--bare", str(folder), str(origin))
    return RemoteProject(origin, s3, bucket)


@contextmanager
def start_airflow(
    folder: Path, control: "ControlMachine"
) -> Iterator[tuple[AirflowClient, Mapping[str, CeleryWorker]]]:
    """The control machine and the workers, until the block ends."""
    control.prepare()
    with ExitStack() as stack:
        for name in ("api-server", "dag-processor"):
            stack.enter_context(control.run(name))
        workers = {name: stack.enter_context(run_worker(folder / name, control)) for name in ("one", "two")}
        control.warm_up()
        stack.enter_context(control.run("scheduler"))
        client = control.connect()
        stack.enter_context(client.client)
        client.wait_for_dags([DAG])
        client.pause(DAG, paused=False)
        assert wait_until(lambda: all(is_ready(worker) for worker in workers.values()), START_TIMEOUT_S)
        yield client, workers


@dataclass(frozen=True)
class ControlMachine:
    """The machine of the API server, the scheduler and the DAG processor."""

    folder: Path
    shared: Shared
    project: RemoteProject
    port: int

    @property
    def url(self) -> str:
        """Address of the API server."""
        return f"http://{HOST}:{self.port}"

    @cached_property
    def common(self) -> dict[str, str]:
        """Settings of all processes, on the control machine and on the workers."""
        (bundle,) = json.loads(read_settings("airflow")["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"])
        bundle["kwargs"]["repo_url"] = self.project.origin.as_uri()
        results = self.shared.postgres.address(self.shared.postgres.new_database())
        return read_settings("airflow") | {
            "AIRFLOW__CELERY__BROKER_URL": f"redis://{HOST}:{self.shared.redis_port}/0",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{results}",
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        }

    @cached_property
    def environment(self) -> dict[str, str]:
        """Settings of the processes on this machine, with shorter waits."""
        database = self.shared.postgres.address(self.shared.postgres.new_database())
        return self.common | machine_variables(self.folder) | read_settings("control") | {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": database,
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.folder / "passwords.json"),
            "AIRFLOW__API__HOST": HOST,
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
        }  # fmt: skip

    def prepare(self) -> None:
        """Create the tables of the database; the policy and the password."""
        (self.folder / "airflow/config").mkdir(parents=True)
        (self.folder / "airflow/config/airflow_local_settings.py").write_text(POLICY)
        (self.folder / "passwords.json").write_text('{"admin": "admin"}')
        with run_airflow(self.folder, "db", "migrate", environment=self.environment) as process:
            assert process.wait(START_TIMEOUT_S) == 0, (self.folder / "db.log").read_text()[-2000:]

    @contextmanager
    def run(self, name: str) -> "Iterator[subprocess.Popen[bytes]]":
        """A process of Airflow."""
        options = ("--skip-serve-logs",) if name == "scheduler" else ()
        with run_airflow(self.folder, name, *options, environment=self.environment) as process:
            yield process

    def connect(self) -> AirflowClient:
        """The REST API."""
        login = {
            "HEADRACE_AIRFLOW_URL": self.url,
            "HEADRACE_AIRFLOW_USER": "admin",
            "HEADRACE_AIRFLOW_PASSWORD": "admin",
        }
        return AirflowClient.connect(login, self.folder.parent)

    def warm_up(self) -> None:
        """Wait for the API server, and for the API of tasks, which is built at its first request."""

        def answers() -> bool:
            try:
                return httpx.get(f"{self.url}/execution/health", timeout=60).is_success
            except httpx.TransportError:
                return False

        assert wait_until(answers, START_TIMEOUT_S), (self.folder / "api-server.log").read_text()[-2000:]


@contextmanager
def run_worker(folder: Path, control: ControlMachine) -> Iterator[CeleryWorker]:
    """A worker that listens to the queue with the name of its folder."""
    name = folder.name
    (folder / "airflow/config").mkdir(parents=True)
    (folder / "airflow/config/machine.py").write_text(f"def name():\n    return {HOSTNAMES[name]!r}\n")
    control.project.clone(folder / "workspace")
    environment = control.common | machine_variables(folder) | read_settings("worker") | control.shared.variables | {
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "machine.name",
        "HEADRACE_WORKSPACE": str(folder / "workspace"),
        "HEADRACE_THREADS": "1",
    }  # fmt: skip
    options = ["--queues", name, "--concurrency", "1", "--celery-hostname", f"celery@{name}"]
    if name != "one":
        options.append("--skip-serve-logs")  # both machines are this one: they cannot have the same port
    with run_airflow(folder, "celery", "worker", *options, environment=environment) as process:
        yield CeleryWorker(folder, process)


def is_ready(worker: CeleryWorker) -> bool:
    """Whether a worker listens."""
    assert worker.process.poll() is None, (worker.folder / "celery.log").read_text()[-2000:]
    return " ready." in (worker.folder / "celery.log").read_text()


@contextmanager
def run_airflow(folder: Path, *command: str, environment: Mapping[str, str]) -> "Iterator[subprocess.Popen[bytes]]":
    """A process of Airflow on the machine of that folder, starting when the block begins, killed when it ends."""
    log = folder / f"{command[0]}.log"
    with run_server([AIRFLOW, *command], log, lambda: True, environment=environment) as process:
        try:
            yield process
        finally:
            signal_all(process, signal.SIGKILL)


def signal_all(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """Send a signal to a process and to all that it has started, also by way of others."""
    if process.poll() is None:
        main = psutil.Process(process.pid)
        for each in (main, *main.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                each.send_signal(number)


def machine_variables(folder: Path) -> dict[str, str]:
    """Folders of a machine."""
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    return {
        "HOME": str(folder),
        "TMPDIR": str(folder / "tmp"),
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(folder / "bundles"),
        "PYTHONPATH": str(REPOSITORY),
    }


def read_settings(name: str) -> dict[str, str]:
    """A file of `infra/celery`."""
    return {key: value or "" for key, value in dotenv_values(REPOSITORY / f"infra/celery/{name}.env").items()}


def january(*days: int) -> list[date]:
    """These days of January 2013."""
    return [date(2013, 1, day) for day in days]
