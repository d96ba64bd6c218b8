"""How a delimited file is written."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field

from headrace.validate.text_formats import TextFormats, date_faults, number_faults
from headrace.validate.unreadable import LONGEST_NAME, MAX_BYTES, MAX_COLUMNS, MAX_FIELDS

NO_MARK = "\r\n\0"
"""Characters that neither separate nor enclose fields."""


@dataclass(frozen=True)
class CsvDialect:
    """How a delimited file is written, and how large it may be. What is larger is refused before it is in memory.

    Records are those of RFC 4180: a quoted field may contain separators, line ends and doubled quotes, lines end with
    LF or CRLF, and the last one need not. A line that is not a record is a rejected row.

    Attributes:
        separator: Between two fields.
        encoding: Of the text; a byte order mark is allowed before it.
        nulls: Fields that mean "not known".
        max_bytes: Most bytes that a file may have once unpacked.
        multiline: Whether a quoted field may contain line ends. If not, each line is a record, and two broken quotes
            cannot swallow the lines between them.
        final_newline: Whether the last line must have an end. If so, a file that was cut in its last line is refused.
        max_columns: Most columns that a file may have.
        max_fields: Most fields that a file may have, in all columns together: each takes 16 bytes of memory, however
            short it is.
        quote: Encloses fields; `None` if nothing does, and a quote is a character like any other.
        escape: Takes the meaning from the character after it, within quotes and without.
        names: Names of the columns of a file that has no header.
        skip_lines: Lines before the header, or before the first record of a file that has none.
        comment: What a line begins with that is a comment. Comments are left out.
        skip_blank_lines: Whether empty lines are left out. If not, they are records with one empty field.
        reject_repeated_header: Whether a line that repeats the header is a rejected row. If not, it is a row like any
            other, which fails the checks of columns that are not text.
        decimal: What is before the fraction of a number.
        thousands: What may be between groups of three digits; `None` if there are no groups.
        date_formats: How dates are written, as in `("%d.%m.%Y",)`, the first that fits; ISO 8601 if there are none.
        time_formats: The same of times, with their zone: `("%d.%m.%Y %H:%M:%S %z",)`.
        member: Which file of a zip archive is meant: its name, or a pattern such as `orders_*.csv`. If empty, the
            archive has one.

    Raises:
        ValueError: No file can be read so.
    """

    separator: str = ","
    encoding: str = "utf-8"
    nulls: tuple[str, ...] = ("", "NA")
    max_bytes: int = MAX_BYTES
    multiline: bool = True
    final_newline: bool = False
    max_columns: int = MAX_COLUMNS
    max_fields: int = MAX_FIELDS
    quote: str | None = field(default='"', kw_only=True)
    escape: str | None = field(default=None, kw_only=True)
    names: tuple[str, ...] | None = field(default=None, kw_only=True)
    skip_lines: int = field(default=0, kw_only=True)
    comment: str | None = field(default=None, kw_only=True)
    skip_blank_lines: bool = field(default=False, kw_only=True)
    reject_repeated_header: bool = field(default=False, kw_only=True)
    decimal: str = field(default=".", kw_only=True)
    thousands: str | None = field(default=None, kw_only=True)
    date_formats: tuple[str, ...] = field(default=(), kw_only=True)
    time_formats: tuple[str, ...] = field(default=(), kw_only=True)
    member: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        """Refuse what no file can be read with."""
        for fault in (*self._mark_faults(), *self._text_faults(), *self._line_faults(), *self._value_faults()):
            raise ValueError(f"CsvDialect: {fault}")

    @property
    def formats(self) -> TextFormats | None:
        """The forms of numbers, dates and times; None if they are those that any contract reads."""
        formats = TextFormats(self.decimal, self.thousands, tuple(self.date_formats), tuple(self.time_formats))
        return None if formats == TextFormats() else formats

    def _value_faults(self) -> Iterator[str]:
        yield from number_faults(self.decimal, self.thousands, (self.separator, self.quote, self.escape))
        yield from date_faults("date_formats", self.date_formats, has_time=False)
        yield from date_faults("time_formats", self.time_formats, has_time=True)

    def _mark_faults(self) -> Iterator[str]:
        """Single characters that mean something, and each another thing."""
        others = {"quote": self.quote, "escape": self.escape}
        if not _is_mark(self.separator) or self.separator == '"':
            yield (
                "expected one ASCII character other than a quote or a line end as `separator`, found"
                f" {self.separator!r}"
            )
        for name, mark in others.items():
            if mark is not None and not _is_mark(mark):
                yield f"expected one ASCII character other than a line end as `{name}`, or None, found {mark!r}"
        marks = [mark for mark in (self.separator, *others.values()) if mark is not None]
        if len(set(marks)) < len(marks):
            yield f"expected three different characters as `separator`, `quote` and `escape`, found {marks}"

    def _text_faults(self) -> Iterator[str]:
        nulls: object = self.nulls
        try:
            codecs.lookup(self.encoding)
            "".encode(self.encoding)
        except (LookupError, TypeError):  # `encode` refuses what is no text encoding, such as base64
            yield f"expected the name of a text encoding such as 'utf-8' or 'cp1252', found {self.encoding!r}"
        if not _are_texts(nulls):
            yield f"expected a tuple of texts as `nulls`, found {nulls!r}"

    def _line_faults(self) -> Iterator[str]:
        comment: object = self.comment
        if not (isinstance(self.max_bytes, int) and self.max_bytes > 0):
            yield f"expected a number of bytes above 0 as `max_bytes`, found {self.max_bytes!r}"
        if not (isinstance(self.skip_lines, int) and self.skip_lines >= 0):
            yield f"expected a number of lines as `skip_lines`, found {self.skip_lines!r}"
        if comment is not None and not (isinstance(comment, str) and comment and not set(comment) & set(NO_MARK)):
            yield f"expected a text without line ends as `comment`, found {comment!r}"
        elif isinstance(comment, str) and comment[0] in (self.separator, self.quote):
            yield f"expected a `comment` that no record begins with, found {comment!r}"
        if self.names is not None:
            yield from _name_faults(self.names)
            if self.reject_repeated_header:
                yield "a file with `names` has no header to repeat: leave out `reject_repeated_header`"


def _name_faults(names: tuple[str, ...]) -> Iterator[str]:
    if not (_are_texts(names) and names):
        yield f"expected a tuple of texts as `names`, found {names!r}"
    elif len(set(names)) < len(names) or any(len(name) > LONGEST_NAME for name in names):
        yield f"expected different `names` of at most {LONGEST_NAME:,} characters, found {names!r}"


def _are_texts(texts: object) -> bool:
    return isinstance(texts, tuple | list) and all(isinstance(text, str) for text in texts)


def _is_mark(mark: object) -> bool:
    return isinstance(mark, str) and len(mark) == 1 and mark.isascii() and mark not in NO_MARK
