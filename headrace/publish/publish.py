"""Publish: release → online store, the latest value of each key, verified against point-in-time retrieval.

Readers see the old release or the new one, never a mixture: the idle slot is brought to the release by the difference
alone and verified, and then the service is switched to it in one step (blue/green). If a publish is killed at any
point, the next one completes it. Publishing what is live verifies it and writes nothing.

"Now" is the moment at which all of the release is known: its newest event time or known time. No clock is read, so a
release has one latest value for each key, whenever it is published. That a row of the future does not decide it is
checked against the time of the release's tag, and against the keys that are online.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.dataset import EVENT_TIME, KNOWN_TIME, Dataset
from headrace.extras import require_extra
from headrace.feast.key_checksum import from_tag
from headrace.guards.finding import Acceptance
from headrace.publish.snapshot import Snapshot, Span
from headrace.retrieve.errors import NothingToPublishError, VerificationFailedError
from headrace.settings import Settings
from headrace.storage.files import atomic_write
from headrace.storage.table_store import TableStore

if TYPE_CHECKING:
    from headrace.feast.definitions import DeploymentState, SlotState
    from headrace.feast.online_stores.writer import LoadResult
    from headrace.publish.blue_green import PublishAttempt, Sides
    from headrace.publish.verification import VerificationResult

log = logging.getLogger(__name__)

REPORTS = Path("reports")
"""Folder of the workspace with the last verification of each dataset, `<dataset>/online.json`."""


@dataclass(frozen=True)
class PublishOptions:
    """Options of a publish.

    Attributes:
        verify_all: Compare and verify every key, also those that cannot have changed.
        allow_breaking_changes: Allow features that are served now to be removed or to change their type.
        wait_for_readers: Wait until no server can still be reading the slot that will be loaded. A server notices a
            switch when its copy of the registry is `cache_ttl_seconds` old.
    """

    verify_all: bool = False
    allow_breaking_changes: bool = False
    wait_for_readers: bool = False


@dataclass(frozen=True)
class PublishResult:
    """What a publish did.

    Attributes:
        dataset: Name of the dataset.
        service: Name of its Feast service.
        release: The release; empty for tables of the workspace that are no release.
        slot: The slot that serves it, `a` or `b`.
        as_of: The time at which its values are the latest ones.
        digest: Hash of the release's feature tables and their declarations.
        loads: Feature table → keys written, deleted and unchanged; empty if the release was live already.
        verifications: What was compared, one entry per view.
        newest_times: Feature table → its newest event time and known time.
        definition_changes: What changed in the definitions, one line each.
        switched: Whether the service was switched.
        accepted: What guards found, and who let it pass.
    """

    dataset: str
    service: str
    release: str
    slot: str
    as_of: datetime
    digest: str
    loads: Mapping[str, "LoadResult"]
    verifications: Sequence["VerificationResult"]
    newest_times: Mapping[str, Span]
    definition_changes: Sequence[str]
    switched: bool
    accepted: Sequence[Acceptance] = ()

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON."""
        return {
            **vars(self),
            "as_of": self.as_of.isoformat(),
            "loads": {table: load.to_dict() for table, load in self.loads.items()},
            "verifications": [found.to_dict() for found in self.verifications],
            "newest_times": {
                table: {EVENT_TIME: span.event.isoformat(), KNOWN_TIME: span.known.isoformat()}
                for table, span in self.newest_times.items()
            },
            "definition_changes": list(self.definition_changes),
            "accepted": [each.to_dict() for each in self.accepted],
        }

    @property
    def report(self) -> dict[str, Any]:
        """What was verified, without what was done for it."""
        done = {"loads", "switched", "definition_changes"}
        return {name: value for name, value in self.to_dict().items() if name not in done}


def publish(
    dataset: Dataset,
    table_store: TableStore,
    settings: Settings,
    release: str | None = None,
    how: PublishOptions | None = None,
) -> PublishResult:
    """Bring the online store to `release`, or to the tables as the workspace has them now.

    Raises:
        NothingToPublishError: There is no value to publish.
        BreakingChangeError: A feature that is served would be gone or of another type.
        NameConflictError: Another dataset serves a feature table or a service of that name.
        FindingsError: Too many keys would vanish, or times lie in the future, and nobody has accepted that.
        VerificationFailedError: The loaded values are not the release's; what was live stays live.
        PublisherFencedError: Another publish came later.
        MissingExtraError: Feast, or the driver of the registry or the online store, is not installed.
        HeadraceError: The registry, the online store or a partition cannot be used; what was live stays live.
    """
    if not (dataset.features and dataset.service):
        raise NothingToPublishError(
            f"{dataset.name} declares no {'service' if dataset.features else 'features'}:"
            f" see pipelines/{dataset.name}/__init__.py."
        )
    require_extra("feast", "headrace publish")
    from headrace.publish.blue_green import Sides  # noqa: PLC0415  Feast is slow to import

    how = how or PublishOptions()
    with table_store.lock_table(f"online/{dataset.name}"):
        snapshot = Snapshot.read(dataset, table_store, release or "")
        with closing(Sides.open(snapshot, table_store.root / "feature_repo", settings)) as sides:
            deployment = sides.forget_lost(sides.migrate(sides.deployment))
            changes = _changes(sides, deployment, how)
            done = _confirm(sides, deployment.live, how) or _replace(sides, changes, how)
            _report(table_store, sides)
        return done


