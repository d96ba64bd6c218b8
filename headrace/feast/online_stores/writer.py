"""The online store as a projection: bring a view to exactly these values by the difference, and read it back.

Each store writes a difference whole or not at all, and refuses a publisher that was overtaken: the generation that the
publisher was given is compared in the same transaction in which the values are written.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import polars as pl
from feast import FeatureStore

from headrace import failpoints
from headrace.dataset import Dataset, FeatureTable
from headrace.errors import HeadraceError
from headrace.feast.definitions import physical_view_name
from headrace.feast.encoding import key_size
from headrace.feast.key_checksum import NO_KEYS, KeyChecksum
from headrace.feast.publish_log import PublisherFencedError
from headrace.feast.types import KEY, STAMP
from headrace.retrieve.errors import FeatureStoreError, FeatureStoreUnavailableError


@dataclass(frozen=True)
class OnlineView:
    """A physical view as the online store knows it.

    Attributes:
        name: Its name.
        keys: The join keys.
        features: The features.
        key_size: Bytes of each encoded key, where all have the same.
    """

    name: str
    keys: tuple[str, ...]
    features: tuple[str, ...]
    key_size: int | None = None


class OnlineStoreWriter(Protocol):
    """What an online store does for us. Rows have the columns `KEY`, `STAMP` and the features, as Feast's bytes."""

    def rows(self, view: OnlineView, among: pl.Series | None = None) -> pl.DataFrame:
        """The view's rows of these keys, by default all; a missing cell is null."""

    def keys(self, view: OnlineView) -> pl.Series:
        """Every key that the view holds, each once."""

    def change(self, view: OnlineView, write: pl.DataFrame, delete: pl.Series, generation: int) -> None:
        """Write the rows, delete the keys.

        Raises:
            PublisherFencedError: A later generation took the lead in this store.
            FeatureStoreError: The store lost the generation: it was restarted empty or in an older state.
        """

    def take_lead(self, generation: int, last: int) -> None:
        """Refuse writes of generations below `generation` from now on; `last` is the generation that had the lead.

        Raises:
            PublisherFencedError: A later generation took the lead in this store.
            FeatureStoreError: The store lost `last`: it was restarted empty or in an older state.
        """

    def generation(self) -> int:
        """The last generation that took the lead in this store; 0 if there was none."""

    def stamps(self, times: pl.Series) -> pl.Series:
        """Microseconds → what the store keeps of an event's time."""

    def migrate(self, views: Iterable[OnlineView]) -> list[str]:
        """Bring the tables that 0.1 wrote of these views to today's layout, all or none; the names of those tables."""


@dataclass(frozen=True)
class LoadResult:
    """What a load did to the keys that it compared.

    Attributes:
        written: Keys that are new, or of which a value differed.
        deleted: Keys that the release does not have.
        unchanged: Keys that were right already.
        checksum_delta: Checksum of the new keys minus that of the deleted ones.
    """

    written: int
    deleted: int
    unchanged: int
    checksum_delta: KeyChecksum = NO_KEYS

    def to_dict(self) -> dict[str, int]:
        """The counts as JSON."""
        return {"written": self.written, "deleted": self.deleted, "unchanged": self.unchanged}


@dataclass(frozen=True)
class Change:
    """The difference between the rows that a view holds and should hold; `new`: keys that it does not have yet."""

    write: pl.DataFrame
    delete: pl.Series
    new: pl.Series

    @classmethod
    def between(cls, held: pl.DataFrame, wanted: pl.DataFrame) -> Self:
        """Compare by key; of a row in which one value differs, the whole row is written."""
        if held.is_empty():
            return cls(wanted, held[KEY], wanted[KEY])
        other = {name: f"{name} held" for name in wanted.columns if name != KEY}
        both = wanted.join(held.rename(other), on=KEY, how="left")
        same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(was)) for name, was in other.items())
        gone, new = (one.join(two, on=KEY, how="anti")[KEY] for one, two in ((held, wanted), (wanted, held)))
        return cls(both.filter(~same).select(wanted.columns), gone, new)


