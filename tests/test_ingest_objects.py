"""source → raw, for objects: the bytes as they came; a run reads what is new or changed and nothing else.

A read gives the object that was listed, whole, or an error; the raw table is whole or as it was.
"""

import gzip
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from servers import S3, Relay

from pipelines.dataset import Dataset, Objects, Source
from pipelines.engine.lake import Lake
from pipelines.engine.manifest import Manifest
from pipelines.ingest import EmptyListingError, Ingested, UnknownSourceError, ingest
from pipelines.origins.objects import OnePartitionTwoKeysError
from pipelines.settings import Settings
from pipelines.systems.s3.bucket import Bucket
from pipelines.systems.s3.failures import (
    BucketMissingError,
    ObjectChangedError,
    StorageRefusedError,
    StorageUnreachableError,
)
from pipelines.systems.s3.objects import Object

TABLE = "raw/trips/days"
DAYS = Objects("days/", r"days/(?P<partition>\d{4}-\d\d-\d\d)\.csv\.gz", ".csv.gz")
GET = b"GET /"


def dataset(origin: Objects = DAYS) -> Dataset:
    return Dataset("trips", "", "", (Source("days", origin, pl.read_csv, None, lambda rows: rows, ("id",)),))


def key(day: int) -> str:
    return f"days/2026-01-{day:02}.csv.gz"


def content(day: int) -> bytes:
    return gzip.compress(f"id,day\n1,{day}\n".encode(), mtime=0)


