"""What a run does to the world, as the interpreter tells: files written, renamed or removed, git, and HTTP requests."""

import os
import re
import sys
import traceback
from itertools import pairwise
from pathlib import Path
from typing import Any

from headrace import failpoints
from headrace.storage.s3 import obstore_client

ASIDE = {
    r"/\.dvc/cache/tmp/": "a temporary of the cache, which nobody reads before the point that renames it",
    r"/headrace-[^/]+(/|$)": "the scratch folder of one partition: nobody else knows its name",
    r"/\.headrace/locks/": "a lease: the kernel holds the lock, and the file only tells people whose it is",
    r"/\.headrace/verified$": "a memory: who lacks a line, or has it torn, hashes the file",
    r"/\.dvc/tmp/(lock|rwlock\.lock)$": "DVC's own lock, held by the kernel too",
    r"^/(var/)?tmp/[a-z0-9_]{8}$": "Python tries where it may write temporaries",
    r"/__pycache__/": "Python's cache of its own code",
    r"^/dev/": "no file",
}
"""Pattern of a path → why what is done to it needs no point."""

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
GIT_WRITES = frozenset(("add", "checkout", "commit", "fetch", "merge", "pull", "push", "rebase", "reset", "rm", "tag"))
GIT_WRITES |= {"commit-tree", "mktag", "update-ref"}
HTTP_WRITES = re.compile(rb"(PUT|POST|DELETE|PATCH) \S+")
PIPELINES = str(Path(failpoints.__file__).parent)


def listen() -> list[str]:
    """Every side effect of this process from now on that stands in no point, as it happens."""
    outside: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in TELLERS and not failpoints.is_inside():
            found = TELLERS[event](arguments)
            if found and not any(re.search(pattern, found) for pattern in ASIDE):
                outside.append(f"{found} ({event} by {_who()})")

    sys.addaudithook(hook)
    return outside


def _opened(arguments: tuple[Any, ...]) -> str:
    path, _, flags = arguments
    return "" if isinstance(path, int) or not flags & WRITES else _absolute(path)


def _path(arguments: tuple[Any, ...]) -> str:
    """The last path among the arguments: where something is renamed to."""
    folder = next((item for item in arguments if isinstance(item, int) and item >= 0), None)
    name = os.fsdecode([item for item in arguments if isinstance(item, (str, bytes, os.PathLike))][-1])
    return _absolute(name if folder is None else os.path.join(os.readlink(f"/proc/self/fd/{folder}"), name))  # noqa: PTH115, PTH118


def _git(arguments: tuple[Any, ...]) -> str:
    words = [str(word) for word in arguments[1]]
    if Path(words[0]).name != "git":
        return ""
    verb = next(word for before, word in pairwise(words) if before != "-c" and not word.startswith("-"))
    return f"git {verb}" if verb in GIT_WRITES and "--list" not in words else ""


def _http(arguments: tuple[Any, ...]) -> str:
    hit = HTTP_WRITES.match(arguments[1]) if isinstance(arguments[1], bytes) else None
    return hit[0].decode() if hit else ""


def _absolute(path: Any) -> str:  # noqa: ANN401  whatever names a path
    return os.path.abspath(os.fsdecode(path))  # noqa: PTH100  no look at the disk in a hook


def _who() -> str:
    frames = [frame for frame in traceback.extract_stack() if frame.filename.startswith(PIPELINES)]
    return f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "somebody else"


TELLERS = {
    "open": _opened,
    "os.rename": _path,
    "os.remove": _path,
    "os.truncate": _path,
    "os.link": _path,
    "os.symlink": _path,
    "subprocess.Popen": _git,
    "http.client.send": _http,
    obstore_client.AUDIT: " ".join,
}
"""Event of the interpreter → what it tells; a new folder is none: it is empty."""
