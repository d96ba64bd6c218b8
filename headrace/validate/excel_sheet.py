"""What a worksheet's XML says beyond the values that calamine reads: extent, formulas without a value, merged cells.

The parts and elements are those of ECMA-376, part 1, sections 12.3 and 18.3.
"""

import io
import posixpath
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

Cell = tuple[int, int]
"""Row and column, from 0 on."""

WORKBOOK, RELATIONSHIPS = "xl/workbook.xml", "xl/_rels/workbook.xml.rels"

ID = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"

TAG = re.compile(rb"<(?:\w+:)?(row|c|v|is|f)((?:\s[^<>]*?)?)(/?)>")
"""Tags that open an element. Rows and cells say where they are, or come after the one before."""

ROW_NUMBER = re.compile(rb'\sr="([0-9]{1,7})"')
PLACE = re.compile(rb'\sr="([A-Z]{1,3})([0-9]{1,7})"')
MERGED = re.compile(rb'<(?:\w+:)?mergeCell\s[^>]*?ref="([A-Z]{1,3})([0-9]{1,7}):([A-Z]{1,3})([0-9]{1,7})"')
TEXT_RESULT = re.compile(rb'\st="(?:str|s|inlineStr)"')

NO_STORED_VALUE = "formula without a stored value"

MAX_FAULTS = 1_000_000
"""Most formulas without a stored value: each takes some hundred bytes of memory."""

MAX_PART_BYTES = 16 << 20
"""Most bytes of the list of sheets: its elements take many times their text."""

READ_BYTES = 1 << 20


class InvalidWorkbookError(ValueError):
    """A file is no workbook that can be read; the message says why."""


@dataclass(frozen=True)
class SheetFacts:
    """What is known of a sheet before its values are read.

    Attributes:
        height: Rows up to the last cell.
        width: Columns from the first one that has a value up to the last cell.
        value_width: Columns from the first one to the last one that has a value.
        is_1904: Whether the workbook counts days from 1904 on.
        faults: Cell, its column counted from the first one that has a value → why it has no value of its own.
    """

    height: int = 0
    width: int = 0
    value_width: int = 0
    is_1904: bool = False
    faults: Mapping[Cell, str] = field(default_factory=dict)


