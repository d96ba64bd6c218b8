"""A sample of delimited text: how it is written (separator, encoding, line ends), and its rows as text.

The sample's own parser is Python's `csv`, which takes what the field takes (RFC 4180). What the declared reader will
not take is a fault that is reported, not hidden.
"""

import codecs
import csv
import io
import re
import tempfile
import zlib
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import polars as pl

from headrace.errors import HeadraceError
from headrace.validate.compression import GZIP, GZIP_FORMAT
from headrace.validate.csv_dialect import CsvDialect
from headrace.validate.csv_reader import read_csv
from headrace.validate.reserved_names import FAULT, RAW_LINE, RECORD
from headrace.validate.unreadable import UnreadableError

SEPARATORS = (",", ";", "\t", "|")
HEAD = 200
"""Records that show the separator."""

BOMS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
OTHER_FORMATS = {
    b"PAR1": "a Parquet file",
    b"PK\3\4": "a zip archive or a spreadsheet",
    b"%PDF": "a PDF",
    b"\x89PNG": "a picture",
}
"""First bytes → what the file is."""

JSON = re.compile(rb'\s*[\[{]\s*["\[{]')
DATA_VALUE = re.compile(r"[-+]?\d[-+\d.,:/TZ ]*")
"""A number, a date or a time, as headers seldom name a column."""

ONLY_CP1252 = frozenset(range(0x80, 0xA0))
"""Bytes that are letters and signs in cp1252 and control characters in Latin-1."""

LONGEST_FIELD = 16 << 20
SHOWN_HEADER = 80


class SampleError(HeadraceError):
    """The sample cannot be read, or says too little to declare a source from it."""


@dataclass(frozen=True)
class CsvSample:
    """Rows of one delimited file, as text.

    Attributes:
        rows: The sample; a field that the dialect takes for null is null.
        dialect: How the file is written.
        is_cut: Whether the file goes on after the sample.
        notes: What was seen of the file, beyond what a dialect is by default.
        faults: Why the declared reader will refuse the file as it is.
        bad_lines: Lines that are no records, and so rejected rows.
        bad_line: The first of them, with its number and the check that it fails.
    """

    rows: pl.DataFrame
    dialect: CsvDialect
    is_cut: bool = False
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    bad_lines: int = 0
    bad_line: str = ""


def decompress_head(head: bytes, most: int, name: str) -> tuple[bytes, bool]:
    """The first `most` bytes of a file that may be packed, given its first bytes; and whether there may be more.

    Raises:
        SampleError: The gzip is damaged.
    """
    if not head.startswith(GZIP):
        return head[:most], len(head) > most
    parts, size, packed = [], 0, head
    try:
        while packed and size < most:
            member = zlib.decompressobj(GZIP_FORMAT)
            parts.append(member.decompress(packed, most - size))
            size += len(parts[-1])
            packed = member.unused_data.lstrip(b"\0") if member.eof else b""
    except zlib.error as error:
        raise SampleError(f"{name}: damaged gzip ({error}). Name a file that can be unpacked.") from None
    if size < most and not member.eof and len(head) <= most:
        raise SampleError(f"{name}: damaged gzip (it ends before its end). Name a file that can be unpacked.")
    return b"".join(parts), size >= most or not member.eof


def parse_csv(content: bytes, name: str, *, is_cut: bool, most_rows: int) -> CsvSample:
    """The rows of `content`, the beginning of the file `name`.

    Args:
        content: Bytes, unpacked.
        name: What to call the file in messages.
        is_cut: Whether the file goes on; its last record is then left out.
        most_rows: Rows to read at most.

    Raises:
        SampleError: There is no header, it names a column twice, or the bytes are no text.
    """
    _check_format(content, name)
    encoding, notes = _encoding(content, is_cut=is_cut)
    text = content.decode(encoding, errors="ignore" if is_cut else "strict").removeprefix("\ufeff")
    if "\0" in text:
        raise SampleError(f"{name} holds NUL characters: it is not text, or in another encoding than {encoding}.")
    if "\r" in text and "\n" not in text:
        raise SampleError(
            f"{name}: expected lines that end in LF or CRLF, found CR alone. Convert a copy, and name that:"
            " `tr '\\r' '\\n' <FILE >COPY`."
        )
    separator = _separator(text)
    records = _records(text, separator, name, is_cut=is_cut, most=most_rows + 1)
    header, *lines = records
    good = [line for line in lines if len(line) == len(header)]
    _check_header(header, name, len(lines) - len(good), len(lines))
    dialect = CsvDialect(separator=separator, encoding=encoding)
    rows = pl.DataFrame(
        dict(zip(header, _columns(good, len(header)), strict=True)), schema=dict.fromkeys(header, pl.String)
    )
    rows = rows.with_columns(pl.all().replace(list(dialect.nulls), None))
    faults, bad = _faults(content, dialect, is_cut=is_cut)
    shown = "line {}, {!r} ({})".format(*bad.row(0)) if bad.height else ""
    return CsvSample(rows, dialect, is_cut or len(records) > most_rows, notes, faults, bad.height, shown)


def _columns(lines: list[list[str]], width: int) -> list[list[str]]:
    return [list(column) for column in zip(*lines, strict=True)] if lines else [[] for _ in range(width)]