def _changes(sides: "Sides", deployment: "DeploymentState", how: PublishOptions) -> list[str]:
    """What changes in the definitions, logged before anything does; refused if it breaks a reader without leave."""
    from headrace.publish.schema_changes import changes, refuse_breaks, refuse_taken  # noqa: PLC0415  brings Feast

    refuse_taken(sides.snapshot.dataset, deployment)
    found = changes(sides.snapshot.dataset, deployment)
    for change in found:
        log.info("%s: %s", sides.snapshot.dataset.service, change)
    if not how.allow_breaking_changes:
        refuse_breaks(sides.snapshot.dataset, found)
    return [str(change) for change in found]


def _confirm(sides: "Sides", live: "SlotState", how: PublishOptions) -> PublishResult | None:
    """The live side, if it holds the snapshot already and proves it."""
    if not sides.holds_snapshot(live):
        return None
    checksums = from_tag(live.seals)
    expected = sides.expected(sides.snapshot if live.release and not how.verify_all else None, checksums)
    proofs = sides.prove(live.side, expected, checksums)
    if any(proof.mismatches for proof in proofs):
        return None
    done = _published(sides, live.side, {}, proofs, (), switched=False)
    noted = sides.publish_log.online()
    if noted is None or noted.report.get("digest") != done.digest or noted.report.get("release") != done.release:
        sides.attempt().record_verification(done.report)
    return done


def _replace(sides: "Sides", changes: Sequence[str], how: PublishOptions) -> PublishResult:
    """Bring the standby to the snapshot, prove it, switch the service to it."""
    from headrace.publish.guards import check_guards, forget_published  # noqa: PLC0415  brings Feast

    attempt = sides.attempt()
    held = from_tag(attempt.deployment.standby.seals)
    expected = sides.expected(None if how.verify_all else attempt.verified_snapshot(), held)
    _refuse_empty(sides, any(found.rows.height for found in expected.values()))
    accepted = check_guards(attempt, expected)
    loads = attempt.load(expected, patient=how.wait_for_readers, everything=how.verify_all)
    proofs = sides.prove(attempt.side, expected, attempt.checksums(loads))
    attempt.refuse_lost(loads)
    wrong = [str(mismatch) for proof in proofs for mismatch in proof.mismatches]
    if wrong:
        raise VerificationFailedError(_refusal(attempt, wrong))
    done = replace(_published(sides, attempt.side, loads, proofs, changes, switched=True), accepted=accepted)
    attempt.switch(done.report, {name: proof.key_checksum for name, proof in zip(expected, proofs, strict=True)})
    forget_published(sides.snapshot, accepted)
    return done


def _published(  # noqa: PLR0913  what was done, each once
    sides: "Sides",
    side: str,
    loads: Mapping[str, "LoadResult"],
    proofs: Sequence["VerificationResult"],
    changes: Sequence[str],
    *,
    switched: bool,
) -> PublishResult:
    snapshot, dataset = sides.snapshot, sides.snapshot.dataset
    return PublishResult(
        dataset=dataset.name,
        service=dataset.service,
        release=snapshot.release,
        slot=side,
        as_of=snapshot.now,
        digest=snapshot.digest,
        loads=loads,
        verifications=proofs,
        newest_times=snapshot.spans,
        definition_changes=changes,
        switched=switched,
    )


def _refuse_empty(sides: "Sides", some: bool) -> None:
    if not some:
        raise sides.snapshot.empty_error()


def _report(table_store: TableStore, sides: "Sides") -> None:
    """Write the last report to a file too, for readers without access to the registry."""
    noted = sides.publish_log.online()
    path = table_store.root / REPORTS / sides.snapshot.dataset.name / "online.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(noted.report if noted else {}, indent=2, sort_keys=True) + "\n"
    if not path.exists() or path.read_text() != text:
        atomic_write(path, text.encode())


def _refusal(attempt: "PublishAttempt", wrong: Sequence[str]) -> str:
    snapshot, live = attempt.sides.snapshot, attempt.deployment.live
    shown = "; ".join(wrong[:3]) + (f"; and {len(wrong) - 3:,} more" if wrong[3:] else "")
    serving = f"Slot {live.side} still serves {_named(live.release)}" if live.digest else "Nothing is served yet"
    dataset = snapshot.dataset
    return (
        f"{dataset.service}: {_named(snapshot.release)} was loaded, but the online store does not hold it: {shown}."
        f" The service was not switched. {serving}. Find out who else writes to the online store, then run"
        f" `headrace publish {dataset.name} --verify-all`: it repairs what differs."
    )


def _named(release: str) -> str:
    return f"release {release}" if release else "the workspace's tables"
