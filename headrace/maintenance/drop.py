"""Drops tables that nothing declares any more: from the workspace, from what git records, and from what is online.

A release already made keeps them. Every step can be repeated: a drop that was killed is finished by the next one.
"""

import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace import failpoints
from headrace.dataset import Dataset
from headrace.errors import HeadraceError
from headrace.guards.finding import record_file
from headrace.maintenance.stale_files import dvc_lock
from headrace.project.declared_tables import declared_tables, place_of, table_names, undeclared_tables
from headrace.project.dvc_stages import is_generated
from headrace.project.locks import lock_tables
from headrace.release.branches import list_releases
from headrace.release.retired_tables import read_retired_tables, retire_tables
from headrace.storage.dvc.lock import read_lock, recorded_outs, write_lock
from headrace.storage.files import load_yaml
from headrace.storage.manifest import FORMAT_1_FILE, HEAD_FILE
from headrace.storage.table_store import TableStore
from headrace.workspace import PACKAGE


class StillDeclaredError(HeadraceError):
    """A declaration still makes what is to be dropped or renamed."""


class NotOnRecordError(HeadraceError):
    """There is no such table that nothing declares."""


class StillReadError(HeadraceError):
    """A stage that is written by hand reads the table."""


@dataclass(frozen=True)
class TableSize:
    """What a table holds."""

    partitions: int
    rows: int
    bytes: int


@dataclass(frozen=True)
class DropResult:
    """What was dropped, or would be.

    Attributes:
        dataset: Name of the dataset.
        tables: Table → what it held.
        kept_by: The newest release that has one of them; empty if none has. Those before it may have them, too.
        dry_run: Whether nothing was changed.
    """

    dataset: str
    tables: Mapping[str, TableSize] = field(default_factory=dict)
    kept_by: str = ""
    dry_run: bool = True


def find_dropped(dataset: Dataset, name: str, table_store: TableStore) -> list[str]:
    """The tables that a drop of `name` removes: those on record, and those that an earlier drop has begun to remove.

    Args:
        dataset: The dataset, as it is declared.
        name: A table's own name, or with its state: `features/carrier_delays`.
        table_store: The workspace's tables.

    Raises:
        StillDeclaredError: A declaration makes such a table, and none on record is without one.
        NotOnRecordError: There is no such table.
    """
    declared = declared_tables(dataset)
    # Those that are retired: a drop that was killed may have left some of them.
    retired = retired_of(dataset.name, table_store) - declared.keys()
    undeclared = sorted({*undeclared_tables(dataset, table_store), *retired})
    if tables := [table for table in undeclared if is_named(table, name)]:
        return tables
    places = {place_of(it, table_store.root) for table, it in declared.items() if is_named(table, name)}
    if places:
        raise StillDeclaredError(
            f"{dataset.name}: {', '.join(sorted(places))} still declares {name}. Nothing was changed. Remove the"
            " declaration, and whatever reads it, then run the same command again."
        )
    raise NotOnRecordError(
        f"{dataset.name}: expected a table {name!r} that is on record and not declared, found"
        f" {', '.join(table_names(undeclared)) or 'none'}. `headrace status {dataset.name}` lists its tables. Nothing"
        " was changed."
    )


def find_dataset(dataset: str, table_store: TableStore) -> list[str]:
    """The tables that a drop of a whole dataset removes.

    Raises:
        StillDeclaredError: It is declared.
        NotOnRecordError: There is neither a table nor a release of it.
    """
    place = f"{PACKAGE}/{dataset}/__init__.py"
    if (table_store.root / place).exists():
        raise StillDeclaredError(
            f"{place} still declares the dataset {dataset}. Nothing was changed. Remove the folder {PACKAGE}/{dataset},"
            f" then run the same command again; `headrace drop {dataset} TABLE` drops one table."
        )
    tables = {*table_store.known_tables(dataset), *retired_of(dataset, table_store)}
    if not (tables or list_releases(table_store, dataset)):
        raise NotOnRecordError(
            f"There is neither a table nor a release of a dataset {dataset!r} in {table_store.root}. Nothing was"
            " changed."
        )
    return sorted(tables)


def retired_of(dataset: str, table_store: TableStore) -> set[str]:
    """Tables of a dataset that were dropped or renamed."""
    return {table for table in read_retired_tables(table_store.root) if table.split("/")[1] == dataset}


