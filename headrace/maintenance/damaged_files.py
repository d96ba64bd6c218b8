"""Files of the workspace that are not what was written: found, and restored from what git or the cache records.

They are looked at before everything else, because nearly every command reads them.
"""

import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from headrace import failpoints
from headrace.errors import HeadraceError
from headrace.guards.finding import RECORDS
from headrace.guards.finding_log import read_record
from headrace.maintenance.repair import QUARANTINE
from headrace.project.engine_lock import FILE as LOCK_FILE
from headrace.storage import git
from headrace.storage.dvc.lock import lock_outs, pointer_outs
from headrace.storage.files import atomic_write, damaged_file, load_yaml, parse_mapping, read_config
from headrace.storage.manifest import FORMAT_1_FILE
from headrace.storage.manifest_entries import FOLDER, DamagedManifestError
from headrace.storage.table_store import TableStore

MOST_SHOWN = 3


@dataclass(frozen=True)
class DamagedFile:
    """A file of the workspace, or the manifest of a table.

    Attributes:
        path: Its path, relative to the workspace.
        reason: What is wrong with it, and the next command.
        repaired: What was done; empty if it was not repaired.
    """

    path: str
    reason: str
    repaired: str = ""


def find_damaged_files(root: Path) -> list[DamagedFile]:
    """The damaged files that git keeps: DVC's configuration, `dvc.yaml`, `dvc.lock`, `.dvc` files, and our own two.

    And the workspace's records of findings.
    """
    names = [".dvc/config", "dvc.yaml", "dvc.lock", LOCK_FILE]
    names += [name for name in ("params.yaml",) if (root / name).exists()]  # a project needs none
    for folder, pattern in (("data", "*/*/*.dvc"), (RECORDS, "*.json")):
        names += sorted(path.relative_to(root).as_posix() for path in (root / folder).glob(pattern))
    damaged = []
    for name in names:
        try:
            _check_file(root, name)
        except (HeadraceError, OSError) as error:
            damaged.append(DamagedFile(name, str(error)))
    return damaged


def find_damaged_manifests(table_store: TableStore) -> list[DamagedFile]:
    """The tables in the workspace whose manifest, or a chunk of it, cannot be read."""
    damaged = []
    data = table_store.root / "data"
    folders = {path.parent for name in (FOLDER, FORMAT_1_FILE) for path in data.glob(f"*/*/*/{name}")}
    for folder in sorted(folders):
        table = folder.relative_to(data).as_posix()
        try:
            manifest = table_store.visible_manifest(table)
            if manifest is not None:
                _ = manifest.md5s
        except DamagedManifestError as error:
            damaged.append(DamagedFile(f"data/{table}", str(error)))
    return damaged


def repair_file(root: Path, damaged: DamagedFile) -> DamagedFile:
    """Write what the last commit has of the file. The damaged one is kept in quarantine."""
    path = root / damaged.path
    if path.parent == root / RECORDS:  # no command changes a record that it cannot read
        _quarantine(root, path)
        return replace(damaged, repaired=f"moved to {QUARANTINE}; the next run finds again what there is")
    committed = _committed(root, damaged.path)
    if committed is None:
        return damaged
    if path.is_file():
        _quarantine(root, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, committed)
    return replace(damaged, repaired=f"restored as the last commit has it; the damaged file is in {QUARANTINE}")


def repair_manifest(table_store: TableStore, damaged: DamagedFile) -> DamagedFile:
    """Show the table as it is recorded; one that nothing records is computed again, from what the cache has."""
    table = damaged.path.removeprefix("data/")
    with table_store.lock_table(table):
        for path in (table_store.folder(table) / FOLDER, table_store.folder(table) / FORMAT_1_FILE):
            if path.exists():
                _quarantine(table_store.root, path)
        with suppress(HeadraceError):
            if recorded := table_store.recorded_manifest(table):
                table_store.checkout(recorded)
                return replace(damaged, repaired="the recorded table is shown again; the next run adds what was newer")
    return replace(damaged, repaired=f"moved to {QUARANTINE}; the next run computes the table from what the cache has")


def _check_file(root: Path, name: str) -> None:
    path, committed = root / name, _committed(root, name)
    if not path.exists():
        if committed is not None:
            raise damaged_file(path, "is missing, and the last commit has it")
        return
    if path.parent == root / RECORDS:
        read_record(root, path.stem)
    elif name == ".dvc/config":
        read_config(root)
    elif name == "dvc.lock":
        _check_lock(path, committed)
    elif name.endswith(".dvc"):
        pointer_outs(path.read_bytes(), path)
    else:
        load_yaml(path)


def _check_lock(path: Path, committed: bytes | None) -> None:
    """Whether the lock has every stage that the last commit has in it: a file that was cut may still be YAML."""
    lock_outs(path.read_bytes(), path)
    stages = parse_mapping(path.read_bytes(), path).get("stages", {})
    recorded = parse_mapping(committed or b"", path).get("stages", {})
    with suppress(HeadraceError, OSError):
        declared = load_yaml(path.with_name("dvc.yaml")).get("stages", {})
        recorded = {name: stage for name, stage in recorded.items() if name in declared}
    if lost := sorted(recorded.keys() - stages.keys()):
        shown = ", ".join(lost[:MOST_SHOWN]) + (" …" if len(lost) > MOST_SHOWN else "")
        raise damaged_file(path, f"lacks {shown}, which the last commit records: it was cut or emptied")


def _committed(root: Path, name: str) -> bytes | None:
    with suppress(HeadraceError):
        return git.show(root, "HEAD", name)
    return None


def _quarantine(root: Path, path: Path) -> None:
    target = root / QUARANTINE / path.relative_to(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    with failpoints.failpoint("quarantine damaged file"):
        if target.is_dir():
            shutil.rmtree(target)
        shutil.move(path, target)
