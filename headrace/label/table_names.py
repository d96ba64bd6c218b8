"""The tables of a labeling: what it reads, what people did, and what that adds up to."""

import polars as pl

from headrace.dataset import Dataset, LabelingTask
from headrace.label.annotations import ItemError
from headrace.storage.table_store import Lake


def table(dataset: Dataset, name: str) -> str:
    """The table that a labeling calls `name`: `validated/flights` of the dataset `flights` is its table there."""
    state, _, rest = name.partition("/")
    return f"{state}/{dataset.name}/{rest}"


def annotations(dataset: Dataset, labeling: LabelingTask) -> str:
    """The table of what people did."""
    return f"annotations/{dataset.name}/{labeling.name}"


def labels(dataset: Dataset, labeling: LabelingTask) -> str:
    """The table of what that adds up to."""
    return f"labels/{dataset.name}/{labeling.name}"


def history(dataset: Dataset, labeling: LabelingTask, lake: Lake) -> pl.DataFrame:
    """All that people did.

    Raises:
        ItemError: Nothing was collected yet.
    """
    held = annotations(dataset, labeling)
    if not lake.manifest(held).partitions:
        raise ItemError(
            f"labels {dataset.name} {labeling.name}: nothing was collected yet, run `headrace label collect`."
        )
    return lake.scan(held).collect()
