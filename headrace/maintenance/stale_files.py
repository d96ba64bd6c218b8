"""Finds what killed processes left behind and no later run removes by itself: locks, journals, partial writes."""

import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from headrace import failpoints
from headrace.errors import TransientError
from headrace.maintenance.references import parse_journal
from headrace.project import locks
from headrace.runs.old_runs import all_refs
from headrace.runs.task import lock_name
from headrace.runs.worktree import list_worktrees, remove_worktree, worktree_path
from headrace.settings import load_settings
from headrace.storage import git
from headrace.storage.s3.multipart import abort, list_incomplete
from headrace.storage.table_store import TableStore

MIN_AGE_S = 3600.0
"""A younger temporary file may be in use by a process that writes it without holding a table's lock."""

UPLOAD_MIN_AGE_HOURS = 24
RWLOCK = Path(".dvc/tmp/rwlock")
"""DVC's read and write locks: JSON with the process id and command of each holder. A killed `dvc` stays in it."""


@dataclass(frozen=True)
class StaleFile:
    """A file (or an upload) that nobody needs any more.

    Attributes:
        location: Path or address.
        reason: What it is, and why nobody needs it.
        remove: Deletes it. Raises HeadraceError if that is not possible now.
    """

    location: str
    reason: str
    remove: Callable[[], None]


def find_stale_files(table_store: TableStore) -> Iterator[StaleFile]:
    """Everything that is stale. What a running process may still need is not included."""
    yield from _find_dvc_lock(table_store)
    yield from _find_git_locks(table_store)
    yield from _find_journals(table_store)
    yield from _find_temporaries(table_store)
    yield from _find_uploads(table_store)
    yield from _find_worktrees(table_store)


def running_dvc_processes(root: Path) -> list[str]:
    """The running processes that DVC's lock file names, each as `<pid> (<command>)`."""
    path = root / RWLOCK
    return [f"{pid} ({command})" for pid, command in _read_rwlock(path).items() if _is_running(pid, path)]


def _find_dvc_lock(table_store: TableStore) -> Iterator[StaleFile]:
    path = table_store.root / RWLOCK
    try:
        holders = _read_rwlock(path)
    except ValueError:
        reason = "is not valid JSON, so every `dvc repro` fails"
        yield StaleFile(str(RWLOCK), reason, partial(_remove_rwlock, path))
        return
    if holders and not any(_is_running(pid, path) for pid in holders):
        processes = ", ".join(f"{pid} ({command})" for pid, command in holders.items())
        reason = f"is held by processes that no longer run: {processes}"
        yield StaleFile(str(RWLOCK), reason, partial(_remove_rwlock, path))


def _find_git_locks(table_store: TableStore) -> Iterator[StaleFile]:
    for path in git.stale_locks(table_store.root):
        reason = "is a lock that no running git holds, so git refuses to write"
        yield StaleFile(str(path), reason, partial(git.remove_stale_lock, table_store.root, path))


def _read_rwlock(path: Path) -> dict[int, str]:
    """Process id → command of the holders of DVC's lock.

    Raises:
        ValueError: The file is not valid JSON. DVC writes it in place, so a kill can truncate it.
    """
    content: dict[str, Any] = json.loads(path.read_text("utf-8") if path.exists() else "{}")
    holders = list(content.get("write", {}).values())
    holders += [holder for readers in content.get("read", {}).values() for holder in readers]
    return {int(holder["pid"]): str(holder["cmd"]) for holder in holders if holder}


def _is_running(pid: int, lock: Path) -> bool:
    """Whether the process that wrote its id into `lock` is running.

    The system reuses ids: a process that started after the file was written is another one. DVC does not compare the
    times (dvc/rwlock.py), so it waits for such a process.
    """
    import psutil  # noqa: PLC0415  a dependency of DVC

    with suppress(psutil.NoSuchProcess, FileNotFoundError):
        return bool(psutil.Process(pid).create_time() <= lock.stat().st_mtime)
    return False


def _remove_rwlock(path: Path) -> None:
    # `rwlock.lock` is the flock under which DVC changes `rwlock`. While it is held here, no `dvc` can add itself.
    with _hold_lock_file(path.with_name("rwlock.lock")):
        try:
            running = any(_is_running(pid, path) for pid in _read_rwlock(path))
        except ValueError:
            running = False
        if not running:
            with failpoints.failpoint("remove stale DVC lock"):
                path.unlink(missing_ok=True)


