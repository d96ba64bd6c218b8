"""A sheet of Excel is read cell by cell as it is stored; what has two readings, or none, is rejected or refused."""

import zipfile
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl
import polars.selectors as cs
import pytest
from workbooks import CLOCK, DATE, HOURS, MOMENT, Rows, boolean_cell, error, formula, number, text, workbook

from headrace import extras
from headrace.dataset import Dataset, ObjectSource, Source
from headrace.extras import MissingExtraError
from headrace.validate.columns import boolean, utc_time
from headrace.validate.errors import NaiveTimeError, SchemaChangedError
from headrace.validate.excel_reader import ExcelDialect, read_excel
from headrace.validate.read_request import ReadRequest
from headrace.validate.result import ValidationResult
from headrace.validate.stage import validation_stage
from headrace.validate.unreadable import UnreadableError
from headrace.validate.validate_partition import validate_partition

HEADER = (text("id"), text("v"))


def write(folder: Path, content: bytes) -> Path:
    path = folder / "all.xlsx"
    path.write_bytes(content)
    return path


def reason_for(path: Path, dialect: ExcelDialect | None = None) -> str:
    with pytest.raises(UnreadableError) as refusal:
        read_excel(path, dialect)
    return refusal.value.reason


def rows(folder: Path, content: bytes, dialect: ExcelDialect | None = None) -> list[tuple[Any, ...]]:
    frame = read_excel(write(folder, content), dialect)
    return frame.select(name for name in frame.columns if not name.startswith("\x1f")).rows()


def in_seconds(frame: pl.DataFrame) -> pl.DataFrame:
    """Durations as numbers: Parquet does not keep them."""
    return frame.with_columns(cs.duration().dt.total_seconds(fractional=True))


def validate(folder: Path, content: bytes, column: dy.Column | None, **options: Any) -> ValidationResult:  # noqa: ANN401
    columns = {"id": dy.Int64(), **({"v": column} if column else {})}
    contract = type("Cells", (dy.Schema,), columns)
    source = Source(
        "cells", ObjectSource("a/", ".*", ".xlsx"), read_excel, contract, in_seconds, ("id",), 1.0, **options
    )
    return validate_partition(source, "all", {"all": write(folder, content)})


def outcomes(folder: Path, column: dy.Column, *cells: str, **options: Any) -> list[Any]:  # noqa: ANN401
    """What becomes of cells: the value that arrives, or the check that its row fails, in a list."""
    lines = [(number(place), cell) for place, cell in enumerate(cells)]
    result = validate(folder, workbook([HEADER, *lines], **options), column)
    arrived: dict[int, Any] = dict(result.accepted.select("id", "v").rows())
    arrived |= {row - 2: checks for row, checks in result.rejected.select("_row", "_failed_checks").rows()}
    return [arrived[place] for place in range(len(cells))]


BAD = ["v|dtype"]


def test_numbers_have_the_fewest_digits_that_give_them_again(tmp_path: Path) -> None:
    cells = [number(value) for value in ("1", "0.1", "-4.35", "1e21", "1E-7", "9007199254740991", "1.5")]

    assert outcomes(tmp_path, dy.Float64(), *cells) == [1.0, 0.1, -4.35, 1e21, 1e-7, 9007199254740991.0, 1.5]
    assert outcomes(tmp_path, dy.Int64(), *cells)[:2] == [1, BAD]
    assert outcomes(tmp_path, dy.Decimal(10, 2), *cells)[:3] == [Decimal(1), Decimal("0.10"), Decimal("-4.35")]


def test_text_stays_text_and_a_number_that_is_stored_as_text_keeps_its_digits(tmp_path: Path) -> None:
    cells = [text("007"), text(" a "), text("1e3"), number(7)]

    assert outcomes(tmp_path, dy.String(), *cells) == ["007", " a ", "1e3", "7"]
    assert outcomes(tmp_path, dy.Int64(), *cells) == [7, BAD, BAD, 7]


def test_booleans_are_booleans_and_other_words_are_declared(tmp_path: Path) -> None:
    cells = [boolean_cell(value=True), boolean_cell(value=False), text("yes"), number(1)]

    assert outcomes(tmp_path, dy.Bool(), *cells) == [True, False, BAD, BAD]
    assert outcomes(tmp_path, boolean(true=("yes", "true", "1"), false=("false",)), *cells) == [True, False, True, True]


def test_dates_and_times_are_what_the_sheet_stores(tmp_path: Path) -> None:
    cells = [number(41283, DATE), number("41283.5", MOMENT), number(61, DATE), number(2958465, DATE)]

    day = date(2013, 1, 9)
    assert outcomes(tmp_path, dy.Date(), *cells) == [day, BAD, date(1900, 3, 1), date(9999, 12, 31)]
    assert outcomes(tmp_path, dy.String(), *cells[:2]) == ["2013-01-09", "2013-01-09 12:00:00"]
    assert outcomes(tmp_path, dy.Time(), number("0.5", CLOCK), number("0.000011574074074", CLOCK), cells[0]) == [
        time(12),
        time(0, 0, 1),
        BAD,
    ]
    assert outcomes(tmp_path, dy.Duration(), number("1.5", HOURS), number(60, HOURS), number("-0.5", HOURS)) == [
        36 * 3600.0,
        60 * 86400.0,
        -12 * 3600.0,
    ]


