"""A person's word on answers → events of the history: a refused answer makes no label until it is changed or accepted.

A decision is about an answer in exactly the state that it had. In its event `updated_at` is that state, `annotator` who
decided, `note` why, `created_at` when. Nobody need decide: an answer that nobody spoke about counts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import polars as pl

from headrace.label.aggregation import DECISIONS, standing
from headrace.label.annotations import Row

Word = Literal["accepted", "refused"]


@dataclass(frozen=True)
class Decision:
    """What somebody says of which answers.

    Attributes:
        word: Accepted, or refused.
        by: Name of who says so; the history keeps a pseudonym of it.
        reason: Why; kept as it is.
        annotator: Only answers of that person, by pseudonym.
        every: Also answers that somebody spoke about before.
        until: Only answers given or changed until then: what a report showed that ends there.
    """

    word: Word
    by: str
    reason: str = ""
    annotator: str | None = None
    every: bool = False
    until: datetime | None = None

    def events(self, history: pl.DataFrame, by: str, at: datetime) -> Iterator[Row]:
        """An event for each answer that it is about and that it says anything new of.

        Args:
            history: All events so far.
            by: Who says so, by pseudonym.
            at: When.
        """
        found = spoken(history)
        if self.annotator:
            found = found.filter(pl.col("annotator") == self.annotator)
        if self.until:
            found = found.filter(pl.col("updated_at") <= self.until)
        wanted = pl.col("word").fill_null("") != self.word if self.every else pl.col("word").is_null()
        said = {"event": self.word, "annotator": by, "note": self.reason or None, "created_at": at}
        for row in found.filter(wanted).drop("word").iter_rows(named=True):
            yield row | said | {"choice": None, "result": "[]", "lead_time_s": None}


def spoken(history: pl.DataFrame) -> pl.DataFrame:
    """The answers that were not taken back, each with the last `word` on it; null where nobody spoke about it."""
    said = history.filter(pl.col("event").is_in(DECISIONS)).sort("created_at")
    last = said.group_by("annotation_id", "updated_at", maintain_order=True).agg(word=pl.col("event").last())
    return standing(history).join(last, on=["annotation_id", "updated_at"], how="left", maintain_order="left")
