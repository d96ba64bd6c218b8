"""label reject, or label accept of what was refused, on answers of two days; rehearsed by `crashes.py`."""

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
from headrace.label import commands
from headrace.label.annotation_log import Ledger
from headrace.label.annotations import schema
from headrace.label.review import Decision, Word
from headrace.storage.manifest import Manifest

TABLES = (ANNOTATIONS, LABELS, REJECTED)
AT = datetime(2013, 1, 1, 8, tzinfo=UTC)
KEYS = {"started_at": UTC_MICROSECONDS, "car": schema({})["task_id"]}
CLOCK = {"created_at", "known_time"}
"""Columns that tell when somebody decided."""


@dataclass(frozen=True)
class Decide:
    """A workspace with answers; what was decided of them is undone by the word."""

    root: Path
    word: Word

    @property
    def campaign(self) -> Campaign:
        """The question there; nobody asks the server."""
        return Campaign(LabelServer("http://127.0.0.1:1", "none"), self.root, "Decisions")

    def run(self) -> None:
        """As `Case`."""
        self.says(self.word)

    def says(self, word: Word) -> None:
        """Somebody says it of every answer."""
        place = self.campaign
        decision = Decision(word, "Grace", "a wrong manual", every=True)
        commands.decide(place.dataset, place.labeling, place.lake, place.settings, decision)

    def seen(self) -> Seen:
        """As `Case`: each table is whole, and says what it says but for the time on the clock."""
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
class Decisions:
    """Three answers on two days and their labels; before an accept, all of them were refused."""

    template: Decide

    def prepare(self) -> None:
        """As `Scenario`."""
        lake = self.template.campaign.lake
        ledger = Ledger(Manifest(ANNOTATIONS), lake, KEYS)
        ledger.add(_answer(number, day) for number, day in enumerate((0, 0, 1)))
        ledger.flush()
        lake.commit(ledger.manifest)
        for word in ("accepted", "refused") if self.template.word == "accepted" else ("accepted",):
            self.template.says(word)

    def case(self, name: str) -> Decide:
        """As `Scenario`."""
        return Decide(copied(self.template.root, name), self.template.word)

    def over(self, name: str) -> None:
        """As `Scenario`."""
        shutil.rmtree(self.template.root.with_name(name))


def _answer(number: int, day: int) -> dict[str, Any]:
    """What one person said of one ride."""
    at = AT + timedelta(days=day)
    times = dict.fromkeys(("event_time", "started_at", "created_at", "updated_at", "task_changed_at"), at)
    names = {"sample_id": f"ride-{number}", "car": number, "task_id": number, "annotation_id": f"a{number}"}
    said = {"annotator": "ann", "event": "created", "choice": "weather", "was_cancelled": False, "result": "[]"}
    return {**times, **names, **said, "note": None, "lead_time_s": None}


def scenario(folder: Path, word: Word) -> Decisions:
    """The rehearsal of a decision."""
    (folder / "workspace").mkdir(parents=True)
    return Decisions(Decide(folder / "workspace", word))
