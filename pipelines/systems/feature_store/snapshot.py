"""What a release says every key's value is: its latest row, at the moment at which all of the release is known."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Self

import polars as pl

from pipelines.dataset import Dataset, FeatureTable
from pipelines.features import EVENT_TIME, KNOWN_TIME
from pipelines.systems.feature_store.errors import NothingToPublishError
from pipelines.systems.feature_store.release import Rows, digest, manifest, microseconds, moment, table_name
from pipelines.table import Lake, Manifest


@dataclass(frozen=True)
class Snapshot:
    """The feature tables of a release."""

    dataset: Dataset
    lake: Lake
    release: str
    manifests: Mapping[str, Manifest]

    @classmethod
    def of(cls, dataset: Dataset, lake: Lake, release: str) -> Self:
        """Read the manifests; no row is read yet.

        Raises:
            NothingToPublishError: A table has no partition.
        """
        found = {table.name: manifest(lake, table_name(dataset, table), release) for table in dataset.features}
        empty = [name for name, table in found.items() if not table.partitions]
        if empty:
            raise NothingToPublishError(
                f"{release or dataset.name}: {', '.join(empty)} {'has' if len(empty) == 1 else 'have'} no partition."
                f" Run `headrace run {dataset.name}` first."
            )
        return cls(dataset, lake, release, found)

    @cached_property
    def digest(self) -> str:
        """Equal for two releases when they put the same values online: same files, same declarations."""
        declared = [repr((t.name, t.keys, t.key_types, t.features, t.ttl)) for t in self.dataset.features]
        lines = [*declared, *digest(list(self.manifests.values()))]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]

    @cached_property
    def now(self) -> datetime:
        """The moment at which all of the release is known."""
        moments = (Rows.between(self.lake, table, None, None).newest_moment() for table in self.manifests.values())
        return moment(max((found for found in moments if found is not None), default=0))

    @cached_property
    def latest(self) -> dict[str, pl.DataFrame]:
        """Feature table → the latest row of each key that is not older than the TTL.

        Raises:
            NothingToPublishError: There is none in any table.
        """
        found = {table.name: self._latest(table) for table in self.dataset.features}
        if all(rows.is_empty() for rows in found.values()):
            raise NothingToPublishError(
                f"{self.release or self.dataset.name}: no key of any feature table has a value within its TTL of"
                f" {self.now.isoformat()}, the newest event or known time of the release."
                " If that time is wrong, a source gave a stamp from the future; else the TTLs are too short."
            )
        return found

    def _latest(self, table: FeatureTable) -> pl.DataFrame:
        now = microseconds(self.now)
        since = microseconds(self.now - table.ttl) if table.ttl else None
        rows = Rows.between(self.lake, self.manifests[table.name], since, now)
        return latest(rows.read([*table.keys, EVENT_TIME, KNOWN_TIME, *table.features]), table, self.now)


def latest(rows: pl.DataFrame, table: FeatureTable, now: datetime) -> pl.DataFrame:
    """The newest row of each key at `now`: known by then, and not older than the TTL."""
    seen = (pl.col(EVENT_TIME) <= now) & (pl.col(KNOWN_TIME) <= now)
    if table.ttl:
        seen &= pl.col(EVENT_TIME) >= now - table.ttl
    return (
        rows.filter(seen)
        .drop_nulls(list(table.keys))
        .sort(*table.keys, EVENT_TIME, KNOWN_TIME, maintain_order=True)
        .unique(table.keys, keep="last", maintain_order=True)
    )