def test_a_time_names_no_zone(tmp_path: Path) -> None:
    with pytest.raises(NaiveTimeError, match="2013-01-09 12:00:00"):
        outcomes(tmp_path, utc_time(), number("41283.5", MOMENT))
    assert outcomes(tmp_path, utc_time(), text("2013-01-09T12:00:00Z")) == [datetime(2013, 1, 9, 12, tzinfo=UTC)]


def test_a_date_before_march_1900_has_two_readings_and_is_rejected(tmp_path: Path) -> None:
    early = ["excel(date before 1900-03-01 in v)"]
    cells = [number(value, DATE) for value in (1, 59, 60, -1)]

    assert outcomes(tmp_path, dy.Date(), number(61, DATE), *cells) == [date(1900, 3, 1), *[early] * 4]
    assert outcomes(tmp_path, dy.String(), *cells) == [early] * 4


def test_a_workbook_that_counts_from_1904_has_its_own_days(tmp_path: Path) -> None:
    cells = [number(1, DATE), number(39821, DATE), number("39821.5", MOMENT)]

    assert outcomes(tmp_path, dy.Date(), *cells, is_1904=True) == [date(1904, 1, 2), date(2013, 1, 9), BAD]
    assert outcomes(tmp_path, dy.Time(), number("0.5", CLOCK), is_1904=True) == [time(12)]
    assert outcomes(tmp_path, dy.Duration(), number("1.5", HOURS), is_1904=True) == [36 * 3600.0]


@pytest.mark.parametrize("name", ["#DIV/0!", "#N/A", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!"])
def test_an_error_rejects_its_row_by_its_name_and_equal_text_does_not(tmp_path: Path, name: str) -> None:
    found = outcomes(tmp_path, dy.String(nullable=True), error(name), text(name), "")

    assert found == [[f"excel({name} in v)"], name, None]


def test_a_formula_has_its_stored_value_and_without_one_its_row_is_rejected(tmp_path: Path) -> None:
    found = outcomes(
        tmp_path, dy.String(nullable=True), formula("2"), formula(), formula("abc", "str"), formula("", "str")
    )

    assert found == ["2", ["excel(formula without a stored value in v)"], "abc", None]


def test_the_cells_that_a_merged_one_covers_are_rejected_and_its_first_one_is_not(tmp_path: Path) -> None:
    found = outcomes(tmp_path, dy.String(nullable=True), text("a"), "", "", "", merged=["B2:B4"])

    assert found == ["a", ["excel(merged cell in v)"], ["excel(merged cell in v)"], None]


def test_a_merged_title_above_the_header_is_no_fault(tmp_path: Path) -> None:
    content = workbook([(text("Orders"), ""), HEADER, (number(1), text("a"))], merged=["A1:B1"])

    assert rows(tmp_path, content, ExcelDialect(header_row=2)) == [("1", "a")]


def test_rejected_rows_have_the_numbers_that_excel_shows_and_what_is_wrong(tmp_path: Path) -> None:
    lines = [HEADER, (number(1), text("a")), ("", ""), (number(2), error("#N/A")), (text("x"), text("b"))]

    result = validate(tmp_path, workbook(lines), dy.String())

    assert result.accepted.rows() == [(1, "a")]
    assert result.rejected.select("_row", "id", "v", "_row_text", "_failed_checks").rows() == [
        (4, "2", None, "v: #N/A", ["excel(#N/A in v)"]),
        (5, "x", "b", None, ["id|dtype"]),
    ]


def test_an_error_in_a_column_that_is_dropped_rejects_nothing(tmp_path: Path) -> None:
    content = workbook([HEADER, (number(1), error("#N/A"))])

    assert validate(tmp_path, content, None, extra_columns="drop").accepted.rows() == [(1,)]
    with pytest.raises(SchemaChangedError, match="new v"):
        validate(tmp_path, content, None)


def test_a_missing_column_is_refused_though_rows_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(SchemaChangedError, match="missing v"):
        validate(tmp_path, workbook([(text("id"),), (error("#N/A"),), (number(1),)]), dy.String(nullable=True))


def test_rows_begin_below_the_header_and_a_sheet_may_begin_anywhere(tmp_path: Path) -> None:
    lines: Rows = [
        [],
        [],
        ["", "", *HEADER],
        ["", "", text("number"), text("unit")],
        ["", "", number(1), error("#N/A")],
    ]
    content = workbook({"Notes": [[text("x")]], "Data": lines})

    for sheet in ("Data", 1):
        frame = read_excel(write(tmp_path, content), ExcelDialect(sheet=sheet, header_row=3, skip_rows=1))
        assert frame.rows() == [(5, "v: #N/A", "excel(#N/A in v)", "1", None)]


def test_a_formula_in_a_sheet_that_begins_to_the_right_is_found_in_its_column(tmp_path: Path) -> None:
    content = workbook([['<c s="1"/>', *HEADER], ['<c s="1"/>', number(1), formula(), '<c s="1"/>']])

    assert read_excel(write(tmp_path, content)).row(0)[2] == "excel(formula without a stored value in v)"


@pytest.mark.parametrize(
    ("lines", "dialect", "reason"),
    [
        ([HEADER], ExcelDialect(sheet="Orders"), "expected the sheet 'Orders', found 'Data'"),
        ([HEADER], ExcelDialect(sheet=1), "expected the sheet 1, found 'Data'"),
        ([HEADER], ExcelDialect(header_row=3), "its sheet has 1 rows, expected the names of the columns in row 3"),
        ([], ExcelDialect(), "its sheet has 0 rows"),
        ([(text("a"), text("a"))], ExcelDialect(), "row 1 names 'a' more than once"),
        ([(text("a"), ""), (number(1), number(2))], ExcelDialect(), "its column number 2 has values, but no name"),
        ([HEADER, ("", "", "", number(1))], ExcelDialect(max_columns=3), "it has 4 columns, more than the 3 allowed"),
        ([HEADER] * 9, ExcelDialect(max_fields=17), "its sheet has 18 cells, more than the 17 allowed"),
        ([HEADER], ExcelDialect(max_bytes=1500), "more than the 1,500"),
    ],
    ids=str,
)
def test_a_sheet_without_the_rows_that_are_declared_is_refused(
    tmp_path: Path, lines: Rows, dialect: ExcelDialect, reason: str
) -> None:
    assert reason in reason_for(write(tmp_path, workbook(lines)), dialect)


def test_one_cell_in_the_last_corner_does_not_make_a_sheet_of_billions(tmp_path: Path) -> None:
    far = number(1).replace("<c", '<c r="XFD1048576"')
    path = write(tmp_path, workbook([HEADER, (far.replace("<c r=", "<c  r=", 1),)]))
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["xl/worksheets/sheet1.xml"] = parts["xl/worksheets/sheet1.xml"].replace(b'<c r="A2"', b"<c")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)

    assert "17,179,869,184 cells, more than the 50,000,000 allowed" in reason_for(path)


def test_rows_that_say_where_they_are_count_though_their_cells_do_not(tmp_path: Path) -> None:
    path = write(tmp_path, workbook([HEADER]))
    sheet = "xl/worksheets/sheet1.xml"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    far = b'<row r="1048576">' + b"<c><v>1</v></c>" * 100 + b"</row></sheetData>"
    parts[sheet] = parts[sheet].replace(b"</sheetData>", far)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)

    assert "104,857,600 cells, more than the 50,000,000 allowed" in reason_for(path)


