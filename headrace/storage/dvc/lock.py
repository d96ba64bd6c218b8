"""What a workspace or a git revision records: `dvc.lock`, and the `.dvc` pointers of tracked folders."""

import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from headrace.storage import git
from headrace.storage.files import atomic_write, damaged_file, dump_yaml, parse_mapping

GIT_WRITES = (0.01, 0.02, 0.05, 0.1, 0.3, 0.5, 1.0)
"""Seconds between looks at a file that git may be about to fill, while nothing about it changes."""


def recorded_outs(root: Path, revision: str | None = None) -> dict[str, dict[str, Any]]:
    """Path → output entry (`path`, `md5`, `size`, `nfiles`), of `dvc.lock` and of every `.dvc` file below `data/`.

    Args:
        root: The workspace.
        revision: A git revision; by default the files as they lie in the workspace.
    """
    return dict(_outs(root, _lock_bytes(root, revision), tuple(_pointers(root, revision))))


@lru_cache(maxsize=8)
def _outs(root: Path, lock: bytes, pointers: tuple[tuple[str, bytes], ...]) -> dict[str, dict[str, Any]]:
    """The entries in these files; the YAML is parsed once, however many tables a run asks for."""
    outs: dict[str, dict[str, Any]] = {}
    for out in lock_outs(lock, root / "dvc.lock"):
        outs[out["path"]] = out
    for name, text in pointers:
        folder = name.rsplit("/", 1)[0]
        for out in pointer_outs(text, root / name):
            path = f"{folder}/{out['path']}"
            outs[path] = {**out, "path": path}
    return outs


def lock_outs(text: bytes, path: Path) -> list[dict[str, Any]]:
    """The output entries of a `dvc.lock`; `path` is the file, for messages.

    Raises:
        DamagedFileError: It is not what DVC or Headrace wrote.
    """
    try:
        stages = parse_mapping(text, path).get("stages", {}).values()
        return _complete([out for stage in stages for out in stage.get("outs", ())], path)
    except (AttributeError, TypeError):
        raise damaged_file(path, "is not laid out as DVC writes it") from None


def pointer_outs(text: bytes, path: Path) -> list[dict[str, Any]]:
    """The output entries of a `.dvc` file.

    Raises:
        DamagedFileError: It is not what DVC or Headrace wrote.
    """
    try:
        outs = parse_mapping(text, path).get("outs") or []
        if not outs:
            raise damaged_file(path, "names no output: it was cut or emptied")
        return _complete(outs, path)
    except (AttributeError, TypeError):
        raise damaged_file(path, "is not laid out as DVC writes it") from None


def _complete(outs: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    for out in outs:
        if missing := {"path", "md5"} - out.keys():
            raise damaged_file(path, f"has an output without {' and '.join(sorted(missing))}: it was cut")
    return outs


def read_lock(root: Path, revision: str | None = None) -> dict[str, Any]:
    """`dvc.lock`, with no stages where there is none."""
    return {"schema": "2.0", "stages": {}, **parse_mapping(_lock_bytes(root, revision), root / "dvc.lock")}


def _lock_bytes(root: Path, revision: str | None) -> bytes:
    if revision is not None:
        return git.show(root, revision, "dvc.lock") or b""
    return (root / "dvc.lock").read_bytes() if (root / "dvc.lock").exists() else b""


def write_lock(root: Path, lock: Mapping[str, Any]) -> None:
    """Write `dvc.lock`, whole or not at all."""
    atomic_write(root / "dvc.lock", dump_yaml(lock))


def pointer_file(out: Mapping[str, Any]) -> tuple[str, bytes]:
    """Path and content of the `.dvc` file of a tracked folder, whose output entry has its path from the root."""
    folder, _, name = str(out["path"]).rpartition("/")
    return f"{folder}/{name}.dvc", dump_yaml({"outs": [_pointer_out(out, name)]})


def _pointer_out(out: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {field: out[field] for field in ("md5", "size", "nfiles", "hash")} | {"path": name}


def _read_pointer(path: Path) -> bytes | None:
    """The content of a `.dvc` file; None if it is gone.

    Git replaces a file in steps: it removes it, creates it empty, and fills it. A moment's look may see any of them. A
    file that changes between two looks is being replaced, so the waiting starts again.
    """
    last_change, pauses = None, iter(GIT_WRITES)
    while not (text := _read_if_there(path)):
        if (change := _last_change(path)) != last_change:
            last_change, pauses = change, iter(GIT_WRITES)
        if (pause_s := next(pauses, None)) is None:
            break
        time.sleep(pause_s)
    return text


def _read_if_there(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _last_change(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_ctime_ns


def _pointers(root: Path, revision: str | None) -> Iterator[tuple[str, bytes]]:
    if revision is None:
        for path in sorted((root / "data").glob("*/*/*.dvc")):
            if (text := _read_pointer(path)) is not None:
                yield path.relative_to(root).as_posix(), text
        return
    blobs = {name: blob for name, blob in git.tree(root, revision, "data").items() if name.endswith(".dvc")}
    texts = dict(git.blobs(root, blobs.values()))
    yield from ((name, texts[blob]) for name, blob in blobs.items())
