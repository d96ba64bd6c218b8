"""The two sides of a dataset in the online store: load one, prove it, switch the service to it."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from feast import FeatureStore, FeatureView

from headrace import failpoints
from headrace.dataset import FeatureTable
from headrace.errors import HeadraceError
from headrace.feast.data_source import CLASS_PATH, CLASS_PATH_0_1, FeatureTableSource
from headrace.feast.definitions import SIDES, Holding, Standing, entities, physical, service, unproved, view
from headrace.feast.key_checksum import Seal, from_tag, to_tag
from headrace.feast.online_stores.writer import LoadResult, OnlineStoreWriter, Shelf, left_behind, online_of
from headrace.feast.open import close_store, open_store, written_only
from headrace.feast.publish_log import Publications
from headrace.feast.types import KEY
from headrace.publish.schema_changes import is_other
from headrace.publish.snapshot import Snapshot
from headrace.publish.verification import Expected, VerificationResult, prove
from headrace.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sides:
    """Both sides of one dataset.

    Attributes:
        store: Feast's store.
        snapshot: What is to be online.
        publications: Who publishes, and what was written down about it.
    """

    store: FeatureStore
    snapshot: Snapshot
    publications: Publications

    @classmethod
    def open(cls, snapshot: Snapshot, repo: Path, settings: Settings) -> Self:
        """Connect to the registry."""
        store = open_store(repo, settings)
        return cls(store, snapshot, Publications.at(store.config.registry.path, snapshot.dataset.name))

    def close(self) -> None:
        """Close the connections to the registry and the online store."""
        self.publications.close()
        close_store(self.store)

    @property
    def standing(self) -> Standing:
        """What the registry says now."""
        with self.publications.known():
            return Standing.of(self.store, self.snapshot.dataset)

    def migrate(self, standing: Standing) -> Standing:
        """Bring what 0.1 left in the online store and in the registry to today's form; the standing after that.

        Servers of this version read both forms, so they notice nothing. What was changed is logged.
        """
        views = [self.shelf(table, side).view for table in self.tables for side in SIDES]
        for table in self.online.migrate(views):
            log.info("%s: the online store's columns of Headrace 0.1 were renamed", table)
        if not _registered_by_0_1(standing):
            return standing
        with self.publications.held(self.publications.take(self.online.generation())):
            standing = self.standing  # as it is while no other publisher can change it
            sources = _registered_by_0_1(standing)
            for source in sources:
                source.class_path = CLASS_PATH
            with failpoints.failpoint("registry that 0.1 wrote"), written_only(self.store) as registry:
                for source in sources:
                    registry.apply_data_source(source, self.store.project)
                _register(registry, self.store.project, list(standing.views.values()))
                if standing.service:
                    registry.apply_feature_service(standing.service, self.store.project)
        names = sorted({source.name for source in sources})
        log.info("%s: registered by Headrace 0.1, now registered again", ", ".join(names))
        return self.standing

    def forget_lost(self, standing: Standing) -> Standing:
        """The standing: where the online store came back empty, or older, neither side counts as proved."""
        fence = self.online.generation()
        mine = (standing.views.get(physical(table, side)) for table in self.tables for side in SIDES)
        lost = [found for view in mine if view and (found := unproved(view, fence))]
        if not lost:
            return standing
        with (
            self.publications.held(self.publications.take(fence)),
            failpoints.failpoint("tags of what was lost"),
            written_only(self.store) as registry,
        ):
            _register(registry, self.store.project, lost)
        return self.standing

    @property
    def online(self) -> OnlineStoreWriter:
        """How the dataset writes the online store."""
        return online_of(self.store, self.snapshot.dataset)

    def shelf(self, table: FeatureTable, side: str) -> Shelf:
        """The values of a table on a side."""
        return Shelf.of(self.store, self.snapshot.dataset, table, side)

    def shows(self, holding: Holding) -> bool:
        """Whether the side holds the snapshot, by what its tags say."""
        return (holding.release, holding.digest) == (self.snapshot.release, self.snapshot.digest)

    def expected(self, before: Snapshot | None, seals: Mapping[str, Seal]) -> dict[str, Expected]:
        """Feature table → what a side must hold.

        Args:
            before: What it held; None if nothing is known of that.
            seals: Feature table → seal of the keys that it held.
        """
        return {table.name: self._expected(table, before, seals.get(table.name)) for table in self.tables}

    def _expected(self, table: FeatureTable, before: Snapshot | None, seal: Seal | None) -> Expected:
        if before is None or seal is None:
            return Expected.whole(self.snapshot, table)
        changed = self.snapshot.affected(table, before)
        # To look up most of the keys costs twice as much as to read them all.
        most = changed.height > seal.count // 2
        return Expected.whole(self.snapshot, table) if most else Expected.difference(self.snapshot, table, changed)

    @property
    def tables(self) -> tuple[FeatureTable, ...]:
        """The dataset's feature tables."""
        return self.snapshot.dataset.features

    def prove(self, side: str, expected: Mapping[str, Expected], seals: Mapping[str, Seal]) -> list[VerificationResult]:
        """Compare what a side holds with what it must hold.

        Args:
            side: The side.
            expected: Feature table → what is compared.
            seals: Feature table → seal of the keys that it must hold.
        """
        with self.publications.known():
            return [self._prove(self.shelf(one.table, side), one, seals) for one in expected.values()]

    def _prove(self, shelf: Shelf, expected: Expected, seals: Mapping[str, Seal]) -> VerificationResult:
        held = None if expected.among is None else Seal.of(shelf.online.keys(shelf.view))
        if held is not None and held != seals.get(expected.table.name):
            # That the keys are others is known; which ones, and what else, comes out when all are compared.
            held, expected = None, Expected.whole(self.snapshot, expected.table)
        return prove(self.store, shelf, expected, self.snapshot.now, held)

    def still_read(self) -> float:
        """Seconds that a server may go on reading the side that was live before the last switch."""
        noted = self.publications.online()
        if noted is None:
            return 0.0
        since = (datetime.now(UTC) - noted.switched_at).total_seconds()
        reader_ttl_s = float(self.store.config.registry.cache_ttl_seconds)
        return max(0.0, reader_ttl_s - since)

    def attempt(self) -> "Attempt":
        """Take the lead: whoever published until now is overtaken."""
        fence = self.online.generation()
        return Attempt(self, self.publications.take(fence), self.standing, fence)


