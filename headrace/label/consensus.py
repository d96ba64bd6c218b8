"""annotations → labels: how the answers to an item become its label, and so which inputs a partition depends on.

A majority vote needs the item's own answers, so a day depends on its own annotations. Weighing the annotators needs all
answers: the labels are then one partition, which depends on every day and is known no earlier than the newest answer.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import polars as pl

from headrace.dataset import UNPARTITIONED, Dataset, ItemFeatures, LabelingTask
from headrace.engine.stage import InputHashes, InputPaths, scan_inputs
from headrace.errors import HeadraceError
from headrace.label import aggregation, table_names
from headrace.label.aggregation import AggregationResult
from headrace.storage.manifest import Manifest

if TYPE_CHECKING:
    from headrace.label.item_model import FeatureVectors


class ConsensusError(HeadraceError):
    """The declared consensus lacks what it needs."""


class Consensus(Protocol):
    """A method that turns answers into labels.

    To add one, implement these four and add its name to `create_consensus`.
    """

    @property
    def reads(self) -> tuple[str, ...]:
        """The tables it needs, the annotations first."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """Distributions whose version decides its labels, beside Polars."""

    def partitions(self, inputs: Mapping[str, Manifest], own: Manifest) -> Iterator[tuple[str, InputHashes]]:
        """Every partition of the labels, with its inputs."""

    def aggregate_partition(self, files: InputPaths) -> AggregationResult:
        """The labels of a partition."""


@dataclass(frozen=True)
class MajorityVote:
    """The majority of the answers to each item."""

    labeling: LabelingTask
    reads: tuple[str, ...]
    libraries: tuple[str, ...] = ()

    def partitions(self, inputs: Mapping[str, Manifest], _own: Manifest) -> Iterator[tuple[str, InputHashes]]:
        [source] = self.reads
        for day, md5 in sorted(inputs[source].md5s.items()):
            yield day, {source: {day: md5}}

    def aggregate_partition(self, files: InputPaths) -> AggregationResult:
        history = _read_all(files[self.reads[0]])
        return aggregation.aggregate_annotations(
            history, self.labeling.keys, self.labeling.choices, hold_unreviewed=holds_unreviewed(self.labeling)
        )


@dataclass(frozen=True)
class DawidSkene:
    """The answers to each item, weighted by the reliability of the annotators, which is estimated from all answers."""

    labeling: LabelingTask
    reads: tuple[str, ...]
    libraries: tuple[str, ...] = ("numpy",)

    def partitions(self, inputs: Mapping[str, Manifest], _own: Manifest) -> Iterator[tuple[str, InputHashes]]:
        everything = {table: dict(sorted(inputs[table].md5s.items())) for table in self.reads}
        if everything[self.reads[0]]:
            yield UNPARTITIONED, everything

    def aggregate_partition(self, files: InputPaths) -> AggregationResult:
        history, keys, choices = _read_all(files[self.reads[0]]), self.labeling.keys, self.labeling.choices
        holds = holds_unreviewed(self.labeling)
        answers = aggregation.accepted_answers(history, choices, hold_unreviewed=holds)
        decided = self._decide(answers, history, files)
        result = aggregation.aggregate_annotations(
            history, keys, choices, lambda _answers: decided, hold_unreviewed=holds
        )
        known_time = pl.lit(aggregation.last_known_time(history, choices, hold_unreviewed=holds))
        return AggregationResult(result.labels.with_columns(known_time=known_time), result.rejected, result.counts)

    def _decide(self, answers: pl.DataFrame, _history: pl.DataFrame, _files: InputPaths) -> pl.DataFrame:
        """`sample_id`, `label` and `confidence` of each item that is decided."""
        from headrace.label import dawid_skene  # noqa: PLC0415  planning need not import NumPy

        return dawid_skene.aggregate_answers(answers, self.labeling.choices)


@dataclass(frozen=True)
class Crowdlab(DawidSkene):
    """Each item by the answers to it and by a model of the items, weighed by how reliable both are."""

    # scikit-learn fits the model with SciPy's L-BFGS; cleanlab weighs with NumPy alone.
    libraries: tuple[str, ...] = ("numpy", "scipy", "scikit-learn", "cleanlab")

    def _decide(self, answers: pl.DataFrame, history: pl.DataFrame, files: InputPaths) -> pl.DataFrame:
        from headrace.label import crowdlab  # noqa: PLC0415  planning need not import scikit-learn

        rows = scan_inputs(files[self.reads[1]])
        return crowdlab.aggregate_answers(answers, feature_vectors(self.labeling, history, rows), self.labeling.choices)


def holds_unreviewed(labeling: LabelingTask) -> bool:
    """Whether an answer makes no label before a reviewer has accepted it."""
    return labeling.unreviewed == "hold"


def create_consensus(dataset: Dataset, labeling: LabelingTask) -> Consensus:
    """The consensus that a labeling task of the dataset declares.

    Raises:
        ConsensusError: It lacks what that consensus needs.
    """
    annotations = table_names.annotations_table(dataset, labeling)
    if labeling.consensus == "majority":
        return MajorityVote(labeling, (annotations,))
    if labeling.consensus == "dawid_skene":
        return DawidSkene(labeling, (annotations,))
    return Crowdlab(labeling, (annotations, item_features_table(dataset, labeling)))


def item_features_table(dataset: Dataset, labeling: LabelingTask) -> str:
    """The table that the model of the items learns from."""
    return table_names.input_table(dataset, _item_features(labeling).table)


def feature_vectors(labeling: LabelingTask, items: pl.DataFrame, rows: pl.LazyFrame) -> "FeatureVectors":
    """Sample id → feature vector, of the items (`sample_id` and the keys) that have a row."""
    wanted = items.select("sample_id", *labeling.keys).unique("sample_id").lazy()
    found = rows.join(wanted, on=list(dict.fromkeys(labeling.keys))).sort("sample_id").collect()
    featurize = _item_features(labeling).featurize
    return {row["sample_id"]: featurize(row) for row in found.iter_rows(named=True)}


def _read_all(files: Mapping[str, Path]) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for _, path in sorted(files.items())])


def _item_features(labeling: LabelingTask) -> ItemFeatures:
    if not labeling.item_features:
        raise ConsensusError(
            f"labeling task {labeling.name}: its consensus is `crowdlab`, which needs `item_features`: a table, and a"
            " function from a row of it to the numbers that a model may learn from. Declare them, or choose another"
            " consensus."
        )
    return labeling.item_features
