"""Lines of a delimited file → its records, and those that are none, each with its text and why.

The grammar is that of RFC 4180. The record that begins in a line ends in that line, unless a quoted field contains the
line end. A record that would take in more lines than its first one and is then not well-formed, or has not as many
fields as there are columns, is bad as that one line, and the next line begins a new record: a broken quote swallows no
line after it.

A line in which the number of quotes is odd opens or closes a field that contains a line end, whatever else is in it.
So lines are looked at together, and only those with an odd number one by one.
"""

import codecs
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from headrace.validate.csv_dialect import CsvDialect
from headrace.validate.reserved_names import FAULT, NUMBER, RAW_LINE, RECORD

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BLOCK = 16 << 20
"""Bytes that are looked at together, where looking takes several times their memory."""

ODD_LINES = 1 << 16
"""Lines with an odd number of quotes that are Python numbers at the same time."""

BYTE_SURROGATE = 0xDC00
"""What stands for byte 0 of text that cannot be decoded from another encoding than UTF-8, as PEP 383 has it."""

MOST_BAD_RECORDS, MOST_BAD_BYTES = 1_000_000, 64 << 20
"""CsvRecords that are rejected, and bytes in them, of one file: beyond, it is refused as another format."""

ENCODING, NUL, QUOTES, FIELDS, HEADER = "line|encoding", "line|nul", "line|quotes", "line|fields", "line|header"
CHECKS = ("", ENCODING, NUL, QUOTES, FIELDS, HEADER)
"""Names of the checks that lines fail; of several, the first is named."""


class TooManyBadLinesError(Exception):
    """More lines are no records than are kept."""


@dataclass(frozen=True)
class Grammar:
    """What a record of one file is.

    Attributes:
        dialect: How the file is written.
        columns: Fields of each record.
        header: The header as it is written, without its line end, if no record may repeat it.
    """

    dialect: CsvDialect
    columns: int
    header: str | None = None

    @cached_property
    def record(self) -> re.Pattern[bytes]:
        """A record of bytes, of one line or several, without its line end. It never goes back over what it matched."""
        separator, quote, escape = self._marks
        other = rf"[^{quote}{separator}{escape}\n]++" + (rf"|{escape}[^\n]" if escape else "")
        value = rf"(?:{other})*+"
        if quote:
            inner = rf"[^{quote}{escape}]++|{quote}{quote}" + (rf"|{escape}." if escape else "")
            value = rf"(?:{quote}(?:{inner})*+{quote}|{value})"
        return re.compile(rf"{value}(?:{separator}{value}){{{self.columns - 1}}}\r?".encode(), re.DOTALL)

    @cached_property
    def line(self) -> str:
        """A record of one line in which `hide_escapes` has hidden what escapes; of any number of fields."""
        separator, quote, escape = self._marks
        value = rf"[^{quote}{separator}{escape}]*"
        if quote:
            value = rf"(?:{quote}(?:[^{quote}{escape}]|{quote}{quote})*{quote}|{value})"
        return rf"^{value}(?:{separator}{value})*\r?$"

    @property
    def _marks(self) -> tuple[str, str, str]:
        """Separator, quote and escape as patterns, empty where there is none."""
        dialect = self.dialect
        return re.escape(dialect.separator), re.escape(dialect.quote or ""), re.escape(dialect.escape or "")

    def hide_escapes(self, lines: pl.Series) -> pl.Series:
        """Lines in which an escape and the character after it are one letter, which means nothing."""
        if self.dialect.escape is None:
            return lines
        return lines.str.replace_all(re.escape(self.dialect.escape) + ".", "x")

    def is_left_out(self, lines: pl.Series) -> pl.Series | None:
        """Whether a line that begins a record is a comment or blank; None if none is left out."""
        comment, skip_blank = self.dialect.comment, self.dialect.skip_blank_lines
        if comment is None and not skip_blank:
            return None
        is_blank = lines.is_in(["", "\r"]) if skip_blank else pl.repeat(value=False, n=len(lines), eager=True)
        return is_blank if comment is None else is_blank | lines.str.starts_with(comment)


