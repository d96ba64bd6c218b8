"""Garbage collection: deletes objects that no release, branch, stash, run, workspace table or journal references.

Objects younger than a minimum age are kept, because an unfinished run may be about to reference them; and nothing is
deleted while a run holds a table's lock. `dvc gc` knows neither journals nor other people's branches.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from headrace import failpoints
from headrace.errors import HeadraceError
from headrace.maintenance.integrity import list_objects
from headrace.maintenance.references import ReferencedObjects, forget_other_commits, without_pruned
from headrace.maintenance.repair import write_back
from headrace.maintenance.stale_files import dvc_lock
from headrace.project import locks
from headrace.runs.old_runs import all_refs, end_old_runs, find_old_runs, live_run_revisions
from headrace.runs.worktree import list_worktrees
from headrace.settings import load_settings
from headrace.storage import git, git_remote
from headrace.storage.dvc.cache import Cache
from headrace.storage.dvc.push import PARALLEL
from headrace.storage.dvc.remote import Remote
from headrace.storage.table_store import TableStore

MIN_AGE_HOURS = 24.0
"""Longer than any run takes from its first object to its release."""

OBJECT_NAME = re.compile(r"[0-9a-f]{32}(\.dir)?")


class UnresolvedReferencesError(HeadraceError):
    """It is unknown which objects are referenced, so none may be deleted."""


@dataclass(frozen=True)
class GarbageReport:
    """Unreferenced objects: md5 → bytes.

    Attributes:
        cache: Those in the workspace's cache.
        remote: Those on the DVC remote; empty if it was not searched.
        referenced: Number of objects that are referenced.
        ended_runs: Runs that have written nothing for days (HEADRACE_RUN_DAYS), as dataset and run: nothing counts as
            referenced by them, but for what their worktrees here show in a dry run. They were ended if the objects were
            deleted.
        deleted: Whether the unreferenced objects were deleted.
    """

    cache: Mapping[str, int]
    remote: Mapping[str, int] = field(default_factory=dict)
    referenced: int = 0
    ended_runs: tuple[str, ...] = ()
    deleted: bool = False


def collect_garbage(
    table_store: TableStore, *, min_age_hours: float = MIN_AGE_HOURS, remote: bool = False, dry_run: bool = True
) -> GarbageReport:
    """Find unreferenced objects, and delete them unless it is a dry run.

    Args:
        table_store: The workspace's tables.
        min_age_hours: Younger objects are kept.
        remote: Search the DVC remote, too.
        dry_run: Delete nothing.

    Raises:
        TableLockedError: A run holds the lock of a table.
        UnresolvedReferencesError: A directory object is lost, so what it references is unknown; or only the cache is
            searched, and other workspaces may share it.
    """
    if not remote and _is_shared(table_store):
        raise UnresolvedReferencesError(
            f"The cache {table_store.cache.folder} is outside of the workspace {table_store.root}, so other workspaces"
            " may use it. What they reference cannot be seen from here, and nothing was deleted. `headrace gc --remote`"
            " collects on the remote only."
        )
    with ExitStack() as stack:
        if not dry_run:
            stack.enter_context(locks.lock_tables(table_store))
            ended = end_old_runs(table_store.root, load_settings(table_store.root))
            for worktree in list_worktrees(table_store.root).values():
                stack.enter_context(locks.lock_tables(TableStore.at(worktree)))
            stack.enter_context(dvc_lock(table_store.root))
        else:
            ended = find_old_runs(table_store.root, load_settings(table_store.root))
        garbage = _find_garbage(table_store, min_age_hours, remote=remote)
        garbage = replace(garbage, ended_runs=tuple(f"{state.dataset} {state.name}" for state in ended))
        if dry_run:
            return garbage
        # The remote first: objects that a concurrent release needs after all are restored from the cache.
        _delete_from_remote(table_store.cache.remote, garbage.remote)
        _restore_referenced(table_store, garbage)
        for md5 in garbage.cache:
            with failpoints.failpoint("delete object from the cache"):
                table_store.cache.path(md5).unlink(missing_ok=True)
        return replace(garbage, deleted=True)


def _find_garbage(table_store: TableStore, min_age_hours: float, *, remote: bool) -> GarbageReport:
    before = datetime.now(UTC) - timedelta(hours=min_age_hours)
    in_remote = dict(_list_old_in_remote(table_store.cache.remote, before)) if remote else {}
    in_cache = {} if _is_shared(table_store) else dict(_list_old_in_cache(table_store.cache, before))
    # References last, so that those that were added while objects were listed count.
    referenced = _collect_references(table_store)
    return GarbageReport(
        {md5: size for md5, size in in_cache.items() if md5 not in referenced},
        {md5: size for md5, size in in_remote.items() if md5 not in referenced},
        len(referenced),
    )


# An object that exists is not written again when a run computes it again, so its age says nothing about its last use.
# What covers that: all tables are locked meanwhile, and objects deleted from the remote are looked for once more.
def _list_old_in_remote(remote: Remote, before: datetime) -> Iterator[tuple[str, int]]:
    for md5, item in list_objects(remote):
        if item.modified and item.modified < before:
            yield md5, item.size


def _list_old_in_cache(cache: Cache, before: datetime) -> Iterator[tuple[str, int]]:
    for path in (cache.folder / "files/md5").glob("[0-9a-f][0-9a-f]/*"):
        md5, stat = path.parent.name + path.name, path.stat()
        if OBJECT_NAME.fullmatch(md5) and stat.st_mtime < before.timestamp():
            yield md5, stat.st_size


def _is_shared(table_store: TableStore) -> bool:
    return not table_store.cache.folder.is_relative_to(table_store.root)


def find_revisions(table_store: TableStore) -> dict[str, str]:
    """Name → commit of all that references objects: refs (the remote's as they are now), stashes, runs.

    The tags of pruned releases do not count.
    """
    git_remote.fetch(table_store.root)
    fetched = without_pruned(table_store.root, git.refs(table_store.root))
    refs = {name: commit for name, commit in fetched.items() if not _is_run_ref(table_store, name)}
    settings = load_settings(table_store.root)
    pushed, local = (live_run_revisions(runs, settings) for runs in all_refs(table_store.root, settings))
    return {**refs, **git.stashes(table_store.root), "HEAD": git.head(table_store.root), **local, **pushed}


def _collect_references(table_store: TableStore) -> set[str]:
    """Objects that a ref, a stash, a run, the workspace or a journal references."""
    revisions = find_revisions(table_store)
    referenced = ReferencedObjects.collect(table_store, revisions)
    if referenced.unreadable:
        raise UnresolvedReferencesError(
            f"{table_store.root}: {len(referenced.unreadable)} directory objects are lost, {min(referenced.unreadable)}"
            " first, so it is unknown which files they reference. Nothing was deleted. Run `headrace doctor --repair`,"
            " which repairs them or says how."
        )
    forget_other_commits(table_store, revisions)
    return set(referenced.sizes)


def _is_run_ref(table_store: TableStore, name: str) -> bool:
    """Whether a ref of the clone belongs to a run, perhaps to one that has ended since the ref was fetched."""
    namespace = load_settings(table_store.root).run_refs
    tracking = f"refs/remotes/{git.REMOTE}/{namespace.removeprefix('refs/heads/')}"
    return name.startswith((f"{namespace}/", f"{tracking}/"))


def _delete_from_remote(remote: Remote, md5s: Iterable[str]) -> None:
    """Delete objects, directory objects first.

    If a directory object is on the remote, DVC assumes that its files are, too (dvc_data/hashfile/status.py). One that
    outlived its files would make `dvc push` skip them.
    """
    ordered = sorted(md5s)
    with ThreadPoolExecutor(PARALLEL) as pool:
        for directories in (True, False):
            batch = [md5 for md5 in ordered if md5.endswith(".dir") is directories]
            list(pool.map(lambda md5: _delete(remote, md5), batch))


def _delete(remote: Remote, md5: str) -> None:
    with failpoints.failpoint("delete object from the remote"):
        remote.bucket.delete(remote.key(md5))


def _restore_referenced(table_store: TableStore, garbage: GarbageReport) -> None:
    """Upload deleted objects that another workspace has come to reference meanwhile.

    Its release found them on the remote before they were deleted, and therefore did not upload them.

    Raises:
        UnresolvedReferencesError: This cache does not have them.
    """
    needed = _collect_references(table_store) & garbage.remote.keys() if garbage.remote else set()
    lost = sorted(md5 for md5 in needed if not table_store.cache.path(md5).exists())
    for md5 in sorted(needed - set(lost)):
        write_back(table_store.cache, md5)
    if lost:
        raise UnresolvedReferencesError(
            f"{table_store.cache.remote.where(lost[0])} and {len(lost) - 1} more were deleted while another workspace"
            " released them. Run `headrace doctor --repair` in that workspace, whose cache has them."
        )
