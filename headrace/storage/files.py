"""The files that DVC keeps in a workspace: written whole or not at all, laid out as DVC lays them out."""

import configparser
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from headrace import failpoints
from headrace.errors import HeadraceError


class DamagedFileError(HeadraceError):
    """A file of the workspace is not what it was written as."""


def atomic_write(
    path: Path, content: bytes, fence: Callable[[], object] = lambda: None, *, is_private: bool = False
) -> None:
    """Write `content` to `path` so that a reader sees the old bytes or the new, whatever dies.

    Args:
        path: The file.
        content: Its bytes.
        fence: Called last before the bytes are seen; it raises where this run may not write any more.
        is_private: Whether only the file's owner may read it. No byte is ever in a file that others can read.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    write = partial(_write_synced, temporary, permissions=0o600 if is_private else 0o666)
    with failpoints.failpoint(f"write {path.name}", lambda: write(content[: len(content) // 2])):
        write(content)
    with failpoints.failpoint(f"rename {path.name}"):
        fence()
        temporary.replace(path)
    _remove_stale_temporaries(path)


# no failpoint: `atomic_write` calls it inside one
def _write_synced(path: Path, content: bytes, permissions: int) -> None:
    """Write a file and have the disk confirm it; a new file has these permissions, less the process's umask."""
    # no chmod afterwards: who has opened the file by then could still read it
    with open(path, "wb", opener=partial(os.open, mode=permissions)) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _remove_stale_temporaries(path: Path) -> None:
    """Remove what writers of `path` that died left beside it."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        if not _is_writer_running(left):
            with failpoints.failpoint("temporary of a dead writer"):
                left.unlink(missing_ok=True)


# no failpoint: removing a draft, which nobody reads; the rename that makes it visible has one
@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A draft of the folder `target`, to write files to: it becomes `target` as a whole, or is removed on an error.

    The draft is beside `target`, under a name that begins with a dot. Drafts of processes that were killed are removed
    first.
    """
    for left in target.parent.glob(f".{target.name}.*.new"):
        if not _is_writer_running(left):
            shutil.rmtree(left, ignore_errors=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        yield draft
        with failpoints.failpoint(f"rename {target.name}"):
            draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write a file below `folder` for each path and text, for a folder that nobody reads yet."""
    with failpoints.failpoint("write the files of a new folder"):
        for path, text in texts.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")


def _is_writer_running(left: Path) -> bool:
    """Whether the process runs whose number is in the name of a temporary, such as `.dvc.lock.4711.tmp`."""
    try:
        os.kill(int(left.suffixes[-2][1:]), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:  # it runs, for another user
        pass
    return True


def dump_yaml(content: Mapping[str, Any]) -> bytes:
    """YAML as DVC lays it out: block style, in the order given."""
    dumped: bytes = yaml.dump(
        content, Dumper=yaml.CSafeDumper, sort_keys=False, default_flow_style=False, width=10_000, encoding="utf-8"
    )
    return dumped


def parse_yaml(text: bytes) -> dict[str, Any]:
    """A YAML text, with the C parser."""
    found: dict[str, Any] = yaml.load(text, Loader=yaml.CSafeLoader) or {}
    return found


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises:
        DamagedFileError: It cannot be parsed, for example because git left merge markers in it.
    """
    return parse_mapping(path.read_bytes(), path)


def parse_mapping(text: bytes, path: Path) -> dict[str, Any]:
    """The mapping that a YAML text holds; `path` is its file, for messages.

    Raises:
        DamagedFileError: It cannot be parsed, or holds something else.
    """
    try:
        content = parse_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise damaged_file(path, f"cannot be parsed{where}: {getattr(error, 'problem', error)}") from None
    if not isinstance(content, dict):
        raise damaged_file(path, f"expected a mapping, found {type(content).__name__}")
    return content


def damaged_file(path: Path, reason: str) -> DamagedFileError:
    """The error for a file that git keeps and that is not what was committed."""
    return DamagedFileError(
        f"{path} {reason}. Correct it, or restore what was committed: `git checkout -- {path.name}` in its folder, or"
        " `headrace doctor --repair`."
    )


def read_config(root: Path) -> dict[str, dict[str, str]]:
    """Section → option → value of the workspace's DVC configuration.

    Raises:
        DamagedFileError: A file of it cannot be parsed.
    """
    parser = configparser.RawConfigParser(strict=False)
    for path in (root / ".dvc" / "config", root / ".dvc" / "config.local"):
        try:
            parser.read(path, "utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            raise damaged_file(path, f"cannot be parsed: {' '.join(str(error).split())}") from None
    return {name.strip("'"): dict(parser[name]) for name in parser.sections()}
