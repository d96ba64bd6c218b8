"""Result versions: one integer per stage kind, raised whenever the same inputs could give other rows or other bytes.

They stand for the engine in every cache key: an engine that would compute the same leaves all tables up to date,
however much of its code changed. A bug fix that changes a value is a change of result, too.

To raise one, append a `ResultChange`. Where the change concerns some partitions only, and their manifest entries show
which, `affects` says so, and the others are carried over as they are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from headrace.storage.partition_entry import PartitionEntry


@dataclass(frozen=True)
class ResultChange:
    """A change of the engine that can change results.

    Attributes:
        version: The result version from this change on.
        reason: What changed, as `headrace plan` prints it.
        affects: Whether a partition computed by the version before must be computed again.
    """

    version: int
    reason: str
    affects: Callable[[PartitionEntry], bool] = lambda _entry: True


FIELD_IDS = ResultChange(2, "Parquet columns carry field ids")

CHANGES: Mapping[str, tuple[ResultChange, ...]] = {
    "ingest": (ResultChange(1, "raw tables of 0.2.0"), FIELD_IDS),
    "validate": (ResultChange(1, "validated tables of 0.2.0"), FIELD_IDS),
    "transform": (ResultChange(1, "feature tables of 0.2.0"), FIELD_IDS),
    "label": (
        ResultChange(1, "labels of 0.2.0"),
        FIELD_IDS,
        ResultChange(3, "answers that no reviewer has accepted are held, unless the labeling task says otherwise"),
    ),
    "retrieve": (ResultChange(1, "training rows of 0.2.0"),),
}
"""Stage kind → its changes, oldest first.

`ingest` stands for tables read from databases: objects keep their bytes. `retrieve` makes no table; a training stage
that people write in `dvc.yaml` lists `result_versions.retrieve`, so that other training rows train another model.
"""


def result_version(kind: str) -> int:
    """The result version of a stage kind."""
    return CHANGES[kind][-1].version


def result_versions() -> dict[str, int]:
    """Stage kind → result version, as `headrace.lock` holds them."""
    return {kind: result_version(kind) for kind in sorted(CHANGES)}


def still_valid(kind: str, version: int, entry: PartitionEntry) -> bool:
    """Whether a partition computed under the result version `version` needs no new computation."""
    later = [change for change in CHANGES[kind] if change.version > version]
    return not any(change.affects(entry) for change in later)
