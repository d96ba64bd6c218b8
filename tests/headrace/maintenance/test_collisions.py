"""Doctor: `--deep` finds a raw object that was exchanged for another with the same md5, and puts the right one back."""

from pathlib import Path

import pytest
from md5_collision import FIRST, MD5, SECOND
from servers import S3
from trips import TABLE, create_dataset, object_key, set_environment
from workspaces import git

from headrace.ingest.ingest import ingest
from headrace.maintenance.integrity import ObjectDamage, find_damage
from headrace.maintenance.references import ReferencedObjects
from headrace.maintenance.repair import QUARANTINE, repair_objects
from headrace.settings import Settings
from headrace.storage.digests import Digests
from headrace.storage.dvc.cache import Cache, HashCollisionError
from headrace.storage.dvc.remote import Remote
from headrace.storage.table_store import TableStore

RIGHT, FORGED = Digests.of_bytes(FIRST).sha256, Digests.of_bytes(SECOND).sha256


@pytest.fixture
def table_store(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TableStore:
    """A workspace with one raw object, the first content, which the remote has, too."""
    source, remote = s3.new_bucket(), Remote(s3.new_bucket(), "dvc")
    set_environment(monkeypatch, source, s3.port)
    git(tmp_path, "init", "--quiet")
    source.write(object_key(1), FIRST)
    table_store = TableStore(tmp_path, Cache(tmp_path / ".dvc/cache", tmp_path, remote_override=remote))
    ingest(create_dataset(), table_store, Settings())
    for path in table_store.cache.folder.glob("files/md5/*/*"):
        md5 = path.parent.name + path.name
        remote.write(md5, path)
    return table_store


def exchange_in_cache(table_store: TableStore) -> None:
    table_store.cache.path(MD5).chmod(0o644)
    table_store.cache.path(MD5).write_bytes(SECOND)


def find(table_store: TableStore, *, deep: bool = True) -> list[ObjectDamage]:
    return find_damage(table_store, ReferencedObjects.collect(table_store, {}), deep=deep)


def test_an_exchanged_raw_object_passes_a_listing_and_not_a_deep_check(table_store: TableStore) -> None:
    assert find(table_store) == []
    exchange_in_cache(table_store)
    table_store.cache.remote.bucket.write(table_store.cache.remote.key(MD5), SECOND)

    assert find(table_store, deep=False) == []
    [damage] = find(table_store)

    assert (damage.md5, damage.sha256) == (MD5, RIGHT)
    assert (damage.cache, damage.remote) == (f"sha256 {FORGED}", f"sha256 {FORGED}")
    assert damage.paths == (f"data/{TABLE}/2026-01-01.csv.gz",)


def test_an_object_that_was_exchanged_in_the_cache_is_fetched_from_the_remote(table_store: TableStore) -> None:
    exchange_in_cache(table_store)

    [repaired] = repair_objects(table_store, find(table_store))

    assert repaired.repaired == "cache: fetched from the remote"
    assert table_store.cache.path(MD5).read_bytes() == FIRST
    assert (table_store.root / QUARANTINE / MD5).read_bytes() == SECOND
    assert find(table_store) == []


def test_an_object_that_was_exchanged_on_both_sides_is_not_repaired_with_the_other_one(table_store: TableStore) -> None:
    exchange_in_cache(table_store)
    table_store.cache.remote.bucket.write(table_store.cache.remote.key(MD5), SECOND)
    (table_store.folder(TABLE) / "2026-01-01.csv.gz").write_bytes(SECOND)

    [result] = repair_objects(table_store, find(table_store))

    assert "if the source still has it, `headrace ingest trips --table days" in result.unrepaired
    assert not table_store.cache.path(MD5).exists()


def test_an_ingest_of_both_contents_is_refused_and_names_the_forgery(table_store: TableStore, s3: S3) -> None:
    other = s3.new_bucket()
    dataset = create_dataset()
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, other, s3.port)
        other.write(object_key(2), SECOND)
        with pytest.raises(HashCollisionError, match=rf"sha256 {FORGED}.*sha256 {RIGHT}.*Remove the forged one"):
            ingest(dataset, table_store, Settings())

    assert list(table_store.manifest(TABLE).partitions) == ["2026-01-01"]
