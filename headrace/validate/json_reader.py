"""JSON Lines, an array or a document of records → rows of JSON values, read to the last digit.

A line that is no object is a row that cannot be read: it is rejected with its text, and the others go on.
"""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import polars as pl

from headrace.validate.compression import read_unpacked
from headrace.validate.json_document import BLANK, array_at, is_cut_off, item_ends, rows_of
from headrace.validate.json_values import IS_STRING, TEXT, InvalidJsonError, cell_text, decode_json
from headrace.validate.reserved_names import FAULT, JSON_COLUMNS, MARK, NUMBER, RECORD
from headrace.validate.unreadable import (
    LONGEST_NAME,
    MAX_BYTES,
    MAX_COLUMNS,
    MAX_FIELDS,
    UnreadableError,
    check_limit,
    refused,
)

MAX_RECORD_BYTES = 16 << 20
"""Most bytes of a record: its values as Python objects take many times their text."""

BATCH_BYTES = 1 << 20
"""Bytes of records that are Python objects at the same time."""

NO_OBJECT, SYNTAX = "json(no object)", "json(syntax)"

VALUE_BYTES = 64
"""Memory that a value of a record takes at least while it is a Python object."""

Layout = Literal["lines", "array", "document"]


@dataclass(frozen=True)
class JsonDialect:
    """How a file of JSON objects is written, and how large it may be. What is larger is refused.

    Attributes:
        layout: One object per line (`lines`: JSON Lines, NDJSON), one array of objects (`array`), or one document
            (`document`): an object with an array of objects in it, or one object that is the only record.
        records: Where in a document the array is: its keys from the outermost on, as `"data.items"`, or as a tuple
            where a key holds a dot. If empty, the document itself is the array or the only record.
        unnest: Objects in a record whose fields become columns: `("buyer", "buyer.address")` gives `buyer.name` and
            `buyer.address.city`. Others stay one value.
        explode: An array in a record of which each item becomes a row, with the other values of the record; a record
            without items is one row. Objects in it are named in `unnest`, too.
        member: Which file of a zip archive is meant: its name, or a pattern. If empty, the archive has one.
        max_bytes: Most bytes that a file may have once unpacked.
        max_columns: Most different keys of a file.
        max_fields: Most values of a file, in all columns together, those of missing keys included.
        max_record_bytes: Most bytes of an object.

    Raises:
        ValueError: No file can be read so.
    """

    layout: Layout = "lines"
    max_bytes: int = MAX_BYTES
    max_columns: int = MAX_COLUMNS
    max_fields: int = MAX_FIELDS
    max_record_bytes: int = MAX_RECORD_BYTES
    records: str | tuple[str, ...] = ""
    unnest: tuple[str, ...] = ()
    explode: str = ""
    member: str = ""

    def __post_init__(self) -> None:
        """Refuse what no file can be read with."""
        if self.layout not in get_args(Layout):
            raise ValueError(f"JsonDialect: expected 'lines', 'array' or 'document' as `layout`, found {self.layout!r}")
        if self.records and self.layout != "document":
            raise ValueError(f"JsonDialect: `records` is a place in a document, but the layout is {self.layout!r}")
        unnest: object = self.unnest
        if isinstance(unnest, str) or not all(isinstance(name, str) and name for name in self.unnest):
            raise ValueError(f"JsonDialect: expected a tuple of keys as `unnest`, found {unnest!r}")
        for name in ("max_bytes", "max_columns", "max_fields", "max_record_bytes"):
            value: object = getattr(self, name)
            if not (isinstance(value, int) and value > 0):
                raise ValueError(f"JsonDialect: expected a number above 0 as `{name}`, found {value!r}")

    @property
    def path(self) -> Sequence[str]:
        """The keys that lead to the records of a document."""
        names = self.records.split(".") if isinstance(self.records, str) else self.records
        return names if self.records else ()


class _Record(NamedTuple):
    """A line or an item of the array: its values, or its text and why it cannot be read."""

    number: int
    values: dict[str, Any]
    content: bytes = b""
    fault: str | None = None

    @property
    def text(self) -> str:
        return self.content.decode(errors="backslashreplace")


def read_json(path: Path, dialect: JsonDialect) -> pl.DataFrame:
    r"""The rows of a file of JSON objects (plain or packed): each value as its text, with whether it was a string.

    A column for each key, in the order in which keys occur; null where an object has no such key. Three columns more
    say which line a row is, and of a line that is no object its text and why: keep them, `validate` needs them.

    Raises:
        UnreadableError: Empty, truncated, too large, or an array or a document that is no JSON.

    Examples:
        >>> orders = Path("orders.jsonl")
        >>> _ = orders.write_text('{"order_id": "007", "amount": 1.10}\n{"order_id": "8"}\n')
        >>> rows = headrace.read_json(orders, headrace.JsonDialect())
        >>> rows.select(pl.col("order_id", "amount").struct.field("json_text").name.keep()).rows()
        [('007', '1.10'), ('8', None)]
    """
    content = read_unpacked(path, dialect.max_bytes, "an object", dialect.member).removeprefix(codecs.BOM_UTF8)
    if not content:
        raise refused(path, "it holds a byte order mark and nothing else, where an object was expected")
    records = _rows(_records(path, content, dialect), dialect)
    frames = [_frame(())]
    rows, columns = 0, dict[str, None]()
    for batch in _batches(records):
        rows += len(batch)
        columns |= dict.fromkeys(name for record in batch for name in record.values)
        check_limit(path, "columns", len(columns), dialect.max_columns)
        check_limit(path, "fields", rows * max(len(columns), 1), dialect.max_fields)
        if name := next((name for name in columns if len(name) > LONGEST_NAME or name.startswith(MARK)), ""):
            raise refused(path, f"the key {name[:80]!r} cannot be the name of a column")
        frames.append(_frame(batch))
    return pl.concat(frames, how="diagonal")


