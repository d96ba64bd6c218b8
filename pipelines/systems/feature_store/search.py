"""The point-in-time search: for each request, the row that was the newest one known at its time.

Pure, and exact to the microsecond: of the rows of the request's key with event time and known time at or before its
time, the one of the newest event time; of equal ones the newest known; of equal ones the last in the table. If that
row is older than the TTL (both ends included), there is none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from pipelines.features import EVENT_TIME, KNOWN_TIME

Int64s = npt.NDArray[np.int64]

TICKS = {"ms": 1_000, "us": 1, "ns": -1_000}
"""Unit → microseconds in it; negative: how many of it make one."""


@dataclass(frozen=True)
class Moments:
    """The requests' times: the last whole microsecond at or before each, and the first at or after it."""

    floor: Int64s
    ceiling: Int64s

    @classmethod
    def of(cls, times: pl.Series) -> Self:
        """The moments of a zone-aware series without nulls, of any unit; nothing is cut off."""
        kind = times.dtype
        if not isinstance(kind, pl.Datetime):
            raise TypeError(f"expected times, seen {kind}")
        ticks = times.to_physical().to_numpy()
        factor = TICKS[kind.time_unit]
        if factor > 0:
            return cls(ticks * factor, ticks * factor)
        return cls(ticks // -factor, -(-ticks // -factor))


def newest(  # noqa: PLR0913  one search, six facts
    rows: pl.DataFrame,
    requests: pl.DataFrame,
    at: Moments,
    keys: Mapping[str, str],
    ttl: int | None = None,
    *,
    as_known: bool = True,
) -> pl.Series:
    """For each request the index of its row in `rows`, or null.

    Args:
        rows: The table's keys, `event_time` and `known_time` (microseconds).
        requests: Frame with the request's keys.
        at: Its times.
        keys: Key of the table → column of the requests. A null is no key and finds nothing.
        ttl: Greatest age in microseconds; None for any.
        as_known: Whether rows known only later are hidden.
    """
    codes, asked = _encode(rows, requests, keys)
    table = _Table.of(rows, codes, as_known=as_known)
    if not table.row.size:
        return pl.Series([None] * requests.height, dtype=pl.UInt32)
    place = table.last_at_or_before(asked, at.floor)
    found = (asked >= 0) & (place >= 0) & (table.code[place] == asked)
    best = table.best[place]
    if ttl is not None:
        found &= table.event[best] >= at.ceiling - ttl
    index = np.where(found, table.row[best], -1)
    return pl.select(pl.when(pl.lit(index) >= 0).then(pl.lit(index)).cast(pl.UInt32)).to_series()


def _encode(rows: pl.DataFrame, requests: pl.DataFrame, keys: Mapping[str, str]) -> tuple[Int64s, Int64s]:
    """A number for every key, in the rows and in the requests; -1 where there is none."""
    if not keys:
        return np.zeros(rows.height, np.int64), np.zeros(requests.height, np.int64)
    known = rows.select(pl.col(name) for name in keys).drop_nulls().unique().with_row_index("code")
    asked = requests.select(pl.col(column).alias(name) for name, column in keys.items())
    return _codes(rows, known, list(keys)), _codes(asked, known, list(keys))


def _codes(frame: pl.DataFrame, known: pl.DataFrame, names: Sequence[str]) -> Int64s:
    found = frame.select(names).join(known, on=names, how="left", maintain_order="left")["code"]
    return found.cast(pl.Int64).fill_null(-1).to_numpy()


@dataclass(frozen=True)
class _Table:
    """The rows in the order of the search.

    Attributes:
        row: Place in the order (key, event, known, file) → index of the row.
        event: Place in that order → event time.
        code: Place in the order (key, moment the row is visible) → key.
        visible: Place in that order → that moment.
        best: Place in that order → place in the first one of the newest row visible by then.
    """

    row: Int64s
    event: Int64s
    code: Int64s
    visible: Int64s
    best: Int64s

    @classmethod
    def of(cls, rows: pl.DataFrame, codes: Int64s, *, as_known: bool) -> Self:
        event = pl.col(EVENT_TIME).to_physical()
        known = pl.col(KNOWN_TIME).to_physical()
        ordered = (
            rows.select(event.alias("event"), known.alias("known"))
            .with_columns(code=pl.Series(codes))
            .with_row_index("row")
            .filter(pl.col("code") >= 0)
            .drop_nulls()
            .sort("code", "event", "known", maintain_order=True)
        )
        row, code, events = (_int64s(ordered[name]) for name in ("row", "code", "event"))
        if not as_known or bool((ordered["known"] <= ordered["event"]).all()):
            return cls(row, events, code, events, np.arange(row.size))
        # A row known late is visible late. In the order of visibility, the newest event so far is a running maximum
        # of places, which never reaches over from one key to the next, because the next key's places are greater.
        by_sight = (
            ordered.select("code", visible=pl.max_horizontal("event", "known"))
            .with_row_index("place")
            .sort("code", "visible", "place")
        )
        place = np.maximum.accumulate(_int64s(by_sight["place"]))
        return cls(row, events, code, _int64s(by_sight["visible"]), place)

    def last_at_or_before(self, code: Int64s, time: Int64s) -> Int64s:
        """Place of the last row that is at or before (code, time) in the order of visibility; -1 if none is."""
        first, last = int(self.visible.min()), int(self.visible.max())
        span = last - first + 2
        visible, asked = self.visible - first + 1, np.clip(time, first - 1, last) - first + 1
        if (int(self.code[-1]) + 1) * span >= np.iinfo(np.int64).max:
            steps = np.unique(self.visible)
            visible = np.searchsorted(steps, self.visible, side="right")
            asked = np.searchsorted(steps, time, side="right")
            span = steps.size + 1
        here, there = self.code * span + visible, code * span + asked
        # Searching in sorted order touches memory in order: three times faster than searching as they come.
        order = np.argsort(there, kind="stable")
        place = np.empty_like(there)
        place[order] = np.searchsorted(here, there[order], side="right") - 1
        return place


def _int64s(values: pl.Series) -> npt.NDArray[Any]:
    return values.cast(pl.Int64).to_numpy()
