"""A run works on one commit, in a worktree of its own; any clone can continue it from git and the remote alone."""

from pathlib import Path

import pytest
from minimal_dataset import RAW
from release_clones import QUESTION, Origin, dataset
from run_clones import RunOfClone, days, run_refs, write_raw
from servers import S3

from headrace.runs.task import RunConflictError, RunMovedError, RunOutdatedError, save_task
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry

TINY = dataset("tiny")


def records(origin: Origin, revision: str) -> dict[str, str]:
    """What git records of tables at a revision: path → text."""
    paths = origin.git("ls-tree", "-r", "--name-only", revision).split()
    wanted = [path for path in paths if path == "dvc.lock" or path.endswith(".dvc")]
    return {path: origin.git("show", f"{revision}:{path}") for path in wanted}


def test_every_task_may_be_in_another_clone_with_an_empty_cache_and_the_bytes_are_the_same(
    origin: Origin, tmp_path: Path, s3: S3
) -> None:
    places = [origin.clone(f"clone-{number}") for number in range(4)]
    ingest, validate, transform, release = (RunOfClone(place, TINY, "r1") for place in places)
    other = Origin.begin(tmp_path / "other", s3)
    alone = RunOfClone(other.first, TINY, "r1")

    ingest.ingest(days(1, 2, 3))
    validate.compute("validate")
    transform.compute("transform")
    released = release.release()
    alone.ingest(days(1, 2, 3))
    alone.compute("validate", "transform")
    alone.release()

    assert released.name == "tiny/1"
    assert len(records(origin, "tiny/1")) > 1
    assert records(origin, "tiny/1") == records(other, "tiny/1")


def test_the_state_of_a_run_is_one_ref_per_table_and_ends_with_the_release(origin: Origin) -> None:
    run, clone = RunOfClone(origin.first, TINY, "r1"), origin.first
    run.ingest(days(1))
    run.compute("validate")

    assert run_refs(origin) == [
        "tiny/r1/raw/tiny/sales",
        "tiny/r1/rejected/tiny/sales",
        "tiny/r1/start",
        "tiny/r1/validated/tiny/sales",
    ]
    assert "md5:" in origin.git("show", f"refs/headrace/runs/tiny/r1/{RAW}:data/{RAW}.dvc")

    run.compute("transform")
    run.release()

    assert run_refs(origin) == []
    assert origin.tags() == ["tiny/1"]
    assert not list((clone.root / ".headrace/runs").glob("*/*"))
    assert len(clone.git("worktree", "list").splitlines()) == 1
    assert clone.git("rev-parse", "HEAD") == origin.git("rev-parse", "main"), "the clone follows"
    assert clone.git("status", "--porcelain") == ""
    assert clone.table_store.tables("tiny") == (), "the clone's own tables are not touched"


def test_nothing_that_is_pushed_or_edited_or_checked_out_changes_a_run(origin: Origin) -> None:
    origin.clone("writer").push_file("params.yaml", "lookback: 1\n")
    run, clone = RunOfClone(origin.first, TINY, "r1"), origin.first
    task = run.ingest(days(1))
    start = task.state.start

    origin.clone("colleague").push_file("params.yaml", "lookback: 2\n")
    clone.git("checkout", "--quiet", "-b", "idea")
    (clone.root / "params.yaml").write_text("lookback: 3\n")
    (clone.root / "data").mkdir()
    write_raw(clone.table_store, TINY, days(7))
    task = run.compute("validate", "transform")

    assert task.state.start == start
    assert (task.table_store.root / "params.yaml").read_text() == "lookback: 1\n"
    assert sorted(task.table_store.manifest("validated/tiny/sales").partitions) == ["2026-01-01"]
    assert run.release().created
    assert (clone.root / "params.yaml").read_text() == "lookback: 3\n"
    assert clone.git("branch", "--show-current") == "idea"
    assert origin.git("show", "main:params.yaml") == "lookback: 2"


