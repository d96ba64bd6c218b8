"""Crash cases of `label reject`, and of `label accept` for rejected answers: answers of two days."""

import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from crash_harness import State
from crash_state import assert_files_match_manifest, copy_workspace, hash_files, read_intact_tables
from label_campaign import ANNOTATIONS, LABELS, REJECTED, Campaign
from label_server import LabelServer

from headrace.dataset import UTC_MICROSECONDS
from headrace.label.annotation_log import AnnotationLogWriter
from headrace.label.annotations import annotation_schema
from headrace.label.review import DecisionValue, ReviewDecision, review_annotations
from headrace.storage.manifest import Manifest

TABLES = (ANNOTATIONS, LABELS, REJECTED)
ANSWERED_AT = datetime(2013, 1, 1, 8, tzinfo=UTC)
KEY_COLUMNS = {"started_at": UTC_MICROSECONDS, "car": annotation_schema({})["task_id"]}
DECISION_TIMES = {"created_at", "known_time"}
"""Columns that hold the time of a decision."""

CHUNK_MD5 = re.compile(r"(?<=\.)[0-9a-f]{32}\.(?=json$)")
"""In the name of a chunk: it depends on the times of the decisions in the table."""


@dataclass(frozen=True)
class ReviewCase:
    """A workspace with answers; the decision reverses the earlier one."""

    root: Path
    decision: DecisionValue

    @property
    def campaign(self) -> Campaign:
        """The labeling task of the workspace; no command contacts the server."""
        return Campaign(LabelServer("http://127.0.0.1:1", "none"), self.root, "Decisions")

    def run(self) -> None:
        self.review_all(self.decision)

    def review_all(self, value: DecisionValue) -> None:
        """Apply the decision to every answer."""
        campaign = self.campaign
        decision = ReviewDecision(value, "Grace", "a wrong manual", include_reviewed=True)
        review_annotations(campaign.dataset, campaign.labeling, campaign.table_store, campaign.settings, decision)

    def read_visible_state(self) -> State:
        """Each table is complete; the times of the decisions are left out."""
        campaign = self.campaign
        tables = [
            table
            for table in read_intact_tables(campaign.table_store, TABLES)
            if campaign.table_store.manifest(table).partitions
        ]
        return {table: [_without_decision_times(row) for row in campaign.rows(table)] for table in tables}

    def read_final_state(self) -> State:
        """The journal is empty, and the files are those of the manifests."""
        for table in TABLES:
            assert_files_match_manifest(self.campaign.table_store, table)
        return {
            **self.read_visible_state(),
            "files": sorted(CHUNK_MD5.sub("", name) for name in hash_files(self.root, "data")),
            **hash_files(self.root, ".headrace/journal"),
        }


def _without_decision_times(row: dict[str, Any]) -> list[tuple[str, str]]:
    values = {name: re.sub(r" on [\d-]+ [\d:]+ UTC", "", str(value)) for name, value in row.items()}
    return sorted((name, value) for name, value in values.items() if name not in DECISION_TIMES)


@dataclass(frozen=True)
class ReviewScenario:
    """Three answers on two days and their labels; before an accept, all of them were rejected."""

    template: ReviewCase

    def prepare(self) -> None:
        table_store = self.template.campaign.table_store
        log = AnnotationLogWriter(Manifest(ANNOTATIONS), table_store, KEY_COLUMNS)
        log.append(_annotation(number, day) for number, day in enumerate((0, 0, 1)))
        log.flush()
        table_store.checkout(log.manifest)
        values: tuple[DecisionValue, ...] = ("accepted", "rejected")
        for value in values if self.template.decision == "accepted" else values[:1]:
            self.template.review_all(value)

    def new_case(self, name: str) -> ReviewCase:
        return ReviewCase(copy_workspace(self.template.root, name), self.template.decision)

    def remove_case(self, name: str) -> None:
        shutil.rmtree(self.template.root.with_name(name))


def _annotation(number: int, day: int) -> dict[str, Any]:
    """One person's answer about one ride."""
    at = ANSWERED_AT + timedelta(days=day)
    times = dict.fromkeys(("event_time", "started_at", "created_at", "updated_at", "task_changed_at"), at)
    names = {"sample_id": f"ride-{number}", "car": number, "task_id": number, "annotation_id": f"a{number}"}
    answer = {"annotator": "ann", "event": "created", "choice": "weather", "was_cancelled": False, "result": "[]"}
    return {**times, **names, **answer, "note": None, "lead_time_s": None}


def scenario(folder: Path, decision: DecisionValue) -> ReviewScenario:
    """The crash scenario of a review decision."""
    (folder / "workspace").mkdir(parents=True)
    return ReviewScenario(ReviewCase(folder / "workspace", decision))
