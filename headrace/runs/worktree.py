"""The worktree of a run: a checkout of its commit inside the clone, which shares the clone's cache and configuration.

It shows manifests alone: bytes come from the cache, or from the remote. Submodules and Git LFS are not supported.
"""

import configparser
import io
import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from headrace import failpoints
from headrace.runs.run_refs import RunState
from headrace.storage import git
from headrace.storage.dvc.cache import Cache
from headrace.storage.files import atomic_write
from headrace.storage.manifest import FORMAT_1_FILE, HEAD_FILE
from headrace.storage.table_store import TableStore

FOLDER = Path(".headrace/runs")
STATE = Path(".headrace/run.json")
"""The commits of the run that the worktree shows. It is written last: a worktree without it is not complete."""


def worktree_path(clone: Path, dataset: str, run: str) -> Path:
    """Where the worktree of a run is, or would be."""
    return clone / FOLDER / dataset / run


def list_worktrees(clone: Path) -> dict[tuple[str, str], Path]:
    """Dataset and run → worktree, of every run that this machine has worked on, complete or not."""
    return {(path.parent.name, path.name): path for path in sorted((clone / FOLDER).glob("*/*")) if path.is_dir()}


def open_worktree(clone: Path, state: RunState) -> Path:
    """The worktree of a run, which shows what the run has made so far; it is created if need be.

    What a task of this machine has made and not yet written to the run stays, unless another machine has written the
    same table since.
    """
    path = worktree_path(clone, state.dataset, state.name)
    shown = _read_state(path)
    if shown.get("start") != state.start or git.resolve(path, "HEAD") != state.start:
        remove_worktree(clone, path)
        _add_worktree(clone, path, state.start)
        shown = {}
    table_store = TableStore.at(path)
    for table, commit in state.tables.items():
        if shown.get(table) != commit:
            _hide(table_store, table)
    _write_config(clone, path)
    write_state(path, state)
    return path


def write_state(path: Path, state: RunState) -> None:
    """Note that a worktree shows this state of its run."""
    if _read_state(path) != (commits := {"start": state.start, **state.tables}):
        (path / STATE).parent.mkdir(exist_ok=True)
        atomic_write(path / STATE, json.dumps(commits, indent=2).encode())


def _read_state(path: Path) -> Mapping[str, str]:
    with suppress(FileNotFoundError, ValueError):
        commits: Mapping[str, str] = json.loads((path / STATE).read_text("utf-8"))
        return commits
    return {}


def _add_worktree(clone: Path, path: Path, commit: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with failpoints.failpoint("git worktree add", path.mkdir):
        # Twice --force: a process that was killed may have left the path registered, and locked.
        git.git(clone, "worktree", "add", "--quiet", "--force", "--force", "--detach", str(path), commit)


def _hide(table_store: TableStore, table: str) -> None:
    """Have a table read from what the run has recorded, not from the manifest in the worktree."""
    with table_store.lock_table(table), failpoints.failpoint("manifest that is outdated"):
        for name in (HEAD_FILE, FORMAT_1_FILE):
            (table_store.folder(table) / name).unlink(missing_ok=True)


def _write_config(clone: Path, path: Path) -> None:
    """Give a worktree the clone's own DVC configuration, which git does not have, and the clone's cache."""
    parser = configparser.RawConfigParser(strict=False)
    names = ["config.local"] if (path / ".dvc/config").exists() else ["config", "config.local"]
    parser.read([clone / ".dvc" / name for name in names])
    if not parser.has_section("cache"):
        parser.add_section("cache")
    parser["cache"]["dir"] = str(Cache.of(clone).folder)
    text = io.StringIO()
    parser.write(text)
    content, local = text.getvalue().encode(), path / ".dvc/config.local"
    if not local.exists() or local.read_bytes() != content:
        local.parent.mkdir(exist_ok=True)
        atomic_write(local, content)


def remove_worktree(clone: Path, path: Path) -> None:
    """Remove a worktree, complete or not.

    Raises:
        TableLockedError: A task works in it.
    """
    table_store = TableStore.at(path)
    with ExitStack() as held:
        for lock in sorted((path / ".headrace/locks").glob("*.lock")):
            held.enter_context(table_store.lock_table(lock.stem.replace(".", "/")))
        if path.exists():
            with failpoints.failpoint("worktree of a run"):
                shutil.rmtree(path)
    # Not `git worktree prune`: it would remove what git has noted so far of a worktree that another task adds just now.
    # Twice --force: a process that was killed while it added the worktree has left it locked. It may not be registered.
    with failpoints.failpoint("git worktree remove"), suppress(git.GitError):
        git.git(clone, "worktree", "remove", "--force", "--force", str(path))
