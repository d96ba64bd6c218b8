"""What the crash scenarios read from a workspace and do to it, whatever runs in it."""

import fcntl
import json
import shutil
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from crash_harness import State

from headrace.storage.dvc.objects import md5_of
from headrace.storage.table_store import TableStore

VISIBLE_FOLDERS = ("data", ".headrace/journal")
"""What a run leaves: the tables, and a journal for the next run, which is empty after a run that ended well."""

LOST_LOCKS = ".headrace/lost-locks.json"


def read_intact_tables(table_store: TableStore, tables: Iterable[str]) -> State:
    """Table → its manifest, after checking that each partition has the bytes that the manifest records."""
    state: State = {}
    for table in tables:
        manifest = table_store.manifest(table)
        for name, path in table_store.paths(table).items():
            assert md5_of(path) == manifest.partitions[name].md5, f"{table} {name}"
        state[table] = manifest.to_files().head
    return state


def hash_files(root: Path, *folders: str) -> State:
    """File → hash of its bytes."""
    paths = [path for folder in folders for path in (root / folder).rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): sha256(path.read_bytes()).hexdigest() for path in paths}


def assert_files_match_manifest(table_store: TableStore, table: str) -> None:
    """The files in the table's folder are exactly those of its manifest."""
    manifest = table_store.manifest(table)
    folder = table_store.folder(table)
    files = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    md5s = {path.relative_to(folder).as_posix(): md5_of(path) for path in files}
    assert md5s == manifest.files | manifest.to_files().md5s, table


def remove_locks(root: Path) -> None:
    """Delete the locks, as somebody does who takes a paused run for dead; `lost_locks` names those that it held."""
    locks = list((root / ".headrace/locks").iterdir())
    (root / LOST_LOCKS).write_text(json.dumps([lock.stem.replace(".", "/") for lock in locks if _is_held(lock)]))
    for lock in locks:
        lock.unlink()


def lost_locks(root: Path) -> list[str]:
    """The tables whose locks `remove_locks` took away from a run."""
    tables: list[str] = json.loads((root / LOST_LOCKS).read_text())
    return tables


def _is_held(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def copy_workspace(root: Path, name: str) -> Path:
    """Copy a workspace to a folder beside it."""
    return Path(shutil.copytree(root, root.with_name(name), symlinks=True))
