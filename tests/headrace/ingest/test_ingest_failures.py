"""Ingest of objects when something fails: a read returns exactly the listed object, or raises.

The raw table is updated completely or not at all, and what was read is not read again.
"""

import errno
import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from trips import TABLE, Trips, create_dataset, object_key

from headrace.dataset import ObjectSource
from headrace.engine.partition_errors import PartitionsRefusedError
from headrace.engine.run import TablesFailedError
from headrace.errors import TableLockedError
from headrace.guards.finding_log import open_finding_log
from headrace.guards.gate import FindingsError, accept_finding
from headrace.ingest.ingest import UnknownSourceError, ingest
from headrace.settings import Settings
from headrace.storage.manifest import Manifest
from headrace.storage.s3.bucket import Bucket
from headrace.storage.s3.errors import (
    AccessDeniedError,
    BucketMissingError,
    ObjectArchivedError,
    ObjectChangedError,
    S3RequestError,
    StorageUnreachableError,
    to_storage_error,
)
from headrace.storage.s3.objects import BucketLocation, ObjectMeta
from headrace.storage.table_store import TableStore

GET = b"GET /"


def test_a_partition_that_no_source_lists_is_an_error_that_names_it(trips: Trips) -> None:
    trips.put(1)

    with pytest.raises(UnknownSourceError, match=r"no source lists the partition 2026-01-09.*Omit"):
        trips.ingest(partition="2026-01-09")


def test_an_unknown_source_is_an_error_with_the_declared_names(trips: Trips) -> None:
    with pytest.raises(UnknownSourceError, match="trips: expected sources of days, found nights"):
        ingest(create_dataset(), trips.table_store, Settings(), sources=["nights"])


def test_an_object_replaced_after_the_listing_is_looked_up_again_once(trips: Trips) -> None:
    trips.put(1)

    trips.ingest(progress=lambda _source, done, _total: trips.put(1, text=b"newer") if not done else None)

    assert trips.table_store.paths(TABLE)["2026-01-01"].read_bytes() == b"newer"
    assert trips.ingest().read == 0


def test_an_object_that_is_replaced_repeatedly_stops_the_run(trips: Trips, monkeypatch: pytest.MonkeyPatch) -> None:
    trips.put(1)
    head = Bucket.head

    def head_and_replace(bucket: Bucket, name: str) -> ObjectMeta | None:
        listed = head(bucket, name)
        trips.put(1, text=b"newest")
        return listed

    monkeypatch.setattr(Bucket, "head", head_and_replace)

    with pytest.raises(ObjectChangedError, match=r"days/2026-01-01\.csv\.gz"):
        trips.ingest(progress=lambda _source, done, _total: trips.put(1, text=b"newer") if not done else None)
    assert not trips.manifest.partitions


def test_an_object_that_vanishes_after_the_listing_is_not_in_the_table(trips: Trips) -> None:
    trips.put(1, 2)

    done = trips.ingest(
        progress=lambda _source, count, _total: trips.bucket.delete(object_key(1)) if not count else None
    )

    assert done.new == ("2026-01-02",)
    assert list(trips.manifest.partitions) == ["2026-01-02"]


def test_a_transfer_cut_half_way_is_read_again(trips: Trips) -> None:
    big = bytes(range(256)) * 4000
    trips.put(1, text=big)
    # The listing stays below this, the object does not.
    trips.relay.cut_connections(after=500_000)

    trips.ingest()

    assert trips.reads == 2
    assert trips.table_store.paths(TABLE)["2026-01-01"].read_bytes() == big


def test_a_transfer_that_is_cut_every_time_is_an_error_with_the_key_and_the_progress(trips: Trips) -> None:
    trips.put(1, text=bytes(range(256)) * 4000)
    trips.relay.cut_connections(after=500_000, times=1000)
    bucket = replace(trips.bucket, endpoint=f"http://127.0.0.1:{trips.relay.port}", retry_timeout_s=1)

    with pytest.raises(
        StorageUnreachableError,
        match=r"Cannot read s3://.*2026-01-01.*tried for \d+ s.*\d+ of 1,024,000 bytes read",
    ):
        bucket.read(next(bucket.list("days/")))


