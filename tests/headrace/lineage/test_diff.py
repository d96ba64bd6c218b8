"""Diff: partitions, rows and columns that differ between two releases, and changes of the fingerprint.

Read from manifests and one file per release of each table that differs, so a clone without data gives the same answer.
"""

import json
from pathlib import Path
from typing import Any

import changing_source
import dataframely as dy
import polars as pl
import pytest
from changing_source import ChangingSource, day, schema
from two_releases import CARRIERS, CORRECTED, DELETED, RAW, VALIDATED, TwoReleases, create_entry

from headrace.lineage.diff import diff_tables
from headrace.lineage.row_diff import RowDiff, compare_rows
from headrace.storage.manifest import Manifest
from headrace.storage.table_store import TableStore
from headrace.validate.column_history import EarlierType, evolving

NAN = float("nan")


def test_a_diff_lists_added_changed_and_removed_partitions_with_row_counts_before_and_after(
    two_releases: TwoReleases,
) -> None:
    tables = {table.table: table for table in two_releases.diff().tables}

    before, after = (two_releases.partitions(release, CARRIERS) for release in ("flights/1", "flights/2"))
    carriers = tables[CARRIERS]
    assert vars(carriers.partitions) == {"added": [], "changed": [CORRECTED], "removed": [DELETED]}
    assert carriers.rows == {
        "added": (0, 0),
        "changed": (before[CORRECTED].rows, after[CORRECTED].rows),
        "removed": (before[DELETED].rows, 0),
        "all": tuple(sum(entry.rows or 0 for entry in version.values()) for version in (before, after)),
    }
    assert tables[RAW].rows is None
    assert "validated/flights/weather" not in tables


def test_a_diff_in_the_other_direction_is_the_opposite(two_releases: TwoReleases) -> None:
    forward, back = two_releases.diff(), two_releases.diff("flights/2", "flights/1")

    assert [table.table for table in forward.tables] == [table.table for table in back.tables]
    for one, other in zip(forward.tables, back.tables, strict=True):
        assert (one.partitions.added, one.partitions.removed) == (other.partitions.removed, other.partitions.added)


def test_a_diff_works_in_a_clone_without_data_as_text_and_json(two_releases: TwoReleases) -> None:
    clone = two_releases.workspace.clone("reader")

    text = clone.command("headrace", "diff", "flights/1", "flights/2")
    content = json.loads(clone.command("headrace", "diff", "flights/1", "flights/2", "--json"))

    assert text.startswith("flights/1 → flights/2: ")
    assert f"{CARRIERS}: +0 ~1 -1" in text
    assert f"  removed: {DELETED}" in text
    assert content == json.loads(json.dumps(two_releases.diff().to_dict()))


def test_rows_are_compared_one_by_one_on_demand(two_releases: TwoReleases) -> None:
    tables = {item.table: item for item in two_releases.diff(by_row=True).tables}
    before, after = (
        {day: two_releases.partitions(release, VALIDATED)[day].rows for day in days}
        for release, days in (("flights/1", (CORRECTED, DELETED)), ("flights/2", (CORRECTED,)))
    )

    removed = (before[CORRECTED] or 0) - (after[CORRECTED] or 0) + (before[DELETED] or 0)

    assert tables[VALIDATED].row_diff == RowDiff(added=0, changed=0, removed=removed)
    carriers = tables[CARRIERS].row_diff
    assert carriers
    assert carriers.changed > 0
    assert tables[RAW].row_diff is None
    assert f"  rows: {carriers}" in two_releases.command("diff", "flights/1", "flights/2", "--rows")


