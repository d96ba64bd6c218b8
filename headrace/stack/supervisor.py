"""HOME → running servers: the one process that holds them, and the keeper that outlives it to clean up.

Promise: when this process ends, for whatever reason, every server and everything below it ends too. The keeper is its
parent: it adopts what loses its parent, and when the supervisor has gone, even by SIGKILL, it ends what is left. When
the keeper is killed, the kernel tells the supervisor, which stops everything in order.

On standard input it reads the lifeline (`stay` cuts the owner loose; end of file before that stops everything); on
standard output it writes one JSON object per event.
"""

import argparse
import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import IO

from headrace.errors import HeadraceError
from headrace.stack import launcher, process
from headrace.stack.paths import Home, open_site, write_private
from headrace.stack.process_manager import Crew
from headrace.stack.servers import describe, exports, ports_of
from headrace.stack.state import EXIT_BUSY, Event, State, read_state

PR_SET_CHILD_SUBREAPER = 36
KEEPER_GRACE_S = 6.0


def main() -> None:
    """Take the home's lock, part into keeper and supervisor, and run until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("systems", nargs="+")
    options = parser.parse_args()
    home = Home(options.home, options.repository)
    home.stack.mkdir(parents=True, exist_ok=True)
    with home.lock.open("a") as lock:
        if not taken(lock):
            sys.exit(EXIT_BUSY)
        part(home, tuple(options.systems))


def taken(lock: IO[str]) -> bool:
    """Take the lock; try for a moment, since whoever asks whether it is held holds it himself as he asks."""
    for _ in range(20):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.05)
    return False


def part(home: Home, names: tuple[str, ...]) -> None:
    """The parent keeps, the child supervises; both hold the lock, so it is free only when both have gone."""
    keeper = process.Identity.of(os.getpid())
    adopt_orphans()
    if supervisor := os.fork():
        sys.exit(keep(home, keeper, supervisor))
    if sys.platform == "linux":
        launcher.die_with_parent(keeper.pid, signal.SIGTERM)
    sys.exit(asyncio.run(supervise(home, names, keeper)))


def adopt_orphans() -> None:
    """On Linux a process below us whose parent has died becomes our child, so that none can slip away."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def keep(home: Home, keeper: process.Identity, child: int) -> int:
    """Wait for the supervisor, then end what it left behind."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: os.kill(child, signal.SIGTERM))
    os.close(sys.stdin.fileno())
    os.close(sys.stdout.fileno())
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            break
    state = read_state(home)
    sweep([keeper, *(server.identity for server in state.servers)] if state else [keeper])
    return abs(os.waitstatus_to_exitcode(status))


def sweep(heads: list[process.Identity]) -> None:
    """The kernel has told the servers already: give them a moment, then insist."""
    left = process.wait(process.family(heads), KEEPER_GRACE_S)
    process.end([*left, *process.family(heads)], grace=0.5)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


async def supervise(home: Home, names: tuple[str, ...], keeper: process.Identity) -> int:
    """Start, hold, and stop everything when told to, when the owner goes, or when a server dies."""
    site = open_site(home, ports_of(names))
    try:
        systems = describe(site, names)
    except HeadraceError as error:  # a package is missing
        tell(Event("failed", detail=str(error)))
        return 1
    shared = exports(systems)
    write_private(home.env, "".join(f"{key}={value}\n" for key, value in shared.items()))
    state = State(keeper=keeper, systems=list(names), pages=[page for system in systems for page in system.pages])
    crew = Crew(site, systems, shared, state, tell)
    told = told_to_stop()
    work = asyncio.create_task(crew.run())
    lifeline = asyncio.create_task(owner_has_gone())
    await asyncio.wait({work, told, lifeline}, return_when=asyncio.FIRST_COMPLETED)
    why = reason(work)
    work.cancel()
    await crew.stop(why)
    if why:
        tell(Event("failed", detail=why))
    return 1 if why else 0


def reason(work: "asyncio.Task[None]") -> str:
    """Why the crew gave up; nothing when it was only told to stop."""
    failure = work.exception() if work.done() else None
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    if failure is None:
        return ""
    return str(failure) if isinstance(failure, HeadraceError) else f"{type(failure).__name__}: {failure}"


def told_to_stop() -> "asyncio.Future[None]":
    """A future that a signal completes."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[None] = loop.create_future()

    def stop() -> None:
        if not told.done():
            told.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    return told


async def owner_has_gone() -> None:
    """End when the lifeline does; never end once the owner has said `stay`."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if line.strip() == b"stay":
            await asyncio.get_running_loop().create_future()


def tell(event: Event) -> None:
    """One event to the owner, who may no longer listen."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(event.as_json()).encode() + b"\n")


if __name__ == "__main__":
    main()
