"""Sources that change, or refuse, while they are read: what is read is whole, and the next run reads the rest."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import S3, Relay
from trips import TABLE, Trips, create_dataset, object_content, object_key, set_environment
from weather import INSERT, OLD, Weather

from headrace.dataset import ObjectSource
from headrace.errors import HeadraceError
from headrace.ingest.ingest import ingest
from headrace.settings import Settings
from headrace.storage.s3.bucket import Bucket
from headrace.storage.s3.objects import ObjectMeta

BY_NAME = ObjectSource("days/", r"days/(?P<partition>.+)\.csv", ".csv")


@pytest.fixture
def moto_trips(moto_s3: S3, relay: Callable[[int], Relay], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trips:
    """Trips in a bucket that keeps keys as they are, which a folder cannot."""
    bucket, proxy = moto_s3.new_bucket(), relay(moto_s3.port)
    set_environment(monkeypatch, bucket, proxy.port)
    return Trips(bucket, proxy, tmp_path)


def test_an_object_that_is_written_while_the_bucket_is_listed_is_read_by_the_next_run(
    trips: Trips, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips.put(2, 3)
    list_objects = Bucket.list

    def write_meanwhile(bucket: Bucket, prefix: str) -> Iterator[ObjectMeta]:
        for number, listed in enumerate(list_objects(bucket, prefix)):
            if number == 0:
                trips.put(1)
            yield listed

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "list", write_meanwhile)
        first = trips.ingest()
    second = trips.ingest()

    assert (first.new, second.new, second.read) == (("2026-01-02", "2026-01-03"), ("2026-01-01",), 1)


def test_an_upload_in_parts_is_read_once_it_is_complete(moto_trips: Trips, moto_s3: S3) -> None:
    moto_trips.put(1)
    where = {"Bucket": moto_trips.bucket.name, "Key": object_key(2)}
    upload = moto_s3.client.create_multipart_upload(**where)["UploadId"]
    part = moto_s3.client.upload_part(**where, UploadId=upload, PartNumber=1, Body=object_content(2))

    assert moto_trips.ingest().new == ("2026-01-01",)

    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    moto_s3.client.complete_multipart_upload(**where, UploadId=upload, MultipartUpload=parts)
    assert moto_trips.ingest().new == ("2026-01-02",)
    assert moto_trips.table_store.paths(TABLE)["2026-01-02"].read_bytes() == object_content(2)


def test_keys_that_differ_in_case_alone_are_two_partitions_and_a_key_below_another_is_reported(
    moto_trips: Trips,
) -> None:
    for key in ("days/east.csv", "days/East.csv", "days/east.csv/more.csv", "days/ost\N{COMBINING DIAERESIS}.csv"):
        moto_trips.bucket.write(key, key.encode())

    done = moto_trips.ingest(BY_NAME)

    read = {name: path.read_bytes() for name, path in moto_trips.table_store.paths(TABLE).items()}
    assert read == {"east": b"days/east.csv", "East": b"days/East.csv"}
    assert sorted(done.unmatched) == ["days/east.csv/more.csv", "days/ost\N{COMBINING DIAERESIS}.csv"]


def test_credentials_that_expire_in_a_run_fail_at_once_and_the_next_run_reads_the_rest(trips: Trips) -> None:
    trips.put(1, 2, 3)
    body = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    trips.relay.reply_instead(f"GET /{trips.bucket.name}/days/".encode(), answer, after=1)

    with pytest.raises(HeadraceError, match=r"refused with ExpiredToken.*Check AWS_ACCESS_KEY_ID"):
        ingest(create_dataset(), trips.table_store, Settings(threads=1))

    assert trips.reads <= 3, "no request is repeated"
    assert not trips.manifest.partitions
    trips.relay.come_up()
    assert (trips.ingest().read, len(trips.manifest.partitions)) == (2, 3)


def test_a_migration_waits_for_the_read_that_goes_on_and_the_next_run_reads_everything_as_it_is_now(
    postgresql_weather: Weather,
) -> None:
    columns = {"origin", "at", "temp", "updated_at"}

    def migrate() -> None:
        postgresql_weather.run("ALTER TABLE weather ADD COLUMN note TEXT DEFAULT 'new'")

    migration = threading.Thread(target=migrate)

    def begin(_name: str, done: int, _total: int) -> None:
        if done == 1:
            migration.start()

    first = postgresql_weather.ingest(progress=begin)
    seen = [set(postgresql_weather.rows(day).columns) for day in postgresql_weather.hashes]
    migration.join(10)
    second = postgresql_weather.ingest()

    assert (first.read, seen) == (3, [columns] * 3)
    assert (second.read, set(postgresql_weather.rows().columns)) == (3, columns | {"note"})


def test_a_replica_that_is_behind_gives_an_older_state_and_the_newer_one_again_once_it_has_caught_up(
    sqlite_weather: Weather, tmp_path: Path
) -> None:
    primary, behind = tmp_path / "source.db", tmp_path / "behind.db"
    sqlite_weather.ingest()
    older = sqlite_weather.hashes
    shutil.copy(primary, behind)
    # Written by a machine whose clock is a month behind.
    sqlite_weather.run(INSERT + "('LGA', '2013-01-02 05:00:00+00:00', 1, '2012-12-05 00:00:00+00:00')")
    sqlite_weather.run(INSERT + f"('LGA', '2013-01-04 05:00:00+00:00', 1, '{OLD}')")
    newer_result = sqlite_weather.ingest()
    newer = sqlite_weather.hashes
    caught_up = primary.read_bytes()

    primary.write_bytes(behind.read_bytes())
    sqlite_weather.ingest()
    from_replica = sqlite_weather.hashes
    primary.write_bytes(caught_up)
    sqlite_weather.ingest()

    assert (newer_result.new, newer_result.changed) == (("2013-01-04",), ("2013-01-02",))
    assert (from_replica, sqlite_weather.hashes) == (older, newer)
