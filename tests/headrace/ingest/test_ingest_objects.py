"""Ingest of objects: bytes are stored unchanged; a run reads new and changed objects and nothing else."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from servers import S3
from trips import DAYS, TABLE, Trips, create_dataset, object_content, object_key, set_environment

from headrace.dataset import ObjectSource
from headrace.ingest.ingest import ingest
from headrace.settings import Settings
from headrace.storage.dvc.lock import pointer_file, recorded_outs
from headrace.storage.dvc.push import push_objects
from headrace.storage.partition_entry import SourceObject
from headrace.storage.table_store import TableStore


def test_objects_become_partitions_with_the_same_bytes(trips: Trips) -> None:
    trips.put(1, 2)

    done = trips.ingest()

    assert (done.new, done.changed, done.deleted, done.unmatched) == (("2026-01-01", "2026-01-02"), (), (), ())
    assert done.listed == done.read == 2
    assert done.size == len(object_content(1)) + len(object_content(2))
    assert trips.table_store.paths(TABLE)["2026-01-02"].read_bytes() == object_content(2)
    assert (trips.table_store.folder(TABLE) / "2026-01-01.csv.gz").read_bytes() == object_content(1)


def test_each_partition_records_the_version_of_its_object(trips: Trips) -> None:
    trips.put(1)

    trips.ingest()

    listed = trips.bucket.head(object_key(1))
    assert listed is not None
    entry = trips.manifest.partitions["2026-01-01"]
    sha256 = hashlib.sha256(object_content(1)).hexdigest()
    assert entry.objects == (SourceObject(trips.bucket.name, object_key(1), listed.etag, sha256),)
    assert entry.sha256 == sha256


def test_the_version_id_is_recorded_if_the_bucket_has_versions(
    moto_s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = moto_s3.new_bucket(versioned=True)
    set_environment(monkeypatch, bucket, moto_s3.port)
    written = bucket.write(object_key(1), object_content(1))

    ingest(create_dataset(), TableStore.at(tmp_path), Settings())

    entry = TableStore.at(tmp_path).manifest(TABLE).partitions["2026-01-01"]
    assert written.version
    assert [item.version for item in entry.objects] == [written.version]


def test_a_second_run_reads_no_object_and_leaves_the_same_manifest(trips: Trips) -> None:
    trips.put(1, 2)
    trips.ingest()
    before, reads = trips.manifest.to_files().head, trips.reads

    done = trips.ingest()

    assert (done.new, done.changed, done.deleted, done.read, done.size) == ((), (), (), 0, 0)
    assert trips.reads == reads == 2
    assert trips.manifest.to_files().head == before


def test_only_new_changed_and_deleted_objects_cause_work(trips: Trips) -> None:
    trips.put(1, 2, 3)
    trips.ingest()
    reads = trips.reads
    trips.put(2, text=b"corrected")
    trips.put(4)
    trips.bucket.delete(object_key(3))

    done = trips.ingest()

    assert (done.new, done.changed, done.deleted) == (("2026-01-04",), ("2026-01-02",), ("2026-01-03",))
    assert trips.reads - reads == 2
    assert sorted(trips.manifest.partitions) == ["2026-01-01", "2026-01-02", "2026-01-04"]
    assert not (trips.table_store.folder(TABLE) / "2026-01-03.csv.gz").exists()


def test_a_correction_with_the_same_size_is_read(trips: Trips) -> None:
    trips.put(1, text=b"id,day\n1,1\n")
    trips.ingest()
    trips.put(1, text=b"id,day\n1,2\n")

    assert trips.ingest().changed == ("2026-01-01",)


def test_the_same_objects_give_the_same_manifest_in_another_workspace(trips: Trips, tmp_path: Path) -> None:
    trips.put(1, 2, 3)
    trips.ingest()
    other = TableStore.at(tmp_path / "other")

    ingest(create_dataset(), other, Settings())

    assert other.manifest(TABLE).to_files().head == trips.manifest.to_files().head


def test_a_checkout_without_data_appends_and_reads_no_object_that_is_recorded(trips: Trips) -> None:
    trips.put(1, 2)
    trips.ingest()
    record_and_lose(trips)
    trips.put(3)
    reads = trips.reads

    done = trips.ingest()

    assert (done.new, done.changed, done.deleted) == (("2026-01-03",), (), ())
    assert trips.reads - reads == 1
    assert [path.read_bytes() for path in trips.table_store.paths(TABLE).values()] == [
        object_content(day) for day in (1, 2, 3)
    ]


def test_a_full_refresh_reads_everything_again(trips: Trips) -> None:
    trips.put(1, 2)
    trips.ingest()

    done = trips.ingest(full_refresh=True)

    assert (done.read, done.changed) == (2, ())
    assert trips.reads == 4


def test_one_partition_can_be_selected_and_the_others_stay_as_they_are(trips: Trips) -> None:
    trips.put(1, 2)
    trips.ingest()
    trips.put(1, 2, text=b"corrected")

    done = trips.ingest(partition="2026-01-02")

    assert done.changed == ("2026-01-02",)
    assert trips.table_store.paths(TABLE)["2026-01-01"].read_bytes() == object_content(1)


def test_keys_that_match_no_partition_are_reported_and_never_read(trips: Trips) -> None:
    odd = ["days/README", "days/2026-01-02.csv", "days/a b+ü\n?%2e&.csv.gz"]
    for name in odd:
        trips.bucket.write(name, b"x")
    trips.put(1)

    done = trips.ingest()

    assert sorted(done.unmatched) == sorted(odd)
    assert "3 keys match no partition and were not read, e.g. 'days/" in str(done)
    assert list(trips.manifest.partitions) == ["2026-01-01"]
    assert trips.reads == 1


def test_a_key_with_unusual_characters_is_read_if_the_pattern_matches(trips: Trips) -> None:
    name = "days/a b+ü\n?%2e&/2026-01-01.csv.gz"
    trips.bucket.write(name, b"odd")
    loose = replace(DAYS, partition=r"(?s)days/.*/(?P<partition>[\d-]+)\.csv\.gz")

    trips.ingest(loose)

    assert [item.key for item in trips.manifest.partitions["2026-01-01"].objects] == [name]
    assert trips.table_store.paths(TABLE)["2026-01-01"].read_bytes() == b"odd"


@pytest.mark.parametrize("name", ["..", "a..b", "a/b", ".hidden", "x\ny", ""])
def test_a_key_that_would_leave_the_table_s_folder_matches_no_partition(trips: Trips, name: str) -> None:
    trips.put(1)
    trips.bucket.write(f"days/_{name}_", b"x")
    loose = replace(DAYS, partition=r"(?s)days/_?(?P<partition>.*?)(_|\.csv\.gz)")

    done = trips.ingest(loose)

    assert done.new == ("2026-01-01",)
    assert done.unmatched == (f"days/_{name}_",)


def test_keys_that_match_one_partition_are_its_objects(trips: Trips) -> None:
    keys = [f"days/{folder}/2026-01-01.csv.gz" for folder in "ab"]
    loose = replace(DAYS, partition=r"days/./(?P<partition>[\d-]+)\.csv\.gz")
    trips.bucket.write(keys[0], b"x")
    trips.ingest(loose)
    trips.bucket.write(keys[1], b"y")

    done = trips.ingest(loose)

    assert (done.changed, done.listed, done.objects, done.read) == (("2026-01-01",), 1, 2, 1)
    assert trips.reads == 2
    assert sorted(item.key for entry in trips.manifest.partitions.values() for item in entry.objects) == keys


def test_a_source_of_one_object_becomes_the_partition_all(trips: Trips) -> None:
    trips.bucket.write("days/airports.csv", b"id\n1\n")

    done = trips.ingest(ObjectSource("days/", r"days/airports\.csv", ".csv"))

    assert done.new == ("all",)
    assert (trips.table_store.folder(TABLE) / "all.csv").read_bytes() == b"id\n1\n"


def test_an_empty_object_is_stored_unchanged(trips: Trips) -> None:
    trips.put(1, text=b"")

    trips.ingest()

    entry = trips.manifest.partitions["2026-01-01"]
    assert entry.size == 0
    assert entry.sha256 == hashlib.sha256(b"").hexdigest()
    assert trips.table_store.paths(TABLE)["2026-01-01"].read_bytes() == b""


def test_progress_is_reported_for_every_partition(trips: Trips) -> None:
    trips.put(1, 2)
    calls: list[tuple[str, int, int]] = []

    trips.ingest(progress=lambda source, done, total: calls.append((source, done, total)))

    assert calls == [("days", 0, 2), ("days", 1, 2), ("days", 2, 2)]


def record_and_lose(trips: Trips) -> None:
    """Push the table to the DVC remote, and delete what git does not keep."""
    root, bucket = trips.table_store.root, trips.bucket
    keys = f"access_key_id = {bucket.access_key}\nsecret_access_key = {bucket.secret_key}"
    remote = f"['remote \"storage\"']\nurl = s3://{bucket.name}/dvc\nendpointurl = {bucket.endpoint}\n{keys}\n"
    (root / ".dvc/config").write_text(f"[core]\nremote = storage\n{remote}")
    path, content = pointer_file(trips.table_store.dvc_out(trips.manifest, {}))
    (root / path).write_bytes(content)
    push_objects(trips.table_store.cache, recorded_outs(root).values(), (), {})
    for folder in (".dvc/cache", ".headrace", f"data/{TABLE}"):
        shutil.rmtree(root / folder)


def test_objects_that_wait_to_be_read_are_not_read_once_the_run_is_stopped(
    trips: Trips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.ingest.ingest.DEFAULT_THREADS", 1)
    trips.put(*range(1, 29))

    def stop(_source: str, done: int, _total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trips.ingest(progress=stop)

    assert trips.reads < 28
