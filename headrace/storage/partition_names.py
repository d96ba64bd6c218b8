"""Partition names: which are valid, and the time interval that a name stands for.

A raw partition of several objects has an entry in the manifest for each: `<partition>+<hash of the object's key>`. No
partition name holds a `+`.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from headrace.errors import HeadraceError
from headrace.partitions import UTC_ZONE, Partitions

MAX_NAME_BYTES = 200
"""File systems allow 255 bytes; suffix, leading dot and process id of a temporary file need the rest."""

OBJECT_SEPARATOR = "+"
"""In the name of an entry: between the partition and the hash of the object's key."""

KEY_HASH, LONG_KEY_HASH = 8, 32
"""Hexadecimal digits of that hash; the long one where two keys of one partition share the short one."""

STATIC = "static"
"""Chunk of the partitions that stand for no time interval."""

# Checked in one search over all names of a chunk, one per line.
_INVALID = re.compile(r"^(?:$|[._])|[/\\\x00-\x09\x0b-\x1f\x7f\x85\u2028\u2029]|\.\.", re.MULTILINE)
_INTERVAL = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d))?)?)?", re.ASCII)

RecordedInterval = tuple[datetime | None, datetime | None]
"""Start and end (exclusive, UTC) as a manifest has them; None and None for a static name."""


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


def partition_of(entry: str) -> str:
    """The partition that an entry of a manifest belongs to."""
    return entry.partition(OBJECT_SEPARATOR)[0]


def object_entries(partition: str, keys: Iterable[str], *, is_media: bool = False) -> dict[str, str]:
    """Entry → key, for the objects of a partition. One that is alone has the name of the partition, unless it is media.

    What is computed from an object may depend on its key only where the name of its entry does.
    """
    keys = list(keys)
    if len(keys) == 1 and not is_media:
        return {partition: keys[0]}
    hashes = {key: hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest() for key in keys}
    counts = Counter(each[:KEY_HASH] for each in hashes.values())
    digits = {key: KEY_HASH if counts[each[:KEY_HASH]] == 1 else LONG_KEY_HASH for key, each in hashes.items()}
    return {f"{partition}{OBJECT_SEPARATOR}{each[: digits[key]]}": key for key, each in hashes.items()}


def entries_by_partition(entries: Iterable[str]) -> dict[str, list[str]]:
    """Partition → its entries, in the order given."""
    grouped: dict[str, list[str]] = {}
    for name in entries:
        grouped.setdefault(partition_of(name), []).append(name)
    return grouped


def hashes_by_partition(md5s: Mapping[str, str]) -> Mapping[str, str]:
    """Partition → md5 of its bytes; of several objects, a hash over the names and md5s of their entries."""
    if not any(OBJECT_SEPARATOR in name for name in md5s):
        return md5s
    return {
        partition: md5s[partition] if names == [partition] else _hash_lines(f"{name} {md5s[name]}" for name in names)
        for partition, names in entries_by_partition(sorted(md5s)).items()
    }


def _hash_lines(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def is_impossible_interval(name: str) -> bool:
    """Whether `name` is written as an hour, day, month or year that no calendar has, such as 2013-02-30."""
    match = _INTERVAL.fullmatch(name)
    return match is not None and _start(match) is None


@lru_cache(maxsize=1 << 16)  # readers of a table ask for each name
def partition_interval(name: str) -> RecordedInterval:
    """Start and end (exclusive, UTC) of the hour, day, month or year that a partition or an entry writes in ISO 8601.

    None and None for a static name, and for an interval that `datetime` cannot hold.
    """
    match = _INTERVAL.fullmatch(partition_of(name))
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


def recorded_interval(partitions: Partitions, name: str) -> RecordedInterval:
    """Start and end (exclusive, UTC) of a partition, as a manifest records them; None and None for a static name."""
    partition = partition_of(name)
    if partitions.timezone == UTC_ZONE or not partitions.is_valid(partition):
        return partition_interval(partition)
    return partitions.interval(partition)


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
    return STATIC if start is None else f"{partition_of(partition)}-01"[:7]
