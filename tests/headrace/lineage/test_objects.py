"""Partitions of several objects: from a row to the object and the row in it, from an object to what was made of it."""

from pathlib import Path

import polars as pl
import pytest
from many_objects import FIRST, SECOND, ManyObjects
from minimal_dataset import RAW, REJECTED, TOTALS, VALIDATED, run_all_stages
from workspaces import git

from headrace.catalog.sql import format_result
from headrace.catalog.tables import DatasetTables
from headrace.cli.lineage import _format_lineage
from headrace.lineage.history import DatasetRevision, UnknownTableError
from headrace.lineage.lineage import PartitionLineage, trace_lineage
from headrace.release.changes import PartitionDiff


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ManyObjects:
    """A day of three objects, one of which has a bad row, and a day of one object, which has one, too."""
    many = ManyObjects(tmp_path)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "Begin")
    many.put_days([FIRST], "ab")
    many.put(f"{FIRST}/c.csv", f"{FIRST}T13:00:00Z,c,3", f"{FIRST}T14:00:00Z,c,-1", f"{FIRST}T15:00:00Z,c,5")
    many.put(f"{SECOND}/a.csv", f"{SECOND}T12:00:00Z,a,-1", f"{SECOND}T13:00:00Z,a,2")
    many.ingest()
    run_all_stages(many.table_store, many.dataset)
    monkeypatch.setattr("headrace.lineage.row_origin.load_dataset", lambda _name: many.dataset)
    return many


def trace(
    many: ManyObjects, table: str, partition: str | None = None, object_key: str | None = None, **row: str
) -> PartitionLineage:
    return trace_lineage(DatasetRevision.open(many.table_store, "tiny"), table, partition, row, object_key)


def test_a_validated_row_leads_to_its_object_and_the_row_in_it(many: ManyObjects) -> None:
    traced = trace(many, VALIDATED, at=f"{FIRST}T15:00:00Z", shop="c")

    assert traced.row_match
    assert traced.row_match.origins == [{"bucket": "file:bucket", "key": f"sales/{FIRST}/c.csv", "row": 3}]
    assert traced.to_dict()["origins"] == traced.row_match.origins
    assert any(f"read from row 3 of file:bucket/sales/{FIRST}/c.csv" in line for line in _format_lineage(traced))


def test_a_validated_row_of_a_single_object_leads_to_it_too(many: ManyObjects) -> None:
    traced = trace(many, VALIDATED, at=f"{SECOND}T13:00:00Z")

    assert traced.row_match
    assert traced.row_match.origins == [{"bucket": "file:bucket", "key": f"sales/{SECOND}/a.csv", "row": 2}]


def test_no_row_is_named_where_other_code_validated_it(many: ManyObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.lineage.row_origin.partition_cache_key", lambda *_: "of other code")

    traced = trace(many, VALIDATED, at=f"{FIRST}T15:00:00Z", shop="c")

    assert traced.row_match
    assert not traced.row_match.origins


def test_an_object_leads_to_the_partitions_that_were_computed_from_it(many: ManyObjects) -> None:
    traced = trace(many, RAW, object_key=f"sales/{FIRST}/b.csv")

    assert [item["key"] for item in traced.node.source["objects"]] == [f"sales/{FIRST}/b.csv"]
    assert dict(traced.used_by) == {REJECTED: (FIRST,), TOTALS: (FIRST, SECOND), VALIDATED: (FIRST,)}


def test_an_object_is_found_by_the_address_that_lineage_prints(many: ManyObjects) -> None:
    key = f"sales/{FIRST}/b.csv"
    (printed,) = {
        line.split("  ")[0].split()[-1]
        for line in _format_lineage(trace(many, RAW, object_key=key))
        if f"{key}  ETag" in line
    }

    assert printed == f"file:bucket/{key}"
    assert trace(many, RAW, object_key=printed) == trace(many, RAW, object_key=key)


def test_a_partition_leads_back_to_each_of_its_objects(many: ManyObjects) -> None:
    traced = trace(many, VALIDATED, FIRST)

    assert sorted(item.source["objects"][0]["key"] for item in traced.node.inputs) == many.keys[FIRST]


def test_one_of_several_objects_has_to_be_chosen(many: ManyObjects) -> None:
    with pytest.raises(UnknownTableError, match=rf"{RAW} {FIRST} has 3 objects\. Choose one with `--object`"):
        trace(many, RAW, FIRST)
    with pytest.raises(UnknownTableError, match=rf"{RAW} has {FIRST}, {SECOND}\."):
        trace(many, RAW)
    with pytest.raises(
        UnknownTableError, match=r"such as sales/.+\.csv, found 'sales/none\.csv', which none of its 4 objects has"
    ):
        trace(many, RAW, object_key="sales/none.csv")


def test_a_rejected_row_is_found_by_its_object_and_line(many: ManyObjects) -> None:
    traced = trace(many, REJECTED, FIRST, _object=f"sales/{FIRST}/c.csv", _row="2")

    assert traced.row_match
    assert [row["amount"] for row in traced.row_match.rows] == ["-1"]


def test_rejected_rows_of_one_object_and_of_several_are_read_as_one_table(many: ManyObjects) -> None:
    tables = DatasetTables.open("tiny", many.table_store)
    expected = [(f"sales/{FIRST}/c.csv", 2, "-1"), (None, 1, "-1")]
    columns = ["_object", "_row", "amount"]

    assert many.table_store.scan(REJECTED).select(columns).collect().rows() == expected
    table = tables["rejected/sales"]
    assert table.polars().select(columns).collect().rows() == expected
    assert table.polars().filter(pl.col("_object").is_null()).collect().height == 1
    assert table.select(columns=columns).polars().collect().rows() == expected
    assert table.select(partitions=[SECOND]).polars().collect()["amount"].to_list() == ["-1"]
    assert table.arrow().num_rows == table.duckdb().count("*").fetchall()[0][0] == 2
    assert table.schema == table.polars().collect().schema
    assert FIRST in format_result(tables, "SELECT _object FROM rejected.sales WHERE _row = 2")


def test_a_difference_names_partitions_and_not_objects(many: ManyObjects) -> None:
    before = many.manifest
    many.put_days([SECOND, "2026-01-03"], "bc")
    many.delete(f"{FIRST}/a.csv")
    many.ingest()

    assert PartitionDiff.between(before, many.manifest) == PartitionDiff(["2026-01-03"], [FIRST, SECOND], [])
