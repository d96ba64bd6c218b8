"""Failpoints: numbered places in which a process may die. Every side effect is in one.

In production they count nothing and do nothing. `tests/support/crash_harness.py` enables one: the process dies in
the n-th that it reaches, before the side effect, with half of it done, or after it, for n = 1, 2, … until the run
completes. Then one more run must recover everything.
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
"""Exit code of a process that died in a failpoint: what a shell reports after `kill -9`."""

NEVER = 2**63
"""A number that no run reaches: failpoints are counted, and nothing dies."""

Mode = Literal["before", "half", "after", "pause"]


@dataclass
class Failpoint:
    """The failpoint in which this process dies.

    Attributes:
        number: Its number, from 1 on; 0 if none is enabled, and then nothing is counted.
        mode: Whether the process dies before the side effect, with half of it done, or after it; or is only stopped,
            before it (`SIGSTOP`).
        hits: Name of each failpoint reached so far, and whether its side effect can be done by half.
        depth: How many failpoints each thread is in.
        lock: Held while hits are counted.
    """

    number: int = 0
    mode: Mode = "before"
    hits: list[tuple[str, bool]] = field(default_factory=list)
    depth: threading.local = field(default_factory=threading.local)
    lock: threading.Lock = field(default_factory=threading.Lock)


_enabled = Failpoint()


def enable(number: int, mode: Mode = "before") -> None:
    """Die in the failpoint of that number, counted from this call on."""
    _enabled.number, _enabled.mode = number, mode
    _enabled.hits.clear()


def hits() -> list[tuple[str, bool]]:
    """Name of each failpoint reached since `enable`, and whether its side effect can be done by half."""
    return list(_enabled.hits)


def is_inside() -> bool:
    """Whether this thread is in a failpoint."""
    return bool(getattr(_enabled.depth, "value", 0))


def failpoint(name: str, half: Callable[[], object] | None = None) -> AbstractContextManager[object]:
    """The failpoint of the side effect `name`, which the block performs. Where none is enabled, it costs a comparison.

    Args:
        name: What the side effect changes.
        half: Performs a part of it, as if the process were killed midway; None if there is no half.
    """
    if not _enabled.number:
        return nullcontext()
    with _enabled.lock:
        _enabled.hits.append((name, half is not None))
        number = len(_enabled.hits)
    hit = _Hit(f"{number}: {name}", is_enabled=number == _enabled.number)
    if hit.is_enabled and _enabled.mode == "pause":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif hit.is_enabled and _enabled.mode != "after":
        with hit:
            if half and _enabled.mode == "half":
                half()
        hit.crash()
    return hit


@dataclass(frozen=True)
class _Hit:
    """One pass of a failpoint."""

    name: str
    is_enabled: bool

    def __enter__(self) -> None:
        _enabled.depth.value = getattr(_enabled.depth, "value", 0) + 1

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        _enabled.depth.value -= 1
        if self.is_enabled and _enabled.mode == "after" and kind is None:
            self.crash()

    def crash(self) -> None:
        """End the process as `kill -9` does: no handler runs, no buffer is written."""
        os.write(2, f"killed in failpoint {self.name}\n".encode())
        os._exit(KILLED)
