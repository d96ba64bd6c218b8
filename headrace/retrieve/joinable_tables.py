"""The tables that a request can be joined with: feature tables, and labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from headrace.dataset import Dataset, FeatureTable, LabelingTask
from headrace.label import table_names
from headrace.retrieve.partition_reader import table_name

ANSWERED: Mapping[str, pl.DataType] = {
    "label": pl.String(),
    "votes": pl.Int64(),
    "agreement": pl.Float64(),
    "confidence": pl.Float64(),
}
"""Columns of a label that can be retrieved; `headrace lineage` shows its annotations."""


@dataclass(frozen=True)
class JoinableTable:
    """A table with one row per (key, event time), each known from its known time on.

    Attributes:
        name: Its name in a reference, `<name>:<column>`.
        table: `<state>/<dataset>/<name>`.
        keys: Join key → type.
        columns: Column that can be retrieved → type.
        ttl: How old a value may be; zero for any age.
    """

    name: str
    table: str
    keys: Mapping[str, pl.DataType]
    columns: Mapping[str, pl.DataType]
    ttl: timedelta

    @classmethod
    def of_features(cls, dataset: Dataset, table: FeatureTable) -> "JoinableTable":
        """A feature table as it is declared."""
        keys = _typed(table.keys, table.key_types)
        return cls(table.name, table_name(dataset, table), keys, table.features, table.ttl)

    @classmethod
    def of_labels(cls, dataset: Dataset, labeling: LabelingTask) -> "JoinableTable":
        """The labels of a question: of the item's event time, and known when people had said so."""
        keys = _typed(labeling.keys, labeling.key_types)
        return cls(labeling.name, table_names.labels_table(dataset, labeling), keys, ANSWERED, timedelta())

    @property
    def references(self) -> list[str]:
        """How its columns are asked for."""
        return [f"{self.name}:{column}" for column in self.columns]


def joinable_tables(dataset: Dataset) -> dict[str, JoinableTable]:
    """Name → view, the feature tables first."""
    found = (
        *(JoinableTable.of_features(dataset, table) for table in dataset.features),
        *(JoinableTable.of_labels(dataset, labeling) for labeling in dataset.labels),
    )
    return {view.name: view for view in found}


def _typed(keys: tuple[str, ...], types: Mapping[str, pl.DataType]) -> dict[str, pl.DataType]:
    return {key: types.get(key, pl.String()) for key in keys}
