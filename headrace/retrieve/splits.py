"""Splits: rows are assigned to train, validation and test by a hash of the key or by time, and never move.

The split of a row depends on its own key or time alone, not on the other rows, their order or number. Rows keep their
split when data is added, in every release and on every machine.
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

SPLIT_COLUMN = "split"

AT_ONCE = 4_000_000
"""Rows that `measure_leakage` processes at a time, about."""

WHOLE = 1 << 64

NEAR = 1e-9


class InvalidSplitError(HeadraceError):
    """A split is not well-defined for these rows."""


@dataclass(frozen=True)
class KeySplit:
    """Splits by a hash of the key: all rows of a key are in one split.

    Attributes:
        keys: Columns of the key.
        shares: Split → share of the keys, in order; the shares add up to 1. A larger share of the first split takes
            keys from the next splits only.
        salt: Another salt gives another split.

    Examples:
        >>> rows = pl.DataFrame({"tailnum": ["N1", "N2", "N3", "N1"]})
        >>> headrace.KeySplit(["tailnum"], {"train": 0.5, "test": 0.5}).assign(rows).to_list()
        ['test', 'test', 'train', 'test']
    """

    keys: Sequence[str]
    shares: Mapping[str, float]
    salt: str = ""

    def __post_init__(self) -> None:
        """Check the shares."""
        total = sum(self.shares.values())
        if not self.keys or abs(total - 1) > NEAR or min(self.shares.values(), default=-1) < 0:
            raise InvalidSplitError(
                f"Expected keys, and shares from 0 to 1 that add up to 1, found {dict(self.shares)} of"
                f" {', '.join(self.keys) or 'no key'}, which add up to {total:g}. For example:"
                " --split train=0.8,test=0.2 --split-by tailnum."
            )

    def assign(self, rows: pl.DataFrame) -> pl.Series:
        """The name of each row's split."""
        _check(rows, self.keys)
        keys = rows.select(self.keys)
        known = keys.unique(maintain_order=True)
        named = known.with_columns(pl.Series(SPLIT_COLUMN, [self._split(row) for row in known.iter_rows()], pl.String))
        return keys.join(named, on=list(self.keys), how="left", maintain_order="left", nulls_equal=True)[SPLIT_COLUMN]

    def _split(self, key: tuple[Any, ...]) -> str:
        text = json.dumps([self.salt, *key], default=str)
        place = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
        ends = zip(self.shares, accumulate(self.shares.values()), strict=True)
        return next((name for name, end in ends if place < end * WHOLE), [*self.shares][-1])

    def to_dict(self) -> dict[str, Any]:
        """The definition, for a lock file."""
        return {"by": [*self.keys], "shares": dict(self.shares), "salt": self.salt}


@dataclass(frozen=True)
class TimeSplit:
    """Splits by the time of a row.

    Attributes:
        first: The split before the first start.
        starts: Split → when it starts, in order; it ends where the next one starts.
        column: Column of the time.

    Examples:
        >>> start = datetime(2013, 11, 1, tzinfo=UTC)
        >>> rows = pl.DataFrame({"event_timestamp": [start - timedelta(seconds=1), start]})
        >>> headrace.TimeSplit("train", {"test": start}).assign(rows).to_list()
        ['train', 'test']
    """

    first: str
    starts: Mapping[str, datetime]
    column: str = "event_timestamp"

    def __post_init__(self) -> None:
        """Check that the starts have a zone and are in order."""
        times = list(self.starts.values())
        if not times or any(start.tzinfo is None for start in times) or times != sorted(set(times)):
            raise InvalidSplitError(
                f"Expected the starts of splits in order, each with a zone, found {[*map(str, times)]}."
                " For example: --split train,validation=2013-10-01,test=2013-11-15."
            )

    def assign(self, rows: pl.DataFrame) -> pl.Series:
        """The name of each row's split."""
        _check(rows, [self.column])
        named = pl.lit(self.first)
        for name, start in self.starts.items():
            moment = pl.lit(start.astimezone(UTC)).dt.cast_time_unit("us")
            named = pl.when(pl.col(self.column) >= moment).then(pl.lit(name)).otherwise(named)
        return rows.select(named.alias(SPLIT_COLUMN)).to_series()

    def to_dict(self) -> dict[str, Any]:
        """The definition, for a lock file."""
        starts = {name: start.astimezone(UTC).isoformat() for name, start in self.starts.items()}
        return {"by": self.column, "first": self.first, "starts": starts}


Split = KeySplit | TimeSplit


