"""bytes → rows of text: delimited files, read exactly as declared.

Nothing is sniffed or guessed, and nothing is dropped. A line that cannot become a row is a row that cannot be read: it
is rejected with its text, and the others go on. A file of another format is refused.
"""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from headrace.unexpected_errors import describe_error
from headrace.validate.compression import read_unpacked
from headrace.validate.csv_dialect import CsvDialect
from headrace.validate.csv_lines import (
    BLOCK,
    BYTE_SURROGATE,
    CsvRecords,
    Grammar,
    TooManyBadLinesError,
    blocks,
    is_utf_8,
    split_records,
)
from headrace.validate.reserved_names import CSV_COLUMNS, FAULT, NUMBER, RAW_LINE, RECORD
from headrace.validate.unreadable import LONGEST_NAME, UnreadableError, check_limit, refused
from headrace.validate.unreadable_lines import note_unreadable_lines

MOST_NAMES = 5

LARGE = 16 << 20
"""From so many bytes on, a file is read by several threads: for smaller ones, starting them costs more."""

POLARS_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException)


@dataclass(frozen=True)
class _Header:
    """The names of the columns, and where the records begin.

    Attributes:
        names: The names.
        start: The first byte of the records.
        line: The number of their first line.
        text: The header as it is written, without its line end; empty if there is none.
    """

    names: list[str]
    start: int
    line: int
    text: str = ""


def read_csv(path: Path, dialect: CsvDialect) -> pl.DataFrame:
    r"""The rows of a delimited file (plain, gzip, Zstandard or zip), every column as text.

    A line that cannot become a row is a row of nulls. Then four columns more say which row and which line each is, and
    of those that cannot be read the text and why: keep them, `validate` needs them. Where the dialect declares forms of
    numbers, dates or times, each column is a struct of the text, which `validate` reads by the contract.

    Raises:
        UnreadableError: Empty, truncated, too large, without a header of the encoding, or with a column named twice.

    Examples:
        >>> orders = Path("orders.csv")
        >>> _ = orders.write_text("order_id;amount\n007;1,50\n8;NA\n")
        >>> headrace.read_csv(orders, headrace.CsvDialect(separator=";")).rows()
        [('007', '1,50'), ('8', None)]
    """
    content, is_valid = _in_utf_8(read_unpacked(path, dialect.max_bytes, member=dialect.member), dialect.encoding)
    if not content.rstrip(b"\r\n"):
        raise refused(path, "it holds nothing but line ends and byte order marks, where a header line was expected")
    content = _with_last_line_end(path, content, dialect)
    start, line = _after_skipped_lines(path, content, dialect)
    _check_extent(path, content, start, dialect)
    if is_valid and _is_even(content, start, dialect):
        try:
            return _formatted(_named(path, _rows(content, start, dialect)), dialect)
        except POLARS_ERRORS:  # one line has a field too many where another has one too few
            pass
    header = _header(path, content, start, line, dialect)
    return _named(path, _rows_of_records(path, content, header, dialect))


def _named(path: Path, rows: pl.DataFrame) -> pl.DataFrame:
    if any(len(name) > LONGEST_NAME for name in rows.columns):
        raise refused(path, f"its header names a column with more than {LONGEST_NAME:,} characters")
    return rows


def _formatted(rows: pl.DataFrame, dialect: CsvDialect) -> pl.DataFrame:
    """Rows whose columns say in which forms their texts are, if the dialect declares some."""
    return rows if dialect.formats is None else dialect.formats.wrap_columns(rows)


def _in_utf_8(content: bytes, encoding: str) -> tuple[bytes, bool]:
    """The text as UTF-8, and whether all of it could be decoded."""
    try:
        if not is_utf_8(encoding):
            return content.decode(encoding).encode().removeprefix(codecs.BOM_UTF8), True
        for start, end in blocks(content):
            content[start:end].decode()
    except UnicodeError:  # UTF-7 has half a surrogate pair, UTF-8 has not
        if not is_utf_8(encoding):
            codecs.register_error("headrace-bytes-as-surrogates", _bytes_as_surrogates)
            text = content.decode(encoding, "headrace-bytes-as-surrogates")
            content = text.encode(errors="surrogatepass")
        return content.removeprefix(codecs.BOM_UTF8), False
    return content.removeprefix(codecs.BOM_UTF8), True


