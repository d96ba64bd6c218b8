"""The runs that have not ended."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from headrace.runs.run_refs import RunRefs, RunState
from headrace.runs.worktree import worktree_path
from headrace.storage import git


@dataclass(frozen=True)
class RunSummary:
    """What is known of a run.

    Attributes:
        dataset: The dataset.
        run: The run.
        started: When it started; None if only tables of it are left over.
        last_written: When it last wrote a table, else when it started.
        commit: The commit of the code branch that it works on.
        tables: Tables that it has made.
        worktree: Its worktree on this machine, if there is one.
    """

    dataset: str
    run: str
    started: datetime | None
    last_written: datetime
    commit: str
    tables: tuple[str, ...]
    worktree: Path | None


def summarize_runs(refs: RunRefs, dataset: str = "") -> list[RunSummary]:
    """The runs of a dataset, or of all."""
    return [_summarize(refs, state) for state in refs.list(dataset)]


def _summarize(refs: RunRefs, state: RunState) -> RunSummary:
    started, commit = None, ""
    if state.start:
        # The last parent of a start is the tip of the code branch.
        time, *parents = git.git(refs.root, "show", "--no-patch", "--format=%ct %P", state.start).split()
        started, commit = datetime.fromtimestamp(int(time), UTC), parents[-1]
    path = worktree_path(refs.root, state.dataset, state.name)
    tables, written = tuple(sorted(state.tables)), refs.last_written(state)
    return RunSummary(state.dataset, state.name, started, written, commit, tables, path if path.is_dir() else None)
