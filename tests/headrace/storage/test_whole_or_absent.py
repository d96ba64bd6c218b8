"""A table is shown whole or not at all: refused, killed, overtaken or damaged, readers see the old state or the new."""

from pathlib import Path

import minimal_dataset
import pytest
from minimal_dataset import REJECTED, TOTALS, VALIDATED, day_names, raw_days, run_all_stages, write_raw_partitions

from headrace.engine.compute import compute_partition
from headrace.engine.partition_errors import PartitionsRefusedError
from headrace.engine.plan import Plan
from headrace.engine.run import Done, run_stage
from headrace.errors import LockLostError, TableLockedError
from headrace.project import graph
from headrace.project.executors import Executor
from headrace.settings import Settings
from headrace.storage.table_store import Lake
from headrace.validate.stage import TooManyRejectedError


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Five days, nothing computed yet."""
    made = minimal_dataset.create_lake(tmp_path)
    write_raw_partitions(made, raw_days(1, 2, 3, 4, 5))
    return made


def test_a_refused_partition_shows_nothing_names_the_evidence_and_loses_no_other_work(lake: Lake) -> None:
    run_all_stages(lake)
    before = lake.manifest(VALIDATED)
    write_raw_partitions(lake, {"2026-01-02": "2026-01-02T12:00:00Z,east,-1\n", **raw_days(6)})

    with pytest.raises(TooManyRejectedError) as refused:
        run_all_stages(lake)

    assert "sales 2026-01-02: 100.0% of 1 rows rejected, 50.0% tolerated" in str(refused.value)
    assert "headrace validate tiny --table sales" in str(refused.value)
    evidence = lake.root / ".headrace/refused" / REJECTED / "2026-01-02.parquet"
    assert str(evidence) in str(refused.value)
    assert evidence.exists()
    assert lake.manifest(VALIDATED) == before
    write_raw_partitions(lake, raw_days(2))
    assert not run_all_stages(lake)[VALIDATED].computed, "day 6 was remembered, day 2 is as it was"


def test_several_refused_partitions_are_told_together(lake: Lake) -> None:
    write_raw_partitions(lake, {name: f"{name}T12:00:00Z,east,-1\n" for name in day_names(1, 2, 3, 4)})

    with pytest.raises(PartitionsRefusedError, match=r"4 partitions refused(.|\n)*2026-01-01(.|\n)*2026-01-04"):
        run_all_stages(lake)


def test_a_run_that_dies_midway_is_finished_by_the_next_with_the_same_bytes(lake: Lake, tmp_path: Path) -> None:
    undisturbed = minimal_dataset.create_lake(tmp_path / "undisturbed")
    write_raw_partitions(undisturbed, raw_days(1, 2, 3, 4, 5))
    run_all_stages(undisturbed)
    stage = graph.dataset_stages(minimal_dataset.DATASET)[0]

    def dies(made: Plan, where: Lake, done: Done) -> None:
        for item in made.stale[:2]:
            done(item.partition, compute_partition(stage, item, made.fingerprint, where))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(stage, lake, dies)
    assert lake.manifest(VALIDATED).partitions == {}, "readers see the old state whole"

    ran = run_all_stages(lake)

    assert sorted(ran[VALIDATED].computed) == day_names(3, 4, 5), "two partitions were remembered"
    assert lake.manifest(VALIDATED) == undisturbed.manifest(VALIDATED)


def test_two_runs_of_one_table_at_once_are_refused_with_the_holder(lake: Lake) -> None:
    with lake.lock_table(VALIDATED), pytest.raises(TableLockedError, match=r"validated/tiny/sales .*process \d+"):
        run_all_stages(lake)


def test_an_attempt_that_lost_its_lease_while_it_was_paused_cannot_commit(lake: Lake) -> None:
    stage = graph.dataset_stages(minimal_dataset.DATASET)[0]
    execute = Executor(Settings(workspace=lake.root))

    def is_overtaken(made: Plan, where: Lake, done: Done) -> None:
        execute(made, where, done)
        (lock,) = (lake.root / ".headrace/locks").iterdir()
        lock.unlink()
        write_raw_partitions(minimal_dataset.create_lake(lake.root), raw_days(6))
        run_stage(stage, minimal_dataset.create_lake(lake.root), execute)

    with pytest.raises(LockLostError, match=r"no longer holds .*Run the same command again"):
        run_stage(stage, lake, is_overtaken)

    assert list(lake.manifest(VALIDATED).partitions) == day_names(1, 2, 3, 4, 5, 6), "what the other run showed stands"
    assert not run_all_stages(lake)[VALIDATED].computed


def test_readers_see_what_the_manifest_names_and_nothing_else(lake: Lake) -> None:
    run_all_stages(lake)
    rows = lake.scan(VALIDATED).collect().height

    (lake.folder(VALIDATED) / "2026-01-09.parquet").write_bytes(b"left by somebody")

    assert lake.scan(VALIDATED).collect().height == rows


def test_a_lost_object_that_no_release_records_is_computed_again(lake: Lake) -> None:
    run_all_stages(lake)
    before = lake.manifest(VALIDATED)
    lake.cache.path(before.partitions["2026-01-03"].md5).unlink()

    ran = run_all_stages(lake)

    assert list(ran[VALIDATED].computed) == day_names(3)
    assert lake.manifest(VALIDATED) == before


def test_what_is_recorded_of_a_table_stands_until_it_changes_also_where_its_list_was_lost(lake: Lake) -> None:
    run_all_stages(lake)
    first = lake.dvc_out(lake.manifest(TOTALS), {})
    recorded = {first["path"]: {**first, "path": "totals"}}

    assert lake.dvc_out(lake.manifest(TOTALS), recorded) == first
    lake.cache.path(first["md5"]).unlink()
    assert lake.dvc_out(lake.manifest(TOTALS), recorded) == first
    assert lake.cache.has(first["md5"])
    write_raw_partitions(lake, raw_days(6))
    run_all_stages(lake)
    assert lake.dvc_out(lake.manifest(TOTALS), recorded)["nfiles"] == first["nfiles"] + 1


def test_a_file_that_is_damaged_or_missing_in_the_workspace_is_put_back_though_nothing_is_new(lake: Lake) -> None:
    run_all_stages(lake)
    shown = {path.name: path.read_bytes() for path in lake.folder(TOTALS).glob("*.parquet")}
    (lake.folder(TOTALS) / "2026-01-02.parquet").write_bytes(b"half")
    (lake.folder(TOTALS) / "2026-01-03.parquet").unlink()

    run_all_stages(lake)

    assert {path.name: path.read_bytes() for path in lake.folder(TOTALS).glob("*.parquet")} == shown
