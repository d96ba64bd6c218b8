"""Cuts anything that can be iterated over into batches."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


# Python 3.12 has `itertools.batched`; we support 3.11
def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Split `items` into lists of `size`, of which the last may be shorter. An iterator is read one list at a time."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
