"""Runs that nobody will finish: they are ended some days after they last wrote something."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from headrace.runs.run_refs import RunRefs, RunState
from headrace.runs.task import remove_worktrees
from headrace.runs.worktree import list_worktrees
from headrace.settings import Settings
from headrace.storage.git_refs import RefMovedError


def live_run_revisions(refs: RunRefs, settings: Settings) -> dict[str, str]:
    """Name → commit of everything that runs have recorded, less the old ones: their starts and their tables."""
    commits = {name: commit for state in _split(refs, settings)[0] for name, commit in refs.refs(state).items()}
    return {f"run {name.removeprefix(f'{refs.namespace}/')}": commit for name, commit in commits.items()}


def find_old_runs(root: Path, settings: Settings) -> list[RunState]:
    """Runs that have written nothing for `HEADRACE_RUN_DAYS`, and what is left over of runs without a start."""
    return [state for refs in all_refs(root, settings) for state in _split(refs, settings)[1]]


def end_old_runs(root: Path, settings: Settings) -> list[RunState]:
    """End the old runs, and remove the worktrees of all that have ended. The locks of runs must be held.

    Returns:
        The runs that were ended.
    """
    ended, live = [], set()
    for refs in all_refs(root, settings):
        going_on, old = _split(refs, settings)
        for state in old:
            with suppress(RefMovedError):  # it has written something at this moment
                refs.end(state)
                ended.append(state)
        live |= {(state.dataset, state.name) for state in (*going_on, *old) if state not in ended}
    remove_worktrees(root, [path for run, path in list_worktrees(root).items() if run not in live])
    return ended


def all_refs(root: Path, settings: Settings) -> tuple[RunRefs, RunRefs]:
    """Refs of runs wherever they may be: on the git remote, and in the clone."""
    return RunRefs.pushed(root, settings), RunRefs.local(root, settings)


def _split(refs: RunRefs, settings: Settings) -> tuple[list[RunState], list[RunState]]:
    """Live runs, and old ones."""
    limit = datetime.now(UTC) - timedelta(days=settings.run_days)
    live: list[RunState] = []
    old: list[RunState] = []
    for state in refs.list():
        (live if state.start and refs.last_written(state) >= limit else old).append(state)
    return live, old