@pytest.mark.parametrize(("access", "secret"), [("headrace", "wrong-canary"), ("nobody", "wrong-canary")])
def test_wrong_credentials_fail_at_once_with_endpoint_bucket_and_what_to_check(
    trips: Trips, monkeypatch: pytest.MonkeyPatch, access: str, secret: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", access)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)

    with pytest.raises(AccessDeniedError) as raised:
        trips.ingest()

    message = str(raised.value)
    assert f"http://127.0.0.1:{trips.relay.port}" in message
    assert trips.bucket.name in message
    assert "AWS_ACCESS_KEY_ID" in message
    assert "canary" not in message
    assert trips.relay.count(GET) == 1


def test_a_missing_bucket_is_an_error_that_names_it_and_the_setting(
    trips: Trips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_BUCKET", "not-there")

    with pytest.raises(BucketMissingError, match=r"there is no bucket not-there. Check HEADRACE_BUCKET"):
        trips.ingest()


def test_an_empty_listing_does_not_empty_the_table_until_that_is_accepted(trips: Trips) -> None:
    trips.put(1)
    trips.ingest()
    trips.bucket.delete(object_key(1))

    with pytest.raises(FindingsError, match=rf"{TABLE} has 1 partition, but s3://.*/days/ lists none.*accept") as found:
        trips.ingest()

    assert list(trips.manifest.partitions) == ["2026-01-01"]
    for finding in found.value.findings:
        accept_finding(open_finding_log(trips.table_store, finding.table.split("/")[1]), finding.id, by="a", reason="b")
    assert trips.ingest().deleted == ("2026-01-01",)
    assert not trips.manifest.partitions


def test_a_crash_before_the_manifest_leaves_the_old_table_and_the_next_run_reads_nothing_twice(
    trips: Trips, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips.put(1)
    trips.ingest()
    trips.put(2, 3)
    reads = trips.reads

    def crash(_table_store: TableStore, _manifest: Manifest) -> None:
        raise RuntimeError("crash")

    with monkeypatch.context() as patch:
        patch.setattr(TableStore, "checkout", crash)
        with pytest.raises(RuntimeError, match="crash"):
            trips.ingest()
    assert list(trips.manifest.partitions) == ["2026-01-01"]

    done = trips.ingest()

    assert done.new == ("2026-01-02", "2026-01-03")
    assert trips.reads - reads == 2
    assert len(trips.manifest.partitions) == 3


def test_one_object_that_cannot_be_read_stops_the_run_and_the_others_are_not_read_again(
    trips: Trips, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips.put(1, 2)
    download = Bucket.download

    def fail_on_second(bucket: Bucket, listed: ObjectMeta, path: Path) -> object:
        if listed.key == object_key(2):
            raise StorageUnreachableError("down")
        return download(bucket, listed, path)

    monkeypatch.setenv("HEADRACE_THREADS", "1")
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "download", fail_on_second)
        with pytest.raises(StorageUnreachableError, match="down"):
            trips.ingest()
    assert not trips.manifest.partitions

    assert trips.ingest().read == 1


def failing_download(monkeypatch: pytest.MonkeyPatch, errors: dict[str, BaseException]) -> None:
    """Let the downloads of some keys fail."""
    download = Bucket.download

    def fail(bucket: Bucket, listed: ObjectMeta, path: Path) -> object:
        if listed.key in errors:
            raise errors[listed.key]
        return download(bucket, listed, path)

    monkeypatch.setattr(Bucket, "download", fail)


def test_objects_that_cannot_be_read_are_named_and_the_others_are_read_once(
    trips: Trips, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips.put(1, 2, 3, 4, 5)
    errors: dict[str, BaseException] = {
        object_key(2): ObjectArchivedError("Cannot read it: the object is archived."),
        object_key(3): OSError(errno.ENOSPC, "No space left on device", "/mnt/cache/tmp/1"),
        object_key(4): pl.exceptions.PanicException("odd"),
    }
    with monkeypatch.context() as patch:
        failing_download(patch, errors)
        with pytest.raises(PartitionsRefusedError) as failed:
            trips.ingest()
    address = f"s3://{trips.bucket.name}/{object_key(2)}"

    assert f"- {TABLE} 2026-01-02 ({address}): Cannot read it: the object is archived." in str(failed.value)
    assert "/mnt/cache/tmp/1: No space left on device (ENOSPC)" in str(failed.value)
    assert "PanicException: odd" in str(failed.value)
    assert not trips.manifest.partitions
    assert trips.ingest().read == 3


def test_a_table_that_another_run_writes_ends_the_command(trips: Trips) -> None:
    trips.put(1, 2)
    other = replace(create_dataset().sources[0], name="nights")
    dataset = replace(create_dataset(), sources=(*create_dataset().sources, other))
    (trips.table_store.root / ".headrace/locks").mkdir(parents=True)

    with trips.table_store.lock_table(TABLE), pytest.raises(TableLockedError, match=TABLE):
        ingest(dataset, TableStore.at(trips.table_store.root), Settings())

    assert len(trips.table_store.manifest("raw/trips/nights").partitions) == 0, "the other run makes it"


def test_a_source_that_fails_does_not_stop_the_others(trips: Trips, monkeypatch: pytest.MonkeyPatch) -> None:
    trips.put(1, 2)
    other = replace(create_dataset().sources[0], name="nights")
    dataset = replace(create_dataset(), sources=(*create_dataset().sources, other))
    ingest(dataset, trips.table_store, Settings())

    with monkeypatch.context() as patch:
        failing_download(patch, {object_key(1): ObjectArchivedError("archived")})
        trips.put(1, text=b"newer")
        with pytest.raises(TablesFailedError, match=f"{TABLE} 2026-01-01.*\n.*raw/trips/nights 2026-01-01"):
            ingest(dataset, trips.table_store, Settings())


def test_a_bucket_that_does_not_answer_is_waited_for_once(trips: Trips, monkeypatch: pytest.MonkeyPatch) -> None:
    trips.put(1)
    other = replace(create_dataset().sources[0], name="nights")
    dataset = replace(create_dataset(), sources=(*create_dataset().sources, other))
    failing_download(monkeypatch, {object_key(1): StorageUnreachableError("s3://lake does not answer.")})

    with pytest.raises(StorageUnreachableError, match=r"^s3://lake does not answer\.$"):
        ingest(dataset, trips.table_store, Settings())


def test_an_archived_object_is_said_to_be_archived() -> None:
    place = BucketLocation("lake", "https://s3.example", None, None, "us-east-1")

    error = to_storage_error(S3RequestError(403, "InvalidObjectState"), "read s3://lake/days/1", place, 0)

    assert "s3://lake/days/1" in str(error)
    assert "archived" in str(error)
    assert "restore-object" in str(error)


@pytest.mark.parametrize(
    ("names", "suffix", "reason"),
    [
        (["2013-02-30", "0000-01-01", "2013-13", "2013-01-01T24", "2013-00-01", "0000"], ".csv", "not in the calendar"),
        (["x" * 201, "y" * 250], ".csv", "more than the 200 allowed"),
        (["manifest"], ".json", "a table's manifest was called manifest.json"),
    ],
)
def test_a_name_that_no_partition_can_have_is_reported_and_the_others_are_read(
    trips: Trips, names: list[str], suffix: str, reason: str
) -> None:
    good = ["2013-01-31", "9999-12-31", "2012-02-29", "2013-01-01T23", "0001-01-01", "9999"]
    for name in (*names, *good):
        trips.bucket.write(f"days/{name}{suffix}", b"x")

    done = trips.ingest(ObjectSource("days/", rf"days/(?P<partition>.+)\{suffix}", suffix))

    assert sorted(trips.manifest.partitions) == sorted(good)
    assert sorted(done.invalid) == sorted(f"days/{name}{suffix}" for name in names)
    assert all(reason in each for each in done.invalid.values())
    counted = "1 key has" if len(names) == 1 else f"{len(names)} keys have"
    assert re.search(rf"{counted} no valid partition name and (was|were) not read, e\.g\. 'days/", str(done))