@dataclass(frozen=True)
class CsvRecords:
    """The records of a file, after its header.

    Attributes:
        height: How many can be read.
        good: Those, as they came, unless the file is whole.
        numbers: The place of each good one among all records, from 1 on, unless the file is whole.
        lines: The line of the file in which each good one begins, likewise.
        bad: The others: columns `NUMBER`, `RAW_LINE`, `RECORD` and `FAULT`.
        is_whole: Whether all lines are good records.
    """

    height: int
    good: bytes = b""
    numbers: pl.Series = field(default_factory=pl.Series)
    lines: pl.Series = field(default_factory=pl.Series)
    bad: pl.DataFrame = field(default_factory=pl.DataFrame)
    is_whole: bool = True


@dataclass
class _Lines:
    """What was found of each line: where it begins and ends, and what it would be if it began a record.

    Attributes:
        starts: Its first byte.
        ends: Its line feed.
        text_fault: The place in `CHECKS` of a fault that its characters have wherever it stands, or 0.
        fault: The same of any fault.
        is_odd: Whether it has an odd number of quotes.
        is_left_out: Whether it is a comment or blank.
        is_continued: Whether a record that began before goes on in it.
    """

    starts: "NDArray[np.int64]"
    ends: "NDArray[np.int64]"
    text_fault: "NDArray[np.uint8]"
    fault: "NDArray[np.uint8]"
    is_odd: "NDArray[np.bool_]"
    is_left_out: "NDArray[np.bool_]"
    is_continued: "NDArray[np.bool_]"


class _Block(NamedTuple):
    """The same of the lines of a block."""

    text_fault: "NDArray[np.uint8]"
    fault: "NDArray[np.uint8]"
    is_odd: "NDArray[np.bool_]"
    is_left_out: "NDArray[np.bool_]"


def blocks(content: bytes, start: int = 0) -> Iterator[tuple[int, int]]:
    """Start and end of parts of some 16 MiB, each of whole lines."""
    while start < len(content):
        end = content.find(b"\n", start + BLOCK) + 1 or len(content)
        yield start, end
        start = end


def split_records(content: bytes, start: int, first_line: int, grammar: Grammar) -> CsvRecords:
    """The records of a file.

    Args:
        content: UTF-8, but for lines that fail `line|encoding`; it ends with a line feed.
        start: Where the first record begins.
        first_line: The number of that line.
        grammar: What a record is.

    Raises:
        TooManyBadLinesError: There are more bad records than are kept.
    """
    import numpy as np  # noqa: PLC0415  who only plans does not pay for the import

    lines = _look_at_lines(content, start, grammar)
    if grammar.dialect.multiline:
        _join_lines(content, lines, grammar)
    if not (lines.fault.any() or lines.is_left_out.any()):
        return CsvRecords(len(lines.ends) - int(lines.is_continued.sum()))
    begins = np.flatnonzero(~lines.is_continued)
    last = np.append(begins[1:] - 1, len(lines.ends) - 1)[: len(begins)]
    is_record = ~lines.is_left_out[begins]
    is_bad = is_record & (lines.fault[begins] > 0)
    is_good = is_record & ~is_bad
    numbers = np.cumsum(is_record).astype(np.uint32)
    places = (begins + first_line).astype(np.uint32)
    starts, ends = lines.starts[begins], lines.ends[last]
    texts = _texts(content, starts[is_bad], ends[is_bad], grammar.dialect.encoding)
    return CsvRecords(
        int(is_good.sum()),
        _joined(content, starts, ends, is_good),
        pl.Series(numbers[is_good]),
        pl.Series(places[is_good]),
        _bad_records(texts, numbers[is_bad], places[is_bad], lines.fault[begins][is_bad]),
        is_whole=False,
    )


