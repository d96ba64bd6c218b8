"""Garbage collection: what nobody names goes, and nothing else: every tag still pulls, and no run is disturbed."""

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
from headrace.maintenance.doctor import care
from headrace.maintenance.gc import UnknownHoldingsError, collect
from headrace.release.release import create_release
from headrace.storage.dvc.cache import Cache
from headrace.storage.dvc.lock import recorded_outs
from headrace.storage.s3.bucket import Bucket

DAY = "2013-01-01"
RAW, FEATURES = "raw/flights/flights", "features/flights/carrier_delays"


@pytest.fixture
def twice(workspace: Workspace) -> Workspace:
    """Two releases of two days; the second has another first day."""
    workspace.raw.arrive(*days(1, 2))
    workspace.refresh()
    create_release(workspace.dataset, workspace.lake)
    workspace.raw.change(DAY, lambda rows: rows.head(600))
    workspace.refresh()
    create_release(workspace.dataset, workspace.lake)
    return workspace


def test_nothing_of_a_release_is_garbage(twice: Workspace) -> None:
    found = collect(twice.lake, hours=0, remote=True, yes=True)

    assert (set(found.remote), len(found.cache)) == (set(), 0)
    assert care(twice.lake, deep=True).is_well


def test_an_unreleased_attempt_goes_from_cache_and_remote_and_every_tag_still_pulls(twice: Workspace) -> None:
    left = attempt(twice)
    for md5 in left:
        twice.lake.cache.remote.ensure(md5, twice.lake.cache.path(md5).stat().st_size, twice.lake.cache.path(md5))

    found = collect(twice.lake, hours=0, remote=True, yes=True)

    assert left <= found.cache.keys()
    assert left <= found.remote.keys()
    assert not any(exists(twice, md5) for md5 in left)
    for tag in ("flights/1", "flights/2"):
        pulls(twice, tag)
    assert care(twice.lake, deep=True).is_well


def test_without_yes_it_only_says_what_would_go(twice: Workspace) -> None:
    left = attempt(twice)

    said = twice.command("headrace", "gc", "flights", "--hours", "0")

    assert all(exists(twice, md5) for md5 in left)
    assert f"cache: {len(left):,} objects would go" in said
    assert "`--yes` does it" in said


def test_the_command_line_deletes_and_answers_in_json(twice: Workspace) -> None:
    left = attempt(twice)
    size = sum(twice.lake.cache.path(md5).stat().st_size for md5 in left)

    said = json.loads(twice.command("headrace", "gc", "--hours", "0", "--yes", "--json"))

    assert said["cache"] == {"objects": len(left), "bytes": size}
    assert said["deleted"]
    assert not any(exists(twice, md5) for md5 in left)


def test_what_is_young_is_kept_on_both_sides(twice: Workspace) -> None:
    for md5 in attempt(twice):
        twice.lake.cache.remote.ensure(md5, twice.lake.cache.path(md5).stat().st_size, twice.lake.cache.path(md5))

    found = collect(twice.lake, remote=True, yes=True)

    assert (len(found.cache), len(found.remote)) == (0, 0)


def test_it_refuses_while_a_run_holds_a_table_and_deletes_nothing(twice: Workspace) -> None:
    left = attempt(twice)

    for lease in (FEATURES, RAW, "release/flights", "sent/flights/delay_cause"):
        with twice.lake.lease(lease), pytest.raises(TableLockedError, match=lease):
            collect(twice.lake, hours=0, yes=True)

    assert all(exists(twice, md5) for md5 in left)


def test_it_refuses_while_dvc_runs(twice: Workspace) -> None:
    lock = twice.root / ".dvc/tmp/rwlock"
    lock.parent.mkdir(exist_ok=True)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        lock.write_text(json.dumps({"read": {"data/x": [{"pid": running.pid, "cmd": "dvc repro"}]}}))

        with pytest.raises(HeadraceError, match=rf"DVC is running, process {running.pid} \(dvc repro\)"):
            collect(twice.lake, hours=0, yes=True)
        running.kill()

    assert collect(twice.lake, hours=0, yes=True).is_gone


def test_tables_that_are_built_and_not_released_are_kept(twice: Workspace) -> None:
    twice.raw.arrive("2013-01-03")
    twice.refresh()

    collect(twice.lake, hours=0, remote=True, yes=True)

    assert create_release(twice.dataset, twice.lake).name == "flights/3"
    assert care(twice.lake, deep=True).is_well


def test_what_a_killed_run_has_noted_is_kept(twice: Workspace) -> None:
    lake = twice.lake
    entry = lake.manifest(FEATURES).partitions[DAY]
    stored = lake.cache.add_bytes(b"computed, noted, and then killed")
    lake.remember(FEATURES, type(entry)("its memo", stored.md5, stored.size))

    collect(lake, hours=0, yes=True)

    assert lake.cache.path(stored.md5).exists()


