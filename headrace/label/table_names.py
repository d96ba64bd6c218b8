"""The tables of a labeling task: what it reads, what people did, and the labels."""

import polars as pl

from headrace.dataset import Dataset, LabelingTask
from headrace.label.errors import NothingCollectedError
from headrace.storage.table_store import TableStore


def input_table(dataset: Dataset, name: str) -> str:
    """The table that a labeling task calls `name`: `validated/flights` of `flights` is `validated/flights/flights`."""
    state, _, rest = name.partition("/")
    return f"{state}/{dataset.name}/{rest}"


def annotations_table(dataset: Dataset, labeling: LabelingTask) -> str:
    """The table of what people did."""
    return f"annotations/{dataset.name}/{labeling.name}"


def labels_table(dataset: Dataset, labeling: LabelingTask) -> str:
    """The table of the labels."""
    return f"labels/{dataset.name}/{labeling.name}"


def rejected_table(dataset: Dataset, labeling: LabelingTask) -> str:
    """The table of the rejected answers."""
    return f"rejected/{dataset.name}/{labeling.name}"


def all_tables(dataset: Dataset, labeling: LabelingTask) -> tuple[str, ...]:
    """Every table that is made of people's answers."""
    return tuple(table(dataset, labeling) for table in (annotations_table, labels_table, rejected_table))


def read_history(dataset: Dataset, labeling: LabelingTask, table_store: TableStore) -> pl.DataFrame:
    """All events of the annotations table.

    Raises:
        NothingCollectedError: It is empty.
    """
    table = annotations_table(dataset, labeling)
    if not table_store.manifest(table).partitions:
        raise NothingCollectedError(
            f"labels {dataset.name} {labeling.name}: nothing was collected yet. Run `headrace label collect"
            f" {dataset.name} --table {labeling.name}`."
        )
    return table_store.scan(table).collect()
