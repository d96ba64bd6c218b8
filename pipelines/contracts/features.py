"""The pure heart of transform: call a feature table's kernel and hold it to what is declared."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from pipelines.dataset import UTC_MICROSECONDS, FeatureTable
from pipelines.errors import HeadraceError

EVENT_TIME = "event_time"
KNOWN_TIME = "known_time"


class UndeclaredFeatureError(HeadraceError):
    """A kernel's frame is not what its feature table declares."""


def compute(table: FeatureTable, day: str, files: Mapping[str, Sequence[Path]]) -> pl.LazyFrame:
    """The rows of `table` for the UTC day `day`: keys, event time, known time and the declared features, in that order.

    Args:
        table: The declaration.
        day: `2013-01-09`.
        files: Keyword of the kernel → Parquet files in partition order.

    Raises:
        UndeclaredFeatureError: The kernel's frame lacks a declared column, or gives one another type.
    """
    frame = table.kernel(day=day, **{name: pl.scan_parquet(list(paths)) for name, paths in files.items()})
    got = frame.collect_schema()
    wanted = {EVENT_TIME: UTC_MICROSECONDS, KNOWN_TIME: UTC_MICROSECONDS, **table.features}
    wrong = {name: got.get(name) for name, kind in wanted.items() if got.get(name) != kind}
    missing = [name for name in table.keys if name not in got]
    if wrong or missing:
        expected = ", ".join(f"{name}: {wanted.get(name, 'a key')}" for name in (*missing, *wrong))
        seen = ", ".join(f"{name}: {kind}" for name, kind in got.items())
        raise UndeclaredFeatureError(
            f"features {table.name} {day}: expected {expected}; its kernel gave {seen}."
            f" Mend the kernel or the declaration in {table.kernel.__module__}."
        )
    return frame.select(*table.keys, *wanted)


def check(table: FeatureTable, day: str, rows: pl.DataFrame) -> None:
    """Hold the rows of one day to what retrieval counts on.

    Raises:
        UndeclaredFeatureError: An event time is not of that UTC day, or is null; or a key has two rows of one time.
    """
    stray = rows.filter(pl.col(EVENT_TIME).dt.strftime("%Y-%m-%d").ne_missing(day))
    twice = rows.filter(pl.struct(*table.keys, EVENT_TIME).is_duplicated())
    where, mend = f"features {table.name} {day}", f"Mend the kernel in {table.kernel.__module__}."
    if stray.height:
        raise UndeclaredFeatureError(
            f"{where}: expected event times of that UTC day, seen {stray.height:,} others, {stray[EVENT_TIME][0]}"
            f" first. {mend}"
        )
    if twice.height:
        raise UndeclaredFeatureError(
            f"{where}: expected one row a key and event time, seen {twice.height:,} that share theirs,"
            f" {twice.select(*table.keys, EVENT_TIME).row(0)} first. {mend}"
        )
