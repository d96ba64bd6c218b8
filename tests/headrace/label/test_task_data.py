"""A sampled row whose task cannot be sent is set aside with the reason; the others are sent."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import minimal_dataset
import polars as pl
import pytest

from headrace.dataset import Input, LabelingTask
from headrace.label.errors import InvalidItemError
from headrace.label.tasks import task_data

Task = Callable[[Mapping[str, Any]], Any]
NOON = datetime(2026, 1, 9, 12, tzinfo=UTC)
SAMPLE = pl.DataFrame(
    {"sample_id": ["good", "bad"], "event_time": [NOON, NOON], "selection_reason": ["", ""], "shop": ["east", "west"]}
)


def sample(**_inputs: Any) -> pl.DataFrame:  # noqa: ANN401  as it is called
    return SAMPLE


def labeling(task: Task) -> LabelingTask:
    return LabelingTask(
        name="kind",
        title="Which kind?",
        config="<View/>",
        control="kind",
        choices=("good",),
        inputs={"sales": Input("validated/sales")},
        sample=sample,
        keys=("shop",),
        task=task,
    )


def task_of(value: object) -> Task:
    """A task that shows `value` of the bad row."""
    return lambda row: {"shown": value if row["sample_id"] == "bad" else "text"}


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (task_of(float("nan")), "gave 'shown' as nan, which JSON has not"),
        (task_of(float("-inf")), "gave 'shown' as -inf, which JSON has not"),
        (task_of([1, {"deep": float("inf")}]), "gave 'shown' as inf, which JSON has not"),
        (task_of(NOON), "gave 'shown' as datetime datetime.datetime(2026, 1, 9, 12, 0"),
        (task_of(date(2026, 1, 9)), "gave 'shown' as date datetime.date(2026, 1, 9), which JSON has not"),
        (task_of(Decimal("1.5")), "gave 'shown' as Decimal Decimal('1.5'), which JSON has not"),
        (task_of(b"\xff"), "gave 'shown' as bytes b'\\xff', which JSON has not"),
        (task_of({1: "one"}), "gave 'shown' as an object with the key 1, expected a text"),
        (lambda row: None if row["sample_id"] == "bad" else {}, "returned NoneType, expected a dict"),
        (lambda row: {"shown": row["missing"] if row["sample_id"] == "bad" else 1}, "raised KeyError: 'missing'"),
    ],
)
def test_a_row_without_a_task_is_set_aside_and_the_others_are_sent(task: Task, reason: str) -> None:
    rejected: dict[str, str] = {}

    data = task_data(minimal_dataset.DATASET, labeling(task), SAMPLE, rejected)

    assert list(data) == ["good"]
    assert list(rejected) == ["bad"]
    assert reason in rejected["bad"]
    assert f"`task` in {__name__}" in rejected["bad"]
    with pytest.raises(InvalidItemError, match="labeling task kind, bad: `task` in"):
        task_data(minimal_dataset.DATASET, labeling(task), SAMPLE)


def test_whatever_json_holds_is_sent() -> None:
    value = {"list": [1, 1.5, None, True, "text"], "tuple": ("a",), "nested": {"x": {}}}

    data = task_data(minimal_dataset.DATASET, labeling(task_of(value)), SAMPLE)

    assert data["bad"]["shown"] == value


def test_personal_data_in_a_task_stops_all_of_them() -> None:
    source = replace(minimal_dataset.SALES, pii_columns=("buyer",))
    dataset = replace(minimal_dataset.DATASET, sources=(source,))
    rows = SAMPLE.with_columns(buyer=pl.lit("Ann"))

    with pytest.raises(InvalidItemError, match="its task shows buyer, which is personal data"):
        task_data(dataset, labeling(lambda row: {"shown": row["buyer"]}), rows, {})
