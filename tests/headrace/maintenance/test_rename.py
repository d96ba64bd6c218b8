"""A rename carries partitions over with their bytes, and the tables that read them: nothing is computed again."""

from collections.abc import Mapping
from dataclasses import replace

import minimal_dataset
import pytest
from minimal_dataset import FEATURES, SALES, day_names, raw_day, write_raw_partitions
from release_clones import QUESTION, Clone, Origin, collect_annotations, dataset

from headrace.dataset import Dataset, Input
from headrace.engine.run import plan_stage
from headrace.maintenance.drop import NotOnRecordError, StillDeclaredError, StillReadError
from headrace.maintenance.rename import (
    NameTakenError,
    NotDeclaredError,
    RenameResult,
    find_dataset_renaming,
    find_renaming,
    rename_tables,
)
from headrace.project import graph
from headrace.release.retired_tables import read_retired_tables
from headrace.storage.dvc.lock import recorded_outs
from headrace.storage.files import dump_yaml
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.retired_tables import FILE

TINY = dataset("tiny")
MANY = dict.fromkeys(range(1, 4), 1)
ORDERS = replace(
    TINY,
    sources=(replace(SALES, name="orders"),),
    features=(replace(FEATURES, inputs={"sales": Input("validated/orders", lookback=2)}),),
)
"""The dataset with its source renamed, and with the feature table that reads it."""

RENAMED = {
    "raw/tiny/sales": "raw/tiny/orders",
    "validated/tiny/sales": "validated/tiny/orders",
    "rejected/tiny/sales": "rejected/tiny/orders",
}


@pytest.fixture
def clone(origin: Origin) -> Clone:
    """A clone in which three days are released, one with a rejected row."""
    origin.first.run(TINY, MANY)
    rejected = {"2026-01-02": f"{raw_day(2)}2026-01-02T13:00:00Z,east,-5\n"}
    write_raw_partitions(origin.first.table_store, rejected)
    origin.first.refresh(TINY)
    origin.first.release(TINY)
    return origin.first


def rename(clone: Clone, declared: Dataset, old: str, new: str, *, dry_run: bool = False) -> RenameResult:
    renaming = find_renaming(declared, old, new, clone.table_store)
    return rename_tables(declared, renaming, clone.table_store, reason="a test", dry_run=dry_run)


def md5s(clone: Clone, tables: Mapping[str, str]) -> dict[str, dict[str, str]]:
    return {new: clone.table_store.manifest(old).md5s for old, new in tables.items()}


def check_up_to_date(clone: Clone, declared: Dataset) -> None:
    plans = [plan_stage(stage, clone.table_store) for stage in graph.dataset_stages(declared)]
    assert [(plan.stage.table, plan.pending_partitions) for plan in plans if not plan.is_empty] == []


def test_a_renamed_source_goes_on_with_its_bytes_and_nothing_that_reads_it_is_computed(clone: Clone) -> None:
    before, totals = md5s(clone, RENAMED), clone.table_store.manifest("features/tiny/totals")

    done = rename(clone, ORDERS, "sales", "orders")

    assert (done.tables, done.stale) == (RENAMED, {})
    assert done.carried["features/tiny/totals"] == len(MANY)
    assert {table: clone.table_store.manifest(table).md5s for table in RENAMED.values()} == before
    assert clone.table_store.manifest("features/tiny/totals").md5s == totals.md5s
    assert not any(clone.table_store.folder(table).exists() for table in RENAMED)
    check_up_to_date(clone, ORDERS)


def test_lineage_goes_on_under_the_new_names(clone: Clone) -> None:
    rename(clone, ORDERS, "sales", "orders")

    day = day_names(2)[0]
    entry = clone.table_store.manifest("validated/tiny/orders").partitions[day]
    assert entry.inputs == {"raw/tiny/orders": {day: clone.table_store.manifest("raw/tiny/orders").md5s[day]}}
    assert list(entry.companions) == ["rejected/tiny/orders"]
    totals = clone.table_store.manifest("features/tiny/totals").partitions[day]
    assert list(totals.inputs) == ["validated/tiny/orders"]


def test_the_next_release_has_the_new_tables_alone_and_says_why(clone: Clone, origin: Origin) -> None:
    rename(clone, ORDERS, "sales", "orders")

    made = clone.release(ORDERS)

    assert made.name == "tiny/2"
    tables = {path.removeprefix("data/") for path in recorded_outs(clone.root, "tiny/2")}
    assert tables == {*RENAMED.values(), "features/tiny/totals"}
    assert {f"data/{table}" for table in RENAMED} <= recorded_outs(clone.root, "tiny/1").keys()
    notes = origin.git("tag", "--list", "--format=%(contents)", "tiny/2")
    assert "raw/tiny/sales: renamed to raw/tiny/orders by " in notes
    other = origin.clone("other")
    check_up_to_date(other, ORDERS)
    assert other.table_store.scan("features/tiny/totals").collect().height == 2 * len(MANY)


def test_a_rename_can_be_repeated_and_by_default_changes_nothing(clone: Clone) -> None:
    tables = clone.tables(TINY)

    shown = rename(clone, ORDERS, "sales", "orders", dry_run=True)
    assert (shown.tables, clone.tables(TINY), read_retired_tables(clone.root)) == (RENAMED, tables, {})
    first = rename(clone, ORDERS, "sales", "orders")
    after, retired = clone.tables(TINY), read_retired_tables(clone.root)
    again = rename(clone, ORDERS, "sales", "orders")

    assert (first.carried, clone.tables(TINY), read_retired_tables(clone.root)) == (shown.carried, after, retired)
    assert again.tables == RENAMED
    check_up_to_date(clone, ORDERS)


