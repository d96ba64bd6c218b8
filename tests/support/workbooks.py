"""Small Excel workbooks, written cell by cell as XML: no library writes what is broken on purpose."""

import io
import zipfile
from collections.abc import Mapping, Sequence

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"

DATE, MOMENT, CLOCK, HOURS = 1, 2, 3, 4
"""Styles of `number`: a date, a date with a time, a time of day, hours beyond a day."""

STYLES = f"""<styleSheet xmlns="{MAIN}"><numFmts count="2"><numFmt numFmtId="164" formatCode="yyyy-mm-dd hh:mm:ss"/>
<numFmt numFmtId="165" formatCode="[h]:mm:ss"/></numFmts><fonts count="1"><font/></fonts>
<fills count="1"><fill/></fills>
<borders count="1"><border/></borders><cellStyleXfs count="1"><xf/></cellStyleXfs><cellXfs count="5"><xf numFmtId="0"/>
<xf numFmtId="14" applyNumberFormat="1"/><xf numFmtId="164" applyNumberFormat="1"/>
<xf numFmtId="21" applyNumberFormat="1"/><xf numFmtId="165" applyNumberFormat="1"/></cellXfs></styleSheet>"""

CONTENT_TYPES = f"""<Types xmlns="{PACKAGE}/content-types">
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Default Extension="xml" ContentType="application/xml"/><Override PartName="/xl/workbook.xml"
ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/></Types>"""

Rows = Sequence[Sequence[str]]


def text(value: str) -> str:
    """A cell of text."""
    return f'<c t="inlineStr"><is><t xml:space="preserve">{value}</t></is></c>'


def number(value: object, style: int = 0) -> str:
    """A cell of a number, as it is written in the file."""
    return f'<c s="{style}"><v>{value}</v></c>'


def boolean_cell(*, value: bool) -> str:
    """A cell of a Boolean."""
    return f'<c t="b"><v>{value:d}</v></c>'


def error(value: str) -> str:
    """A cell of an error such as `#N/A`."""
    return f'<c t="e"><v>{value}</v></c>'


def formula(value: str = "", kind: str = "n") -> str:
    """A cell of a formula, with its stored value or without."""
    return f'<c t="{kind}"><f>A1</f>{f"<v>{value}</v>" if value or kind == "str" else ""}</c>'


def workbook(sheets: Mapping[str, Rows] | Rows, *, is_1904: bool = False, merged: Sequence[str] = ()) -> bytes:
    """The bytes of a workbook; a cell that is empty text is left out."""
    named = sheets if isinstance(sheets, Mapping) else {"Data": sheets}
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", CONTENT_TYPES)
        archive.writestr("_rels/.rels", _relationships({"rId1": ("officeDocument", "xl/workbook.xml")}))
        listed = "".join(f'<sheet name="{name}" sheetId="{n}" r:id="rId{n}"/>' for n, name in enumerate(named, 1))
        properties = '<workbookPr date1904="1"/>' if is_1904 else ""
        root = f'<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}">{properties}<sheets>{listed}</sheets></workbook>'
        archive.writestr("xl/workbook.xml", root)
        parts = {f"rId{n}": ("worksheet", f"worksheets/sheet{n}.xml") for n in range(1, len(named) + 1)}
        archive.writestr("xl/_rels/workbook.xml.rels", _relationships(parts | {"rId99": ("styles", "styles.xml")}))
        archive.writestr("xl/styles.xml", STYLES)
        ranges = "".join(f'<mergeCell ref="{each}"/>' for each in merged)
        for n, rows in enumerate(named.values(), 1):
            archive.writestr(f"xl/worksheets/sheet{n}.xml", _sheet(rows, f"<mergeCells>{ranges}</mergeCells>"))
    return into.getvalue()


def _relationships(targets: Mapping[str, tuple[str, str]]) -> str:
    items = (
        f'<Relationship Id="{name}" Type="{OFFICE}/{kind}" Target="{to}"/>' for name, (kind, to) in targets.items()
    )
    return f'<Relationships xmlns="{PACKAGE}/relationships">{"".join(items)}</Relationships>'


def _sheet(rows: Rows, more: str) -> str:
    lines = (
        f'<row r="{n}">{"".join(_placed(cell, column, n) for column, cell in enumerate(row) if cell)}</row>'
        for n, row in enumerate(rows, 1)
    )
    return f'<worksheet xmlns="{MAIN}"><sheetData>{"".join(lines)}</sheetData>{more}</worksheet>'


def _placed(cell: str, column: int, row: int) -> str:
    return cell.replace("<c", f'<c r="{chr(65 + column)}{row}"', 1)
