"""Garbage collection: only unreferenced objects are deleted, every tag still pulls, and no run is disturbed."""

import json
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from raw_data import days
from workspaces import Workspace, git

from headrace.errors import HeadraceError, TableLockedError
from headrace.maintenance.doctor import check_integrity
from headrace.maintenance.gc import UnresolvedReferencesError, collect_garbage
from headrace.release.release import create_release
from headrace.storage.dvc.cache import Cache
from headrace.storage.dvc.lock import recorded_outs
from headrace.storage.s3.bucket import Bucket

DAY = "2013-01-01"
RAW, FEATURES = "raw/flights/flights", "features/flights/carrier_delays"


@pytest.fixture
def twice(workspace: Workspace) -> Workspace:
    """Two releases of two days. The second corrects the first day."""
    workspace.raw.add_days(*days(1, 2))
    workspace.refresh()
    create_release(workspace.dataset, workspace.table_store)
    workspace.raw.edit_day(DAY, lambda rows: rows.head(600))
    workspace.refresh()
    create_release(workspace.dataset, workspace.table_store)
    return workspace


def test_nothing_of_a_release_is_garbage(twice: Workspace) -> None:
    garbage = collect_garbage(twice.table_store, min_age_hours=0, remote=True, dry_run=False)

    assert (set(garbage.remote), len(garbage.cache)) == (set(), 0)
    assert check_integrity(twice.table_store, deep=True).ok


@pytest.mark.slow_lane
def test_objects_of_an_unreleased_run_are_deleted_from_cache_and_remote_and_every_tag_still_pulls(
    twice: Workspace,
) -> None:
    left = abandon_run(twice)
    for md5 in left:
        twice.table_store.cache.remote.put_if_missing(
            md5, twice.table_store.cache.path(md5).stat().st_size, twice.table_store.cache.path(md5)
        )

    garbage = collect_garbage(twice.table_store, min_age_hours=0, remote=True, dry_run=False)

    assert left <= garbage.cache.keys()
    assert left <= garbage.remote.keys()
    assert not any(exists(twice, md5) for md5 in left)
    for tag in ("flights/1", "flights/2"):
        check_pull(twice, tag)
    assert check_integrity(twice.table_store, deep=True).ok


def test_by_default_it_only_shows_what_would_be_deleted(twice: Workspace) -> None:
    left = abandon_run(twice)

    output = twice.command("headrace", "gc", "flights", "--hours", "0")

    assert all(exists(twice, md5) for md5 in left)
    assert f"cache: {len(left):,} objects would be deleted" in output
    assert "`--no-dry-run` deletes them" in output


def test_the_command_deletes_and_prints_json(twice: Workspace) -> None:
    left = abandon_run(twice)
    size = sum(twice.table_store.cache.path(md5).stat().st_size for md5 in left)

    output = json.loads(twice.command("headrace", "gc", "--hours", "0", "--no-dry-run", "--json"))

    assert output["cache"] == {"objects": len(left), "bytes": size}
    assert output["deleted"]
    assert not any(exists(twice, md5) for md5 in left)


def test_young_objects_are_kept_on_both_sides(twice: Workspace) -> None:
    for md5 in abandon_run(twice):
        twice.table_store.cache.remote.put_if_missing(
            md5, twice.table_store.cache.path(md5).stat().st_size, twice.table_store.cache.path(md5)
        )

    garbage = collect_garbage(twice.table_store, remote=True, dry_run=False)

    assert (len(garbage.cache), len(garbage.remote)) == (0, 0)


def test_it_fails_while_a_run_holds_a_table_and_deletes_nothing(twice: Workspace) -> None:
    left = abandon_run(twice)

    for lease in (FEATURES, RAW, "release/flights", "sent/flights/delay_cause"):
        with twice.table_store.lock_table(lease), pytest.raises(TableLockedError, match=lease):
            collect_garbage(twice.table_store, min_age_hours=0, dry_run=False)

    assert all(exists(twice, md5) for md5 in left)


def test_it_fails_while_dvc_runs(twice: Workspace) -> None:
    lock = twice.root / ".dvc/tmp/rwlock"
    lock.parent.mkdir(exist_ok=True)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        lock.write_text(json.dumps({"read": {"data/x": [{"pid": running.pid, "cmd": "dvc repro"}]}}))

        with pytest.raises(HeadraceError, match=rf"DVC is running, process {running.pid} \(dvc repro\)"):
            collect_garbage(twice.table_store, min_age_hours=0, dry_run=False)
        running.kill()

    assert collect_garbage(twice.table_store, min_age_hours=0, dry_run=False).deleted


def test_tables_that_are_computed_but_not_released_are_kept(twice: Workspace) -> None:
    twice.raw.add_days("2013-01-03")
    twice.refresh()

    collect_garbage(twice.table_store, min_age_hours=0, remote=True, dry_run=False)

    assert create_release(twice.dataset, twice.table_store).name == "flights/3"
    assert check_integrity(twice.table_store, deep=True).ok


def test_objects_in_the_journal_of_a_killed_run_are_kept(twice: Workspace) -> None:
    table_store = twice.table_store
    entry = table_store.manifest(FEATURES).partitions[DAY]
    stored = table_store.cache.add_bytes(b"computed, noted, and then killed")
    table_store.append_to_journal(FEATURES, type(entry)("its cache key", stored.md5, stored.size))

    collect_garbage(table_store, min_age_hours=0, dry_run=False)

    assert table_store.cache.path(stored.md5).exists()