def test_what_somebody_elses_branch_or_a_stash_names_is_kept(twice: Workspace) -> None:
    before = recorded_outs(twice.root)[f"data/{RAW}"]["md5"]
    clone = twice.clone("colleague")
    git(clone.root, "switch", "--quiet", "--create", "trial")
    theirs = twice.lake.cache.add_bytes(b"of a branch").md5
    ours = twice.lake.cache.add_bytes(b"of a stash").md5
    pointer = "outs:\n- md5: {}\n  size: 11\n  hash: md5\n  path: flights\n"
    (clone.root / "data/raw/flights/flights.dvc").write_text(pointer.format(theirs))
    git(clone.root, "commit", "--quiet", "--all", "--message", "A trial")
    git(clone.root, "push", "--quiet", "origin", "trial")
    (twice.root / "data/raw/flights/flights.dvc").write_text(pointer.format(ours))
    git(twice.root, "stash")

    collect(twice.lake, hours=0, yes=True)

    assert recorded_outs(twice.root)[f"data/{RAW}"]["md5"] == before
    assert twice.lake.cache.path(theirs).exists()
    assert twice.lake.cache.path(ours).exists()


def test_a_lost_list_stops_it_for_what_it_names_is_unknown(twice: Workspace) -> None:
    md5 = recorded_outs(twice.root, "flights/1")[f"data/{FEATURES}"]["md5"]
    twice.lake.cache.path(md5).unlink()
    remote = twice.lake.cache.remote
    remote.bucket.delete(remote.key(md5))

    with pytest.raises(UnknownHoldingsError, match=rf"1 lists of files are lost, {md5} .*headrace doctor --repair"):
        collect(twice.lake, hours=0, yes=True)


def test_a_cache_that_other_workspaces_share_is_left_alone(twice: Workspace, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    with (twice.root / ".dvc/config.local").open("a") as config:
        config.write(f"[cache]\n    dir = {tmp_path / 'shared'}\n")
    orphan = twice.lake.cache.add_bytes(b"somebody else's").md5

    with pytest.raises(UnknownHoldingsError, match=r"other workspaces .*headrace gc --remote"):
        collect(twice.lake, hours=0, yes=True)

    collect(twice.lake, hours=0, remote=True, yes=True)
    assert twice.lake.cache.path(orphan).exists()


def test_what_is_released_elsewhere_at_that_very_moment_is_put_back(
    twice: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt(twice)
    other = twice.clone("colleague")
    other.dvc("pull", *(f"data/{table}" for table in twice.lake.tables("flights")))
    other.raw.change("2013-01-02", lambda rows: rows.head(500))
    other.refresh()
    delete, at_once = Bucket.delete, threading.Lock()
    released: list[str] = []
    for md5 in made_by(other) - made_by(twice):
        path = other.lake.cache.path(md5)
        other.lake.cache.remote.ensure(md5, path.stat().st_size, path)
        twice.lake.cache.fetch(md5)

    def slowly(bucket: Bucket, key: str) -> None:
        with at_once:
            if not released:
                released.append(create_release(other.dataset, other.lake).name)
        delete(bucket, key)

    monkeypatch.setattr(Bucket, "delete", slowly)
    collect(twice.lake, hours=0, remote=True, yes=True)

    assert released == ["flights/3"]
    pulls(twice, "flights/3")


def test_the_age_is_told_by_the_servers_clock(twice: Workspace) -> None:
    remote = twice.lake.cache.remote

    times = [found.modified for found in remote.bucket.list(remote.prefix)]

    assert all(time and abs(time - datetime.now(UTC)) < timedelta(minutes=10) for time in times)


def attempt(workspace: Workspace) -> set[str]:
    """A day is changed and built, and then all of it is taken back: what it left in the cache."""
    before = in_cache(workspace.lake.cache)
    workspace.raw.change("2013-01-02", lambda rows: rows.head(300))
    workspace.refresh()
    git(workspace.root, "checkout", "--quiet", ".")
    for table in workspace.lake.tables("flights"):
        recorded = workspace.lake.recorded(table)
        assert recorded
        workspace.lake.commit(recorded)
    return in_cache(workspace.lake.cache) - before


def in_cache(cache: Cache) -> set[str]:
    return {path.parent.name + path.name for path in cache.folder.glob("files/md5/??/*")}


def made_by(workspace: Workspace) -> set[str]:
    """The partitions of every table."""
    manifests = (workspace.lake.manifest(table) for table in workspace.lake.tables("flights"))
    return {entry.md5 for manifest in manifests for entry in manifest.partitions.values()}


def exists(workspace: Workspace, md5: str) -> bool:
    cache = workspace.lake.cache
    return cache.path(md5).exists() or cache.remote.bucket.head(cache.remote.key(md5)) is not None


def pulls(workspace: Workspace, tag: str) -> None:
    """A fresh clone of the release pulls every table, and hashes right."""
    clone = workspace.clone(tag.replace("/", "-"))
    git(clone.root, "checkout", "--quiet", tag)
    clone.dvc("pull", *(f"data/{table}" for table in workspace.lake.tables("flights")))
    assert care(clone.lake, deep=True).is_well
    for table in workspace.lake.tables("flights"):
        manifest = clone.lake.recorded(table)
        assert manifest
        for name, entry in manifest.partitions.items():
            assert (clone.lake.folder(table) / f"{name}{manifest.suffix}").stat().st_size == entry.size
