"""The page about the table format names every field that is written, and no other."""

import re
from pathlib import Path

import msgspec
import pytest

from headrace.storage.field_ids import MAX_FIELD_ID, TableColumn
from headrace.storage.manifest import FORMAT, Manifest
from headrace.storage.manifest_entries import ChunkReference
from headrace.storage.partition_entry import PartitionEntry, SourceObject

PAGE = (Path(__file__).parents[2] / "docs/table-format.md").read_text()


def documented_fields(after: str) -> set[str]:
    """The first column of the first table after a text."""
    rows = PAGE.split(after, 1)[1].split("|---|---|\n", 1)[1].split("\n\n", 1)[0]
    return {name for row in rows.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}


def written_fields(struct: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(struct)}


@pytest.mark.parametrize(
    ("after", "fields"),
    [
        ("## `head.json`", set(msgspec.json.decode(Manifest("t", columns=(TableColumn(1, "a"),)).to_files().head))),
        ("Of each chunk:", written_fields(ChunkReference)),
        ("## A chunk", written_fields(PartitionEntry)),
    ],
)
def test_the_fields_are_those_that_are_written(after: str, fields: set[str]) -> None:
    assert documented_fields(after) == fields


def test_an_object_is_described_with_all_its_fields() -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith("| `objects`")]

    assert set(re.findall(r"`(\w+)`", row)) - {"objects"} == written_fields(SourceObject)


def test_the_page_is_about_the_format_that_is_written() -> None:
    assert f"This is format {FORMAT}." in PAGE
    assert f"{MAX_FIELD_ID:,}" in PAGE