def _look_at_lines(content: bytes, start: int, grammar: Grammar) -> _Lines:
    import numpy as np  # noqa: PLC0415

    parts = [_look_at_block(content[first:end], grammar) for first, end in blocks(content, start)]
    text_fault, fault, is_odd, is_left_out = (
        np.concatenate([getattr(part, name) for part in parts]) if parts else np.zeros(0, np.uint8)
        for name in ("text_fault", "fault", "is_odd", "is_left_out")
    )
    if fault.any() or is_left_out.any():
        ends = np.concatenate([_line_ends(content, first, end) for first, end in blocks(content, start)])
    else:
        ends = np.zeros(len(fault), np.int64)  # nobody asks where good lines are
    starts = np.append(start, ends[:-1] + 1)[: len(ends)]
    return _Lines(starts, ends, text_fault, fault, is_odd > 0, is_left_out > 0, np.zeros(len(ends), np.bool_))


def _line_ends(content: bytes, first: int, end: int) -> "NDArray[np.int64]":
    import numpy as np  # noqa: PLC0415

    numbers = np.frombuffer(content, np.uint8, end - first, first)
    return np.flatnonzero(numbers == ord("\n")).astype(np.int64) + first


def _look_at_block(block: bytes, grammar: Grammar) -> _Block:
    import numpy as np  # noqa: PLC0415

    lines, is_undecodable = _decode(block[:-1])
    text_fault = np.zeros(len(lines), np.uint8)
    text_fault[is_undecodable] = CHECKS.index(ENCODING)
    if b"\0" in block:
        has_nul = lines.str.contains("\0", literal=True).to_numpy()
        text_fault[has_nul & (text_fault == 0)] = CHECKS.index(NUL)
    is_odd, is_malformed, fields = _look_at_quotes(lines, grammar)
    fault = text_fault.copy()
    _note(fault, is_malformed, QUOTES)
    _note(fault, (fields != grammar.columns).to_numpy(), FIELDS)
    if grammar.header is not None:
        _note(fault, (lines.str.strip_suffix("\r") == grammar.header).to_numpy(), HEADER)
    left_out = grammar.is_left_out(lines)
    is_left_out = np.zeros(len(lines), np.bool_) if left_out is None else left_out.to_numpy()
    return _Block(text_fault, fault, is_odd, is_left_out)


def _note(fault: "NDArray[np.uint8]", is_wrong: "NDArray[np.bool_]", check: str) -> None:
    """Name the fault of lines that have none before it."""
    fault[is_wrong & (fault == 0)] = CHECKS.index(check)


def _decode(block: bytes) -> "tuple[pl.Series, NDArray[np.bool_] | bool]":
    """The lines of a block, and which of them are not UTF-8."""
    try:
        return pl.Series("line", [block.decode()]).str.split("\n").explode(empty_as_null=False), False
    except UnicodeDecodeError:
        import numpy as np  # noqa: PLC0415

        lines = block.split(b"\n")
        texts = [line.decode(errors="replace") for line in lines]  # what is not decoded has neither mark nor line end
        is_undecodable = [not _is_utf_8(line) for line in lines]
        return pl.Series("line", texts, pl.String), np.array(is_undecodable)


def _is_utf_8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _look_at_quotes(lines: pl.Series, grammar: Grammar) -> "tuple[NDArray[np.bool_], NDArray[np.bool_], pl.Series]":
    """Whether lines have an odd number of quotes, are malformed as one record, and how many fields they have."""
    import numpy as np  # noqa: PLC0415

    quote, lines = grammar.dialect.quote, grammar.hide_escapes(lines)
    is_odd = is_malformed = np.zeros(len(lines), np.bool_)
    bare = lines
    has_quote = None if quote is None else lines.str.contains(quote, literal=True)
    if quote is not None and has_quote is not None and has_quote.any():
        mark = re.escape(quote)
        bare = lines.str.replace_all(f"{mark}[^{mark}]*{mark}", "")
        is_odd = bare.str.contains(quote, literal=True).to_numpy()
        is_malformed = (has_quote & ~lines.str.contains(grammar.line)).to_numpy()
    if grammar.dialect.escape is not None:
        is_malformed = is_malformed | ~lines.str.contains(grammar.line).to_numpy()
    return is_odd, is_malformed, bare.str.count_matches(grammar.dialect.separator, literal=True) + 1


