"""release → online: the latest value of each key, proved equal to what point-in-time retrieval answers.

Readers see the old release or the new one, whole: a release is brought to the side that nobody reads, by the
difference alone, proved there, and then the service is switched to that side in one step. Killed anywhere, the next
publish finishes the job; published again, it proves what is live and writes nothing.

"Now" is the moment at which all of the release is known: its newest event time or known time. No clock is read, so a
release has one latest value for each key, whenever it is published.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pipelines.dataset import Dataset
from pipelines.settings import Settings
from pipelines.systems.feature_store.errors import NothingToPublishError, ProofFailedError
from pipelines.systems.feature_store.snapshot import Snapshot
from pipelines.table import Lake

if TYPE_CHECKING:
    from pipelines.systems.feature_store.online import Loaded
    from pipelines.systems.feature_store.proof import Proof
    from pipelines.systems.feature_store.sides import Sides


@dataclass(frozen=True)
class Published:
    """What a publish did.

    Attributes:
        dataset: Name of the dataset.
        service: Name of its Feast service.
        release: The release; empty for tables of the workspace that are no release.
        side: The side that serves it.
        as_of: The time that its values are the latest at.
        loads: Feature table → keys written, deleted and kept; empty if the release was live already.
        proofs: What was compared, a view each.
        switched: Whether the service was switched.
    """

    dataset: str
    service: str
    release: str
    side: str
    as_of: datetime
    loads: Mapping[str, "Loaded"]
    proofs: Sequence["Proof"]
    switched: bool

    def to_dict(self) -> dict[str, Any]:
        """The same for machines."""
        return {
            **vars(self),
            "as_of": self.as_of.isoformat(),
            "loads": {table: vars(load) for table, load in self.loads.items()},
            "proofs": [{**vars(proof), "mismatches": [*map(str, proof.mismatches)]} for proof in self.proofs],
        }


def publish(dataset: Dataset, lake: Lake, settings: Settings, release: str | None = None) -> Published:
    """Put `release` online, or the tables as the workspace has them now.

    Raises:
        NothingToPublishError: There is no value to publish.
        ProofFailedError: The loaded values are not the release's; what was live stays live.
        OvertakenError: Another publish was faster.
        HeadraceError: The registry, the online store or a partition can not be used; what was live stays live.
    """
    if not (dataset.features and dataset.service):
        raise NothingToPublishError(
            f"{dataset.name} declares no {'service' if dataset.features else 'features'}:"
            f" see pipelines/datasets/{dataset.name}/__init__.py."
        )
    from pipelines.systems.feature_store.sides import Sides  # noqa: PLC0415  Feast takes seconds to import

    with lake.lease(f"online/{dataset.name}"):
        snapshot = Snapshot.of(dataset, lake, release or "")
        with closing(Sides.open(snapshot, lake.root / "feature_repo", settings)) as sides:
            return _confirm(sides) or _replace(sides)


def _confirm(sides: "Sides") -> Published | None:
    """The live side, if it holds the snapshot already and proves it."""
    if not sides.is_live():
        return None
    proofs = sides.prove(sides.standing.live.side)
    if any(proof.mismatches for proof in proofs):
        return None
    return _published(sides, sides.standing.live.side, {}, proofs, switched=False)


def _replace(sides: "Sides") -> Published:
    """Bring the standby to the snapshot, prove it, switch the service to it."""
    side = sides.standing.standby.side
    loads = sides.load(side)
    proofs = sides.prove(side)
    wrong = [str(mismatch) for proof in proofs for mismatch in proof.mismatches]
    if wrong:
        raise ProofFailedError(_refusal(sides, wrong))
    sides.switch(side)
    return _published(sides, side, loads, proofs, switched=True)


def _published(
    sides: "Sides", side: str, loads: Mapping[str, "Loaded"], proofs: Sequence["Proof"], *, switched: bool
) -> Published:
    snapshot, dataset = sides.snapshot, sides.snapshot.dataset
    return Published(
        dataset.name, dataset.service, snapshot.release, side, snapshot.now, loads, proofs, switched=switched
    )


def _refusal(sides: "Sides", wrong: Sequence[str]) -> str:
    dataset, live = sides.snapshot.dataset, sides.standing.live
    shown = "; ".join(wrong[:3]) + (f"; and {len(wrong) - 3:,} more" if wrong[3:] else "")
    serving = (
        f"Side {live.side} with {_named(live.release)} goes on serving" if live.digest else "Nothing is served yet"
    )
    return (
        f"{dataset.service}: {_named(sides.snapshot.release)} was loaded and is not what is there: {shown}."
        f" The service was not switched. {serving}. Find out who else writes to the online store, then run"
        f" `headrace publish {dataset.name}` again: it repairs what differs."
    )


def _named(release: str) -> str:
    return f"release {release}" if release else "the workspace's tables"