@dataclass(frozen=True)
class SplitLeakage:
    """What rows of different splits share, by one entity.

    Attributes:
        shared_keys: Number of keys that are in more than one split.
        neighbours: Number of pairs of consecutive rows of one key that are in different splits and at most `within`
            apart.
        within: Greatest distance in time of such a pair.
    """

    shared_keys: int
    neighbours: int
    within: timedelta

    def to_dict(self) -> dict[str, Any]:
        """The counts as JSON."""
        seconds = self.within.total_seconds()
        return {"shared_keys": self.shared_keys, "neighbours": self.neighbours, "within_seconds": seconds}


def measure_leakage(
    rows: pl.LazyFrame, keys: Sequence[str], within: timedelta, column: str = "event_timestamp"
) -> SplitLeakage:
    """Count what rows of different splits share: keys, and keys at nearly the same time.

    If any two rows of a key are close and in different splits, so are two consecutive ones. Memory holds key, time and
    split of about `AT_ONCE` rows: of more rows, a part of the keys is counted at a time.

    Args:
        rows: Rows with the keys, the time and `split`.
        keys: Columns of the entity's key.
        within: Greatest distance in time of two rows that count as close; the TTL of a feature table, for example.
        column: Column of the time.

    Examples:
        >>> start = datetime(2013, 11, 1, tzinfo=UTC)
        >>> rows = pl.DataFrame({"tailnum": "N1", "event_timestamp": [start - timedelta(hours=1), start]})
        >>> rows = rows.with_columns(headrace.TimeSplit("train", {"test": start}).assign(rows))
        >>> headrace.measure_leakage(rows.lazy(), ["tailnum"], within=timedelta(days=1))
        SplitLeakage(shared_keys=1, neighbours=1, within=datetime.timedelta(days=1))
    """
    known = rows.select(*keys, column, SPLIT_COLUMN).drop_nulls(list(keys))
    parts = -(-rows.select(pl.len()).collect().item() // AT_ONCE)
    counted = [_leak(_part(known, keys, number, parts), keys, within, column) for number in range(parts)]
    return SplitLeakage(sum(several for several, _ in counted), sum(near for _, near in counted), within)


def _part(rows: pl.LazyFrame, keys: Sequence[str], number: int, parts: int) -> pl.DataFrame:
    """The rows of some keys."""
    mine = rows if parts == 1 else rows.filter(pl.struct(keys).hash() % parts == number)
    return mine.collect(engine="streaming")


def _leak(known: pl.DataFrame, keys: Sequence[str], within: timedelta, column: str) -> tuple[int, int]:
    """Keys in several splits, and near neighbours that are not in one."""
    several = known.group_by(keys).agg(pl.col(SPLIT_COLUMN).n_unique()).select((pl.col(SPLIT_COLUMN) > 1).sum())
    before = {name: pl.col(name).shift(1).over(keys, order_by=column) for name in (column, SPLIT_COLUMN)}
    crosses = (pl.col(SPLIT_COLUMN) != before[SPLIT_COLUMN]) & (pl.col(column) - before[column] <= within)
    return int(several.item()), int(known.select(crosses.sum()).item())


def parse_split(text: str, by: Sequence[str]) -> Split:
    """The split that a command line describes: `train=0.8,test=0.2` of the keys `by`, or `train,test=2013-11-01`.

    Raises:
        InvalidSplitError: It is neither.
    """
    parts = dict(part.strip().partition("=")[::2] for part in text.split(","))
    try:
        if by:
            return KeySplit(tuple(by), {name: float(share) for name, share in parts.items()})
        (first, nothing), *rest = parts.items()
        starts = {name: _start(written) for name, written in rest}
    except ValueError as error:
        raise _unreadable(text) from error
    if nothing:
        raise _unreadable(text)
    return TimeSplit(first, starts)


def _start(text: str) -> datetime:
    """A day is its first moment, in UTC; a time needs a zone."""
    try:
        return datetime.combine(date.fromisoformat(text), time(), UTC)
    except ValueError:
        return datetime.fromisoformat(text)


def _unreadable(text: str) -> InvalidSplitError:
    return InvalidSplitError(
        f"Expected a split such as train=0.8,test=0.2 with --split-by <key>, or train,test=2013-11-01 by time, found"
        f" {text!r}."
    )


def _check(rows: pl.DataFrame, columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in rows.columns]
    if missing or SPLIT_COLUMN in rows.columns:
        found = ", ".join(rows.columns)
        wanted = f"the column {missing[0]}" if missing else f"no column {SPLIT_COLUMN}, which the split is written to,"
        raise InvalidSplitError(f"To split the rows, expected {wanted} in the requests, found {found}.")
