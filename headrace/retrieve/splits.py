"""rows → train, validation, test: by a hash of the key or by time, so that no row moves as data grows.

A row's split depends on its own key, or its own time, and on nothing else: not on the other rows, their order or their
number. More rows, another release or another machine change nothing for the rows that were there.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import accumulate
from typing import Any

import polars as pl

from headrace.errors import HeadraceError

COLUMN = "split"

AT_ONCE = 4_000_000
"""Rows that the leak report looks at a time, about."""

WHOLE = 1 << 64

NEAR = 1e-9


class SplitRefusedError(HeadraceError):
    """Rows can not be split like that."""


@dataclass(frozen=True)
class ByKey:
    """By a hash of the key: all rows of a key are in one split.

    Attributes:
        keys: Columns of the key.
        shares: Split → share of the keys, in order; together they are 1. A larger share for the first split takes keys
            from the next ones only.
        salt: Another one gives another split.
    """

    keys: Sequence[str]
    shares: Mapping[str, float]
    salt: str = ""

    def __post_init__(self) -> None:
        """Refuse shares that are not the whole."""
        total = sum(self.shares.values())
        if not self.keys or abs(total - 1) > NEAR or min(self.shares.values(), default=-1) < 0:
            raise SplitRefusedError(
                f"Expected keys, and shares from 0 to 1 that add up to 1, seen {dict(self.shares)} of"
                f" {', '.join(self.keys) or 'no key'}, together {total:g}. For example:"
                " --split train=0.8,test=0.2 --split-by tailnum."
            )

    def of(self, rows: pl.DataFrame) -> pl.Series:
        """The split of each row."""
        _check(rows, self.keys)
        keys = rows.select(self.keys)
        known = keys.unique(maintain_order=True)
        named = known.with_columns(pl.Series(COLUMN, [self._split(row) for row in known.iter_rows()], pl.String))
        return keys.join(named, on=list(self.keys), how="left", maintain_order="left", nulls_equal=True)[COLUMN]

    def _split(self, key: tuple[Any, ...]) -> str:
        text = json.dumps([self.salt, *key], default=str)
        place = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
        ends = zip(self.shares, accumulate(self.shares.values()), strict=True)
        return next((name for name, end in ends if place < end * WHOLE), [*self.shares][-1])

    def to_dict(self) -> dict[str, Any]:
        """For a lock file."""
        return {"by": [*self.keys], "shares": dict(self.shares), "salt": self.salt}


@dataclass(frozen=True)
class ByTime:
    """By the time of a row.

    Attributes:
        first: The split before every start.
        starts: Split → when it starts, in order; it ends where the next one starts.
        column: Column of the time.
    """

    first: str
    starts: Mapping[str, datetime]
    column: str = "event_timestamp"

    def __post_init__(self) -> None:
        """Refuse starts without a zone, or out of order."""
        times = list(self.starts.values())
        if not times or any(start.tzinfo is None for start in times) or times != sorted(set(times)):
            raise SplitRefusedError(
                f"Expected the starts of splits in order, each with a zone, seen {[*map(str, times)]}."
                " For example: --split train,validation=2013-10-01,test=2013-11-15."
            )

    def of(self, rows: pl.DataFrame) -> pl.Series:
        """The split of each row."""
        _check(rows, [self.column])
        named = pl.lit(self.first)
        for name, start in self.starts.items():
            moment = pl.lit(start.astimezone(UTC)).dt.cast_time_unit("us")
            named = pl.when(pl.col(self.column) >= moment).then(pl.lit(name)).otherwise(named)
        return rows.select(named.alias(COLUMN)).to_series()

    def to_dict(self) -> dict[str, Any]:
        """For a lock file."""
        starts = {name: start.astimezone(UTC).isoformat() for name, start in self.starts.items()}
        return {"by": self.column, "first": self.first, "starts": starts}


Split = ByKey | ByTime


@dataclass(frozen=True)
class Leak:
    """What the rows of different splits have in common, by one entity.

    Attributes:
        keys: Keys that are in more than one split.
        near: Pairs of neighbours in time, of one key and not of one split, that are at most `within` apart.
        within: How near is near.
    """

    keys: int
    near: int
    within: timedelta

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        return {"keys": self.keys, "near": self.near, "within_seconds": self.within.total_seconds()}


def leak(rows: pl.LazyFrame, keys: Sequence[str], within: timedelta, column: str = "event_timestamp") -> Leak:
    """What the splits of `rows` have in common by `keys`: the same key, and the same key at nearly the same time.

    Where any two rows of a key are near and in different splits, two neighbours are. Of many rows, a part of the
    keys is looked at a time: memory holds about `AT_ONCE` rows of key, time and split, however many there are.
    """
    known = rows.select(*keys, column, COLUMN).drop_nulls(list(keys))
    parts = -(-rows.select(pl.len()).collect().item() // AT_ONCE)
    counted = [_leak(_part(known, keys, number, parts), keys, within, column) for number in range(parts)]
    return Leak(sum(several for several, _ in counted), sum(near for _, near in counted), within)


def _part(rows: pl.LazyFrame, keys: Sequence[str], number: int, parts: int) -> pl.DataFrame:
    """The rows of some keys."""
    mine = rows if parts == 1 else rows.filter(pl.struct(keys).hash() % parts == number)
    return mine.collect(engine="streaming")


def _leak(known: pl.DataFrame, keys: Sequence[str], within: timedelta, column: str) -> tuple[int, int]:
    """Keys in several splits, and near neighbours that are not in one."""
    several = known.group_by(keys).agg(pl.col(COLUMN).n_unique()).select((pl.col(COLUMN) > 1).sum())
    before = {name: pl.col(name).shift(1).over(keys, order_by=column) for name in (column, COLUMN)}
    crosses = (pl.col(COLUMN) != before[COLUMN]) & (pl.col(column) - before[column] <= within)
    return int(several.item()), int(known.select(crosses.sum()).item())


def parse(text: str, by: Sequence[str]) -> Split:
    """The split that a person wrote: `train=0.8,test=0.2` of the keys `by`, or `train,test=2013-11-01`.

    Raises:
        SplitRefusedError: It is neither.
    """
    parts = dict(part.strip().partition("=")[::2] for part in text.split(","))
    try:
        if by:
            return ByKey(tuple(by), {name: float(share) for name, share in parts.items()})
        (first, nothing), *rest = parts.items()
        starts = {name: _start(written) for name, written in rest}
    except ValueError as error:
        raise _unreadable(text) from error
    if nothing:
        raise _unreadable(text)
    return ByTime(first, starts)


def _start(text: str) -> datetime:
    """A day is its first moment, in UTC; a time needs a zone."""
    try:
        return datetime.combine(date.fromisoformat(text), time(), UTC)
    except ValueError:
        return datetime.fromisoformat(text)


def _unreadable(text: str) -> SplitRefusedError:
    return SplitRefusedError(
        f"Expected a split such as train=0.8,test=0.2 with --split-by <key>, or train,test=2013-11-01 by time, seen"
        f" {text!r}."
    )


def _check(rows: pl.DataFrame, columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in rows.columns]
    if missing or COLUMN in rows.columns:
        seen = ", ".join(rows.columns)
        wanted = f"the column {missing[0]}" if missing else f"no column {COLUMN}, which the split is written to,"
        raise SplitRefusedError(f"To split the rows, expected {wanted} in the requests, seen {seen}.")
