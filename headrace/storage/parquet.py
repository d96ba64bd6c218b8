"""Canonical Parquet: the same rows give the same bytes, on any machine, with any number of threads.

Columns in declared order, rows sorted by declared keys, one pinned writer, page checksums, no metadata but the
schema. Only another version of pyarrow may write other bytes, so its version is part of every cache key.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import polars as pl

from headrace.storage.field_ids import Renamed, Schema, describe_schema, hash_of_arrow_schema
from headrace.storage.golden import check_writer
from headrace.storage.nested import field_types, item_type
from headrace.storage.parquet_encoding import ROW_GROUP, arrow_table, encode, numbered_table, write_tables

if TYPE_CHECKING:
    import pyarrow as pa  # who only plans names this module and does not pay for the import

KEPT_TYPES = (
    *(pl.Boolean, pl.String, pl.Binary, pl.Date, pl.Time, pl.Float32, pl.Float64, pl.Decimal),
    *(pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64),
)


def keeps_type(dtype: pl.DataType) -> bool:
    """Whether a reader gets a column back with the type that it was written with.

    Without the Arrow schema in the file, a duration comes back as an integer, a 16-bit float as bytes, an array as a
    list, a category as text, a time of another zone in UTC, and a column without a type as 32-bit integers.
    """
    if isinstance(dtype, pl.List):
        return keeps_type(item_type(dtype))
    if isinstance(dtype, pl.Struct):
        return bool(dtype.fields) and all(map(keeps_type, field_types(dtype).values()))
    if isinstance(dtype, pl.Datetime):
        return dtype.time_zone in (None, "UTC")
    return isinstance(dtype, KEPT_TYPES)


def canonical(frame: pl.DataFrame, keys: Sequence[str], *, is_unique: bool = False) -> pl.DataFrame:
    """`frame` sorted by `keys`, nulls first; rows of equal keys by their other columns: no order is left to chance.

    Keys that are known to be unique leave no such rows.
    """
    if is_unique:
        return frame.sort(keys, nulls_last=False)
    rest = [name for name, kind in frame.schema.items() if name not in keys and not kind.is_nested()]
    return frame.sort([*keys, *rest], nulls_last=False, maintain_order=True)


# no failpoint: does what its caller asks for, which is in a failpoint
def write(frame: pl.DataFrame, path: Path | BinaryIO) -> None:
    """Write `frame` as it stands to `path`, which must not be a file that readers hold."""
    if isinstance(path, Path):
        path.write_bytes(to_parquet_bytes(frame))
    else:
        path.write(to_parquet_bytes(frame))


def to_parquet_bytes(frame: pl.DataFrame) -> "pa.Buffer":
    """The bytes of `frame` as it stands.

    Raises:
        WriterChangedError: The installed writer gives other bytes than tables are recorded with.
    """
    check_writer()
    return encode(arrow_table(frame))


@dataclass(frozen=True)
class PartitionBytes:
    """A partition of a table in Parquet.

    Attributes:
        content: The bytes, with a field id on every column.
        schema: Hash of the schema, by which the manifest names it.
    """

    content: "pa.Buffer"
    schema: str


def encode_partition(frame: pl.DataFrame, renamed: Renamed = ()) -> PartitionBytes:
    """A partition of a table, with the rows of `frame` as it stands; renamed columns keep the ids of their first names.

    Raises:
        WriterChangedError: The installed writer gives other bytes than tables are recorded with.
    """
    check_writer()
    table = numbered_table(frame, renamed)
    return PartitionBytes(encode(table), hash_of_arrow_schema(table.schema))


def read_schema(path: Path) -> Schema:
    """The columns of a Parquet file with field ids."""
    import pyarrow.parquet as pq  # noqa: PLC0415

    return describe_schema(pq.read_schema(path))


# no failpoint: does what its caller asks for, which is in a failpoint
def write_all(frames: Iterator[pl.DataFrame], path: Path) -> int:
    """Write the rows of `frames`, one after the other, to `path`, whole or not at all; how many there were.

    However the rows are cut into frames, the bytes are the same.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        check_writer()
        rows = write_tables(_groups(frames), temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return rows


def _groups(frames: Iterator[pl.DataFrame]) -> "Iterator[pa.Table]":
    """The rows in tables of whole row groups, but for the last one; one table at least."""
    rest = next(frames)
    for frame in frames:
        whole = rest.height // ROW_GROUP * ROW_GROUP
        if whole:
            yield arrow_table(rest[:whole])
        rest = pl.concat([rest[whole:], frame])
    yield arrow_table(rest)
