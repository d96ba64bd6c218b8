"""The proof that a side may go live: online = latest offline = what a point-in-time request for now answers.

Key sets are compared whole, always. Values are compared of every key that may have changed and of a sample of the rest
(or of every key): the online store's own bytes with those of the latest rows. A few keys are read through Feast's own
call as well, which also proves that our bytes are Feast's.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import polars as pl
import pyarrow as pa
from feast import FeatureStore
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from pipelines.dataset import UTC_MICROSECONDS, FeatureTable
from pipelines.systems.feature_store.definitions import physical
from pipelines.systems.feature_store.encoding import KEY, encode, keys, plain_key, plain_value
from pipelines.systems.feature_store.job import Retrieval
from pipelines.systems.feature_store.online import Shelf
from pipelines.systems.feature_store.requests import TIME
from pipelines.systems.feature_store.snapshot import Snapshot

SERVED = 64
"""Keys of each view that are read through `get_online_features`, which costs a hundred times a plain read."""

SAMPLE = 1000
"""Keys of each view whose values are compared although nothing says that they changed."""


@dataclass(frozen=True)
class Mismatch:
    """A value that differs.

    Attributes:
        view: Name of the physical view.
        key: The entity, such as `origin=EWR`.
        feature: Its feature; empty when the whole key is there or not there.
        expected: The latest value offline.
        seen: What the other answer was.
        where: Which one that is.
    """

    view: str
    key: str
    feature: str
    expected: object
    seen: object
    where: str

    def __str__(self) -> str:
        """One line for people."""
        what = f"{self.view} {self.key}" + (f": {self.feature}" if self.feature else "")
        return f"{what} is {self.seen!r} {self.where}, {self.expected!r} offline"


@dataclass(frozen=True)
class Proof:
    """What was compared for one view, and what differed.

    Attributes:
        view: Name of the physical view.
        keys: Keys that it holds: all of them are the release's, and none of the release's is missing.
        changed: Keys that may have changed since what the side held before; all of them were compared.
        compared: Keys whose values were compared.
        values: Values that were compared.
        sampled: Keys that were read through `get_online_features` too.
        digest: Hash of the compared keys, times and values, as the online store holds them.
        mismatches: What differs.
    """

    view: str
    keys: int
    changed: int
    compared: int
    values: int
    sampled: int
    digest: str
    mismatches: tuple[Mismatch, ...]

    def __str__(self) -> str:
        """One line for people."""
        if self.mismatches:
            return (
                f"{self.view}: {len(self.mismatches):,} of {self.values:,} values differ; first: {self.mismatches[0]}"
            )
        rest = "" if self.compared == self.keys else f" ({self.changed:,} may have changed, the others are a sample)"
        return (
            f"{self.view}: the {self.keys:,} keys are the release's; {self.values:,} values of {self.compared:,} keys"
            f"{rest} are equal online, offline and for a request at that time;"
            f" {self.sampled:,} keys read through get_online_features too"
        )


@dataclass(frozen=True)
class Expected:
    """What a view must hold.

    Attributes:
        keys: Every key that it must hold, as Feast's bytes.
        changed: Those that may differ from what it held before; None for all.
        rows: The latest rows of the keys whose values are compared.
    """

    keys: pl.Series
    changed: pl.Series | None
    rows: pl.DataFrame

    @classmethod
    def of(cls, snapshot: Snapshot, table: FeatureTable, changed: pl.DataFrame | None) -> "Expected":
        """All rows; or those of the `changed` keys and of a sample of the rest."""
        if changed is None:
            rows = snapshot.latest[table.name]
            return cls(keys(rows, table), None, rows)
        every = snapshot.keys(table)
        rest = every.join(changed, on=table.keys, how="anti").sort(table.keys)
        sample = rest.gather_every(max(1, rest.height // SAMPLE)).head(SAMPLE)
        rows = snapshot.among(table, pl.concat([changed, sample]))
        return cls(keys(every, table), keys(changed, table), rows)


def prove(store: FeatureStore, table: FeatureTable, side: str, expected: Expected, now: datetime) -> Proof:
    """Compare what `side` serves for `table` with what it must serve at `now`."""
    name, shelf = physical(table, side), Shelf.of(store, table, side)
    offline = expected.rows.select(*table.keys, *table.features)
    wanted = shelf.stamped(encode(expected.rows, table))
    there = shelf.online.keys(shelf.view)
    whole = wanted.height == expected.keys.len()
    looked_at = (
        None if whole else pl.concat([wanted[KEY], *([expected.changed] if expected.changed is not None else [])])
    )
    seen = shelf.online.rows(shelf.view, looked_at)
    step = max(1, offline.height // SERVED)
    sample = offline.sort(table.keys).gather_every(step).head(SERVED)
    found = (
        *_keys_that_differ(expected.keys, there, name),
        *_bytes_that_differ(wanted, seen, name),
        *differences(offline, _at(store, table, name, offline, now), table, name, "for a request at that time"),
        *differences(sample, _served(store, table, name, sample), table, name, "from get_online_features"),
    )
    changed = expected.keys if expected.changed is None else expected.changed
    return Proof(
        name,
        expected.keys.len(),
        changed.len(),
        offline.height,
        offline.height * len(table.features),
        sample.height,
        _digest(seen),
        found,
    )


def _keys_that_differ(expected: pl.Series, seen: pl.Series, view: str) -> Iterator[Mismatch]:
    """Keys that only one of the two has."""
    must, has = expected.alias(KEY).to_frame(), seen.alias(KEY).to_frame()
    for key in must.join(has, on=KEY, how="anti")[KEY]:
        yield Mismatch(view, _named(key), "", "there", "missing", "in the online store")
    for key in has.join(must, on=KEY, how="anti")[KEY]:
        yield Mismatch(view, _named(key), "", "missing", "there", "in the online store")


def _bytes_that_differ(wanted: pl.DataFrame, seen: pl.DataFrame, view: str) -> Iterator[Mismatch]:
    """Values and times of the same key that are other bytes."""
    columns = [name for name in wanted.columns if name != KEY]
    both = wanted.join(seen.rename({name: f"{name} seen" for name in columns}), on=KEY, how="inner")
    for name in columns:
        for row in both.filter(pl.col(name).ne_missing(pl.col(f"{name} seen"))).iter_rows(named=True):
            expected, other = (_shown(row[column]) for column in (name, f"{name} seen"))
            yield Mismatch(view, _named(row[KEY]), name, expected, other, "in the online store")


def differences(
    offline: pl.DataFrame, other: pl.DataFrame, table: FeatureTable, view: str, where: str
) -> Iterator[Mismatch]:
    """Keys that only one of the two frames has, and values that are not equal (null equals null, NaN equals NaN)."""
    names = list(table.keys)
    for row in offline.join(other, on=names, how="anti").iter_rows(named=True):
        yield Mismatch(view, _key(row, table), "", "there", "missing", where)
    for row in other.join(offline, on=names, how="anti").iter_rows(named=True):
        yield Mismatch(view, _key(row, table), "", "missing", "there", where)
    both = offline.join(other, on=names, how="inner", suffix="__other")
    for feature in table.features:
        other_name = f"{feature}__other"
        for row in both.filter(pl.col(feature).ne_missing(pl.col(other_name))).iter_rows(named=True):
            yield Mismatch(view, _key(row, table), feature, row[feature], row[other_name], where)


def _at(store: FeatureStore, table: FeatureTable, view: str, offline: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """What point-in-time retrieval answers at `now` for the keys of `offline`."""
    requests = offline.select(*table.keys, pl.lit(now, dtype=UTC_MICROSECONDS).alias(TIME))
    job = store.get_historical_features(requests, _references(table, view))
    assert isinstance(job, Retrieval)  # noqa: S101  the configuration names our store
    return job.to_polars().drop(TIME)


def _served(store: FeatureStore, table: FeatureTable, view: str, sample: pl.DataFrame) -> pl.DataFrame:
    if sample.is_empty():
        return sample
    rows = sample.select(table.keys).to_dicts()
    answer = store.get_online_features(_references(table, view), rows).to_dict()
    return pl.DataFrame(answer, schema_overrides=dict(sample.schema), strict=False).select(sample.columns)


def _references(table: FeatureTable, view: str) -> list[str]:
    return [f"{view}:{feature}" for feature in table.features]


def _digest(seen: pl.DataFrame) -> str:
    """Equal for two shelves in which the compared keys hold the same bytes, in whatever order they came."""
    found = hashlib.sha256()
    for column in seen.sort(KEY).get_columns():
        kind = pa.large_binary() if column.dtype == pl.Binary else pa.int64()
        for buffer in column.rechunk().to_arrow().cast(kind).buffers():
            found.update(buffer or b"")
    return found.hexdigest()[:32]


def _key(row: dict[str, object], table: FeatureTable) -> str:
    return ", ".join(f"{name}={row[name]}" for name in table.keys)


def _named(key: bytes) -> str:
    try:
        return ", ".join(f"{name}={value}" for name, value in plain_key(key).items())
    except (ValueError, KeyError):
        return repr(key)


def _shown(value: object) -> object:
    """A value as people know it; bytes that are no message as they are."""
    if not isinstance(value, bytes | None):
        return value
    try:
        return plain_value(value)
    except DecodeError:
        return value
