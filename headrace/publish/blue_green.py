"""Blue-green deployment of a dataset's online tables: load the standby, verify it, switch the service to it."""

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
from headrace.feast.definitions import (
    SIDES,
    DeploymentState,
    SlotState,
    entities,
    feature_service,
    feature_view,
    physical_view_name,
    without_lost_verification,
)
from headrace.feast.key_checksum import KeyChecksum, from_tag, to_tag
from headrace.feast.online_stores.writer import LoadResult, OnlineStoreWriter, OnlineTable, fenced_error, online_of
from headrace.feast.open import close_store, open_store, written_only
from headrace.feast.publish_log import PublishLog
from headrace.feast.types import KEY
from headrace.publish.schema_changes import is_other
from headrace.publish.snapshot import Snapshot
from headrace.publish.verification import Expected, VerificationResult, prove
from headrace.settings import Settings
from headrace.storage import git, git_remote
from headrace.storage.pruned_releases import check_not_pruned

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sides:
    """Both sides of one dataset.

    Attributes:
        store: Feast's store.
        snapshot: What is to be online.
        publish_log: Who publishes, and what the last publish recorded.
    """

    store: FeatureStore
    snapshot: Snapshot
    publish_log: PublishLog

    @classmethod
    def open(cls, snapshot: Snapshot, repo: Path, settings: Settings) -> Self:
        """Connect to the registry."""
        store = open_store(repo, settings)
        return cls(store, snapshot, PublishLog.at(store.config.registry.path, snapshot.dataset.name))

    def close(self) -> None:
        """Close the connections to the registry and the online store."""
        self.publish_log.close()
        close_store(self.store)

    @property
    def deployment(self) -> DeploymentState:
        """What the registry says now."""
        with self.publish_log.translated_errors():
            return DeploymentState.read(self.store, self.snapshot.dataset)

    def migrate(self, deployment: DeploymentState) -> DeploymentState:
        """Bring what 0.1 left in the online store and in the registry to today's form; the deployment state after that.

        Servers of this version read both forms, so they notice nothing. What was changed is logged.
        """
        views = [self.online_table(table, side).view for table in self.tables for side in SIDES]
        for table in self.online.migrate(views):
            log.info("%s: the online store's columns of Headrace 0.1 were renamed", table)
        if not _registered_by_0_1(deployment):
            return deployment
        with self.publish_log.hold_lead(self.publish_log.take_lead(self.online.generation())):
            deployment = self.deployment  # as it is while no other publisher can change it
            sources = _registered_by_0_1(deployment)
            for source in sources:
                source.class_path = CLASS_PATH
            with failpoints.failpoint("registry that 0.1 wrote"), written_only(self.store) as registry:
                for source in sources:
                    registry.apply_data_source(source, self.store.project)
                _register(registry, self.store.project, list(deployment.views.values()))
                if deployment.service:
                    registry.apply_feature_service(deployment.service, self.store.project)
        names = sorted({source.name for source in sources})
        log.info("%s: registered by Headrace 0.1, now registered again", ", ".join(names))
        return self.deployment

    def forget_lost(self, deployment: DeploymentState) -> DeploymentState:
        """The deployment state; if the online store came back empty or older, neither side counts as verified."""
        fence = self.online.generation()
        mine = (deployment.views.get(physical_view_name(table, side)) for table in self.tables for side in SIDES)
        lost = [found for view in mine if view and (found := without_lost_verification(view, fence))]
        if not lost:
            return deployment
        with (
            self.publish_log.hold_lead(self.publish_log.take_lead(fence)),
            failpoints.failpoint("tags of what was lost"),
            written_only(self.store) as registry,
        ):
            _register(registry, self.store.project, lost)
        return self.deployment

    @property
    def online(self) -> OnlineStoreWriter:
        """How the dataset writes the online store."""
        return online_of(self.store, self.snapshot.dataset)

    def online_table(self, table: FeatureTable, side: str) -> OnlineTable:
        """The values of a table on a side."""
        return OnlineTable.open(self.store, self.snapshot.dataset, table, side)

    def holds_snapshot(self, slot_state: SlotState) -> bool:
        """Whether the side holds the snapshot, by what its tags say."""
        return (slot_state.release, slot_state.digest) == (self.snapshot.release, self.snapshot.digest)

    def verified_snapshot(self, slot_state: SlotState) -> Snapshot | None:
        """What a side was verified to hold; None if that is unknown."""
        new = self.snapshot
        if self.holds_snapshot(slot_state):
            return new
        if not (slot_state.release and slot_state.digest):
            return None
        try:
            found = Snapshot.read(new.dataset, new.table_store, slot_state.release)
        except HeadraceError:
            return None
        return found.known_at(slot_state.as_of) if found.digest == slot_state.digest else None

    def expected(self, before: Snapshot | None, checksums: Mapping[str, KeyChecksum]) -> dict[str, Expected]:
        """Feature table → what a side must hold.

        Args:
            before: What it held; None if nothing is known of that.
            checksums: Feature table → checksum of the keys that it held.
        """
        return {table.name: self._expected(table, before, checksums.get(table.name)) for table in self.tables}

    def _expected(self, table: FeatureTable, before: Snapshot | None, checksum: KeyChecksum | None) -> Expected:
        if before is None or checksum is None:
            return Expected.whole(self.snapshot, table)
        changed = self.snapshot.changed_keys(table, before)
        # To look up most of the keys costs more than to read them all.
        most = changed.height > checksum.count // 2
        return Expected.whole(self.snapshot, table) if most else Expected.difference(self.snapshot, table, changed)

    @property
    def tables(self) -> tuple[FeatureTable, ...]:
        """The dataset's feature tables."""
        return self.snapshot.dataset.features

    def prove(
        self, side: str, expected: Mapping[str, Expected], checksums: Mapping[str, KeyChecksum]
    ) -> list[VerificationResult]:
        """Compare what a side holds with what it must hold.

        Args:
            side: The side.
            expected: Feature table → what is compared.
            checksums: Feature table → checksum of the keys that it must hold.
        """
        with self.publish_log.translated_errors():
            return [self._prove(self.online_table(one.table, side), one, checksums) for one in expected.values()]

    def _prove(
        self, online_table: OnlineTable, expected: Expected, checksums: Mapping[str, KeyChecksum]
    ) -> VerificationResult:
        held = None if expected.among is None else KeyChecksum.from_keys(online_table.online.keys(online_table.view))
        if held is not None and held != checksums.get(expected.table.name):
            # That the keys are others is known; which ones, and what else, comes out when all are compared.
            held, expected = None, Expected.whole(self.snapshot, expected.table)
        return prove(self.store, online_table, expected, self.snapshot.now, held)

    def still_read(self) -> float:
        """Seconds that a server may go on reading the side that was live before the last switch."""
        noted = self.publish_log.online()
        if noted is None:
            return 0.0
        since = (datetime.now(UTC) - noted.switched_at).total_seconds()
        reader_ttl_s = float(self.store.config.registry.cache_ttl_seconds)
        return max(0.0, reader_ttl_s - since)

    def attempt(self) -> "PublishAttempt":
        """Take the lead: every earlier publisher is fenced off."""
        fence = self.online.generation()
        return PublishAttempt(self, self.publish_log.take_lead(fence), self.deployment, fence)


