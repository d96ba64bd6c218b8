"""Pruning: deletes releases that a dataset's retention policy does not keep, and leaves a tombstone of each.

The tombstones are a commit on the release branch, and one atomic push moves the branch and deletes the tags: a release
at the same time, or another prune, makes the push fail, and everything is decided again on the new tip. What is online,
what a lock file of a training set needs, what the policy pins and the latest release are never pruned. The objects stay
until `headrace gc` finds that nothing references them.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from headrace import failpoints
from headrace.dataset import Dataset
from headrace.engine.code_hash import source_code
from headrace.errors import HeadraceError
from headrace.maintenance.gc import find_revisions
from headrace.maintenance.references import ReferencedObjects
from headrace.maintenance.release_summaries import ReleaseNeeds, pause_switches, read_tables, release_points
from headrace.release.branches import Branches
from headrace.release.build import BranchTips, retry_races
from headrace.release.retention import ReleasePoint, apply_policy, declared_policy, describe_policy
from headrace.release.workspace import follow_branch
from headrace.settings import Settings
from headrace.storage import git, git_commits, git_remote
from headrace.storage.locks import wait_for_lock
from headrace.storage.pruned_releases import (
    Tombstone,
    numbered_tags,
    read_pruned_numbers,
    release_number,
    tombstone_files,
)
from headrace.storage.table_store import TableStore
from headrace.text import pluralize
from headrace.workspace import PACKAGE

BATCH = 200
"""Releases in one push: the command line of git has room for more, and hosts limit the refs of one push."""


class PruneRefusedError(HeadraceError):
    """It is unknown what may be pruned, or the git remote does not let us delete tags."""


@dataclass(frozen=True)
class PrunePlan:
    """What becomes of the releases of a dataset.

    Attributes:
        points: Every release, oldest first.
        kept_by: Release → everything that keeps it.
        pruned: Releases that nothing keeps, oldest first.
        returned: Tags of releases that were pruned before and that somebody has pushed again.
        tips: Where the tombstones are built.
    """

    points: Sequence[ReleasePoint]
    kept_by: Mapping[str, Sequence[str]]
    pruned: Sequence[ReleasePoint]
    returned: Sequence[str]
    tips: BranchTips


@dataclass(frozen=True)
class PruneResult:
    """What was pruned, or would be.

    Attributes:
        dataset: Name of the dataset.
        policy: The rules.
        pruned: The releases, oldest first.
        kept_by: Release → everything that keeps it, of those that are kept.
        freed_objects: Objects that nothing else references: what `headrace gc` may delete then.
        freed_bytes: Their bytes, as far as they are known.
        dry_run: Whether nothing was changed.
    """

    dataset: str
    policy: str
    pruned: Sequence[str]
    kept_by: Mapping[str, Sequence[str]]
    freed_objects: int = 0
    freed_bytes: int = 0
    dry_run: bool = True


def prune(dataset: Dataset, table_store: TableStore, settings: Settings, *, dry_run: bool = True) -> PruneResult:
    """Prune the releases that the retention policy of a dataset does not keep, unless it is a dry run.

    Args:
        dataset: The dataset, with its retention policy.
        table_store: The workspace's tables.
        settings: Where Feast's registry is, which says what is online.
        dry_run: Change nothing.

    Raises:
        RetentionError: The dataset declares no policy, or one that cannot be meant.
        PruneRefusedError: The policy is not as committed, it is unknown what is online, or tags cannot be deleted.
        StaleReleaseError: The release branch moved again and again.
    """
    policy = describe_policy(declared_policy(dataset))
    plan = plan_prune(dataset, table_store, settings, must_be_committed=not dry_run)
    kept = {name: reasons for name, reasons in plan.kept_by.items() if reasons}
    freed = _count_freed(table_store, plan.pruned)
    names = [point.name for point in plan.pruned]
    if not dry_run:
        names = _prune_all(dataset, table_store, settings)
    return PruneResult(dataset.name, policy, names, kept, *freed, dry_run=dry_run)


def plan_prune(
    dataset: Dataset, table_store: TableStore, settings: Settings, *, must_be_committed: bool = True
) -> PrunePlan:
    """Decide which releases are kept, by what the git remote has now.

    Args:
        dataset: The dataset, with its retention policy.
        table_store: The workspace's tables.
        settings: Where Feast's registry is.
        must_be_committed: Refuse a policy that is not the one on the code branch.

    Raises:
        RetentionError: The dataset declares no policy, or one that cannot be meant.
        PruneRefusedError: The policy is not as committed, or it is unknown what is online.
    """
    policy, root, branches = declared_policy(dataset), table_store.root, Branches.configured(table_store.root)
    remote_refs = git_remote.fetch(root)
    tips = BranchTips.of(remote_refs, branches)
    if must_be_committed:
        _check_policy_is_committed(dataset, root, tips.code)
    there = numbered_tags((name.removeprefix("refs/tags/") for name in remote_refs), dataset.name)
    on_branch = set(git.tags(root, f"{dataset.name}/", tips.release)) if tips.release else set()
    pruned_before = read_pruned_numbers(root, dataset.name, tips.release)
    returned = [name for name in there if release_number(name) in pruned_before]
    points = release_points(root, dataset.name, [name for name in there if name in on_branch - {*returned}])
    needs = ReleaseNeeds.find(dataset, table_store, settings)
    if needs.online_error:
        raise PruneRefusedError(f"{needs.online_error} Nothing was pruned.")
    rules = apply_policy(policy, points)
    kept_by = {name: [*reasons, *needs.reasons(name)] for name, reasons in rules.items()}
    return PrunePlan(points, kept_by, [point for point in points if not kept_by[point.name]], returned, tips)


def _check_policy_is_committed(dataset: Dataset, root: Path, tip: str) -> None:
    """Refuse a declaration that is not the one on the code branch: it may lack a pin that somebody has pushed."""
    own = (path.relative_to(root).as_posix() for path in (root / PACKAGE / dataset.name).rglob("*.py"))
    files = sorted({*own, *source_code([f"{PACKAGE}.{dataset.name}"], root).files})
    if not files:  # a dataset that is declared elsewhere, in a test or a notebook
        return
    here, committed = git.hash_files(root, files), git.tree(root, tip, *files)
    if differing := [name for name in files if here.get(name) != committed.get(name)]:
        raise PruneRefusedError(
            f"{dataset.name}: expected the declaration with the retention policy to be as on the code branch"
            f" ({tip[:10]}), found differences in {', '.join(differing[:5])}. Nothing was pruned. Commit and push, or"
            " `git pull`, then run the same command again."
        )


def _count_freed(table_store: TableStore, pruned: Sequence[ReleasePoint]) -> tuple[int, int]:
    """Objects, and their bytes, that are referenced by these releases and by nothing else."""
    if not pruned:
        return 0, 0
    revisions = find_revisions(table_store)
    gone = {f"refs/tags/{point.name}" for point in pruned}
    before = ReferencedObjects.collect(table_store, revisions)
    after = ReferencedObjects.collect(
        table_store, {name: commit for name, commit in revisions.items() if name not in gone}
    )
    freed = before.sizes.keys() - after.sizes.keys()
    return len(freed), sum(before.sizes[md5] or 0 for md5 in freed)


def _prune_all(dataset: Dataset, table_store: TableStore, settings: Settings) -> list[str]:
    """Prune in batches, each in one push; names of what was pruned."""
    names: list[str] = []
    with wait_for_lock(table_store, "release"):
        while True:
            with pause_switches(dataset, settings):
                done, has_more, tip = retry_races(
                    lambda: _prune_batch(dataset, table_store, settings), table_store.root
                )
            names += done
            _delete_local_tags(table_store.root, dataset.name)
            if not has_more:
                break
    follow_branch(table_store.root, Branches.configured(table_store.root), tip)
    return names


def _prune_batch(dataset: Dataset, table_store: TableStore, settings: Settings) -> tuple[list[str], bool, str]:
    """Prune some releases: their names, whether there are more, and the tip of the release branch."""
    plan = plan_prune(dataset, table_store, settings)
    batch, returned = plan.pruned[:BATCH], plan.returned[:BATCH]
    if not (batch or returned):
        return [], False, plan.tips.release
    root, commit = table_store.root, plan.tips.release
    if batch:
        tombstones = _build_tombstones(dataset, table_store, batch)
        files = tombstone_files(root, commit, dataset.name, tombstones)
        message = f"{dataset.name}: prune {_describe_names(batch)}\n\n{tombstones[0].reason}"
        commit = git_commits.build_commit(root, [commit], commit, files, message)
    tags = _remote_tags(root, dataset.name)
    deleted = {
        f"refs/tags/{name}": tags[name] for name in (*(point.name for point in batch), *returned) if name in tags
    }
    _push(root, Branches.configured(root).release, plan.tips.release, commit, deleted)
    has_more = len(plan.pruned) > BATCH or len(plan.returned) > BATCH
    return [point.name for point in batch], has_more, commit


def _build_tombstones(dataset: Dataset, table_store: TableStore, batch: Sequence[ReleasePoint]) -> list[Tombstone]:
    now, by = datetime.now(UTC).isoformat(timespec="seconds"), git_commits.committer(table_store.root)
    return [
        Tombstone(
            release=point.name,
            commit=point.commit,
            released_at=point.time.isoformat(timespec="seconds"),
            tables=read_tables(table_store, dataset.name, point.commit),
            reason=f"no rule of the retention policy kept it ({describe_policy(declared_policy(dataset))})",
            pruned_by=by,
            pruned_at=now,
        )
        for point in batch
    ]


def _push(root: Path, branch: str, expected: str, commit: str, deleted: Mapping[str, str]) -> None:
    try:
        git_remote.push(root, commit, branch, expected, deleted=deleted)
    except git.GitError as error:
        if error.is_transient:
            raise
        raise PruneRefusedError(
            f"{git.REMOTE} does not let this user push to {branch} and delete {pluralize(len(deleted), 'tag')}:"
            f" {', '.join([*deleted][:3])}. Nothing was pruned. Whoever prunes needs both rights. ({error})"
        ) from None


def _remote_tags(root: Path, dataset: str) -> dict[str, str]:
    """Tag → its object on the remote: that of an annotated tag is not a commit."""
    lines = git.git(root, "ls-remote", git.REMOTE, f"refs/tags/{dataset}/*").splitlines()
    tags = (line.split("\t") for line in lines)
    return {name.removeprefix("refs/tags/"): value for value, name in tags if not name.endswith("^{}")}


def _delete_local_tags(root: Path, dataset: str) -> None:
    """Delete the tags of pruned releases that this clone still has."""
    tags = git.git(root, "for-each-ref", "--format=%(refname:lstrip=2)", f"refs/tags/{dataset}/").splitlines()
    pruned = read_pruned_numbers(root, dataset)
    names = [name for name in numbered_tags(tags, dataset) if release_number(name) in pruned]
    if names:
        lines = "".join(f"delete refs/tags/{name}\n" for name in names)
        with failpoints.failpoint("git update-ref"), suppress(git.RefLockedError):
            git.git(root, "update-ref", "--stdin", given=lines)


def _describe_names(points: Sequence[ReleasePoint]) -> str:
    return points[0].name if len(points) == 1 else f"{pluralize(len(points), 'release')}, {points[0].name} first"
