"""`gc` and `doctor` read what a new release brought, and nothing of the releases that they have read before."""

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from release_clones import Clone, Origin, dataset
from servers import S3

from headrace.maintenance.doctor import check_integrity
from headrace.maintenance.gc import collect_garbage
from headrace.maintenance.references import ReferencedObjects, tagged_revisions
from headrace.maintenance.stored_objects import parse_new_files, read_verified
from headrace.storage.dvc.cache import Cache
from headrace.storage.dvc.objects import directory_bytes

FLIGHTS = dataset("flights")
RECORDS = Path(".headrace/references")


@pytest.fixture
def place(tmp_path: Path, s3: S3) -> Clone:
    """A clone with three releases, each with one day more than the one before."""
    clone = Origin.begin(tmp_path, s3).first
    for days in (1, 2, 3):
        release(clone, days)
    return clone


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """md5 → how often a directory object or a file of a manifest was read to find references."""
    counted: Counter[str] = Counter()

    def count(cache: Cache, md5: str) -> bytes | None:
        counted[md5] += 1
        return read_verified(cache, md5)

    monkeypatch.setattr("headrace.maintenance.added_objects.read_verified", count)
    return counted


def release(clone: Clone, days: int) -> None:
    """Release a table of these days, at a time of its own: commits of one second have no order."""
    clone.run(FLIGHTS, {day: day for day in range(1, days + 1)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_COMMITTER_DATE", f"2026-02-{days:02}T06:00:00Z")
        clone.release(FLIGHTS)


def objects_of(clone: Clone, revision: str) -> set[str]:
    """Every object of a revision, by git, YAML and JSON alone."""
    lock = yaml.safe_load(clone.git("show", f"{revision}:dvc.lock"))
    outs = {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}
    for path in clone.git("ls-tree", "-r", "--name-only", revision, "data").split():
        (out,) = yaml.safe_load(clone.git("show", f"{revision}:{path}"))["outs"]
        outs[path] = out["md5"]
    cache = clone.root / ".dvc/cache/files/md5"
    lists = [json.loads((cache / md5[:2] / md5[2:]).read_text()) for md5 in outs.values()]
    return {*outs.values(), *(item["md5"] for items in lists for item in items)}


def collect(clone: Clone) -> ReferencedObjects:
    return ReferencedObjects.collect(clone.table_store, tagged_revisions(clone.table_store))


def all_objects(clone: Clone) -> set[str]:
    return {md5 for name in (*clone.git("tag").split(), "HEAD") for md5 in objects_of(clone, name)}


def test_a_second_gc_or_doctor_reads_no_directory_object_and_no_manifest(place: Clone, reads: Counter[str]) -> None:
    first = check_integrity(place.table_store)
    assert reads

    reads.clear()
    collect_garbage(place.table_store, min_age_hours=0, remote=True)
    second = check_integrity(place.table_store)

    assert reads == {}
    assert second.objects == first.objects == len(all_objects(place))


def test_after_a_release_only_what_it_brought_is_read(place: Clone, reads: Counter[str]) -> None:
    check_integrity(place.table_store)
    before = all_objects(place)
    release(place, 4)
    reads.clear()

    garbage = collect_garbage(place.table_store, min_age_hours=0, remote=True)

    assert garbage.referenced == len(all_objects(place))
    replaced = {md5 for md5 in objects_of(place, "flights/3") if md5.endswith(".dir")}
    assert {*reads} <= (objects_of(place, "flights/4") - before) | replaced
    assert max(reads.values()) == 1


def test_what_is_remembered_is_what_every_release_references_with_sizes_and_hashes(place: Clone) -> None:
    fresh = collect(place)
    remembered = collect(place)

    assert fresh.sizes.keys() == all_objects(place)
    for referenced in (fresh, remembered):
        assert referenced.released == all_objects(place)
        assert all((place.table_store.cache.path(md5).stat().st_size == size) for md5, size in referenced.sizes.items())
    assert (fresh.sizes, fresh.sha256s) == (remembered.sizes, remembered.sha256s)
    assert fresh.sha256s


@pytest.mark.parametrize("damage", [b"", b"torn", None], ids=["empty", "torn", "missing"])
def test_a_damaged_or_missing_record_is_read_again(place: Clone, reads: Counter[str], damage: bytes | None) -> None:
    before = collect(place)
    for path in (place.root / RECORDS).iterdir():
        content = path.read_bytes()
        path.unlink()
        if damage is not None:
            path.write_bytes(content[:50] + damage if damage else damage)
    reads.clear()

    after = collect(place)

    assert (after.sizes, after.sha256s, after.released) == (before.sizes, before.sha256s, before.released)
    assert reads
    reads.clear()
    collect(place)
    assert reads == {}


def test_a_release_that_is_gone_costs_one_comparison_of_its_neighbors(place: Clone, reads: Counter[str]) -> None:
    release(place, 4)
    collect(place)
    reads.clear()

    place.git("tag", "--delete", "flights/2")
    after = collect(place)

    assert after.sizes.keys() == all_objects(place)
    assert {*reads} <= objects_of(place, "flights/1") | objects_of(place, "flights/3")
    assert not {*reads} & {md5 for md5 in objects_of(place, "flights/4") if md5.endswith(".dir")}


def test_what_could_not_be_read_is_not_remembered(place: Clone) -> None:
    before, there = objects_of(place, "flights/1"), objects_of(place, "flights/2")
    lost = next(md5 for md5 in sorted(there - before) if md5.endswith(".dir"))
    cache, remote = place.table_store.cache, place.table_store.cache.remote
    content = cache.path(lost).read_bytes()
    cache.path(lost).unlink()
    remote.bucket.delete(remote.key(lost))
    assert collect(place).unreadable == {lost}

    cache.add_bytes(content, suffix=".dir")

    after = collect(place)
    assert after.unreadable == set()
    assert after.sizes.keys() == all_objects(place)


def test_new_files_of_a_list_are_found_as_text_whatever_their_names() -> None:
    before = {"a.csv": "0" * 32, "b.csv": "1" * 32, "gone.csv": "2" * 32}
    after = {"a.csv": "0" * 32, "b.csv": "3" * 32, "new.csv": "4" * 32}
    odd = {'x"}, {"y': "5" * 32, "ä}, {b": "6" * 32}

    assert parse_new_files(directory_bytes(after), directory_bytes(before)) == {"b.csv": "3" * 32, "new.csv": "4" * 32}
    assert parse_new_files(directory_bytes(after), b"[]") == after
    assert parse_new_files(directory_bytes(after), directory_bytes(after)) == {}
    assert parse_new_files(directory_bytes({}), directory_bytes(after)) == {}
    found = parse_new_files(directory_bytes(after | odd), directory_bytes(after))
    assert set(odd.values()) <= set(found.values()) <= {*odd.values(), *after.values()}
