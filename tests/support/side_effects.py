"""Records a run's side effects by audit events: files written, renamed or removed, git, and HTTP requests."""

import os
import re
import sys
import traceback
from itertools import pairwise
from pathlib import Path
from typing import Any

from headrace import failpoints
from headrace.storage.s3 import obstore_client

IGNORED_PATHS = {
    r"/\.dvc/cache/tmp/": "a temporary file of the cache, which nobody reads before the failpoint that renames it",
    r"/headrace-[^/]+(/|$)": "the scratch folder of one partition: no other process knows its name",
    r"/\.headrace/locks/": "a lock: the kernel holds it, and the file only names its owner",
    r"/\.headrace/(verified|hashed-directories)$": "a cache of hashes: without an intact line, a file is hashed again",
    r"/\.headrace/(references|release-summaries)/": "a cache: a record that is not intact is computed again",
    r"/\.dvc/cache/durations/": "how long runs took, for a message",
    r"/\.dvc/tmp/(lock|rwlock\.lock)$": "DVC's own lock, held by the kernel too",
    r"^/(var/)?tmp/[a-z0-9_]{8}$": "Python tests where it can write temporary files",
    r"/__pycache__/": "Python's cache of its own code",
    r"^/dev/": "not a file",
}
"""Pattern of a path → why its changes need no failpoint."""

WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
GIT_WRITES = frozenset(("add", "checkout", "commit", "fetch", "merge", "pull", "push", "rebase", "reset", "rm", "tag"))
GIT_WRITES |= {"commit-tree", "mktag", "update-ref"}
HTTP_WRITES = re.compile(rb"(PUT|POST|DELETE|PATCH) \S+")
ENGINE = str(Path(failpoints.__file__).parent)


def record_unguarded_effects() -> list[str]:
    """Record this process's further side effects outside of failpoints; the list grows as they happen."""
    outside: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENT_PARSERS and not failpoints.is_inside():
            found = EVENT_PARSERS[event](arguments)
            if found and not any(re.search(pattern, found) for pattern in IGNORED_PATHS):
                outside.append(f"{found} ({event} by {_caller()})")

    sys.addaudithook(hook)
    return outside


def _written_file(arguments: tuple[Any, ...]) -> str:
    path, _, flags = arguments
    return "" if isinstance(path, int) or not flags & WRITE_FLAGS else _absolute(path)


def _changed_path(arguments: tuple[Any, ...]) -> str:
    """The last path among the arguments: the new name of a rename."""
    folder = next((item for item in arguments if isinstance(item, int) and item >= 0), None)
    name = os.fsdecode([item for item in arguments if isinstance(item, (str, bytes, os.PathLike))][-1])
    return _absolute(name if folder is None else os.path.join(os.readlink(f"/proc/self/fd/{folder}"), name))  # noqa: PTH115, PTH118


def _git_command(arguments: tuple[Any, ...]) -> str:
    words = [str(word) for word in arguments[1]]
    if Path(words[0]).name != "git":
        return ""
    verb = next(word for before, word in pairwise(words) if before != "-c" and not word.startswith("-"))
    return f"git {verb}" if verb in GIT_WRITES and "--list" not in words else ""


def _http_request(arguments: tuple[Any, ...]) -> str:
    hit = HTTP_WRITES.match(arguments[1]) if isinstance(arguments[1], bytes) else None
    return hit[0].decode() if hit else ""


def _absolute(path: Any) -> str:  # noqa: ANN401  whatever names a path
    return os.path.abspath(os.fsdecode(path))  # noqa: PTH100  no look at the disk in a hook


def _caller() -> str:
    frames = [frame for frame in traceback.extract_stack() if frame.filename.startswith(ENGINE)]
    return f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "other code"


EVENT_PARSERS = {
    "open": _written_file,
    "os.rename": _changed_path,
    "os.remove": _changed_path,
    "os.truncate": _changed_path,
    "os.link": _changed_path,
    "os.symlink": _changed_path,
    "subprocess.Popen": _git_command,
    "http.client.send": _http_request,
    obstore_client.AUDIT: " ".join,
}
"""Audit event → function that describes its side effect. A new folder is not one: it is empty."""