class Setup:
    """A bucket with days in it, behind a relay, and an empty workspace."""

    def __init__(self, bucket: Bucket, relay: Relay, root: Path) -> None:
        self.bucket, self.relay, self.lake = bucket, relay, Lake.at(root)

    def put(self, *days: int, text: bytes | None = None) -> None:
        """Write the objects of these days."""
        for day in days:
            self.bucket.write(key(day), content(day) if text is None else text)

    def ingest(self, origin: Objects = DAYS, **options: bool | str | Callable[[str, int, int], None]) -> Ingested:
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
def here(s3: S3, relay: Callable[[int], Relay], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    bucket, front = s3.new_bucket(), relay(s3.port)
    use(monkeypatch, bucket, front.port)
    return Setup(bucket, front, tmp_path)


def test_objects_become_partitions_that_keep_their_bytes_as_they_came(here: Setup) -> None:
    here.put(1, 2)

    done = here.ingest()

    assert (done.new, done.changed, done.deleted, done.unmatched) == (("2026-01-01", "2026-01-02"), (), (), ())
    assert done.listed == done.read == 2
    assert done.size == len(content(1)) + len(content(2))
    assert here.lake.paths(TABLE)["2026-01-02"].read_bytes() == content(2)
    assert (here.lake.folder(TABLE) / "2026-01-01.csv.gz").read_bytes() == content(1)


def test_each_partition_says_which_version_of_which_object_it_is(here: Setup) -> None:
    here.put(1)

    here.ingest()

    listed = here.bucket.head(key(1))
    assert listed is not None
    assert here.manifest.partitions["2026-01-01"].facts["object"] == {
        "bucket": here.bucket.name,
        "key": key(1),
        "etag": listed.etag,
        "sha256": hashlib.sha256(content(1)).hexdigest(),
    }


def test_where_the_bucket_keeps_versions_the_version_is_recorded(
    moto_s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = moto_s3.new_bucket(versioned=True)
    use(monkeypatch, bucket, moto_s3.port)
    written = bucket.write(key(1), content(1))

    ingest(dataset(), Lake.at(tmp_path), Settings())

    facts = Lake.at(tmp_path).manifest(TABLE).partitions["2026-01-01"].facts
    assert written.version
    assert facts["object"]["version"] == written.version


def test_a_second_run_reads_no_object_and_leaves_the_same_manifest(here: Setup) -> None:
    here.put(1, 2)
    here.ingest()
    before, reads = here.manifest.to_bytes(), here.reads

    done = here.ingest()

    assert (done.new, done.changed, done.deleted, done.read, done.size) == ((), (), (), 0, 0)
    assert here.reads == reads == 2
    assert here.manifest.to_bytes() == before


def test_only_new_changed_and_deleted_objects_cause_work(here: Setup) -> None:
    here.put(1, 2, 3)
    here.ingest()
    reads = here.reads
    here.put(2, text=b"corrected")
    here.put(4)
    here.bucket.delete(key(3))

    done = here.ingest()

    assert (done.new, done.changed, done.deleted) == (("2026-01-04",), ("2026-01-02",), ("2026-01-03",))
    assert here.reads - reads == 2
    assert sorted(here.manifest.partitions) == ["2026-01-01", "2026-01-02", "2026-01-04"]
    assert not (here.lake.folder(TABLE) / "2026-01-03.csv.gz").exists()


def test_a_correction_of_the_same_size_is_read(here: Setup) -> None:
    here.put(1, text=b"id,day\n1,1\n")
    here.ingest()
    here.put(1, text=b"id,day\n1,2\n")

    assert here.ingest().changed == ("2026-01-01",)


def test_the_same_objects_give_the_same_manifest_in_another_workspace(here: Setup, tmp_path: Path) -> None:
    here.put(1, 2, 3)
    here.ingest()
    other = Lake.at(tmp_path / "other")

    ingest(dataset(), other, Settings())

    assert other.manifest(TABLE).to_bytes() == here.manifest.to_bytes()


def test_full_reads_everything_again(here: Setup) -> None:
    here.put(1, 2)
    here.ingest()

    done = here.ingest(full=True)

    assert (done.read, done.changed) == (2, ())
    assert here.reads == 4


def test_one_partition_can_be_asked_for_and_the_others_stay_as_they_are(here: Setup) -> None:
    here.put(1, 2)
    here.ingest()
    here.put(1, 2, text=b"corrected")

    done = here.ingest(partition="2026-01-02")

    assert done.changed == ("2026-01-02",)
    assert here.lake.paths(TABLE)["2026-01-01"].read_bytes() == content(1)


def test_a_partition_that_no_source_has_is_an_error_that_names_it(here: Setup) -> None:
    here.put(1)

    with pytest.raises(UnknownSourceError, match=r"no source shows the partition 2026-01-09.*Leave out"):
        here.ingest(partition="2026-01-09")


def test_an_unknown_source_is_refused_with_the_names_there_are(here: Setup) -> None:
    with pytest.raises(UnknownSourceError, match="trips: expected sources of days, seen nights"):
        ingest(dataset(), here.lake, Settings(), sources=["nights"])


def test_an_object_replaced_after_the_listing_is_looked_up_again_once(here: Setup) -> None:
    here.put(1)

    here.ingest(progress=lambda _source, done, _total: here.put(1, text=b"newer") if not done else None)

    assert here.lake.paths(TABLE)["2026-01-01"].read_bytes() == b"newer"
    assert here.ingest().read == 0


def test_an_object_that_is_replaced_again_and_again_stops_the_run(here: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    here.put(1)
    look = Bucket.head

    def head_and_replace(bucket: Bucket, name: str) -> Object | None:
        found = look(bucket, name)
        here.put(1, text=b"newest")
        return found

    monkeypatch.setattr(Bucket, "head", head_and_replace)

    with pytest.raises(ObjectChangedError, match=r"days/2026-01-01\.csv\.gz"):
        here.ingest(progress=lambda _source, done, _total: here.put(1, text=b"newer") if not done else None)
    assert not here.manifest.partitions


def test_an_object_that_vanishes_after_the_listing_is_not_in_the_table(here: Setup) -> None:
    here.put(1, 2)

    done = here.ingest(progress=lambda _source, count, _total: here.bucket.delete(key(1)) if not count else None)

    assert done.new == ("2026-01-02",)
    assert list(here.manifest.partitions) == ["2026-01-02"]


def test_a_transfer_cut_half_way_is_read_again(here: Setup) -> None:
    big = bytes(range(256)) * 4000
    here.put(1, text=big)
    # The listing stays below this, the object does not.
    here.relay.cut(after=500_000)

    here.ingest()

    assert here.reads == 2
    assert here.lake.paths(TABLE)["2026-01-01"].read_bytes() == big


def test_a_transfer_that_is_cut_every_time_is_an_error_with_the_key_and_how_far_it_came(here: Setup) -> None:
    here.put(1, text=bytes(range(256)) * 4000)
    here.relay.cut(after=500_000, times=1000)
    bucket = replace(here.bucket, endpoint=f"http://127.0.0.1:{here.relay.port}", patience=1)

    with pytest.raises(
        StorageUnreachableError,
        match=r"Cannot read s3://.*2026-01-01.*tried for \d+ s.*\d+ of 1,024,000 bytes read",
    ):
        bucket.read(next(bucket.list("days/")))


@pytest.mark.parametrize(("access", "secret"), [("headrace", "wrong-canary"), ("nobody", "wrong-canary")])
def test_wrong_credentials_are_refused_at_once_with_endpoint_bucket_and_what_to_check(
    here: Setup, monkeypatch: pytest.MonkeyPatch, access: str, secret: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", access)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)

    with pytest.raises(StorageRefusedError) as raised:
        here.ingest()

    message = str(raised.value)
    assert f"http://127.0.0.1:{here.relay.port}" in message
    assert here.bucket.name in message
    assert "AWS_ACCESS_KEY_ID" in message
    assert "canary" not in message
    assert here.relay.count(GET) == 1


def test_a_missing_bucket_is_an_error_that_names_it_and_the_setting(
    here: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_BUCKET", "not-there")

    with pytest.raises(BucketMissingError, match=r"there is no bucket not-there. Check HEADRACE_BUCKET"):
        here.ingest()


def test_keys_that_are_no_partition_are_reported_and_never_read(here: Setup) -> None:
    odd = ["days/README", "days/2026-01-02.csv", "days/a b+ü\n?%2e&.csv.gz"]
    for name in odd:
        here.bucket.write(name, b"x")
    here.put(1)

    done = here.ingest()

    assert sorted(done.unmatched) == sorted(odd)
    assert "3 keys are no partition and were not read, such as 'days/" in str(done)
    assert list(here.manifest.partitions) == ["2026-01-01"]
    assert here.reads == 1


def test_a_key_with_odd_characters_is_read_when_the_pattern_takes_it(here: Setup) -> None:
    name = "days/a b+ü\n?%2e&/2026-01-01.csv.gz"
    here.bucket.write(name, b"odd")
    loose = replace(DAYS, partition=r"(?s)days/.*/(?P<partition>[\d-]+)\.csv\.gz")

    here.ingest(loose)

    assert here.manifest.partitions["2026-01-01"].facts["object"]["key"] == name
    assert here.lake.paths(TABLE)["2026-01-01"].read_bytes() == b"odd"


@pytest.mark.parametrize("name", ["..", "a/b", ".hidden", "x\ny", ""])
def test_a_key_that_would_leave_the_table_s_folder_is_no_partition(here: Setup, name: str) -> None:
    here.put(1)
    here.bucket.write(f"days/_{name}_", b"x")
    loose = replace(DAYS, partition=r"(?s)days/_?(?P<partition>.*?)(_|\.csv\.gz)")

    done = here.ingest(loose)

    assert done.new == ("2026-01-01",)
    assert done.unmatched == (f"days/_{name}_",)


def test_two_keys_of_one_partition_are_an_error_that_names_both(here: Setup) -> None:
    here.bucket.write("days/a/2026-01-01.csv.gz", b"x")
    here.bucket.write("days/b/2026-01-01.csv.gz", b"x")
    loose = replace(DAYS, partition=r"days/./(?P<partition>[\d-]+)\.csv\.gz")

    with pytest.raises(OnePartitionTwoKeysError, match=r"days/a/2026-01-01\.csv\.gz and days/b/2026-01-01\.csv\.gz"):
        here.ingest(loose)


def test_a_source_of_one_object_becomes_the_partition_all(here: Setup) -> None:
    here.bucket.write("days/airports.csv", b"id\n1\n")

    done = here.ingest(Objects("days/", r"days/airports\.csv", ".csv"))

    assert done.new == ("all",)
    assert (here.lake.folder(TABLE) / "all.csv").read_bytes() == b"id\n1\n"


def test_a_listing_that_shows_nothing_does_not_empty_the_table_unless_that_is_said(here: Setup) -> None:
    here.put(1)
    here.ingest()
    here.bucket.delete(key(1))

    with pytest.raises(
        EmptyListingError, match=rf"{TABLE} has 1 partitions, but s3://.*/days/ shows none.*allow-empty"
    ):
        here.ingest()

    assert list(here.manifest.partitions) == ["2026-01-01"]
    assert here.ingest(allow_empty=True).deleted == ("2026-01-01",)
    assert not here.manifest.partitions


def test_an_object_of_no_bytes_is_kept_as_it_came(here: Setup) -> None:
    here.put(1, text=b"")

    here.ingest()

    entry = here.manifest.partitions["2026-01-01"]
    assert entry.size == 0
    assert entry.facts["object"]["sha256"] == hashlib.sha256(b"").hexdigest()
    assert here.lake.paths(TABLE)["2026-01-01"].read_bytes() == b""


def test_a_crash_before_the_manifest_leaves_the_old_table_and_the_next_run_reads_nothing_twice(
    here: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.put(1)
    here.ingest()
    here.put(2, 3)
    reads = here.reads

    def crash(_lake: Lake, _manifest: Manifest) -> None:
        raise RuntimeError("crash")

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "commit", crash)
        with pytest.raises(RuntimeError, match="crash"):
            here.ingest()
    assert list(here.manifest.partitions) == ["2026-01-01"]

    done = here.ingest()

    assert done.new == ("2026-01-02", "2026-01-03")
    assert here.reads - reads == 2
    assert len(here.manifest.partitions) == 3


def test_one_object_that_cannot_be_read_stops_the_run_and_the_others_are_remembered(
    here: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.put(1, 2)
    download = Bucket.download

    def refuse(bucket: Bucket, found: Object, path: Path) -> object:
        if found.key == key(2):
            raise StorageUnreachableError("down")
        return download(bucket, found, path)

    monkeypatch.setenv("HEADRACE_THREADS", "1")
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "download", refuse)
        with pytest.raises(StorageUnreachableError, match="down"):
            here.ingest()
    assert not here.manifest.partitions

    assert here.ingest().read == 1


def test_progress_is_told_of_every_partition_read(here: Setup) -> None:
    here.put(1, 2)
    told: list[tuple[str, int, int]] = []

    here.ingest(progress=lambda source, done, total: told.append((source, done, total)))

    assert told == [("days", 0, 2), ("days", 1, 2), ("days", 2, 2)]
