"""Parquet → typed rows: the footer is held to the contract and to the bounds before any value is read."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.unexpected_errors import describe_error, is_known_os_error
from headrace.validate.clock_times import times_outside_the_day
from headrace.validate.read_request import ReadRequest
from headrace.validate.unreadable import MAX_BYTES, MAX_COLUMNS, MAX_FIELDS, check_limit, refused

if TYPE_CHECKING:
    import pyarrow as pa

MOST_DIGITS = 38
"""Digits that a decimal of Polars has at most."""


def read_parquet(
    path: Path,
    *,
    max_bytes: int = MAX_BYTES,
    max_columns: int = MAX_COLUMNS,
    max_fields: int = MAX_FIELDS,
    request: ReadRequest | None = None,
) -> pl.DataFrame:
    """The rows of a Parquet file.

    As the `read` of a source, it holds the file's schema to the contract before it reads a value, and with
    `extra_columns="drop"` it reads the columns of the contract alone.

    Args:
        path: The file.
        max_bytes: Most bytes that the columns that are read may have once unpacked, in all row groups together.
        max_columns: Most columns, fields of nested columns included.
        max_fields: Most values in all columns that are read, those in lists included.
        request: What `validate` wants of the file.

    Raises:
        UnreadableError: It is no whole Parquet file, it is too large, or Polars would change a value.
        SchemaChangedError: It has other columns than the contract.
        ColumnTypeChangedError: No value of a column's type can be one of its declared type.

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
        fields = [*facts.schema.to_arrow_schema()]
        if request is not None:
            request.check_schema(dict(pl.read_parquet_schema(path)))
        names = _wanted([field.name for field in fields], request)
        _check_size(path, facts, _leaves(fields, names), max_bytes, max_fields)
        if wide := wide_decimals(field for field in fields if names is None or field.name in names):
            raise refused(
                path,
                f"the column {wide[0].name} holds {wide[0].type}: a decimal has {MOST_DIGITS} digits at most. Have the"
                " producer write it as text or as a smaller decimal",
            )
        rows = pl.read_parquet(path, columns=names)
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


def _wanted(names: Sequence[str], request: ReadRequest | None) -> list[str] | None:
    """The columns to read, in the order of the file; None for all of them."""
    if request is None or request.extra_columns != "drop":
        return None
    return [name for name in names if name in request.columns]


def _check_size(path: Path, facts: Any, leaves: Sequence[int], max_bytes: int, max_fields: int) -> None:  # noqa: ANN401  PyArrow has no types
    """Unpacked bytes and values of the columns that are read, in all row groups, as the footer gives them."""
    chunks = [facts.row_group(group).column(leaf) for group in range(facts.num_row_groups) for leaf in leaves]
    if len(leaves) == facts.num_columns:
        size = sum(facts.row_group(group).total_byte_size for group in range(facts.num_row_groups))
    else:
        size = sum(chunk.total_uncompressed_size for chunk in chunks)
    check_limit(path, "unpacked bytes", size, max_bytes)
    check_limit(path, "fields", sum(chunk.num_values for chunk in chunks), max_fields)


def _leaves(fields: "Sequence[pa.Field]", names: Sequence[str] | None) -> list[int]:
    """The numbers, among the columns of the footer, of the columns that are read."""
    counts = [_leaf_count(field.type) for field in fields]
    starts = [sum(counts[:number]) for number in range(len(counts))]
    return [
        leaf
        for field, start, count in zip(fields, starts, counts, strict=True)
        if names is None or field.name in names
        for leaf in range(start, start + count)
    ]


def _leaf_count(kind: "pa.DataType") -> int:
    """Columns of a footer that a column of this type takes."""
    kind = getattr(kind, "storage_type", kind)
    return sum(_leaf_count(kind.field(number).type) for number in range(kind.num_fields)) or 1
