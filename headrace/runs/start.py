"""The start of a run: one commit that has the code and what its tables continue."""

from dataclasses import replace
from pathlib import Path

from headrace.release.branches import Branches
from headrace.release.build import BranchTips
from headrace.release.records import Records
from headrace.runs.run_refs import RunRefs, RunState
from headrace.storage import git, git_commits, git_remote
from headrace.storage.dvc.lock import recorded_outs
from headrace.storage.git_refs import RefChange, RefMovedError


def start_run(refs: RunRefs, dataset: str, run: str, *, must_keep: bool = False) -> RunState:
    """Start a run at the tip of the code branch, or move one there that has started before.

    A run that is moved keeps the tables that no release has changed meanwhile. The others continue what is not the
    latest release any more, and are dropped.

    Args:
        refs: The refs of all runs.
        dataset: The dataset.
        run: The run.
        must_keep: Leave the run where it is if it would lose a table.

    Raises:
        NoCodeBranchError: The git remote has no code branch.
        RefMovedError: The run was moved, or a table written, at the same time.
        RefsRefusedError: The git remote does not take run refs.
    """
    before = refs.find(dataset, run) or RunState(dataset, run, "")
    start = _build_start(refs.root, f"Start the run {run} of {dataset}")
    if before.start and _is_same(refs.root, before.start, start):
        return before
    state = RunState(dataset, run, start, findings=before.findings)
    continued, latest = _tables(refs.root, before.start), _tables(refs.root, start)
    outs = {path: out for path, out in refs.outs(before).items() if continued.get(path) == latest.get(path)}
    if must_keep and len(outs) < len(before.tables):
        return before
    kept = refs.commit_tables(state, outs)
    new = refs.refs(replace(state, tables=kept))
    old = refs.refs(before)
    try:
        refs.store.swap({name: RefChange(old.get(name, ""), new.get(name, "")) for name in {**old, **new}})
    except RefMovedError:
        found = refs.find(dataset, run)
        if before.start or not found or not found.start:
            raise
        return found  # another task of the run has started it
    return replace(state, tables=kept)


def _build_start(root: Path, message: str) -> str:
    """A commit of the code branch's tree and the release branch's records of tables; its parents are their tips."""
    branches = Branches.configured(root)
    tips = BranchTips.of(git_remote.fetch(root, branches.code, branches.release), branches)
    code = Records.at_commit(root, tips.code)
    with_tables = code.with_stages_of(Records.at_commit(root, tips.release)) if tips.release else code
    return git_commits.build_commit(root, tips.parents, tips.code, with_tables.changed_files(code), message)


def _is_same(root: Path, start: str, other: str) -> bool:
    """Whether two starts have the same parents and the same files."""
    one, two = (git.git(root, "rev-parse", f"{commit}^@", f"{commit}^{{tree}}") for commit in (start, other))
    return one == two


def _tables(root: Path, commit: str) -> dict[str, str]:
    """Path → md5 of the tables that a commit records; none if there is no commit."""
    return {path: str(out["md5"]) for path, out in recorded_outs(root, commit).items()} if commit else {}
