"""A training set as a small file that is committed: the question, the release, and the hashes of what was answered.

Whoever has the file and the requests gets the same rows again, or is told what differs. It holds no clock and no path.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from headrace.dataset import Dataset
from headrace.errors import HeadraceError
from headrace.retrieve.joinable_tables import views
from headrace.storage.files import write_whole

DIGITS = 16


class TrainingSetDiffersError(HeadraceError):
    """A retrieval did not give what its lock file says."""


class UnreadableLockError(HeadraceError):
    """A lock file is none."""


@dataclass(frozen=True)
class TrainingSetSpec:
    """What is asked, all but the requests.

    Attributes:
        dataset: Name of the dataset.
        release: The release that answers.
        features: `<table>:<feature>`, in order.
        as_known: Whether a row sees only what was known at its time.
        declared: Feature table or labeling → keys and TTL, as the code declares them now.
        split: How rows are split, if they are.
    """

    dataset: str
    release: str
    features: Sequence[str]
    as_known: bool
    declared: Mapping[str, Mapping[str, Any]]
    split: Mapping[str, Any]

    @classmethod
    def of(
        cls, dataset: Dataset, release: str, features: Sequence[str], split: Mapping[str, Any], *, as_known: bool
    ) -> Self:
        """The question about these features, under today's declaration."""
        asked = {name.partition(":")[0] for name in features}
        declared = {
            view.name: {"keys": [*view.keys], "ttl_seconds": view.ttl.total_seconds()}
            for view in views(dataset).values()
            if view.name in asked
        }
        return cls(dataset.name, release, [*features], as_known, declared, split)


@dataclass(frozen=True)
class TrainingSet:
    """A question, and what was answered.

    Attributes:
        question: What was asked.
        tables: Feature table or labeling → hash of the files that were there to be read.
        requests: Rows, and a hash for each column.
        result: The same of the answer.
    """

    question: TrainingSetSpec
    tables: Mapping[str, str]
    requests: Mapping[str, Any]
    result: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Equal when the same was asked: question and requests."""
        return _hash({"question": vars(self.question), "requests": self.requests})[:DIGITS]

    def to_bytes(self) -> bytes:
        """The lock file."""
        content = {"id": self.id, **vars(self), "question": vars(self.question)}
        return (json.dumps(content, indent=2) + "\n").encode()

    def write(self, path: Path) -> None:
        """Write the lock file, whole or not at all."""
        write_whole(path, self.to_bytes())

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The training set of a lock file; None without a file.

        Raises:
            UnreadableLockError: It holds something else.
        """
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_bytes())
            made = cls(TrainingSetSpec(**found["question"]), found["tables"], found["requests"], found["result"])
            intact = made.id == found["id"]
        except (ValueError, KeyError, TypeError) as error:
            raise UnreadableLockError(
                f"{path}: expected the lock file of a training set, but: {error}."
                f" `git checkout {path}` brings back the committed one; without it, a new one is written."
            ) from error
        if not intact:
            raise UnreadableLockError(
                f"{path}: expected the id {made.id} for what it holds, seen {found['id']}: it was edited by hand."
                f" `git checkout {path}` brings back the committed one."
            )
        return made

    def check(self, seen: "TrainingSet", path: Path) -> None:
        """Hold what was answered now to this one.

        Raises:
            TrainingSetDiffersError: They differ; the message says in what.
        """
        found = [*_differences(_plain(self), _plain(seen))]
        if found:
            more = f"; and {len(found) - 5} more" if found[5:] else ""
            raise TrainingSetDiffersError(
                f"{path}: the rows are not the locked ones. {'; '.join(found[:5])}{more}. Nothing was written."
                " Give the requests, features and release it was made with, or another --lock file for a new set."
            )


def _plain(training_set: TrainingSet) -> dict[str, Any]:
    """As JSON gives it back."""
    plain: dict[str, Any] = json.loads(training_set.to_bytes())
    del plain["id"]
    return plain


def _differences(locked: Any, seen: Any, where: str = "") -> list[str]:  # noqa: ANN401  any JSON
    if isinstance(locked, dict) and isinstance(seen, dict):
        names = [*locked, *(name for name in seen if name not in locked)]
        nested = (_differences(locked.get(name), seen.get(name), f"{where} {name}".strip()) for name in names)
        return [difference for several in nested for difference in several]
    return [] if locked == seen else [f"{where}: locked {_shown(locked)}, seen {_shown(seen)}"]


def _shown(value: Any) -> str:  # noqa: ANN401  any JSON
    return "nothing" if value is None else json.dumps(value)


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
