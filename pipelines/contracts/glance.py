"""A frame and its Pandera schema → whether every row passes, told by one query.

Pandera collects each check by itself, tens of milliseconds a frame. Nearly every partition is good in all its rows:
then one query over the same checks says so. Whatever else it finds, it says no, and Pandera finds which and why.
"""

from collections.abc import Iterator

import pandera.polars as pa
import polars as pl
from pandera.api.polars.types import PolarsData
from pandera.backends.polars import builtin_checks as _registered  # noqa: F401  what `pa.Check.ge` and its like do
from pandera.backends.polars.checks import PolarsCheckBackend


def all_good(typed: pl.DataFrame, schema: pa.DataFrameSchema) -> bool:
    """Whether Pandera would find nothing; False also where only Pandera can say."""
    if not _is_plain(typed, schema):
        return False
    try:
        return all(found.item() for found in pl.collect_all(list(_verdicts(typed.lazy(), schema))))
    except Exception:  # noqa: BLE001  a check that can not be applied: Pandera has the words for it
        return False


def _is_plain(typed: pl.DataFrame, schema: pa.DataFrameSchema) -> bool:
    """Whether the schema is types, nulls and checks, and the frame is of these types."""
    columns = schema.columns.values()
    beyond = (schema.unique, schema.coerce, schema.ordered, schema.parsers, schema.dtype)
    if any(beyond) or any(column.unique or column.regex or column.coerce or column.parsers for column in columns):
        return False
    return typed.schema == {name: column.dtype.type for name, column in schema.columns.items()}


def _verdicts(rows: pl.LazyFrame, schema: pa.DataFrameSchema) -> Iterator[pl.LazyFrame]:
    """One frame of one truth for each check."""
    for name, column in schema.columns.items():
        if not column.nullable:
            missing = pl.col(name).is_null()
            yield rows.select(~(missing | pl.col(name).is_nan() if column.dtype.type.is_float() else missing).any())
        for check in column.checks:
            yield _verdict(rows, check, name)
    for check in schema.checks:
        yield _verdict(rows, check, "*")


def _verdict(rows: pl.LazyFrame, check: pa.Check, key: str) -> pl.LazyFrame:
    held: pl.LazyFrame | bool = PolarsCheckBackend(check).apply(PolarsData(rows, key))
    if isinstance(held, bool):
        return pl.LazyFrame({"held": [held]})
    return held.select(pl.all().fill_null(bool(check.ignore_na)).all())
