"""A training set as a small file to commit: what was retrieved from which release, and hashes of the rows.

With the file and the requests anybody retrieves the same rows, or an error names what differs. The file holds no clock
and no path.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from headrace.dataset import Dataset
from headrace.errors import HeadraceError
from headrace.retrieve.joinable_tables import joinable_tables
from headrace.storage.files import atomic_write

DIGITS = 16

FORMAT = 2
"""Version of the lock file. Files without one were written by 0.1, which had other names for the same fields."""


class TrainingSetMismatchError(HeadraceError):
    """The retrieved rows are not the ones that the lock file describes."""


class InvalidLockFileError(HeadraceError):
    """The lock file of a training set cannot be read, or was edited by hand."""


@dataclass(frozen=True)
class TrainingSetSpec:
    """What is retrieved, without the requests.

    Attributes:
        dataset: Name of the dataset.
        release: The release that is read.
        features: References `<table>:<feature>`, in the order of the columns.
        as_known: Whether a row sees only what was known at its time.
        declarations: Feature table or labeling task → join keys and TTL, as the code declares them now.
        split: Definition of the split; empty without one.
    """

    dataset: str
    release: str
    features: Sequence[str]
    as_known: bool
    declarations: Mapping[str, Mapping[str, Any]]
    split: Mapping[str, Any]

    @classmethod
    def from_declarations(
        cls, dataset: Dataset, release: str, features: Sequence[str], split: Mapping[str, Any], *, as_known: bool
    ) -> Self:
        """The specification of these features, under today's declarations."""
        tables = {name.partition(":")[0] for name in features}
        declarations = {
            view.name: {"keys": [*view.keys], "ttl_seconds": view.ttl.total_seconds()}
            for view in joinable_tables(dataset).values()
            if view.name in tables
        }
        return cls(dataset.name, release, [*features], as_known, declarations, split)


@dataclass(frozen=True)
class TrainingSet:
    """What was retrieved, and hashes of the rows.

    Attributes:
        spec: What was retrieved.
        table_hashes: Feature table or labeling task → hash over the partitions that the release has of it.
        requests: Number of rows of the requests, and a hash per column.
        result: The same for the result.
    """

    spec: TrainingSetSpec
    table_hashes: Mapping[str, str]
    requests: Mapping[str, Any]
    result: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Identifier: equal for equal specifications and requests."""
        spec = {("declared" if name == "declarations" else name): value for name, value in vars(self.spec).items()}
        return _hash({"question": spec, "requests": self.requests})[:DIGITS]  # the names of 0.1: identifiers last

    def to_bytes(self) -> bytes:
        """The lock file."""
        content = {"format": FORMAT, "id": self.id, **vars(self), "spec": vars(self.spec)}
        return (json.dumps(content, indent=2) + "\n").encode()

    def write(self, path: Path) -> None:
        """Write the lock file atomically."""
        atomic_write(path, self.to_bytes())

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The training set of a lock file; None if there is no such file.

        Raises:
            InvalidLockFileError: The file is not a lock file, or was edited.
        """
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_bytes())
            if "format" not in content:
                content = _from_0_1(content)
            if content["format"] != FORMAT:
                raise InvalidLockFileError(
                    f"{path}: expected lock file format {FORMAT}, found {content['format']}. A newer Headrace wrote it:"
                    " upgrade this one (`pip install --upgrade headrace`)."
                )
            spec = TrainingSetSpec(**content["spec"])
            locked = cls(spec, content["table_hashes"], content["requests"], content["result"])
            expected = locked.id
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidLockFileError(
                f"{path}: expected the lock file of a training set, found {type(error).__name__}: {error}."
                f" `git checkout {path}` restores the committed one. If there is none, a new one is written."
            ) from error
        if expected != content["id"]:
            raise InvalidLockFileError(
                f"{path}: expected the id {expected} for its content, found {content['id']}: it was edited by hand."
                f" `git checkout {path}` restores the committed one."
            )
        return locked

    def check(self, retrieved: "TrainingSet", path: Path) -> None:
        """Compare what was retrieved with this training set.

        Raises:
            TrainingSetMismatchError: They differ; the message names what differs.
        """
        differences = _differences(_plain(self), _plain(retrieved))
        if differences:
            more = f"; and {len(differences) - 5} more" if differences[5:] else ""
            raise TrainingSetMismatchError(
                f"{path}: the rows are not the locked ones. {'; '.join(differences[:5])}{more}. Nothing was written."
                " Use the requests, features and release that it was locked with, or another --lock file for a new"
                " training set."
            )


def _from_0_1(content: Mapping[str, Any]) -> dict[str, Any]:
    """A lock file of 0.1 with the names of format 2."""
    spec = {("declarations" if name == "declared" else name): value for name, value in content["question"].items()}
    kept = {name: content[name] for name in ("id", "requests", "result")}
    return {"format": FORMAT, "spec": spec, "table_hashes": content["tables"], **kept}


def _plain(training_set: TrainingSet) -> dict[str, Any]:
    """The content as JSON gives it back, without the identifier."""
    plain: dict[str, Any] = json.loads(training_set.to_bytes())
    del plain["id"]
    return plain


def _differences(locked: Any, seen: Any, where: str = "") -> list[str]:  # noqa: ANN401  any JSON
    if isinstance(locked, dict) and isinstance(seen, dict):
        names = [*locked, *(name for name in seen if name not in locked)]
        nested = (_differences(locked.get(name), seen.get(name), f"{where} {name}".strip()) for name in names)
        return [difference for several in nested for difference in several]
    return [] if locked == seen else [f"{where}: locked {_shown(locked)}, found {_shown(seen)}"]


def _shown(value: Any) -> str:  # noqa: ANN401  any JSON
    return "nothing" if value is None else json.dumps(value)


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
