"""Times of day in Parquet that Polars reads as null: `24:00:00`, and numbers before or after a day."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from headrace.storage.nested import field_types, item_type

if TYPE_CHECKING:
    import pyarrow as pa  # only files with times of day need it

TICKS_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
DAY_S = 86_400


def times_outside_the_day(path: Path, schema: Mapping[str, pl.DataType]) -> Iterator[tuple[str, str]]:
    """Column and value of the first time outside of a day, for each column that holds one.

    Args:
        path: Parquet file.
        schema: Column → type as Polars reads it.
    """
    names = [name for name, dtype in schema.items() if _holds_clock_times(dtype)]
    if not names:
        return
    import pyarrow.parquet as pq  # noqa: PLC0415

    table = pq.read_table(path, columns=names)
    for name in names:
        found = (_first_outside(chunk) for chunk in table.column(name).chunks)
        if value := next(filter(None, found), ""):
            yield name, value


def _holds_clock_times(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List | pl.Array):
        return _holds_clock_times(item_type(dtype))
    if isinstance(dtype, pl.Struct):
        return any(map(_holds_clock_times, field_types(dtype).values()))
    return dtype == pl.Time


def _first_outside(values: "pa.Array") -> str:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    kind = values.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _first_outside(values.flatten())
    if pa.types.is_map(kind):
        return _first_outside(values.keys) or _first_outside(values.items)
    if pa.types.is_struct(kind):
        return next(filter(None, map(_first_outside, values.flatten())), "")
    if not pa.types.is_time(kind):
        return ""
    ticks = values.view(pa.int32() if pa.types.is_time32(kind) else pa.int64())
    per_day = DAY_S * TICKS_PER_SECOND[kind.unit]
    outside = ticks.filter(pc.or_(pc.less(ticks, 0), pc.greater_equal(ticks, per_day)))
    if not len(outside):
        return ""
    first = outside[0].as_py()
    return "24:00:00" if first == per_day else f"{first} {kind.unit}"
