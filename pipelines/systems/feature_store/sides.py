"""The two sides of a dataset in the online store: load one, prove it, switch the service to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from feast import Entity, FeatureService, FeatureStore, FeatureView

from pipelines.settings import Settings
from pipelines.systems.feature_store.definitions import Holding, Standing, entities, service, view
from pipelines.systems.feature_store.errors import OvertakenError
from pipelines.systems.feature_store.online import Loaded, Shelf
from pipelines.systems.feature_store.proof import Proof, prove
from pipelines.systems.feature_store.snapshot import Snapshot
from pipelines.systems.feature_store.store import close_store, open_store


@dataclass(frozen=True)
class Sides:
    """Both sides, as they stood when they were opened.

    Attributes:
        store: Feast's store.
        snapshot: What is to be online.
        standing: Which side is live, and what each holds.
    """

    store: FeatureStore
    snapshot: Snapshot
    standing: Standing

    @classmethod
    def open(cls, snapshot: Snapshot, repo: Path, settings: Settings) -> Self:
        """Ask the registry how things stand."""
        store = open_store(repo, settings)
        return cls(store, snapshot, Standing.of(store, snapshot.dataset))

    def close(self) -> None:
        """Close the connections to the registry and the online store."""
        close_store(self.store)

    def is_live(self) -> bool:
        """Whether the service shows the snapshot already, by what its tags say."""
        live = self.standing.live
        return (live.release, live.digest) == (self.snapshot.release, self.snapshot.digest)

    def load(self, side: str) -> dict[str, Loaded]:
        """Bring a side to the snapshot by the difference; until it is proved, its tags claim nothing."""
        tables = self.snapshot.dataset.features
        self._apply([*entities(tables).values(), *self._views(Holding(side, self.snapshot.release))])
        rows = self.snapshot.latest
        return {table.name: Shelf.of(self.store, table, side).load(rows[table.name]) for table in tables}

    def prove(self, side: str) -> list[Proof]:
        """Compare everything a side holds with the snapshot."""
        rows, now = self.snapshot.latest, self.snapshot.now
        return [prove(self.store, table, side, rows[table.name], now) for table in self.snapshot.dataset.features]

    def switch(self, side: str) -> None:
        """Record what the side was proved to hold, then show it: one row of the registry, the old or the new.

        Raises:
            OvertakenError: The service was switched since the sides were opened.
        """
        dataset = self.snapshot.dataset
        if Standing.of(self.store, dataset).live != self.standing.live:
            raise OvertakenError(
                f"{dataset.service}: another publish switched it while this one was loading. Nothing was switched now;"
                f" if the other one was of an older release, run `headrace publish {dataset.name}` again."
            )
        proved = Holding(side, self.snapshot.release, self.snapshot.digest, self.snapshot.now.isoformat())
        self._apply(self._views(proved))
        self._apply([service(dataset, proved)])

    def _views(self, holding: Holding) -> list[FeatureView]:
        dataset = self.snapshot.dataset
        return [view(dataset, table, holding) for table in dataset.features]

    def _apply(self, objects: Sequence[Entity | FeatureView | FeatureService]) -> None:
        self.store.apply(list(objects))
