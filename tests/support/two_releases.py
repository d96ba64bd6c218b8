"""Two releases of flights from a versioned bucket: the second has a correction and a deletion. A pytest plugin."""

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
from headrace.lineage.diff import ReleaseDiff, diff_releases
from headrace.lineage.history import DatasetRevision
from headrace.lineage.lineage import PartitionLineage, trace_lineage
from headrace.release.release import create_release
from headrace.settings import Settings
from headrace.storage import parquet
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.s3.bucket import Bucket
from headrace.storage.table_store import TableStore

DAYS = days(1, 3)
CORRECTED, DELETED = "2013-01-02", "2013-01-03"
CARRIERS, RAW, VALIDATED = "features/flights/carrier_delays", "raw/flights/flights", "validated/flights/flights"
ANSWERED_AT = datetime(2013, 2, 1, tzinfo=UTC)
ANSWERS = {"2013-01-01": ("weather", "weather", "carrier"), "2013-01-02": ("carrier", "carrier", "carrier")}
"""Day → answers of three annotators about one flight of it. They agree well enough for a release."""


@dataclass(frozen=True)
class TwoReleases:
    """Release 1 has three days. Release 2 corrects the second and deletes the third."""

    workspace: Workspace
    bucket: Bucket

    def lineage(
        self, table: str, partition: str | None = None, revision: str | None = None, **row: str
    ) -> PartitionLineage:
        """Trace a partition in the workspace of the releases."""
        return trace_lineage(
            DatasetRevision.open(self.workspace.table_store, "flights", revision), table, partition, row
        )

    def diff(self, before: str = "flights/1", after: str = "flights/2", *, by_row: bool = False) -> ReleaseDiff:
        """Compare two releases there."""
        return diff_releases(self.workspace.table_store, before, after, by_row=by_row)

    def partitions(self, release: str, table: str) -> Mapping[str, PartitionEntry]:
        """Partition → entry of a table in a release."""
        return DatasetRevision.open(self.workspace.table_store, "flights", release).manifest(table).partitions

    def command(self, *words: str, fails: bool = False) -> str:
        """What a `headrace` command prints there."""
        return self.workspace.command("headrace", *words, fails=fails)


@pytest.fixture(scope="session")
def two_releases(
    template: Path, s3: S3, moto_s3: S3, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TwoReleases]:
    """Created once for all tests, which read it or a clone of it."""
    workspace = new_workspace(tmp_path_factory.mktemp("two-releases"), template, s3)
    made = TwoReleases(workspace, moto_s3.new_bucket(versioned=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", moto_s3.access_key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", moto_s3.secret_key)
        patch.setenv("AWS_ENDPOINT_URL", moto_s3.endpoint)
        workspace.raw.add_days(*DAYS)
        write_annotations(workspace.table_store, ANSWERS)
        for day in DAYS:
            made.bucket.write(f"flights/{day}.csv.gz", real_flights.flights_object(day))
        create_next_release(made)
        made.bucket.write(f"flights/{CORRECTED}.csv.gz", shortened_day(CORRECTED))
        made.bucket.delete(f"flights/{DELETED}.csv.gz")
        create_next_release(made)
        yield made


def create_next_release(two_releases: TwoReleases) -> None:
    settings = Settings(
        workspace=two_releases.workspace.root, bucket=two_releases.bucket.name, s3_endpoint=two_releases.bucket.endpoint
    )
    ingest(two_releases.workspace.dataset, two_releases.workspace.table_store, settings, sources=["flights"])
    two_releases.workspace.refresh()
    create_release(two_releases.workspace.dataset, two_releases.workspace.table_store)


def shortened_day(day: str) -> bytes:
    """The first 600 flights of a day, the first of them twice, so that the contract rejects one row."""
    rows = real_flights.flights()[day].head(600)
    text = pl.concat([rows, rows.head(1)]).write_csv(null_value="NA")
    return gzip.compress(text.encode(), mtime=0)


def write_annotations(table_store: TableStore, answers: Mapping[str, tuple[str, ...]]) -> None:
    """Write the annotations table as `label collect` would, with answers about one flight per day."""
    facts = {"newest": ANSWERED_AT.isoformat(), "skipped": 0}
    entries = {
        day: create_entry(table_store, _answers(number, day, choices), facts | {"answers": len(choices)})
        for number, (day, choices) in enumerate(answers.items())
    }
    table_store.checkout(Manifest("annotations/flights/delay_cause", partitions=entries))


def _answers(flight: int, day: str, choices: tuple[str, ...]) -> pl.DataFrame:
    """Annotations of one flight. Each flight has another carrier."""
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
        "created_at": ANSWERED_AT,
    }
    rows = [
        item
        | event
        | {"annotation_id": f"a{3 * flight + number}", "annotator": f"person-{number}", "choice": choice}
        | {"updated_at": ANSWERED_AT - timedelta(hours=number)}
        for number, choice in enumerate(choices)
    ]
    return pl.DataFrame(rows, schema=annotations.annotation_schema(keys))


def create_entry(table_store: TableStore, frame: pl.DataFrame, facts: dict[str, Any] | None = None) -> PartitionEntry:
    stored = table_store.cache.add(partial(parquet.write, frame))
    return PartitionEntry(stored.md5, stored.md5, stored.size, frame.height, metadata=facts or {})
