"""raw → validated: partitions judged by their contract and by the keys that other partitions hold."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from headrace.dataset import Source
from headrace.validate import contract
from headrace.validate.result import Verdict

Judged = tuple[Verdict, list[Any] | None]
"""A verdict, and the first and last value of the leading key column, as far as its own contract goes."""


def judge_together(source: Source, files: Mapping[str, Path]) -> dict[str, Judged]:
    """What `judge` would say of partitions that share no key with others, of those of which one look can tell.

    Args:
        source: The source.
        files: Partition → its raw file.
    """
    verdicts = contract.split_together({name: source.read(path) for name, path in files.items()}, source)
    return {name: (verdict, _span(verdict.accepted.get_column(source.key[0]))) for name, verdict in verdicts.items()}


def judge(source: Source, partition: str, files: Mapping[str, Path]) -> Judged:
    """Judge one partition against its contract and the keys of other partitions.

    Args:
        source: The source.
        partition: The partition to judge.
        files: Raw files of that partition and of the earlier ones that may hold its keys.
    """
    verdict = contract.split(source.read(files[partition]), source, partition)
    span = _span(verdict.accepted.get_column(source.key[0]))
    others = [
        contract.split(source.read(path), source, name).accepted for name, path in files.items() if name != partition
    ]
    if others:
        earlier = pl.concat(frame.select(source.key) for frame in others).lazy()
        verdict = verdict.reject(duplicates(verdict.accepted, earlier, source.key), contract.unique_check(source.key))
    return verdict, span


def duplicates(tidy: pl.DataFrame, earlier: pl.LazyFrame, key: Sequence[str]) -> pl.Series:
    """True for each row of `tidy` whose key stands in `earlier` already: rows of other partitions.

    `verdict.reject(duplicates(verdict.accepted, earlier, key), unique_check(key))` makes a key unique over the
    table: the earliest partition that holds it keeps it.
    """
    known = earlier.select(key).unique().with_columns(pl.lit(value=True).alias("is_known"))
    joined = tidy.lazy().select(key).join(known, on=list(key), how="left", maintain_order="left")
    return joined.select(pl.col("is_known").fill_null(value=False)).collect().to_series()


def _span(values: pl.Series) -> list[Any] | None:
    ends = (values.min(), values.max()) if len(values) else ()
    return [end.isoformat() if isinstance(end, datetime) else end for end in ends] or None
