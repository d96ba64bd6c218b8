"""A history of annotations by several people around one noon."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from headrace.label import annotations

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
SCHEMA = annotations.annotation_schema({"car": pl.Int32()})


@dataclass(frozen=True)
class Event:
    """A change of an annotation, some minutes after noon."""

    minute: int
    person: str
    choice: str | None
    event: str = "created"
    annotation: str = ""
    item: str = "ride-1"

    def row(self) -> dict[str, Any]:
        """The event as a row of the history."""
        at = NOON + timedelta(minutes=self.minute)
        return {
            "sample_id": self.item, "event_time": NOON, "car": 1, "task_id": 1,
            "annotation_id": self.annotation or f"{self.item} by {self.person}", "annotator": self.person,
            "event": self.event, "choice": self.choice, "note": None, "was_cancelled": self.event == "skipped",
            "lead_time_s": 1.0, "created_at": at, "updated_at": at, "result": "[]",
        }  # fmt: skip
