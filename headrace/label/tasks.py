"""sample → tasks: the data of each task in Label Studio, and the suggestion that it shows.

Every sampled row becomes one task, known by its `sample_id`. A column with personal data is sent only where the
declaration says that people need it.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

import polars as pl

from headrace.dataset import Dataset, LabelingTask
from headrace.errors import HeadraceError
from headrace.label import table_names
from headrace.label.annotations import item_key
from headrace.label.errors import InvalidItemError
from headrace.label.labeling_functions import Suggestions
from headrace.storage.table_store import TableStore
from headrace.unexpected_errors import describe_error, is_failure

Json = dict[str, Any]


def draw_sample(
    dataset: Dataset, labeling: LabelingTask, table_store: TableStore, params: Mapping[str, Any]
) -> pl.DataFrame:
    """The rows that people are asked about, as the declaration draws them.

    Raises:
        InvalidItemError: The sample is not what the declaration says.
    """
    inputs = {
        name: table_store.scan(table_names.input_table(dataset, read.local_table))
        for name, read in labeling.inputs.items()
    }
    rows = labeling.sample(params=params, **inputs)
    _check_sample(dataset, labeling, rows)
    return rows


def task_data(
    dataset: Dataset, labeling: LabelingTask, rows: pl.DataFrame, rejected: dict[str, str] | None = None
) -> dict[str, Json]:
    """Sample id → data of the task, in the order of the sample.

    Args:
        dataset: The dataset.
        labeling: The labeling task.
        rows: The sample.
        rejected: Receives sample id → why there is no task for it, so that one row does not keep the others from being
            sent. Without it, the first such row is an error.

    Raises:
        InvalidItemError: The task shows personal data, or a row has no task that can be sent.
    """
    hidden = pii_columns(dataset) - set(labeling.allowed_pii)
    if leaked := hidden & {"sample_id", *labeling.keys}:
        raise InvalidItemError(
            f"sample of {dataset.name} {labeling.name}: {', '.join(sorted(leaked))} is personal data, and keys are sent"
            " to the labeling tool. Use another key, or name the column in `allowed_pii`."
        )
    found: dict[str, Json] = {}
    for row in rows.iter_rows(named=True):
        name = row["sample_id"]
        shown, fault = _shown(labeling, _RowWithoutPii(labeling.name, hidden, row))
        if not fault:
            own = {"sample_id": name, "selection_reason": row["selection_reason"]}
            found[name] = {**shown, **own, "item": item_key(row, labeling.keys)}
        elif rejected is None:
            raise InvalidItemError(f"labeling task {labeling.name}, {name}: {fault}")
        else:
            rejected[name] = fault
    return found


def _shown(labeling: LabelingTask, row: Mapping[str, Any]) -> tuple[Json, str]:
    """What `task` shows of a row, and why it cannot be sent; empty if it can."""
    where = f"`task` in {labeling.task.__module__}"
    try:
        shown: object = labeling.task(row)
    except BaseException as error:
        if isinstance(error, HeadraceError) or not is_failure(error):
            raise
        return {}, f"{where} raised {describe_error(error)}"
    if not isinstance(shown, dict):
        return {}, f"{where} returned {type(shown).__name__}, expected a dict"
    faults = ((str(name), _json_fault(value)) for name, value in shown.items())
    fault = next((f"{where} gave {name!r} as {found}" for name, found in faults if found), "")
    return shown, fault


def _json_fault(value: Any) -> str:  # noqa: ANN401  whatever a task shows
    """What of a value JSON does not hold; empty if it is JSON."""
    if value is None or isinstance(value, str | bool | int):
        return ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{value}, which JSON has not: show it as text or null"
    if isinstance(value, Mapping):
        strange = next((name for name in value if not isinstance(name, str)), None)
        own = f"an object with the key {strange!r}, expected a text" if strange is not None else ""
        return own or next(filter(None, map(_json_fault, value.values())), "")
    if isinstance(value, list | tuple):
        return next(filter(None, map(_json_fault, value)), "")
    return f"{type(value).__name__} {value!r}, which JSON has not: show it as text or number"


class _RowWithoutPii(dict[str, Any]):
    """A row as a task may show it: reading a column with personal data is an error."""

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
