"""Label Studio's tasks → annotation events: what people did since the last collect, in rows that are only ever added.

Pure functions: the known and the current state go in, new events come out. The same state twice gives no event.
"""

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from headrace.dataset import UTC_MICROSECONDS, LabelingTask
from headrace.label.aggregation import DISPUTES, EDITED_BY_OTHER, REASSIGNED, latest_events
from headrace.label.errors import InvalidItemError, InvalidTaskError
from headrace.label.item_signature import ItemSigner, project_mark

Row = dict[str, Any]
TaskKey = tuple[str, int]
"""Sample id and task number."""


@dataclass(frozen=True)
class TaskState:
    """What the annotations table holds of one task.

    Attributes:
        changed_at: When the task had last changed, as of the last collect that brought an event of it.
        last_events: Annotation id → its last event, which may be its deletion.
    """

    changed_at: datetime
    last_events: Mapping[str, Row]

    @property
    def active(self) -> int:
        """Number of annotations that were not deleted."""
        return sum(row["event"] != "deleted" for row in self.last_events.values())


TICK = timedelta(microseconds=1)
"""What an event is later than the one before it at least, whatever the clock of the server says."""

UNKNOWN = "unknown-"
"""How the names of authors begin whose accounts were deleted before their answers were first seen."""

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


def partition_of(item: Any) -> str | None:  # noqa: ANN401  whatever the task carries
    """UTC day of the item's event time; None where it has none that can be read."""
    try:
        return parse_timestamp(item["event_time"]).date().isoformat()
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def latest_states(history: pl.DataFrame) -> dict[TaskKey, TaskState]:
    """The state of each task that the events in `history` add up to."""
    last: dict[TaskKey, dict[str, Row]] = {}
    for row in latest_events(history).iter_rows(named=True):
        last.setdefault((row["sample_id"], row["task_id"]), {})[row["annotation_id"]] = row
    changes = history.group_by("sample_id", "task_id").agg(pl.col("task_changed_at").max())
    return {(item, task): TaskState(time, last.get((item, task), {})) for item, task, time in changes.iter_rows()}


def parse_task(
    task: Mapping[str, Any], labeling: LabelingTask, keys: Mapping[str, pl.DataType], secret: str
) -> dict[str, Row]:
    """Annotation id → its current state, for all annotations of a task as the server sends it.

    Args:
        task: The task with its annotations.
        labeling: The question.
        keys: The item's key columns and their types.
        secret: Key of the annotators' pseudonyms.

    Returns:
        The columns of `annotation_schema` but for the event, and in `editor` the pseudonym of who changed it last.

    Raises:
        InvalidTaskError: Somebody has edited or imported the task, and what it is about is not what we send.
    """
    item = _parse_item(task, keys)
    if problem := ItemSigner(project_mark(labeling), secret).find_problem(task["data"]):
        raise InvalidTaskError(task["id"], problem)
    shared = {
        **item,
        "task_id": task["id"],
        "task_changed_at": parse_timestamp(task["updated_at"]),
    }
    rows = (shared | _parse_annotation(annotation, labeling, secret) for annotation in task["annotations"])
    return {row["annotation_id"]: row for row in rows}


def diff_annotations(before: Mapping[str, Row], now: Mapping[str, Row], deleted_at: datetime) -> Iterator[Row]:
    """What happened to the annotations of one task, as events.

    An event of an annotation is always later than the one before it, so the last event is what was seen last: an answer
    that is restored from a backup keeps its old time on the server, and a clock may be wrong.

    Args:
        before: Annotation id → last event.
        now: Annotation id → current state.
        deleted_at: The time to record for deletions, of which the server keeps none.
    """
    for name, row in now.items():
        event = _next_event(name, row, before.get(name))
        if event:
            yield event
    for name in before.keys() - now.keys():
        last = before[name]
        if last["event"] != "deleted":
            time = max(deleted_at, last["updated_at"] + TICK)
            yield {**last, "event": "deleted", "updated_at": time, "task_changed_at": deleted_at}


def _next_event(annotation_id: str, row: Row, last: Row | None) -> Row | None:
    """What happened to an annotation that the server shows as `row` and that was last seen as `last`; None if nothing.

    Who gave an answer is who gave it when it was first seen.
    """
    is_new_author = last is None or (row["annotator"] and _is_unknown(last["annotator"]))
    author = row["annotator"] if last is None or is_new_author else last["annotator"]
    current = {name: value for name, value in row.items() if name != "editor"}
    current |= {"annotator": author or _unknown_author(annotation_id)}
    dispute = _find_dispute(row, author, last)
    if last is None:
        return current | {"event": dispute or _named("created", row)}
    is_later = {"updated_at": max(row["updated_at"], last["updated_at"] + TICK)}
    if last["event"] == "deleted":
        return current | is_later | {"event": dispute or _named("restored", row)}
    is_new_dispute = bool(dispute) != (last["event"] in DISPUTES)
    if row["updated_at"] > last["updated_at"] or is_new_dispute or _has_changed(current, last):
        return current | is_later | {"event": dispute or _named("changed", row)}
    return None


