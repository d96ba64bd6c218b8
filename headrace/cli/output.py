"""What the command line prints: results on standard output, as text or JSON; errors and progress on standard error."""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import logs
from headrace.errors import HeadraceError
from headrace.workspace import DATASET_NAME, PACKAGE, VARIABLE, check_project, use_project

if TYPE_CHECKING:
    from headrace.engine.run import StageResult
    from headrace.runs.task import RunTask
    from headrace.settings import Settings
    from headrace.storage.table_store import TableStore

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with a table, the number of its partitions that are done, and the number of all."""

SUMMARY_VARIABLE = "HEADRACE_SUMMARY"
PROGRESS_INTERVAL_S = 10.0
"""Seconds between two progress lines in a log; bars on a terminal are updated continuously."""

DatasetArgument = Annotated[str, typer.Argument(help="Name of the dataset: its folder in pipelines/.")]
TableOption = Annotated[list[str] | None, typer.Option("--table", "-t", help="Only this table; may be repeated.")]
PartitionOption = Annotated[
    str | None, typer.Option("--partition", "-p", help="Only this partition, for example 2013-01-09.")
]
RunOption = Annotated[
    str | None,
    typer.Option(
        "--run",
        envvar="HEADRACE_RUN",
        help="Work in this run, on its commit and in a worktree of its own, not in the workspace; `new` starts one.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def workspace() -> "tuple[Settings, TableStore]":
    """The settings of the current workspace, and its tables.

    Raises:
        HeadraceError: There is no project here.
    """
    from headrace.settings import load_settings  # noqa: PLC0415  only a command that reads data pays for the imports
    from headrace.storage.table_store import TableStore  # noqa: PLC0415

    settings = load_settings()
    check_project(settings.workspace)
    return settings, TableStore.at(settings.workspace, is_remote_only=settings.commit == "remote")


def writable_workspace() -> "tuple[Settings, TableStore]":
    """The settings of the current workspace and its tables, for a command that writes some of them.

    Raises:
        EngineMismatchError: The engine or a library is not the one that `headrace.lock` names.
    """
    from headrace.project.engine_lock import check_environment  # noqa: PLC0415

    settings, table_store = workspace()
    check_environment(table_store.root)
    return settings, table_store


@contextmanager
def dataset_tables(
    dataset: str, run: str | None, *, read_only: bool = False
) -> "Iterator[tuple[Settings, TableStore]]":
    """Settings and tables of the workspace or, with `run`, of that run, which gets the tables that the block writes.

    Raises:
        EngineMismatchError: The engine or a library is not the one that `headrace.lock` names, and not `read_only`.
    """
    if not run:
        yield workspace() if read_only else writable_workspace()
        return
    from headrace.runs.task import save_task  # noqa: PLC0415  only a run pays for the imports

    with run_task(dataset, run) as task:
        yield (workspace() if read_only else writable_workspace())[0], task.table_store
        save_task(task)


@contextmanager
def run_task(dataset: str, run: str) -> "Iterator[RunTask]":
    """A task of a run of `dataset`: until the block ends, its worktree is the workspace of this process.

    An error that names a command also says how to type it for this run.

    Args:
        dataset: The dataset.
        run: As typed: any text, for example an id of Airflow; `new` for a run that is started.

    Raises:
        DatasetError: The commit of the run does not have the dataset.
    """
    from headrace.settings import load_settings  # noqa: PLC0415  only a run pays for the imports

    name, clone = named_run(run), os.environ.get(VARIABLE, "")
    try:
        yield _open_run(dataset, name, load_settings())
    except HeadraceError as error:
        if "`headrace " in str(error) and "--run" not in str(error):
            error.add_note(f"For the run {name}, type the command with `--run {name}`.")
        raise
    finally:
        os.environ[VARIABLE] = clone


def _open_run(dataset: str, run: str, settings: "Settings") -> "RunTask":
    from headrace.project.loading import load_dataset  # noqa: PLC0415
    from headrace.runs.task import end_run, open_task  # noqa: PLC0415

    task = open_task(settings.workspace, check_name(dataset), run, settings)
    os.environ[VARIABLE] = str(task.table_store.root)
    use_project(task.table_store.root)
    log.info("run %s of %s, commit %s, in %s", task.state.name, dataset, task.state.start[:10], task.table_store.root)
    if not (task.table_store.root / PACKAGE / dataset).is_dir() and not task.state.tables:
        end_run(task.refs, dataset, task.state.name)
    load_dataset(dataset)
    return task


def named_run(run: str) -> str:
    """The name of a run: of the one that is typed, or of a new one."""
    from headrace.runs.names import NEW, new_run_name, run_name  # noqa: PLC0415

    return new_run_name() if run == NEW else run_name(run)


def check_name(dataset: str) -> str:
    """The name of a dataset, after checking that it can be one.

    Raises:
        HeadraceError: It cannot.
    """
    if not DATASET_NAME.fullmatch(dataset):
        raise HeadraceError(
            f"expected the name of a dataset, as its folder in {PACKAGE}/ is called, found {dataset!r}."
        )
    return dataset


def result(content: dict[str, Any], lines: Sequence[str], *, as_json: bool) -> None:
    """Print the result of a command: `content` as JSON, or `lines` as text.

    With HEADRACE_SUMMARY, the lines are logged beside the JSON: a program reads one, a person the other.
    """
    if as_json and os.environ.get(SUMMARY_VARIABLE):
        for line in lines:
            log.info("%s", line)
    text = json.dumps(content, indent=2, default=str) if as_json else "\n".join(lines)
    typer.echo(text, file=sys.__stdout__ if sys.stdout is sys.stderr else None)


def error_text(error: HeadraceError, *, as_json: bool) -> str:
    """The error as the last line on standard error."""
    message = " ".join([str(error), *getattr(error, "__notes__", [])])
    if not as_json:
        return f"error: {message}"
    content = {
        "type": type(error).__name__,
        "message": message,
        "transient": error.is_transient,
        "exit_code": error.exit_code,
        **error.details(),
    }
    return json.dumps({"error": content}, ensure_ascii=False)


def keep_stdout_for_results() -> None:
    """Send what libraries print to standard error, so that standard output is valid JSON."""
    sys.stdout = sys.stderr


@contextmanager
def progress() -> Iterator[Progress]:
    """One bar per table on a terminal; elsewhere a line in the log every ten seconds."""
    with _bars() if logs.shows_progress_bars() else _lines(PROGRESS_INTERVAL_S) as show:
        yield show


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.progress import Progress as Bars  # noqa: PLC0415  only a terminal pays for the import

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=logs.terminal(), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show(table: str, done: int, total: int) -> None:
            if table not in tasks:
                tasks[table] = bars.add_task(table)
            bars.update(tasks[table], completed=done, total=total)

        yield show


@contextmanager
def _lines(interval_s: float) -> Iterator[Progress]:
    """Lines from a thread, so that a partition that takes minutes does not look like a process that hangs."""
    started, stop = time.monotonic(), Event()
    counts: dict[str, tuple[int, int]] = {}

    def write() -> None:
        while not stop.wait(interval_s):
            for table, (done, total) in list(counts.items()):
                if done < total:
                    seconds = time.monotonic() - started
                    log.info("%s: %d of %d partitions after %.0f s", table, done, total, seconds)

    def show(table: str, done: int, total: int) -> None:
        counts[table] = (done, total)

    writer = Thread(target=write, name="progress", daemon=True)
    writer.start()
    try:
        yield show
    finally:
        stop.set()
        writer.join()


def some(names: Sequence[str], most: int = 4) -> str:
    """The first few of `names` and their number: `2013-01-01, 2013-01-02 … 14 in all`."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} … {len(names)} in all"


