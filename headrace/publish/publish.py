"""release → online: the latest value of each key, proved equal to what point-in-time retrieval answers.

Readers see the old release or the new one, whole: a release is brought to the side that nobody reads, by the
difference alone, proved there, and then the service is switched to that side in one step. Killed anywhere, the next
publish finishes the job; published again, it proves what is live and writes nothing.

"Now" is the moment at which all of the release is known: its newest event time or known time. No clock is read, so a
release has one latest value for each key, whenever it is published.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.dataset import Dataset
from headrace.feast.key_checksum import from_tag
from headrace.publish.snapshot import Snapshot, Span
from headrace.retrieve.errors import NothingToPublishError, ProofFailedError
from headrace.settings import Settings
from headrace.storage.files import write_whole
from headrace.storage.table_store import Lake

if TYPE_CHECKING:
    from headrace.feast.definitions import Holding, Standing
    from headrace.feast.online_stores.writer import Loaded
    from headrace.publish.blue_green import Attempt, Sides
    from headrace.publish.verification import Proof

log = logging.getLogger(__name__)

REPORTS = Path("reports")
"""Folder of the workspace with the last proof of each dataset, `<dataset>/online.json`."""


@dataclass(frozen=True)
class PublishOptions:
    """How far a publish goes.

    Attributes:
        everything: Compare and prove every key, also those that can not have changed.
        allow_changes: Let features that are served now go, or become another type.
        patient: Wait until no server can still be reading the side that is to be loaded: it follows a switch when its
            copy of the registry is as old as `cache_ttl_seconds` allows.
    """

    everything: bool = False
    allow_changes: bool = False
    patient: bool = False


@dataclass(frozen=True)
class PublishResult:
    """What a publish did.

    Attributes:
        dataset: Name of the dataset.
        service: Name of its Feast service.
        release: The release; empty for tables of the workspace that are no release.
        side: The side that serves it.
        as_of: The time that its values are the latest at.
        digest: Hash of the release's feature tables and their declarations.
        loads: Feature table → keys written, deleted and kept; empty if the release was live already.
        proofs: What was compared, a view each.
        newest: Feature table → its newest event time and known time.
        changes: What changed in the definitions, for people.
        switched: Whether the service was switched.
    """

    dataset: str
    service: str
    release: str
    side: str
    as_of: datetime
    digest: str
    loads: Mapping[str, "Loaded"]
    proofs: Sequence["Proof"]
    newest: Mapping[str, Span]
    changes: Sequence[str]
    switched: bool

    def to_dict(self) -> dict[str, Any]:
        """The same for machines."""
        return {
            **vars(self),
            "as_of": self.as_of.isoformat(),
            "loads": {table: load.to_dict() for table, load in self.loads.items()},
            "proofs": [proof.to_dict() for proof in self.proofs],
            "newest": {
                table: {"event": span.event.isoformat(), "known": span.known.isoformat()}
                for table, span in self.newest.items()
            },
            "changes": list(self.changes),
        }

    @property
    def report(self) -> dict[str, Any]:
        """What is proved, and not what was done for it."""
        return {name: value for name, value in self.to_dict().items() if name not in {"loads", "switched", "changes"}}


def publish(
    dataset: Dataset, lake: Lake, settings: Settings, release: str | None = None, how: PublishOptions | None = None
) -> PublishResult:
    """Put `release` online, or the tables as the workspace has them now.

    Raises:
        NothingToPublishError: There is no value to publish.
        DefinitionChangedError: A feature that is served would be gone or of another type.
        NameTakenError: Another dataset serves a feature table or a service of that name.
        ProofFailedError: The loaded values are not the release's; what was live stays live.
        OvertakenError: Another publish came later.
        HeadraceError: The registry, the online store or a partition can not be used; what was live stays live.
    """
    if not (dataset.features and dataset.service):
        raise NothingToPublishError(
            f"{dataset.name} declares no {'service' if dataset.features else 'features'}:"
            f" see pipelines/{dataset.name}/__init__.py."
        )
    from headrace.publish.blue_green import Sides  # noqa: PLC0415  Feast takes seconds to import

    with lake.lease(f"online/{dataset.name}"):
        snapshot = Snapshot.of(dataset, lake, release or "")
        with closing(Sides.open(snapshot, lake.root / "feature_repo", settings)) as sides:
            standing = sides.forget_lost(sides.standing)
            changes = _changes(sides, standing, how or PublishOptions())
            done = _confirm(sides, standing.live, how or PublishOptions()) or _replace(
                sides, changes, how or PublishOptions()
            )
            _report(lake, sides)
        return done


def _changes(sides: "Sides", standing: "Standing", how: PublishOptions) -> list[str]:
    """What changes in the definitions, logged before anything does; refused if it breaks a reader without leave."""
    from headrace.publish.schema_changes import changes, refuse_breaks, refuse_taken  # noqa: PLC0415  brings Feast

    refuse_taken(sides.snapshot.dataset, standing)
    found = changes(sides.snapshot.dataset, standing)
    for change in found:
        log.info("%s: %s", sides.snapshot.dataset.service, change)
    if not how.allow_changes:
        refuse_breaks(sides.snapshot.dataset, found)
    return [str(change) for change in found]


def _confirm(sides: "Sides", live: "Holding", how: PublishOptions) -> PublishResult | None:
    """The live side, if it holds the snapshot already and proves it."""
    if not sides.shows(live):
        return None
    seals = from_tag(live.seals)
    expected = sides.expected(sides.snapshot if live.release and not how.everything else None, seals)
    proofs = sides.prove(live.side, expected, seals)
    if any(proof.mismatches for proof in proofs):
        return None
    done = _published(sides, live.side, {}, proofs, (), switched=False)
    noted = sides.publications.online()
    if noted is None or noted.proof.get("digest") != done.digest or noted.proof.get("release") != done.release:
        sides.attempt().note(done.report)
    return done


def _replace(sides: "Sides", changes: Sequence[str], how: PublishOptions) -> PublishResult:
    """Bring the standby to the snapshot, prove it, switch the service to it."""
    attempt = sides.attempt()
    held = from_tag(attempt.standing.standby.seals)
    expected = sides.expected(None if how.everything else attempt.before(), held)
    _refuse_empty(sides, any(found.rows.height for found in expected.values()))
    loads = attempt.load(expected, patient=how.patient, everything=how.everything)
    proofs = sides.prove(attempt.side, expected, attempt.seals(loads))
    attempt.refuse_lost(loads)
    wrong = [str(mismatch) for proof in proofs for mismatch in proof.mismatches]
    if wrong:
        raise ProofFailedError(_refusal(attempt, wrong))
    done = _published(sides, attempt.side, loads, proofs, changes, switched=True)
    attempt.switch(done.report, {name: proof.seal for name, proof in zip(expected, proofs, strict=True)})
    return done


def _published(  # noqa: PLR0913  what was done, each once
    sides: "Sides",
    side: str,
    loads: Mapping[str, "Loaded"],
    proofs: Sequence["Proof"],
    changes: Sequence[str],
    *,
    switched: bool,
) -> PublishResult:
    snapshot, dataset = sides.snapshot, sides.snapshot.dataset
    return PublishResult(
        dataset=dataset.name,
        service=dataset.service,
        release=snapshot.release,
        side=side,
        as_of=snapshot.now,
        digest=snapshot.digest,
        loads=loads,
        proofs=proofs,
        newest=snapshot.spans,
        changes=changes,
        switched=switched,
    )


def _refuse_empty(sides: "Sides", some: bool) -> None:
    if not some:
        raise sides.snapshot.nothing()


def _report(lake: Lake, sides: "Sides") -> None:
    """The proof that stands beside the registry as a file, for who has no access to that."""
    noted = sides.publications.online()
    path = lake.root / REPORTS / sides.snapshot.dataset.name / "online.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(noted.proof if noted else {}, indent=2, sort_keys=True) + "\n"
    if not path.exists() or path.read_text() != text:
        write_whole(path, text.encode())


def _refusal(attempt: "Attempt", wrong: Sequence[str]) -> str:
    snapshot, live = attempt.sides.snapshot, attempt.standing.live
    shown = "; ".join(wrong[:3]) + (f"; and {len(wrong) - 3:,} more" if wrong[3:] else "")
    serving = (
        f"Side {live.side} with {_named(live.release)} goes on serving" if live.digest else "Nothing is served yet"
    )
    dataset = snapshot.dataset
    return (
        f"{dataset.service}: {_named(snapshot.release)} was loaded and is not what is there: {shown}."
        f" The service was not switched. {serving}. Find out who else writes to the online store, then run"
        f" `headrace publish {dataset.name} --verify-all` again: it repairs what differs."
    )


def _named(release: str) -> str:
    return f"release {release}" if release else "the workspace's tables"
