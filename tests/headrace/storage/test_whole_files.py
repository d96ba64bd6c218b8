"""Whole or absent: bytes are on the disk before anything has their name, and each reader has a file of its own."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.storage.dvc.cache import Cache
from headrace.storage.files import atomic_write, new_folder, write_texts


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


@pytest.fixture
def _no_umask() -> Iterator[None]:
    """A process that takes no permission from the files that it creates."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_no_umask")
@pytest.mark.parametrize("there", [None, 0o644], ids=["new", "replaced"])
def test_no_byte_of_a_private_file_is_ever_in_a_file_that_others_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: int | None
) -> None:
    path, opened = tmp_path / ".env", list[int]()
    if there is not None:
        path.write_bytes(b"")
        path.chmod(there)
    os_open = os.open

    def open_and_look(path: str, flags: int, mode: int = 0o777) -> int:
        descriptor = os_open(path, flags, mode)
        opened.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    monkeypatch.setattr(os, "open", open_and_look)
    atomic_write(path, b"password", is_private=True)

    assert opened == [0o600], "from the moment it is created"
    assert path.read_bytes() == b"password"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.usefixtures("_no_umask")
def test_any_other_file_has_the_permissions_of_an_ordinary_one(tmp_path: Path) -> None:
    atomic_write(tmp_path / "dvc.lock", b"{}")

    assert stat.S_IMODE((tmp_path / "dvc.lock").stat().st_mode) == 0o666


def test_a_new_folder_is_there_completely_or_not_at_all(tmp_path: Path) -> None:
    with new_folder(tmp_path / "shop") as draft:
        write_texts(draft, {"a.txt": "a", "b/c.txt": "c"})
        assert not (tmp_path / "shop").exists()
    with pytest.raises(IsADirectoryError), new_folder(tmp_path / "other") as draft:
        write_texts(draft, {"a.txt": "a", ".": ""})

    assert [path.name for path in tmp_path.iterdir()] == ["shop"]
    assert (tmp_path / "shop/b/c.txt").read_text() == "c"


def test_what_killed_writers_left_is_removed_and_what_running_ones_write_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    kill, of_another_user = os.kill, 1

    def refuse(process: int, number: int) -> None:
        if process == of_another_user:
            raise PermissionError
        kill(process, number)

    monkeypatch.setattr(os, "kill", refuse)
    for process in (dead.pid, os.getppid(), of_another_user):
        (tmp_path / f".shop.{process}.new").mkdir()
        (tmp_path / f".dvc.lock.{process}.tmp").touch()

    with new_folder(tmp_path / "shop") as draft:
        draft.mkdir()
    atomic_write(tmp_path / "dvc.lock", b"{}")

    running = [
        f".{name}"
        for process in (os.getppid(), of_another_user)
        for name in (f"shop.{process}.new", f"dvc.lock.{process}.tmp")
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*running, "shop", "dvc.lock"])


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
