"""`.dvc` files: read whole, also while git replaces them."""

import threading
from pathlib import Path

import pytest

from headrace.storage.dvc.lock import pointer_file, recorded_outs
from headrace.storage.files import DamagedFileError


@pytest.mark.parametrize("is_removed_first", [True, False])
def test_a_pointer_that_git_replaces_meanwhile_is_there_whole_or_not_at_all(
    is_removed_first: bool, tmp_path: Path
) -> None:
    out = {"path": "data/raw/flights/planes", "md5": f"{32 * chr(48)}.dir", "size": 2, "nfiles": 0, "hash": "md5"}
    name, content = pointer_file(out)
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    stop = threading.Event()

    def replace_as_git_does() -> None:
        while not stop.is_set():
            if is_removed_first:
                path.unlink()
            with path.open("wb") as file:
                stop.wait(0.001)
                file.write(content)
            stop.wait(0.004)

    git = threading.Thread(target=replace_as_git_does)
    git.start()
    try:
        seen = [recorded_outs(tmp_path) for _ in range(200)]
    finally:
        stop.set()
        git.join()

    whole = {out["path"]: out}
    assert whole in seen
    assert all(each == whole or (is_removed_first and not each) for each in seen)


def test_a_pointer_that_stays_empty_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "data/raw/flights/planes.dvc"
    path.parent.mkdir(parents=True)
    path.touch()

    with pytest.raises(DamagedFileError, match=r"planes\.dvc.*names no output"):
        recorded_outs(tmp_path)
