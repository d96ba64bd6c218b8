"""Places where a process may die. Every side effect stands in one; they are numbered as they are passed.

In production this counts and does nothing. `tests/support/crash_harness.py` enables it: the process dies at the n-th
point, before the effect, with the effect half done, or after it, for n = 1, 2, … until the run completes;
then one clean run must heal everything.
"""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

KILLED = 137
"""Exit code of a process that died here, as if by `kill -9`."""

NEVER = 2**63
"""Number of a point that no run comes to: counts, and kills nobody."""

Mode = Literal["before", "half", "after", "pause"]


@dataclass
class Failpoint:
    """Where this process is to die.

    Attributes:
        at: Number of the point; 0 never, and nothing is counted.
        way: Whether the effect is not done, half done or done by then; or the process only stops, before it.
        hits: Names of the points passed so far, and whether each can be done by half.
        within: Threads that are inside a point.
    """

    at: int = 0
    way: Mode = "before"
    hits: list[tuple[str, bool]] = field(default_factory=list)
    within: threading.local = field(default_factory=threading.local)
    lock: threading.Lock = field(default_factory=threading.Lock)


_fuse = Failpoint()


def enable(at: int, way: Mode = "before") -> None:
    """Die at point number `at` from here on."""
    _fuse.at, _fuse.way = at, way
    _fuse.hits.clear()


def hits() -> list[tuple[str, bool]]:
    """Name of every point passed since the fuse was armed, and whether it can be done by half."""
    return list(_fuse.hits)


def is_inside() -> bool:
    """Whether this thread is inside a point."""
    return bool(getattr(_fuse.within, "depth", 0))


def failpoint(name: str, half: Callable[[], object] | None = None) -> AbstractContextManager[object]:
    """The place of the side effect `name`, which is done in the block; `half` does a part of it, as if killed midway.

    Where the fuse is not armed this costs a comparison.
    """
    if not _fuse.at:
        return nullcontext()
    with _fuse.lock:
        _fuse.hits.append((name, half is not None))
        number = len(_fuse.hits)
    place = _Place(f"{number}: {name}", armed=number == _fuse.at)
    if place.armed and _fuse.way == "pause":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif place.armed and _fuse.way != "after":
        with place:
            if half and _fuse.way == "half":
                half()
        place.die()
    return place


@dataclass(frozen=True)
class _Place:
    """One point, passed once."""

    name: str
    armed: bool

    def __enter__(self) -> None:
        _fuse.within.depth = getattr(_fuse.within, "depth", 0) + 1

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        _fuse.within.depth -= 1
        if self.armed and _fuse.way == "after" and kind is None:
            self.die()

    def die(self) -> None:
        """As if by `kill -9`."""
        os.write(2, f"killed at point {self.name}\n".encode())
        os._exit(KILLED)
