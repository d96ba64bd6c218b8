"""The keys of a view as one number: equal sets have equal seals, in whatever order they are read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import orjson
import polars as pl

WRAP = 1 << 64


@dataclass(frozen=True)
class Seal:
    """How many keys there are, and the sum of their hashes.

    Sums of two sets that share no key add up, so that the seal after a difference follows from the one before. A key
    that goes while another comes changes the sum. Another version of Polars may hash otherwise: then seals differ
    where sets do not, and who compares them looks at the keys themselves.
    """

    count: int
    total: int

    @classmethod
    def of(cls, keys: pl.Series) -> Self:
        """The seal of some keys, each once."""
        return cls(keys.len(), int(keys.hash().sum() or 0))

    def __add__(self, other: "Seal") -> "Seal":
        """With these keys too."""
        return Seal(self.count + other.count, (self.total + other.total) % WRAP)

    def __sub__(self, other: "Seal") -> "Seal":
        """Without these keys."""
        return Seal(self.count - other.count, (self.total - other.total) % WRAP)

    def __str__(self) -> str:
        """As it is written down."""
        return f"{self.count}:{self.total:016x}"

    @classmethod
    def from_str(cls, text: str) -> Self:
        """The inverse."""
        count, total = text.split(":")
        return cls(int(count), int(total, 16))


NO_KEYS = Seal(0, 0)


def to_tag(seals: Mapping[str, Seal]) -> str:
    """Feature table → seal, as the tag of a side."""
    return orjson.dumps({table: str(seal) for table, seal in sorted(seals.items())}).decode()


def from_tag(tag: str) -> dict[str, Seal]:
    """The inverse; nothing of a side on which nothing was written down."""
    return {table: Seal.from_str(seal) for table, seal in orjson.loads(tag or "{}").items()}
