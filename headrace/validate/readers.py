"""Bytes of a raw partition, unpacked within bounds, and the rows of Parquet files.

Nothing is sniffed or guessed. Projects may import `CsvDialect` and `read_csv` from here, too.
"""

import zlib
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.errors import HeadraceError
from headrace.unexpected_errors import describe_error, is_known_os_error
from headrace.validate.clock_times import times_outside_the_day

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.validate.csv_dialect import CsvDialect as CsvDialect  # noqa: PLC0414  for type checkers
    from headrace.validate.csv_reader import read_csv as read_csv  # noqa: PLC0414

GZIP = b"\x1f\x8b"
MAGIC = {".gz": GZIP, ".bz2": b"BZh", ".zst": b"\x28\xb5\x2f\xfd", ".xz": b"\xfd7zXZ", ".parquet": b"PAR1"}
KINDS = {".gz": "gzip", ".bz2": "bzip2", ".zst": "Zstandard", ".xz": "XZ", ".parquet": "Parquet"}
"""Suffix → how a file of that kind begins, and what it is called."""
GZIP_FORMAT = zlib.MAX_WBITS | 16

MAX_BYTES, MAX_COLUMNS, MAX_FIELDS = 1 << 29, 10_000, 50_000_000
"""Most unpacked bytes, columns and fields of a file. Reading one takes several times its unpacked size."""

LONGEST_NAME = 10_000
"""Characters that the name of a column may have."""

MOST_DIGITS = 38
"""Digits that a decimal of Polars has at most."""

CHUNK = 32 << 10
"""Bytes of gzip that are unpacked together: what is left of them after each member of the file is copied."""


CSV_NAMES = {"CsvDialect": "headrace.validate.csv_dialect", "read_csv": "headrace.validate.csv_reader"}


def __getattr__(name: str) -> Any:  # noqa: ANN401  whatever is exported
    """Import what has a module of its own, which imports this one, when it is first used (PEP 562)."""
    if name not in CSV_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(CSV_NAMES[name]), name)
    return value


class UnreadableError(HeadraceError):
    """The bytes of a raw partition cannot be read as what they are declared to be; `reason` says why, in few words."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


def read_parquet(
    path: Path, *, max_bytes: int = MAX_BYTES, max_columns: int = MAX_COLUMNS, max_fields: int = MAX_FIELDS
) -> pl.DataFrame:
    """The rows of a Parquet file as ingest wrote it from a database.

    Args:
        path: The file.
        max_bytes: Most bytes that it may have once unpacked.
        max_columns: Most columns, fields of nested columns included.
        max_fields: Most values in all columns together, those in lists included.

    Raises:
        UnreadableError: It is no whole Parquet file, it is too large, or Polars would change a value.

    Examples:
        >>> pl.DataFrame({"order_id": [7]}).write_parquet("orders.parquet")
        >>> headrace.read_parquet(Path("orders.parquet")).rows()
        [(7,)]
    """
    import pyarrow as pa  # noqa: PLC0415  who only plans does not pay for the imports
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        facts = pq.read_metadata(path)
        check_limit(path, "columns", facts.num_columns, max_columns)
        groups = [facts.row_group(number) for number in range(facts.num_row_groups)]
        check_limit(path, "unpacked bytes", sum(group.total_byte_size for group in groups), max_bytes)
        values = (group.column(number).num_values for group in groups for number in range(group.num_columns))
        check_limit(path, "fields", sum(values), max_fields)
        if wide := wide_decimals(facts.schema.to_arrow_schema()):
            raise refused(
                path,
                f"the column {wide[0].name} holds {wide[0].type}: a decimal has {MOST_DIGITS} digits at most. Have the"
                " producer write it as text or as a smaller decimal",
            )
        rows = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException, OSError) as error:
        if is_known_os_error(error):  # the machine is at fault, not the file
            raise
        raise refused(path, f"expected a Parquet file written by ingest, but: {describe_error(error)}") from error
    for column, time in times_outside_the_day(path, rows.schema):
        raise refused(
            path, f"the column {column} holds the time {time}, which is outside of the day: Polars has no such"
        )
    return rows


def wide_decimals(fields: "Iterable[pa.Field]") -> "list[pa.Field]":
    """Columns that hold decimals of more digits than Polars has, however deep."""
    import pyarrow as pa  # noqa: PLC0415

    def is_wide(kind: pa.DataType) -> bool:
        if pa.types.is_decimal(kind):
            return bool(kind.precision > MOST_DIGITS)
        return any(is_wide(kind.field(number).type) for number in range(kind.num_fields))

    return [field for field in fields if is_wide(field.type)]


def refused(path: Path, reason: str) -> UnreadableError:
    """The error for a file that cannot be read; `validate` adds to its reason which partition the file is."""
    return UnreadableError(
        f"{path}: {reason}. Have the producer send it again, whole, then run `headrace ingest` and"
        " `headrace validate`.",
        reason,
    )


def check_suffix(path: Path, suffix: str) -> None:
    """Check that a raw partition begins as files with its suffix do: the objects of a cache have no suffix.

    Raises:
        UnreadableError: It does not.
    """
    name, magic = next(((end, start) for end, start in MAGIC.items() if suffix.endswith(end)), ("", b""))
    if magic:
        with path.open("rb") as file:
            start = file.read(len(magic))
        if start and start != magic:
            seen = start.hex(" ")
            raise refused(path, f"expected {KINDS[name]} by its suffix {suffix}, but it begins with the bytes {seen}")


def read_unpacked(path: Path, max_bytes: int, expected: str = "a header line at least") -> bytes:
    """The bytes of a plain file or of one that gzip packed; there are some, and no more than allowed."""
    size = path.stat().st_size
    if not size:
        raise refused(path, f"it is empty: 0 bytes, where {expected} was expected")
    check_suffix(path, path.suffix)
    check_limit(path, "bytes", size, max_bytes)
    packed = path.read_bytes()
    if not packed.startswith(GZIP):
        return packed
    try:
        content = _gunzipped(packed, max_bytes + 1)
    except (EOFError, zlib.error) as error:
        raise refused(path, f"truncated or damaged gzip of {len(packed):,} bytes ({error})") from error
    if len(content) > max_bytes:
        raise refused(path, f"{len(packed):,} bytes of gzip unpack to more than the {max_bytes:,} allowed")
    if not content:
        raise refused(path, f"it is gzip of 0 bytes, where {expected} was expected")
    return content


def _gunzipped(packed: bytes, most: int) -> bytes:
    """The content of one gzip member or several, up to so many bytes."""
    parts: list[bytes] = []
    member, is_begun = zlib.decompressobj(GZIP_FORMAT), False
    for start in range(0, len(packed), CHUNK):
        chunk = packed[start : start + CHUNK]
        while chunk and most > 0:
            if not is_begun and not (chunk := chunk.lstrip(b"\0")):  # members may be padded with zeros
                break
            parts.append(member.decompress(chunk, most))
            most -= len(parts[-1])
            chunk, is_begun = member.unconsumed_tail, True
            if member.eof:
                chunk, member, is_begun = member.unused_data, zlib.decompressobj(GZIP_FORMAT), False
    if is_begun and most > 0:
        raise EOFError("it ends before its end was marked")
    return b"".join(parts)


def check_limit(path: Path, what: str, found: int, most: int) -> None:
    """Refuse a file that has more of something than is allowed."""
    if found > most:
        raise refused(path, f"it has {found:,} {what}, more than the {most:,} allowed")