def _bytes_as_surrogates(error: UnicodeError) -> tuple[str, int]:
    """What `surrogateescape` does, of any byte: UTF-16 has errors in bytes that are ASCII, too."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(BYTE_SURROGATE + byte) for byte in error.object[error.start : error.end]), error.end


def _with_last_line_end(path: Path, content: bytes, dialect: CsvDialect) -> bytes:
    if b"\n" not in content and b"\r" in content:
        raise refused(path, "its lines end with a carriage return alone; expected line feeds")
    if content.endswith(b"\n"):
        return content
    if dialect.final_newline:
        last = content[content.rfind(b"\n") + 1 :][-80:].decode(errors="replace")
        raise refused(path, f"the last line, {last!r}, has no line end: the file was cut")
    return content + b"\n"


def _after_skipped_lines(path: Path, content: bytes, dialect: CsvDialect) -> tuple[int, int]:
    """Where the header or the first record begins, and the number of that line."""
    start = 0
    for _ in range(dialect.skip_lines):
        start = content.find(b"\n", start) + 1
        if not start or start == len(content):
            raise refused(path, f"it has no line after the {dialect.skip_lines} that are skipped")
    return start, dialect.skip_lines + 1


def _check_extent(path: Path, content: bytes, start: int, dialect: CsvDialect) -> None:
    """Columns and fields, before there are any: separators within quotes are counted, too, in the header alone."""
    header = content[start : content.find(b"\n", start) + 1]
    columns = len(dialect.names or ()) or header.count(dialect.separator.encode()) + 1
    check_limit(path, "columns", columns, dialect.max_columns)
    if len(content) > dialect.max_fields:  # a field and its end take a byte at least
        check_limit(path, "fields", content.count(b"\n") * columns, dialect.max_fields)


def _is_even(content: bytes, start: int, dialect: CsvDialect) -> bool:
    """Whether the bytes alone say that all is well: no quote, no column named twice, and fields for all lines.

    A line may still have one field too many where another has one too few: the reader refuses the first of them.
    """
    separator = dialect.separator.encode()
    if any(mark and mark.encode() in content for mark in (dialect.quote, dialect.escape, dialect.comment, "\0")):
        return False
    header = content[start : content.index(b"\n", start)].rstrip(b"\r")
    names = [*dialect.names] if dialect.names else header.split(separator)
    if len(names) == 1 and dialect.skip_blank_lines:
        return False
    if dialect.reject_repeated_header and content.count(header) > 1:
        return False
    import numpy as np  # noqa: PLC0415  who only plans does not pay for the import

    lines = separators = 0
    for first in range(start, len(content), BLOCK):
        numbers = np.frombuffer(content, np.uint8, min(BLOCK, len(content) - first), first)
        lines += int(np.count_nonzero(numbers == ord(b"\n")))
        separators += int(np.count_nonzero(numbers == ord(separator)))
    return len(set(names)) == len(names) and separators == lines * (len(names) - 1)


def _rows(content: bytes, start: int, dialect: CsvDialect) -> pl.DataFrame:
    """The rows of a file of nothing but good records, of an escape not one character."""
    content = content[start:] if start else content
    if dialect.names:
        return _named_rows(content, dialect.names, dialect.quote, dialect)
    rows = pl.read_csv(
        content,
        separator=dialect.separator,
        quote_char=dialect.quote,
        null_values=list(dialect.nulls),
        infer_schema=False,
        n_threads=_threads(content),
    )
    if dialect.quote and any(dialect.quote * 2 in name for name in rows.columns):
        # Polars keeps doubled quotes in the header as they are
        start_text = io.StringIO(content[:BLOCK].decode(errors="replace"), newline="")
        rows.columns = next(csv.reader(start_text, delimiter=dialect.separator, quotechar=dialect.quote))
    return rows


def _named_rows(content: bytes, names: Sequence[str], quote: str | None, dialect: CsvDialect) -> pl.DataFrame:
    """The rows of good records without a header."""
    schema = dict.fromkeys(names, pl.String())
    if not content:
        return pl.DataFrame(schema=schema)
    return pl.read_csv(
        content,
        has_header=False,
        schema=schema,
        separator=dialect.separator,
        quote_char=quote,
        null_values=list(dialect.nulls),
        n_threads=_threads(content),
    )


def _threads(content: bytes) -> int | None:
    return 1 if len(content) < LARGE else None


def _header(path: Path, content: bytes, start: int, line: int, dialect: CsvDialect) -> _Header:
    """The names of the columns, and where the records begin.

    Raises:
        UnreadableError: The header is no record, or names a column twice.
    """
    if dialect.names:
        return _Header([*dialect.names], start, line)
    start, line = _after_left_out_lines(path, content, start, line, dialect)
    end, lines = _end_of_header(content, start, dialect)
    written = content[start:end].removesuffix(b"\r")
    _check_text(path, written, line, dialect)
    names = _names(path, written.decode(), line, dialect)
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise refused(path, f"the header names {', '.join(map(repr, twice[:MOST_NAMES]))} more than once")
    return _Header(names, end + 1, line + lines, written.decode())


def _after_left_out_lines(path: Path, content: bytes, start: int, line: int, dialect: CsvDialect) -> tuple[int, int]:
    comment = (dialect.comment or "\n").encode()
    while start < len(content):
        end = content.index(b"\n", start)
        is_blank = dialect.skip_blank_lines and content[start:end] in (b"", b"\r")
        if not is_blank and not content.startswith(comment, start):
            return start, line
        start, line = end + 1, line + 1
    raise refused(path, "it holds nothing but comments and empty lines, where a header line was expected")


def _end_of_header(content: bytes, start: int, dialect: CsvDialect) -> tuple[int, int]:
    """Where the header ends, and how many lines it has: more than one if a name contains a line end."""
    end = content.index(b"\n", start)
    if dialect.multiline and dialect.quote:
        plain = re.compile(re.escape(dialect.escape or dialect.quote).encode() + b"(?s:.)") if dialect.escape else None
        quotes, lines, first = 0, 1, start
        while True:
            line = content[first:end]
            quotes += (plain.sub(b"", line) if plain else line).count(dialect.quote.encode())
            following = content.find(b"\n", end + 1)
            if quotes % 2 == 0:
                return end, lines
            if following < 0 or end - start > LONGEST_NAME * dialect.max_columns:
                break
            first, end, lines = end + 1, following, lines + 1
    return content.index(b"\n", start), 1


def _check_text(path: Path, written: bytes, line: int, dialect: CsvDialect) -> None:
    """Refuse a header that is no text of the encoding."""
    try:
        written.decode()
    except UnicodeDecodeError as error:
        line += written.count(b"\n", 0, error.start)
        seen = written[error.start : error.end].hex(" ")
        if not is_utf_8(dialect.encoding):
            code = ord(written[error.start : error.start + 3].decode(errors="surrogatepass"))
            seen = f"{code - BYTE_SURROGATE:02x}"
            if not 0 <= code - BYTE_SURROGATE < 256:  # noqa: PLR2004
                raise refused(
                    path, f"expected {dialect.encoding}, but line {line} holds {chr(code)!a}, which is no character"
                ) from error
        raise refused(path, f"expected {dialect.encoding}, but line {line} holds the bytes {seen}") from error
    if b"\0" in written:
        raise refused(path, "it holds NUL characters: text in another encoding, or no text at all")


def _names(path: Path, written: str, line: int, dialect: CsvDialect) -> list[str]:
    """The fields of the header."""
    bare = Grammar(dialect, 1).hide_escapes(pl.Series([written.replace("\n", " ")]))
    if not bare.str.contains(Grammar(dialect, 1).line).item():
        raise refused(path, f"line {line}, its header, has a quote that neither encloses a name nor is doubled in one")
    try:
        reader = csv.reader(
            io.StringIO(written, newline=""),
            delimiter=dialect.separator,
            quotechar=dialect.quote,
            escapechar=dialect.escape,
            quoting=csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE,
        )
        return next(reader, [""]) or [""]
    except csv.Error as error:  # a name that is longer than the process allows at the moment
        raise refused(path, f"its header cannot be read: {error}") from error


def _rows_of_records(path: Path, content: bytes, header: _Header, dialect: CsvDialect) -> pl.DataFrame:
    """The rows of a file of which each line is looked at."""
    repeated = header.text if dialect.reject_repeated_header else None
    grammar = Grammar(dialect, len(header.names), repeated)
    try:
        records = split_records(content, header.start, header.line, grammar)
    except TooManyBadLinesError:
        raise refused(path, "more of its lines than are kept cannot be read: it has another format") from None
    if dialect.names and records.bad.height and not records.height:
        raise _no_record(path, records, len(header.names))
    try:
        rows = _good_rows(content, header, records, dialect)
    except POLARS_ERRORS as error:
        raise refused(path, f"Polars cannot read it: {describe_error(error)}") from error
    if rows.height != records.height:
        raise refused(path, f"Polars finds {rows.height:,} rows in it, where {records.height:,} were expected")
    rows = _formatted(rows, dialect)
    return _with_bad_rows(rows, records) if records.bad.height else rows


def _no_record(path: Path, records: CsvRecords, columns: int) -> UnreadableError:
    first = records.bad.row(0, named=True)
    return refused(
        path,
        f"none of its {records.bad.height:,} lines is a record of {columns} fields; line {first[RAW_LINE]} fails"
        f" {first[FAULT]}: {first[RECORD][:80]!r}",
    )


def _good_rows(content: bytes, header: _Header, records: CsvRecords, dialect: CsvDialect) -> pl.DataFrame:
    escape = (dialect.escape or "").encode()
    if records.is_whole and not (escape and escape in content):
        if not dialect.comment and not dialect.skip_blank_lines and not dialect.skip_lines:
            return _rows(content, 0, dialect)
        return _named_rows(content[header.start :], header.names, dialect.quote, dialect)
    good = content[header.start :] if records.is_whole else records.good
    if escape and escape in good:
        return _named_rows(_without_escapes(good, dialect), header.names, dialect.quote or '"', dialect)
    return _named_rows(good, header.names, dialect.quote, dialect)


def _without_escapes(good: bytes, dialect: CsvDialect) -> bytes:
    """Good records in which quotes that are doubled do what escapes did."""
    quote, escape = (dialect.quote or '"').encode(), (dialect.escape or "").encode()
    separator = re.escape(dialect.separator).encode()
    mark, skip = re.escape(quote), re.escape(escape)
    quoted = (
        mark + b"((?:[^%b%b]++|%b%b|%b.)*+)" % (mark, skip, mark, mark, skip) + mark + b"|" if dialect.quote else b""
    )
    field = re.compile(quoted + rb"((?:[^%b%b\n]++|%b[^\n])++)" % (separator, skip, skip), re.DOTALL)
    unit = re.compile((b"%b%b|" % (mark, mark) if dialect.quote else b"") + skip + b"(.)", re.DOTALL)

    def rewrite(found: re.Match[bytes]) -> bytes:
        whole = found[0]
        if escape not in whole and (dialect.quote or quote not in whole):
            return whole
        inner = found[found.lastindex or 0]
        end = b"\r" if found.lastindex == field.groups and inner.endswith(b"\r") else b""
        inner = unit.sub(lambda one: one[1] or quote, inner.removesuffix(end) if end else inner)
        return quote + inner.replace(quote, quote * 2) + quote + end

    return field.sub(rewrite, good)


def _with_bad_rows(rows: pl.DataFrame, records: CsvRecords) -> pl.DataFrame:
    """The rows in the order of the file, with the columns that say which of them cannot be read."""
    note_unreadable_lines(records.bad)
    text = pl.lit(None, pl.String)
    good = rows.with_columns(
        records.numbers.alias(NUMBER), records.lines.alias(RAW_LINE), text.alias(RECORD), text.alias(FAULT)
    )
    every = pl.concat([good, records.bad], how="diagonal").sort(NUMBER)
    return every.select(*rows.columns, *CSV_COLUMNS)
