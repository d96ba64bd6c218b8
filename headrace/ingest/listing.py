"""What a source offers: its partitions with their cache keys, and how to read them into the cache."""

import json
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any, Protocol

from headrace.errors import HeadraceError
from headrace.storage.partition_entry import PartitionEntry


class SourceListing(Protocol):
    """The partitions of a source, as one listing found them.

    A partition of several objects is listed by the entries that it has in the manifest, one per object.
    """

    @property
    def cache_keys(self) -> Mapping[str, str]:
        """Entry → cache key of its content in the source."""

    @property
    def unmatched(self) -> tuple[str, ...]:
        """Keys in the source that match no partition. They are reported and never read."""

    @property
    def invalid(self) -> Mapping[str, str]:
        """Key in the source → why what it names cannot be a partition. They are reported and never read."""

    @property
    def waiting(self) -> tuple[str, ...]:
        """Partitions that the source has not completed. They are reported, and the table keeps what it has of them."""

    @property
    def errors(self) -> Mapping[str, HeadraceError]:
        """Entry → why it cannot be read. The others can."""

    @property
    def always_read(self) -> frozenset[str]:
        """Entries that may have changed under the same cache key: every run reads them."""

    @property
    def description(self) -> str:
        """The source's address, for messages."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a database table; empty for objects, which are not opened."""

    @property
    def libraries(self) -> Mapping[str, str]:
        """Distribution → version, for the libraries that decide the bytes of a partition."""

    def amount_to_read(self, partitions: Iterable[str]) -> int:
        """Bytes of entries where the listing shows them, else rows."""

    def read(self, partitions: Iterable[str]) -> Iterator[tuple[str, PartitionEntry | HeadraceError | None]]:
        """Read entries into the cache, in any order; each as the manifest holds it, or with the error that it met.

        The entry is None if the partition no longer exists.

        Raises:
            HeadraceError: The source does not answer any more.
        """

    def address(self, partition: str) -> str:
        """The object or table that a partition is read from, for messages."""


def compute_cache_key(content: Any) -> str:  # noqa: ANN401  anything JSON
    """Hash of a JSON value."""
    return hash_json(encode_json(content))


encode_json = json.JSONEncoder(sort_keys=True).encode
"""A JSON value as text: as `json.dumps` gives it, which makes an encoder for each value."""


def hash_json(text: str) -> str:
    """Hash of the text of a JSON value."""
    return sha256(text.encode()).hexdigest()[:32]