def _lines(path: Path, content: bytes, dialect: JsonDialect) -> Iterator[_Record]:
    """The lines, by their numbers; blank ones are none."""
    check_limit(path, "lines", content.count(b"\n"), dialect.max_fields)
    start = number = 0
    while start < len(content):
        end = content.find(b"\n", start)
        end = len(content) if end < 0 else end
        number += 1
        if end - start > dialect.max_record_bytes:
            raise _too_long(path, f"line {number}", end - start, dialect)
        if line := content[start:end].strip(BLANK):
            yield _record(number, line)
        start = end + 1


def _records(path: Path, content: bytes, dialect: JsonDialect) -> Iterator[_Record]:
    if dialect.layout == "lines":
        return _lines(path, content, dialect)
    content = content.strip(BLANK)
    if dialect.layout == "document":
        if not dialect.path and content.startswith(b"{"):
            return iter([_only_record(path, content, dialect)])
        content = array_at(path, content, dialect.path, dialect.max_record_bytes)
    return _items(path, content, dialect)


def _only_record(path: Path, content: bytes, dialect: JsonDialect) -> _Record:
    if len(content) > dialect.max_record_bytes:
        raise _too_long(path, "its only record", len(content), dialect)
    record = _record(1, content)
    if record.fault == SYNTAX:
        raise refused(path, f"expected a document of one object, but it is no JSON: {record.text[:80]!r}")
    return record


def _rows(records: Iterable[_Record], dialect: JsonDialect) -> Iterator[tuple[int, _Record]]:
    """The rows of records, with their size."""
    for record in records:
        size = len(record.content)
        if record.fault or not (dialect.unnest or dialect.explode):
            yield size, record
            continue
        for row in rows_of(record.values, dialect.explode, dialect.unnest):
            if isinstance(row, InvalidJsonError):
                yield size, record._replace(values={}, fault=f"json({row})")
            else:
                yield size + VALUE_BYTES * len(row), record._replace(values=row)
            size = 0


def _items(path: Path, content: bytes, dialect: JsonDialect) -> Iterator[_Record]:
    """The items of an array."""
    if not content.startswith(b"["):
        raise refused(path, f"expected an array of objects, but it begins with {content[:20]!r}")
    number, start = 0, 1
    for end in item_ends(path, content):
        item = content[start:end].strip(BLANK)
        start, number = end + 1, number + 1
        if len(item) > dialect.max_record_bytes:
            raise _too_long(path, f"item {number} of its array", len(item), dialect)
        record = _record(number, item)
        if record.fault == SYNTAX and is_cut_off(item):
            raise refused(path, f"item {number} of its array is no JSON: {record.text[:80]!r}")
        yield record


def _too_long(path: Path, where: str, size: int, dialect: JsonDialect) -> UnreadableError:
    return refused(path, f"{where} has {size:,} bytes, more than the {dialect.max_record_bytes:,} allowed")


def _record(number: int, content: bytes) -> _Record:
    try:
        values, fault = decode_json(content.decode(errors="surrogateescape")), NO_OBJECT
    except InvalidJsonError as error:
        values, fault = None, f"json({error})"
    if isinstance(values, dict):
        return _Record(number, values, content)
    return _Record(number, {}, content, fault)


def _batches(records: Iterable[tuple[int, _Record]]) -> Iterator[list[_Record]]:
    batch: list[_Record] = []
    total = 0
    for size, record in records:
        batch.append(record)
        total += size
        if total >= BATCH_BYTES:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def _frame(batch: Iterable[_Record]) -> pl.DataFrame:
    batch = list(batch)
    numbers = pl.Series(NUMBER, [record.number for record in batch], dtype=pl.UInt32)
    texts = pl.Series(RECORD, [record.text if record.fault else None for record in batch], dtype=pl.String)
    faults = pl.Series(FAULT, [record.fault for record in batch], dtype=pl.String)
    names = dict.fromkeys(name for record in batch for name in record.values)
    columns = [_column(name, [record.values.get(name) for record in batch], faults) for name in names]
    frame = pl.DataFrame([numbers, texts, faults, *(each.alias(str(place)) for place, each in enumerate(columns))])
    frame.columns = [*JSON_COLUMNS, *names]  # Polars would give a name to a column without one
    return frame


def _column(name: str, values: list[Any], faults: pl.Series) -> pl.Series:
    """The cells of a column: null where there is no value, of null fields where the record cannot be read."""
    texts = pl.Series(TEXT, [cell_text(value) for value in values], dtype=pl.String)
    is_string = [None if value is None else type(value) is str for value in values]
    fields = pl.DataFrame([texts, pl.Series(IS_STRING, is_string, dtype=pl.Boolean), faults])
    is_there = pl.col(TEXT).is_not_null() | pl.col(FAULT).is_not_null()
    return fields.select(pl.when(is_there).then(pl.struct(TEXT, IS_STRING)).alias(name)).to_series()
