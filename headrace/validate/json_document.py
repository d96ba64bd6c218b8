"""Where the records of a JSON document are, and a record as rows of columns.

A document is cut into the items of one array by its brackets alone, so that a damaged item leaves the others as they
are. What is around the array is decoded, too: a document that is not whole is refused.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from headrace.validate.json_values import InvalidJsonError, decode_json
from headrace.validate.unreadable import UnreadableError, check_limit, refused

STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)

TOKEN = re.compile(STRING.pattern + rb"|[\[\]{},]", re.DOTALL)
"""What decides where a record ends: brackets and commas that are in no string."""

SCALAR = re.compile(rb"[^][{},:\"\s]*")

BLANKS = re.compile(rb"[ \t\r\n]*")

OPENING, CLOSING = (b"[", b"{"), (b"]", b"}")

BLANK = b" \t\r\n"

MOST_NAMES = 5

PLACEHOLDER = "\x1frecords"
"""What stands for the array of records while the rest of the document is decoded."""


def array_at(path: Path, content: bytes, names: Sequence[str], max_bytes: int) -> bytes:
    """The array at a path of keys; the rest of the document is whole.

    Args:
        path: The file, for messages.
        content: The document.
        names: The keys that lead to the array, from the outermost on.
        max_bytes: Most bytes of the document without the array.

    Raises:
        UnreadableError: There is no such array, or the document around it is no JSON.
    """
    start = 0
    for depth, name in enumerate(names):
        start = _value_of(path, content, start, names[:depth], name)
    if content[start : start + 1] != b"[":
        seen = content[start : start + 20].decode(errors="replace")
        raise refused(path, f"expected an array of objects at {'.'.join(names)!r}, but it begins with {seen!r}")
    end = _value_end(path, content, start)
    around = content[:start] + json.dumps(PLACEHOLDER).encode() + content[end:]
    check_limit(path, "bytes around its records", len(around), max_bytes)
    try:
        value = decode_json(around.decode(errors="surrogateescape"))
    except InvalidJsonError as error:
        raise refused(path, f"around its records, the document is no JSON ({error})") from error
    for name in names:
        value = value[name]
    if value != PLACEHOLDER:  # the brackets of a document that is no JSON have led elsewhere
        raise refused(path, f"expected its records at {'.'.join(names)!r}, which it has more than once")
    return content[start:end]


def item_ends(path: Path, content: bytes) -> Iterator[int]:
    """Where the items of an array end: at the commas that are in no item, and at its last bracket."""
    depth = 0
    for token in TOKEN.finditer(content):
        mark, place = token[0], token.start()
        depth += (mark in OPENING) - (mark in CLOSING)
        if mark == b"," and depth == 1:
            yield place
        elif not depth:
            if place + 1 < len(content):
                raise refused(path, "more text follows its array")
            if content[1:place].strip(BLANK):
                yield place
            return
    raise refused(path, "its array has no end: the file was cut")


def is_cut_off(item: bytes) -> bool:
    """Whether an item that is no JSON may hold more than one record, or less: where it ends is then not known.

    It is no object from its first to its last character, or one of its strings spans lines, which no string of JSON
    does: a quote is missing.
    """
    is_object = item.startswith(b"{") and item.endswith(b"}")
    return not is_object or any(b"\n" in text[0] for text in STRING.finditer(item))


Row = dict[str, Any] | InvalidJsonError
"""The values of a row, or why it has none."""


def rows_of(values: dict[str, Any], explode: str, unnest: Sequence[str]) -> Iterator[Row]:
    """A record as one row for each item of its array `explode`, with the fields of its objects as columns `a.b`.

    A record without such items is one row. A row is an error where a value is neither null nor of the kind that is
    expected, or where two columns would have one name.

    Args:
        values: The record.
        explode: Key of the array; empty for none.
        unnest: Keys of the objects, outer ones first. Those below `explode` are objects of its items.
    """
    inner = [name for name in unnest if explode and f"{name}.".startswith(f"{explode}.")]
    row = _unnested(values, [name for name in unnest if name not in inner])
    if not explode or isinstance(row, InvalidJsonError):
        yield row
        return
    items = row.pop(explode, None)
    if not isinstance(items, list | None):
        yield InvalidJsonError(f"{explode} is no array")
        return
    for item in items or ():
        yield _unnested({**row, explode: item}, inner)
    if not items:
        yield row


def _unnested(values: Mapping[str, Any], names: Sequence[str]) -> Row:
    flat = dict(values)
    for name in names:
        fields = flat.pop(name, None)
        if not isinstance(fields, dict | None):
            return InvalidJsonError(f"{name} is no object")
        columns = {f"{name}.{field}": value for field, value in (fields or {}).items()}
        if columns.keys() & flat.keys():
            return InvalidJsonError("duplicate key")
        flat |= columns
    return flat


def _value_of(path: Path, content: bytes, start: int, outer: Sequence[str], name: str) -> int:
    """Where the value of a key begins, in the object that begins at `start`."""
    seen: list[str] = []
    for key, place in _members(path, content, start):
        if key == name:
            return place
        seen.append(key)
    where = f"the object at {'.'.join(outer)!r}" if outer else "the document"
    listed = ", ".join(map(repr, seen[:MOST_NAMES])) + " …" * (len(seen) > MOST_NAMES) or "none"
    raise refused(path, f"expected its records below the key {name!r}, but {where} has the keys {listed}")


def _members(path: Path, content: bytes, start: int) -> Iterator[tuple[str, int]]:
    """The keys of an object, with where their values begin; none if it is no object."""
    mark, place = b"{", start
    while content[place : place + 1] == mark:
        key = STRING.match(content, _after_blanks(content, place + 1))
        if key is None:
            return
        place = _after_blanks(content, key.end())
        if content[place : place + 1] != b":":
            raise _not_whole(path)
        place = _after_blanks(content, place + 1)
        yield _text(path, key[0]), place
        mark, place = b",", _after_blanks(content, _value_end(path, content, place))


def _text(path: Path, key: bytes) -> str:
    try:
        return str(json.loads(key))
    except ValueError as error:
        raise _not_whole(path) from error


def _value_end(path: Path, content: bytes, start: int) -> int:
    """The place after the value that begins at `start`."""
    if content[start : start + 1] not in OPENING:
        value = STRING.match(content, start) or SCALAR.match(content, start)
        return value.end() if value else start
    depth = 0
    for token in TOKEN.finditer(content, start):
        depth += (token[0] in OPENING) - (token[0] in CLOSING)
        if not depth:
            return token.end()
    raise refused(path, "its document has no end: the file was cut")


def _after_blanks(content: bytes, place: int) -> int:
    blanks = BLANKS.match(content, place)
    return blanks.end() if blanks else place


def _not_whole(path: Path) -> UnreadableError:
    return refused(path, "around its records, the document is no JSON (syntax)")
