"""An object source for the tests: days of trips in a bucket behind a relay. A pytest plugin."""

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
from headrace.storage.table_store import TableStore

TABLE = "raw/trips/days"
DAYS = ObjectSource("days/", r"days/(?P<partition>\d{4}-\d\d-\d\d)\.csv\.gz", ".csv.gz")


def create_dataset(source: ObjectSource = DAYS) -> Dataset:
    return Dataset(
        name="trips",
        description="",
        owner="",
        sources=(Source("days", source, pl.read_csv, dy.Schema, lambda rows: rows, ("id",)),),
    )


def object_key(day: int) -> str:
    return f"days/2026-01-{day:02}.csv.gz"


def object_content(day: int) -> bytes:
    return gzip.compress(f"id,day\n1,{day}\n".encode(), mtime=0)


class Trips:
    """A bucket with one object per day, behind a relay, and an empty workspace."""

    def __init__(self, bucket: Bucket, relay: Relay, root: Path) -> None:
        self.bucket, self.relay, self.table_store = bucket, relay, TableStore.at(root)

    def put(self, *days: int, text: bytes | None = None) -> None:
        for day in days:
            self.bucket.write(object_key(day), object_content(day) if text is None else text)

    def ingest(
        self, source: ObjectSource = DAYS, **options: bool | str | Callable[[str, int, int], None]
    ) -> IngestResult:
        return ingest(create_dataset(source), self.table_store, Settings(), **options)[0]  # type: ignore[arg-type]

    @property
    def manifest(self) -> Manifest:
        return self.table_store.manifest(TABLE)

    @property
    def reads(self) -> int:
        """Number of GET requests for objects."""
        return self.relay.count(f"GET /{self.bucket.name}/days/".encode())


def set_environment(monkeypatch: pytest.MonkeyPatch, bucket: Bucket, port: int) -> None:
    monkeypatch.setenv("HEADRACE_BUCKET", bucket.name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", str(bucket.access_key))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", str(bucket.secret_key))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture
def trips(s3: S3, relay: Callable[[int], Relay], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trips:
    bucket, proxy = s3.new_bucket(), relay(s3.port)
    set_environment(monkeypatch, bucket, proxy.port)
    return Trips(bucket, proxy, tmp_path)
