"""Operating-system processes: identified beyond the reuse of their numbers, and stopped with all their descendants."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psutil

from headrace.stack import launcher

START_TOLERANCE_S = 0.05


@dataclass(frozen=True)
class ProcessIdentity:
    """A process number and a start time: numbers are reused, the pair is not."""

    pid: int
    started_at: float

    @classmethod
    def from_pid(cls, pid: int) -> "ProcessIdentity":
        """The process that has this number now (one that has just ended has no start time)."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return cls(pid, 0.0)

    def find_process(self) -> psutil.Process | None:
        """The process while it runs; a zombie does not run."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            is_same = abs(process.create_time() - self.started_at) < START_TOLERANCE_S
            if is_same and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None

    def is_running(self) -> bool:
        """Whether this very process runs."""
        return self.find_process() is not None


def process_tree(roots: Iterable[ProcessIdentity]) -> list[psutil.Process]:
    """The processes, their descendants, and all in their sessions, even those whose parent has ended."""
    identities = list(roots)
    members = {process for identity in identities if (process := identity.find_process())}
    for process in tuple(members):
        members.update(descendants(process))
    sessions = {identity.pid: identity.started_at for identity in identities}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            session_start = sessions.get(os.getsid(process.pid))
            if session_start is not None and process.create_time() >= session_start - START_TOLERANCE_S:
                members.add(process)
    return still_running(process for process in members if process.pid != os.getpid())


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """All processes below this one."""
    try:
        children: list[psutil.Process] = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return children


def still_running(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended."""
    running = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                running.append(process)
    return running


def send_signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to each process that still runs."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def wait_for_exit(processes: Iterable[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Wait until they have ended; those that still run after the timeout."""
    deadline = time.monotonic() + timeout_s
    running = still_running(processes)
    while running and time.monotonic() < deadline:
        time.sleep(0.05)
        running = still_running(running)
    return running


def terminate(processes: Iterable[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """SIGTERM, time to exit, SIGKILL; those that survive even that."""
    members = list(processes)
    send_signal(members, signal.SIGTERM)
    remaining = wait_for_exit(members, timeout_s)
    send_signal(remaining, signal.SIGKILL)
    return wait_for_exit(remaining, 5)


def tied_to_this_process(
    command: Sequence[str], user: str = "-", death_signal: signal.Signals = signal.SIGTERM
) -> tuple[str, ...]:
    """The command behind the launcher, which ends it with this process and runs it as `user` (`-`: the current)."""
    return (
        sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), str(int(death_signal)), user, *command,
    )  # fmt: skip