def test_a_merged_range_of_the_whole_sheet_is_bounded(tmp_path: Path) -> None:
    path = write(tmp_path, workbook([HEADER] * 10, merged=["A1:XFD1048576"] * 3))

    assert "60 merged cells, more than the 50 allowed" in reason_for(path, ExcelDialect(max_fields=50))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty: 0 bytes"),
        (b"id,v\n", "begins with the bytes 69 64 2c 76"),
        (b"\xd0\xcf\x11\xe0" + bytes(600), "an encrypted workbook, or one of the old format .xls"),
        (workbook([HEADER])[:-40], "damaged: "),
        (b"PK\x03\x04 nothing", "damaged: "),
    ],
    ids=["empty", "CSV", "encrypted", "truncated", "no archive"],
)
def test_what_is_no_workbook_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    assert reason in reason_for(write(tmp_path, content))


def test_a_workbook_without_its_sheet_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, b"")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "x")

    assert "it has no part xl/workbook.xml" in reason_for(path)


@pytest.mark.parametrize(
    "arguments", [{"sheet": -1}, {"sheet": True}, {"header_row": 0}, {"skip_rows": -1}, {"nulls": "NA"}], ids=str
)
def test_a_dialect_that_no_workbook_can_be_read_with_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="ExcelDialect: expected"):
        ExcelDialect(**arguments)


def test_texts_that_mean_null_are_declared(tmp_path: Path) -> None:
    content = workbook([HEADER, (number(1), text("n/a")), (number(2), text(""))])

    assert rows(tmp_path, content, ExcelDialect(nulls=("n/a",))) == [("1", None), ("2", "")]
    assert rows(tmp_path, content) == [("1", "n/a"), ("2", None)]


def test_the_version_of_the_library_is_in_the_fingerprint_of_the_stage_that_reads_excel() -> None:
    location = ObjectSource("orders/", ".*", ".xlsx")
    source = Source("orders", location, read_excel, dy.Schema, in_seconds, ("id",))
    dataset = Dataset(description="", owner="", sources=(source,), name="shop")

    assert "fastexcel" in validation_stage(dataset, source).libraries
    plain = replace(source, location=replace(location, suffix=".csv"))
    assert "fastexcel" not in validation_stage(dataset, plain).libraries


def test_the_missing_extra_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _module: None)

    with pytest.raises(MissingExtraError, match=r"read_excel needs fastexcel, .*`pip install 'headrace\[excel\]'`"):
        read_excel(write(tmp_path, workbook([HEADER])), request=ReadRequest({}))
