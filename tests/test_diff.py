"""Diff: which partitions, rows and columns lead from one release to another, and what else made them differ.

Read from manifests, and one file a side of each table that differs: a clone without data answers as well.
"""

import json
from pathlib import Path

import polars as pl
from story import CARRIERS, CORRECTED, DELETED, RAW, Story, entry

from pipelines.engine.lake import Lake
from pipelines.engine.manifest import Manifest
from pipelines.trace.diff import between, diff
from pipelines.trace.revisions import Tables


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
