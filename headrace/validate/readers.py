"""bytes → rows of text: delimited files, read exactly as declared.

Nothing is sniffed or guessed, and nothing is dropped: a file is read whole or refused with the line at fault.
"""

import codecs
import csv
import io
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from headrace.errors import HeadraceError

GZIP = b"\x1f\x8b"
GZIP_FORMAT = zlib.MAX_WBITS | 16
QUOTED = re.compile(r'"[^"]*"')
LARGE = 16 << 20
"""From so many bytes on, a file is read by several threads: for smaller ones, starting them costs more."""


class UnreadableError(HeadraceError):
    """The bytes of a raw partition cannot be read as what they are declared to be; `reason` says why, in few words."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


@dataclass(frozen=True)
class CsvDialect:
    """How a delimited file is written.

    Attributes:
        separator: Between two fields.
        encoding: Of the text; a byte order mark is allowed before it.
        nulls: Fields that mean "not known".
        max_bytes: Most bytes that a file may have once unpacked.
        multiline: Whether a quoted field may contain line ends. If not, each line is a record, and one bad quote cannot
            swallow the lines after it.
        final_newline: Whether the last line must have an end. If not, a file that was cut after a whole field is not
            recognised.

    Raises:
        ValueError: No file can be read so.
    """

    separator: str = ","
    encoding: str = "utf-8"
    nulls: tuple[str, ...] = ("", "NA")
    max_bytes: int = 1 << 30
    multiline: bool = False
    final_newline: bool = True

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
    r"""The rows of a delimited file (plain or gzip), every column as text.

    Raises:
        UnreadableError: Empty, truncated, too large, wrongly encoded, ragged, or with a column named twice.

    Examples:
        >>> orders = Path("orders.csv")
        >>> _ = orders.write_text("order_id;amount\n007;1,50\n8;NA\n")
        >>> headrace.read_csv(orders, headrace.CsvDialect(separator=";")).rows()
        [('007', '1,50'), ('8', None)]
    """
    content = _in_utf_8(path, _unpacked(path, dialect.max_bytes), dialect.encoding)
    if not dialect.final_newline and not content.endswith(b"\n"):
        content += b"\n"
    if not _is_even(content, dialect.separator.encode()):
        _check_lines(path, content.decode(), dialect)
    try:
        return _rows(content, dialect)
    except pl.exceptions.PolarsError as error:
        _check_lines(path, content.decode(), dialect)
        raise refused(path, f"Polars cannot read it: {error}") from error


def read_parquet(path: Path) -> pl.DataFrame:
    """The rows of a Parquet file as ingest wrote it from a database.

    Raises:
        UnreadableError: It is no whole Parquet file.

    Examples:
        >>> pl.DataFrame({"order_id": [7]}).write_parquet("orders.parquet")
        >>> headrace.read_parquet(Path("orders.parquet")).rows()
        [(7,)]
    """
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.ComputeError, OSError) as error:
        raise refused(path, f"expected a Parquet file written by ingest, but: {error}") from error


def refused(path: Path, reason: str) -> UnreadableError:
    """The error that says what to do about a file that cannot be read."""
    return UnreadableError(
        f"{path.parent.name}/{path.name}: {reason}. The file is kept as it came in {path.parent};"
        " have the producer send it again, whole, then run `headrace ingest` and `headrace validate`.",
        reason,
    )


def _unpacked(path: Path, max_bytes: int) -> bytes:
    packed = path.read_bytes()
    if not packed:
        raise refused(path, "it is empty: 0 bytes, where a header line at least was expected")
    if not packed.startswith(GZIP):
        if path.suffix == ".gz":
            raise refused(path, f"expected gzip, but it begins with the bytes {packed[:4].hex(' ')}")
        return packed
    try:
        content = _gunzipped(packed, max_bytes + 1)
    except (EOFError, zlib.error) as error:
        raise refused(path, f"truncated or damaged gzip of {len(packed):,} bytes ({error})") from error
    if len(content) > max_bytes:
        raise refused(path, f"{len(packed):,} bytes of gzip unpack to more than the {max_bytes:,} allowed")
    return content


def _gunzipped(packed: bytes, most: int) -> bytes:
    """The content of one gzip member or several, up to so many bytes."""
    parts: list[bytes] = []
    while packed and most > 0:
        member = zlib.decompressobj(GZIP_FORMAT)
        parts.append(member.decompress(packed, most))
        most -= len(parts[-1])
        if most > 0 and not member.eof:
            raise EOFError("it ends before its end was marked")
        packed = member.unused_data.lstrip(b"\0")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _in_utf_8(path: Path, content: bytes, encoding: str) -> bytes:
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        seen = content[error.start : error.end].hex(" ")
        raise refused(path, f"expected {encoding}, but line {line} holds the bytes {seen}") from error
    return (content if codecs.lookup(encoding).name == "utf-8" else text.encode()).removeprefix(codecs.BOM_UTF8)


def _is_even(content: bytes, separator: bytes) -> bool:
    """Whether the bytes alone say that all is well: no quote, no column named twice, and fields for all lines.

    A line may still have one field too many where another has one too few: the reader refuses the first of them.
    """
    if not content.endswith(b"\n") or b'"' in content or b"\0" in content:
        return False
    names = content[: content.index(b"\n")].rstrip(b"\r").split(separator)
    import numpy as np  # noqa: PLC0415  who only plans does not pay for the import

    numbers = np.frombuffer(content, np.uint8)
    lines, separators = (np.count_nonzero(numbers == ord(mark)) for mark in (b"\n", separator))
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
        rows.columns = next(csv.reader(io.StringIO(content.decode(), newline=""), delimiter=dialect.separator))
    return rows


def _check_lines(path: Path, text: str, dialect: CsvDialect) -> None:
    """One record a line, as many fields as the header names, the last line ended."""
    separator = dialect.separator
    if "\0" in text:
        raise refused(path, "it holds NUL characters: text in another encoding, or no text at all")
    if not text.endswith("\n"):
        raise refused(path, f"the last line, {_last_line(text)!r}, has no line end: the file was cut")
    if dialect.multiline:
        text = QUOTED.sub(lambda field: field[0].replace("\n", " "), text)
    lines = pl.Series("line", text[:-1].split("\n"))
    names = next(csv.reader([lines[0]], delimiter=separator), [])
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise refused(path, f"the header names {', '.join(map(repr, twice))} more than once")
    bare = lines.str.replace_all('"[^"]*"', "") if '"' in text else lines
    _check_each(path, bare.str.contains('"', literal=True), "has an unbalanced quote")
    if '"' in text:
        _check_each(path, ~lines.str.contains(_record(separator)), "has a quote inside a field that is not doubled")
    fields = bare.str.count_matches(separator, literal=True) + 1
    _check_each(path, fields != len(names), f"has not the {len(names)} fields that the header names", fields)


def _record(separator: str) -> str:
    """Pattern of a line by RFC 4180: a quote encloses a whole field, or stands doubled in one that quotes enclose."""
    mark = re.escape(separator)
    field = rf'(?:"(?:[^"]|"")*"|[^"{mark}]*)'
    return rf"^{field}(?:{mark}{field})*\r?$"


def _check_each(path: Path, wrong: pl.Series, reason: str, fields: pl.Series | None = None) -> None:
    if wrong.any():
        line = int(wrong.arg_true()[0])
        seen = "" if fields is None else f" but {fields[line]}"
        raise refused(path, f"line {line + 1} {reason}{seen} ({wrong.sum()} such lines)")


def _last_line(text: str) -> str:
    return text.rpartition("\n")[2][-80:]