@dataclass(frozen=True)
class OnlineTable:
    """One physical view in the online store."""

    online: OnlineStoreWriter
    view: OnlineView

    @classmethod
    def open(cls, store: FeatureStore, dataset: Dataset, table: FeatureTable, side: str) -> Self:
        """The values of `table` on `side`.

        Raises:
            FeatureStoreError: There is no publisher for that type of online store.
        """
        held = OnlineView(physical_view_name(table, side), table.keys, tuple(table.features), key_size(table))
        return cls(online_of(store, dataset), held)

    def load(self, wanted: pl.DataFrame, generation: int, among: pl.Series | None = None) -> LoadResult:
        """Make the view hold `wanted` (encoded rows, one a key) and nothing else.

        Args:
            wanted: The rows.
            generation: What this publisher was given.
            among: The only keys that may differ; by default every key is looked at.

        Raises:
            PublisherFencedError: A later publisher took the lead in this store.
            FeatureStoreError: The store can not be written, or has lost what was written to it.
        """
        change = Change.between(self.online.rows(self.view, among), self.stamped(wanted))
        write, delete = change.write, change.delete
        if write.height or delete.len():
            some = write.head(max(1, write.height // 2))
            with failpoints.failpoint(
                "online values", lambda: self.online.change(self.view, some, delete.clear(), generation)
            ):
                self.online.change(self.view, write, delete, generation)
        moved = KeyChecksum.from_keys(change.new) - KeyChecksum.from_keys(delete)
        return LoadResult(write.height, delete.len(), wanted.height - write.height, moved)

    def stamped(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows with times as the store keeps them."""
        return rows.with_columns(self.online.stamps(rows[STAMP]).alias(STAMP))


@runtime_checkable
class Publishable(Protocol):
    """An online store of Feast's that a publish can write.

    Attributes:
        max_features: Features that a table of it has at most; None where nothing limits them.
    """

    max_features: int | None

    def publisher(self, store: FeatureStore, dataset: str) -> OnlineStoreWriter:
        """How that dataset writes it."""


def online_of(store: FeatureStore, dataset: Dataset) -> OnlineStoreWriter:
    """How the dataset writes the online store of `feature_store.yaml`.

    Raises:
        FeatureStoreError: It is not one of ours, or a feature table has more features than it can hold.
    """
    found = _publishable(store)
    for table in dataset.features:
        if found.max_features is not None and len(table.features) > found.max_features:
            raise FeatureStoreError(
                f"{dataset.name}: the feature table {table.name} has {len(table.features):,} features, and the online"
                f" store {store.config.online_store.type} holds at most {found.max_features:,} per table. Nothing was"
                f" changed. Divide it into several feature tables in pipelines/{dataset.name}/, then run"
                f" `headrace run {dataset.name}`, release and publish again."
            )
    return found.publisher(store, dataset.name)


def publisher_of(store: FeatureStore, dataset: str) -> OnlineStoreWriter:
    """The same for a dataset that may not be declared any more."""
    return _publishable(store).publisher(store, dataset)


def _publishable(store: FeatureStore) -> Publishable:
    found = store.provider.online_store
    if not isinstance(found, Publishable):
        raise FeatureStoreError(
            f"Headrace cannot publish to an online store of type {store.config.online_store.type!r}: expected"
            " online_stores.sqlite.HeadraceSQLiteOnlineStore, online_stores.postgresql.HeadracePostgreSQLOnlineStore or"
            " online_stores.redis.HeadraceRedisOnlineStore of headrace.feast. Set one in"
            " feature_repo/feature_store.yaml, or write one beside them."
        )
    return found


def fenced_error(dataset: str, generation: int, seen: int) -> HeadraceError:
    """The error of a publisher that does not find the store as it left it, but with the fence at `seen`."""
    if seen > generation:
        return PublisherFencedError(
            f"{dataset}: publish {generation} was fenced off in the online store by the later publish {seen}, and has"
            f" written nothing since. What that one serves is intact. Run `headrace publish {dataset}` again if your"
            " release is to be served."
        )
    return FeatureStoreUnavailableError(
        f"The online store lost what was written to it for {dataset}: it was restarted, empty or in an older state."
        f" No service was switched; what is served may be lost, too. Run `headrace publish {dataset}` again: it writes"
        " what is missing."
    )
