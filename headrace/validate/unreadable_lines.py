"""What a reader finds that cannot become rows, beside the frame that it gives.

A source's `read` may choose columns of that frame, and lose those that say which rows cannot be read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import polars as pl

from headrace.validate.reserved_names import FAULT, RAW_LINE, RECORD

SHOWN = 80
"""Characters of a line in a message."""

_found: ContextVar[list[pl.DataFrame] | None] = ContextVar("unreadable_lines", default=None)


@contextmanager
def unreadable_lines() -> Iterator[list[pl.DataFrame]]:
    """The records that readers could not read within the context."""
    found: list[pl.DataFrame] = []
    token = _found.set(found)
    try:
        yield found
    finally:
        _found.reset(token)


def note_unreadable_lines(bad: pl.DataFrame) -> None:
    """Note records that cannot be read."""
    found = _found.get()
    if found is not None:
        found.append(bad)


def lost_lines(frame: pl.DataFrame, found: list[pl.DataFrame]) -> str:
    """Which of the lines that were found a frame does not have; empty if it has all."""
    expected = sum(bad.height for bad in found)
    if not expected or (FAULT in frame.columns and frame.get_column(FAULT).count() == expected):
        return ""
    first = found[0].row(0, named=True)
    return (
        f"line {first[RAW_LINE]} cannot be read ({first[FAULT]}: {first[RECORD][:SHOWN]!r}), {expected:,} such, and"
        " `read` drops the columns that say so: have it keep all columns and rows that `read_csv` gives, and choose"
        " columns in `transform`"
    )