def _join_lines(content: bytes, lines: _Lines, grammar: Grammar) -> None:
    """Find the records of several lines: each goes from a line with an odd number of quotes to the next such one."""
    import numpy as np  # noqa: PLC0415

    found = array("q")
    opened: tuple[int, int] | None = None
    for line, start, end, is_left_out in _odd_lines(lines):
        if opened and grammar.record.fullmatch(content, opened[1], end):
            found.extend((opened[0], line))
            opened = None
        else:
            opened = None if is_left_out else (line, start)
    firsts, lasts = np.frombuffer(found, np.int64).reshape(-1, 2).T
    steps = np.zeros(len(lines.ends) + 1, np.int8)
    steps[firsts + 1] += 1
    steps[lasts + 1] -= 1
    lines.is_continued[:] = np.cumsum(steps[:-1], dtype=np.int8) > 0
    lines.fault[lines.is_continued], lines.is_left_out[lines.is_continued] = 0, False
    lines.fault[firsts] = lines.text_fault[firsts]
    for line in np.flatnonzero(lines.is_continued & (lines.text_fault > 0)):  # the record has the fault of any line
        first = firsts[np.searchsorted(firsts, line) - 1]
        lines.fault[first] = min(lines.text_fault[line], lines.fault[first] or len(CHECKS))


def _odd_lines(lines: _Lines) -> Iterator[tuple[int, int, int, bool]]:
    """Number, start and end of the lines with an odd number of quotes, and whether they are left out."""
    import numpy as np  # noqa: PLC0415

    odd = np.flatnonzero(lines.is_odd)
    for first in range(0, len(odd), ODD_LINES):
        part = odd[first : first + ODD_LINES]
        columns = (part, lines.starts[part], lines.ends[part], lines.is_left_out[part])
        yield from zip(*(column.tolist() for column in columns), strict=True)


def _joined(
    content: bytes, starts: "NDArray[np.int64]", ends: "NDArray[np.int64]", is_good: "NDArray[np.bool_]"
) -> bytes:
    """The good records, cut out in pieces as long as possible."""
    import numpy as np  # noqa: PLC0415

    changes = np.diff(np.concatenate([[False], is_good, [False]]).astype(np.int8))
    firsts, lasts = np.flatnonzero(changes == 1), np.flatnonzero(changes == -1) - 1
    pieces = zip(starts[firsts].tolist(), (ends[lasts] + 1).tolist(), strict=True)
    return b"".join(content[start:end] for start, end in pieces)


def _texts(content: bytes, starts: "NDArray[np.int64]", ends: "NDArray[np.int64]", encoding: str) -> list[str]:
    """The texts of bad records, without their line ends."""
    if len(starts) > MOST_BAD_RECORDS or (ends - starts).sum() > MOST_BAD_BYTES:
        raise TooManyBadLinesError
    spans = zip(starts.tolist(), ends.tolist(), strict=True)
    return [text_of(content[start:end].removesuffix(b"\r"), encoding) for start, end in spans]


def _bad_records(
    texts: list[str], numbers: "NDArray[np.uint32]", lines: "NDArray[np.uint32]", faults: "NDArray[np.uint8]"
) -> pl.DataFrame:
    return pl.DataFrame(
        {
            NUMBER: numbers,
            RAW_LINE: lines,
            RECORD: pl.Series(texts, dtype=pl.String),
            FAULT: pl.Series([CHECKS[fault] for fault in faults], dtype=pl.String),
        }
    )


def text_of(record: bytes, encoding: str) -> str:
    r"""The text of a record: bytes that stand for no character, and NUL, as `\xff`."""
    try:
        text = record.decode()
    except UnicodeDecodeError:
        text = record.decode(errors="backslashreplace") if is_utf_8(encoding) else _with_escapes(record)
    return text.replace("\0", "\\x00")


def is_utf_8(encoding: str) -> bool:
    """Whether text of the encoding is UTF-8 as it is."""
    return codecs.lookup(encoding).name == "utf-8"


def _with_escapes(record: bytes) -> str:
    """The text of a record in which a lone surrogate stands for each byte that is no character."""
    text = record.decode(errors="surrogatepass")
    as_byte = re.sub("[\udc00-\udcff]", lambda found: f"\\x{ord(found[0]) - BYTE_SURROGATE:02x}", text)
    return as_byte.encode(errors="backslashreplace").decode()