@dataclass(frozen=True)
class Attempt:
    """One publisher's try to bring the standby to the snapshot and to switch to it.

    Attributes:
        sides: What it works on.
        generation: What it may write with, until a later attempt takes the lead.
        standing: How things stood when it began.
        fence: The last publisher that had taken the lead in the online store by then.
    """

    sides: Sides
    generation: int
    standing: Standing
    fence: int

    @property
    def side(self) -> str:
        """The side that nobody reads."""
        return self.standing.standby.side

    def before(self) -> Snapshot | None:
        """What the standby was proved to hold; None if that can not be said."""
        holding, new = self.standing.standby, self.sides.snapshot
        if self.sides.shows(holding):
            return new
        if not (holding.release and holding.digest):
            return None
        try:
            found = Snapshot.of(new.dataset, new.lake, holding.release)
        except HeadraceError:
            return None
        return found.known_at(holding.as_of) if found.digest == holding.digest else None

    def load(
        self, expected: Mapping[str, Expected], *, patient: bool = False, everything: bool = False
    ) -> dict[str, LoadResult]:
        """Bring the standby to what is expected, by the difference; until it is proved, its tags claim nothing.

        Args:
            expected: What it must hold.
            patient: Wait until no server can still be reading the standby.
            everything: Compare also what the standby was proved to hold already.

        Raises:
            PublisherFencedError: A later attempt has the lead.
        """
        if self.sides.shows(self.standing.standby) and not everything:
            return dict.fromkeys(expected, LoadResult(0, 0, 0))
        if patient and (seconds := self.sides.still_read()):
            log.info("waiting %.0f s: a server may still be reading slot %s", seconds, self.side)
            time.sleep(seconds)
        self._claim()
        with failpoints.failpoint("lead in the online store"):
            self.sides.online.lead(self.generation, self.fence)
        return {name: self._load(found) for name, found in expected.items()}

    def seals(self, loads: Mapping[str, LoadResult]) -> dict[str, Seal]:
        """Feature table → seal of the keys that the standby must hold after these loads, where that can be told."""
        return {
            name: had + loads[name].checksum_delta
            for name, had in from_tag(self.standing.standby.seals).items()
            if name in loads
        }

    def refuse_lost(self, loads: Mapping[str, LoadResult]) -> None:
        """See that the online store still is the one that was loaded.

        Raises:
            FeatureStoreError: It came back empty, or as it was before.
        """
        wrote = any(load.written or load.deleted for load in loads.values())
        seen = self.sides.online.generation()
        if seen < (self.generation if wrote else self.fence):
            raise left_behind(self.sides.snapshot.dataset.name, self.generation, seen)

    def switch(self, proof: Mapping[str, Any], seals: Mapping[str, Seal]) -> None:
        """Record what the standby was proved to hold, then show it: one row of the registry, the old or the new.

        Raises:
            PublisherFencedError: A later attempt has the lead.
        """
        snapshot = self.sides.snapshot
        store = self.sides.store
        told = (snapshot.release, snapshot.digest, snapshot.now.isoformat(), to_tag(seals))
        proved = Holding(self.side, *told, str(self.sides.online.generation()))
        with self.sides.publications.held(self.generation) as database:
            with written_only(store) as registry:
                with failpoints.failpoint(
                    "tags of the proved side", lambda: _register(registry, store.project, self._views(proved)[:1])
                ):
                    _register(registry, store.project, self._views(proved))
                with failpoints.failpoint("switch of the service"):
                    registry.apply_feature_service(service(snapshot.dataset, proved), store.project)
            with failpoints.failpoint("note of the proof"):
                self.sides.publications.note(database, dict(proof))

    def note(self, proof: Mapping[str, Any]) -> None:
        """Write the proof of the live side down; nothing is switched."""
        with self.sides.publications.held(self.generation) as database:
            self.sides.publications.note(database, dict(proof))

    def _load(self, expected: Expected) -> LoadResult:
        shelf = self.sides.shelf(expected.table, self.side)
        changed = expected.changed
        if changed is None:
            return shelf.load(expected.encoded, self.generation)
        mine = expected.encoded.join(changed.alias(KEY).to_frame(), on=KEY, how="semi")
        return shelf.load(mine, self.generation, changed)

    def _claim(self) -> None:
        """Tell the registry that the standby holds nothing that anybody may count on."""
        store, views = self.sides.store, self._views(Holding(self.side, self.sides.snapshot.release))
        with self.sides.publications.held(self.generation):
            as_declared = self._drop_others()
            with failpoints.failpoint("claim of the standby"):
                if as_declared:
                    # What `apply` would do, without its look at all else that is registered.
                    store.provider.online_store.update(store.config, [], views, [], [], partial=True)
                    with written_only(store) as registry:
                        _register(registry, store.project, views)
                    store.refresh_registry()
                else:
                    store.apply([*entities(self.sides.tables).values(), *views])

    def _drop_others(self) -> bool:
        """Views of the standby with other columns: their values go first, as no difference would find them all.

        Returns:
            Whether all views are there, as they are declared.
        """
        store = self.sides.store
        there = [(self.standing.views.get(physical(table, self.side)), table) for table in self.sides.tables]
        others = [old for old, table in there if old is not None and is_other(old, table)]
        for old in others:
            with failpoints.failpoint("values of a view with other columns"):
                store.provider.online_store.update(store.config, [old], [], [], [], partial=True)
        return not others and all(old is not None for old, _ in there)

    def _views(self, holding: Holding) -> list[FeatureView]:
        return [view(self.sides.snapshot.dataset, table, holding) for table in self.sides.tables]


def _registered_by_0_1(standing: Standing) -> list[FeatureTableSource]:
    """The sources of views, of whichever dataset, and of the service that are registered as 0.1 did."""
    projections = standing.service.feature_view_projections if standing.service else ()
    sources = [one.batch_source for one in (*standing.views.values(), *projections)]
    return [one for one in sources if isinstance(one, FeatureTableSource) and one.class_path == CLASS_PATH_0_1]


def _register(registry: Any, project: str, views: Sequence[FeatureView]) -> None:  # noqa: ANN401  Feast has no types
    """Write views that are there already, with other tags: no table of the online store is made or changed."""
    for one in views:
        registry.apply_feature_view(one, project)
