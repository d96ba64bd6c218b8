"""Releases while the bucket is away, and after somebody rewrote the release branch: nothing is recorded or lost."""

from dataclasses import replace

import pytest
from release_clones import Origin, dataset
from servers import free_port

from headrace.maintenance.doctor import check_integrity
from headrace.maintenance.gc import collect_garbage
from headrace.release.branches import list_releases
from headrace.release.release import create_release
from headrace.storage.s3.errors import StorageUnreachableError
from headrace.storage.table_store import TableStore

FLIGHTS = dataset("flights")
TOTALS = "features/flights/totals"


def without_bucket(table_store: TableStore) -> TableStore:
    """The same table store, with a DVC remote at which nobody listens."""
    remote = table_store.cache.remote
    away = replace(remote.bucket, endpoint=f"http://127.0.0.1:{free_port()}", retry_timeout_s=0.2)
    return replace(table_store, cache=replace(table_store.cache, remote_override=replace(remote, bucket=away)))


def test_a_release_whose_bucket_is_away_records_nothing_and_the_next_one_has_everything(origin: Origin) -> None:
    place = origin.first
    place.release(FLIGHTS, 1)
    place.run(FLIGHTS, {1: 1, 2: 2})
    refs, tables = origin.git("for-each-ref"), place.tables(FLIGHTS)

    with pytest.raises(StorageUnreachableError, match="stack status"):
        create_release(FLIGHTS, without_bucket(place.table_store))

    assert origin.git("for-each-ref") == refs
    assert place.tables(FLIGHTS) == tables
    assert list_releases(place.table_store, "flights") == ["flights/1"]
    assert create_release(FLIGHTS, place.table_store).name == "flights/2"
    assert check_integrity(origin.clone("other").table_store, deep=True).ok


def test_a_release_that_a_forced_push_removed_from_the_branch_keeps_its_number_and_its_bytes(origin: Origin) -> None:
    place = origin.first
    place.release(FLIGHTS, 1)
    place.release(FLIGHTS, 2)
    was = place.table_store.recorded_manifest(TOTALS, "flights/2")
    origin.git("update-ref", "refs/heads/main", origin.git("rev-parse", "flights/1^{commit}"))

    other = origin.clone("other")
    before = list_releases(other.table_store, "flights")
    after = other.release(FLIGHTS, 3)

    assert (before, after.name) == (["flights/1"], "flights/3")
    collect_garbage(other.table_store, min_age_hours=0, remote=True, dry_run=False)
    assert was is not None
    assert other.table_store.recorded_manifest(TOTALS, "flights/2") == was
    for md5 in was.objects:
        assert other.table_store.cache.fetch(md5).exists()
