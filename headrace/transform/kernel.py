"""Call a feature table's kernel and check its rows against the declaration. Pure functions."""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import polars as pl

from headrace.dataset import EVENT_TIME, KNOWN_TIME, UNPARTITIONED, UTC_MICROSECONDS, FeatureTable
from headrace.engine.stage import SCHEMA_ONLY
from headrace.errors import HeadraceError
from headrace.storage.parquet import keeps_type

SPAN = "span"
"""Metadata of a partition: `first` and `last` event time and newest `known` time, in microseconds."""


class UndeclaredFeatureError(HeadraceError):
    """A kernel's frame does not have the rows or columns that its feature table declares."""


class InputMissingError(HeadraceError):
    """A table that a kernel reads has no partition."""


def compute_features(
    table: FeatureTable, day: str, files: Mapping[str, Mapping[str, Path]], end_day: str | None = None
) -> pl.LazyFrame:
    """The rows of `table` for the UTC day `day`: keys, event time, known time and the declared features, in that order.

    Args:
        table: The declaration.
        day: `2013-01-09`.
        files: Keyword of the kernel → Parquet files in partition order; with `SCHEMA_ONLY` for its partition, a file
            whose columns the input has, without rows.
        end_day: The last of several days, for a kernel with `batch_size` above 1.

    Raises:
        InputMissingError: An input has no partition at all, so its columns are not known.
        UndeclaredFeatureError: The kernel's frame lacks a key or a declared column, or has one of another type, or
            of a type that Parquet does not keep.
    """
    last = {} if end_day is None else {"end_day": end_day}
    inputs = {name: _scan(table, day, name, paths) for name, paths in files.items()}
    frame = table.transform(day=day, **last, **inputs)
    if not isinstance(frame, pl.LazyFrame):
        raise UndeclaredFeatureError(
            f"features {table.name} {day}: expected a LazyFrame, but its kernel returned {type(frame).__name__}."
            f" Fix the kernel in {table.transform.__module__}."
        )
    got = frame.collect_schema()
    wanted = {EVENT_TIME: UTC_MICROSECONDS, KNOWN_TIME: UTC_MICROSECONDS, **table.features}
    keys = {key: table.key_types.get(key, pl.String()) for key in table.keys}
    missing = {name: kind for name, kind in keys.items() if name not in got}
    wrong = {name: kind for name, kind in wanted.items() if got.get(name) != kind}
    if missing or wrong:
        raise _undeclared(table, day, missing | wrong, got)
    if lost := {name: got[name] for name in (*table.keys, *wanted) if not keeps_type(got[name])}:
        raise UndeclaredFeatureError(
            f"features {table.name} {day}: {', '.join(f'{name}: {kind}' for name, kind in lost.items())} would not be"
            f" read back as that from Parquet. Convert it to numbers or text in {table.transform.__module__}."
        )
    if retyped := {name: kind for name, kind in keys.items() if got[name] != kind}:
        raise _undeclared(table, day, retyped, got)
    return frame.select(*table.keys, *wanted)


def _undeclared(
    table: FeatureTable, day: str, expected: Mapping[str, pl.DataType], got: Mapping[str, pl.DataType]
) -> UndeclaredFeatureError:
    wanted = ", ".join(f"{name}: {kind}" for name, kind in expected.items())
    found = ", ".join(f"{name}: {kind}" for name, kind in got.items())
    return UndeclaredFeatureError(
        f"features {table.name} {day}: expected {wanted}; its kernel returned {found}."
        f" Fix the kernel or the declaration in {table.transform.__module__}."
    )


def _scan(table: FeatureTable, day: str, name: str, paths: Mapping[str, Path]) -> pl.LazyFrame:
    """The rows of one input of a kernel."""
    if not paths:
        raise InputMissingError(
            f"features {table.name} {day}: {table.inputs[name].table}, which the kernel reads as `{name}`, has no"
            " partition yet, so its columns are not known. Ingest and validate its source first, then run the same"
            " command again: `headrace status` shows what there is."
        )
    if set(paths) == {SCHEMA_ONLY}:
        return pl.scan_parquet(paths[SCHEMA_ONLY]).clear()
    return pl.scan_parquet([path for partition, path in paths.items() if partition != SCHEMA_ONLY])


def check_rows(table: FeatureTable, day: str, rows: pl.DataFrame, end_day: str | None = None) -> None:
    """Check what retrieval relies on, in the rows of one day or of the days up to `end_day`.

    Raises:
        UndeclaredFeatureError: A key or a known time is null, an event time is null or not in these UTC days, or a key
            has two rows with the same one.
    """
    stray = _stray(rows, day, end_day or day)
    twice = rows.filter(pl.struct(*table.keys, EVENT_TIME).is_duplicated())
    where, fix = f"features {table.name} {day}", f"Fix the kernel in {table.transform.__module__}."
    nulls = [name for name in (*table.keys, KNOWN_TIME) if rows[name].null_count()]
    if nulls:
        counts = ", ".join(f"{rows[name].null_count():,} in {name}" for name in nulls)
        raise UndeclaredFeatureError(
            f"{where}: expected keys and a known time in every row, found nulls: {counts}, of {rows.height:,} rows."
            f" Such a row can never be retrieved or served. {fix}"
        )
    if stray.height:
        raise UndeclaredFeatureError(
            f"{where}: expected event times of that UTC day, found {stray.height:,} others, {stray[EVENT_TIME][0]}"
            f" first. {fix}"
        )
    if twice.height:
        raise UndeclaredFeatureError(
            f"{where}: expected one row per key and event time, found {twice.height:,} that share theirs,"
            f" {twice.select(*table.keys, EVENT_TIME).row(0)} first. {fix}"
        )


def split_days(rows: pl.DataFrame, days: Sequence[str]) -> dict[str, pl.DataFrame]:
    """Day → its rows, for each of these days; `rows` has no others."""
    dated = rows.with_columns(day=pl.col(EVENT_TIME).dt.date())
    parts = dated.partition_by("day", as_dict=True, include_key=False, maintain_order=True)
    found = {str(day): part for (day,), part in parts.items()}
    return {day: found.get(day, rows.clear()) for day in days}


def _stray(rows: pl.DataFrame, day: str, end_day: str) -> pl.DataFrame:
    """Rows with an event time of another day, or without one."""
    if day == UNPARTITIONED:  # any time is of the whole table
        return rows.filter(pl.col(EVENT_TIME).is_null())
    first, last = (date.fromisoformat(name) for name in (day, end_day))
    held = pl.col(EVENT_TIME).dt.date().is_between(first, last)
    return rows.filter(~held.fill_null(value=False))
