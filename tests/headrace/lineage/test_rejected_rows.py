"""Rejected rows are found and compared by whatever columns their table has: 0.1 called ours `row` and `checks`."""

from pathlib import Path

import polars as pl
import pytest
from minimal_dataset import REJECTED, create_table_store, raw_day, run_all_stages, write_raw_partitions

from headrace.lineage.row_diff import RowDiff, compare_rows
from headrace.lineage.row_lookup import RowMatch
from headrace.storage import parquet
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.table_store import TableStore

DAY = "2026-01-02"
BAD = f"{DAY}T13:00:00Z,east,-5\n"
WRITTEN_BY_0_1 = pl.DataFrame(
    {"row": [3], "at": [f"{DAY}T13:00:00Z"], "shop": ["east"], "amount": ["-5"], "checks": [["amount: ge(0)"]]},
    schema_overrides={"row": pl.UInt32},
)


@pytest.fixture
def table_store(tmp_path: Path) -> TableStore:
    return create_table_store(tmp_path)


def write_rejected_rows(table_store: TableStore, rows: pl.DataFrame) -> Manifest:
    """A table of rejected rows with one partition."""
    stored = table_store.cache.add_bytes(memoryview(parquet.to_parquet_bytes(rows)))
    return Manifest(REJECTED, partitions={DAY: PartitionEntry("key", stored.md5, stored.size, rows.height)})


def test_a_row_that_0_1_rejected_is_found_by_its_number_and_shows_the_checks_it_failed(table_store: TableStore) -> None:
    found = RowMatch.find(table_store.cache, write_rejected_rows(table_store, WRITTEN_BY_0_1), None, {"row": "3"})

    assert (found.partition, found.rows[0]["checks"]) == (DAY, ["amount: ge(0)"])


def test_a_row_rejected_today_is_found_by_its_number_and_shows_the_checks_it_failed(table_store: TableStore) -> None:
    write_raw_partitions(table_store, {DAY: raw_day(2) + BAD})
    run_all_stages(table_store)

    found = RowMatch.find(table_store.cache, table_store.manifest(REJECTED), None, {"_row": "3"})

    assert (found.partition, found.rows[0]["_failed_checks"]) == (DAY, ["amount|min"])


def test_rows_that_0_1_rejected_are_compared_with_those_of_today(table_store: TableStore) -> None:
    write_raw_partitions(table_store, {DAY: raw_day(2) + BAD + BAD.replace("-5", "-6")})
    run_all_stages(table_store)
    today = table_store.scan(REJECTED).collect()

    assert compare_rows(WRITTEN_BY_0_1, today, ()) == RowDiff(added=1, changed=1)
