"""No release is made of tables whose rows do not add up, or that are behind their inputs: without a server."""

from pathlib import Path
from typing import Any

import minimal_dataset
import pytest
from minimal_dataset import DATASET, VALIDATED, raw_days, run_all_stages, write_raw_partitions
from msgspec.structs import replace

from headrace.release.audit import AuditError, TablesBehindError, audit
from headrace.storage.table_store import TableStore


@pytest.fixture
def table_store(tmp_path: Path) -> TableStore:
    """Three days, all computed; one row of the second was rejected."""
    table_store = minimal_dataset.create_table_store(tmp_path)
    write_raw_partitions(table_store, {**raw_days(1, 3), "2026-01-02": "2026-01-02T12:00:00Z,east,1\n" * 2})
    run_all_stages(table_store)
    return table_store


def change_entry(table_store: TableStore, partition: str, rows: int = 0, **metadata: int) -> None:
    """Let the manifest tell of more rows than there are."""
    manifest = table_store.manifest(VALIDATED)
    entry = manifest.partitions[partition]
    facts: dict[str, Any] = {**entry.metadata}
    for name, more in metadata.items():
        facts[name] += more
    changed = replace(entry, rows=(entry.rows or 0) + rows, metadata=facts)
    table_store.checkout(manifest.with_partitions({**manifest.partitions, partition: changed}))


def test_tables_whose_rows_add_up_pass(table_store: TableStore) -> None:
    [counts] = [table_store.manifest(VALIDATED).partitions["2026-01-02"].metadata]
    assert (counts["rows_in"], counts["rejected"]) == (2, 1)

    audit(DATASET, table_store)


@pytest.mark.parametrize("wrong", [{"rows": 1}, {"rows": -1}, {"rejected": 1}, {"rejected": -1}, {"rows_in": 1}])
def test_a_partition_whose_rows_do_not_add_up_is_refused_by_name(
    table_store: TableStore, wrong: dict[str, int]
) -> None:
    change_entry(table_store, "2026-01-02", **wrong)

    with pytest.raises(AuditError, match=r"validated/tiny/sales 2026-01-02: \d rows came in.*Nothing was released"):
        audit(DATASET, table_store)


def test_rows_that_add_up_to_what_came_in_pass_whatever_they_are(table_store: TableStore) -> None:
    change_entry(table_store, "2026-01-02", rows=1, rejected=2, rows_in=3)

    audit(DATASET, table_store)


def test_tables_that_are_behind_their_inputs_are_refused_with_the_first_partition(table_store: TableStore) -> None:
    write_raw_partitions(table_store, raw_days(4, 5))

    with pytest.raises(TablesBehindError, match=r"found 2 that are not, 2026-01-04 first"):
        audit(DATASET, table_store)


def test_a_table_that_is_not_what_was_computed_with_its_stage_is_refused(table_store: TableStore) -> None:
    table = "rejected/tiny/sales"
    manifest = table_store.manifest(table)
    table_store.checkout(manifest.with_partitions({}))

    with pytest.raises(TablesBehindError, match=table):
        audit(DATASET, table_store)
