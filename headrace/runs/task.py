"""A task of a run: one command that reads the run's state, works in its worktree, and adds the tables it wrote."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from headrace.dataset import Dataset
from headrace.errors import HeadraceError, TableLockedError, TransientError
from headrace.guards.finding_log import FINDINGS
from headrace.release.audit import UncommittedCodeError
from headrace.release.branches import Branches
from headrace.release.build import ReleasedMeanwhileError
from headrace.release.release import ReleaseResult, create_release
from headrace.release.workspace import follow_branch
from headrace.runs.run_refs import RunRefs, RunState
from headrace.runs.start import start_run
from headrace.runs.worktree import list_worktrees, open_worktree, remove_worktree, worktree_path, write_state
from headrace.settings import Settings
from headrace.storage.dvc.cache import Cache
from headrace.storage.dvc.lock import recorded_outs
from headrace.storage.dvc.push import push_objects
from headrace.storage.git_refs import RefMovedError
from headrace.storage.locks import wait_for_lock
from headrace.storage.table_store import TableStore

log = logging.getLogger(__name__)


class RunConflictError(TransientError):
    """Another task has written a table of the run since this one began."""


class RunMovedError(TransientError):
    """Somebody released other tables of the dataset, and the run continues that release now."""


class RunOutdatedError(HeadraceError):
    """The run cannot be released any more: the dataset's code or tables have changed since it started."""


@dataclass(frozen=True)
class RunTask:
    """One command's work in a run.

    Attributes:
        refs: The refs of all runs.
        state: The run as it was when the task began.
        table_store: The run's tables, in its worktree.
    """

    refs: RunRefs
    state: RunState
    table_store: TableStore


def open_task(clone: Path, dataset: str, run: str, settings: Settings) -> RunTask:
    """Begin a task of a run; the run is started if it has not begun, or has ended.

    Args:
        clone: The git clone. Its files, its branch and its tables are not read.
        dataset: The dataset.
        run: The run.
        settings: Where run refs are, and where partitions are written.

    Raises:
        TableLockedError: Another task of this machine writes a table that must be read again.
        NoCodeBranchError: The git remote has no code branch.
        RefsRefusedError: The git remote does not take run refs.
    """
    clone = clone.resolve()
    refs = RunRefs.configured(clone, settings)
    with wait_for_lock(TableStore.at(clone), lock_name(dataset)):
        worktrees = list_worktrees(clone)  # before the refs: a worktree is younger than the start of its run
        states = {state.name: state for state in refs.list(dataset)}
        if refs.is_pushed:
            ended = worktrees.keys() - {(dataset, name) for name in (*states, *_names(RunRefs.local(clone, settings)))}
            remove_worktrees(clone, [worktrees[name] for name in ended if name[0] == dataset and name[1] != run])
        state = states.get(run)
        if not state or not state.start:
            state = start_run(refs, dataset, run)
        root = open_worktree(clone, state)
    cache = Cache.of(root, is_remote_only=settings.commit == "remote")
    findings = refs.ref(dataset, run, FINDINGS)
    return RunTask(refs, state, TableStore(root, cache, refs.outs(state), findings, bool(state.findings)))


def lock_name(dataset: str) -> str:
    """The lock of the clone that is held while worktrees of the dataset's runs are created and removed."""
    return f"runs/{dataset}"


def _names(refs: RunRefs) -> set[str]:
    return {state.name for state in refs.list()}


def remove_worktrees(clone: Path, paths: Iterable[Path]) -> list[Path]:
    """Remove worktrees of runs that have ended, less those in which a task still works; those that were removed."""
    removed = []
    for path in paths:
        try:
            remove_worktree(clone, path)
            removed.append(path)
        except TableLockedError as error:
            log.info("the worktree of a run that has ended stays: %s", error)
    return removed


def save_task(task: RunTask) -> RunState:
    """Add the tables that the task has written to the run: their bytes to the remote, then their entries, atomically.

    Raises:
        RunConflictError: Another task has written one of them since this one began. Nothing was added.
    """
    table_store, known = task.table_store, {**recorded_outs(task.table_store.root), **(task.table_store.run_outs or {})}
    outs = {
        f"data/{table}": table_store.dvc_out(table_store.manifest(table), known)
        for table in sorted(table_store.written)
    }
    new = {path: out for path, out in outs.items() if out["md5"] != known.get(path, {}).get("md5")}
    if not new:
        return task.state
    if task.refs.is_pushed:
        sizes = {
            md5: size for table in table_store.written for md5, size in table_store.manifest(table).objects.items()
        }
        push_objects(table_store.cache, new.values(), [known[path] for path in new if path in known], sizes)
    try:
        state = task.refs.write_tables(task.state, new)
    except RefMovedError as error:
        tables = ", ".join(path.removeprefix("data/") for path in new)
        raise RunConflictError(
            f"{tables}: another task of the run {task.state.name} of {task.state.dataset} has written one of these"
            " tables since this one began, or the run has ended or moved. Nothing of this task was added. Run the same"
            f" command again, which continues from there. ({error})"
        ) from None
    write_state(table_store.root, state)
    return state


def release_task(task: RunTask, dataset: Dataset) -> ReleaseResult:
    """Release the tables of the run. The push that makes the release deletes the run's refs.

    Raises:
        RunMovedError: A release changed tables meanwhile that the run has not written.
        RunOutdatedError: The dataset's code, or a table of the run in the latest release, is not what it started from.
        HeadraceError: As `create_release`.
    """
    run_refs = task.refs.refs(task.state) if task.refs.is_pushed else {}
    follow = partial(_follow, task.refs.root, dataset.name)
    try:
        return create_release(dataset, task.table_store, run_refs=run_refs, follow=follow)
    except (ReleasedMeanwhileError, UncommittedCodeError) as error:
        if isinstance(error, ReleasedMeanwhileError) and _moves(task):
            raise RunMovedError(
                f"{error.found} The run {task.state.name} has not written these tables, and has moved on to that"
                " release. Run the same command again."
            ) from error
        raise RunOutdatedError(
            f"{error.found} Nothing was released. `headrace runs start {dataset.name} --run {task.state.name}` moves"
            " the run to the newest commit; then run its commands again (in Airflow: clear the whole DAG run)."
        ) from error


def _moves(task: RunTask) -> bool:
    """Whether the run has moved to the newest commit with all its tables."""
    moved = start_run(task.refs, task.state.dataset, task.state.name, must_keep=True)
    return moved.start != task.state.start


def _follow(clone: Path, dataset: str, tip: str) -> None:
    """Fast-forward the clone, unless it shows tables of its own, which do not continue this release."""
    if TableStore.at(clone).tables(dataset):
        log.info("%s shows tables of %s of its own, so its branch stays: `git pull` moves it.", clone, dataset)
        return
    follow_branch(clone, Branches.configured(clone), tip)


def end_run(refs: RunRefs, dataset: str, run: str, *, start: str | None = None) -> bool:
    """Delete the refs of a run and its worktree here; False if there is no such run.

    Args:
        refs: The refs of all runs.
        dataset: The dataset.
        run: The run.
        start: Only if the run still has this start.

    Raises:
        RefMovedError: A task has written a table at the same time.
        TableLockedError: A task works in the worktree. The refs are deleted.
    """
    with wait_for_lock(TableStore.at(refs.root), lock_name(dataset)):
        state = refs.find(dataset, run)
        if state and start and state.start not in ("", start):
            return False
        if state:
            refs.end(state)
        path = worktree_path(refs.root, dataset, run)
        is_here = path.exists()
        if is_here:
            remove_worktree(refs.root, path)
        return bool(state) or is_here
