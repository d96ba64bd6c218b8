"""requests + feature tables → the requests with their features, slice by slice, within a memory that is set.

Every row of the requests comes out once, in order. What fits is loaded once; what does not is read a slice of the
requests at a time, and a table that is too large even so, a part of the keys at a time. The answer is the same.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Self

import numpy as np
import polars as pl

from headrace.dataset import EVENT_TIME, KNOWN_TIME
from headrace.retrieve.asof import Bools, Codes, Index, Int64s, Questions, RequestTimeRange
from headrace.retrieve.errors import InvalidRequestError
from headrace.retrieve.joinable_tables import JoinableTable
from headrace.retrieve.partition_reader import ROW, PartitionReader, read_manifest
from headrace.retrieve.requests import Requests, Slice
from headrace.storage.manifest import Manifest
from headrace.storage.parquet_encoding import ROW_GROUP
from headrace.storage.table_store import TableStore

CELL = 16
"""Bytes that a value takes in memory, about; a text of the usual length among them."""

SEARCHED = 128
"""Bytes that the search takes for a row, about."""

FEW = 50
"""Rows a key from which on rows of keys that nobody asks for are left out before the search, where requests are fewer
than rows; rows a request from which on it is looked for in the newest partitions first."""


@dataclass(frozen=True)
class Lookup:
    """One view as a request asks for it.

    Attributes:
        name: Name of the view.
        table: Its table in the table store.
        release: The release that it is read at.
        keys: Key of the table → column of the requests.
        types: Key and feature → type.
        ttl: Greatest age in microseconds; None for any.
        features: Feature → column of the answer.
    """

    name: str
    table: str
    release: str
    keys: Mapping[str, str]
    types: Mapping[str, pl.DataType]
    ttl: int | None
    features: Mapping[str, str]

    @classmethod
    def from_table(cls, view: JoinableTable, release: str, features: Mapping[str, str]) -> Self:
        """The lookup of a view as it is declared."""
        ttl = view.ttl // timedelta(microseconds=1) if view.ttl else None
        types = {**view.keys, **view.columns}
        return cls(view.name, view.table, release, {key: key for key in view.keys}, types, ttl, features)

    @property
    def group(self) -> tuple[tuple[str, str], ...]:
        """Equal for lookups that ask for the same keys in the same columns of the requests."""
        return tuple((column, str(self.types[key])) for key, column in self.keys.items())

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """Column of the answer → type."""
        return {column: self.types[name] for name, column in self.features.items()}


@dataclass(frozen=True)
class Loaded:
    """A table that is ready to be asked.

    Attributes:
        index: Finds rows by their numbers; None without a row in time.
        gather: Gives the values of these rows, where they were found.
    """

    index: Index | None
    gather: Callable[[Int64s, Bools], pl.DataFrame]


@dataclass(frozen=True)
class Join:
    """A point-in-time join.

    Attributes:
        table_store: Where the tables are.
        requests: The requests.
        lookups: What they are joined with.
        as_known: Whether a request sees only what was known at its time.
        verify: As `PartitionReader`.
        memory: Bytes that may be used, about.
        manifests: Tables as they were when they were first looked at: whatever is written meanwhile, one join reads
            one version.
    """

    table_store: TableStore
    requests: Requests
    lookups: Sequence[Lookup]
    as_known: bool = True
    verify: bool = True
    memory: int = 4 << 30
    manifests: dict[tuple[str, str], Manifest] = field(default_factory=dict, compare=False, repr=False)

    def checked(self) -> Self:
        """The join, if it can be made.

        Raises:
            InvalidRequestError: A key is missing or of the wrong type, or two columns would have one name.
        """
        names = [name for lookup in self.lookups for name in lookup.features.values()]
        taken = sorted({name for name in names if name in self.requests.schema or names.count(name) > 1})
        if taken:
            raise InvalidRequestError(
                f"The result would have two columns {taken[0]}, one of them a feature."
                " Rename the request's column, or use full_feature_names=True."
            )
        for lookup in self.lookups:
            self._keys(lookup)
        return self

    def manifest(self, lookup: Lookup) -> Manifest:
        """The manifest of the lookup's table, read once."""
        place = (lookup.table, lookup.release)
        if place not in self.manifests:
            self.manifests[place] = read_manifest(self.table_store, *place)
        return self.manifests[place]

    def frames(self) -> Iterator[pl.DataFrame]:
        """The requests with their features, in order, a frame a slice; without requests, one without rows.

        Raises:
            UnreadablePartitionError: A partition is missing or corrupt.
        """
        requests, every = self.requests, _Scope(self, self.requests.rows, self.requests.first, self.requests.time_range)
        size = sum(self._size(lookup, every) for lookup in self.lookups)
        rows = self._slice_rows(size)
        several = rows < requests.height
        keep = several and size <= self.memory // 2
        kept = [every.load(lookup, every.rows(lookup)) for lookup in self.lookups] if keep else []
        for part in requests.slices(rows):
            asked = _Asked(every if kept or not part.frame.height else _Scope.from_slice(self, part), part)
            if kept:
                answers = [asked.answer(lookup, table) for lookup, table in zip(self.lookups, kept, strict=True)]
            else:
                answers = [self._once(lookup, part, asked) for lookup in self.lookups]
            yield part.frame.with_columns(column for answer in answers for column in answer.get_columns())

    def _once(self, lookup: Lookup, part: Slice, asked: "_Asked") -> pl.DataFrame:
        """The features of one slice, from a table read for it alone: whole, or a part of it a time."""
        rows = asked.scope.rows(lookup)
        if len(rows.partitions) > 1 and part.frame.height * FEW <= rows.height:
            return self._newest_first(lookup, part, rows)
        parts = -(-self._size(lookup, asked.scope) // max(self.memory // 2, 1))
        if parts <= 1 or not lookup.keys:
            return asked.answer(lookup, asked.scope.load(lookup, rows))
        which = part.frame.select(_share(self._keys(lookup), parts)).to_series()
        found, places = [], []
        for number in range(parts):
            some = Slice(part.frame.filter(which == number), part.time)
            places.append((which == number).arg_true())
            if some.frame.height:
                scope = _Scope.from_slice(self, some)
                mine = _share([pl.col(key) for key in lookup.keys], parts) == number
                found.append(_Asked(scope, some).answer(lookup, scope.load(lookup, scope.rows(lookup), mine)))
        return pl.concat(found).select(pl.all().gather(pl.concat(places).arg_sort()))

    def _newest_first(self, lookup: Lookup, part: Slice, rows: PartitionReader) -> pl.DataFrame:
        """The features of a few requests: older partitions are read only for those that newer ones do not answer."""
        place: Int64s = np.full(part.frame.height, -1)
        left: Int64s = np.arange(part.frame.height)
        values: list[pl.DataFrame] = []
        for some in rows.newest_first(self.memory // 2 // _row_size(lookup)):
            mine = Slice(part.frame[left], part.time)
            scope = _Scope.from_slice(self, mine)
            table = scope.load(lookup, some)
            row, found = _Asked(scope, mine).find(lookup, table)
            if found.any():
                place[left[found]] = sum(frame.height for frame in values) + np.arange(found.sum())
                values.append(table.gather(row[found], found[found]))
                left = left[~found]
            if not left.size:
                break
        return _answer(lookup, _at(pl.concat(values), np.maximum(place, 0)) if values else None, place >= 0)

    def _keys(self, lookup: Lookup) -> list[pl.Expr]:
        return self.requests.keys(lookup.keys, lookup.types, lookup.name)

    def _slice_rows(self, tables: int) -> int:
        """How many requests are answered at a time: all of them if they fit beside tables of that many bytes."""
        columns = len(self.requests.schema) + sum(len(lookup.features) for lookup in self.lookups)
        row = CELL * columns + SEARCHED
        if self.requests.height * row + tables <= self.memory:
            return max(self.requests.height, 1)
        return max(self.memory // 4 // row // ROW_GROUP, 1) * ROW_GROUP

    def _size(self, lookup: Lookup, scope: "_Scope") -> int:
        """Bytes that the table takes for these requests, about."""
        return scope.rows(lookup).height * _row_size(lookup)


class _Scope:
    """Keys and moments that tables are loaded for: those of all the requests, or of some."""

    def __init__(self, join: Join, requests: pl.LazyFrame, first: int, time_range: RequestTimeRange | None) -> None:
        self.join = join
        self.requests = requests
        self.first = first
        self.time_range = time_range
        self._codes: dict[tuple[tuple[str, str], ...], Codes] = {}
        self._rows: dict[str, PartitionReader] = {}

    @classmethod
    def from_slice(cls, join: Join, part: Slice) -> Self:
        """The scope of one slice, which has rows."""
        at = part.moments
        time_range = RequestTimeRange(int(at.floor.min()), int(at.floor.max()))
        return cls(join, part.frame.lazy(), int(at.ceiling.min()), time_range)

    def codes(self, lookup: Lookup) -> Codes:
        """The keys that are asked for."""
        if lookup.group not in self._codes:
            keys = self.requests.select(self.join._keys(lookup))  # noqa: SLF001  a part of the join
            self._codes[lookup.group] = Codes.from_keys(keys)
        return self._codes[lookup.group]

    def rows(self, lookup: Lookup) -> PartitionReader:
        """The partitions that can matter."""
        if lookup.name not in self._rows:
            self._rows[lookup.name] = self._between(lookup)
        return self._rows[lookup.name]

    def _between(self, lookup: Lookup) -> PartitionReader:
        table = self.join.manifest(lookup)
        if self.time_range is None:
            return PartitionReader(self.join.table_store, table, ())
        since = None if lookup.ttl is None else self.first - lookup.ttl
        return PartitionReader.between(
            self.join.table_store, table, since, self.time_range.last, verify=self.join.verify
        )

    def load(self, lookup: Lookup, rows: PartitionReader, mine: pl.Expr | None = None) -> Loaded:
        """These rows of the table, or those of them that are `mine`."""
        features, heads = list(lookup.features), [*lookup.keys, EVENT_TIME, KNOWN_TIME]
        if not rows.partitions or self.time_range is None:
            return Loaded(None, lambda _row, _found: pl.DataFrame())
        if mine is not None:
            read = rows.read([*heads, *features], mine)
            return Loaded(self._index(lookup, self.time_range, read), _from(read.select(features)))
        asked = self._asked_for(lookup, rows)
        if asked is not None:
            read = rows.read(heads, asked, numbered=True)
            return Loaded(self._index(lookup, self.time_range, read), partial(rows.gather, features))
        read = rows.read([*heads, *features])
        return Loaded(self._index(lookup, self.time_range, read), _from(read.select(features)))

    def _asked_for(self, lookup: Lookup, rows: PartitionReader) -> pl.Expr | None:
        """Which rows are of keys that are asked for, if those are few: then it costs less to leave the others out."""
        if not lookup.keys or self.join.requests.height >= rows.height:
            return None
        codes = self.codes(lookup)
        return codes.asked(next(iter(lookup.keys))) if codes.size * FEW <= rows.height else None

    def _index(self, lookup: Lookup, time_range: RequestTimeRange, heads: pl.DataFrame) -> Index:
        index = Index.from_rows(heads, list(lookup.keys), self.codes(lookup), time_range, as_known=self.join.as_known)
        return index.numbered(heads[ROW]) if ROW in heads.columns else index


class _Asked:
    """One slice of the requests, asked of one table after the other."""

    def __init__(self, scope: _Scope, part: Slice) -> None:
        self.scope = scope
        self.part = part
        self._questions: dict[tuple[tuple[str, str], ...], Questions] = {}

    def answer(self, lookup: Lookup, table: Loaded) -> pl.DataFrame:
        """The features of each request."""
        row, found = self.find(lookup, table)
        return _answer(lookup, table.gather(row, found) if found.any() else None, found)

    def find(self, lookup: Lookup, table: Loaded) -> tuple[Int64s, Bools]:
        """As `Index.find`."""
        if table.index is None or not table.index.row.size or self.scope.time_range is None:
            return np.zeros(self.part.frame.height, np.int64), np.zeros(self.part.frame.height, np.bool_)
        return table.index.find(self._asked(lookup, self.scope.time_range), lookup.ttl)

    def _asked(self, lookup: Lookup, time_range: RequestTimeRange) -> Questions:
        if lookup.group not in self._questions:
            keys = self.part.frame.select(self.scope.join._keys(lookup))  # noqa: SLF001  a part of the join
            code = self.scope.codes(lookup).of_rows(keys, list(lookup.keys))
            self._questions[lookup.group] = Questions.from_requests(code, self.part.moments, time_range)
        return self._questions[lookup.group]


def _row_size(lookup: Lookup) -> int:
    """Bytes that a row of the table takes, about."""
    return SEARCHED + CELL * (len(lookup.features) + len(lookup.keys))


def _answer(lookup: Lookup, values: pl.DataFrame | None, found: Bools) -> pl.DataFrame:
    """The features of each request, from the values of those that were found, and any others where not."""
    if values is None:
        return pl.DataFrame({name: pl.Series([None] * found.size, dtype=kind) for name, kind in lookup.schema.items()})
    # Gathering by an index without nulls, and taking away what was not found, costs less than by one with nulls.
    shown = values.select(pl.when(pl.Series(found)).then(pl.all()))
    return shown.rename(dict(lookup.features)).cast(lookup.schema)  # type: ignore[arg-type]  # Polars wants a wider mapping


def _from(values: pl.DataFrame) -> Callable[[Int64s, Bools], pl.DataFrame]:
    return lambda row, _found: _at(values, row)


def _at(values: pl.DataFrame, row: Int64s) -> pl.DataFrame:
    return values[pl.Series(row)]


def _share(keys: Sequence[pl.Expr], parts: int) -> pl.Expr:
    """Which part of the keys a row's key is in."""
    return pl.struct(keys).hash() % parts
