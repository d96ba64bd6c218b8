"""Where raw data comes from: what a source offers now, and how a partition of it is brought into the cache."""

import json
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any, Protocol

from headrace.storage.manifest import Entry


class Origin(Protocol):
    """A source as it is now."""

    @property
    def offers(self) -> Mapping[str, str]:
        """Partition → memo key of what the source holds for it."""

    @property
    def unmatched(self) -> tuple[str, ...]:
        """What lies there and is no partition."""

    @property
    def where(self) -> str:
        """The place, for people."""

    @property
    def libraries(self) -> Mapping[str, str]:
        """What shapes the bytes."""

    def read(self, partitions: Iterable[str]) -> Iterator[tuple[str, Entry | None]]:
        """The partitions, as they arrive in the cache; None for one that vanished since."""


def memo_key(what: Any) -> str:  # noqa: ANN401  anything JSON
    """Memo key of `what`."""
    return sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]