def sheet_facts(content: bytes, sheet: str | int, max_bytes: int, max_cells: int) -> SheetFacts:
    """Read the XML of one sheet.

    Args:
        content: The workbook.
        sheet: Name of the sheet, or its place from 0 on.
        max_bytes: Most unpacked bytes of all parts of the workbook together.
        max_cells: Most cells of the rectangle that holds all cells.

    Raises:
        InvalidWorkbookError: It is no workbook, it has no such sheet, or it is too large.
        zipfile.BadZipFile: The file is damaged.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        _check_size(archive, max_bytes)
        workbook = _part(archive, WORKBOOK)
        is_1904 = any(each.get("date1904") in ("1", "true") for each in workbook.iter() if _tag(each) == "workbookPr")
        part = _sheet_part(archive, workbook, sheet)
        xml = archive.read(part)
    return _facts(xml, max_cells, is_1904=is_1904)


def _check_size(archive: zipfile.ZipFile, max_bytes: int) -> None:
    """Unpack every part once: what the archive says of their sizes need not be true."""
    left = max_bytes
    for member in archive.infolist():
        with archive.open(member) as file:
            while part := file.read(READ_BYTES):
                left -= len(part)
                if left < 0:
                    raise InvalidWorkbookError(f"it unpacks to more than the {max_bytes:,} bytes allowed")


def _part(archive: zipfile.ZipFile, name: str) -> ET.Element:
    if name not in archive.namelist():
        raise InvalidWorkbookError(f"it has no part {name}: expected a workbook of the format .xlsx")
    if archive.getinfo(name).file_size > MAX_PART_BYTES:
        raise InvalidWorkbookError(f"its part {name} is larger than {MAX_PART_BYTES:,} bytes")
    try:
        return ET.fromstring(archive.read(name))  # noqa: S314  bounded above; expat limits what entities expand to
    except ET.ParseError as error:
        raise InvalidWorkbookError(f"its part {name} is no XML: {error}") from error


def _sheet_part(archive: zipfile.ZipFile, workbook: ET.Element, sheet: str | int) -> str:
    sheets = {each.get("name", ""): each.get(ID, "") for each in workbook.iter() if _tag(each) == "sheet"}
    names = [*sheets]
    if (isinstance(sheet, int) and sheet >= len(names)) or (isinstance(sheet, str) and sheet not in sheets):
        listed = ", ".join(map(repr, names)) or "none"
        raise InvalidWorkbookError(f"expected the sheet {sheet!r}, found {listed}")
    wanted = sheets[names[sheet] if isinstance(sheet, int) else sheet]
    targets = {each.get("Id"): each.get("Target", "") for each in _part(archive, RELATIONSHIPS)}
    part = posixpath.normpath(posixpath.join("/xl", targets.get(wanted, ""))).lstrip("/")
    if part not in archive.namelist():
        raise InvalidWorkbookError(f"its sheet {sheet!r} is missing in the file")
    return part


def _tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _facts(xml: bytes, max_cells: int, *, is_1904: bool) -> SheetFacts:
    scan = _Scan()
    for tag in TAG.finditer(xml):
        scan.add(tag, is_filled=not tag[3] and xml[tag.end() : tag.end() + 1] != b"<")
    height, end_column, columns, faults = scan.height, scan.end_column, scan.columns, scan.faults
    _check_cells("cells", height * end_column, max_cells)
    merged = [
        (_cell(column, row), (min(last[0], height - 1), min(last[1], end_column - 1)))
        for column, row, *corner in MERGED.findall(xml)
        for last in [_cell(*corner)]
    ]
    areas = ((bottom - top + 1) * (end - start + 1) for (top, start), (bottom, end) in merged)
    _check_cells("merged cells", sum(areas), max_cells)
    for area in merged:
        faults |= _covered(*area)
    left = min(columns, default=0)
    places = {(row, column - left): why for (row, column), why in faults.items()}
    value_width = max(columns, default=-1) - left + 1
    return SheetFacts(height, end_column - left, value_width, is_1904, places)


class _Scan:
    """What the tags of a sheet say, one after the other."""

    def __init__(self) -> None:
        self.row = self.column = -1
        self.height = self.end_column = 0
        self.columns: set[int] = set()
        self.faults: dict[Cell, str] = {}
        self.is_text = False

    def add(self, tag: re.Match[bytes], *, is_filled: bool) -> None:
        """Take one more tag, and whether text follows it."""
        name, attributes = tag[1], tag[2]
        if name == b"row":
            number = ROW_NUMBER.search(attributes)
            self.row, self.column = int(number[1]) - 1 if number else self.row + 1, -1
        elif name == b"c":
            place = PLACE.search(attributes)
            self.row, self.column = _cell(*place.groups()) if place else (self.row, self.column + 1)
            self.height, self.end_column = max(self.height, self.row + 1), max(self.end_column, self.column + 1)
            self.is_text = TEXT_RESULT.search(attributes) is not None
        elif name == b"f" and not self.is_text:
            self.faults[self.row, self.column] = NO_STORED_VALUE
            _check_cells("formulas without a stored value", len(self.faults), MAX_FAULTS)
        elif name == b"is" or (name == b"v" and is_filled):
            self.columns.add(self.column)
            self.faults.pop((self.row, self.column), None)


def _check_cells(what: str, found: int, most: int) -> None:
    if found > most:
        raise InvalidWorkbookError(f"its sheet has {found:,} {what}, more than the {most:,} allowed")


def _covered(first: Cell, last: Cell) -> dict[Cell, str]:
    """The cells of a merged range that have no value of their own: all but the first."""
    cells: Sequence[Cell] = [
        (row, column) for row in range(first[0], last[0] + 1) for column in range(first[1], last[1] + 1)
    ]
    return dict.fromkeys(cells[1:], "merged cell")


def _cell(letters: bytes, digits: bytes) -> Cell:
    column = 0
    for letter in letters:
        column = column * 26 + letter - 64
    return int(digits) - 1, column - 1
