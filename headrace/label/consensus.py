"""annotations → labels: by which answers an item is judged, and so what a partition hangs on.

A majority needs the item's own answers, so a day hangs on its own annotations. Weighing the people needs all answers:
then the labels are one partition, which hangs on every day, and are known no earlier than the newest answer there is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import polars as pl

from headrace.dataset import UNPARTITIONED, ItemFeatures, LabelingTask
from headrace.engine.stage import Files, Inputs
from headrace.errors import HeadraceError
from headrace.label import aggregation
from headrace.label.aggregation import Verdict
from headrace.storage.manifest import Manifest

if TYPE_CHECKING:
    from headrace.label.item_model import Items


class ConsensusError(HeadraceError):
    """The declared way to labels lacks what it needs."""


class Consensus(Protocol):
    """A way that answers become labels. To add one, give it these five and a word in `of`."""

    @property
    def reads(self) -> tuple[str, ...]:
        """The tables it needs, the annotations first."""

    @property
    def modules(self) -> tuple[str, ...]:
        """Its code."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """Distributions that shape its numbers."""

    def partitions(self, inputs: Mapping[str, Manifest], own: Manifest) -> Iterator[tuple[str, Inputs]]:
        """Every partition of the labels, with what it is made of."""

    def decide(self, files: Files) -> Verdict:
        """The labels of a partition."""


@dataclass(frozen=True)
class Majority:
    """Each item by its own answers."""

    labeling: LabelingTask
    reads: tuple[str, ...]
    modules: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()

    def partitions(self, inputs: Mapping[str, Manifest], _own: Manifest) -> Iterator[tuple[str, Inputs]]:
        """As `Consensus`."""
        [source] = self.reads
        for day, md5 in sorted(inputs[source].md5s.items()):
            yield day, {source: {day: md5}}

    def decide(self, files: Files) -> Verdict:
        """As `Consensus`."""
        return aggregation.decide(_whole(files[self.reads[0]]), self.labeling.keys, self.labeling.choices)


@dataclass(frozen=True)
class Weighed:
    """Each item by the answers to it, weighed by what all answers tell of the people."""

    labeling: LabelingTask
    reads: tuple[str, ...]
    modules: tuple[str, ...] = ("headrace.label.dawid_skene",)
    libraries: tuple[str, ...] = ("numpy",)

    def partitions(self, inputs: Mapping[str, Manifest], _own: Manifest) -> Iterator[tuple[str, Inputs]]:
        """As `Consensus`."""
        every = {table: dict(sorted(inputs[table].md5s.items())) for table in self.reads}
        if every[self.reads[0]]:
            yield UNPARTITIONED, every

    def decide(self, files: Files) -> Verdict:
        """As `Consensus`."""
        history = _whole(files[self.reads[0]])
        judged = self.judge(history, files)
        verdict = aggregation.decide(history, self.labeling.keys, self.labeling.choices, lambda _answers: judged)
        known = aggregation.known_from(history, self.labeling.choices)
        return Verdict(verdict.labels.with_columns(known_time=pl.lit(known)), verdict.rejected, verdict.counts)

    def judge(self, history: pl.DataFrame, _files: Files) -> pl.DataFrame:
        """What all answers together say of each item."""
        from headrace.label import dawid_skene  # noqa: PLC0415  a plan need not import NumPy

        return dawid_skene.judge(aggregation.answers(history, self.labeling.choices), self.labeling.choices)


@dataclass(frozen=True)
class Learned(Weighed):
    """Each item by the answers to it and a model of the items, weighed by what all answers tell of both."""

    modules: tuple[str, ...] = ("headrace.label.crowdlab",)
    libraries: tuple[str, ...] = ("numpy", "scikit-learn", "cleanlab")

    def judge(self, history: pl.DataFrame, files: Files) -> pl.DataFrame:
        """As `Weighed`."""
        from headrace.label import crowdlab  # noqa: PLC0415  nor scikit-learn

        rows = pl.scan_parquet([path for _, path in sorted(files[self.reads[1]].items())])
        given = aggregation.answers(history, self.labeling.choices)
        return crowdlab.judge(given, evidence(self.labeling, history, rows), self.labeling.choices)


def _whole(files: Mapping[str, Path]) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for _, path in sorted(files.items())])


def of(labeling: LabelingTask, dataset: str) -> Consensus:
    """The way that a labeling of the dataset declares.

    Raises:
        ConsensusError: It lacks what that way needs.
    """
    annotations = f"annotations/{dataset}/{labeling.name}"
    if labeling.consensus == "majority":
        return Majority(labeling, (annotations,))
    if labeling.consensus == "dawid_skene":
        return Weighed(labeling, (annotations,))
    return Learned(labeling, (annotations, evidence_table(labeling, dataset)))


def evidence_table(labeling: LabelingTask, dataset: str) -> str:
    """The table that the model of a labeling learns from."""
    state, _, name = _declared(labeling).table.partition("/")
    return f"{state}/{dataset}/{name}"


def evidence(labeling: LabelingTask, items: pl.DataFrame, rows: pl.LazyFrame) -> "Items":
    """Sample id → numbers, of the items (`sample_id` and the keys) that have a row."""
    wanted = items.select("sample_id", *labeling.keys).unique("sample_id").lazy()
    found = rows.join(wanted, on=list(dict.fromkeys(labeling.keys))).sort("sample_id").collect()
    numbers = _declared(labeling).featurize
    return {row["sample_id"]: numbers(row) for row in found.iter_rows(named=True)}


def _declared(labeling: LabelingTask) -> ItemFeatures:
    if not labeling.item_features:
        raise ConsensusError(
            f"labeling {labeling.name}: its consensus is crowdlab, which needs `evidence`, a table and the numbers of"
            " a row that a model may learn from. Declare it, or take another consensus."
        )
    return labeling.item_features
