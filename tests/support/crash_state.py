"""What a rehearsal looks at and does to a workspace, whatever runs in it."""

import shutil
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from crash_harness import Seen

from headrace.storage.dvc.objects import md5_of
from headrace.storage.table_store import Lake

VISIBLE = ("data", ".headrace/journal")
"""What a run leaves: the tables, and notes for the next one, of which there are none when it ended well."""


def whole(lake: Lake, tables: Iterable[str]) -> Seen:
    """Table → its manifest, each partition of which has the bytes that it says."""
    found: Seen = {}
    for table in tables:
        manifest = lake.manifest(table)
        for name, path in lake.paths(table).items():
            assert md5_of(path) == manifest.partitions[name].md5, f"{table} {name}"
        found[table] = manifest.to_files().head
    return found


def files(root: Path, *folders: str) -> Seen:
    """File → hash of its bytes."""
    found = [path for folder in folders for path in (root / folder).rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): sha256(path.read_bytes()).hexdigest() for path in found}


def expect_shown(lake: Lake, table: str) -> None:
    """The files of the table are those that its manifest names."""
    manifest = lake.manifest(table)
    folder = lake.folder(table)
    files = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    shown = {path.relative_to(folder).as_posix(): md5_of(path) for path in files}
    assert shown == manifest.files | manifest.to_files().md5s, table


def remove_locks(root: Path) -> None:
    """As somebody does who takes a run that is paused for dead."""
    for lock in (root / ".headrace/locks").iterdir():
        lock.unlink()


def copied(root: Path, name: str) -> Path:
    """The workspace, once more beside it."""
    return Path(shutil.copytree(root, root.with_name(name), symlinks=True))
