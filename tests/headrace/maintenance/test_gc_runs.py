"""Runs that have not ended are roots of `gc` and of `doctor`; those that nobody will finish are ended by `gc`."""

from datetime import UTC, datetime, timedelta

import pytest
from minimal_dataset import RAW
from release_clones import Origin, dataset
from run_clones import RunOfClone, days, run_refs

from headrace.maintenance.doctor import check_integrity
from headrace.maintenance.gc import GarbageReport, collect_garbage
from headrace.storage.table_store import TableStore

TINY = dataset("tiny")


def collect(table_store: TableStore, *, dry_run: bool = False) -> GarbageReport:
    """Collect garbage of any age, in the cache and on the remote."""
    return collect_garbage(table_store, min_age_hours=0, remote=True, dry_run=dry_run)


def days_ago(number: int) -> str:
    """A time for git."""
    return f"{datetime.now(UTC) - timedelta(days=number):%Y-%m-%dT%H:%M:%S}+0000"


@pytest.mark.parametrize("is_pushed", [True, False])
def test_bytes_of_a_run_stay_until_it_ends(origin: Origin, monkeypatch: pytest.MonkeyPatch, is_pushed: bool) -> None:
    monkeypatch.setenv("HEADRACE_PUSH_RUNS", str(int(is_pushed)))
    run = RunOfClone(origin.first, TINY, "r1")
    (object_of_run,) = run.ingest(days(1)).table_store.manifest(RAW).md5s.values()
    cleaned = origin.clone("janitor").table_store if is_pushed else origin.first.table_store

    kept = collect(cleaned)
    run.compute("validate", "transform")
    run.end()
    dropped = collect(cleaned)

    assert (kept.cache, kept.remote, kept.ended_runs) == ({}, {}, ())
    assert object_of_run in (dropped.remote if is_pushed else dropped.cache)


def test_a_run_below_branches_is_no_root_any_more_once_it_has_ended(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_RUN_REFS", "refs/heads/headrace-runs")
    run = RunOfClone(origin.first, TINY, "r1")
    (object_of_run,) = run.ingest(days(1)).table_store.manifest(RAW).md5s.values()
    janitor = origin.clone("janitor")
    assert "headrace-runs" in janitor.git("branch", "--remotes")

    assert collect(janitor.table_store).remote == {}
    run.end()
    assert object_of_run in collect(janitor.table_store).remote


def test_a_run_that_has_written_nothing_for_14_days_is_ended(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    run, young = RunOfClone(origin.first, TINY, "forgotten"), RunOfClone(origin.first, TINY, "young")
    with monkeypatch.context() as patch:
        patch.setenv("GIT_COMMITTER_DATE", days_ago(15))
        (object_of_run,) = run.ingest(days(1)).table_store.manifest(RAW).md5s.values()
        young.open()
        patch.setenv("GIT_COMMITTER_DATE", days_ago(13))
        young.ingest(days(2))

    shown = collect(origin.first.table_store, dry_run=True)
    assert shown.ended_runs == ("tiny forgotten",)
    assert "tiny/forgotten/start" in run_refs(origin)

    done = collect(origin.first.table_store)

    assert done.ended_runs == ("tiny forgotten",)
    assert object_of_run in done.cache
    assert run_refs(origin) == [f"tiny/young/{RAW}", "tiny/young/start"]
    assert [path.name for path in (origin.first.root / ".headrace/runs/tiny").iterdir()] == ["young"]
    young.compute("validate", "transform")
    assert young.release().created


def test_a_task_in_progress_keeps_gc_from_deleting(origin: Origin) -> None:
    from headrace.errors import TableLockedError  # noqa: PLC0415

    task = RunOfClone(origin.first, TINY, "r1").open()

    with task.table_store.lock_table(RAW), pytest.raises(TableLockedError, match=RAW):
        collect(origin.first.table_store)


def test_doctor_misses_objects_of_a_run_on_the_remote_and_removes_worktrees_of_ended_runs(origin: Origin) -> None:
    here, there = origin.first, origin.clone("there")
    ours, theirs = RunOfClone(here, TINY, "r1"), RunOfClone(there, TINY, "r1")
    table_store = ours.ingest(days(1)).table_store
    (object_of_run,) = table_store.manifest(RAW).md5s.values()
    table_store.cache.remote.bucket.delete(table_store.cache.remote.key(object_of_run))

    (found,) = check_integrity(there.table_store).repairs
    repaired = check_integrity(here.table_store, repair=True)

    assert (found.damage.md5, found.damage.remote) == (object_of_run, "missing")
    assert f"run tiny/r1/{RAW}" in found.damage.referenced_by
    assert repaired.ok
    theirs.end()
    (stale,) = check_integrity(here.table_store).cleanups
    assert stale.stale_file.location == ".headrace/runs/tiny/r1"
    assert check_integrity(here.table_store, repair=True).ok
    assert not (here.root / ".headrace/runs/tiny/r1").exists()
