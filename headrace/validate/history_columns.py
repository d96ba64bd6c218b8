"""What a history adds to its source: the columns of a change, which the contract and `transform` need not know."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, wraps
from pathlib import Path

import polars as pl

from headrace.dataframely_import import dataframely as dy
from headrace.dataset import HISTORY_COLUMNS, KNOWN_TIME, OPERATION, SEEN_TIME, UTC_MICROSECONDS, Source
from headrace.partitions import Partitions, TimePartitions
from headrace.validate.column_history import histories
from headrace.validate.columns import utc_time
from headrace.validate.errors import InvalidContractError
from headrace.validate.read_request import PARAMETER, ReadRequest


def with_history_columns(source: Source) -> Source:
    """The source as its history is validated; any other source, or one whose contract still needs parameters, as it is.

    The columns of a change are part of the contract, go past `transform`, and stay with rejected rows. The key begins
    with the known time. A column that the contract lets be null, and that an earlier partition does not have, is null
    there.
    """
    if not source.is_history or not isinstance(source.contract, type):
        return source
    return replace(
        source,
        contract=_extended(source.contract),
        read=_read_with(source.read, source.contract, source.partitioning),
        transform=_past(source.transform, source.key),
        key=(KNOWN_TIME, *source.key),
    )


@lru_cache
def _extended(contract: type[dy.Schema]) -> type[dy.Schema]:
    """One class for each contract, so that it is compiled once."""
    added = {KNOWN_TIME: utc_time(), SEEN_TIME: utc_time(), OPERATION: dy.String()}
    return type(contract.__name__, (contract,), {"__module__": contract.__module__, **added})


@lru_cache
def _read_with(
    read: Callable[..., pl.DataFrame], contract: type[dy.Schema], partitions: Partitions
) -> Callable[..., pl.DataFrame]:
    """`read`, with the columns that are not there and may be null, and one column of those that were renamed.

    A partition may hold changes from before a column was added or renamed and from after it, and stays as it is.
    """
    nullable = {name: column.dtype for name, column in contract.columns().items() if column.nullable}
    other_names = {name: history.other_names for name, history in histories(contract).items()}

    def complete(rows: pl.DataFrame) -> pl.DataFrame:
        rows = _merge_renamed(rows, other_names)
        missing = (name for name in nullable if not {name, *other_names.get(name, ())} & {*rows.columns})
        return rows.with_columns(pl.lit(None, nullable[name]).alias(name) for name in missing)

    @wraps(read)
    def read_history(path: Path, **options: ReadRequest) -> pl.DataFrame:
        if request := options.get(PARAMETER):
            options = {PARAMETER: _with_footer(request, complete)}
        rows: object = read(path, **options)
        if not isinstance(rows, pl.DataFrame):
            return rows  # type: ignore[return-value]  # an error that the caller names
        return _with_defaults(complete(rows), contract, partitions)

    return read_history


def _with_footer(request: ReadRequest, complete: Callable[[pl.DataFrame], pl.DataFrame]) -> ReadRequest:
    """The request, which holds the columns of a file to the contract as they are once they are complete."""
    return replace(
        request, check_schema=lambda schema: request.check_schema(complete(pl.DataFrame(schema=schema)).schema)
    )


def _with_defaults(rows: pl.DataFrame, contract: type[dy.Schema], partitions: Partitions) -> pl.DataFrame:
    """Changes with the defaults of columns that the table did not have yet when they were seen.

    A partition before `since` may have changes from before the column was added and from after it. Those that were seen
    before its first value had the default while they were alone, and keep it.
    """
    times = {rows.schema.get(KNOWN_TIME), rows.schema.get(SEEN_TIME)}
    if not (rows.height and isinstance(partitions, TimePartitions) and times == {UTC_MICROSECONDS}):
        return rows
    partition = partitions.name_at(rows.select(pl.col(KNOWN_TIME).min()).item())
    for name, history in histories(contract).items():
        own = next((each for each in (name, *history.other_names) if each in rows.columns), "")
        if own and history.default is not None and history.since and partition < history.since:
            first = pl.col(SEEN_TIME).filter(pl.col(own).is_not_null()).min()
            default = _default_as(history.default, contract.columns()[name].dtype, rows.schema[own])
            rows = rows.with_columns(pl.when(pl.col(SEEN_TIME) < first).then(default).otherwise(own).alias(own))
    return rows


def _default_as(default: object, declared: pl.DataType, kind: pl.DataType) -> pl.Expr:
    """The default in the type that the column has in the history.

    Raises:
        InvalidContractError: No value of that type is the default.
    """
    value = pl.Series([default], dtype=declared)
    try:
        found = value.cast(kind)
        if found.cast(declared).equals(value):
            return pl.lit(found.item(), kind)
    except pl.exceptions.PolarsError:
        pass
    raise InvalidContractError(
        f"the default {default!r} is no value of {kind}, which the column has in the history. Declare a default that is"
        " one, or cast the column in the query of the source, then run `headrace validate` again."
    )


def _merge_renamed(rows: pl.DataFrame, other_names: Mapping[str, tuple[str, ...]]) -> pl.DataFrame:
    """Rows in which a column that is there under several of its names has one, unless a row has values under two."""
    for name, others in other_names.items():
        found = [each for each in (name, *others) if each in rows.columns]
        one_type = len({rows.schema[each] for each in found}) == 1
        if len(found) > 1 and one_type and not rows.select(_has_several(found)).to_series().any():
            rows = rows.with_columns(pl.coalesce(found).alias(found[0])).drop(found[1:])
    return rows


def _has_several(names: Sequence[str]) -> pl.Expr:
    return pl.sum_horizontal(pl.col(name).is_not_null().cast(pl.UInt32) for name in names) > 1


def _is_reordered(rows: pl.DataFrame, found: pl.DataFrame, key: Sequence[str]) -> bool:
    """Whether the same keys come in another order."""
    if not {*key} <= {*rows.columns} & {*found.columns}:
        return False
    before, after = rows.select(key), found.select(key)
    return before.schema == after.schema and not before.equals(after) and before.sort(key).equals(after.sort(key))


def _past(transform: Callable[..., pl.DataFrame], key: Sequence[str]) -> Callable[..., pl.DataFrame]:
    """`transform`, with the columns of a change beside those that it gives."""

    @wraps(transform)
    def transform_history(rows: pl.DataFrame) -> pl.DataFrame:
        found: object = transform(rows.drop(HISTORY_COLUMNS))
        if not isinstance(found, pl.DataFrame) or found.height != rows.height:
            return found  # type: ignore[return-value]  # an error that the caller names
        if _is_reordered(rows, found, key):
            raise InvalidContractError(
                f"`transform` ({transform.__module__}) gave the rows in another order: it must keep it, since the times"
                f" of the changes are beside the rows. Correct it, then run `headrace validate` again."
            )
        return found.hstack(rows.select(HISTORY_COLUMNS))

    return transform_history
