"""Places where a process may die. Every side effect passes one; they are numbered as they are passed.

In production this counts and does nothing. `tests/crashes.py` arms it: the process dies at the n-th point, before the
effect or with the effect half done, for n = 1, 2, … until the run completes; then one clean run must heal everything.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

KILLED = 137
"""Exit code of a process that died here, as if by `kill -9`."""


@dataclass
class Fuse:
    """Where this process is to die.

    Attributes:
        at: Number of the point; 0 never.
        half: Whether to leave the effect half done.
        passed: Names of the points passed so far.
    """

    at: int
    half: bool
    passed: list[str]


_fuse = Fuse(0, half=False, passed=[])


def arm(at: int, *, half: bool = False) -> None:
    """Die at point number `at` from here on."""
    _fuse.at, _fuse.half = at, half
    _fuse.passed.clear()


def point(name: str, half: Callable[[], object] | None = None) -> None:
    """Pass the point before the side effect `name`; `half` does a part of it, as a process killed midway would."""
    if not _fuse.at:
        return
    _fuse.passed.append(name)
    if len(_fuse.passed) == _fuse.at:
        if _fuse.half and half:
            half()
        os.write(2, f"killed at point {_fuse.at}: {name}\n".encode())
        os._exit(KILLED)
