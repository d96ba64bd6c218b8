"""A folder in place of a bucket: keys are paths, an ETag is the md5 of the bytes, what was listed is what is read."""

import hashlib
from pathlib import Path

import pytest

from headrace.storage.local_folder import FolderError, LocalFolder
from headrace.storage.s3.errors import ObjectChangedError


@pytest.fixture
def folder(tmp_path: Path) -> LocalFolder:
    for key in ("orders/2026-01-02.csv", "orders/2026-01-01.csv", "orders/old/2025-01-01.csv", "orders.txt", "other/x"):
        file = tmp_path / "drop" / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(key)
    return LocalFolder.from_url("file:drop", tmp_path)


def test_keys_are_paths_below_the_folder_in_order(folder: LocalFolder) -> None:
    assert [found.key for found in folder.list("orders/")] == [
        "orders/2026-01-01.csv",
        "orders/2026-01-02.csv",
        "orders/old/2025-01-01.csv",
    ]


def test_a_prefix_need_not_end_at_a_folder(folder: LocalFolder) -> None:
    assert [found.key for found in folder.list("orders/2026")] == ["orders/2026-01-01.csv", "orders/2026-01-02.csv"]
    assert [found.key for found in folder.list("orders.txt")] == ["orders.txt"]
    assert list(folder.list("nothing/")) == []


def test_a_file_that_was_only_touched_is_the_same_object(folder: LocalFolder) -> None:
    before = list(folder.list("orders/"))
    (folder.path / "orders/2026-01-01.csv").touch()

    assert list(folder.list("orders/")) == before
    assert folder.head("orders/2026-01-01.csv") == before[0]
    assert before[0].etag == hashlib.md5(b"orders/2026-01-01.csv", usedforsecurity=False).hexdigest()


def test_a_download_gives_the_bytes_and_their_hashes(folder: LocalFolder, tmp_path: Path) -> None:
    listed = next(folder.list("orders/"))

    download = folder.download(listed, tmp_path / "copy")

    assert (tmp_path / "copy").read_text() == "orders/2026-01-01.csv"
    assert download.digests.md5 == listed.etag
    assert download.digests.sha256 == hashlib.sha256(b"orders/2026-01-01.csv").hexdigest()


def test_a_file_that_changed_since_it_was_listed_is_not_taken_for_the_listed_one(
    folder: LocalFolder, tmp_path: Path
) -> None:
    first, second, _ = folder.list("orders/")
    (folder.path / first.key).write_text("others")
    (folder.path / second.key).unlink()

    for listed in (first, second):
        with pytest.raises(ObjectChangedError, match="since it was listed"):
            folder.download(listed, tmp_path / "copy")
    assert folder.head(second.key) is None


def test_a_folder_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=f"file:nowhere: expected the folder {tmp_path}/nowhere"):
        LocalFolder.from_url("file:nowhere", tmp_path)
    with pytest.raises(FolderError, match="expected the folder /nowhere/at/all"):
        LocalFolder.from_url("file:///nowhere/at/all", tmp_path)