@pytest.mark.parametrize(
    ("new", "rows"),
    [
        ({"id": [1, 2, None], "value": [1.0, NAN, None]}, RowDiff()),
        ({"id": [None, 2, 1], "value": [None, NAN, 1.0]}, RowDiff()),
        ({"id": [1, 2, None], "value": [1.0, 0.0, 3.0]}, RowDiff(changed=2)),
        ({"id": [2, 3], "value": [NAN, 1.0]}, RowDiff(added=1, removed=2)),
        ({"id": [1, 1, 2, None], "value": [1.0, 9.0, NAN, None]}, RowDiff(added=1)),
        ({"id": [1, 2, None]}, RowDiff(changed=3)),
        ({"id": [1, 2, None], "value": ["1.0", "NaN", None]}, RowDiff(changed=3)),
        ({"name": ["x"]}, RowDiff(added=1, removed=3)),
    ],
)
def test_rows_are_matched_by_key_and_by_their_position_among_equal_keys(
    new: dict[str, list[Any]], rows: RowDiff
) -> None:
    old = pl.DataFrame({"id": [1, 2, None], "value": [1.0, NAN, None]})

    assert compare_rows(old, pl.DataFrame(new), ("id",)) == rows


def test_a_diff_with_an_unknown_release_lists_the_known_ones(two_releases: TwoReleases) -> None:
    output = two_releases.command("diff", "flights/1", "flights/7", fails=True)

    assert "flights/7 is not a release of flights in" in output
    assert "Its releases: flights/1, flights/2." in output


def test_a_diff_shows_changes_of_columns_and_of_the_fingerprint(tmp_path: Path) -> None:
    table_store = TableStore.at(tmp_path)
    old = pl.DataFrame({"carrier": ["UA"], "late": [1], "gone": [True]})
    new = pl.DataFrame({"carrier": ["UA", "AA"], "late": [0.5, 0.25], "fresh": ["x", "y"]})
    before = Manifest(
        "features/f/t",
        code={"k.py": "1"},
        params={"p": 1},
        result_version=1,
        partitions={"d": create_entry(table_store, old)},
    )
    after = Manifest(
        "features/f/t",
        code={"k.py": "2"},
        params={"p": 1},
        result_version=2,
        partitions={"d": create_entry(table_store, new)},
    )

    table = diff_tables(table_store, before, after)

    assert table.columns.added == {"fresh": "String"}
    assert table.columns.removed == {"gone": "Boolean"}
    assert table.columns.changed == {"late": ("Int64", "Float64")}
    assert str(table.columns) == "+fresh String, -gone Boolean, late Int64 → Float64"
    assert table.fingerprint == ["code k.py", "result version 1 → 2"]
    assert table.rows
    assert table.rows["changed"] == (1, 2)


def test_a_diff_tells_columns_by_their_field_ids(tmp_path: Path) -> None:
    rides = ChangingSource.at(tmp_path)
    rides.declare(schema(fare=dy.Int32(), tax=dy.Int64(), note=dy.String()))
    rides.deliver(day(0), "id,fare,tax,note\n1,10,1,5\n")
    rides.run()
    before = rides.table_store.manifest(changing_source.VALIDATED)
    rides.declare(
        schema(
            price=evolving(dy.Int64(), renamed_from="fare", earlier_types=EarlierType(pl.Int32(), until=day(1))),
            tax=evolving(dy.Int64(), until=day(1)),
            note=evolving(dy.Int64(), earlier_types=EarlierType(pl.String(), until=day(1), parse=lambda text: text)),
            tip=evolving(dy.Int64(), since=day(1)),
        )
    )
    rides.deliver(day(1), "id,price,note,tip\n2,20,6,3\n")
    rides.run()

    table = diff_tables(rides.table_store, before, rides.table_store.manifest(changing_source.VALIDATED))

    assert (
        str(table.columns) == "+tip Int64, fare → price (renamed), price Int32 → Int64 (widened), note String → Int64"
    )
    assert table.to_dict()["columns"] == {
        "added": {"tip": "Int64"},
        "removed": {},
        "changed": {"price": ("Int32", "Int64"), "note": ("String", "Int64")},
        "renamed": {"fare": "price"},
        "widened": ("price",),
    }
    assert table.partitions.changed == [day(0)]
