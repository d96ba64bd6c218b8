"""cache, remote → the same less what nobody names: no release, branch, stash, table of the workspace, nor journal.

Kept is also what is young, for a run somewhere may be about to name it; and nothing goes while a run holds a lease.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from headrace import failpoints
from headrace.errors import HeadraceError
from headrace.maintenance.integrity import objects
from headrace.maintenance.references import Holdings
from headrace.maintenance.repair import write_back
from headrace.maintenance.stale_files import dvc_kept_out
from headrace.project import locks
from headrace.storage import git
from headrace.storage.dvc.cache import Cache
from headrace.storage.dvc.push import PARALLEL
from headrace.storage.dvc.remote import Remote
from headrace.storage.table_store import Lake

HOURS = 24.0
"""So old an object must be: longer than any run takes from its first bytes to its release."""

NAME = re.compile(r"[0-9a-f]{32}(\.dir)?")


class UnknownHoldingsError(HeadraceError):
    """It cannot be told what is named."""


@dataclass(frozen=True)
class Garbage:
    """What nobody names: object → bytes.

    Attributes:
        cache: In the workspace's cache.
        remote: On the DVC remote; empty where it was not asked for.
        kept: Objects that are named, or that a journal names.
        is_gone: Whether it was deleted; otherwise it was only looked for.
    """

    cache: Mapping[str, int]
    remote: Mapping[str, int] = field(default_factory=dict)
    kept: int = 0
    is_gone: bool = False


def collect(lake: Lake, *, hours: float = HOURS, remote: bool = False, yes: bool = False) -> Garbage:
    """Find what nobody names, and with `yes` delete it.

    Args:
        lake: The workspace.
        hours: What is younger is kept.
        remote: Look at the DVC remote too.
        yes: Delete.

    Raises:
        TableBusyError: A run holds a table.
        UnknownHoldingsError: A list that says what is named is lost; or the cache, which is all that is looked at, may
            belong to other workspaces too.
    """
    if not remote and _is_shared(lake):
        raise UnknownHoldingsError(
            f"The cache {lake.cache.folder} lies outside of the workspace {lake.root}: what other workspaces name there"
            " cannot be seen from here, so nothing is deleted. `headrace gc --remote` looks at the remote alone."
        )
    with ExitStack() as stack:
        if yes:
            stack.enter_context(locks.lock_tables(lake))
            stack.enter_context(dvc_kept_out(lake.root))
        found = _find(lake, hours, remote=remote)
        if not yes:
            return found
        _delete_there(lake.cache.remote, found.remote)
        _put_back(lake, found)
        for md5 in found.cache:
            with failpoints.failpoint("object out of the cache"):
                lake.cache.path(md5).unlink(missing_ok=True)
        return Garbage(found.cache, found.remote, found.kept, is_gone=True)


def _find(lake: Lake, hours: float, *, remote: bool) -> Garbage:
    before = datetime.now(UTC) - timedelta(hours=hours)
    theirs = dict(_old_there(lake.cache.remote, before)) if remote else {}
    mine = {} if _is_shared(lake) else dict(_old_here(lake.cache, before))
    # Last, so that what was named while the objects were listed counts as named.
    named = _named(lake)
    return Garbage(
        {md5: size for md5, size in mine.items() if md5 not in named},
        {md5: size for md5, size in theirs.items() if md5 not in named},
        len(named),
    )


def _old_there(remote: Remote, before: datetime) -> Iterator[tuple[str, int]]:
    for md5, found in objects(remote):
        if found.modified and found.modified < before:
            yield md5, found.size


def _old_here(cache: Cache, before: datetime) -> Iterator[tuple[str, int]]:
    for path in (cache.folder / "files/md5").glob("[0-9a-f][0-9a-f]/*"):
        md5, facts = path.parent.name + path.name, path.stat()
        if NAME.fullmatch(md5) and facts.st_mtime < before.timestamp():
            yield md5, facts.st_size


def _is_shared(lake: Lake) -> bool:
    return not lake.cache.folder.is_relative_to(lake.root)


def _named(lake: Lake) -> set[str]:
    """Objects that anybody names: every ref, also the remote's as they are now, every stash, HEAD, the workspace."""
    git.fetch(lake.root)
    revisions = {**git.refs(lake.root), **git.stashes(lake.root), "HEAD": git.head(lake.root)}
    found = Holdings.of(lake, revisions)
    if found.unreadable:
        raise UnknownHoldingsError(
            f"{lake.root}: {len(found.unreadable)} lists of files are lost, {min(found.unreadable)} first, so that it"
            " cannot be told what they name; nothing was deleted. `headrace doctor --repair` mends them or says how."
        )
    return set(found.sizes)


def _delete_there(remote: Remote, md5s: Iterable[str]) -> None:
    """Delete from the remote, lists first: a list that stands while its files go would pass for a whole table."""
    order = sorted(md5s)
    with ThreadPoolExecutor(PARALLEL) as pool:
        for wanted in (True, False):
            some = [md5 for md5 in order if md5.endswith(".dir") is wanted]
            list(pool.map(lambda md5: _delete(remote, md5), some))


def _delete(remote: Remote, md5: str) -> None:
    with failpoints.failpoint("object off the remote"):
        remote.bucket.delete(remote.key(md5))


def _put_back(lake: Lake, found: Garbage) -> None:
    """Write again what another workspace has come to name meanwhile: it found the object there, and did not write it.

    Raises:
        UnknownHoldingsError: This cache does not have it.
    """
    named = _named(lake) & found.remote.keys() if found.remote else set()
    lost = sorted(md5 for md5 in named if not lake.cache.path(md5).exists())
    for md5 in sorted(named - set(lost)):
        write_back(lake.cache, md5)
    if lost:
        raise UnknownHoldingsError(
            f"{lake.cache.remote.where(lost[0])} and {len(lost) - 1} more were deleted just as another workspace"
            " released them. Run `headrace doctor --repair` in that workspace: its cache has them."
        )
