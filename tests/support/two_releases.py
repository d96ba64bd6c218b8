"""Two releases of flights, the second with a correction and a deletion, out of a bucket with versions; a plug-in."""

import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import real_flights
from raw_data import days
from servers import S3
from workspaces import Workspace, new_workspace

from headrace.ingest.ingest import ingest
from headrace.label import annotations
from headrace.lineage.history import Tables
from headrace.lineage.lineage import Lineage, lineage
from headrace.release.release import create_release
from headrace.settings import Settings
from headrace.storage import parquet
from headrace.storage.manifest import Entry, Manifest
from headrace.storage.s3.bucket import Bucket
from headrace.storage.table_store import Lake

DAYS = days(1, 3)
CORRECTED, DELETED = "2013-01-02", "2013-01-03"
CARRIERS, RAW, VALIDATED = "features/flights/carrier_delays", "raw/flights/flights", "validated/flights/flights"
ANSWERED = datetime(2013, 2, 1, tzinfo=UTC)
ANSWERS = {"2013-01-01": ("weather", "weather", "carrier"), "2013-01-02": ("carrier", "carrier", "carrier")}
"""Day → what three people said of one flight of it: they agree well enough for a release."""


@dataclass(frozen=True)
class Story:
    """Release 1 of three days; then the second corrected and the third deleted, and release 2."""

    workspace: Workspace
    bucket: Bucket

    def lineage(self, table: str, partition: str | None = None, revision: str | None = None, **row: str) -> Lineage:
        """What is tested, in the workspace that made the releases."""
        return lineage(Tables.at(self.workspace.lake, "flights", revision), table, partition, row)

    def command(self, *words: str, fails: bool = False) -> str:
        """What `headrace` says there."""
        return self.workspace.command("headrace", *words, fails=fails)


@pytest.fixture(scope="session")
def story(template: Path, s3: S3, moto_s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Told once for all tests: they read it, or a clone of it."""
    workspace = new_workspace(tmp_path_factory.mktemp("story"), template, s3)
    made = Story(workspace, moto_s3.new_bucket(versioned=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", moto_s3.access_key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", moto_s3.secret_key)
        patch.setenv("AWS_ENDPOINT_URL", moto_s3.endpoint)
        workspace.raw.arrive(*DAYS)
        annotate(workspace.lake, ANSWERS)
        for day in DAYS:
            made.bucket.write(f"flights/{day}.csv.gz", real_flights.flights_object(day))
        release(made)
        made.bucket.write(f"flights/{CORRECTED}.csv.gz", shorter(CORRECTED))
        made.bucket.delete(f"flights/{DELETED}.csv.gz")
        release(made)
        yield made


def release(story: Story) -> None:
    settings = Settings(workspace=story.workspace.root, bucket=story.bucket.name, s3_endpoint=story.bucket.endpoint)
    ingest(story.workspace.dataset, story.workspace.lake, settings, sources=["flights"])
    story.workspace.refresh()
    create_release(story.workspace.dataset, story.workspace.lake)


def shorter(day: str) -> bytes:
    """The first 600 flights of a day, the first of them twice: one row that the contract rejects."""
    rows = real_flights.flights()[day].head(600)
    text = pl.concat([rows, rows.head(1)]).write_csv(null_value="NA")
    return gzip.compress(text.encode(), mtime=0)


def annotate(lake: Lake, answers: Mapping[str, tuple[str, ...]]) -> None:
    """As `label collect` leaves what people answered about one flight a day."""
    facts = {"newest": ANSWERED.isoformat(), "skipped": 0}
    entries = {
        day: entry(lake, _answers(number, day, choices), facts | {"answers": len(choices)})
        for number, (day, choices) in enumerate(answers.items())
    }
    lake.commit(Manifest("annotations/flights/delay_cause", partitions=entries))


def _answers(flight: int, day: str, choices: tuple[str, ...]) -> pl.DataFrame:
    """What people said of the flight of that number, which its carrier has alone."""
    at = datetime.fromisoformat(day).replace(hour=12, tzinfo=UTC)
    keys = {
        "scheduled_at": pl.Datetime("us", "UTC"),
        "carrier": pl.String(),
        "flight": pl.Int64(),
        "origin": pl.String(),
    }
    item = {"sample_id": f"flight-{flight}", "event_time": at, "scheduled_at": at, "origin": "EWR"}
    event = {
        "carrier": ("UA", "AA")[flight],
        "flight": 1,
        "task_id": 7 + flight,
        "event": "created",
        "was_cancelled": False,
        "result": "[]",
        "created_at": ANSWERED,
    }
    rows = [
        item
        | event
        | {"annotation_id": f"a{3 * flight + number}", "annotator": f"person-{number}", "choice": choice}
        | {"updated_at": ANSWERED - timedelta(hours=number)}
        for number, choice in enumerate(choices)
    ]
    return pl.DataFrame(rows, schema=annotations.schema(keys))


def entry(lake: Lake, frame: pl.DataFrame, facts: dict[str, Any] | None = None) -> Entry:
    stored = lake.cache.add(partial(parquet.write, frame))
    return Entry(stored.md5, stored.md5, stored.size, frame.height, facts=facts or {})
