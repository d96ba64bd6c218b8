"""Golden bytes: what the Parquet writer must give, shipped with the package and recomputed before the first write.

Equal rows are equal bytes only while one writer writes them. A version of pyarrow that lays a page out differently
would change every hash of every table; so a process writes nothing before it has written one fixed table and found the
hash that `golden.json` records. That costs a few milliseconds, and no environment can be forgotten.
"""

import hashlib
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import polars as pl

from headrace.errors import HeadraceError
from headrace.storage.parquet_encoding import arrow_table, encode, numbered_table

FILE = "golden.json"


class WriterChangedError(HeadraceError):
    """The Parquet writer installed here gives other bytes than the ones that tables are recorded with."""


@cache
def check_writer() -> None:
    """Hold the Parquet writer to the golden bytes, once per process.

    Raises:
        WriterChangedError: It gives other bytes. Nothing was written.
    """
    expected = recorded()
    found = golden_hash()
    if found != expected["sha256"]:
        wanted = " ".join(f"'{name}=={number}'" for name, number in expected["libraries"].items())
        installed = ", ".join(f"{name} {version(name)}" for name in expected["libraries"])
        raise WriterChangedError(
            f"The Parquet writer gives other bytes here than tables are recorded with: expected sha256"
            f" {expected['sha256'][:16]}, found {found[:16]} ({installed}). Nothing was written. Install what writes"
            f" those bytes: `pip install {wanted}`."
        )


def recorded() -> dict[str, Any]:
    """What `golden.json` holds: the hash, and the libraries it was computed with."""
    content: dict[str, Any] = json.loads(files("headrace.storage").joinpath(FILE).read_text("utf-8"))
    return content


def golden_hash() -> str:
    """SHA-256 of the golden tables, as the writer installed here writes them."""
    digest = hashlib.sha256()
    for table in (numbered_table(_every_type()), arrow_table(_many_rows())):
        digest.update(encode(table))
    return digest.hexdigest()


def _every_type() -> pl.DataFrame:
    """One column per type that a table may have: extremes, nulls, and values that writers have encoded differently."""
    moment = datetime(2013, 1, 9, 5, 30, tzinfo=UTC)
    return pl.DataFrame(
        {
            "int8": pl.Series([-128, None, 127], dtype=pl.Int8),
            "int16": pl.Series([-(2**15), None, 2**15 - 1], dtype=pl.Int16),
            "int32": pl.Series([-(2**31), None, 2**31 - 1], dtype=pl.Int32),
            "int64": pl.Series([-(2**63), None, 2**63 - 1], dtype=pl.Int64),
            "uint32": pl.Series([0, None, 2**32 - 1], dtype=pl.UInt32),
            "uint64": pl.Series([0, None, 2**64 - 1], dtype=pl.UInt64),
            "float32": pl.Series([-0.0, None, float("nan")], dtype=pl.Float32),
            "float64": pl.Series([float("-inf"), None, 0.1], dtype=pl.Float64),
            "boolean": pl.Series([True, None, False]),
            "string": pl.Series(["", None, "Zürich — 北京"]),
            "binary": pl.Series([b"", None, b"\x00\xff"]),
            "date": pl.Series([date(1, 1, 1), None, date(9999, 12, 31)]),
            "datetime": pl.Series([moment, None, moment + timedelta(microseconds=1)], dtype=pl.Datetime("us", "UTC")),
            "decimal": pl.Series([Decimal("-1.20"), None, Decimal("99999999.99")], dtype=pl.Decimal(10, 2)),
            "list": pl.Series([[], None, [1, None, 3]], dtype=pl.List(pl.Int64)),
            "struct": pl.Series([{"a": 1, "b": None}, None, {"a": None, "b": "x"}]),
        }
    )


def _many_rows(rows: int = 132_000) -> pl.DataFrame:
    """More rows than a row group and a data page hold, so that where the writer cuts them counts, too."""
    number = pl.int_range(rows, eager=True)
    return pl.DataFrame({"number": number, "share": number / rows})
