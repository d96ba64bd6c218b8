"""What a project of Label Studio, or a stretch of its tasks, holds."""

from typing import NamedTuple


class Totals(NamedTuple):
    """Answers, and skips."""

    answers: int
    skips: int


NOTHING = Totals(0, 0)