def report(ran: "Sequence[StageResult]", *, as_json: bool) -> None:
    """Print the results of stages."""
    result(stages(ran), [_line(item) for item in ran], as_json=as_json)


def stages(ran: "Sequence[StageResult]") -> dict[str, Any]:
    """The results of stages as JSON."""
    return {"stages": [_content(item) for item in ran]}


def _content(ran: "StageResult") -> dict[str, Any]:
    return {
        "table": ran.stage.table,
        "computed": {name: list(reasons) for name, reasons in ran.computed.items()},
        "unchanged": ran.reused,
        "removed": list(ran.removed),
        "totals": ran.totals,
        "engines": ran.engines,
        "checks": dict(ran.checks),
    }


def _line(ran: "StageResult") -> str:
    computed = f"{len(ran.computed)} computed ({some(list(ran.computed))})" if ran.computed else "nothing to do"
    removed = f", {len(ran.removed)} removed ({some(list(ran.removed))})" if ran.removed else ""
    totals = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in ran.totals.items())
    checks = "".join(f"\n  rejected by {check}: {rows:,}" for check, rows in ran.checks.most_common())
    engines = "".join(f"; {count} computed by {engine}" for engine, count in sorted(ran.engines.items()))
    return f"{ran.stage.table}: {computed}{removed}, {ran.reused} reused; {totals}{engines}{checks}"
