"""Partition names: which are valid, and the time interval that a name stands for."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from headrace.errors import HeadraceError
from headrace.partitions import UTC_ZONE, Partitions

MAX_NAME_BYTES = 200
"""File systems allow 255 bytes; suffix, leading dot and process id of a temporary file need the rest."""

STATIC = "static"
"""Chunk of the partitions that stand for no time interval."""

# Checked in one search over all names of a chunk, one per line.
_INVALID = re.compile(r"^(?:$|[._])|[/\\\x00-\x09\x0b-\x1f\x7f\x85\u2028\u2029]|\.\.", re.MULTILINE)
_INTERVAL = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d))?)?)?", re.ASCII)

Interval = tuple[datetime | None, datetime | None]


class PartitionNameError(HeadraceError):
    """A partition name that could not be a file name in the table's folder."""


def check_partition_names(names: Iterable[str], table: str) -> None:
    """Check that every name is one line, not empty, no path, and not hidden from readers of the table's folder.

    Raises:
        PartitionNameError: One is not.
    """
    names = list(names)
    text = "\n".join(names)
    is_short = max(map(len, names), default=0) <= MAX_NAME_BYTES // 4  # a character has at most four bytes
    if is_short and text.count("\n") < max(1, len(names)) and not (names and _INVALID.search(text)):
        return
    for name in names:
        if "\n" in name or _INVALID.search(name) or len(name.encode()) > MAX_NAME_BYTES:
            raise PartitionNameError(
                f"{table}: {name!a} is not a valid partition name. Expected one line of 1 to {MAX_NAME_BYTES} bytes"
                " without `/`, `\\` and `..` that does not begin with `.` or `_`. Correct the source's pattern, or what"
                " wrote the manifest, then run the same command again."
            )


def is_impossible_interval(name: str) -> bool:
    """Whether `name` is written as an hour, day, month or year that no calendar has, such as 2013-02-30."""
    match = _INTERVAL.fullmatch(name)
    return match is not None and _start(match) is None


@lru_cache(maxsize=1 << 16)  # readers of a table ask for each name
def partition_interval(name: str) -> Interval:
    """Start and end (exclusive, UTC) of the hour, day, month or year that `name` writes in ISO 8601.

    None and None for a static name, and for an interval that `datetime` cannot hold.
    """
    match = _INTERVAL.fullmatch(name)
    start = _start(match) if match else None
    if match is None or start is None:
        return None, None
    _, month, day, hour = match.groups()
    try:
        if hour is not None:
            return start, start + timedelta(hours=1)
        if day is not None:
            return start, start + timedelta(days=1)
        if month is not None:
            return start, (start + timedelta(days=31)).replace(day=1)
        return start, start.replace(year=start.year + 1)
    except (ValueError, OverflowError):
        return None, None


def recorded_interval(partitions: Partitions, name: str) -> Interval:
    """Start and end (exclusive, UTC) of a partition, as a manifest records them; None and None for a static name."""
    if partitions.timezone == UTC_ZONE or not partitions.is_valid(name):
        return partition_interval(name)
    return partitions.interval(name)


def _start(match: re.Match[str]) -> datetime | None:
    year, month, day, hour = match.groups()
    try:
        return datetime(int(year), int(month or 1), int(day or 1), int(hour or 0), tzinfo=UTC)
    except ValueError:
        return None


@lru_cache(maxsize=1 << 16)  # merging tables asks for each name several times
def chunk_name(partition: str) -> str:
    """Chunk of the manifest that holds a partition: the month in which its interval starts, else `static`."""
    start, _ = partition_interval(partition)
    return STATIC if start is None else f"{partition}-01"[:7]
