"""annotations of a day → its labels: by which answers an item is judged, and so what the day hangs on.

A majority needs the item's own answers, so a day hangs on its own annotations. Weighing the people needs all answers:
every day hangs on every other, and its labels are known no earlier than the newest answer there is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import polars as pl

from pipelines.dataset import Labeling
from pipelines.engine.manifest import Manifest
from pipelines.engine.stage import Inputs
from pipelines.labeling import dawid_skene, votes
from pipelines.labeling.votes import Verdict


class Consensus(Protocol):
    """A way that answers become labels. To add one (CROWDLAB, say), give it these five and a word in `of`."""

    @property
    def modules(self) -> tuple[str, ...]:
        """Its code."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """Distributions that shape its numbers."""

    def partitions(self, source: str, inputs: Mapping[str, Manifest], own: Manifest) -> Iterator[tuple[str, Inputs]]:
        """Every day, with the days of annotations that it is made of."""

    def decide(self, day: str, files: Mapping[str, Path]) -> Verdict:
        """The labels of a day."""


@dataclass(frozen=True)
class Majority:
    """Each item by its own answers."""

    labeling: Labeling
    modules: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()

    def partitions(self, source: str, inputs: Mapping[str, Manifest], _own: Manifest) -> Iterator[tuple[str, Inputs]]:
        """As `Consensus`."""
        for day, md5 in sorted(inputs[source].md5s.items()):
            yield day, {source: {day: md5}}

    def decide(self, day: str, files: Mapping[str, Path]) -> Verdict:
        """As `Consensus`."""
        return votes.decide(pl.read_parquet(files[day]), self.labeling.keys, self.labeling.choices)


@dataclass(frozen=True)
class Weighed:
    """Each item by the answers to it, weighed by what all answers tell of the people."""

    labeling: Labeling
    modules: tuple[str, ...] = (dawid_skene.__name__,)
    libraries: tuple[str, ...] = ("numpy",)

    def partitions(self, source: str, inputs: Mapping[str, Manifest], _own: Manifest) -> Iterator[tuple[str, Inputs]]:
        """As `Consensus`."""
        every = dict(sorted(inputs[source].md5s.items()))
        for day in every:
            yield day, {source: every}

    def decide(self, day: str, files: Mapping[str, Path]) -> Verdict:
        """As `Consensus`."""
        history = pl.concat([pl.read_parquet(path) for _, path in sorted(files.items())])
        judged = dawid_skene.judge(votes.answers(history, self.labeling.choices), self.labeling.choices)
        own = pl.read_parquet(files[day])
        verdict = votes.decide(own, self.labeling.keys, self.labeling.choices, lambda _answers: judged)
        known = votes.known_from(history, self.labeling.choices)
        return Verdict(verdict.labels.with_columns(known_time=pl.lit(known)), verdict.rejected, verdict.counts)


def of(labeling: Labeling) -> Majority | Weighed:
    """The way that a labeling declares."""
    return Weighed(labeling) if labeling.consensus == "dawid_skene" else Majority(labeling)
