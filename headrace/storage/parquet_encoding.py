"""The bytes of canonical Parquet: format, row groups and encodings, which every writer of tables shares."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.storage.field_ids import Renamed, with_field_ids

if TYPE_CHECKING:
    import pyarrow as pa  # who only plans names this module and does not pay for the import

ROW_GROUP = 131_072

FORMAT: dict[str, Any] = {
    "version": "2.6",
    "compression": "lz4",
    "data_page_version": "1.0",
    "write_page_checksum": True,
    "store_schema": False,
}


def encode(table: "pa.Table") -> "pa.Buffer":
    """What the installed writer makes of `table`, whether or not it is the writer that tables are recorded with."""
    import pyarrow as pa  # noqa: PLC0415

    stream = pa.BufferOutputStream()
    write_tables(iter([table]), stream)
    return stream.getvalue()


# no failpoint: does what its caller asks for, which is in a failpoint
def write_tables(tables: "Iterator[pa.Table]", sink: "Path | pa.NativeFile") -> int:
    """Write one table or more, each as row groups of its own, to `sink`; how many rows there were."""
    import pyarrow.parquet as pq  # noqa: PLC0415

    first = next(tables)
    rows = 0
    with pq.ParquetWriter(sink, first.schema, **_writer_options(first)) as file:
        for table in chain([first], tables):
            file.write_table(table, row_group_size=ROW_GROUP)
            rows += table.num_rows
    return rows


def _writer_options(table: "pa.Table") -> dict[str, Any]:
    """How each column is written: text with a dictionary, whole numbers and times as differences.

    Numbers seldom repeat enough to gain from a dictionary, which would have to be built first.
    """
    import pyarrow as pa  # noqa: PLC0415

    whole = (pa.types.is_int32, pa.types.is_int64, pa.types.is_timestamp)
    text = [field.name for field in table.schema if pa.types.is_large_string(field.type)]
    steps = [field.name for field in table.schema if any(is_kind(field.type) for is_kind in whole)]
    return {**FORMAT, "use_dictionary": text, "column_encoding": dict.fromkeys(steps, "DELTA_BINARY_PACKED")}


def arrow_table(frame: pl.DataFrame) -> "pa.Table":
    """`frame` as Arrow writes it: in one chunk, with large types, without metadata."""
    return frame.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()).replace_schema_metadata(None)


def numbered_table(frame: pl.DataFrame, renamed: Renamed = ()) -> "pa.Table":
    """The same, with a field id on every column; a renamed one keeps that of its first name."""
    import pyarrow as pa  # noqa: PLC0415

    table = arrow_table(frame)
    return pa.Table.from_arrays(table.columns, schema=with_field_ids(table.schema, renamed))
