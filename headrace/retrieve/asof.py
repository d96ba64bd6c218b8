"""The point-in-time search: for each request, the row that was the newest one known at its time.

Pure, and exact to the microsecond: of the rows of the request's key with event time and known time at or before its
time, the one of the newest event time; of equal ones the newest known; of equal ones the last in the table. If that
row is older than the TTL (both ends included), there is none.

A key becomes a number, a number and a time become one whole number, and one search in sorted order answers everything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.dataset import EVENT_TIME, KNOWN_TIME

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Scalar = TypeVar("Scalar", bound=np.generic)

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

    @property
    def is_whole(self) -> bool:
        """Whether each is a whole microsecond, so that both are the same."""
        return self.ceiling is self.floor

    @classmethod
    def from_series(cls, times: pl.Series) -> Self:
        """The moments of a zone-aware series without nulls, of any unit; nothing is cut off."""
        kind = times.dtype
        if not isinstance(kind, pl.Datetime):
            raise TypeError(f"expected times, found {kind}")
        ticks = times.to_physical().to_numpy()
        factor = TICKS[kind.time_unit]
        if factor < 0:
            return cls(ticks // -factor, -(-ticks // -factor))
        whole = ticks * factor if factor > 1 else ticks
        return cls(whole, whole)


@dataclass(frozen=True)
class RequestTimeRange:
    """The times of the first and of the last request, in microseconds."""

    first: int
    last: int

    @property
    def span(self) -> int:
        """How many numbers `place` gives: one per microsecond of the range, and 0 for every earlier time."""
        return self.last - self.first + 2

    def place(self, times: Int64s) -> Int64s:
        """Number of each time: 1 for the first request's, one more per microsecond, 0 for every earlier time."""
        found: Int64s = times - (self.first - 1)
        return np.maximum(found, 0, out=found)

    def combine(self, code: Int64s, times: Int64s) -> Int64s:
        """Code and time as one number, which sorts by code, then by time."""
        found: Int64s = code * self.span
        found += self.place(times)
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
    def from_keys(cls, keys: pl.LazyFrame) -> Self:
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
            code: Int64s = _int64s(key) - self.first
            here = code.view(np.uint64) < self.size  # a negative one is a large one there
            return np.where(here & key.is_not_null().to_numpy(), code, -1)
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
    """Requests by one set of keys: the same for every table that is joined by it.

    They are nearly sorted by key, so that the search reads memory in order.

    Attributes:
        order: Place here → place among the requests.
        code: Place here → key.
        at: When each asks.
        time_range: The times of the first and of the last request.
    """

    order: Int64s
    code: Int64s
    at: Moments
    time_range: RequestTimeRange

    @classmethod
    def from_requests(cls, code: Int64s, at: Moments, time_range: RequestTimeRange) -> Self:
        """The questions of requests, nearly sorted by key."""
        order = np.argsort((code >> max(_bits(code) - 16, 0)).astype(np.uint16), kind="stable")
        floor = at.floor[order]
        return cls(order, code[order], Moments(floor, floor if at.is_whole else at.ceiling[order]), time_range)

    @cached_property
    def _place(self) -> Int64s:
        return self.time_range.combine(self.code, self.at.floor)

    def last_at_or_before(self, code: Int64s, visible: Int64s, keys: int) -> Int64s:
        """Place of the last row at or before each question, in rows sorted by code and moment; -1 before the first."""
        if keys * self.time_range.span < MOST:
            here, there = self.time_range.combine(code, visible), self._place
        else:
            here, there = self._coarse(code, visible)
        found: Int64s = np.searchsorted(here, there, side="right")
        found -= 1
        return found

    def _coarse(self, code: Int64s, visible: Int64s) -> tuple[Int64s, Int64s]:
        """Code and moment as one number where both together are too large: moments are counted, not measured."""
        steps = np.unique(visible)
        span = steps.size + 1
        asked = np.searchsorted(steps, self.at.floor, side="right")
        return code * span + np.searchsorted(steps, visible, side="right"), self.code * span + asked

    def as_asked(self, answers: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """The answers, in the order of the requests."""
        found = np.empty_like(answers)
        found[self.order] = answers
        return found


@dataclass(frozen=True)
class Index:
    """The rows of a table in the order of the search.

    Attributes:
        keys: Number of distinct keys.
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
    def from_rows(
        cls, rows: pl.DataFrame, keys: Sequence[str], codes: Codes, time_range: RequestTimeRange, *, as_known: bool
    ) -> Self:
        """The index of a table.

        Args:
            rows: Its keys, `event_time` and `known_time` (microseconds).
            keys: Its key columns.
            codes: The keys that are asked for.
            time_range: The times at which they are asked for.
            as_known: Whether rows known only later are hidden.
        """
        code, event, known = codes.of_rows(rows, keys), *(_int64s(rows[name]) for name in (EVENT_TIME, KNOWN_TIME))
        late = as_known and bool((known > event).any())
        used = (code >= 0) & ((np.maximum(event, known) if late else event) <= time_range.last)
        if rows[EVENT_TIME].null_count() or rows[KNOWN_TIME].null_count():
            used &= (
                rows.select(pl.col(EVENT_TIME).is_not_null() & pl.col(KNOWN_TIME).is_not_null()).to_series().to_numpy()
            )
        if used.all():
            row = _by_code(code)
        else:
            row = np.flatnonzero(used)
            row = row[_by_code(code[row])]
        code, event, known = code[row], event[row], known[row]
        if not _is_by_event(code, event, known):
            order = np.lexsort((row, known, event, code))
            row, code, event, known = row[order], code[order], event[order], known[order]
        if not late:
            return cls(codes.size, row, event, code, event, None)
        # A row known late is visible late. In the order of visibility, the newest event so far is a running maximum
        # of places, which never reaches over from one key to the next, because the next key's places are greater.
        visible = np.maximum(event, known)
        place = np.lexsort((visible, code))
        return cls(codes.size, row, event, code, visible[place], np.maximum.accumulate(place))

    def find(self, asked: Questions, ttl: int | None) -> tuple[Int64s, Bools]:
        """For each request the index of its row, and whether it has one: if not, the index is that of any row.

        Args:
            asked: The requests.
            ttl: Greatest age in microseconds; None for any.
        """
        place = asked.last_at_or_before(self.code, self.visible, self.keys)
        found = (place >= 0) & (self.code[place] == asked.code)
        best = place if self.best is None else self.best[place]
        if ttl is not None:
            found &= self.event[best] >= asked.at.ceiling - ttl
        return asked.as_asked(self.row[best]), asked.as_asked(found)

    def numbered(self, numbers: pl.Series) -> Self:
        """The same index, with these row numbers of the whole table: its rows are a selection of that table."""
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
    time_range = RequestTimeRange(int(at.floor.min()), int(at.floor.max()))
    asked = requests.select(pl.col(column).alias(name) for name, column in keys.items())
    codes = Codes.from_keys(asked.lazy())
    index = Index.from_rows(rows, list(keys), codes, time_range, as_known=as_known)
    if not index.row.size:
        return pl.Series([None] * requests.height, dtype=pl.Int64)
    place, found = index.find(Questions.from_requests(codes.of_rows(asked, list(keys)), at, time_range), ttl)
    return pl.select(pl.when(pl.Series(found)).then(pl.Series(place))).to_series()


def _by_code(code: Int64s) -> Int64s:
    """The stable order by key: a radix sort of 16 bits at a time, because NumPy counts such short integers."""
    order: Int64s = np.argsort(code.astype(np.uint16), kind="stable")
    for shift in range(16, _bits(code), 16):
        order = order[np.argsort((code >> shift).astype(np.uint16)[order], kind="stable")]
    return order


def _bits(code: Int64s) -> int:
    return int(code.max(initial=0)).bit_length()


def _is_by_event(code: Int64s, event: Int64s, known: Int64s) -> bool:
    """Whether rows ordered by key are in the order of event and known time too, as tables are written."""
    earlier = (event[1:] < event[:-1]) | ((event[1:] == event[:-1]) & (known[1:] < known[:-1]))
    return not bool((earlier & (code[1:] == code[:-1])).any())


def _int64s(values: pl.Series) -> Int64s:
    found: Int64s = values.to_physical().cast(pl.Int64).fill_null(0).to_numpy()
    return found
