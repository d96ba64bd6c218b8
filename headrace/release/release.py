"""tables → release: audit and guards, then bytes to the remote, then one atomic push of commit and tag.

In that order, and each step can be repeated: no git ref points at data that was not found on the remote, by size and
md5. A release that was killed is completed by running it again, and one that fails leaves neither commit nor tag.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from headrace import failpoints
from headrace.dataset import Dataset
from headrace.errors import TransientError
from headrace.guards.finding import Acceptance
from headrace.project import graph
from headrace.project.engine_lock import check_environment
from headrace.project.locks import lock_tables
from headrace.release.audit import audit, changes_code, check_code_committed
from headrace.release.branches import Branches, latest_release, next_release
from headrace.release.build import BranchTips, HistoryGrewError, StartingPoint, build_release, retry_races
from headrace.release.changes import PartitionDiff, summarize, table_changes
from headrace.release.guards import check_guards, forget_released, note_lines
from headrace.release.held_labels import hold_unfinished_labels
from headrace.release.histories import history_tables, merge_histories
from headrace.release.records import DatasetRecords, Records
from headrace.release.retired_tables import read_retired_tables
from headrace.release.workspace import follow_release, starting_point
from headrace.storage import git, git_commits, git_remote
from headrace.storage.dvc.lock import recorded_outs
from headrace.storage.dvc.push import PushResult, push_objects
from headrace.storage.locks import wait_for_lock
from headrace.storage.manifest import HEAD_FILE
from headrace.storage.retired_tables import RetiredTable
from headrace.storage.table_store import TableStore

MERGES = 5
"""Merges of annotations before a release gives up: each time, another release with new annotations came first."""


@dataclass(frozen=True)
class ReleaseResult:
    """A release: a version of all tables of a dataset, complete and on the remote, under a git tag.

    Attributes:
        name: The tag, `<dataset>/<number>`.
        commit: The commit of the tag.
        created: Whether this run created it; False if nothing had changed since.
        changes: Table → what changed since the release before it.
        pushed: What was uploaded to the remote.
        accepted: What guards found, and who let it pass.
        held: Labels table → why it is as in the release before it.
    """

    name: str
    commit: str
    created: bool
    changes: Mapping[str, PartitionDiff] = field(default_factory=dict)
    pushed: PushResult = field(default_factory=PushResult)
    accepted: Sequence[Acceptance] = ()
    held: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ReleaseTarget:
    """What is released, from which workspace, to which branch.

    Attributes:
        dataset: The dataset.
        table_store: Its tables.
        branches: Where the code is, and where releases go.
        run_refs: Full name → commit of the refs that the push of the release deletes.
        held: Tables that it takes from the last release.
    """

    dataset: Dataset
    table_store: TableStore
    branches: Branches
    run_refs: Mapping[str, str] = field(default_factory=dict)
    held: Collection[str] = ()


@dataclass(frozen=True)
class ReleaseState:
    """What the git remote has when a release is built, and what differs here.

    Attributes:
        remote_refs: Full name → commit of its branches and tags.
        tips: The branches that matter.
        last: The latest release; empty if there is none.
        released: Output entries of the latest release.
        changes: Table → what changed since.
    """

    remote_refs: Mapping[str, str]
    tips: BranchTips
    last: str
    released: Mapping[str, dict[str, Any]]
    changes: Mapping[str, PartitionDiff]

    def locked(self, root: Path) -> Mapping[str, dict[str, Any]]:
        """Stage → entry of `dvc.lock` in the latest release."""
        return Records.at_commit(root, self.remote_refs[f"refs/tags/{self.last}"]).locked if self.last else {}

    def retired(self, root: Path) -> Mapping[str, RetiredTable]:
        """Table of the latest release that the next one leaves out → why."""
        retired = read_retired_tables(root) if self.last else {}
        return {table: retired[table] for table in self.changes if table in retired}


class RunChangedError(TransientError):
    """A task wrote a table of the run while the run was released."""


def create_release(
    dataset: Dataset,
    table_store: TableStore,
    *,
    run_refs: Mapping[str, str] | None = None,
    follow: Callable[[str], None] | None = None,
) -> ReleaseResult:
    """Record the tables of `dataset` as they are, and release them if they differ from the last release.

    Args:
        dataset: The dataset.
        table_store: Its tables.
        run_refs: Full name → commit of the refs of the run that is released: the push that makes the release deletes
            them, and is refused if one has another commit.
        follow: Called with the commit of the release branch that has the release; by default the workspace follows.

    Raises:
        EngineMismatchError: The engine or a library is not the one that `headrace.lock` names.
        TableLockedError: A run holds one of the tables.
        TablesBehindError: A stage has work to do.
        AuditError: A partition's counts do not add up, or code is not committed on the code branch.
        FindingsError: A table would lose too much, or has times in the future, and nobody has accepted that.
        QualityError: Labels that would be new in the release do not reach their thresholds, and wait for no answers.
        ReleasedMeanwhileError: Somebody else released the dataset since this run began.
        StaleReleaseError: The release branch moved again and again.
        RunChangedError: A ref in `run_refs` has another commit.
    """
    check_environment(table_store.root)
    target = ReleaseTarget(dataset, table_store, Branches.configured(table_store.root), run_refs or {})
    follow = follow or partial(follow_release, table_store.root, dataset.name, target.branches)
    merged: list[str] = []
    while True:
        try:
            return _release(target, merged, follow)
        except HistoryGrewError as error:
            if len(merged) == MERGES:
                raise
            merge_histories(dataset, table_store, error.commit)
            merged.append(error.commit)


def _release(target: ReleaseTarget, merged: Sequence[str], follow: Callable[[str], None]) -> ReleaseResult:
    dataset, table_store = target.dataset, target.table_store
    tables = list_tables(dataset, table_store)
    with lock_tables(table_store, (f"release/{dataset.name}", *tables)):
        show_tables(tables, table_store)
        behind = audit(dataset, table_store)
        state = retry_races(partial(_fetch_state, target), table_store.root)
        held = hold_unfinished_labels(dataset, table_store, state.changes, state.released, behind)
        target = replace(target, held=held.tables)
        state = replace(state, changes=_without(state.changes, held.tables))
        recorded = recorded_outs(table_store.root)
        own_tables = [table for table in tables if table not in held.tables]
        outs = {f"data/{table}": table_store.dvc_out(table_store.manifest(table), recorded) for table in own_tables}
        outs |= held.outs
        pushed = push_objects(
            table_store.cache, outs.values(), state.released.values(), _new_sizes(own_tables, state, table_store)
        )
        earlier = state.locked(table_store.root) if held.tables else {}
        own = DatasetRecords.of_workspace(dataset, table_store, outs, held.heads, earlier)
        start = starting_point(table_store.root, dataset.name, merged, history_tables(dataset))
        push = partial(_build_and_push, target, state, own, start)
        # Releases of one workspace would only make each other build again: they come one after the other.
        with wait_for_lock(table_store, "release"):
            release, tip = retry_races(push, table_store.root)
        follow(tip)
        forget_released(release.accepted, dataset, table_store)
    return replace(release, pushed=pushed, held=held.reasons)


def _fetch_state(target: ReleaseTarget, before: ReleaseState | None = None) -> ReleaseState:
    """The state of the remote now; what was found `before` and cannot differ is not read again."""
    dataset, table_store, branches = target.dataset, target.table_store, target.branches
    root = table_store.root
    remote_refs = git_remote.fetch(root, branches.code, branches.release)
    tips = BranchTips.of(remote_refs, branches)
    if not before or changes_code(dataset, root, before.tips.code, tips.code):
        check_code_committed(dataset, table_store, branches.code, tips.code)
    last = latest_release(root, dataset.name, remote_refs, tips.release)
    if before and before.last == last:
        return replace(before, remote_refs=remote_refs, tips=tips)
    released = recorded_outs(root, remote_refs[f"refs/tags/{last}"]) if last else {}
    recorded = list_tables(dataset, table_store)
    changes = _without(table_changes(dataset.name, table_store, released, recorded), target.held)
    return ReleaseState(remote_refs, tips, last, released, changes)


def _without(changes: Mapping[str, PartitionDiff], held: Collection[str]) -> dict[str, PartitionDiff]:
    return {table: change for table, change in changes.items() if table not in held}


def _build_and_push(
    target: ReleaseTarget, before: ReleaseState, own: DatasetRecords, start: StartingPoint
) -> tuple[ReleaseResult, str]:
    """The release, and the tip of the branch that has it."""
    root, state = target.table_store.root, _fetch_state(target, before)
    is_new = not state.last or bool(state.changes)
    name = next_release(root, own.dataset, state.remote_refs, state.tips.release) if is_new else state.last
    what = summarize(state.changes) if is_new else "recorded again, the tables as they were"
    commit = build_release(root, state.tips, own, start, f"{name}: {what}")
    if not is_new:
        if commit != state.tips.release:
            _push(target, commit, state.tips.release)
        return ReleaseResult(name, state.remote_refs[f"refs/tags/{name}"], created=False), commit
    # Not earlier: what a release of others has, and this one lacks, was read or merged above.
    accepted = check_guards(target.dataset, target.table_store, state.last, state.released, state.changes)
    tag = git_commits.build_tag(root, name, commit, _notes(root, name, state, accepted))
    _push(target, commit, state.tips.release, {name: tag})
    # A fetch that brings the tag at this moment holds its lock.
    with failpoints.failpoint("git update-ref"), suppress(git.RefLockedError):
        git.git(root, "update-ref", f"refs/tags/{name}", tag)
    return ReleaseResult(name, commit, created=True, changes=state.changes, accepted=accepted), commit


def _push(target: ReleaseTarget, commit: str, tip: str, tags: Mapping[str, str] | None = None) -> None:
    """Push the release, and delete the refs of its run.

    Raises:
        StaleReleaseError: The release branch does not have the tip any more.
        RunChangedError: A ref of the run has another commit.
    """
    root, refs = target.table_store.root, target.run_refs
    try:
        git_remote.push(root, commit, target.branches.release, tip, tags, deleted=refs)
    except git_remote.StaleReleaseError:
        if refs and git_remote.remote_refs(root, *refs) != refs:
            raise RunChangedError(
                f"{target.dataset.name}: a task wrote a table of the run while the run was released. Nothing was"
                " released. Run the same command again."
            ) from None
        raise


def list_tables(dataset: Dataset, table_store: TableStore) -> list[str]:
    """Every table of the dataset: those of its stages, and, unless retired, what is shown or in a `.dvc` file."""
    stages = graph.dataset_stages(dataset)
    declared = {table for stage in stages for table in (*stage.reads, stage.table, *stage.companion_tables)}
    data = table_store.root / "data"
    recorded = {path.relative_to(data).with_suffix("").as_posix() for path in data.glob(f"*/{dataset.name}/*.dvc")}
    others = {*recorded, *table_store.tables(dataset.name)} - declared
    return sorted(declared | (others - read_retired_tables(table_store.root).keys() if others else others))


def show_tables(tables: Sequence[str], table_store: TableStore) -> None:
    """Write missing manifests, also in place of those of format 1: `dvc.lock` records every table of a stage."""
    for table in tables:
        if not (table_store.folder(table) / HEAD_FILE).exists():
            table_store.checkout(table_store.manifest(table))


def _new_sizes(tables: Sequence[str], state: ReleaseState, table_store: TableStore) -> dict[str, int]:
    """md5 → bytes of the partitions, and of the chunks of manifests, that the last release may not have."""
    sizes: dict[str, int] = {}
    for table in tables:
        out = state.released.get(f"data/{table}")
        released = table_store.manifest_of_directory(out["md5"]) if out else None
        mine = table_store.manifest(table).entries
        new, _ = mine.without_shared_chunks(released.entries) if released else (mine, None)
        sizes |= {file.md5: file.size for file in new.files}
    return sizes


def _notes(root: Path, name: str, state: ReleaseState, accepted: Sequence[Acceptance]) -> str:
    """The message of the tag: the committed code, what changed in each table, what is retired, and was accepted."""
    changes = (f"{table}: {change}" for table, change in state.changes.items())
    retired = (f"{table}: {retired}" for table, retired in state.retired(root).items())
    return "\n".join((name, "", f"code: {state.tips.code}", *changes, *retired, *note_lines(accepted)))
