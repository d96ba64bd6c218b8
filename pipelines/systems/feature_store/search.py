"""The point-in-time search: for each request, the row that was the newest one known at its time.

Pure, and exact to the microsecond: of the rows of the request's key with event time and known time at or before its
time, the one of the newest event time; of equal ones the newest known; of equal ones the last in the table. If that
row is older than the TTL (both ends included), there is none.

A key becomes a number, a number and a time become one whole number, and one search in sorted order answers everything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl

from pipelines.contracts.features import EVENT_TIME, KNOWN_TIME

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

TICKS = {"ms": 1_000, "us": 1, "ns": -1_000}
"""Unit → microseconds in it; negative: how many of it make one."""

MOST = np.iinfo(np.int64).max

CLOSE = 4
"""Whole numbers are their own codes where there are at most so many times as many as rows."""


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


@dataclass(frozen=True)
class Window:
    """The first and the last moment that anything is asked at."""

    first: int
    last: int

    @property
    def span(self) -> int:
        """Moments that are told apart: those of the window, and all before it as one."""
        return self.last - self.first + 2

    def place(self, times: Int64s) -> Int64s:
        """Moment → its number; whatever is before the window has the number 0."""
        found: Int64s = np.maximum(times - (self.first - 1), 0)
        return found


@dataclass(frozen=True)
class Codes:
    """A number for every key that is asked for.

    Attributes:
        size: How many numbers there are.
        known: Key and `code`; without rows where keys are whole numbers that lie close together, from `first` on.
        first: The least of these.
    """

    size: int
    known: pl.DataFrame
    first: int = 0

    @classmethod
    def of(cls, keys: pl.LazyFrame) -> Self:
        """The codes of the keys in the rows of a frame; a null is no key."""
        schema = keys.collect_schema()
        if not schema:
            return cls(1, pl.DataFrame({"code": [0]}))
        if len(schema) == 1 and schema.dtypes()[0].is_integer():
            facts = keys.select(pl.len(), pl.all().min().name.suffix(" min"), pl.all().max().name.suffix(" max"))
            rows, first, last = facts.collect().row(0)
            if first is not None and last - first < rows * CLOSE:
                return cls(last - first + 1, pl.DataFrame(schema=schema), first)
        known = keys.drop_nulls().unique().with_row_index("code").collect()
        return cls(known.height, known)

    def of_rows(self, rows: pl.DataFrame, columns: Sequence[str]) -> Int64s:
        """Number of the key in each row; -1 where nobody asks for it."""
        names = [name for name in self.known.columns if name != "code"]
        if not names:
            return np.zeros(rows.height, np.int64)
        if "code" not in self.known.columns:
            key = rows[columns[0]]
            here = key.is_between(self.first, self.first + self.size - 1).fill_null(value=False).to_numpy()
            return np.where(here, _int64s(key) - self.first, -1)
        keys = rows.select(pl.col(column).alias(name) for name, column in zip(names, columns, strict=True))
        found = keys.join(self.known, on=names, how="left", maintain_order="left")["code"]
        return _int64s(found.cast(pl.Int64).fill_null(-1))

    def asked(self, column: str) -> pl.Expr:
        """Whether a key that begins with the value in `column` may be asked for."""
        if "code" not in self.known.columns:
            return pl.col(column).is_between(self.first, self.first + self.size - 1)
        return pl.col(column).is_in(self.known[column].unique().implode())


@dataclass(frozen=True)
class Questions:
    """Requests by one set of keys: the same for every table that is joined by it."""

    code: Int64s
    at: Moments
    window: Window

    @cached_property
    def _sorted(self) -> tuple[Int64s, Int64s]:
        return _in_order(self.code * self.window.span + self.window.place(self.at.floor))

    def last_at_or_before(self, code: Int64s, visible: Int64s, keys: int) -> Int64s:
        """Place of the last row at or before each request, in rows sorted by code and moment; -1 before the first."""
        if keys * self.window.span < MOST:
            here = code * self.window.span + self.window.place(visible)
            there, order = self._sorted
        else:
            here, there, order = self._coarse(code, visible)
        # Searching in sorted order touches memory in order: ten times faster than searching as they come.
        place: Int64s = np.empty_like(order)
        place[order] = np.searchsorted(here, there, side="right") - 1
        return place

    def _coarse(self, code: Int64s, visible: Int64s) -> tuple[Int64s, Int64s, Int64s]:
        """Code and moment as one number where both together are too large: moments are counted, not measured."""
        steps = np.unique(visible)
        span = steps.size + 1
        asked = np.searchsorted(steps, self.at.floor, side="right")
        return code * span + np.searchsorted(steps, visible, side="right"), *_in_order(self.code * span + asked)


@dataclass(frozen=True)
class Index:
    """The rows of a table in the order of the search.

    Attributes:
        keys: How many keys are told apart.
        row: Place in the order (key, event, known, table) → index of the row.
        event: Place in that order → event time.
        code: Place in the order (key, moment the row is visible) → key.
        visible: Place in that order → that moment.
        best: Place in that order → place in the first one of the newest row visible by then; None: the same place.
    """

    keys: int
    row: Int64s
    event: Int64s
    code: Int64s
    visible: Int64s
    best: Int64s | None

    @classmethod
    def of(cls, rows: pl.DataFrame, keys: Sequence[str], codes: Codes, window: Window, *, as_known: bool) -> Self:
        """The index of a table.

        Args:
            rows: Its keys, `event_time` and `known_time` (microseconds).
            keys: Its key columns.
            codes: The keys that are asked for.
            window: When they are asked for.
            as_known: Whether rows known only later are hidden.
        """
        code, event, known = codes.of_rows(rows, keys), *(_int64s(rows[name]) for name in (EVENT_TIME, KNOWN_TIME))
        visible = np.maximum(event, known) if as_known else event
        used = (code >= 0) & (visible <= window.last)
        if rows[EVENT_TIME].null_count() or rows[KNOWN_TIME].null_count():
            used &= (
                rows.select(pl.col(EVENT_TIME).is_not_null() & pl.col(KNOWN_TIME).is_not_null()).to_series().to_numpy()
            )
        if used.all():
            row = _by_event(code, event, known)
        else:
            row = np.flatnonzero(used)
            row = row[_by_event(code[row], event[row], known[row])]
        late = as_known and bool((visible > event).any())
        code, event, visible = code[row], event[row], visible[row]
        size = codes.size
        if not late:
            return cls(size, row, event, code, visible, None)
        # A row known late is visible late. In the order of visibility, the newest event so far is a running maximum
        # of places, which never reaches over from one key to the next, because the next key's places are greater.
        place = np.lexsort((visible, code))
        return cls(size, row, event, code, visible[place], np.maximum.accumulate(place))

    def find(self, asked: Questions, ttl: int | None) -> tuple[Int64s, Bools]:
        """For each request the index of its row, and whether it has one: if not, the index is that of any row.

        Args:
            asked: The requests.
            ttl: Greatest age in microseconds; None for any.
        """
        place = asked.last_at_or_before(self.code, self.visible, self.keys)
        found = (asked.code >= 0) & (place >= 0) & (self.code[place] == asked.code)
        best = place if self.best is None else self.best[place]
        if ttl is not None:
            found &= self.event[best] >= asked.at.ceiling - ttl
        return self.row[best], found

    def numbered(self, numbers: pl.Series) -> Self:
        """The same of rows that are some of others, and have these numbers among them."""
        return replace(self, row=_int64s(numbers)[self.row])


def newest(  # noqa: PLR0913  one search, six facts
    rows: pl.DataFrame,
    requests: pl.DataFrame,
    at: Moments,
    keys: Mapping[str, str],
    ttl: int | None = None,
    *,
    as_known: bool = True,
) -> pl.Series:
    """For each request the index of its row in `rows`, or null; `keys`: key of the table → column of the requests."""
    if not requests.height:
        return pl.Series([], dtype=pl.UInt32)
    window = Window(int(at.floor.min()), int(at.floor.max()))
    asked = requests.select(pl.col(column).alias(name) for name, column in keys.items())
    codes = Codes.of(asked.lazy())
    index = Index.of(rows, list(keys), codes, window, as_known=as_known)
    if not index.row.size:
        return pl.Series([None] * requests.height, dtype=pl.Int64)
    place, found = index.find(Questions(codes.of_rows(asked, list(keys)), at, window), ttl)
    return pl.select(pl.when(pl.Series(found)).then(pl.Series(place))).to_series()


def _by_event(code: Int64s, event: Int64s, known: Int64s) -> Int64s:
    """The order by key, event, known, and then as they stand."""
    if not code.size:
        return np.empty(0, np.int64)
    first = int(event.min())
    span = int(event.max()) - first + 1
    if (int(code.max()) + 1) * span < MOST:
        ordered, order = _in_order(code * span + (event - first))
        if not bool((ordered[1:] == ordered[:-1]).any()):
            return order
    with_ties: Int64s = np.lexsort((known, event, code))
    return with_ties


def _in_order(values: Int64s) -> tuple[Int64s, Int64s]:
    """The values sorted, and where each came from; equal ones in any order."""
    order = np.argsort(values)
    return values[order], order


def _int64s(values: pl.Series) -> Int64s:
    found: Int64s = values.to_physical().cast(pl.Int64).fill_null(0).to_numpy()
    return found
