"""sample → tasks: what Label Studio holds for each sampled row, and the suggestion that it shows.

Every sampled row becomes one task, known by its `sample_id`. A column with personal data is sent only where the
declaration says that people need it.
"""

from collections.abc import Collection, Mapping
from typing import Any, NoReturn

import polars as pl

from headrace.dataset import Dataset, LabelingTask
from headrace.label import table_names
from headrace.label.annotations import item_key
from headrace.label.errors import InvalidItemError
from headrace.label.labeling_functions import Suggestions
from headrace.storage.table_store import Lake

Json = dict[str, Any]


def draw_sample(dataset: Dataset, labeling: LabelingTask, lake: Lake, params: Mapping[str, Any]) -> pl.DataFrame:
    """The rows that people are asked about, as the declaration draws them.

    Raises:
        InvalidItemError: The sample is not what the declaration says.
    """
    inputs = {name: lake.scan(table_names.input_table(dataset, read.table)) for name, read in labeling.inputs.items()}
    rows = labeling.sample(params=params, **inputs)
    _check_sample(dataset, labeling, rows)
    return rows


def task_data(dataset: Dataset, labeling: LabelingTask, rows: pl.DataFrame) -> dict[str, Json]:
    """Sample id → data of the task, in the order of the sample."""
    hidden = pii_columns(dataset) - set(labeling.allowed_pii)
    if leaked := hidden & {"sample_id", *labeling.keys}:
        raise InvalidItemError(
            f"sample of {dataset.name} {labeling.name}: {', '.join(sorted(leaked))} is personal data, and keys are sent"
            " to the labeling tool. Use another key, or name the column in `allowed_pii`."
        )
    return {
        row["sample_id"]: {
            **labeling.task(_RowWithoutPii(labeling.name, hidden, row)),
            "sample_id": row["sample_id"],
            "selection_reason": row["selection_reason"],
            "item": item_key(row, labeling.keys),
        }
        for row in rows.iter_rows(named=True)
    }


class _RowWithoutPii(dict[str, Any]):
    """What a task may show of a row: it is an error to ask for a column with personal data."""

    def __init__(self, labeling: str, hidden: Collection[str], row: Mapping[str, Any]) -> None:
        super().__init__({name: value for name, value in row.items() if name not in hidden})
        self.labeling, self.hidden = labeling, hidden

    def __missing__(self, name: str) -> NoReturn:
        if name not in self.hidden:
            raise KeyError(name)
        raise InvalidItemError(
            f"labeling task {self.labeling}: its task shows {name}, which is personal data. Leave it out, or name it in"
            " `allowed_pii` if people need it to answer."
        )


def pii_columns(dataset: Dataset) -> set[str]:
    """Columns of the dataset with personal data."""
    return {name for source in dataset.sources for name in source.pii_columns}


def task_predictions(labeling: LabelingTask, suggestions: Suggestions) -> dict[str, Json]:
    """Sample id → the suggestion, as Label Studio stores it."""
    to_name = _labeled_object(labeling)
    return {
        item: {
            "model_version": suggestions.model_version,
            "score": made.confidence,
            "result": [
                {
                    "from_name": labeling.control,
                    "to_name": to_name,
                    "type": "choices",
                    "value": {"choices": [made.choice]},
                }
            ],
        }
        for item, made in suggestions.by_item.items()
    }


def _labeled_object(labeling: LabelingTask) -> str:
    """Name of what the control is about, in the label configuration."""
    from label_studio_sdk.label_interface.interface import LabelInterface  # noqa: PLC0415  only `send` needs the SDK

    controls = {control.name: control for control in LabelInterface(labeling.config).controls or ()}
    if labeling.control not in controls:
        raise InvalidItemError(
            f"labeling task {labeling.name}: expected the control {labeling.control!r} in its label configuration,"
            f" found {', '.join(controls) or 'none'}. Correct `control` or `config`."
        )
    return str(controls[labeling.control].to_name[0])


def _check_sample(dataset: Dataset, labeling: LabelingTask, rows: pl.DataFrame) -> None:
    where = f"sample of {dataset.name} {labeling.name}"
    advice = f"Correct `sample` in {labeling.sample.__module__}, then run the same command again."
    missing = {"sample_id", "event_time", "selection_reason", *labeling.keys} - set(rows.columns)
    if missing:
        raise InvalidItemError(f"{where}: expected the columns {', '.join(sorted(missing))}, found none. {advice}")
    ids = rows["sample_id"]
    if ids.dtype != pl.String or ids.null_count() or ids.n_unique() != ids.len() or (ids == "").any():
        raise InvalidItemError(
            f"{where}: expected a unique text in `sample_id`, found {ids.n_unique():,} values of type {ids.dtype} in"
            f" {ids.len():,} rows, {ids.null_count():,} of them null. {advice}"
        )
    if rows["event_time"].null_count():
        raise InvalidItemError(f"{where}: {rows['event_time'].null_count():,} rows have no event_time. {advice}")
