"""Failpoints: points at side effects where a test can make the process die. They are numbered as they are passed.

In production they do nothing. `tests/support/crash_harness.py` enables one: the process dies at the n-th failpoint,
before the effect, with half of it done, or after it, for n = 1, 2, … until the run completes; then one clean run must
recover everything.
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
"""Exit code of a process that died at a failpoint, as if by `kill -9`."""

NEVER = 2**63
"""Number of a failpoint that no run reaches: failpoints are counted, and the process goes on."""

Mode = Literal["before", "half", "after", "pause"]


@dataclass
class Failpoint:
    """The failpoint at which this process dies.

    Attributes:
        at: Its number, from 1; 0 for none, and then nothing is counted.
        mode: Whether the process dies before the effect, with half of it done, or after it; or is only stopped before.
        hits: Names of the failpoints passed so far, and whether half of the effect can be done.
        within: Depth of nested failpoints, per thread.
    """

    at: int = 0
    mode: Mode = "before"
    hits: list[tuple[str, bool]] = field(default_factory=list)
    within: threading.local = field(default_factory=threading.local)
    lock: threading.Lock = field(default_factory=threading.Lock)


_enabled = Failpoint()


def enable(at: int, mode: Mode = "before") -> None:
    """From here on, die at failpoint number `at`."""
    _enabled.at, _enabled.mode = at, mode
    _enabled.hits.clear()


def hits() -> list[tuple[str, bool]]:
    """Name of every failpoint passed since one was enabled, and whether half of its effect can be done."""
    return list(_enabled.hits)


def is_inside() -> bool:
    """Whether this thread is inside a failpoint."""
    return bool(getattr(_enabled.within, "depth", 0))


def failpoint(name: str, half: Callable[[], object] | None = None) -> AbstractContextManager[object]:
    """A block with the side effect `name`; `half` does a part of the effect, as if the process was killed midway.

    If none is enabled, this costs a comparison.
    """
    if not _enabled.at:
        return nullcontext()
    with _enabled.lock:
        _enabled.hits.append((name, half is not None))
        number = len(_enabled.hits)
    hit = _Hit(f"{number}: {name}", armed=number == _enabled.at)
    if hit.armed and _enabled.mode == "pause":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif hit.armed and _enabled.mode != "after":
        with hit:
            if half and _enabled.mode == "half":
                half()
        hit.crash()
    return hit


@dataclass(frozen=True)
class _Hit:
    """A failpoint that the process passes now."""

    name: str
    armed: bool

    def __enter__(self) -> None:
        _enabled.within.depth = getattr(_enabled.within, "depth", 0) + 1

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        _enabled.within.depth -= 1
        if self.armed and _enabled.mode == "after" and kind is None:
            self.crash()

    def crash(self) -> None:
        """Die as if by `kill -9`."""
        os.write(2, f"killed at point {self.name}\n".encode())
        os._exit(KILLED)
