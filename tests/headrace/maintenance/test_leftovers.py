"""Doctor: what half attempts left behind is found, told from what somebody still needs, and cleared away."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from servers import S3
from workspaces import Workspace

from headrace.maintenance.doctor import care
from headrace.release.release import create_release
from headrace.storage import git
from headrace.storage.s3.multipart import abandon, unfinished

FEATURES, VALIDATED = "features/flights/carrier_delays", "validated/flights/flights"
DAY = "2013-01-01"
STAGE = "flights-validate-airports"


def test_a_lock_of_dead_processes_is_removed_and_one_of_a_living_process_stays(released: Workspace) -> None:
    lock = released.root / ".dvc/tmp/rwlock"
    dead = subprocess.Popen(["true"])
    dead.wait()
    lock.parent.mkdir(exist_ok=True)
    lock.write_text(locked_by(dead.pid))

    removed = care(released.lake, mend=True)
    assert "names processes that are dead" in removed.cleared[0].leftover.what
    assert not lock.exists()

    lock.write_text(locked_by(os.getpid()))
    kept = care(released.lake, mend=True)
    assert kept.is_well
    assert lock.exists()


def test_a_lock_whose_process_number_was_given_to_a_later_process_is_dead(released: Workspace) -> None:
    lock = released.root / ".dvc/tmp/rwlock"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text(locked_by(os.getpid()))
    os.utime(lock, (0, 0))

    care(released.lake, mend=True)

    assert not lock.exists()


def test_a_lock_of_git_is_removed_once_no_git_can_hold_it(released: Workspace) -> None:
    lock, ref = (released.root / ".git" / name for name in ("index.lock", "refs/tags/flights/2.lock"))
    for path in (lock, ref):
        path.touch()

    assert care(released.lake).cleared == [], "young: a library may hold it"
    for path in (lock, ref):
        os.utime(path, (0, 0))
    with subprocess.Popen(["git", "cat-file", "--batch"], cwd=released.root, stdin=subprocess.PIPE) as running:
        assert care(released.lake).cleared == [], "git is at work there"
        running.kill()
    done = care(released.lake, mend=True)

    assert {item.leftover.where for item in done.cleared} == {str(lock), str(ref)}
    assert not lock.exists()
    assert not ref.exists()


def test_a_release_waits_a_dead_lock_of_git_out_and_is_made(built: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git, "DEAD_AFTER_S", 0.1)
    for name in ("index.lock", "HEAD.lock", "refs/tags/flights/1.lock"):
        path = built.root / ".git" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    assert create_release(built.dataset, built.lake).is_new


def test_a_torn_lock_that_stops_every_repro_is_removed(released: Workspace) -> None:
    lock = released.root / ".dvc/tmp/rwlock"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text('{"write": {"data/fea')
    assert "corrupted" in released.dvc("repro", STAGE, fails=True)

    assert "torn" in str(care(released.lake, mend=True).cleared[0].leftover.what)

    released.dvc("repro", STAGE)


def test_what_half_attempts_left_is_cleared_once_it_is_old_and_no_run_holds_a_table(released: Workspace) -> None:
    lake = released.lake
    old = [lake.folder(FEATURES) / ".x.parquet.1.tmp", released.root / ".dvc.lock.1.tmp", lake.cache.folder / "tmp/abc"]
    young = lake.cache.folder / "tmp/def"
    for path in (*old, young):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    for path in old:
        os.utime(path, (time.time() - 7200,) * 2)
    lake.remember(FEATURES, lake.manifest(FEATURES).partitions[DAY])

    with lake.lease(VALIDATED):
        held = care(lake, mend=True)
    done = care(lake, mend=True)

    assert [item.left for item in held.cleared if "being written by another run" not in item.left] == [""]
    assert {Path(item.leftover.where).name for item in done.cleared} == {path.name for path in old}
    assert [path.exists() for path in (*old, young)] == [False, False, False, True]


def test_notes_of_a_run_that_is_not_shown_yet_stay(released: Workspace) -> None:
    lake = released.lake
    entry = lake.manifest(FEATURES).partitions[DAY]
    lake.remember(FEATURES, type(entry)("another memo", entry.md5, entry.size))

    assert care(lake, mend=True).cleared == []


def test_uploads_that_never_ended_are_found_when_they_are_old_and_given_up(moto_s3: S3) -> None:
    bucket = moto_s3.new_bucket()
    for key in ("dvc/files/md5/ab/c", "elsewhere/c"):
        moto_s3.client.create_multipart_upload(Bucket=bucket.name, Key=key)

    assert list(unfinished(bucket, "dvc/", hours=1_000_000)) == []  # moto says that all began in 2010
    (found,) = unfinished(bucket, "dvc/", hours=24)
    abandon(bucket, found)

    assert found.key == "dvc/files/md5/ab/c"
    assert list(unfinished(bucket, "dvc/", hours=24)) == []


def locked_by(pid: int) -> str:
    return json.dumps({"write": {"data/x": {"pid": pid, "cmd": "dvc repro"}}, "read": {}})