def _encoding(content: bytes, *, is_cut: bool) -> tuple[str, tuple[str, ...]]:
    """The encoding, and what was seen of it beyond UTF-8."""
    for mark, encoding in BOMS.items():
        if content.startswith(mark):
            return encoding, (f"begins with the byte order mark of {encoding}",)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(content, final=not is_cut)
    except UnicodeDecodeError as error:
        encoding = "cp1252" if _decodes(content, "cp1252") and ONLY_CP1252 & set(content) else "latin-1"
        around = content[max(error.start - 20, 0) : error.start + 20].decode(encoding, errors="ignore")
        word = next((word for word in re.findall(r"\w+", around) if not word.isascii()), "")
        line = content.count(b"\n", 0, error.start) + 1
        seen = f"is not UTF-8: byte {content[error.start]:02x} in line {line}, which {encoding} reads as {word!r}"
        return encoding, (seen,)
    return "utf-8", ()


def _decodes(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _separator(text: str) -> str:
    """The separator that gives all records one number of fields, and the most; a comma where none does."""

    def evenness_and_width(separator: str) -> tuple[float, int]:
        try:
            widths = [len(record) for record in _read_records(text, separator, HEAD) if record]
        except csv.Error:
            return 0, 0
        even = sum(width == widths[0] for width in widths) / len(widths) if widths else 0
        return (even if widths and widths[0] > 1 else 0, widths[0] if widths else 0)

    return max(SEPARATORS, key=evenness_and_width)


def _read_records(text: str, separator: str, most: int) -> list[list[str]]:
    csv.field_size_limit(LONGEST_FIELD)
    return list(islice(csv.reader(io.StringIO(text, newline=""), delimiter=separator), most))


def _records(text: str, separator: str, name: str, *, is_cut: bool, most: int) -> list[list[str]]:
    try:
        records = _read_records(text, separator, most + 1)
    except csv.Error as error:
        raise SampleError(f"{name} cannot be read as delimited text: {error}.") from None
    if is_cut and len(records) <= most:
        records = records[:-1]  # the last one may be half of a record
    records = [record for record in records[:most] if record]
    if not records:
        raise SampleError(f"{name}: expected a header line, found none in the first {len(text):,} characters.")
    return records


def _check_format(content: bytes, name: str) -> None:
    kind = next((kind for mark, kind in OTHER_FORMATS.items() if content.startswith(mark)), "")
    if kind or JSON.match(content):
        raise SampleError(
            f"{name} is {kind or 'JSON'}, and `headrace new` reads CSV. Write its rows as CSV, and name that."
        )
    if not content:
        raise SampleError(
            f"{name} is empty: 0 bytes. A sample needs a header line at least, and rows to infer types from."
        )


def _check_header(header: list[str], name: str, others: int, lines: int) -> None:
    """Refuse a first line that does not name the columns; `others` of the `lines` have another number of fields."""
    duplicates = sorted({column for column in header if header.count(column) > 1})
    if duplicates:
        raise SampleError(
            f"{name}: the header names {', '.join(map(repr, duplicates))} more than once, so the columns cannot be told"
            " apart. Have the producer rename one, or rename it in a copy, and name that as the sample."
        )
    shown = repr(",".join(header)[:SHOWN_HEADER])
    if header[0].lower().startswith("sep=") or 2 * others > lines:
        counted = f", while {others:,} of the {lines:,} lines below it have another number of fields" if others else ""
        raise SampleError(
            f"{name}: expected the names of the columns in line 1, found {shown}{counted}. Have the producer leave out"
            " what is above the header, or remove it in a copy, and name that as the sample."
        )
    if all(DATA_VALUE.fullmatch(column) for column in header):
        raise SampleError(
            f"{name}: expected the names of the columns in line 1, found values: {shown}. Have the"
            " producer send a header, or add one in a copy, and name that as the sample."
        )


def _faults(content: bytes, dialect: CsvDialect, *, is_cut: bool) -> tuple[tuple[str, ...], pl.DataFrame]:
    """Why the declared reader will refuse the file, and its bad lines: asked of the reader itself.

    A line that is bad since the sample was cut in a quoted field is none.
    """
    bad = pl.DataFrame(schema={RAW_LINE: pl.UInt32, RECORD: pl.String, FAULT: pl.String})
    if is_cut and dialect.encoding == "utf-16":
        return (), bad  # where the last whole record ends is not to be seen in the bytes
    with tempfile.NamedTemporaryFile(suffix=".csv") as file:
        file.write(content[: content.rfind(b"\n") + 1] if is_cut else content)
        file.flush()
        try:
            rows = read_csv(Path(file.name), dialect)
        except UnreadableError as error:
            return (error.reason,), bad
    if FAULT in rows.columns:
        last = rows.get_column(RAW_LINE).max()
        bad = rows.filter(pl.col(FAULT).is_not_null()).select(bad.columns)
        bad = bad.filter(pl.col(RAW_LINE) != last) if is_cut else bad
    return (), bad


def read_head(path: Path, most: int) -> bytes:
    """The first bytes of a file, one more than `most` if there are so many."""
    with path.open("rb") as file:
        return file.read(most + 1)
