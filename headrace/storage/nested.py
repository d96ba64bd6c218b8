"""The parts of nested types, as their own types."""

from collections.abc import Iterator

import polars as pl
from polars.datatypes import DataTypeClass


def item_type(dtype: pl.List | pl.Array) -> pl.DataType:
    """Type of the items."""
    return _instance(dtype.inner)


def items(column: pl.Expr, dtype: pl.List | pl.Array) -> pl.Expr:
    """The column as lists."""
    return column if isinstance(dtype, pl.List) else column.arr.to_list()


def field_types(dtype: pl.Struct) -> dict[str, pl.DataType]:
    """Field → type."""
    return {field.name: _instance(field.dtype) for field in dtype.fields}


def leaf_types(dtype: pl.DataType) -> Iterator[pl.DataType]:
    """Types of the values in a value, however deep."""
    if isinstance(dtype, pl.List | pl.Array):
        yield from leaf_types(item_type(dtype))
    elif isinstance(dtype, pl.Struct):
        for inner in field_types(dtype).values():
            yield from leaf_types(inner)
    else:
        yield dtype


def _instance(dtype: DataTypeClass | pl.DataType) -> pl.DataType:
    return dtype if isinstance(dtype, pl.DataType) else dtype()
