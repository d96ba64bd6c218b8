"""Lines that cannot be read: in the table of rejected rows, in a preview, and in the lineage of rows beside them."""

from dataclasses import replace
from pathlib import Path

import minimal_dataset
import pytest
from many_objects import FIRST, SECOND, ManyObjects
from minimal_dataset import REJECTED, VALIDATED, run_all_stages
from workspaces import git

from headrace.catalog.sql import format_result
from headrace.catalog.tables import DatasetTables
from headrace.dataset import Dataset
from headrace.engine.partition_errors import PartitionsRefusedError
from headrace.lineage.history import DatasetRevision
from headrace.lineage.lineage import trace_lineage
from headrace.lineage.partition_preview import preview_partition
from headrace.validate.csv_dialect import CsvDialect
from headrace.validate.csv_reader import read_csv

SALES = replace(minimal_dataset.SALES, read=lambda path: read_csv(path, CsvDialect()))
BAD = f'{FIRST}T12:30:00Z,"east,1'


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ManyObjects:
    """A day of which one object has a line that cannot be read, and a day with a row that fails the contract."""
    many = ManyObjects(tmp_path, replace(SALES, location=ManyObjects(tmp_path).source.location))
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "Begin")
    many.put_days([FIRST], "ab")
    many.put(f"{FIRST}/c.csv", f"{FIRST}T12:00:00Z,c,1", BAD, f"{FIRST}T13:00:00Z,c,2", f"{FIRST}T14:00:00Z,c,-1")
    many.put(f"{SECOND}/a.csv", f"{SECOND}T12:00:00Z,a,-1", f"{SECOND}T13:00:00Z,a,2")
    many.ingest()
    monkeypatch.setattr("headrace.lineage.row_origin.load_dataset", lambda _name: many.dataset)
    return many


def test_the_rejected_table_has_the_object_the_line_and_the_text(many: ManyObjects) -> None:
    run_all_stages(many.table_store, many.dataset)

    rows = many.table_store.scan(REJECTED).collect()
    columns = ["_object", "_row", "_line", "_row_text", "amount", "_failed_checks"]
    assert rows.select(columns).rows() == [
        (f"sales/{FIRST}/c.csv", 2, 3, BAD, None, ["line|quotes"]),
        (f"sales/{FIRST}/c.csv", 4, 5, None, "-1", ["amount|min"]),
        (None, 1, None, None, "-1", ["amount|min"]),
    ]
    entry = many.table_store.manifest(VALIDATED).partitions[FIRST]
    counts = {name: entry.metadata[name] for name in ("rows_in", "rejected", "checks")}
    assert counts == {"rows_in": 6, "rejected": 2, "checks": {"amount|min": 1, "line|quotes": 1}}
    assert entry.rows == 4


def test_sql_finds_bad_lines_by_their_check(many: ManyObjects) -> None:
    run_all_stages(many.table_store, many.dataset)

    tables = DatasetTables.open("tiny", many.table_store)
    query = "SELECT _row_text, _line FROM rejected.sales WHERE list_contains(_failed_checks, 'line|quotes')"
    assert '"east,1' in format_result(tables, query)
    assert tables["rejected/sales"].polars().collect()["_line"].to_list() == [3, 5, None]


def test_a_row_after_a_bad_line_leads_to_its_own_place(many: ManyObjects) -> None:
    run_all_stages(many.table_store, many.dataset)

    row = {"at": f"{FIRST}T13:00:00Z", "shop": "c"}
    traced = trace_lineage(DatasetRevision.open(many.table_store, "tiny"), VALIDATED, None, row, None)

    assert traced.row_match
    assert traced.row_match.origins == [{"bucket": "file:bucket", "key": f"sales/{FIRST}/c.csv", "row": 3}]


def test_a_preview_shows_the_lines_that_a_run_then_rejects(many: ManyObjects) -> None:
    found = preview_partition(many.dataset, many.table_store, "sales", FIRST, {})

    run_all_stages(many.table_store, many.dataset)
    rejected = next(each.rows for each in found.tables if each.table == REJECTED)
    stored = many.table_store.scan(REJECTED).collect().head(2)
    assert rejected.equals(stored.select(rejected.columns))
    assert found.metadata["checks"] == {"amount|min": 1, "line|quotes": 1}


def test_more_bad_lines_than_the_source_tolerates_refuse_the_partition_with_the_check(many: ManyObjects) -> None:
    dataset: Dataset = replace(many.dataset, sources=(replace(many.source, max_rejected_share=0.1),))

    with pytest.raises(
        PartitionsRefusedError, match=r"33\.3% of 6 rows rejected, 10\.0% tolerated.*rejected rows are in"
    ):
        run_all_stages(many.table_store, dataset)


def test_objects_without_bad_lines_have_the_same_bytes_beside_others(many: ManyObjects) -> None:
    run_all_stages(many.table_store, many.dataset)
    before = many.table_store.manifest(REJECTED).partitions[SECOND].md5

    many.put(f"{FIRST}/c.csv", f"{FIRST}T12:00:00Z,c,1")
    many.ingest()
    run_all_stages(many.table_store, many.dataset)

    assert set(many.table_store.manifest(REJECTED).partitions) == {SECOND}
    assert many.table_store.manifest(REJECTED).partitions[SECOND].md5 == before
