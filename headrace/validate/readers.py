"""bytes → rows of text: delimited files, read exactly as declared.

Nothing is sniffed or guessed, and nothing is dropped: a file is read whole or refused with the line at fault.
"""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from headrace.unexpected_errors import describe_error
from headrace.validate.compression import read_unpacked
from headrace.validate.parquet_reader import read_parquet
from headrace.validate.unreadable import (
    LONGEST_NAME,
    MAX_BYTES,
    MAX_COLUMNS,
    MAX_FIELDS,
    UnreadableError,
    check_limit,
    refused,
)

__all__ = ["CsvDialect", "UnreadableError", "read_csv", "read_parquet", "refused"]

QUOTED = re.compile(rb'"[^"]*"')
MOST_NAMES = 5
LARGE = 16 << 20
"""From so many bytes on, a file is read by several threads: for smaller ones, starting them costs more."""

BLOCK = 16 << 20
"""Bytes that are looked at together, where looking takes several times their memory."""


@dataclass(frozen=True)
class CsvDialect:
    """How a delimited file is written, and how large it may be. What is larger is refused before it is in memory.

    Attributes:
        separator: Between two fields.
        encoding: Of the text; a byte order mark is allowed before it.
        nulls: Fields that mean "not known".
        max_bytes: Most bytes that a file may have once unpacked.
        multiline: Whether a quoted field may contain line ends. If not, each line is a record, and one bad quote cannot
            swallow the lines after it.
        final_newline: Whether the last line must have an end. If not, a file that was cut after a whole field is not
            recognised.
        max_columns: Most columns that a file may have.
        max_fields: Most fields that a file may have, in all columns together: each takes 16 bytes of memory, however
            short it is.
        member: Which file of a zip archive is meant: its name, or a pattern such as `orders_*.csv`. If empty, the
            archive has one.

    Raises:
        ValueError: No file can be read so.
    """

    separator: str = ","
    encoding: str = "utf-8"
    nulls: tuple[str, ...] = ("", "NA")
    max_bytes: int = MAX_BYTES
    multiline: bool = False
    final_newline: bool = True
    max_columns: int = MAX_COLUMNS
    max_fields: int = MAX_FIELDS
    member: str = ""

    def __post_init__(self) -> None:
        """Refuse what no file can be read with."""
        separator: object = self.separator
        nulls: object = self.nulls
        if not (
            isinstance(separator, str) and len(separator) == 1 and separator.isascii() and separator not in '"\r\n\0'
        ):
            raise ValueError(
                "CsvDialect: expected one ASCII character other than a quote or a line end as `separator`, found"
                f" {separator!r}"
            )
        try:
            codecs.lookup(self.encoding)
            "".encode(self.encoding)
        except (LookupError, TypeError):  # `encode` refuses what is no text encoding, such as base64
            raise ValueError(
                f"CsvDialect: expected the name of a text encoding such as 'utf-8' or 'cp1252', found {self.encoding!r}"
            ) from None
        if not (isinstance(nulls, tuple | list) and all(isinstance(null, str) for null in nulls)):
            raise ValueError(f"CsvDialect: expected a tuple of texts as `nulls`, found {nulls!r}")
        if not (isinstance(self.max_bytes, int) and self.max_bytes > 0):
            raise ValueError(f"CsvDialect: expected a number of bytes above 0 as `max_bytes`, found {self.max_bytes!r}")


def read_csv(path: Path, dialect: CsvDialect) -> pl.DataFrame:
    r"""The rows of a delimited file (plain, gzip, Zstandard or zip), every column as text.

    Raises:
        UnreadableError: Empty, truncated, too large, wrongly encoded, ragged, or with a column named twice.

    Examples:
        >>> orders = Path("orders.csv")
        >>> _ = orders.write_text("order_id;amount\n007;1,50\n8;NA\n")
        >>> headrace.read_csv(orders, headrace.CsvDialect(separator=";")).rows()
        [('007', '1,50'), ('8', None)]
    """
    content = _in_utf_8(path, read_unpacked(path, dialect.max_bytes, member=dialect.member), dialect.encoding)
    if not content.rstrip(b"\r\n"):
        raise refused(path, "it holds nothing but line ends and byte order marks, where a header line was expected")
    if not dialect.final_newline and not content.endswith(b"\n"):
        content += b"\n"
    _check_extent(path, content, dialect)
    if not _is_even(content, dialect.separator.encode()):
        _check_lines(path, content, dialect)
    try:
        rows = _rows(content, dialect)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        _check_lines(path, content, dialect)
        raise refused(path, f"Polars cannot read it: {describe_error(error)}") from error
    if any(len(name) > LONGEST_NAME for name in rows.columns):
        raise refused(path, f"its header names a column with more than {LONGEST_NAME:,} characters")
    return rows


def _in_utf_8(path: Path, content: bytes, encoding: str) -> bytes:
    is_utf_8 = codecs.lookup(encoding).name == "utf-8"
    start = 0
    try:
        if not is_utf_8:
            return content.decode(encoding).encode().removeprefix(codecs.BOM_UTF8)
        for start, end in _blocks(content):
            content[start:end].decode()
    except UnicodeEncodeError as error:  # UTF-7 has half a surrogate pair, UTF-8 has not
        line, seen = error.object.count("\n", 0, error.start) + 1, error.object[error.start]
        raise refused(path, f"expected {encoding}, but line {line} holds {seen!a}, which is no character") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, start + error.start) + 1
        seen = content[start + error.start : start + error.end].hex(" ")
        raise refused(path, f"expected {encoding}, but line {line} holds the bytes {seen}") from error
    return content.removeprefix(codecs.BOM_UTF8)


