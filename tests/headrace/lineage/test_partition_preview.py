"""A preview computes what a run would compute of one partition, says what would change, and leaves no trace."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import changing_source
import dataframely as dy
import minimal_dataset
import polars as pl
import pytest
from changing_source import ChangingSource, day, feature_table, schema
from many_objects import FIRST, ManyObjects
from minimal_dataset import RAW, REJECTED, TOTALS, VALIDATED, day_names, raw_days, run_all_stages, write_raw_partitions

from headrace.dataset import Dataset
from headrace.engine.partition_errors import PartitionFailedError
from headrace.lineage import partition_preview
from headrace.lineage.partition_preview import PartitionPreview, PreviewError, TablePreview, preview_partition
from headrace.lineage.row_diff import RowDiff
from headrace.project.locks import lock_tables
from headrace.storage.table_store import TableStore
from headrace.validate.column_history import evolving

DATASET = minimal_dataset.DATASET
BAD_ROW = "2026-01-02T13:00:00Z,east,-5\n"


@pytest.fixture
def table_store(tmp_path: Path) -> TableStore:
    """Five days, nothing computed yet."""
    made = minimal_dataset.create_table_store(tmp_path)
    write_raw_partitions(made, raw_days(1, 2, 3, 4, 5))
    return made


def preview(
    table_store: TableStore, table: str, partition: str | None = None, dataset: Dataset = DATASET, **params: object
) -> PartitionPreview:
    return preview_partition(dataset, table_store, table, partition, params)


def tables(found: PartitionPreview) -> dict[str, TablePreview]:
    return {each.table: each for each in found.tables}


def files(root: Path) -> dict[str, tuple[bytes, int]]:
    """Path → bytes and time of the last change of every file."""
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["sales", "totals"])
def test_a_preview_has_the_rows_that_a_run_then_writes(table_store: TableStore, name: str) -> None:
    found = preview(table_store, name, "2026-01-04")

    run_all_stages(table_store)
    stored = pl.read_parquet(table_store.folder(found.table) / "2026-01-04.parquet")
    assert found.tables[0].rows.equals(stored)
    assert found.tables[0].rows.schema == stored.schema
    assert (found.reasons, found.tables[0].is_new, found.refused) == (("never built",), True, "")


def test_rejected_rows_of_several_objects_name_the_object_as_after_a_run(tmp_path: Path) -> None:
    many = ManyObjects(tmp_path)
    many.put(f"{FIRST}/a.csv", f"{FIRST}T12:00:00Z,a,1")
    many.put(f"{FIRST}/b.csv", f"{FIRST}T12:00:00Z,b,1", f"{FIRST}T13:00:00Z,b,-5")
    many.ingest()

    found = tables(preview(many.table_store, "validated/sales", FIRST, many.dataset))

    run_all_stages(many.table_store, many.dataset)
    stored = pl.read_parquet(many.table_store.folder(REJECTED) / f"{FIRST}.parquet")
    assert found[REJECTED].rows.equals(stored)
    assert stored["_object"].to_list() == [f"sales/{FIRST}/b.csv"]
    again = preview(many.table_store, "validated/sales", FIRST, many.dataset)
    assert [each.differs for each in again.tables] == [False, False]


def test_inputs_that_a_run_would_compute_first_are_computed_on_the_way(table_store: TableStore) -> None:
    found = preview(table_store, "totals", "2026-01-04")

    assert found.inputs == {VALIDATED: day_names(2, 3, 4)}
    assert found.computed_first == {VALIDATED: day_names(2, 3, 4)}


def test_a_preview_writes_nothing_and_takes_no_lock(table_store: TableStore) -> None:
    run_all_stages(table_store)
    write_raw_partitions(table_store, {"2026-01-02": minimal_dataset.raw_day(2, amount=7) + BAD_ROW})
    with lock_tables(table_store, [VALIDATED, REJECTED, TOTALS, RAW]):
        before = files(table_store.root)

        preview(table_store, "totals", "2026-01-02")
        preview(table_store, "sales", "2026-01-02")

        assert files(table_store.root) == before


def test_the_difference_names_rows_and_columns_by_key(table_store: TableStore) -> None:
    run_all_stages(table_store)
    changed = "2026-01-02T12:00:00Z,east,7\n2026-01-02T12:00:00Z,north,1\n"
    write_raw_partitions(table_store, {"2026-01-02": changed})

    [sales, *_] = preview(table_store, "sales", "2026-01-02").tables
    [totals] = preview(table_store, "totals", "2026-01-04").tables

    assert sales.changes
    assert sales.changes.counts == RowDiff(added=1, changed=1, removed=1)
    assert (sales.changes.columns, sales.changes.key) == ({"amount": 1}, ["at", "shop"])
    [(key, pairs)] = sales.changes.first(3)
    assert (key["shop"], pairs) == ("east", {"amount": (1, 7)})
    assert totals.changes
    assert totals.changes.counts == RowDiff(added=1, changed=2, removed=0)


def test_a_partition_that_is_up_to_date_is_computed_again_to_the_same_bytes(table_store: TableStore) -> None:
    run_all_stages(table_store)

    found = preview(table_store, "totals", "2026-01-04")

    assert (found.reasons, found.computed_first) == ((), {})
    assert [each.differs for each in found.tables] == [False]
    assert found.tables[0].changes
    assert found.tables[0].changes.counts == RowDiff()


def test_an_input_that_comes_out_with_the_same_bytes_leaves_the_partition_up_to_date(table_store: TableStore) -> None:
    run_all_stages(table_store)
    write_raw_partitions(table_store, {"2026-01-02": minimal_dataset.raw_day(2) + BAD_ROW})

    found = preview(table_store, "totals", "2026-01-04")

    assert (found.computed_first, found.reasons) == ({VALIDATED: day_names(2)}, ())


def test_rejected_rows_are_shown_with_the_checks_that_they_failed(table_store: TableStore) -> None:
    run_all_stages(table_store)
    write_raw_partitions(table_store, {"2026-01-02": minimal_dataset.raw_day(2) + BAD_ROW})

    found = preview(table_store, "sales", "2026-01-02")

    rejected = tables(found)[REJECTED]
    assert rejected.rows["_failed_checks"].to_list() == [["amount|min"]]
    assert rejected.changes
    assert rejected.changes.counts == RowDiff(added=1)
    assert (found.metadata["rows_in"], found.metadata["rejected"], found.metadata["checks"]) == (
        3,
        1,
        {"amount|min": 1},
    )


def test_rejected_rows_that_would_go_are_removed_ones(table_store: TableStore) -> None:
    write_raw_partitions(table_store, {"2026-01-02": minimal_dataset.raw_day(2) + BAD_ROW})
    run_all_stages(table_store)
    write_raw_partitions(table_store, raw_days(2))

    rejected = tables(preview(table_store, "rejected/sales", "2026-01-02"))[REJECTED]

    assert rejected.changes
    assert (rejected.rows.height, rejected.changes.counts) == (0, RowDiff(removed=1))


def test_a_partition_that_a_run_would_refuse_is_shown_with_the_reason(table_store: TableStore) -> None:
    write_raw_partitions(table_store, {"2026-01-02": 3 * BAD_ROW + minimal_dataset.raw_day(2)})

    found = preview(table_store, "sales", "2026-01-02")

    assert "60.0% of 5 rows rejected, 50.0% tolerated" in found.refused
    assert "the output of `headrace preview tiny validated/sales --partition 2026-01-02`" in found.refused
    assert (found.tables[0].rows.height, tables(found)[REJECTED].rows.height) == (2, 3)
    assert not (table_store.root / ".headrace/refused").exists()
    with pytest.raises(PreviewError, match=r"60\.0% of 5 rows rejected"):
        preview(table_store, "totals", "2026-01-02")


def test_keys_that_an_earlier_partition_holds_are_rejected_as_in_a_run(table_store: TableStore) -> None:
    dataset = replace(DATASET, sources=(replace(DATASET.sources[0], key=("shop",), max_rejected_share=1.0),))
    run_all_stages(table_store, dataset)
    write_raw_partitions(table_store, {"2026-01-06": "2026-01-06T12:00:00Z,east,1\n2026-01-06T12:00:00Z,north,1\n"})

    found = preview(table_store, "sales", "2026-01-06", dataset)

    run_all_stages(table_store, dataset)
    stored = pl.read_parquet(table_store.folder(VALIDATED) / "2026-01-06.parquet")
    assert stored["shop"].to_list() == ["north"]
    assert found.tables[0].rows.equals(stored)


def scaled_totals(day: str, params: Mapping[str, int], sales: pl.LazyFrame) -> pl.LazyFrame:
    return minimal_dataset.totals(day, sales).with_columns(pl.col("amount") * params["factor"])


def failing_totals(day: str, sales: pl.LazyFrame) -> pl.LazyFrame:
    return sales.select(pl.lit(day).str.head(int("no number")))


WITH_PARAMS = replace(DATASET, features=(replace(DATASET.features[0], params=("factor",), transform=scaled_totals),))


def test_a_parameter_can_have_another_value_for_a_preview(table_store: TableStore) -> None:
    (table_store.root / "params.yaml").write_text("tiny:\n  factor: 1\n")
    run_all_stages(table_store, WITH_PARAMS)

    found = preview(table_store, "totals", "2026-01-01", WITH_PARAMS, factor=10)
    same = preview(table_store, "totals", "2026-01-01", WITH_PARAMS, **{"tiny.factor": 1})

    assert found.reasons == ("parameter changed: tiny.factor",)
    assert found.tables[0].rows["amount"].to_list() == [10, 10]
    assert same.reasons == ()
    with pytest.raises(PreviewError, match=r"receives a parameter facto\. Their parameters: tiny\.factor"):
        preview(table_store, "totals", "2026-01-01", WITH_PARAMS, facto=1)


def test_without_a_partition_the_last_one_is_computed(table_store: TableStore) -> None:
    assert preview(table_store, "features/totals").partition == "2026-01-05"


@pytest.mark.parametrize(
    ("table", "partition", "message"),
    [
        ("total", "2026-01-01", r"no stage computes a table total \(did you mean 'totals'\?\)"),
        ("raw/sales", "2026-01-01", r"no stage computes a table raw/sales.* `headrace plan tiny` shows"),
        (
            "totals",
            "2026-02-01",
            r"no partition 2026-02-01.*Its partitions: 5, 2026-01-01 … 2026-01-05.*headrace ingest",
        ),
    ],
)
def test_what_cannot_be_previewed_is_named_with_what_there_is(
    table_store: TableStore, table: str, partition: str, message: str
) -> None:
    with pytest.raises(PreviewError, match=message):
        preview(table_store, table, partition)


def test_more_inputs_than_a_preview_computes_are_left_to_a_run(
    table_store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition_preview, "MOST_INPUTS", 2)

    with pytest.raises(PreviewError, match=r"3 inputs would have to be computed first \(3 of validated/tiny/sales\)"):
        preview(table_store, "totals", "2026-01-04")
    with pytest.raises(PreviewError, match=r"`headrace validate tiny --table sales` computes and keeps them"):
        preview(table_store, "totals", "2026-01-04")


def test_what_a_kernel_raises_is_named_with_its_partition(table_store: TableStore) -> None:
    dataset = replace(DATASET, features=(replace(DATASET.features[0], transform=failing_totals),))

    with pytest.raises(
        PartitionFailedError, match=r"features/tiny/totals 2026-01-04: .*ValueError.*Correct the code of"
    ):
        preview(table_store, "totals", "2026-01-04", dataset)


def test_tables_with_one_name_are_told_apart_by_their_state(table_store: TableStore) -> None:
    names: Sequence[str] = [preview(table_store, name).table for name in ("validated/sales", "features/tiny/totals")]

    assert names == [VALIDATED, TOTALS]


def test_a_preview_reads_partitions_from_before_a_change_of_columns_as_a_run_does(tmp_path: Path) -> None:
    rides = ChangingSource.at(tmp_path)
    rides.declare(schema(fare=dy.Int64(), tax=dy.Int64()))
    rides.deliver(day(0), "id,fare,tax\n1,10,1\n")
    rides.run()
    price = evolving(dy.Int64(), renamed_from="fare")
    tip = evolving(dy.Int64(), since=day(1), default=7)
    rides.declare(schema(price=price, tax=dy.Int64(), tip=tip))
    rides.deliver(day(1), "id,price,tax,tip\n2,20,2,3\n")
    table = feature_table({"price": pl.Int64(), "tip": pl.Int64()})

    found = preview(rides.table_store, "features/rides", day(1), replace(changing_source.DATASET, features=(table,)))

    rides.run(table)
    assert found.table == changing_source.FEATURES
    assert found.tables[0].rows.to_dicts() == rides.rows(changing_source.FEATURES, [day(1)])
    assert found.tables[0].rows["tip"].to_list() == [7, 3]
