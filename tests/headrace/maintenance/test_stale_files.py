"""Doctor: what killed processes left behind is found, distinguished from what is still in use, and removed."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from servers import S3
from workspaces import Workspace

from headrace.maintenance.doctor import check_integrity
from headrace.release.release import create_release
from headrace.storage import git
from headrace.storage.s3.multipart import abort, list_incomplete

FEATURES, VALIDATED = "features/flights/carrier_delays", "validated/flights/flights"
DAY = "2013-01-01"
STAGE = "flights-validate-airports"


def test_a_dvc_lock_of_dead_processes_is_removed_and_that_of_a_running_one_stays(released: Workspace) -> None:
    lock = released.root / ".dvc/tmp/rwlock"
    dead = subprocess.Popen(["true"])
    dead.wait()
    lock.parent.mkdir(exist_ok=True)
    lock.write_text(locked_by(dead.pid))

    removed = check_integrity(released.table_store, repair=True)
    assert "is held by processes that no longer run" in removed.cleanups[0].stale_file.reason
    assert not lock.exists()

    lock.write_text(locked_by(os.getpid()))
    kept = check_integrity(released.table_store, repair=True)
    assert kept.ok
    assert lock.exists()


def test_a_dvc_lock_whose_process_id_was_reused_is_removed(released: Workspace) -> None:
    lock = released.root / ".dvc/tmp/rwlock"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text(locked_by(os.getpid()))
    os.utime(lock, (0, 0))

    check_integrity(released.table_store, repair=True)

    assert not lock.exists()


def test_a_git_lock_is_removed_once_no_git_can_hold_it(released: Workspace) -> None:
    lock, ref = (released.root / ".git" / name for name in ("index.lock", "refs/tags/flights/2.lock"))
    for path in (lock, ref):
        path.touch()

    assert check_integrity(released.table_store).cleanups == [], "too young: a library may hold it"
    for path in (lock, ref):
        os.utime(path, (0, 0))
    with subprocess.Popen(["git", "cat-file", "--batch"], cwd=released.root, stdin=subprocess.PIPE) as running:
        assert check_integrity(released.table_store).cleanups == [], "git runs there"
        running.kill()
    done = check_integrity(released.table_store, repair=True)

    assert {item.stale_file.location for item in done.cleanups} == {str(lock), str(ref)}
    assert not lock.exists()
    assert not ref.exists()


def test_a_release_waits_for_a_dead_git_lock_and_removes_it(built: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git, "STALE_AFTER_S", 0.1)
    for name in ("index.lock", "HEAD.lock", "refs/tags/flights/1.lock"):
        path = built.root / ".git" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    assert create_release(built.dataset, built.table_store).created


def test_a_truncated_dvc_lock_that_stops_every_repro_is_removed(released: Workspace) -> None:
    lock = released.root / ".dvc/tmp/rwlock"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text('{"write": {"data/fea')
    assert "corrupted" in released.dvc("repro", STAGE, fails=True)

    assert "not valid JSON" in check_integrity(released.table_store, repair=True).cleanups[0].stale_file.reason

    released.dvc("repro", STAGE)


def test_temporary_files_are_removed_once_they_are_old_and_no_run_holds_a_table(released: Workspace) -> None:
    table_store = released.table_store
    old = [
        table_store.folder(FEATURES) / ".x.parquet.1.tmp",
        released.root / ".dvc.lock.1.tmp",
        table_store.cache.folder / "tmp/abc",
    ]
    young = table_store.cache.folder / "tmp/def"
    for path in (*old, young):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    for path in old:
        os.utime(path, (time.time() - 7200,) * 2)
    table_store.append_to_journal(FEATURES, table_store.manifest(FEATURES).partitions[DAY])

    with table_store.lock_table(VALIDATED):
        held = check_integrity(table_store, repair=True)
    done = check_integrity(table_store, repair=True)

    assert [item.error for item in held.cleanups if "being written by another run" not in item.error] == [""]
    assert {Path(item.stale_file.location).name for item in done.cleanups} == {path.name for path in old}
    assert [path.exists() for path in (*old, young)] == [False, False, False, True]


def test_the_journal_of_an_unfinished_run_stays(released: Workspace) -> None:
    table_store = released.table_store
    entry = table_store.manifest(FEATURES).partitions[DAY]
    table_store.append_to_journal(FEATURES, type(entry)("another cache key", entry.md5, entry.size))

    assert check_integrity(table_store, repair=True).cleanups == []


def test_incomplete_uploads_are_found_once_they_are_old_and_aborted(moto_s3: S3) -> None:
    bucket = moto_s3.new_bucket()
    for key in ("dvc/files/md5/ab/c", "elsewhere/c"):
        moto_s3.client.create_multipart_upload(Bucket=bucket.name, Key=key)

    assert list(list_incomplete(bucket, "dvc/", hours=1_000_000)) == []  # moto says that all began in 2010
    (found,) = list_incomplete(bucket, "dvc/", hours=24)
    abort(bucket, found)

    assert found.key == "dvc/files/md5/ab/c"
    assert list(list_incomplete(bucket, "dvc/", hours=24)) == []


def locked_by(pid: int) -> str:
    return json.dumps({"write": {"data/x": {"pid": pid, "cmd": "dvc repro"}}, "read": {}})