def test_a_run_continues_the_last_release_and_not_the_tables_of_its_clone(origin: Origin) -> None:
    origin.first.release(TINY, 5)
    late = RunOfClone(origin.clone("late"), TINY, "r2")

    late.ingest(days(2))
    task = late.compute("validate", "transform")

    assert sorted(task.table_store.manifest(RAW).partitions) == ["2026-01-01", "2026-01-02"]
    late.release()
    assert origin.tags() == ["tiny/1", "tiny/2"]


def test_a_release_that_came_meanwhile_refuses_the_run_until_it_is_moved_there(origin: Origin) -> None:
    origin.first.release(TINY, 5)
    run = RunOfClone(origin.clone("late"), TINY, "r2")
    run.ingest(days(2))
    run.compute("validate", "transform")
    origin.first.run(TINY, {1: 5, 3: 7})
    origin.first.release(TINY)

    with pytest.raises(RunOutdatedError, match=r"raw/tiny/sales.*`headrace runs start tiny --run r2`"):
        run.release()
    assert origin.tags() == ["tiny/1", "tiny/2"]

    moved = run.start()
    assert RAW not in moved.tables, "it continued what is not the latest release"
    run.ingest(days(2))
    task = run.compute("validate", "transform")
    assert sorted(task.table_store.manifest(RAW).partitions) == ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert run.release().name == "tiny/3"


def test_a_release_of_tables_that_the_run_has_not_written_moves_it_by_itself(origin: Origin) -> None:
    origin.first.release(TINY, 5)
    run = RunOfClone(origin.clone("late"), TINY, "r2")
    task = run.open()
    stored = task.table_store.cache.add_bytes(b"answers")
    answers = {"2026-01": PartitionEntry(stored.md5, stored.md5, stored.size)}
    task.table_store.checkout(Manifest("annotations/tiny/people", partitions=answers))
    save_task(task)
    origin.first.run(TINY, {1: 5, 3: 7})
    origin.first.release(TINY)

    with pytest.raises(RunMovedError, match="Run the same command again") as moved:
        run.release()
    assert moved.value.is_transient
    assert run.release().name == "tiny/3"

    task = RunOfClone(origin.first, TINY, "r3").open()
    assert task.table_store.manifest("annotations/tiny/people").md5s == {"2026-01": stored.md5}
    assert sorted(task.table_store.manifest(RAW).partitions) == ["2026-01-01", "2026-01-03"]


def test_annotations_that_were_released_meanwhile_are_merged_into_the_release_of_a_run(origin: Origin) -> None:
    labeled = dataset("digits", QUESTION)
    origin.first.release(labeled, 5)
    run = RunOfClone(origin.clone("late"), labeled, "r2")
    run.ingest(days(2))
    run.compute("validate", "transform", "label")
    origin.first.collect(labeled, "one", "two")
    origin.first.release(labeled)

    made = run.release()
    origin.first.git("fetch", "--quiet", "--tags")

    history = f"annotations/digits/{QUESTION.name}"
    manifests = [origin.first.table_store.recorded_manifest(history, tag) for tag in ("digits/2", made.name)]
    assert made.name == "digits/3"
    assert [manifest and manifest.rows for manifest in manifests] == [2, 2]
    assert run_refs(origin) == []


def test_a_run_that_is_started_again_moves_to_the_newest_code_and_keeps_its_tables(origin: Origin) -> None:
    run = RunOfClone(origin.first, TINY, "r1")
    before = run.ingest(days(1))
    origin.clone("writer").push_file("params.yaml", "lookback: 2\n")

    assert run.start().start != before.state.start
    assert run.start() == run.state, "a second time changes nothing"
    task = run.compute("validate", "transform")

    assert (task.table_store.root / "params.yaml").read_text() == "lookback: 2\n"
    assert sorted(task.table_store.manifest(RAW).partitions) == ["2026-01-01"]
    assert run.release().created


def test_a_task_of_the_run_as_it_was_before_it_moved_writes_nothing(origin: Origin) -> None:
    run = RunOfClone(origin.first, TINY, "r1")
    task = run.open()
    write_raw(task.table_store, TINY, days(1))
    origin.clone("writer").push_file("params.yaml", "lookback: 2\n")
    moved = RunOfClone(origin.clone("other"), TINY, "r1").start()

    with pytest.raises(RunConflictError, match="Run the same command again"):
        save_task(task)

    assert run.state == moved
    assert run_refs(origin) == ["tiny/r1/start"]


