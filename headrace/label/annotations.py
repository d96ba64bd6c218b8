"""Label Studio's answer → annotations: what people did since we last looked, as events that are only ever added.

Pure: what is known and what is seen go in, new events come out. Seeing the same twice gives no event.
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
from headrace.errors import HeadraceError
from headrace.label.aggregation import newest

Row = dict[str, Any]
Place = tuple[str, int]
"""Sample id and task: where an annotation is."""


@dataclass(frozen=True)
class Looked:
    """What we hold of one task.

    Attributes:
        changed_at: When the task had last changed, at the newest of our looks that brought an event.
        stands: Annotation → its last event, for those that stand.
    """

    changed_at: datetime
    stands: Mapping[str, Row]


SORT_KEYS = ("sample_id", "task_id", "annotation_id", "updated_at")


class ItemError(HeadraceError):
    """A sampled row, or the task made of it, is not what its declaration says."""


def schema(keys: Mapping[str, pl.DataType]) -> dict[str, pl.DataType]:
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


def item_of(row: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """What a task carries along to be joined back: event time and keys, as JSON."""
    return {name: _as_json(row[name]) for name in dict.fromkeys(("event_time", *keys))}


def day_of(item: Mapping[str, Any]) -> str:
    """UTC day of the item's event time: its partition."""
    return moment(item["event_time"]).date().isoformat()


def known(history: pl.DataFrame) -> dict[Place, Looked]:
    """What the events say of each task."""
    stands: dict[Place, dict[str, Row]] = {}
    for row in newest(history).filter(pl.col("event") != "deleted").iter_rows(named=True):
        stands.setdefault((row["sample_id"], row["task_id"]), {})[row["annotation_id"]] = row
    looks = history.group_by("sample_id", "task_id").agg(pl.col("task_changed_at").max())
    return {(item, task): Looked(changed, stands.get((item, task), {})) for item, task, changed in looks.iter_rows()}


def seen(
    task: Mapping[str, Any], labeling: LabelingTask, keys: Mapping[str, pl.DataType], secret: str
) -> dict[str, Row]:
    """Annotation → its state, for all annotations of a task as the server shows it."""
    item = task["data"]["item"]
    about = {
        "sample_id": task["data"]["sample_id"],
        "event_time": moment(item["event_time"]),
        **{name: _from_json(item.get(name), kind) for name, kind in keys.items()},
        "task_id": task["id"],
        "task_changed_at": moment(task["updated_at"]),
    }
    rows = (about | _state(annotation, labeling, secret) for annotation in task["annotations"])
    return {row["annotation_id"]: row for row in rows}


def events(before: Mapping[str, Row], now: Mapping[str, Row], deleted_at: datetime) -> Iterator[Row]:
    """What happened to the annotations of one task.

    Args:
        before: Its annotations that stood when we last looked.
        now: Its annotations now.
        deleted_at: When those that are gone went, as far as the server tells.
    """
    for name, row in now.items():
        if name not in before:
            yield row | {"event": "skipped" if row["was_cancelled"] else "created"}
        elif any(row[column] != before[name][column] for column in row.keys() - {"task_changed_at"}):
            yield row | {"event": "skipped" if row["was_cancelled"] else "changed"}
    for name in before.keys() - now.keys():
        yield {**before[name], "event": "deleted", "updated_at": deleted_at, "task_changed_at": deleted_at}


def pseudonym(account: object, secret: str) -> str:
    """A name for an annotator that only the holder of the secret can lead back to the account."""
    return hmac.new(secret.encode(), str(account).encode(), hashlib.sha256).hexdigest()[:16]


def moment(text: str) -> datetime:
    """A time of the server, in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC)


def _state(annotation: Mapping[str, Any], labeling: LabelingTask, secret: str) -> Row:
    result = annotation["result"]
    account = annotation["completed_by"]
    created_at = moment(annotation["created_at"])
    return {
        "annotation_id": f"{annotation['id']}-{created_at:%Y%m%dT%H%M%S%fZ}",  # SQLite gives numbers again
        "annotator": pseudonym(account["id"] if isinstance(account, dict) else account, secret),
        "choice": _values(result, "choices", labeling.control),
        "note": _values(result, "textarea"),
        "was_cancelled": bool(annotation["was_cancelled"]),
        "lead_time_s": annotation["lead_time"],
        "created_at": created_at,
        "updated_at": moment(annotation["updated_at"]),
        "result": json.dumps(result, sort_keys=True),
    }


def _values(result: Sequence[Mapping[str, Any]], kind: str, control: str | None = None) -> str | None:
    """What was answered in controls of a kind; more than one answer stays visible, and is then no choice we know."""
    given = [
        str(value)
        for part in result
        if part.get("type") == kind and control in (None, part.get("from_name"))
        for value in _listed(part["value"].get("choices" if kind == "choices" else "text"))
    ]
    return "; ".join(given) or None


def _listed(value: Any) -> list[Any]:  # noqa: ANN401  one text or several
    return value if isinstance(value, list) else [] if value is None else [value]


def _as_json(value: Any) -> Any:  # noqa: ANN401  any value of a row
    if isinstance(value, date | datetime):
        return value.isoformat()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise ItemError(f"a key of a sample is {value!r}: expected a text, number, truth value, date or time.")


def _from_json(value: Any, kind: pl.DataType) -> Any:  # noqa: ANN401  any value of a row
    if value is None or not kind.is_temporal():
        return value
    return date.fromisoformat(value) if kind == pl.Date() else datetime.fromisoformat(value)
