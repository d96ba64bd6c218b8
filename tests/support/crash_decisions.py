"""`label reject`, or `label accept` of rejected answers, on answers of two days, for `crash_harness`."""

import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from crash_harness import Seen
from crash_state import copied, expect_shown, files, whole
from label_campaign import ANNOTATIONS, LABELS, REJECTED, Campaign
from label_server import LabelServer

from headrace.dataset import UTC_MICROSECONDS
from headrace.label.annotation_log import AnnotationLogWriter
from headrace.label.annotations import annotation_schema
from headrace.label.review import DecisionValue, ReviewDecision, review_annotations
from headrace.storage.manifest import Manifest

TABLES = (ANNOTATIONS, LABELS, REJECTED)
AT = datetime(2013, 1, 1, 8, tzinfo=UTC)
KEYS = {"started_at": UTC_MICROSECONDS, "car": annotation_schema({})["task_id"]}
CLOCK = {"created_at", "known_time"}
"""Columns that hold the time of a decision."""


@dataclass(frozen=True)
class Review:
    """A workspace with answers; the decision reverses what was decided about them before."""

    root: Path
    decision: DecisionValue

    @property
    def campaign(self) -> Campaign:
        """The labeling task there; no command asks the server."""
        return Campaign(LabelServer("http://127.0.0.1:1", "none"), self.root, "Decisions")

    def run(self) -> None:
        """As `Case`."""
        self.review_all(self.decision)

    def review_all(self, value: DecisionValue) -> None:
        """Decide so about every answer."""
        place = self.campaign
        decision = ReviewDecision(value, "Grace", "a wrong manual", include_reviewed=True)
        review_annotations(place.dataset, place.labeling, place.lake, place.settings, decision)

    def seen(self) -> Seen:
        """As `Case`: each table is complete, compared without the times of the decisions."""
        place = self.campaign
        there = [table for table in whole(place.lake, TABLES) if place.lake.manifest(table).partitions]
        return {table: [_timeless(row) for row in place.rows(table)] for table in there}

    def shown(self) -> Seen:
        """As `Case`: nothing is left over, and the files are those of the manifests."""
        for table in TABLES:
            expect_shown(self.campaign.lake, table)
        return {**self.seen(), "files": sorted(files(self.root, "data")), **files(self.root, ".headrace/journal")}


def _timeless(row: dict[str, Any]) -> list[tuple[str, str]]:
    told = {name: re.sub(r" on [\d-]+ [\d:]+ UTC", "", str(value)) for name, value in row.items()}
    return sorted((name, value) for name, value in told.items() if name not in CLOCK)


@dataclass(frozen=True)
class Reviews:
    """Three answers on two days and their labels; before an accept, all of them were rejected."""

    template: Review

    def prepare(self) -> None:
        """As `Scenario`."""
        lake = self.template.campaign.lake
        log = AnnotationLogWriter(Manifest(ANNOTATIONS), lake, KEYS)
        log.append(_answer(number, day) for number, day in enumerate((0, 0, 1)))
        log.flush()
        lake.commit(log.manifest)
        values: tuple[DecisionValue, ...] = ("accepted", "rejected")
        for value in values if self.template.decision == "accepted" else values[:1]:
            self.template.review_all(value)

    def case(self, name: str) -> Review:
        """As `Scenario`."""
        return Review(copied(self.template.root, name), self.template.decision)

    def over(self, name: str) -> None:
        """As `Scenario`."""
        shutil.rmtree(self.template.root.with_name(name))


def _answer(number: int, day: int) -> dict[str, Any]:
    """What one person answered about one ride."""
    at = AT + timedelta(days=day)
    times = dict.fromkeys(("event_time", "started_at", "created_at", "updated_at", "task_changed_at"), at)
    names = {"sample_id": f"ride-{number}", "car": number, "task_id": number, "annotation_id": f"a{number}"}
    said = {"annotator": "ann", "event": "created", "choice": "weather", "was_cancelled": False, "result": "[]"}
    return {**times, **names, **said, "note": None, "lead_time_s": None}


def scenario(folder: Path, decision: DecisionValue) -> Reviews:
    """What `crash_harness` runs."""
    (folder / "workspace").mkdir(parents=True)
    return Reviews(Review(folder / "workspace", decision))
