"""The check that a row is in the interval of its partition, where a source declares its partitions."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC
from typing import TypeVar

import polars as pl

from headrace.dataset import EVENT_TIME, UTC_MICROSECONDS, Source
from headrace.partitions import Hourly, TimePartitions
from headrace.validate.result import ValidationResult
from headrace.validate.uniqueness import key_span

CHECK = "partition"

R = TypeVar("R", bound=ValidationResult)


def reject_rows_of_other_partitions(result: R, source: Source, partition: str) -> R:
    """The result after the accepted rows outside of the partition's interval have failed `<column>|partition`.

    The column is the leading one of the key, else `event_time`, if it holds times. Null passes.

    Args:
        result: The result before keys are compared, so that a row in the wrong partition takes no key from another.
        source: The source.
        partition: The partition.
    """
    column = _time_column(source, result.accepted)
    if column is None or not isinstance(source.partitions, TimePartitions) or not source.partitions.is_valid(partition):
        return result
    is_inside = _is_inside(pl.col(column), result.accepted.schema[column], source.partitions, partition)
    outside = result.accepted.select(is_inside.not_().fill_null(value=False)).to_series()
    if not outside.any():
        return result
    rest = result.reject(outside, f"{column}|{CHECK}")
    return replace(rest, key_span=key_span(rest.accepted.get_column(source.key[0])))


def describe_partition(source: Source, partition: str) -> str:
    """The times that a partition holds, for a message: `from 2013-03-10T05:00 up to 2013-03-11T04:00 UTC`."""
    if not isinstance(source.partitions, TimePartitions) or not source.partitions.is_valid(partition):
        return ""
    start, end = (time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M") for time in source.partitions.interval(partition))
    return f"from {start} up to {end} UTC"


def _time_column(source: Source, rows: pl.DataFrame) -> str | None:
    return next((name for name in _candidates(source, rows) if _is_time(rows.schema[name], source)), None)


def _candidates(source: Source, rows: pl.DataFrame) -> Sequence[str]:
    return [name for name in (source.key[0], EVENT_TIME) if name in rows.columns]


def _is_time(dtype: pl.DataType, source: Source) -> bool:
    return dtype == UTC_MICROSECONDS or (dtype == pl.Date() and not isinstance(source.partitions, Hourly))


def _is_inside(column: pl.Expr, dtype: pl.DataType, partitions: TimePartitions, partition: str) -> pl.Expr:
    """Whether a time is in the interval, or a date among the dates of its time zone."""
    interval = partitions.interval(partition)
    start, end = interval if dtype == UTC_MICROSECONDS else map(partitions.local_date, interval)
    return column.is_between(pl.lit(start, dtype), pl.lit(end, dtype), closed="left")
