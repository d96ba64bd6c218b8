"""Damaged files of the workspace are named with the next command, and `doctor --repair` restores them."""

import json
from contextlib import suppress
from pathlib import Path

import minimal_dataset
import pytest
from minimal_dataset import RAW, TOTALS, VALIDATED, raw_days, run_all_stages, write_raw_partitions
from workspaces import Workspace, git

from headrace.errors import HeadraceError
from headrace.maintenance.damaged_files import (
    find_damaged_files,
    find_damaged_manifests,
    repair_file,
    repair_manifest,
)
from headrace.storage import table_store as storage_module
from headrace.storage.dvc.lock import read_lock, recorded_outs
from headrace.storage.files import DamagedFileError, read_config
from headrace.storage.manifest import HEAD_FILE
from headrace.storage.manifest_entries import FOLDER
from headrace.storage.table_store import TableStore

MERGE = b"<<<<<<< HEAD\n"
OUT = b"outs:\n- md5: 0123456789abcdef0123456789abcdef.dir\n  path: sales\n"
LOCK = (
    b"schema: '2.0'\nstages:\n  tiny-validate-sales:\n    cmd: headrace validate tiny\n    outs:\n"
    b"    - path: data/validated/tiny/sales\n      hash: md5\n      md5: 0123456789abcdef0123456789abcdef.dir\n"
    b"  tiny-transform-totals:\n    cmd: headrace transform tiny\n    outs:\n"
    b"    - path: data/features/tiny/totals\n      hash: md5\n      md5: 1123456789abcdef0123456789abcdef.dir\n"
)
COMMITTED = {
    "dvc.yaml": b"stages:\n  tiny-validate-sales:\n    cmd: a\n  tiny-transform-totals:\n    cmd: b\n",
    "dvc.lock": LOCK,
    ".dvc/config": b"[core]\n    remote = storage\n",
    "data/raw/tiny/sales.dvc": OUT,
    "headrace.lock": b"engine: 0.2.0\nlibraries:\n  polars: 1.0.0\nresult_versions: {}\n",
    "params.yaml": b"tiny:\n  share: 0.5\n",
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with one commit of the files that DVC keeps."""
    for name, content in COMMITTED.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    for command in (("init", "--quiet"), ("add", "--force", "--all"), ("commit", "--quiet", "--message", "files")):
        git(tmp_path, *command)
    return tmp_path


def damages(content: bytes) -> dict[str, bytes | None]:
    """Every way in which a file is damaged: what it holds afterwards; None if it is deleted."""
    cut = {f"cut at {at}": content[:at] for at in range(1, len(content), 11)}
    return {"merge": MERGE + content, "binary": b"\0\xff" * 40, "list": b"- a\n", "deleted": None, "empty": b"", **cut}


def test_intact_files_are_not_reported(repository: Path) -> None:
    assert find_damaged_files(repository) == []


@pytest.mark.parametrize("name", COMMITTED)
def test_a_damaged_file_is_a_known_error_and_is_restored_as_it_was_committed(repository: Path, name: str) -> None:
    found = 0
    for content in damages(COMMITTED[name]).values():
        path = repository / name
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)

        read_all(repository)
        damaged = find_damaged_files(repository)

        assert [item.path for item in damaged] in ([name], [])
        for item in damaged:
            found += 1
            assert str(path) in item.reason
            assert "`git checkout -- " in item.reason
            assert repair_file(repository, item).repaired
            assert path.read_bytes() == COMMITTED[name]
        path.write_bytes(COMMITTED[name])
    assert found >= 3


@pytest.mark.parametrize("content", [b"", LOCK[:60], LOCK[: LOCK.index(b"  tiny-transform")]])
def test_a_lock_that_was_cut_or_emptied_is_noticed_though_it_can_be_parsed(repository: Path, content: bytes) -> None:
    (repository / "dvc.lock").write_bytes(content)

    (damaged,) = find_damaged_files(repository)

    assert "tiny-transform-totals" in damaged.reason
    assert "which the last commit records" in damaged.reason


def read_all(root: Path) -> None:
    """Read the files as commands do: each is read, or a known error names it."""
    for read in (recorded_outs, read_lock, read_config):
        with suppress(DamagedFileError):
            read(root)


@pytest.fixture
def table_store(tmp_path: Path) -> TableStore:
    """Tables of three days."""
    made = minimal_dataset.create_table_store(tmp_path)
    write_raw_partitions(made, raw_days(1, 2, 3))
    run_all_stages(made)
    return made


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\0" * 100])
@pytest.mark.parametrize("file", ["head", "chunk"])
def test_a_damaged_manifest_is_moved_away_and_computed_again(
    table_store: TableStore, content: bytes, file: str
) -> None:
    before = table_store.manifest(VALIDATED)
    folder = table_store.folder(VALIDATED)
    path = folder / HEAD_FILE if file == "head" else next((folder / FOLDER).glob("2026-01.*"))
    path.write_bytes(content)
    for cached in (storage_module._read, storage_module._fetch, storage_module._chunks):  # noqa: SLF001  as in a new process
        cached.cache_clear()
    again = minimal_dataset.create_table_store(table_store.root)

    (damaged,) = find_damaged_manifests(again)

    assert str(folder) in damaged.reason
    assert "`headrace doctor --repair`" in damaged.reason
    with pytest.raises(HeadraceError, match="is damaged"):
        _ = again.manifest(VALIDATED).md5s
    assert repair_manifest(again, damaged).repaired
    assert find_damaged_manifests(again) == []
    run_all_stages(again)
    assert again.manifest(VALIDATED) == before


@pytest.mark.parametrize("line", [b"{}", b"[1]", b"\xff\xfe", b'{"cache_key": 1}', b"null", b'{"cache_key": "a'])
def test_a_damaged_line_of_the_journal_costs_its_partition_only(table_store: TableStore, line: bytes) -> None:
    journal = table_store.root / ".headrace/journal" / f"{TOTALS.replace('/', '.')}.jsonl"
    write_raw_partitions(table_store, raw_days(4))
    journal.write_bytes(line + b"\n")

    assert list(run_all_stages(table_store)[TOTALS].computed) == ["2026-01-04"]


def test_the_tables_of_other_datasets_are_not_read(table_store: TableStore) -> None:
    assert {RAW, VALIDATED, TOTALS} <= {*table_store.tables("tiny")}
    assert find_damaged_manifests(table_store) == []


@pytest.mark.slow
def test_doctor_restores_what_was_damaged_and_never_fails_first(released: Workspace) -> None:
    table = "features/flights/carrier_delays"
    before = {name: (released.root / name).read_bytes() for name in ("dvc.lock", ".dvc/config")}
    manifest = released.table_store.manifest(table)
    (released.root / "data" / table / HEAD_FILE).write_bytes(b"")
    (released.root / "dvc.lock").write_bytes(MERGE + before["dvc.lock"])
    (released.root / ".dvc/config").write_bytes(MERGE + before[".dvc/config"])

    said = released.command("headrace", "doctor", fails=True)
    status = released.command("headrace", "status", "flights", fails=True)
    repaired = json.loads(released.command("headrace", "doctor", "--repair", "--json"))

    assert "FAIL file dvc.lock: " in said
    assert "FAIL file .dvc/config: " in said
    assert "Traceback" not in said + status
    assert "`headrace doctor --repair`" in status
    assert {"file dvc.lock", "file .dvc/config"} <= {check["name"] for check in repaired["checks"]}
    assert {name: (released.root / name).read_bytes() for name in before} == before
    assert released.table_store.manifest(table) == manifest