def _blocks(content: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of parts of some 16 MiB, each of whole lines."""
    start = 0
    while start < len(content):
        end = content.find(b"\n", start + BLOCK) + 1 or len(content)
        yield start, end
        start = end


def _check_extent(path: Path, content: bytes, dialect: CsvDialect) -> None:
    """Columns and fields, before there are any: separators within quotes are counted, too, in the header alone."""
    header = content[: content.find(b"\n") + 1 or len(content)]
    columns = header.count(dialect.separator.encode()) + 1
    check_limit(path, "columns", columns, dialect.max_columns)
    if len(content) > dialect.max_fields:  # a field and its end take a byte at least
        check_limit(path, "fields", content.count(b"\n") * columns, dialect.max_fields)


def _is_even(content: bytes, separator: bytes) -> bool:
    """Whether the bytes alone say that all is well: no quote, no column named twice, and fields for all lines.

    A line may still have one field too many where another has one too few: the reader refuses the first of them.
    """
    if not content.endswith(b"\n") or b'"' in content or b"\0" in content:
        return False
    names = content[: content.index(b"\n")].rstrip(b"\r").split(separator)
    import numpy as np  # noqa: PLC0415  who only plans does not pay for the import

    lines = separators = 0
    for start in range(0, len(content), BLOCK):
        numbers = np.frombuffer(content, np.uint8, min(BLOCK, len(content) - start), start)
        lines += int(np.count_nonzero(numbers == ord(b"\n")))
        separators += int(np.count_nonzero(numbers == ord(separator)))
    return len(set(names)) == len(names) and separators == lines * (len(names) - 1)


def _rows(content: bytes, dialect: CsvDialect) -> pl.DataFrame:
    rows = pl.read_csv(
        content,
        separator=dialect.separator,
        null_values=list(dialect.nulls),
        infer_schema=False,
        n_threads=1 if len(content) < LARGE else None,
    )
    if any('""' in name for name in rows.columns):  # Polars keeps doubled quotes in the header as they are
        start = io.StringIO(content[:BLOCK].decode(errors="replace"), newline="")
        rows.columns = next(csv.reader(start, delimiter=dialect.separator))
    return rows


def _check_lines(path: Path, content: bytes, dialect: CsvDialect) -> None:
    """One record a line, as many fields as the header names, the last line ended."""
    separator = dialect.separator
    if b"\0" in content:
        raise refused(path, "it holds NUL characters: text in another encoding, or no text at all")
    if b"\n" not in content and b"\r" in content:
        raise refused(path, "its lines end with a carriage return alone; expected line feeds")
    if not content.endswith(b"\n"):
        raise refused(path, f"the last line, {_last_line(content)!r}, has no line end: the file was cut")
    if dialect.multiline:
        content = QUOTED.sub(lambda field: field[0].replace(b"\n", b" "), content)
    names = _names(path, content[: content.index(b"\n")].decode(), separator)
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise refused(path, f"the header names {', '.join(map(repr, twice[:MOST_NAMES]))} more than once")
    faults = [_Fault("has an unbalanced quote"), _Fault("has a quote inside a field that is not doubled")]
    faults.append(_Fault(f"has not the {len(names)} fields that the header names"))
    number = 0
    for start, end in _blocks(content):
        lines = pl.Series("line", content[start : end - 1].decode().split("\n"))
        for fault, found in zip(faults, _faulty_lines(lines, separator, len(names)), strict=True):
            fault.add(number, *found)
        number += len(lines)
    for fault in faults:
        if fault.count:
            raise refused(path, str(fault))


@dataclass
class _Fault:
    """Something that is wrong with lines: the first of them, its number of fields if that is it, and how many."""

    reason: str
    line: int = 0
    fields: int | None = None
    count: int = 0

    def add(self, before: int, is_wrong: pl.Series, fields: pl.Series | None) -> None:
        """Add the lines of a block that comes after so many lines."""
        count = int(is_wrong.sum())
        if count and not self.count:
            first = int(is_wrong.arg_true()[0])
            self.line, self.fields = before + first + 1, None if fields is None else int(fields[first])
        self.count += count

    def __str__(self) -> str:
        seen = "" if self.fields is None else f" but {self.fields}"
        return f"line {self.line} {self.reason}{seen} ({self.count} such lines)"


def _faulty_lines(lines: pl.Series, separator: str, columns: int) -> Iterator[tuple[pl.Series, pl.Series | None]]:
    """Which lines have which fault, in the order of `_check_lines`."""
    has_quote = lines.str.contains('"', literal=True)
    bare = lines.str.replace_all('"[^"]*"', "") if has_quote.any() else lines
    yield bare.str.contains('"', literal=True), None
    yield has_quote & ~lines.str.contains(_record(separator)), None
    fields = bare.str.count_matches(separator, literal=True) + 1
    yield fields != columns, fields


def _names(path: Path, header: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([header], delimiter=separator), [])
    except csv.Error as error:  # a name that is longer than the process allows at the moment
        raise refused(path, f"its header cannot be read: {error}") from error


def _record(separator: str) -> str:
    """Pattern of a line by RFC 4180: a quote encloses a whole field, or stands doubled in one that quotes enclose."""
    mark = re.escape(separator)
    field = rf'(?:"(?:[^"]|"")*"|[^"{mark}]*)'
    return rf"^{field}(?:{mark}{field})*\r?$"


def _last_line(content: bytes) -> str:
    return content[content.rfind(b"\n") + 1 :][-80:].decode(errors="replace")
