"""The verification of a slot before it goes live: online = latest offline = point-in-time retrieval for now.

If nothing is known of what a slot held, and with `--verify-all`, every key and value is compared. Otherwise every key
that may have changed, a sample of the others, and the set of all keys by its checksum. The store's own bytes are
compared with those of the latest rows. A few keys are also read through Feast's own call, which shows that our bytes
are Feast's.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Self

import polars as pl
import pyarrow as pa
from feast import FeatureStore
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from headrace.dataset import UTC_MICROSECONDS, FeatureTable
from headrace.feast.encoding import encode, keys, plain_key, plain_value
from headrace.feast.key_checksum import KeyChecksum
from headrace.feast.online_stores.writer import OnlineTable
from headrace.feast.retrieval_job import HeadraceRetrievalJob
from headrace.feast.types import KEY
from headrace.publish.snapshot import Snapshot
from headrace.retrieve.requests import TIME

SERVED = 64
"""Keys of each view that are read through `get_online_features`, which costs far more than a plain read."""

SAMPLE = 1000
"""Keys of each view whose values are compared although nothing says that they changed."""


@dataclass(frozen=True)
class Mismatch:
    """A value that differs.

    Attributes:
        view: Name of the physical view.
        key: The entity, such as `origin=EWR`.
        feature: The feature; empty if the whole key is missing or superfluous.
        expected: The latest value offline.
        found: The value that was compared with it.
        where: Where that value was read.
    """

    view: str
    key: str
    feature: str
    expected: object
    found: object
    where: str

    def __str__(self) -> str:
        """One line for people."""
        what = f"{self.view} {self.key}" + (f": {self.feature}" if self.feature else "")
        return f"{what} is {self.found!r} {self.where}, {self.expected!r} offline"


@dataclass(frozen=True)
class VerificationResult:
    """What was compared for one view, and what differed.

    Attributes:
        view: Name of the physical view.
        changed_keys: Number of keys that may have changed since the slot was verified before. All were compared.
        compared_keys: Number of keys that were compared, including those that must not be there.
        is_complete: Whether these are all keys of the view and of the release.
        compared_values: Number of values that were compared.
        served_keys: Number of keys that were also read through `get_online_features`.
        key_checksum: Checksum over all keys that the view holds.
        digest: Hash of the compared keys, times and values, as the online store holds them.
        mismatches: What differs.
    """

    view: str
    changed_keys: int
    compared_keys: int
    is_complete: bool
    compared_values: int
    served_keys: int
    key_checksum: KeyChecksum
    digest: str
    mismatches: tuple[Mismatch, ...]

    def __str__(self) -> str:
        """One line for people."""
        if self.mismatches:
            differ = f"{len(self.mismatches):,} of {self.compared_values:,} values differ"
            return f"{self.view}: {differ}; first: {self.mismatches[0]}"
        which = (
            "all of them"
            if self.is_complete
            else f"{self.changed_keys:,} that may have changed and a sample of the {self.key_checksum.count:,}"
        )
        return (
            f"{self.view}: {self.compared_keys:,} keys ({which}) and their {self.compared_values:,} values are equal"
            f" online, offline and in point-in-time retrieval; {self.served_keys:,} keys were also read through"
            " get_online_features"
        )

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON."""
        return {**vars(self), "key_checksum": str(self.key_checksum), "mismatches": [*map(str, self.mismatches)]}


@dataclass(frozen=True)
class Expected:
    """What a view must hold.

    Attributes:
        table: The feature table.
        rows: The latest rows of the keys that are compared.
        among: These keys as Feast's bytes, also those that must not be there; None for all there are.
        changed: Those of them that may differ from what the view held before; None for all.
    """

    table: FeatureTable
    rows: pl.DataFrame
    among: pl.Series | None = None
    changed: pl.Series | None = None

    @classmethod
    def whole(cls, snapshot: Snapshot, table: FeatureTable) -> Self:
        """All that the release has."""
        return cls(table, snapshot.latest[table.name])

    @classmethod
    def difference(cls, snapshot: Snapshot, table: FeatureTable, changed: pl.DataFrame) -> Self:
        """What may have `changed`, and a sample of the rest."""
        wanted = pl.concat([changed, snapshot.sample(table, SAMPLE)]).unique()
        return cls(table, snapshot.latest_rows_of(table, wanted), keys(wanted, table), keys(changed, table))

    @cached_property
    def encoded(self) -> pl.DataFrame:
        """The rows as Feast's bytes."""
        return encode(self.rows, self.table)


def prove(
    store: FeatureStore, online_table: OnlineTable, expected: Expected, now: datetime, held: KeyChecksum | None = None
) -> VerificationResult:
    """Compare what `online_table` serves with what it must serve at `now`; `held`: checksum of its keys, if known."""
    table, name = expected.table, online_table.view.name
    offline = expected.rows.select(*table.keys, *table.features)
    released = online_table.stamped(expected.encoded)
    stored = online_table.online.rows(online_table.view, expected.among)
    sample = offline.gather_every(max(1, offline.height // SERVED)).head(SERVED)
    found = (
        *_keys_that_differ(released[KEY], stored[KEY], name),
        *_bytes_that_differ(released, stored, name),
        *differences(offline, _at(store, table, name, offline, now), table, name, "for a request at that time"),
        *differences(sample, _served(store, table, name, sample), table, name, "from get_online_features"),
    )
    compared = released.height if expected.among is None else expected.among.len()
    return VerificationResult(
        name,
        compared if expected.changed is None else expected.changed.len(),
        compared,
        expected.among is None,
        offline.height * len(table.features),
        sample.height,
        held or KeyChecksum.from_keys(stored[KEY]),
        _digest(stored),
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
    assert isinstance(job, HeadraceRetrievalJob)  # noqa: S101  the configuration names our store
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
