"""A source's `transform`, held to what it promises: every row, in order, of types that a table keeps."""

from collections.abc import Iterator

import polars as pl
import polars.selectors as cs

from headrace.dataset import UTC_MICROSECONDS, Source
from headrace.errors import HeadraceError
from headrace.storage.nested import leaf_types
from headrace.storage.parquet import keeps_type
from headrace.unexpected_errors import describe_error, is_failure
from headrace.validate.errors import InvalidContractError
from headrace.validate.parsing import holds_times, in_range


def apply_transform(where: str, source: Source, typed: pl.DataFrame) -> pl.DataFrame:
    """The rows as the validated table holds them; categories become text, which is how Parquet keeps them.

    Args:
        where: Source and partition, for messages.
        source: The source.
        typed: The accepted rows, typed.

    Raises:
        InvalidContractError: `transform` raises, loses rows or key columns, or gives what a table does not keep.
    """
    try:
        rows = source.transform(typed)
    except BaseException as error:  # a panic of Polars is not an `Exception`
        if not is_failure(error) or isinstance(error, HeadraceError):
            raise
        raise InvalidContractError(
            f"{where}: `transform` ({source.transform.__module__}) raised {describe_error(error)}. Correct it, then run"
            " `headrace validate` again."
        ) from error
    if not isinstance(rows, pl.DataFrame):
        raise InvalidContractError(
            f"{where}: expected a polars DataFrame, but `transform` ({source.transform.__module__}) returned"
            f" {type(rows).__name__}. Correct it, then run `headrace validate` again."
        )
    rows = rows.with_columns(cs.enum().cast(pl.String), cs.categorical().cast(pl.String))
    if faults := list(_faults(source, typed, rows)):
        raise InvalidContractError(
            f"{where}: `transform` ({source.transform.__module__}) gave {'; '.join(faults)}. Correct it, then run"
            " `headrace validate` again."
        )
    return rows


def _faults(source: Source, typed: pl.DataFrame, rows: pl.DataFrame) -> Iterator[str]:
    if rows.height != typed.height:
        yield (
            f"{rows.height:,} of {typed.height:,} rows: it must keep every row and their order; what has to go is"
            " rejected by a check of the contract"
        )
    if missing := [name for name in source.key if name not in rows.columns]:
        yield f"no column {', '.join(map(repr, missing))}, which the key names"
    for name, dtype in rows.schema.items():
        if any(isinstance(leaf, pl.Datetime) and leaf != UTC_MICROSECONDS for leaf in leaf_types(dtype)):
            yield f"the column {name!r} as {dtype}: times are UTC in microseconds"
        elif not keeps_type(dtype):
            yield f"the column {name!r} as {dtype}, which Parquet does not keep: convert it to numbers or text"
        elif holds_times(dtype) and (far := _count_out_of_range(rows, name, dtype)):
            yield f"{far:,} times in the column {name!r} before the year 1 or after 9999"


def _count_out_of_range(rows: pl.DataFrame, name: str, dtype: pl.DataType) -> int:
    column = pl.col(name)
    return int(rows.select((column.is_not_null() & in_range(column, dtype).is_null()).sum()).item())