def test_a_table_that_was_made_from_an_earlier_start_does_not_count_and_ends_with_the_run(origin: Origin) -> None:
    run = RunOfClone(origin.first, TINY, "r1")
    run.ingest(days(1))
    orphan = origin.git("rev-parse", f"refs/headrace/runs/tiny/r1/{RAW}")
    run.end()
    origin.clone("writer").push_file("params.yaml", "lookback: 2\n")
    run.start()
    origin.git("update-ref", f"refs/headrace/runs/tiny/r1/{RAW}", orphan)

    state = run.state

    assert state
    assert (state.tables, state.outdated) == ({}, {RAW: orphan})
    assert run.open().table_store.manifest(RAW).partitions == {}
    run.ingest(days(2))
    run.end()
    assert run_refs(origin) == []


@pytest.mark.parametrize("options", [("--depth", "1"), ("--filter=blob:none",), ("--single-branch", "--no-tags")])
def test_a_clone_that_lacks_history_or_objects_continues_a_run(origin: Origin, options: tuple[str, ...]) -> None:
    origin.git("config", "uploadpack.allowFilter", "true")
    origin.clone("writer").push_file("README.md", "One.\n")
    RunOfClone(origin.first, TINY, "r1").ingest(days(1))
    run = RunOfClone(origin.clone("clone", *options), TINY, "r1")

    run.compute("validate", "transform")

    assert run.release().created
    assert run_refs(origin) == []


def test_worktrees_of_runs_that_ended_elsewhere_go_with_the_next_task(origin: Origin) -> None:
    here, there = origin.first, origin.clone("there")
    RunOfClone(here, TINY, "r1").ingest(days(1))
    RunOfClone(there, TINY, "r1").compute("validate", "transform")
    RunOfClone(there, TINY, "r1").release()
    assert (here.root / ".headrace/runs/tiny/r1").is_dir()

    RunOfClone(here, TINY, "r2").open()

    assert [path.name for path in (here.root / ".headrace/runs/tiny").iterdir()] == ["r2"]


def test_a_run_of_another_dataset_goes_on_while_one_is_released(origin: Origin) -> None:
    flights, digits = (RunOfClone(origin.first, dataset(name), "r1") for name in ("flights", "digits"))
    for run in (flights, digits):
        run.ingest(days(1))
        run.compute("validate", "transform")

    flights.release()
    digits.release()

    assert origin.tags() == ["digits/1", "flights/1"]
    assert origin.git("rev-list", "--merges", "main") == ""


def test_a_task_that_is_run_again_after_the_release_of_its_run_finds_nothing_to_do(origin: Origin) -> None:
    run = RunOfClone(origin.first, TINY, "r1")
    run.ingest(days(1))
    run.compute("validate", "transform")
    released = run.release()

    again = RunOfClone(origin.clone("other"), TINY, "r1")
    again.compute("validate", "transform")
    assert run_refs(origin) == ["tiny/r1/start"], "no table was written"

    unchanged = again.release()
    assert not unchanged.created
    assert unchanged.name == released.name
    assert run_refs(origin) == []


def test_a_run_that_failed_for_good_keeps_what_it_made_and_the_next_run_goes_on(origin: Origin) -> None:
    failed = RunOfClone(origin.first, TINY, "r1")
    failed.ingest(days(1))
    failed.compute("validate")

    following = RunOfClone(origin.clone("other"), TINY, "r2")
    following.ingest(days(1, 2))
    following.compute("validate", "transform")
    assert following.release().created

    assert failed.state
    assert sorted(failed.state.tables) == [RAW, "rejected/tiny/sales", "validated/tiny/sales"]
    assert failed.start().tables == {}, "they continue what is not the latest release"
    failed.ingest(days(1, 2, 3))
    failed.compute("validate", "transform")
    assert failed.release().name == "tiny/2"
    assert run_refs(origin) == []