def test_objects_that_another_branch_or_a_stash_references_are_kept(twice: Workspace) -> None:
    before = recorded_outs(twice.root)[f"data/{RAW}"]["md5"]
    clone = twice.clone("colleague")
    git(clone.root, "switch", "--quiet", "--create", "trial")
    theirs = twice.table_store.cache.add_bytes(b"of a branch").md5
    ours = twice.table_store.cache.add_bytes(b"of a stash").md5
    pointer = "outs:\n- md5: {}\n  size: 11\n  hash: md5\n  path: flights\n"
    (clone.root / "data/raw/flights/flights.dvc").write_text(pointer.format(theirs))
    git(clone.root, "commit", "--quiet", "--all", "--message", "A trial")
    git(clone.root, "push", "--quiet", "origin", "trial")
    (twice.root / "data/raw/flights/flights.dvc").write_text(pointer.format(ours))
    git(twice.root, "stash")

    collect_garbage(twice.table_store, min_age_hours=0, dry_run=False)

    assert recorded_outs(twice.root)[f"data/{RAW}"]["md5"] == before
    assert twice.table_store.cache.path(theirs).exists()
    assert twice.table_store.cache.path(ours).exists()


def test_a_lost_directory_object_stops_it_because_its_files_are_unknown(twice: Workspace) -> None:
    md5 = recorded_outs(twice.root, "flights/1")[f"data/{FEATURES}"]["md5"]
    twice.table_store.cache.path(md5).unlink()
    remote = twice.table_store.cache.remote
    remote.bucket.delete(remote.key(md5))

    with pytest.raises(
        UnresolvedReferencesError, match=rf"1 directory objects are lost, {md5} .*headrace doctor --repair"
    ):
        collect_garbage(twice.table_store, min_age_hours=0, dry_run=False)


def test_a_cache_outside_of_the_workspace_is_left_alone(twice: Workspace, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    with (twice.root / ".dvc/config.local").open("a") as config:
        config.write(f"[cache]\n    dir = {tmp_path / 'shared'}\n")
    orphan = twice.table_store.cache.add_bytes(b"somebody else's").md5

    with pytest.raises(UnresolvedReferencesError, match=r"other workspaces .*headrace gc --remote"):
        collect_garbage(twice.table_store, min_age_hours=0, dry_run=False)

    collect_garbage(twice.table_store, min_age_hours=0, remote=True, dry_run=False)
    assert twice.table_store.cache.path(orphan).exists()


@pytest.mark.slow_lane
def test_objects_that_are_released_elsewhere_meanwhile_are_restored(
    twice: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandon_run(twice)
    other = twice.clone("colleague")
    other.dvc("pull", *(f"data/{table}" for table in twice.table_store.tables("flights")))
    other.raw.edit_day("2013-01-02", lambda rows: rows.head(500))
    other.refresh()
    delete, at_once = Bucket.delete, threading.Lock()
    released: list[str] = []
    for md5 in partition_md5s(other) - partition_md5s(twice):
        path = other.table_store.cache.path(md5)
        other.table_store.cache.remote.put_if_missing(md5, path.stat().st_size, path)
        twice.table_store.cache.fetch(md5)

    def slowly(bucket: Bucket, key: str) -> None:
        with at_once:
            if not released:
                released.append(create_release(other.dataset, other.table_store).name)
        delete(bucket, key)

    monkeypatch.setattr(Bucket, "delete", slowly)
    collect_garbage(twice.table_store, min_age_hours=0, remote=True, dry_run=False)

    assert released == ["flights/3"]
    check_pull(twice, "flights/3")


def test_the_age_is_measured_by_the_servers_clock(twice: Workspace) -> None:
    remote = twice.table_store.cache.remote

    times = [found.modified for found in remote.bucket.list(remote.prefix)]

    assert all(time and abs(time - datetime.now(UTC)) < timedelta(minutes=10) for time in times)


def abandon_run(workspace: Workspace) -> set[str]:
    """Change and compute a day, then restore the workspace; returns the objects that this left in the cache."""
    before = in_cache(workspace.table_store.cache)
    workspace.raw.edit_day("2013-01-02", lambda rows: rows.head(300))
    workspace.refresh()
    git(workspace.root, "checkout", "--quiet", ".")
    for table in workspace.table_store.tables("flights"):
        recorded = workspace.table_store.recorded_manifest(table)
        assert recorded
        workspace.table_store.checkout(recorded)
    return in_cache(workspace.table_store.cache) - before


def in_cache(cache: Cache) -> set[str]:
    return {path.parent.name + path.name for path in cache.folder.glob("files/md5/??/*")}


def partition_md5s(workspace: Workspace) -> set[str]:
    """The md5 of every partition of every table."""
    manifests = (workspace.table_store.manifest(table) for table in workspace.table_store.tables("flights"))
    return {entry.md5 for manifest in manifests for entry in manifest.partitions.values()}


def exists(workspace: Workspace, md5: str) -> bool:
    cache = workspace.table_store.cache
    return cache.path(md5).exists() or cache.remote.bucket.head(cache.remote.key(md5)) is not None


def check_pull(workspace: Workspace, tag: str) -> None:
    """Pull every table in a fresh clone of the release, and hash it."""
    clone = workspace.clone(tag.replace("/", "-"))
    git(clone.root, "checkout", "--quiet", tag)
    clone.dvc("pull", *(f"data/{table}" for table in workspace.table_store.tables("flights")))
    assert check_integrity(clone.table_store, deep=True).ok
    for table in workspace.table_store.tables("flights"):
        manifest = clone.table_store.recorded_manifest(table)
        assert manifest
        for name, entry in manifest.partitions.items():
            assert (clone.table_store.folder(table) / f"{name}{manifest.suffix}").stat().st_size == entry.size