def _find_dispute(row: Row, author: str | None, last: Row | None) -> str | None:
    """Why an answer may not be what its author gave; None if nothing speaks against it.

    A dispute ends when the author changes the answer, not when the account of who changed it is deleted.
    """
    if row["annotator"] and row["annotator"] != author:
        return REASSIGNED
    if row["editor"]:
        return EDITED_BY_OTHER if row["editor"] != author else None
    return last["event"] if last and last["event"] in DISPUTES else None


def _named(event: str, row: Row) -> str:
    return "skipped" if row["was_cancelled"] else event


def _has_changed(row: Row, last: Row) -> bool:
    return any(row[column] != last[column] for column in row.keys() - {"task_changed_at", "updated_at"})


def _unknown_author(annotation_id: str) -> str:
    """A name for who gave an answer before their account was deleted: each such answer counts as a person's own."""
    return f"{UNKNOWN}{annotation_id}"


def _is_unknown(annotator: str) -> bool:
    return annotator.startswith(UNKNOWN)


def pseudonymize(account: object, secret: str) -> str:
    """A name for an account, which only the holder of the secret can trace back to it."""
    return hmac.new(secret.encode(), str(account).encode(), hashlib.sha256).hexdigest()[:16]


def parse_timestamp(text: str) -> datetime:
    """A time as the server or the command line writes it, in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC)


def _parse_item(task: Mapping[str, Any], keys: Mapping[str, pl.DataType]) -> Row:
    """What a task is about, in the types of the annotations table."""
    data, name = task["data"], task["id"]
    item = data.get("item")
    if not isinstance(item, Mapping):
        raise InvalidTaskError(name, f"expected a mapping in `item`, found {item!r}")
    if not isinstance(data.get("sample_id"), str):
        raise InvalidTaskError(name, f"expected a text in `sample_id`, found {data.get('sample_id')!r}")
    row = {"sample_id": data["sample_id"]}
    for column, kind in {"event_time": UTC_MICROSECONDS, **keys}.items():
        try:
            value = _from_json(item.get(column), kind)
            row[column] = pl.Series([value], dtype=kind, strict=True).item()
        except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
            raise InvalidTaskError(name, f"expected {kind} in `item.{column}`, found {item.get(column)!r}") from None
    if row["event_time"] is None:
        raise InvalidTaskError(name, "expected a time in `item.event_time`, found none")
    return row


def annotation_id(annotation: Mapping[str, Any]) -> str:
    """SQLite gives the number of a deleted annotation to the next one: only together with its time it is unique."""
    return f"{annotation['id']}-{parse_timestamp(annotation['created_at']):%Y%m%dT%H%M%S%fZ}"


def _person(account: Any, secret: str) -> str | None:  # noqa: ANN401  a number, or a mapping
    """Pseudonym of an account; None for one that was deleted."""
    if isinstance(account, Mapping):
        account = account.get("id") or account.get("email")
    return None if account is None else pseudonymize(account, secret)


def _parse_annotation(annotation: Mapping[str, Any], labeling: LabelingTask, secret: str) -> Row:
    """One annotation. Label Studio takes whatever is posted: what is no answer makes a row without a choice."""
    result = annotation["result"]
    lead_time = annotation["lead_time"]
    return {
        "annotation_id": annotation_id(annotation),
        "annotator": _person(annotation["completed_by"], secret),
        "editor": _person(annotation.get("updated_by"), secret),
        "choice": _join_values(result, "choices", labeling.control),
        "note": _join_values(result, "textarea"),
        "was_cancelled": bool(annotation["was_cancelled"]),
        "lead_time_s": float(lead_time) if isinstance(lead_time, int | float) else None,
        "created_at": parse_timestamp(annotation["created_at"]),
        "updated_at": parse_timestamp(annotation["updated_at"]),
        "result": json.dumps(result, sort_keys=True),
    }


def _join_values(result: Any, kind: str, control: str | None = None) -> str | None:  # noqa: ANN401  anything JSON
    """What was answered in controls of a kind. Several values are joined, so that they match no declared choice."""
    parts = [part for part in _as_list(result) if isinstance(part, Mapping) and part.get("type") == kind]
    answers = [part.get("value") for part in parts if control in (None, part.get("from_name"))]
    field = "choices" if kind == "choices" else "text"
    values = [str(value) for answer in answers if isinstance(answer, Mapping) for value in _as_list(answer.get(field))]
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
