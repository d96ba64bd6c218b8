"""The files that DVC keeps in a workspace: written whole or not at all, laid out as DVC lays them out."""

import configparser
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from headrace import failpoints
from headrace.errors import HeadraceError


class DamagedFileError(HeadraceError):
    """A file of the workspace is not what it was written as."""


def atomic_write(path: Path, content: bytes, fence: Callable[[], object] = lambda: None) -> None:
    """Write `content` to `path` so that a reader sees the old bytes or the new, whatever dies.

    The last thing before it is seen is `fence`, which raises where this run may not write any more.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with (
        failpoints.failpoint(f"write {path.name}", lambda: temporary.write_bytes(content[: len(content) // 2])),
        temporary.open("wb") as file,
    ):
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    with failpoints.failpoint(f"rename {path.name}"):
        fence()
        temporary.replace(path)
    _remove_stale_temporaries(path)


def _remove_stale_temporaries(path: Path) -> None:
    """Remove what writers of `path` that died left beside it."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        try:
            os.kill(int(left.suffixes[-2][1:]), 0)
        except (ProcessLookupError, ValueError):
            with failpoints.failpoint("temporary of a dead writer"):
                left.unlink(missing_ok=True)


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
    try:
        content = parse_yaml(path.read_bytes())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise DamagedFileError(
            f"{path} cannot be parsed{where}: {getattr(error, 'problem', error)}. Correct it, or restore what was"
            f" committed: `git checkout -- {path.name}`."
        ) from None
    if not isinstance(content, dict):
        raise DamagedFileError(f"{path}: expected a mapping, found {type(content).__name__}. Correct it.")
    return content


def read_config(root: Path) -> dict[str, dict[str, str]]:
    """Section → option → value of the workspace's DVC configuration."""
    parser = configparser.RawConfigParser(strict=False)
    parser.read([root / ".dvc" / "config", root / ".dvc" / "config.local"])
    return {name.strip("'"): dict(parser[name]) for name in parser.sections()}
