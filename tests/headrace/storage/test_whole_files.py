"""Whole or absent: bytes are on the disk before anything has their name, and each reader has a file of its own."""

import os
from pathlib import Path

import pytest

from headrace.storage.dvc.cache import Cache
from headrace.storage.files import atomic_write


@pytest.fixture
def too_early(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names given to bytes that the disk did not have for certain."""
    synced, early = set[int](), list[str]()
    fsync, replace = os.fsync, Path.replace

    def sync(descriptor: int) -> None:
        fsync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    def rename(path: Path, target: Path) -> Path:
        if path.stat().st_ino not in synced:
            early.append(target.name)
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", rename)
    return early


def test_an_object_of_the_cache_has_its_name_when_the_disk_has_its_bytes(tmp_path: Path, too_early: list[str]) -> None:
    cache = Cache(tmp_path, tmp_path)

    kept = [cache.add_bytes(b"held"), cache.add(lambda path: path.write_bytes(b"written"))]

    assert [cache.path(item.md5).read_bytes() for item in kept] == [b"held", b"written"]
    assert too_early == []


def test_a_manifest_and_a_lock_have_their_names_when_the_disk_has_their_bytes(
    tmp_path: Path, too_early: list[str]
) -> None:
    atomic_write(tmp_path / "head.json", b"{}")

    assert (tmp_path / "head.json").read_bytes() == b"{}"
    assert too_early == []


@pytest.mark.parametrize("is_known", [True, False], ids=["in the kernel", "byte by byte"])
def test_who_changes_the_file_that_a_workspace_shows_changes_no_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_known: bool
) -> None:
    if not is_known:
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    cache, shown = Cache(tmp_path / "cache", tmp_path), tmp_path / "shown"
    kept = cache.add_bytes(b"bytes" * 100_000)

    cache.copy_to(kept.md5, shown)

    assert shown.read_bytes() == b"bytes" * 100_000
    shown.write_bytes(b"edited")
    assert cache.path(kept.md5).read_bytes() == b"bytes" * 100_000
