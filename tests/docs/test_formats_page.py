"""Each recipe of the page on formats reads what it says: its code runs as it stands, on an object of that format."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from doc_pages import code_blocks
from workbooks import error, number, text, workbook
from workspaces import REPOSITORY

from headrace.dataset import ObjectSource, Source
from headrace.label.shown_media import REFERENCE
from headrace.validate.result import ValidationResult
from headrace.validate.validate_partition import read_raw, validate_frame

DAY = "2013-01-09"


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """The names that the code of the page defines."""
    names: dict[str, Any] = {"__name__": "formats_page"}
    for block in code_blocks((REPOSITORY / "docs/formats.md").read_text("utf-8"), "python"):
        exec(block, names)  # noqa: S102  the page's own code
    return names


def validate(source: Source, folder: Path, content: bytes, key: str) -> ValidationResult:
    """What becomes of an object with this key, which the source's pattern has to match."""
    assert isinstance(source.location, ObjectSource)
    path = folder / Path(key).name
    path.write_bytes(content)
    return validate_frame(read_raw(source, DAY, path, key if source.location.media else ""), source, DAY)


def zip_archive(**members: bytes) -> bytes:
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.csv", content)
    return into.getvalue()


def test_a_member_of_an_archive_is_read(page: dict[str, Any], tmp_path: Path) -> None:
    content = zip_archive(orders_2013=b"order_id;amount\n1;1.50\n", customers=b"id\n7\n")

    assert validate(page["ZIPPED"], tmp_path, content, f"orders/{DAY}.zip").accepted.shape == (1, 2)


def test_the_records_of_a_document_are_read_and_a_damaged_one_is_rejected(page: dict[str, Any], tmp_path: Path) -> None:
    order = json.dumps({"order_id": 1, "total": {"amount": 1.5, "currency": "CHF"}})
    content = f'{{"data":{{"items":[{order},{{"order_id":2,}}],"next":null}}}}'.encode()

    result = validate(page["DOCUMENT"], tmp_path, content, f"orders/{DAY}.json")

    assert result.accepted.select("order_id", "total.currency").rows() == [(1, "CHF")]
    assert result.rejected["_row_text"].to_list() == ['{"order_id":2,}']


def test_parquet_is_read_without_the_columns_that_nobody_declares(page: dict[str, Any], tmp_path: Path) -> None:
    into = io.BytesIO()
    pl.DataFrame({"order_id": [1], "amount": [1.5], "note": ["a"]}).write_parquet(into)

    assert validate(page["PARQUET"], tmp_path, into.getvalue(), f"orders/{DAY}.parquet").accepted.shape == (1, 2)


def test_a_sheet_is_read_below_its_header_and_an_error_is_rejected(page: dict[str, Any], tmp_path: Path) -> None:
    lines = [
        [text("Orders")],
        [text("order_id"), text("amount")],
        [number(1), number("1.5")],
        [number(2), error("#N/A")],
    ]

    result = validate(page["EXCEL"], tmp_path, workbook({"Orders": lines}), "orders/2013-01.xlsx")

    assert result.accepted["order_id"].to_list() == [1]
    assert result.counts == {"excel(#N/A in amount)": 1}


def test_a_picture_is_a_row_that_a_task_can_show(page: dict[str, Any], tmp_path: Path) -> None:
    key = f"pictures/{DAY}/a.png"

    row = validate(page["MEDIA"], tmp_path, b"\x89PNG\r\n\x1a\n", key).accepted.row(0, named=True)

    assert (row["key"], row["size"], row["media_type"]) == (key, 8, "image/png")
    assert REFERENCE.fullmatch(page["show_picture"](row)["picture"])
