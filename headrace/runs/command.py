"""Any command in the worktree of a run, for example `dvc repro` of a stage that trains a model."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from headrace.dataset import Dataset
from headrace.errors import TRANSIENT_EXIT_CODE, HeadraceError, TransientError
from headrace.project.locks import lock_tables
from headrace.release.release import list_tables, show_tables
from headrace.runs.task import RunTask
from headrace.storage.manifest import HEAD_FILE
from headrace.storage.table_store import TableStore

RUN_VARIABLE = "HEADRACE_RUN"


class CommandFailedError(HeadraceError):
    """A command in a run failed."""


class CommandInterruptedError(TransientError):
    """A command in a run was killed, or said with its exit code that it may succeed later."""


def run_command(task: RunTask, dataset: Dataset, command: Sequence[str], *, keep_stdout: bool = False) -> None:
    """Run a command in the worktree of a run, in which every table of the dataset has its manifest.

    The partitions are not there: `headrace.open` and the commands fetch those that they read. `save_task` adds the
    tables that the command has written.

    Args:
        task: The task of the run.
        dataset: The dataset.
        command: The command and its arguments.
        keep_stdout: Send what the command prints to standard error.

    Raises:
        CommandFailedError: It failed.
        CommandInterruptedError: It failed and may succeed later.
        TableLockedError: Another command works in the worktree.
    """
    table_store = task.table_store
    # While the lock is held, nobody removes the worktree.
    with lock_tables(table_store, [f"exec/{dataset.name}"]):
        tables = list_tables(dataset, table_store)
        with lock_tables(table_store, tables):
            show_tables(tables, table_store)
        before = _heads(table_store, dataset.name)
        code = _call(table_store, command, keep_stdout=keep_stdout)
        if code:
            how = f"was killed by {_signal_name(-code)}" if code < 0 else f"exited with {code}"
            kind = CommandInterruptedError if code < 0 or code == TRANSIENT_EXIT_CODE else CommandFailedError
            raise kind(
                f"{dataset.name}: `{shlex.join(command)}` {how} in the run {task.state.name}. Its message is above;"
                f" {table_store.root} is as it left it. Nothing was added to the run."
            )
        table_store.written.update(
            table for table, head in _heads(table_store, dataset.name).items() if before.get(table) != head
        )


def _call(table_store: TableStore, command: Sequence[str], *, keep_stdout: bool) -> int:
    environment = {name: value for name, value in os.environ.items() if name != RUN_VARIABLE}
    stdout = sys.__stderr__ if keep_stdout else None
    try:
        return subprocess.run(command, cwd=table_store.root, env=environment, stdout=stdout, check=False).returncode
    except OSError as error:
        raise CommandFailedError(f"`{shlex.join(command)}` cannot be run in {table_store.root}: {error}.") from None


def _heads(table_store: TableStore, dataset: str) -> dict[str, bytes]:
    """Table → the head of its manifest."""
    heads = {}
    for table in table_store.tables(dataset):
        with suppress(FileNotFoundError):
            heads[table] = (table_store.folder(table) / HEAD_FILE).read_bytes()
    return heads


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
