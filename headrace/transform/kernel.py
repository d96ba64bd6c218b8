"""Call the kernel of a feature table or a derived table and check its rows against the declaration. Pure functions."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from headrace.dataset import (
    END_US,
    EVENT_TIME,
    FIRST_US,
    KNOWN_TIME,
    UNPARTITIONED,
    UTC_MICROSECONDS,
    Input,
    KernelTable,
)
from headrace.engine.stage import scan_inputs
from headrace.errors import HeadraceError
from headrace.partitions import UTC_DAYS, Interval, Partitions, interval_of
from headrace.storage.parquet import keeps_type

SPAN = "span"
"""Metadata of a partition: `first` and `last` event time and newest `known` time, in microseconds."""

PARTITION = "__headrace_partition"
"""Column with the number of each row's partition, while the rows of several are split."""


class UndeclaredFeatureError(HeadraceError):
    """A kernel's frame does not have the rows or columns that its table declares."""


class InputMissingError(HeadraceError):
    """A table that a kernel reads has no partition."""


def time_arguments(
    table: KernelTable, first: str, last: str | None = None, partitions: Partitions = UTC_DAYS
) -> dict[str, Any]:
    """What the kernel receives about its partition, or about consecutive ones up to `last`: days, or an interval."""
    if takes_interval(table):
        return {"interval": _interval(partitions, first, last)}
    return {"day": first} if last is None else {"day": first, "end_day": last}


def takes_interval(table: KernelTable) -> bool:
    """Whether the kernel takes an `interval` in place of a `day`."""
    return "interval" in _parameters(table.transform) and "interval" not in table.inputs


def _parameters(function: Callable[..., Any]) -> Sequence[str]:
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a function written in C tells nothing
        return ()


def _interval(partitions: Partitions, first: str, last: str | None) -> Interval:
    return Interval(interval_of(partitions, first).start, interval_of(partitions, last or first).end)


def compute_rows(  # noqa: PLR0913  the last three have defaults
    table: KernelTable,
    day: str,
    files: Mapping[str, Mapping[str, Path]],
    end_day: str | None = None,
    *,
    partitions: Partitions = UTC_DAYS,
    histories: Collection[str] = (),
) -> pl.LazyFrame:
    """The rows of one partition of `table`: the declared columns, in that order.

    Args:
        table: The declaration.
        day: The partition: `2013-01-09`.
        files: Keyword of the kernel → Parquet files in partition order; with `SCHEMA_ONLY` for its partition, a file
            whose columns the input has, without rows.
        end_day: The last of several partitions, for a kernel with `batch_size` above 1.
        partitions: How the table is cut.
        histories: Keywords of the kernel that are histories: it gets what was known by the end of the partition.

    Raises:
        InputMissingError: An input has no partition at all, so its columns are not known.
        UndeclaredFeatureError: The kernel's frame lacks a key or a declared column, or has one of another type, or of a
            type that Parquet does not keep.
    """
    frames = {name: scan_input(table, day, name, paths) for name, paths in files.items()}
    end = _interval(partitions, day, end_day).end if histories else None
    is_known = pl.col(KNOWN_TIME) < pl.lit(end, UTC_MICROSECONDS)
    frames |= {name: frames[name].filter(is_known) for name in histories}
    return call_kernel(table, day, frames, end_day, partitions)


def call_kernel(
    table: KernelTable,
    day: str,
    frames: Mapping[str, pl.LazyFrame],
    end_day: str | None = None,
    partitions: Partitions = UTC_DAYS,
) -> pl.LazyFrame:
    """As `compute_rows`, given the rows of each input.

    Raises:
        UndeclaredFeatureError: As of `compute_rows`.
    """
    frame = table.transform(**time_arguments(table, day, end_day, partitions), **frames)
    if not isinstance(frame, pl.LazyFrame):
        raise UndeclaredFeatureError(
            f"{table.state} {table.name} {day}: expected a LazyFrame, but its kernel returned {type(frame).__name__}."
            f" Fix the kernel in {table.transform.__module__}."
        )
    got, wanted = frame.collect_schema(), table.row_schema
    if lost := {name: got[name] for name in wanted if name in got and not keeps_type(got[name])}:
        columns = ", ".join(f"{name}: {kind}" for name, kind in lost.items())
        raise UndeclaredFeatureError(
            f"{table.state} {table.name} {day}: {columns} would not be read back as that from Parquet. Convert it to"
            f" numbers or text in {table.transform.__module__}."
        )
    wrong = [name for name, kind in wanted.items() if got.get(name) != kind]
    if wrong:
        expected = ", ".join(f"{name}: {wanted[name]}" for name in wrong)
        found = ", ".join(f"{name}: {kind}" for name, kind in got.items())
        is_of_key = table.state == "features" and any(name in table.row_key for name in wrong if name != EVENT_TIME)
        hint = " Keys that are not strings are declared in `key_types`." if is_of_key else ""
        raise UndeclaredFeatureError(
            f"{table.state} {table.name} {day}: expected {expected}; its kernel returned {found}."
            f" Fix the kernel or the declaration in {table.transform.__module__}.{hint}"
        )
    return frame.select(*wanted)


