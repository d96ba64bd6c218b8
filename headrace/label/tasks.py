"""sample → tasks: what Label Studio is to hold for each sampled row, and the answer suggested there.

Every sampled row becomes one task, known by its `sample_id`. A column that tells of a person goes along only where the
declaration says that people need it.
"""

from collections.abc import Collection, Mapping
from typing import Any, NoReturn
from xml.etree import ElementTree as ET

import polars as pl

from headrace.dataset import Dataset, LabelingTask
from headrace.label import table_names
from headrace.label.annotations import ItemError, item_of
from headrace.label.labeling_functions import Suggested
from headrace.storage.table_store import Lake

Json = dict[str, Any]


def sampled(dataset: Dataset, labeling: LabelingTask, lake: Lake, params: Mapping[str, Any]) -> pl.DataFrame:
    """The rows that people are asked about, as the declaration draws them.

    Raises:
        ItemError: The sample is not what the declaration says.
    """
    frames = {name: lake.scan(table_names.table(dataset, read.table)) for name, read in labeling.inputs.items()}
    rows = labeling.sample(params=params, **frames)
    _check(dataset, labeling, rows)
    return rows


def contents(dataset: Dataset, labeling: LabelingTask, rows: pl.DataFrame) -> dict[str, Json]:
    """Sample id → data of the task, in the order of the sample."""
    hidden = personal(dataset) - set(labeling.allowed_pii)
    if told := hidden & {"sample_id", *labeling.keys}:
        raise ItemError(
            f"sample of {dataset.name} {labeling.name}: its {', '.join(sorted(told))} tells of a person, and keys go to"
            " the labeling tool. Make the key of something else, or name the column in `shows_personal`."
        )
    return {
        row["sample_id"]: {
            **labeling.task(_Shown(labeling.name, hidden, row)),
            "sample_id": row["sample_id"],
            "why": row["why"],
            "item": item_of(row, labeling.keys),
        }
        for row in rows.iter_rows(named=True)
    }


class _Shown(dict[str, Any]):
    """What a task may show of a row: asking for a column that tells of a person is an error."""

    def __init__(self, labeling: str, hidden: Collection[str], row: Mapping[str, Any]) -> None:
        super().__init__({name: value for name, value in row.items() if name not in hidden})
        self.labeling, self.hidden = labeling, hidden

    def __missing__(self, name: str) -> NoReturn:
        if name not in self.hidden:
            raise KeyError(name)
        raise ItemError(
            f"labeling {self.labeling}: its task shows {name}, which tells of a person. Leave it out, or name it in"
            " `shows_personal` if people need it to answer."
        )


def personal(dataset: Dataset) -> set[str]:
    """Columns of the dataset that tell of a person."""
    return {name for source in dataset.sources for name in source.pii_columns}


def predictions(labeling: LabelingTask, suggested: Suggested) -> dict[str, Json]:
    """Sample id → the suggestion as Label Studio stores it."""
    shown = _shown(labeling)
    return {
        item: {
            "model_version": suggested.model,
            "score": made.confidence,
            "result": [
                {
                    "from_name": labeling.control,
                    "to_name": shown,
                    "type": "choices",
                    "value": {"choices": [made.choice]},
                }
            ],
        }
        for item, made in suggested.by_item.items()
    }


def _shown(labeling: LabelingTask) -> str:
    """Name of what the question is about, in its configuration."""
    control = ET.fromstring(labeling.config).find(f".//*[@name='{labeling.control}']")  # noqa: S314  our own declaration
    if control is None or not control.get("toName"):
        raise ItemError(f"labeling {labeling.name}: its configuration has no control {labeling.control!r}.")
    return control.attrib["toName"]


def _check(dataset: Dataset, labeling: LabelingTask, rows: pl.DataFrame) -> None:
    where = f"sample of {dataset.name} {labeling.name}"
    mend = f"Mend `sample` in {labeling.sample.__module__}, then run the same command again."
    missing = {"sample_id", "event_time", "why", *labeling.keys} - set(rows.columns)
    if missing:
        raise ItemError(f"{where}: expected the columns {', '.join(sorted(missing))}, seen none. {mend}")
    ids = rows["sample_id"]
    if ids.dtype != pl.String or ids.null_count() or ids.n_unique() != ids.len() or (ids == "").any():
        raise ItemError(
            f"{where}: expected a text in `sample_id` that no other row has, seen {ids.n_unique():,} values"
            f" of type {ids.dtype} in {ids.len():,} rows, {ids.null_count():,} of them null. {mend}"
        )
    if rows["event_time"].null_count():
        raise ItemError(f"{where}: {rows['event_time'].null_count():,} rows have no event_time. {mend}")
