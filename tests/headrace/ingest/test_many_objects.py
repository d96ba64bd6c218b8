"""Several objects per partition: each is kept with its own hash, and only what changed is read.

The objects of a partition are entries of the raw table. One that is alone has the name of the partition; of several,
each has the hash of its key in its name.
"""

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
from many_objects import FIRST, FOLDERS, MARKED, SECOND, ManyObjects
from minimal_dataset import RAW, VALIDATED, run_all_stages

from headrace.engine.run import plan_all
from headrace.guards.gate import FindingsError
from headrace.ingest.ingest import UnknownSourceError, ingest
from headrace.ingest.preview import preview_sources
from headrace.project import graph
from headrace.settings import Settings
from headrace.storage import partition_names
from headrace.storage.local_folder import LocalFolder
from headrace.storage.s3.bucket import Download
from headrace.storage.s3.objects import ObjectMeta


@pytest.fixture
def many(tmp_path: Path) -> ManyObjects:
    return ManyObjects(tmp_path)


@pytest.fixture
def read_keys(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the objects that are read, in order."""
    keys: list[str] = []
    download = LocalFolder.download

    def note_key(self: LocalFolder, listed: ObjectMeta, path: Path) -> Download:
        keys.append(listed.key)
        return download(self, listed, path)

    monkeypatch.setattr(LocalFolder, "download", note_key)
    return keys


def entry_name(key: str) -> str:
    return f"{FIRST}+{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def test_every_object_of_a_partition_is_kept_with_its_own_hash(many: ManyObjects) -> None:
    many.put_days([FIRST], "ab")

    done = many.ingest()

    assert (done.new, done.listed, done.objects, done.read) == ((FIRST,), 1, 2, 2)
    assert str(done).startswith(f"{RAW}: 1 listed (2 objects), 1 new; read 2, ")
    for name in "ab":
        key = f"sales/{FIRST}/{name}.csv"
        entry, content = many.manifest.partitions[entry_name(key)], (many.root / "bucket" / key).read_bytes()
        assert [item.key for item in entry.objects] == [key]
        assert entry.sha256 == hashlib.sha256(content).hexdigest()
        assert (many.table_store.folder(RAW) / f"{entry_name(key)}.csv").read_bytes() == content


def test_an_object_that_is_alone_has_the_name_of_its_partition(many: ManyObjects) -> None:
    many.put_days([FIRST], "a")

    done = many.ingest()

    assert list(many.manifest.partitions) == [FIRST]
    assert str(done).startswith(f"{RAW}: 1 listed, 1 new; read 1, ")


@pytest.mark.parametrize("before", ["a", "ab", "abc"])
@pytest.mark.parametrize("after", ["a", "b", "ab", "bc", "abc"])
def test_only_new_objects_are_read_and_only_the_partition_that_has_them_changes(
    many: ManyObjects, read_keys: list[str], before: str, after: str
) -> None:
    many.put_days([FIRST], before)
    many.put_days([SECOND])
    many.ingest()
    read_keys.clear()
    for name in {*before} - {*after}:
        many.delete(f"{FIRST}/{name}.csv")
    many.put_days([FIRST], "".join({*after} - {*before}))

    done = many.ingest()

    assert sorted(read_keys) == sorted(f"sales/{FIRST}/{name}.csv" for name in {*after} - {*before})
    assert (done.new, done.deleted, done.changed) == ((), (), () if before == after else (FIRST,))
    assert many.keys[FIRST] == [f"sales/{FIRST}/{name}.csv" for name in after]


def test_the_table_does_not_tell_in_which_order_the_objects_came(many: ManyObjects, tmp_path: Path) -> None:
    for name in "bca":
        many.put_days([FIRST, SECOND], name)
        many.ingest()
    other = ManyObjects(tmp_path / "other")
    other.put_days([FIRST, SECOND])
    other.ingest()

    def content(found: ManyObjects) -> dict[str, tuple[str, str]]:
        return {name: (entry.md5, entry.objects[0].key) for name, entry in found.manifest.partitions.items()}

    assert content(many) == content(other)


def test_a_replaced_object_is_read_and_makes_its_partition_stale(many: ManyObjects, read_keys: list[str]) -> None:
    many.put_days([FIRST, SECOND])
    many.ingest()
    run_all_stages(many.table_store, many.dataset)
    read_keys.clear()
    many.put(f"{FIRST}/b.csv", f"{FIRST}T12:00:00Z,b,7")

    done = many.ingest()

    assert read_keys == [f"sales/{FIRST}/b.csv"]
    assert done.changed == (FIRST,)
    plan = plan_all(graph.dataset_stages(many.dataset), many.table_store)[0]
    assert [(item.partition, item.reasons) for item in plan.stale] == [(FIRST, (f"input changed: {RAW}/{FIRST}",))]


def test_an_object_that_is_added_or_removed_makes_exactly_its_partition_stale(many: ManyObjects) -> None:
    many.put_days([FIRST], "a")
    many.put_days([SECOND], "ab")
    many.ingest()
    run_all_stages(many.table_store, many.dataset)

    many.put_days([FIRST], "b")
    many.ingest()
    assert run_all_stages(many.table_store, many.dataset)[VALIDATED].computed.keys() == {FIRST}
    many.delete(f"{SECOND}/a.csv")
    many.ingest()
    assert run_all_stages(many.table_store, many.dataset)[VALIDATED].computed.keys() == {SECOND}


def test_what_was_before_is_found_again_by_its_hash(many: ManyObjects) -> None:
    many.put_days([FIRST], "a")
    many.ingest()
    before = many.manifest.to_files().head
    many.put_days([FIRST], "b")
    many.ingest()
    many.delete(f"{FIRST}/b.csv")

    assert many.ingest().read == 0

    assert many.manifest.to_files().head == before


def test_two_keys_whose_hashes_begin_alike_have_longer_names(
    many: ManyObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition_names, "KEY_HASH", 1)
    many.put_days([FIRST], "abcdefghijklmnopqrst")

    many.ingest()

    lengths = {len(name.partition("+")[2]) for name in many.manifest.partitions}
    assert lengths == {1, partition_names.LONG_KEY_HASH}
    assert len(many.keys[FIRST]) == 20


def test_a_partition_covers_all_its_objects(many: ManyObjects) -> None:
    many.put_days([FIRST, SECOND])

    done = many.ingest(partition=SECOND)

    assert (done.new, done.listed, done.read) == ((SECOND,), 1, 3)
    with pytest.raises(UnknownSourceError, match=r"no source lists the partition 2026-01-01[+]"):
        many.ingest(partition=entry_name(f"sales/{FIRST}/a.csv"))
    assert many.ingest(partition=SECOND, full_refresh=True).read == 3


def test_an_object_that_cannot_be_read_is_named_and_the_others_are_not_read_again(
    many: ManyObjects, read_keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    many.put_days([FIRST])
    with monkeypatch.context() as patch:
        download = LocalFolder.download

        def fail_for_b(self: LocalFolder, listed: ObjectMeta, path: Path) -> Download:
            if listed.key.endswith("b.csv"):
                raise PermissionError(13, "Permission denied", listed.key)
            return download(self, listed, path)

        patch.setattr(LocalFolder, "download", fail_for_b)
        with pytest.raises(Exception, match=re.escape(f"sales/{FIRST}/b.csv")):
            many.ingest()
    assert not many.manifest.partitions
    read_keys.clear()

    assert many.ingest().read == 1

    assert read_keys == [f"sales/{FIRST}/b.csv"]


def test_a_name_too_long_for_several_objects_is_reported(many: ManyObjects) -> None:
    long = "x" * 190
    location = replace(FOLDERS, partition=r"sales/(?P<partition>[^/]+)/.+\.csv")
    many.source = replace(many.source, location=location)
    many.put_days([long, FIRST], "ab")

    (done,) = ingest(replace(many.dataset, features=()), many.table_store, Settings(workspace=many.root))

    assert done.new == (FIRST,)
    assert "190 characters, more than the 167 allowed" in str(done)


# Markers


@pytest.fixture
def marked(many: ManyObjects) -> ManyObjects:
    many.source = replace(many.source, location=MARKED)
    return many


def test_a_partition_without_its_marker_waits(marked: ManyObjects, read_keys: list[str]) -> None:
    marked.put_days([FIRST, SECOND], "ab")
    marked.put(f"{FIRST}/_SUCCESS")

    done = marked.ingest()

    assert (done.new, done.waiting, done.listed, done.unmatched) == ((FIRST,), (SECOND,), 2, ())
    assert f"1 partition waits for the marker of a folder and was not read, e.g. {SECOND}" in str(done)
    assert not any(SECOND in key for key in read_keys)


def test_what_the_table_has_of_a_partition_stays_while_it_waits(marked: ManyObjects) -> None:
    marked.put_days([FIRST, SECOND], "ab")
    for day in (FIRST, SECOND):
        marked.put(f"{day}/_SUCCESS")
    marked.ingest()
    before = marked.manifest.md5s
    marked.delete(f"{FIRST}/_SUCCESS")
    marked.delete(f"{FIRST}/a.csv")
    marked.put_days([FIRST], "c")

    waiting = marked.ingest()
    kept = marked.manifest.md5s
    marked.put(f"{FIRST}/_SUCCESS")
    done = marked.ingest()

    assert (waiting.changed, waiting.deleted, waiting.waiting, kept) == ((), (), (FIRST,), before)
    assert (done.changed, done.waiting, done.read) == ((FIRST,), (), 1)
    assert marked.keys[FIRST] == [f"sales/{FIRST}/b.csv", f"sales/{FIRST}/c.csv"]


def test_each_folder_of_a_partition_needs_a_marker(marked: ManyObjects) -> None:
    for hour in ("00", "01"):
        marked.put(f"{FIRST}/{hour}/a.csv", f"{FIRST}T{hour}:00:00Z,a,1")
    marked.put(f"{FIRST}/00/_SUCCESS")

    assert marked.ingest().waiting == (FIRST,)
    marked.put(f"{FIRST}/01/_SUCCESS")
    assert marked.ingest().new == (FIRST,)


def test_a_source_whose_partitions_all_wait_is_not_an_empty_one(marked: ManyObjects) -> None:
    marked.put_days([FIRST])
    marked.put(f"{FIRST}/_SUCCESS")
    marked.ingest()
    marked.delete(f"{FIRST}/_SUCCESS")

    done = marked.ingest()

    assert (done.waiting, done.deleted) == ((FIRST,), ())


# Guards, plan


def test_the_guard_counts_partitions_and_not_objects(many: ManyObjects) -> None:
    days = [f"2026-01-{day:02}" for day in range(1, 7)]
    many.put_days(days)
    many.ingest()
    for name in "bc":
        for day in days:
            many.delete(f"{day}/{name}.csv")
    assert many.ingest().changed == tuple(days)
    many.put_days(days, "b")
    many.ingest()
    for day in days[:4]:
        for name in "ab":
            many.delete(f"{day}/{name}.csv")

    with pytest.raises(FindingsError, match="4 of 6 partitions would vanish"):
        many.ingest()


def test_a_partition_of_the_future_is_one_finding(many: ManyObjects) -> None:
    many.put_days(["2999-01-01"])

    with pytest.raises(FindingsError) as caught:
        many.ingest()

    assert [finding.partition for finding in caught.value.findings] == ["2999-01-01"]


def test_a_preview_counts_partitions_as_the_ingest_does(many: ManyObjects) -> None:
    many.put_days([FIRST, SECOND], "ab")
    many.ingest()
    many.put_days([FIRST, "2026-01-03"], "c")
    many.delete(f"{SECOND}/a.csv")

    (found,) = preview_sources(many.dataset, many.table_store, Settings(workspace=many.root))
    done = many.ingest()

    assert (found.new, found.changed, found.deleted) == (done.new, done.changed, done.deleted)
    assert (found.listed, found.size) == (done.listed, done.size)
    assert found.cost
    assert found.cost.objects == 5
    assert found.manifest
    assert found.manifest.md5s.keys() == many.manifest.md5s.keys()