def scan_input(table: KernelTable, day: str, name: str, paths: Mapping[str, Path]) -> pl.LazyFrame:
    """The rows of one input of a kernel.

    Raises:
        InputMissingError: It has no partition at all, so its columns are not known.
    """
    if not paths:
        raise InputMissingError(
            f"{table.state} {table.name} {day}: {table.inputs[name].table}, which the kernel reads as `{name}`, has no"
            f" partition yet, so its columns are not known. {_advice(table.inputs[name])}, then run the same"
            " command again: `headrace status` shows what there is."
        )
    return scan_inputs(paths)


def _advice(read: Input) -> str:
    if read.other_dataset:
        return "Ingest it first (`headrace ingest`)"
    if read.table.startswith("labels/"):
        return "Collect its answers first (`headrace label collect`)"
    return "Ingest and validate its source first"


def check_rows(
    table: KernelTable,
    day: str,
    rows: pl.DataFrame,
    end_day: str | None = None,
    partitions: Partitions = UTC_DAYS,
) -> None:
    """Check what retrieval relies on, in the rows of one partition or of those up to `end_day`.

    Raises:
        UndeclaredFeatureError: A row could never be retrieved, since a key or a time is null or out of range; an event
            time is not in these partitions; or two rows share what identifies a row.
    """
    where, fix = f"{table.state} {table.name} {day}", f"Fix the kernel in {table.transform.__module__}."
    times = [name for name in (EVENT_TIME, KNOWN_TIME) if name in rows.columns]
    counts = {column: rows[column].null_count() for column in (*table.row_key, *times)}
    if nulls := {column: f"{count:,}" for column, count in counts.items() if count}:
        raise UndeclaredFeatureError(
            f"{where}: expected a value of {', '.join(nulls)} in every row, found null in {', '.join(nulls.values())}"
            f" of {rows.height:,}: such a row could never be retrieved. {fix}"
        )
    for column, step in ((name, _microseconds(kind)) for name, kind in rows.schema.items()):
        if step and (
            far := int((~rows[column].to_physical().is_between(FIRST_US // step, END_US // step, "left")).sum())
        ):
            raise UndeclaredFeatureError(
                f"{where}: expected times of the years 1 to 9999 in {column}, found {far:,} others. {fix}"
            )
    has_event_time = EVENT_TIME in rows.columns
    stray = _stray(rows, day, _interval(partitions, day, end_day)) if has_event_time else rows.clear()
    twice = rows.filter(pl.struct(*table.row_key).is_duplicated())
    if stray.height:
        raise UndeclaredFeatureError(
            f"{where}: expected event times of that {partitions.label}, found {stray.height:,} others,"
            f" {stray[EVENT_TIME][0]} first. {fix}"
        )
    if twice.height:
        raise UndeclaredFeatureError(
            f"{where}: expected one row per {'key and event time' if table.state == 'features' else 'key'}, found"
            f" {twice.height:,} that share theirs, {twice.select(*table.row_key).row(0)} first. {fix}"
        )


def _microseconds(kind: pl.DataType) -> int:
    """Microseconds of one unit of a time that may be out of range; 0 for other types."""
    if isinstance(kind, pl.Datetime):
        return {"ms": 1_000, "us": 1, "ns": 0}[kind.time_unit]
    return 86_400_000_000 if kind == pl.Date else 0


def split_partitions(
    rows: pl.DataFrame, names: Sequence[str], partitions: Partitions = UTC_DAYS
) -> dict[str, pl.DataFrame]:
    """Partition → its rows, for each of these consecutive partitions; `rows` has no others."""
    starts = pl.Series([interval_of(partitions, name).start for name in names], dtype=UTC_MICROSECONDS).to_physical()
    numbers = starts.search_sorted(rows[EVENT_TIME].to_physical(), side="right")
    parts = rows.with_columns(numbers.alias(PARTITION)).partition_by(
        PARTITION, as_dict=True, include_key=False, maintain_order=True
    )
    return {name: parts.get((number,), rows.clear()) for number, name in enumerate(names, start=1)}


def _stray(rows: pl.DataFrame, name: str, interval: Interval) -> pl.DataFrame:
    """Rows with an event time of another partition."""
    if name == UNPARTITIONED:
        return rows.clear()
    start, end = (pl.lit(time, UTC_MICROSECONDS) for time in interval)
    return rows.filter(~pl.col(EVENT_TIME).is_between(start, end, closed="left"))
