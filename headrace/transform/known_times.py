"""Whether rows were known when they say: none may depend on a feature, a label or a derived row that was known later.

A kernel is a function of its inputs, so it is asked again with what was known at some moment. The rows that say they
were known by then must be among those that it gives.
"""

from collections.abc import Mapping
from datetime import datetime

import polars as pl

from headrace.dataset import COMPUTED_STATES, KNOWN_TIME, KernelTable
from headrace.engine.stage import InputPaths
from headrace.partitions import UTC_DAYS, Partitions
from headrace.transform import kernel

KNOWN_STATES = (*COMPUTED_STATES, "labels")
"""States of the tables whose `known_time` is when one could know a row."""

TOLERANCE = 1e-9
"""Relative difference of equal floats: a sum over fewer rows may be added up in another order."""


def check_known_times(  # noqa: PLR0913, PLR0917  what the kernel was called with, and what it gave
    table: KernelTable,
    first: str,
    files: InputPaths,
    rows: pl.DataFrame,
    last: str | None = None,
    partitions: Partitions = UTC_DAYS,
) -> None:
    """Check the rows of one partition, or of those up to `last`, at their newest known time and at the median.

    Nothing is computed where no input has a row that was known later.

    Args:
        table: The declaration.
        first: The partition.
        files: Keyword of the kernel → files, as the kernel has read them.
        rows: What it gave.
        last: The last of several partitions.
        partitions: How the table is cut.

    Raises:
        UndeclaredFeatureError: Rows depend on what was known only after their known time.
    """
    if KNOWN_TIME not in rows.columns or not rows.height:
        return
    names = {name for name, read in table.inputs.items() if read.named_table.partition("/")[0] in KNOWN_STATES}
    frames = {name: kernel.scan_input(table, first, name, files[name]) for name in names}
    timed = {name: frame for name, frame in frames.items() if KNOWN_TIME in frame.collect_schema()}
    newest = _newest(timed)
    for moment in _moments(rows) if newest is not None else ():
        if newest is None or newest <= moment:
            continue
        others = {
            name: kernel.scan_input(table, first, name, files[name]) for name in table.inputs if name not in timed
        }
        known = {name: frame.filter(pl.col(KNOWN_TIME) <= moment) for name, frame in timed.items()}
        again = kernel.call_kernel(table, first, {**others, **known}, last, partitions).collect()
        early = rows.filter(pl.col(KNOWN_TIME) <= moment)
        if (other := _differing(early, again, table.row_key)).height:
            raise _error(table, first, moment, early.height, other, timed)


def _newest(frames: Mapping[str, pl.LazyFrame]) -> datetime | None:
    """The newest known time of all rows of these frames."""
    newest = [frame.select(pl.col(KNOWN_TIME).max()).collect().item() for frame in frames.values()]
    return max((time for time in newest if time is not None), default=None)


def _moments(rows: pl.DataFrame) -> list[datetime]:
    """The newest known time of rows, and one in the middle: only later ones are left out at the newest."""
    times = rows[KNOWN_TIME].sort()
    return sorted({times[-1], times[(len(times) - 1) // 2]}, reverse=True)


def _differing(rows: pl.DataFrame, again: pl.DataFrame, key: tuple[str, ...]) -> pl.DataFrame:
    """The rows that are not as they are in `again`."""
    values = [name for name in rows.columns if name not in key]
    is_there = pl.lit(value=True).alias("__headrace_is_there")
    joined = rows.join(again.with_columns(is_there), on=list(key), how="left", suffix="__headrace_again")
    same = [_is_same(name, f"{name}__headrace_again", rows.schema[name]) for name in values]
    return joined.filter(~pl.all_horizontal(pl.col("__headrace_is_there").is_not_null(), *same)).select(rows.columns)


def _is_same(name: str, other: str, kind: pl.DataType) -> pl.Expr:
    one, two = pl.col(name), pl.col(other)
    if kind.is_float():
        return (one.eq_missing(two) | ((one - two).abs() <= TOLERANCE * one.abs())).fill_null(value=False)
    return one.eq_missing(two)


def _error(  # noqa: PLR0913, PLR0917  what a message names
    table: KernelTable,
    first: str,
    moment: datetime,
    count: int,
    differing: pl.DataFrame,
    timed: Mapping[str, pl.LazyFrame],
) -> kernel.UndeclaredFeatureError:
    reads = ", ".join(table.inputs[name].table for name in table.inputs if name in timed)
    return kernel.UndeclaredFeatureError(
        f"{table.state} {table.name} {first}: expected rows that follow from what was known at their known time, found"
        f" {differing.height:,} of {count:,} known by {moment} that are other rows without what {reads} knew later,"
        f" {differing.select(*table.row_key).row(0)} first. Give each row the newest known time of the rows that it is"
        f" computed from, or leave out rows that were known later, in {table.transform.__module__}."
    )
