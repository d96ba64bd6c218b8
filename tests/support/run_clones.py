"""Runs in clones of one git remote: their tasks, as commands of the command line are, without its processes."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import minimal_dataset
from release_clones import Clone, Origin, collect_annotations

from headrace.dataset import Dataset
from headrace.engine.run import run_stage
from headrace.project import graph
from headrace.project.executors import Executor
from headrace.release.release import ReleaseResult
from headrace.runs.run_refs import RunRefs, RunState
from headrace.runs.start import start_run
from headrace.runs.task import RunTask, end_run, open_task, release_task, save_task
from headrace.settings import Settings, load_settings
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.table_store import TableStore


@dataclass(frozen=True)
class RunOfClone:
    """A run of a dataset, as its tasks in one clone see it."""

    clone: Clone
    dataset: Dataset
    name: str

    @property
    def settings(self) -> Settings:
        """The settings of the clone."""
        return load_settings(self.clone.root)

    @property
    def refs(self) -> RunRefs:
        """Where the run's state is."""
        return RunRefs.configured(self.clone.root, self.settings)

    @property
    def state(self) -> RunState | None:
        """The run as it is now; None if it has not started, or has ended."""
        return self.refs.find(self.dataset.name, self.name)

    def open(self) -> RunTask:
        """Begin a task."""
        return open_task(self.clone.root, self.dataset.name, self.name, self.settings)

    def start(self) -> RunState:
        """Start the run, or move it to the newest commit."""
        return start_run(self.refs, self.dataset.name, self.name)

    def end(self) -> bool:
        """End the run without a release."""
        return end_run(self.refs, self.dataset.name, self.name)

    def ingest(self, days: dict[str, str]) -> RunTask:
        """A task: these days arrive (day → lines); days that are there already stay."""
        task = self.open()
        write_raw(task.table_store, self.dataset, days)
        save_task(task)
        return task

    def collect(self, *annotation_ids: str) -> RunTask:
        """A task: annotations with these ids are collected."""
        task = self.open()
        collect_annotations(task.table_store, self.dataset, *annotation_ids)
        save_task(task)
        return task

    def compute(self, *verbs: str) -> RunTask:
        """A task: bring the tables of these commands up to date."""
        task = self.open()
        execute = Executor(Settings(workspace=task.table_store.root, threads=1))
        for stage in graph.dataset_stages(self.dataset):
            if stage.verb in verbs:
                run_stage(stage, task.table_store, execute)
        save_task(task)
        return task

    def release(self) -> ReleaseResult:
        """The last task: release, and end the run."""
        return self.release_tables()[0]

    def release_tables(self) -> tuple[ReleaseResult, dict[str, bytes]]:
        """The last task, and what it has audited: table → head of its manifest."""
        task, name = self.open(), self.dataset.name
        made = release_task(task, self.dataset)
        tables = {table: task.table_store.manifest(table).to_files().head for table in task.table_store.tables(name)}
        end_run(task.refs, name, self.name, start=task.state.start)
        return made, tables


def write_raw(table_store: TableStore, dataset: Dataset, days: dict[str, str]) -> None:
    """Write raw partitions of lines `at,shop,amount`; those that are there stay."""
    raw = f"raw/{dataset.name}/sales"
    with table_store.lock_table(raw):
        entries: dict[str, Any] = dict(table_store.manifest(raw).partitions)
        for day, text in days.items():
            stored = table_store.cache.add(partial(Path.write_bytes, data=f"at,shop,amount\n{text}".encode()))
            entries[day] = PartitionEntry(stored.md5, stored.md5, stored.size)
        table_store.checkout(Manifest(raw, ".csv", partitions=entries))


def days(*numbers: int, amount: int = 1) -> dict[str, str]:
    """Day → lines, of these days."""
    return {f"2026-01-{number:02}": minimal_dataset.raw_day(number, amount) for number in numbers}


def run_refs(origin: Origin, namespace: str = "refs/headrace/runs") -> list[str]:
    """Names of the run refs on the git remote, less the namespace."""
    names = origin.git("for-each-ref", "--format=%(refname)", namespace).split()
    return [name.removeprefix(f"{namespace}/") for name in names]