def is_named(table: str, name: str) -> bool:
    """Whether `name`, with or without a state, names the table `<state>/<dataset>/<name>`."""
    state, _, own = table.split("/")
    return name in (own, f"{state}/{own}")


def drop_tables(
    dataset: str, tables: Sequence[str], table_store: TableStore, *, reason: str, dry_run: bool = True
) -> DropResult:
    """Remove tables from the workspace and from what it records, unless it is a dry run.

    Args:
        dataset: Name of the dataset.
        tables: The tables, which nothing declares.
        table_store: The workspace's tables.
        reason: Why, for the record.
        dry_run: Change nothing.

    Raises:
        StillReadError: A stage that is written by hand reads one of them.
        TableLockedError: A run holds one of them.
        TransientError: DVC is running.
    """
    refuse_readers(table_store.root, tables)
    sizes = {table: _size(table_store, table) for table in tables}
    if not dry_run:
        with lock_tables(table_store, (f"release/{dataset}", *tables)):
            retire_tables(table_store.root, tables, reason)
            remove_tables(table_store, tables)
    return DropResult(dataset, sizes, _newest_release(table_store, dataset, tables), dry_run)


def _size(table_store: TableStore, table: str) -> TableSize:
    manifest = table_store.manifest(table)
    return TableSize(len(manifest.md5s), manifest.rows, sum(manifest.sizes.values()))


def _newest_release(table_store: TableStore, dataset: str, tables: Iterable[str]) -> str:
    paths = {f"data/{table}" for table in tables}
    releases = reversed(list_releases(table_store, dataset))
    return next((name for name in releases if paths & recorded_outs(table_store.root, name).keys()), "")


def refuse_readers(root: Path, tables: Iterable[str]) -> None:
    """Refuse to take a table away from a stage that is written by hand.

    Raises:
        StillReadError: There is one.
    """
    path = root / "dvc.yaml"
    stages: Mapping[str, Any] = (load_yaml(path).get("stages") or {}) if path.exists() else {}
    folders = [f"data/{table}" for table in tables]
    for name, entry in stages.items():
        read = [dep for dep in entry.get("deps", ()) if any(f"{dep}/".startswith(f"{one}/") for one in folders)]
        if read and not is_generated(entry):
            lines = path.read_text("utf-8").splitlines()
            line = next((number for number, text in enumerate(lines, start=1) if text.strip() == f"- {read[0]}"), 1)
            raise StillReadError(
                f"dvc.yaml:{line}: the stage {name} reads {read[0]}. Nothing was changed. Correct the stage, and the"
                " code that it runs, then run the same command again."
            )


def remove_tables(table_store: TableStore, tables: Collection[str]) -> None:
    """Remove tables: what git records of them first, so that a table is not read from there once its folder is gone.

    The caller holds their locks.
    """
    root = table_store.root
    with dvc_lock(root):
        _remove_records(root, {f"data/{table}" for table in tables})
    for table in sorted(tables):
        _remove_folder(table_store.folder(table))
        table_store.clear_journal(table)


def _remove_records(root: Path, paths: AbstractSet[str]) -> None:
    lock = read_lock(root)
    gone = {
        name
        for name, entry in lock["stages"].items()
        if is_generated(entry) and not paths.isdisjoint(out["path"] for out in entry.get("outs", ()))
    }
    if gone:
        write_lock(root, {**lock, "stages": {name: it for name, it in lock["stages"].items() if name not in gone}})
    for path in sorted(paths):
        with failpoints.failpoint("pointer of a dropped table"):
            (root / f"{path}.dvc").unlink(missing_ok=True)


def _remove_folder(folder: Path) -> None:
    """The head of the manifest first: without it, nobody reads what is left."""
    for name in (HEAD_FILE, FORMAT_1_FILE):
        with failpoints.failpoint("manifest of a dropped table"):
            (folder / name).unlink(missing_ok=True)
    if folder.exists():
        with failpoints.failpoint("folder of a dropped table", lambda: _remove_some(folder)):
            shutil.rmtree(folder)


# no failpoint: half of one
def _remove_some(folder: Path) -> None:
    for path in [path for path in folder.rglob("*") if path.is_file()][::2]:
        path.unlink()


def forget_dataset(dataset: str, table_store: TableStore) -> None:
    """Remove what the workspace keeps of a dataset besides its tables: reports and findings."""
    paths = (table_store.root / "reports" / dataset / "online.json", record_file(table_store.root, dataset))
    for path in paths:
        with failpoints.failpoint("file of a dropped dataset"):
            path.unlink(missing_ok=True)
