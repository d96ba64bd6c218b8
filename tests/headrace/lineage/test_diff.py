"""Diff: which partitions, rows and columns lead from one release to another, and what else made them differ.

Read from manifests, and one file a side of each table that differs: a clone without data answers as well.
"""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from two_releases import CARRIERS, CORRECTED, DELETED, RAW, VALIDATED, Story, entry

from headrace.lineage.diff import between, diff
from headrace.lineage.history import Tables
from headrace.lineage.row_diff import Rows, compared
from headrace.storage.manifest import Manifest
from headrace.storage.table_store import Lake

NAN = float("nan")


def test_a_diff_names_what_was_added_changed_and_removed_with_rows_before_and_after(story: Story) -> None:
    found = {table.table: table for table in diff(story.workspace.lake, "flights/1", "flights/2").tables}

    before, after = (Tables.at(story.workspace.lake, "flights", f"flights/{n}").manifest(CARRIERS) for n in (1, 2))
    carriers = found[CARRIERS]
    assert vars(carriers.partitions) == {"added": [], "changed": [CORRECTED], "removed": [DELETED]}
    assert carriers.rows == {
        "added": (0, 0),
        "changed": (before.partitions[CORRECTED].rows, after.partitions[CORRECTED].rows),
        "removed": (before.partitions[DELETED].rows, 0),
        "all": (before.rows, after.rows),
    }
    assert found[RAW].rows is None
    assert "validated/flights/weather" not in found


def test_a_diff_the_other_way_round_is_the_opposite(story: Story) -> None:
    there, back = (
        diff(story.workspace.lake, "flights/1", "flights/2"),
        diff(story.workspace.lake, "flights/2", "flights/1"),
    )

    assert [table.table for table in there.tables] == [table.table for table in back.tables]
    for one, other in zip(there.tables, back.tables, strict=True):
        assert (one.partitions.added, one.partitions.removed) == (other.partitions.removed, other.partitions.added)


def test_a_diff_answers_in_a_clone_without_data_as_text_and_json(story: Story) -> None:
    clone = story.workspace.clone("reader")

    text = clone.command("headrace", "diff", "flights/1", "flights/2")
    content = json.loads(clone.command("headrace", "diff", "flights/1", "flights/2", "--json"))

    assert text.startswith("flights/1 → flights/2: ")
    assert f"{CARRIERS}: +0 ~1 -1" in text
    assert f"  removed: {DELETED}" in text
    assert content == json.loads(json.dumps(diff(story.workspace.lake, "flights/1", "flights/2").to_dict()))


def test_rows_are_compared_one_by_one_where_that_is_asked_for(story: Story) -> None:
    found = {item.table: item for item in diff(story.workspace.lake, "flights/1", "flights/2", every_row=True).tables}
    before, after = (
        {day: Tables.at(story.workspace.lake, "flights", name).manifest(VALIDATED).partitions[day].rows for day in days}
        for name, days in (("flights/1", (CORRECTED, DELETED)), ("flights/2", (CORRECTED,)))
    )

    gone = (before[CORRECTED] or 0) - (after[CORRECTED] or 0) + (before[DELETED] or 0)

    assert found[VALIDATED].compared == Rows(added=0, changed=0, removed=gone)
    carriers = found[CARRIERS].compared
    assert carriers
    assert carriers.changed > 0
    assert found[RAW].compared is None
    assert f"  rows: {carriers}" in story.command("diff", "flights/1", "flights/2", "--rows")


@pytest.mark.parametrize(
    ("new", "rows"),
    [
        ({"id": [1, 2, None], "value": [1.0, NAN, None]}, Rows()),
        ({"id": [None, 2, 1], "value": [None, NAN, 1.0]}, Rows()),
        ({"id": [1, 2, None], "value": [1.0, 0.0, 3.0]}, Rows(changed=2)),
        ({"id": [2, 3], "value": [NAN, 1.0]}, Rows(added=1, removed=2)),
        ({"id": [1, 1, 2, None], "value": [1.0, 9.0, NAN, None]}, Rows(added=1)),
        ({"id": [1, 2, None]}, Rows(changed=3)),
        ({"id": [1, 2, None], "value": ["1.0", "NaN", None]}, Rows(changed=3)),
        ({"name": ["x"]}, Rows(added=1, removed=3)),
    ],
)
def test_rows_are_told_apart_by_key_and_by_the_place_among_those_of_one_key(
    new: dict[str, list[Any]], rows: Rows
) -> None:
    old = pl.DataFrame({"id": [1, 2, None], "value": [1.0, NAN, None]})

    assert compared(old, pl.DataFrame(new), ("id",)) == rows


def test_a_diff_with_an_unknown_release_names_those_there_are(story: Story) -> None:
    said = story.command("diff", "flights/1", "flights/7", fails=True)

    assert "flights/7 is no release of flights in" in said
    assert "Those there are: flights/1, flights/2." in said


def test_a_diff_says_how_columns_changed_and_what_it_is_made_with(tmp_path: Path) -> None:
    lake = Lake.at(tmp_path)
    old = pl.DataFrame({"carrier": ["UA"], "late": [1], "gone": [True]})
    new = pl.DataFrame({"carrier": ["UA", "AA"], "late": [0.5, 0.25], "fresh": ["x", "y"]})
    before = Manifest("features/f/t", code={"k.py": "1"}, params={"p": 1}, partitions={"d": entry(lake, old)})
    after = Manifest("features/f/t", code={"k.py": "2"}, params={"p": 1}, partitions={"d": entry(lake, new)})

    found = between(lake, before, after)

    assert found.columns.added == {"fresh": "String"}
    assert found.columns.removed == {"gone": "Boolean"}
    assert found.columns.retyped == {"late": ("Int64", "Float64")}
    assert str(found.columns) == "+fresh String, -gone Boolean, late Int64 → Float64"
    assert found.recipe == ["code k.py"]
    assert found.rows
    assert found.rows["changed"] == (1, 2)
