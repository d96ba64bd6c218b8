"""A source of its own for the tests: days of trips in a bucket, behind a relay; a pytest plug-in."""

import gzip
from collections.abc import Callable
from pathlib import Path

import dataframely as dy
import polars as pl
import pytest
from servers import S3, Relay

from headrace.dataset import Dataset, ObjectSource, Source
from headrace.ingest.ingest import IngestResult, ingest
from headrace.settings import Settings
from headrace.storage.manifest import Manifest
from headrace.storage.s3.bucket import Bucket
from headrace.storage.table_store import Lake

TABLE = "raw/trips/days"
DAYS = ObjectSource("days/", r"days/(?P<partition>\d{4}-\d\d-\d\d)\.csv\.gz", ".csv.gz")


def dataset(origin: ObjectSource = DAYS) -> Dataset:
    return Dataset(
        name="trips",
        description="",
        owner="",
        sources=(Source("days", origin, pl.read_csv, dy.Schema, lambda rows: rows, ("id",)),),
    )


def key(day: int) -> str:
    return f"days/2026-01-{day:02}.csv.gz"


def content(day: int) -> bytes:
    return gzip.compress(f"id,day\n1,{day}\n".encode(), mtime=0)


class Trips:
    """A bucket with days in it, behind a relay, and an empty workspace."""

    def __init__(self, bucket: Bucket, relay: Relay, root: Path) -> None:
        self.bucket, self.relay, self.lake = bucket, relay, Lake.at(root)

    def put(self, *days: int, text: bytes | None = None) -> None:
        """Write the objects of these days."""
        for day in days:
            self.bucket.write(key(day), content(day) if text is None else text)

    def ingest(
        self, origin: ObjectSource = DAYS, **options: bool | str | Callable[[str, int, int], None]
    ) -> IngestResult:
        """Run what is tested."""
        return ingest(dataset(origin), self.lake, Settings(), **options)[0]  # type: ignore[arg-type]

    @property
    def manifest(self) -> Manifest:
        """What the table holds."""
        return self.lake.manifest(TABLE)

    @property
    def reads(self) -> int:
        """Objects that were asked for."""
        return self.relay.count(f"GET /{self.bucket.name}/days/".encode())


def use(monkeypatch: pytest.MonkeyPatch, bucket: Bucket, port: int) -> None:
    monkeypatch.setenv("HEADRACE_BUCKET", bucket.name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", str(bucket.access_key))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", str(bucket.secret_key))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture
def trips(s3: S3, relay: Callable[[int], Relay], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trips:
    bucket, front = s3.new_bucket(), relay(s3.port)
    use(monkeypatch, bucket, front.port)
    return Trips(bucket, front, tmp_path)