# no failpoint: the kernel holds the lock; the file is empty
@contextmanager
def _hold_lock_file(path: Path) -> Iterator[None]:
    """Hold one of DVC's lock files.

    Raises:
        TransientError: A running `dvc` holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:  # not truncated: zc.lockfile, which DVC uses, keeps the holder's process id in it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TransientError(f"{path} is held by a running `dvc`. Wait until it ends, then run again.") from None
        yield


@contextmanager
def dvc_lock(root: Path) -> Iterator[None]:
    """Keep every `dvc` command out of the workspace.

    Raises:
        TransientError: One is running.
    """
    # `dvc repro` releases `tmp/lock` while a stage's command runs (dvc/stage/decorators.py, `unlocked_repo`). Then only
    # its entry in `rwlock` shows it.
    with _hold_lock_file(root / ".dvc/tmp/lock"):
        if processes := running_dvc_processes(root):
            raise TransientError(
                f"{root}: DVC is running, process {', '.join(processes)}. Wait until it ends, then run again."
            )
        yield


def _find_journals(table_store: TableStore) -> Iterator[StaleFile]:
    for path in sorted((table_store.root / ".headrace/journal").glob("*.jsonl")):
        table = path.stem.replace(".", "/")
        if _is_complete(table_store, table, path):
            remove = partial(_remove_file, table_store, path, [table], partial(_is_complete, table_store, table, path))
            location = path.relative_to(table_store.root).as_posix()
            yield StaleFile(location, f"is the journal of a run whose table {table} is complete", remove)


def _is_complete(table_store: TableStore, table: str, path: Path) -> bool:
    """Whether the table's manifest has every entry of the journal."""
    visible = table_store.visible_manifest(table)
    cache_keys = set(visible.cache_keys.values()) if visible else set()
    return path.exists() and all(entry.cache_key in cache_keys for entry in parse_journal(path.read_bytes()))


def _find_temporaries(table_store: TableStore) -> Iterator[StaleFile]:
    patterns = (
        (table_store.root, ".*.tmp"),
        (table_store.root / "data", "**/.*.tmp"),
        (table_store.cache.folder / "tmp", "*"),
        (table_store.cache.folder / "files/md5", "*/.*.tmp"),
    )
    for folder, pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            if _is_old(path):
                location = (
                    path.relative_to(table_store.root).as_posix()
                    if path.is_relative_to(table_store.root)
                    else str(path)
                )
                remove = partial(_remove_file, table_store, path, None, partial(_is_old, path))
                yield StaleFile(location, f"is a partial write of {path.stat().st_size:,} bytes", remove)


def _is_old(path: Path) -> bool:
    return path.is_file() and time.time() - path.stat().st_mtime > MIN_AGE_S


def _remove_file(table_store: TableStore, path: Path, tables: list[str] | None, is_stale: Callable[[], bool]) -> None:
    """Delete `path` while holding the locks of `tables` (None: of all tables), if it is still stale then."""
    with locks.lock_tables(table_store, tables):
        if is_stale():
            with failpoints.failpoint("remove stale file"):
                path.unlink()


def _find_worktrees(table_store: TableStore) -> Iterator[StaleFile]:
    """Worktrees of runs that have ended, for example on another machine."""
    worktrees = list_worktrees(table_store.root)  # before the refs: a worktree is younger than the start of its run
    if not worktrees:
        return
    every = all_refs(table_store.root, load_settings(table_store.root))
    live = {(state.dataset, state.name) for refs in every for state in refs.list()}
    for run, path in worktrees.items():
        if run not in live:
            location = path.relative_to(table_store.root).as_posix()
            yield StaleFile(
                location, "is the worktree of a run that has ended", partial(_remove_worktree, table_store, *run)
            )


def _remove_worktree(table_store: TableStore, dataset: str, run: str) -> None:
    with table_store.lock_table(lock_name(dataset)):
        remove_worktree(table_store.root, worktree_path(table_store.root, dataset, run))


def _find_uploads(table_store: TableStore) -> Iterator[StaleFile]:
    """Incomplete multipart uploads. No listing of objects shows them, and they are billed until they are aborted."""
    remote = table_store.cache.remote
    for upload in list_incomplete(remote.bucket, remote.key("").rstrip("/"), UPLOAD_MIN_AGE_HOURS):
        reason = f"is an incomplete upload, started {upload.began:%Y-%m-%d %H:%M}"
        yield StaleFile(f"s3://{remote.bucket.name}/{upload.key}", reason, partial(abort, remote.bucket, upload))