@dataclass(frozen=True)
class PublishAttempt:
    """One publisher's try to bring the standby to the snapshot and to switch to it.

    Attributes:
        sides: What it works on.
        generation: What it may write with, until a later attempt takes the lead.
        deployment: What the registry said when it began.
        fence: The last publisher that had taken the lead in the online store by then.
    """

    sides: Sides
    generation: int
    deployment: DeploymentState
    fence: int

    @property
    def side(self) -> str:
        """The side that nobody reads."""
        return self.deployment.standby.side

    def verified_snapshot(self) -> Snapshot | None:
        """What the standby was verified to hold; None if that is unknown."""
        return self.sides.verified_snapshot(self.deployment.standby)

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
        if self.sides.holds_snapshot(self.deployment.standby) and not everything:
            return dict.fromkeys(expected, LoadResult(0, 0, 0))
        if patient and (seconds := self.sides.still_read()):
            log.info("waiting %.0f s: a server may still be reading slot %s", seconds, self.side)
            time.sleep(seconds)
        self._claim()
        with failpoints.failpoint("lead in the online store"):
            self.sides.online.take_lead(self.generation, self.fence)
        return {name: self._load(found) for name, found in expected.items()}

    def checksums(self, loads: Mapping[str, LoadResult]) -> dict[str, KeyChecksum]:
        """Feature table → checksum of the keys that the standby must hold after these loads, where that is known."""
        return {
            name: had + loads[name].checksum_delta
            for name, had in from_tag(self.deployment.standby.seals).items()
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
            raise fenced_error(self.sides.snapshot.dataset.name, self.generation, seen)

    def switch(self, proof: Mapping[str, Any], checksums: Mapping[str, KeyChecksum]) -> None:
        """Record what the standby was proved to hold, then show it: one row of the registry, the old or the new.

        Raises:
            PublisherFencedError: A later attempt has the lead.
            PrunedReleaseError: The release was pruned meanwhile.
        """
        snapshot = self.sides.snapshot
        store = self.sides.store
        content = (snapshot.release, snapshot.digest, snapshot.now.isoformat(), to_tag(checksums))
        proved = SlotState(self.side, *content, str(self.sides.online.generation()))
        with self.sides.publish_log.hold_lead(self.generation) as database:
            _refuse_pruned(snapshot)  # no prune can begin before the switch: it waits for the lead
            with written_only(store) as registry:
                with failpoints.failpoint(
                    "tags of the proved side", lambda: _register(registry, store.project, self._views(proved)[:1])
                ):
                    _register(registry, store.project, self._views(proved))
                with failpoints.failpoint("switch of the service"):
                    registry.apply_feature_service(feature_service(snapshot.dataset, proved), store.project)
            with failpoints.failpoint("note of the proof"):
                self.sides.publish_log.record(database, dict(proof))

    def record_verification(self, proof: Mapping[str, Any]) -> None:
        """Record a verification of the live side; nothing is switched."""
        with self.sides.publish_log.hold_lead(self.generation) as database:
            self.sides.publish_log.record(database, dict(proof))

    def _load(self, expected: Expected) -> LoadResult:
        online_table = self.sides.online_table(expected.table, self.side)
        changed = expected.changed
        if changed is None:
            return online_table.load(expected.encoded, self.generation)
        mine = expected.encoded.join(changed.alias(KEY).to_frame(), on=KEY, how="semi")
        return online_table.load(mine, self.generation, changed)

    def _claim(self) -> None:
        """Tell the registry that the standby holds nothing that anybody may count on."""
        store, views = self.sides.store, self._views(SlotState(self.side, self.sides.snapshot.release))
        with self.sides.publish_log.hold_lead(self.generation):
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
        there = [
            (self.deployment.views.get(physical_view_name(table, self.side)), table) for table in self.sides.tables
        ]
        others = [old for old, table in there if old is not None and is_other(old, table)]
        for old in others:
            with failpoints.failpoint("values of a view with other columns"):
                store.provider.online_store.update(store.config, [old], [], [], [], partial=True)
        return not others and all(old is not None for old, _ in there)

    def _views(self, slot_state: SlotState) -> list[FeatureView]:
        return [feature_view(self.sides.snapshot.dataset, table, slot_state) for table in self.sides.tables]


def _refuse_pruned(snapshot: Snapshot) -> None:
    """Refuse a release that the git remote has no more; where that does not answer, what is known here decides."""
    root = snapshot.table_store.root
    if not snapshot.release:
        return
    if git.has_remote(root):
        try:
            git_remote.fetch(root)
        except git.GitUnavailableError as error:
            log.warning("%s: not asked whether it was pruned meanwhile: %s", snapshot.release, error)
    check_not_pruned(root, snapshot.release)


def _registered_by_0_1(deployment: DeploymentState) -> list[FeatureTableSource]:
    """The sources of views, of whichever dataset, and of the service that are registered as 0.1 did."""
    projections = deployment.service.feature_view_projections if deployment.service else ()
    sources = [one.batch_source for one in (*deployment.views.values(), *projections)]
    return [one for one in sources if isinstance(one, FeatureTableSource) and one.class_path == CLASS_PATH_0_1]


def _register(registry: Any, project: str, views: Sequence[FeatureView]) -> None:  # noqa: ANN401  Feast has no types
    """Write views that are there already, with other tags: no table of the online store is made or changed."""
    for one in views:
        registry.apply_feature_view(one, project)
