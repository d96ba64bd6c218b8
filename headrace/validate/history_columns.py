"""What a history adds to its source: the columns of a change, which the contract and `transform` need not know."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, wraps
from pathlib import Path

import polars as pl

from headrace.dataframely_import import dataframely as dy
from headrace.dataset import HISTORY_COLUMNS, KNOWN_TIME, OPERATION, SEEN_TIME, Source
from headrace.validate.columns import utc_time
from headrace.validate.read_request import ReadRequest


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
        read=_read_with(source.read, source.contract),
        transform=_past(source.transform),
        key=(KNOWN_TIME, *source.key),
    )


@lru_cache
def _extended(contract: type[dy.Schema]) -> type[dy.Schema]:
    """One class for each contract, so that it is compiled once."""
    added = {KNOWN_TIME: utc_time(), SEEN_TIME: utc_time(), OPERATION: dy.String()}
    return type(contract.__name__, (contract,), {"__module__": contract.__module__, **added})


@lru_cache
def _read_with(read: Callable[..., pl.DataFrame], contract: type[dy.Schema]) -> Callable[..., pl.DataFrame]:
    """`read`, with the columns that are not there and may be null."""
    nullable = {name: column.dtype for name, column in contract.columns().items() if column.nullable}

    @wraps(read)  # so it has a parameter `request` if `read` has one
    def read_history(path: Path, **request: ReadRequest) -> pl.DataFrame:
        rows: object = read(path, **{name: _with_columns(wanted, nullable) for name, wanted in request.items()})
        if not isinstance(rows, pl.DataFrame):
            return rows  # type: ignore[return-value]  # an error that the caller names
        missing = [pl.lit(None, kind).alias(name) for name, kind in nullable.items() if name not in rows.columns]
        return rows.with_columns(missing)

    return read_history


def _with_columns(request: ReadRequest, nullable: Mapping[str, pl.DataType]) -> ReadRequest:
    """The request, which holds a file without some of the `nullable` columns to be whole."""
    return replace(request, check_schema=lambda schema: request.check_schema({**nullable, **schema}))


def _past(transform: Callable[..., pl.DataFrame]) -> Callable[..., pl.DataFrame]:
    """`transform`, with the columns of a change beside those that it gives."""

    @wraps(transform)
    def transform_history(rows: pl.DataFrame) -> pl.DataFrame:
        found: object = transform(rows.drop(HISTORY_COLUMNS))
        if not isinstance(found, pl.DataFrame) or found.height != rows.height:
            return found  # type: ignore[return-value]  # an error that the caller names
        return found.hstack(rows.select(HISTORY_COLUMNS))

    return transform_history
