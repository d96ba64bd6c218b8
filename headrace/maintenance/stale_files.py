"""half attempts → none: what a killed process left behind that its next run does not clear away by itself."""

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
from headrace.errors import HeadraceError
from headrace.maintenance.references import journal
from headrace.project import locks
from headrace.storage import git
from headrace.storage.manifest import MANIFEST, Manifest
from headrace.storage.s3.multipart import abandon, unfinished
from headrace.storage.table_store import Lake

YOUNG = 3600.0
"""Seconds: a temporary file of this age may be one that somebody is writing without a lease."""

UPLOAD_HOURS = 24
RWLOCK = Path(".dvc/tmp/rwlock")


@dataclass(frozen=True)
class Leftover:
    """Something that nobody needs any more.

    Attributes:
        where: Path or address.
        what: What it is, and why it is known that nobody needs it.
        clear: Takes it away; raises a known error where that cannot be done now.
    """

    where: str
    what: str
    clear: Callable[[], None]


def find(lake: Lake) -> Iterator[Leftover]:
    """Everything that was left behind; what a running process may still need is not among it."""
    yield from _locks(lake)
    yield from _git_locks(lake)
    yield from _journals(lake)
    yield from _temporaries(lake)
    yield from _uploads(lake)


def dvc_holders(root: Path) -> list[str]:
    """Running processes that DVC's lock file names."""
    return [f"{pid} ({command})" for pid, command in _locked_by(root / RWLOCK).items() if _runs(pid, root / RWLOCK)]


def _locks(lake: Lake) -> Iterator[Leftover]:
    path = lake.root / RWLOCK
    try:
        named = _locked_by(path)
    except ValueError:
        yield Leftover(str(RWLOCK), "is torn: DVC refuses every `dvc repro`", lambda: _unlock(path))
        return
    if named and not any(_runs(pid, path) for pid in named):
        who = ", ".join(f"{pid} ({command})" for pid, command in named.items())
        yield Leftover(str(RWLOCK), f"names processes that are dead: {who}", lambda: _unlock(path))


def _git_locks(lake: Lake) -> Iterator[Leftover]:
    for path in git.dead_locks(lake.root):
        what = "a lock of git that no running git holds: git refuses to write over it"
        yield Leftover(str(path), what, partial(git.unlock, lake.root, path))


def _locked_by(path: Path) -> dict[int, str]:
    """Process → command that `rwlock` names.

    Raises:
        ValueError: The file is torn.
    """
    text = path.read_text("utf-8") if path.exists() else "{}"
    found: dict[str, Any] = json.loads(text)
    infos = list(found.get("write", {}).values())
    infos += [info for readers in found.get("read", {}).values() for info in readers]
    return {int(info["pid"]): str(info["cmd"]) for info in infos if info}


def _runs(pid: int, lock: Path) -> bool:
    """Whether the process that wrote its number into `lock` lives: one that began later has only got its number."""
    import psutil  # noqa: PLC0415  DVC brings it

    with suppress(psutil.NoSuchProcess, FileNotFoundError):
        return bool(psutil.Process(pid).create_time() <= lock.stat().st_mtime)
    return False


def _unlock(path: Path) -> None:
    with _guarded(path.with_name("rwlock.lock")):
        torn = False
        try:
            named = _locked_by(path)
        except ValueError:
            torn, named = True, {}
        if torn or not any(_runs(pid, path) for pid in named):
            with failpoints.failpoint("DVC's lock that is dead"):
                path.unlink(missing_ok=True)


# no failpoint: the kernel holds the lock; the file is empty
@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    """Hold one of DVC's own lock files.

    Raises:
        HeadraceError: A running process of DVC holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HeadraceError(f"{path} is held by a running `dvc`. Let it finish, then run again.") from None
        yield


@contextmanager
def dvc_kept_out(root: Path) -> Iterator[None]:
    """Let no `dvc` command write in the workspace meanwhile.

    Raises:
        HeadraceError: One is running.
    """
    with _guarded(root / ".dvc/tmp/lock"):
        if holders := dvc_holders(root):
            raise HeadraceError(f"{root}: DVC is running, process {', '.join(holders)}. Let it finish, then run again.")
        yield


def _journals(lake: Lake) -> Iterator[Leftover]:
    for path in sorted((lake.root / ".headrace/journal").glob("*.jsonl")):
        table = path.stem.replace(".", "/")
        if _is_shown(lake, table, path):
            clear = partial(_remove, lake, path, [table], partial(_is_shown, lake, table, path))
            where = path.relative_to(lake.root).as_posix()
            yield Leftover(where, f"notes of a run whose table {table} is shown", clear)


def _is_shown(lake: Lake, table: str, path: Path) -> bool:
    """Whether the table's manifest has everything that the journal notes."""
    manifest = lake.folder(table) / MANIFEST
    memos = set(Manifest.at(manifest).memos.values()) if manifest.exists() else set()
    return path.exists() and all(entry.memo in memos for entry in journal(path.read_bytes()))


def _temporaries(lake: Lake) -> Iterator[Leftover]:
    patterns = ((lake.root, ".*.tmp"), (lake.root / "data", "**/.*.tmp"), (lake.cache.folder / "tmp", "*"))
    for folder, pattern in (*patterns, (lake.cache.folder / "files/md5", "*/.*.tmp")):
        for path in sorted(folder.glob(pattern)):
            if _is_old(path):
                where = path.relative_to(lake.root).as_posix() if path.is_relative_to(lake.root) else str(path)
                clear = partial(_remove, lake, path, None, partial(_is_old, path))
                yield Leftover(where, f"{path.stat().st_size:,} bytes half written", clear)


def _is_old(path: Path) -> bool:
    return path.is_file() and time.time() - path.stat().st_mtime > YOUNG


def _remove(lake: Lake, path: Path, tables: list[str] | None, is_left: Callable[[], bool]) -> None:
    """Delete `path` under the leases of `tables`, or of all, if nobody has come to need it meanwhile."""
    with locks.lock_tables(lake, tables):
        if is_left():
            with failpoints.failpoint("what was left behind"):
                path.unlink()


def _uploads(lake: Lake) -> Iterator[Leftover]:
    remote = lake.cache.remote
    for upload in unfinished(remote.bucket, remote.key("").rstrip("/"), UPLOAD_HOURS):
        what = f"an upload that began {upload.began:%Y-%m-%d %H:%M} and never ended"
        yield Leftover(f"s3://{remote.bucket.name}/{upload.key}", what, partial(abandon, remote.bucket, upload))
