"""Label Studio's tasks → annotation events: what people did since the last collect, in rows that are only ever added.

Pure functions: the known and the current state go in, new events come out. The same state twice gives no event.
"""

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import polars as pl

from headrace.dataset import UTC_MICROSECONDS, LabelingTask
from headrace.label.aggregation import latest_events
from headrace.label.errors import InvalidItemError

Row = dict[str, Any]
TaskKey = tuple[str, int]
"""Sample id and task number."""


@dataclass(frozen=True)
class TaskState:
    """What the annotations table holds of one task.

    Attributes:
        changed_at: When the task had last changed, as of the last collect that brought an event of it.
        active: Annotation id → its last event, for those that were not deleted.
    """

    changed_at: datetime
    active: Mapping[str, Row]


SORT_KEYS = ("sample_id", "task_id", "annotation_id", "updated_at")


def annotation_schema(keys: Mapping[str, pl.DataType]) -> dict[str, pl.DataType]:
    """Columns of the annotations table: the item, the annotation, what was answered, and when."""
    text, flag = pl.String(), pl.Boolean()
    return {
        "sample_id": text,
        "event_time": UTC_MICROSECONDS,
        **keys,
        "task_id": pl.Int64(),
        "annotation_id": text,
        "annotator": text,
        "event": text,
        "choice": text,
        "note": text,
        "was_cancelled": flag,
        "lead_time_s": pl.Float64(),
        "created_at": UTC_MICROSECONDS,
        "updated_at": UTC_MICROSECONDS,
        "task_changed_at": UTC_MICROSECONDS,
        "result": text,
    }


def item_key(row: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """What a task carries under `item` to find its row again: event time and keys, as JSON."""
    return {name: _to_json(row[name]) for name in dict.fromkeys(("event_time", *keys))}


def partition_of(item: Mapping[str, Any]) -> str:
    """UTC day of the item's event time."""
    return parse_timestamp(item["event_time"]).date().isoformat()


def latest_states(history: pl.DataFrame) -> dict[TaskKey, TaskState]:
    """The state of each task that the events in `history` add up to."""
    active: dict[TaskKey, dict[str, Row]] = {}
    for row in latest_events(history).filter(pl.col("event") != "deleted").iter_rows(named=True):
        active.setdefault((row["sample_id"], row["task_id"]), {})[row["annotation_id"]] = row
    changes = history.group_by("sample_id", "task_id").agg(pl.col("task_changed_at").max())
    return {(item, task): TaskState(time, active.get((item, task), {})) for item, task, time in changes.iter_rows()}


def parse_task(
    task: Mapping[str, Any], labeling: LabelingTask, keys: Mapping[str, pl.DataType], secret: str
) -> dict[str, Row]:
    """Annotation id → its current state, for all annotations of a task as the server sends it.

    Args:
        task: The task with its annotations.
        labeling: The question.
        keys: The item's key columns and their types.
        secret: Key of the annotators' pseudonyms.
    """
    item = task["data"]["item"]
    shared = {
        "sample_id": task["data"]["sample_id"],
        "event_time": parse_timestamp(item["event_time"]),
        **{name: _from_json(item.get(name), kind) for name, kind in keys.items()},
        "task_id": task["id"],
        "task_changed_at": parse_timestamp(task["updated_at"]),
    }
    rows = (shared | _parse_annotation(annotation, labeling, secret) for annotation in task["annotations"])
    return {row["annotation_id"]: row for row in rows}


def diff_annotations(before: Mapping[str, Row], now: Mapping[str, Row], deleted_at: datetime) -> Iterator[Row]:
    """What happened to the annotations of one task, as events.

    Args:
        before: Annotation id → last event, of those that were active at the last collect.
        now: Annotation id → current state.
        deleted_at: The time to record for deletions, of which the server keeps none.
    """
    for name, row in now.items():
        if name not in before:
            yield row | {"event": "skipped" if row["was_cancelled"] else "created"}
        elif any(row[column] != before[name][column] for column in row.keys() - {"task_changed_at"}):
            yield row | {"event": "skipped" if row["was_cancelled"] else "changed"}
    for name in before.keys() - now.keys():
        yield {**before[name], "event": "deleted", "updated_at": deleted_at, "task_changed_at": deleted_at}


def pseudonymize(account: object, secret: str) -> str:
    """A name for an account that only the holder of the secret can trace back to it."""
    return hmac.new(secret.encode(), str(account).encode(), hashlib.sha256).hexdigest()[:16]


def parse_timestamp(text: str) -> datetime:
    """A time as the server or the command line writes it, in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC)


def _parse_annotation(annotation: Mapping[str, Any], labeling: LabelingTask, secret: str) -> Row:
    result = annotation["result"]
    account = annotation["completed_by"]
    created_at = parse_timestamp(annotation["created_at"])
    return {
        # SQLite gives the number of a deleted annotation to the next one: only together with its time it is unique.
        "annotation_id": f"{annotation['id']}-{created_at:%Y%m%dT%H%M%S%fZ}",
        "annotator": pseudonymize(account["id"] if isinstance(account, dict) else account, secret),
        "choice": _join_values(result, "choices", labeling.control),
        "note": _join_values(result, "textarea"),
        "was_cancelled": bool(annotation["was_cancelled"]),
        "lead_time_s": annotation["lead_time"],
        "created_at": created_at,
        "updated_at": parse_timestamp(annotation["updated_at"]),
        "result": json.dumps(result, sort_keys=True),
    }


def _join_values(result: Sequence[Mapping[str, Any]], kind: str, control: str | None = None) -> str | None:
    """What was answered in controls of a kind. Several values are joined, so that they match no declared choice."""
    values = [
        str(value)
        for part in result
        if part.get("type") == kind and control in (None, part.get("from_name"))
        for value in _as_list(part["value"].get("choices" if kind == "choices" else "text"))
    ]
    return "; ".join(values) or None


def _as_list(value: Any) -> list[Any]:  # noqa: ANN401  one text or several
    return value if isinstance(value, list) else [] if value is None else [value]


def _to_json(value: Any) -> Any:  # noqa: ANN401  any value of a row
    if isinstance(value, date | datetime):
        return value.isoformat()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise InvalidItemError(
        f"a key of a sample is {value!r}: expected a text, number, truth value, date or time. Change `keys` in the"
        " declaration."
    )


def _from_json(value: Any, kind: pl.DataType) -> Any:  # noqa: ANN401  any value of a row
    if value is None or not kind.is_temporal():
        return value
    return date.fromisoformat(value) if kind == pl.Date() else datetime.fromisoformat(value)
