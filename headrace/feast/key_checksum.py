"""The keys of a view as one number: equal sets have equal checksums, in whatever order they are read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import orjson
import polars as pl

WRAP = 1 << 64


@dataclass(frozen=True)
class KeyChecksum:
    """How many keys there are, and the sum of their hashes.

    The checksums of two sets without a common key add up, so a checksum can be updated from the added and deleted keys.
    Replacing one key by another changes the sum. Another version of Polars may hash differently: equal sets then have
    different checksums, and callers compare the keys themselves.
    """

    count: int
    total: int

    @classmethod
    def from_keys(cls, keys: pl.Series) -> Self:
        """The checksum of unique keys."""
        return cls(keys.len(), int(keys.hash().sum() or 0))

    def __add__(self, other: "KeyChecksum") -> "KeyChecksum":
        """The checksum with more keys, none of which it has yet."""
        return KeyChecksum(self.count + other.count, (self.total + other.total) % WRAP)

    def __sub__(self, other: "KeyChecksum") -> "KeyChecksum":
        """The checksum without some of its keys."""
        return KeyChecksum(self.count - other.count, (self.total - other.total) % WRAP)

    def __str__(self) -> str:
        """The text for a tag."""
        return f"{self.count}:{self.total:016x}"

    @classmethod
    def from_str(cls, text: str) -> Self:
        """The inverse of `str`."""
        count, total = text.split(":")
        return cls(int(count), int(total, 16))


NO_KEYS = KeyChecksum(0, 0)


def to_tag(checksums: Mapping[str, KeyChecksum]) -> str:
    """Feature table → checksum, as the tag of a slot."""
    return orjson.dumps({table: str(checksum) for table, checksum in sorted(checksums.items())}).decode()


def from_tag(tag: str) -> dict[str, KeyChecksum]:
    """The inverse of `to_tag`; empty for an empty tag."""
    return {table: KeyChecksum.from_str(checksum) for table, checksum in orjson.loads(tag or "{}").items()}