def test_a_renamed_labeling_task_keeps_its_history_of_answers(origin: Origin) -> None:
    asked, clone = dataset("tiny", QUESTION), origin.first
    clone.run(asked, MANY)
    clone.collect(asked, "east-1", "west-1")
    clone.release(asked)
    history = clone.table_store.scan("annotations/tiny/state").collect()
    renamed = dataset("tiny", replace(QUESTION, name="condition"))

    done = rename(clone, renamed, "state", "condition")
    made = clone.release(renamed)

    assert done.stale == {}
    assert made.created
    assert clone.table_store.scan("annotations/tiny/condition").collect().equals(history)
    assert clone.table_store.manifest("labels/tiny/condition").rows == 2
    assert "annotations/tiny/state" not in clone.table_store.known_tables("tiny")


def test_answers_that_were_collected_under_the_new_name_refuse_the_rename(origin: Origin) -> None:
    asked, renamed = dataset("tiny", QUESTION), dataset("tiny", replace(QUESTION, name="condition"))
    clone = origin.first
    clone.run(asked, MANY)
    clone.collect(asked, "east-1")
    collect_annotations(clone.table_store, asked, "west-1")
    there = clone.table_store.manifest("annotations/tiny/state")
    collect_annotations(clone.table_store, asked, "east-2")
    clone.table_store.checkout(replace(there, table="annotations/tiny/condition"))

    with pytest.raises(NameTakenError, match="annotations/tiny/condition: expected no partitions"):
        rename(clone, renamed, "state", "condition")

    assert clone.table_store.manifest("annotations/tiny/state").md5s != there.md5s


def test_a_whole_dataset_goes_on_under_its_new_name(clone: Clone) -> None:
    shops = replace(TINY, name="shops")
    totals = clone.table_store.manifest("features/tiny/totals").md5s

    renaming = find_dataset_renaming(shops, "tiny", clone.table_store)
    done = rename_tables(shops, renaming, clone.table_store, reason="a test", dry_run=False)
    clone.git("add", FILE)
    clone.git("commit", "--quiet", "--message", "Rename the dataset")
    clone.git("push", "--quiet", "origin", "HEAD:main")
    made = clone.release(shops)

    assert (made.name, done.stale, done.kept_by) == ("shops/1", {}, "tiny/1")
    assert clone.table_store.manifest("features/shops/totals").md5s == totals
    assert clone.table_store.known_tables("tiny") == ()
    check_up_to_date(clone, shops)
    assert "data/features/tiny/totals" in recorded_outs(clone.root, "tiny/1")


def test_a_name_that_is_still_declared_or_not_yet_is_refused_with_file_and_line(clone: Clone) -> None:
    both = replace(ORDERS, sources=(SALES, *ORDERS.sources))
    place = rf"minimal_dataset\.py:{minimal_dataset.SALES.place[1]}"

    with pytest.raises(NotDeclaredError, match=rf"named 'orders', found none: \S*{place} declares sales"):
        rename(clone, TINY, "sales", "orders")
    with pytest.raises(StillDeclaredError, match=rf"{place} still declares sales"):
        rename(clone, both, "sales", "orders")
    with pytest.raises(NotOnRecordError, match=r"tables named 'purchases' on record and not declared, found sales"):
        rename(clone, ORDERS, "purchases", "orders")

    check_up_to_date(clone, TINY)


def test_a_hand_written_stage_that_reads_the_old_table_is_named_with_its_line(clone: Clone) -> None:
    stage = {"cmd": "python train.py", "deps": ["data/validated/tiny/sales/_manifest/head.json"]}
    (clone.root / "dvc.yaml").write_bytes(dump_yaml({"stages": {"train": stage}}))

    with pytest.raises(StillReadError, match=r"dvc\.yaml:5: the stage train reads data/validated/tiny/sales/"):
        rename(clone, ORDERS, "sales", "orders")

    check_up_to_date(clone, TINY)


def test_partitions_that_were_stale_before_are_stale_afterwards(clone: Clone) -> None:
    table = "validated/tiny/sales"
    made = clone.table_store.manifest(table)
    old = {name: replace_key(entry) if name == day_names(1)[0] else entry for name, entry in made.partitions.items()}
    clone.table_store.checkout(made.with_partitions(old))

    rename(clone, ORDERS, "sales", "orders")

    stage, *_ = graph.dataset_stages(ORDERS)
    assert plan_stage(stage, clone.table_store).pending_partitions == day_names(1)


def replace_key(entry: PartitionEntry) -> PartitionEntry:
    return PartitionEntry(**{name: getattr(entry, name) for name in entry.__struct_fields__} | {"cache_key": "other"})


def test_a_raw_table_that_was_read_again_under_its_new_name_is_not_overwritten(clone: Clone) -> None:
    raw = clone.table_store.manifest("raw/tiny/sales")
    only = {"2026-01-09": raw.partitions[day_names(1)[0]]}
    clone.table_store.checkout(replace(raw, table="raw/tiny/orders", partitions=only))

    with pytest.raises(NameTakenError, match="`headrace drop tiny sales`"):
        rename(clone, ORDERS, "sales", "orders")
