"""Canonical Parquet: the same rows give the same bytes, on any machine, with any number of threads.

Columns in declared order, rows sorted by declared keys, one pinned writer, page checksums, no metadata but the
schema. Only another version of pyarrow may write other bytes, so its version is part of every memo key.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP = 131_072


def canonical(frame: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """`frame` sorted by `keys`, nulls first; rows of equal keys by their other columns: no order is left to chance."""
    rest = [name for name, kind in frame.schema.items() if name not in keys and not kind.is_nested()]
    return frame.sort([*keys, *rest], nulls_last=False, maintain_order=True)


def write(frame: pl.DataFrame, path: Path | BinaryIO) -> None:
    """Write `frame` as it stands to `path`, which must not be a file that readers hold."""
    table: pa.Table = frame.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    pq.write_table(
        table.replace_schema_metadata(None),
        path,
        version="2.6",
        compression="zstd",
        compression_level=1,
        row_group_size=ROW_GROUP,
        data_page_version="1.0",
        write_page_checksum=True,
        store_schema=False,
    )


def verify(path: Path) -> int:
    """Rows of `path`, after every page has been read against its checksum.

    Raises:
        OSError: A page does not match its checksum.
    """
    return sum(batch.num_rows for batch in pq.ParquetFile(path, page_checksum_verification=True).iter_batches())
