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
from headrace.storage.table_store import TableStore
from headrace.validate.stage import TooManyRejectedError


@pytest.fixture
def table_store(tmp_path: Path) -> TableStore:
    """Five days, nothing computed yet."""
    made = minimal_dataset.create_table_store(tmp_path)
    write_raw_partitions(made, raw_days(1, 2, 3, 4, 5))
    return made


def test_a_refused_partition_shows_nothing_names_the_evidence_and_loses_no_other_work(table_store: TableStore) -> None:
    run_all_stages(table_store)
    before = table_store.manifest(VALIDATED)
    write_raw_partitions(table_store, {"2026-01-02": "2026-01-02T12:00:00Z,east,-1\n", **raw_days(6)})

    with pytest.raises(TooManyRejectedError) as refused:
        run_all_stages(table_store)

    assert "sales 2026-01-02: 100.0% of 1 rows rejected, 50.0% tolerated" in str(refused.value)
    assert "headrace validate tiny --table sales" in str(refused.value)
    evidence = table_store.root / ".headrace/refused" / REJECTED / "2026-01-02.parquet"
    assert str(evidence) in str(refused.value)
    assert evidence.exists()
    assert table_store.manifest(VALIDATED) == before
    write_raw_partitions(table_store, raw_days(2))
    assert not run_all_stages(table_store)[VALIDATED].computed, "day 6 was remembered, day 2 is as it was"


def test_several_refused_partitions_are_told_together(table_store: TableStore) -> None:
    write_raw_partitions(table_store, {name: f"{name}T12:00:00Z,east,-1\n" for name in day_names(1, 2, 3, 4)})

    with pytest.raises(PartitionsRefusedError, match=r"4 partitions refused(.|\n)*2026-01-01(.|\n)*2026-01-04"):
        run_all_stages(table_store)


def test_a_run_that_dies_midway_is_finished_by_the_next_with_the_same_bytes(
    table_store: TableStore, tmp_path: Path
) -> None:
    undisturbed = minimal_dataset.create_table_store(tmp_path / "undisturbed")
    write_raw_partitions(undisturbed, raw_days(1, 2, 3, 4, 5))
    run_all_stages(undisturbed)
    stage = graph.dataset_stages(minimal_dataset.DATASET)[0]

    def dies(made: Plan, where: TableStore, done: Done) -> None:
        for item in made.stale[:2]:
            done(item.partition, compute_partition(stage, item, made.fingerprint, where))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(stage, table_store, dies)
    assert table_store.manifest(VALIDATED).partitions == {}, "readers see the old state whole"

    ran = run_all_stages(table_store)

    assert sorted(ran[VALIDATED].computed) == day_names(3, 4, 5), "two partitions were remembered"
    assert table_store.manifest(VALIDATED) == undisturbed.manifest(VALIDATED)


def test_two_runs_of_one_table_at_once_are_refused_with_the_holder(table_store: TableStore) -> None:
    with (
        table_store.lock_table(VALIDATED),
        pytest.raises(TableLockedError, match=r"validated/tiny/sales .*process \d+"),
    ):
        run_all_stages(table_store)


def test_an_attempt_that_lost_its_lease_while_it_was_paused_cannot_commit(table_store: TableStore) -> None:
    stage = graph.dataset_stages(minimal_dataset.DATASET)[0]
    execute = Executor(Settings(workspace=table_store.root))

    def is_overtaken(made: Plan, where: TableStore, done: Done) -> None:
        execute(made, where, done)
        (lock,) = (table_store.root / ".headrace/locks").iterdir()
        lock.unlink()
        write_raw_partitions(minimal_dataset.create_table_store(table_store.root), raw_days(6))
        run_stage(stage, minimal_dataset.create_table_store(table_store.root), execute)

    with pytest.raises(LockLostError, match=r"no longer holds .*Run the same command again"):
        run_stage(stage, table_store, is_overtaken)

    assert list(table_store.manifest(VALIDATED).partitions) == day_names(1, 2, 3, 4, 5, 6), (
        "what the other run showed stands"
    )
    assert not run_all_stages(table_store)[VALIDATED].computed


def test_readers_see_what_the_manifest_names_and_nothing_else(table_store: TableStore) -> None:
    run_all_stages(table_store)
    rows = table_store.scan(VALIDATED).collect().height

    (table_store.folder(VALIDATED) / "2026-01-09.parquet").write_bytes(b"left by somebody")

    assert table_store.scan(VALIDATED).collect().height == rows


def test_a_lost_object_that_no_release_records_is_computed_again(table_store: TableStore) -> None:
    run_all_stages(table_store)
    before = table_store.manifest(VALIDATED)
    table_store.cache.path(before.partitions["2026-01-03"].md5).unlink()

    ran = run_all_stages(table_store)

    assert list(ran[VALIDATED].computed) == day_names(3)
    assert table_store.manifest(VALIDATED) == before


def test_what_is_recorded_of_a_table_stands_until_it_changes_also_where_its_list_was_lost(
    table_store: TableStore,
) -> None:
    run_all_stages(table_store)
    first = table_store.dvc_out(table_store.manifest(TOTALS), {})
    recorded = {first["path"]: {**first, "path": "totals"}}

    assert table_store.dvc_out(table_store.manifest(TOTALS), recorded) == first
    table_store.cache.path(first["md5"]).unlink()
    assert table_store.dvc_out(table_store.manifest(TOTALS), recorded) == first
    assert table_store.cache.has(first["md5"])
    write_raw_partitions(table_store, raw_days(6))
    run_all_stages(table_store)
    assert table_store.dvc_out(table_store.manifest(TOTALS), recorded)["nfiles"] == first["nfiles"] + 1


def test_a_file_that_is_damaged_or_missing_in_the_workspace_is_put_back_though_nothing_is_new(
    table_store: TableStore,
) -> None:
    run_all_stages(table_store)
    shown = {path.name: path.read_bytes() for path in table_store.folder(TOTALS).glob("*.parquet")}
    (table_store.folder(TOTALS) / "2026-01-02.parquet").write_bytes(b"half")
    (table_store.folder(TOTALS) / "2026-01-03.parquet").unlink()

    run_all_stages(table_store)

    assert {path.name: path.read_bytes() for path in table_store.folder(TOTALS).glob("*.parquet")} == shown
