"""Two contents with one md5, by which DVC names objects: one never passes for the other where bytes are hashed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from md5_collision import FIRST, MD5, SECOND
from minimal_dataset import RAW, run_all_stages
from msgspec import structs
from servers import S3

from headrace.errors import MissingObjectError
from headrace.retrieve.hash_cache import HashCache
from headrace.storage.digests import Digests
from headrace.storage.dvc.cache import Cache, HashCollisionError
from headrace.storage.dvc.remote import Remote
from headrace.storage.manifest import Manifest
from headrace.storage.manifest_entries import DamagedManifestError, check_chunk
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.table_store import TableStore

SHA256 = Digests.of_bytes(FIRST).sha256


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", tmp_path)


@pytest.fixture
def remote(s3: S3) -> Remote:
    """A remote that has the second content under the name of both."""
    remote = Remote(s3.new_bucket(), "dvc")
    remote.bucket.write(remote.key(MD5), SECOND)
    return remote


def test_the_two_contents_differ_in_sha256_alone() -> None:
    first, second = Digests.of_bytes(FIRST), Digests.of_bytes(SECOND)

    assert (FIRST != SECOND, len(FIRST)) == (True, len(SECOND))
    assert (second.mismatch(first.md5), second.mismatch(first.md5, first.sha256)) == ("", f"sha256 {second.sha256}")
    assert first.mismatch(f"{first.md5}.dir", first.sha256) == ""
    assert first.mismatch("0" * 32, first.sha256) == f"md5 {first.md5}"


def test_the_cache_refuses_a_second_content_under_the_name_of_the_first(cache: Cache) -> None:
    cache.add_bytes(FIRST)

    with pytest.raises(HashCollisionError, match=rf"{MD5[2:]}: expected the bytes with sha256 .* the same md5.*forged"):
        cache.add_bytes(SECOND)
    with pytest.raises(HashCollisionError):
        cache.add(lambda path: path.write_bytes(SECOND))

    assert cache.path(MD5).read_bytes() == FIRST
    assert cache.add_bytes(FIRST).md5 == MD5


ADD: list[Callable[[Cache], object]] = [
    lambda cache: cache.add_bytes(FIRST),
    lambda cache: cache.add(lambda path: path.write_bytes(FIRST)),
]


@pytest.mark.parametrize("add", ADD, ids=["bytes", "file"])
def test_a_damaged_object_is_replaced_when_the_right_bytes_are_added(
    cache: Cache, add: Callable[[Cache], object]
) -> None:
    path = cache.path(cache.add_bytes(FIRST).md5)
    path.chmod(0o644)
    path.write_bytes(b"x" * len(FIRST))

    add(cache)

    assert path.read_bytes() == FIRST


def test_what_is_fetched_is_compared_with_the_sha256_of_its_manifest(tmp_path: Path, remote: Remote) -> None:
    cache = Cache(tmp_path / "cache", tmp_path, remote_override=remote)

    with pytest.raises(MissingObjectError, match=rf"corrupt: expected md5 {MD5} and sha256 {SHA256}, found sha256"):
        cache.fetch(MD5, SHA256)

    assert not cache.has(MD5)


def test_a_stage_computes_nothing_from_a_raw_object_that_was_exchanged(tmp_path: Path, remote: Remote) -> None:
    table_store = TableStore(tmp_path, Cache(tmp_path / "cache", tmp_path, remote_override=remote))
    stored = table_store.cache.add_bytes(FIRST)
    entry = PartitionEntry("key", stored.md5, stored.size, sha256=stored.sha256)
    table_store.checkout(Manifest(RAW, ".csv", partitions={"2026-01-01": entry}))
    table_store.cache.path(MD5).unlink()

    with pytest.raises(MissingObjectError, match=f"and sha256 {SHA256}, found sha256"):
        run_all_stages(table_store)


def test_a_file_that_is_read_for_training_is_compared_with_both_hashes(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(SECOND)
    hashes = HashCache(tmp_path / "verified", {})

    assert not hashes.matches(file, MD5, SHA256)
    assert hashes.matches(file, MD5, Digests.of_bytes(SECOND).sha256)
    assert hashes.matches(file, MD5), "manifests up to 0.2 have no sha256"


def test_a_chunk_of_a_manifest_is_compared_with_its_sha256() -> None:
    (chunk,) = Manifest(RAW, partitions={"2026-01-01": PartitionEntry("key", MD5, len(FIRST))}).to_files().chunks
    exchanged = structs.replace(chunk.reference, md5=MD5, sha256=SHA256)

    assert check_chunk(chunk.reference, chunk.content, "chunk") == chunk.content
    assert check_chunk(exchanged, FIRST, "chunk") == FIRST
    with pytest.raises(DamagedManifestError, match=f"chunk is damaged: expected .* with sha256 {SHA256}, found"):
        check_chunk(exchanged, SECOND, "chunk")
