"""The proof that a side may go live: online = latest offline = what a point-in-time request for now answers.

All keys are compared, not counted, and all values; a sample of keys is read through Feast's own call as well.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import polars as pl
from feast import FeatureStore

from pipelines.dataset import UTC_MICROSECONDS, FeatureTable
from pipelines.systems.feature_store.definitions import physical
from pipelines.systems.feature_store.offline import Retrieval
from pipelines.systems.feature_store.online import Shelf
from pipelines.systems.feature_store.requests import TIME

SAMPLE = 64
"""Keys of each view that are read through `get_online_features`, which costs a hundred times a plain read."""


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
    """What was compared for one view, and what differed."""

    view: str
    keys: int
    values: int
    sampled: int
    mismatches: tuple[Mismatch, ...]

    def __str__(self) -> str:
        """One line for people."""
        if self.mismatches:
            return (
                f"{self.view}: {len(self.mismatches):,} of {self.values:,} values differ; first: {self.mismatches[0]}"
            )
        return (
            f"{self.view}: {self.values:,} values of {self.keys:,} keys are equal online, offline and for a request"
            f" at that time; {self.sampled:,} keys read through get_online_features too"
        )


def prove(store: FeatureStore, table: FeatureTable, side: str, latest: pl.DataFrame, now: datetime) -> Proof:
    """Compare what `side` serves for `table` with `latest`, its rows offline at `now`."""
    name = physical(table, side)
    offline = latest.select(*table.keys, *table.features).sort(table.keys)
    online = Shelf.of(store, table, side).read()
    sample = offline.gather_every(max(1, offline.height // SAMPLE)).head(SAMPLE)
    found = (
        *differences(offline, online, table, name, "in the online store"),
        *differences(offline, _at(store, table, name, offline, now), table, name, "for a request at that time"),
        *differences(sample, _served(store, table, name, sample), table, name, "from get_online_features"),
    )
    return Proof(name, offline.height, offline.height * len(table.features), sample.height, found)


def differences(
    offline: pl.DataFrame, other: pl.DataFrame, table: FeatureTable, view: str, where: str
) -> Iterator[Mismatch]:
    """Keys that only one of the two frames has, and values that are not equal (null equals null, NaN equals NaN)."""
    keys = list(table.keys)
    for row in offline.join(other, on=keys, how="anti").iter_rows(named=True):
        yield Mismatch(view, _key(row, table), "", "there", "missing", where)
    for row in other.join(offline, on=keys, how="anti").iter_rows(named=True):
        yield Mismatch(view, _key(row, table), "", "missing", "there", where)
    both = offline.join(other, on=keys, how="inner", suffix="__other")
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
    return pl.DataFrame(answer, schema_overrides=dict(sample.schema)).select(sample.columns)


def _references(table: FeatureTable, view: str) -> list[str]:
    return [f"{view}:{feature}" for feature in table.features]


def _key(row: dict[str, object], table: FeatureTable) -> str:
    return ", ".join(f"{name}={row[name]}" for name in table.keys)
