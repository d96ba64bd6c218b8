"""A key is unique over the whole table: the first row of the earliest partition that holds it keeps it.

Two nulls are equal, within a partition and between two.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import polars as pl

from headrace.validate.as_text import as_text
from headrace.validate.reserved_names import MARK

IS_KNOWN, PARTITION = f"{MARK}is known", f"{MARK}partition"

Span = Sequence[Any]
"""First and last value of the leading key column, as a manifest keeps them: integers or text; null comes first."""


def unique_check(key: Sequence[str]) -> str:
    """The name of the check that a key is unique in the table."""
    return f"unique({', '.join(key)})"


def is_first_of_key(rows: pl.DataFrame, key: Sequence[str], heights: Sequence[int]) -> pl.Series:
    """True for the first row of each key in its partition.

    Args:
        rows: The rows of partitions, one after the other.
        key: Columns of the key.
        heights: How many rows each partition has.
    """
    if len(heights) == 1:
        return rows.select(pl.struct(key).is_first_distinct()).to_series()
    numbers = pl.int_range(len(heights), eager=True).repeat_by(pl.Series(heights)).explode(empty_as_null=False)
    return rows.select(pl.struct(numbers.alias(PARTITION), *key).is_first_distinct()).to_series()


def keys_together(rows: pl.DataFrame, others: Sequence[pl.DataFrame], key: Sequence[str]) -> pl.LazyFrame:
    """The keys of other partitions, in the types that those of `rows` have; where a type became wider, in that."""
    keys = pl.concat([rows.clear().select(key), *(other.select(key) for other in others)], how="vertical_relaxed")
    return keys.lazy()


def is_known_key(rows: pl.DataFrame, earlier: pl.LazyFrame, key: Sequence[str]) -> pl.Series:
    """True for each row whose key is in `earlier`, accepted rows of other partitions."""
    types: Mapping[Any, pl.DataType] = earlier.select(key).collect_schema()
    known = earlier.select(key).unique().with_columns(pl.lit(value=True).alias(IS_KNOWN))
    keys = rows.lazy().select(key).cast(types)  # a smaller integer, if partitions differ
    joined = keys.join(known, on=list(key), how="left", nulls_equal=True, maintain_order="left")
    return joined.select(pl.col(IS_KNOWN).fill_null(value=False)).collect().to_series()


def key_span(column: pl.Series) -> Span | None:
    """The span of a leading key column; None of no rows.

    Values that JSON does not hold in their order are spanned as text: spans of equal values then still overlap.
    """
    if column.is_empty():
        return None
    dtype, values = column.dtype, column
    if not (dtype.is_integer() or dtype == pl.String or isinstance(dtype, pl.Date | pl.Datetime)):
        if dtype.is_float():  # -0.0 and 0.0 are one key, so they need one text
            values = column.set(column == 0, 0.0)
        values = values.to_frame().select(as_text(pl.col(column.name), dtype)).to_series()
    ends = (None if column.null_count() else values.min(), values.max())
    return [end.isoformat() if isinstance(end, date) else end for end in ends]


def partitions_with_shared_keys(spans: Mapping[str, Span | None]) -> Iterator[tuple[str, Sequence[str]]]:
    """Each partition, by name, with the earlier ones that may hold its keys.

    Args:
        spans: Partition → span; None where it is not known yet, or holds no rows.
    """
    earlier: list[str] = []
    latest: tuple[Any, ...] = ()
    for name in sorted(spans):
        shared: Sequence[str] = ()
        if span := spans[name]:
            first, last = map(_sort_key, span)
            if latest >= first:
                shared = [other for other in earlier if _spans_overlap(spans[other], span)]
            latest = max(latest, last)
            earlier.append(name)
        yield name, shared


def _spans_overlap(span: Span | None, other: Span) -> bool:
    return span is not None and _sort_key(span[0]) <= _sort_key(other[1]) and _sort_key(other[0]) <= _sort_key(span[1])


def _sort_key(value: Any) -> tuple[Any, ...]:  # noqa: ANN401  what a manifest holds
    """What sorts null first, then numbers, then text: a column may have had another type when a partition was made."""
    return (0,) if value is None else (2, value) if isinstance(value, str) else (1, value)
