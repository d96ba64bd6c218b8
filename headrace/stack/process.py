"""Processes, told apart from a later process with the same number, and stopped with everything below them."""

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

SAME_START_SECONDS = 0.05


@dataclass(frozen=True)
class Identity:
    """A process number is used again; with the time it started it names one process."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> "Identity":
        """Who has this number now (a process that has just gone has no start time)."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return cls(pid, 0.0)

    def process(self) -> psutil.Process | None:
        """The process, while it lives; one that has ended and only waits to be reaped does not."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < SAME_START_SECONDS
            if same and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None

    def alive(self) -> bool:
        """Whether this very process runs."""
        return self.process() is not None


def family(identities: Iterable[Identity]) -> list[psutil.Process]:
    """These processes, all below them, and all in the sessions they opened, though their parent be gone."""
    heads = list(identities)
    found = {process for head in heads if (process := head.process())}
    for process in tuple(found):
        found.update(below(process))
    sessions = {head.pid: head.started for head in heads}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            began = sessions.get(os.getsid(process.pid))
            if began is not None and process.create_time() >= began - SAME_START_SECONDS:
                found.add(process)
    return living(process for process in found if process.pid != os.getpid())


def below(process: psutil.Process) -> list[psutil.Process]:
    """All processes below this one."""
    try:
        children: list[psutil.Process] = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return children


def living(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that still run."""
    alive = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
    return alive


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Signal each one that still runs."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def wait(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait until they have gone, and name those that have not."""
    until = time.monotonic() + seconds
    left = living(processes)
    while left and time.monotonic() < until:
        time.sleep(0.05)
        left = living(left)
    return left


def end(processes: Iterable[psutil.Process], grace: float) -> list[psutil.Process]:
    """SIGTERM, time to leave, SIGKILL; name what is left even so."""
    members = list(processes)
    send(members, signal.SIGTERM)
    left = wait(members, grace)
    send(left, signal.SIGKILL)
    return wait(left, 5)
