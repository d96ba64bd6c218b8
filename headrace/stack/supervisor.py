"""The supervisor: the one process that owns the servers of a stack, and its watchdog, which cleans up after it.

When this process ends, for whatever reason, every server and everything below it ends too. The watchdog is its parent:
it adopts processes that lose theirs, and when the supervisor ends, even by SIGKILL, it ends what is left. When the
watchdog is killed, the kernel signals the supervisor, which stops everything in order.

Standard input ties it to the process that started it: the line `detach` releases it from there, end of file before that
stops everything. Standard output carries one JSON object per event.
"""

import argparse
import asyncio
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO

from headrace.errors import HeadraceError
from headrace.stack import launcher
from headrace.stack.config import allocate_ports
from headrace.stack.environment import engine_version
from headrace.stack.paths import StackPaths, disk_message, write_private
from headrace.stack.process import ProcessIdentity, process_tree, terminate, wait_for_exit
from headrace.stack.process_manager import ProcessManager
from headrace.stack.servers import build_systems, collect_exports, port_names
from headrace.stack.state import EXIT_ALREADY_RUNNING, FAILED, Event, StackState, read_state, write_watchdog

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
WATCHDOG_TIMEOUT_S = 6.0
DETACH = b"detach"


def main() -> None:
    """Lock the home, fork into watchdog and supervisor, and run until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--project", type=Path)
    parser.add_argument("systems", nargs="+")
    options = parser.parse_args()
    paths = StackPaths(options.home, options.project)
    with paths.lock.open("a") as lock:
        if not acquire_lock(lock):
            sys.exit(EXIT_ALREADY_RUNNING)
        try:
            write_watchdog(paths, ProcessIdentity.from_pid(os.getpid()))
        except OSError as error:
            emit(Event(FAILED, detail=disk_message(paths.home, error)))
            sys.exit(1)
        fork_supervisor(paths, tuple(options.systems))


def acquire_lock(lock: IO[str]) -> bool:
    """Lock the file; retry for a moment, since testing whether it is locked locks it briefly."""
    for _ in range(20):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.05)
    return False


def fork_supervisor(paths: StackPaths, names: tuple[str, ...]) -> None:
    """The parent is the watchdog, the child the supervisor; the lock is free only when both have ended."""
    watchdog = ProcessIdentity.from_pid(os.getpid())
    adopt_orphans()
    if supervisor := os.fork():
        sys.exit(run_watchdog(paths, watchdog, supervisor))
    if sys.platform == "linux":
        launcher.die_with_parent(watchdog.pid, signal.SIGTERM)
    sys.exit(asyncio.run(supervise(paths, names, watchdog)))


def adopt_orphans() -> None:
    """On Linux, a descendant whose parent ends becomes a child of this process, so none escapes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run_watchdog(paths: StackPaths, watchdog: ProcessIdentity, supervisor: int) -> int:
    """Wait for the supervisor, then end what it left behind; its exit code."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: os.kill(supervisor, signal.SIGTERM))
    os.close(sys.stdin.fileno())
    os.close(sys.stdout.fileno())
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == supervisor:
            break
    state = read_state(paths)
    end_remaining([watchdog, *(server.process for server in state.servers)] if state else [watchdog])
    return abs(os.waitstatus_to_exitcode(status))


def end_remaining(roots: list[ProcessIdentity]) -> None:
    """The kernel has signalled the servers already: wait a moment, then kill."""
    remaining = wait_for_exit(process_tree(roots), WATCHDOG_TIMEOUT_S)
    terminate([*remaining, *process_tree(roots)], timeout_s=0.5)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


async def supervise(paths: StackPaths, names: tuple[str, ...], watchdog: ProcessIdentity) -> int:
    """Run the servers until a signal arrives, the owner ends or a server dies, then stop everything; the exit code."""
    try:
        config = allocate_ports(paths, port_names(names))
        systems = build_systems(config, names)
        exports = collect_exports(systems)
        write_private(paths.env, "".join(f"{key}={value}\n" for key, value in exports.items()))
    except HeadraceError as error:  # a program or the project is missing
        emit(Event(FAILED, detail=str(error)))
        return 1
    except OSError as error:
        emit(Event(FAILED, detail=disk_message(paths.home, error)))
        return 1
    endpoints = [endpoint for system in systems for endpoint in system.endpoints]
    state = StackState(watchdog, str(paths.project or ""), list(names), str(paths.home), engine_version(), endpoints)
    manager = ProcessManager(config, systems, exports, state, emit)
    signalled = stop_signal_future()
    servers = asyncio.create_task(manager.run())
    owner = asyncio.create_task(wait_for_owner_exit())
    await asyncio.wait({servers, signalled, owner}, return_when=asyncio.FIRST_COMPLETED)
    error_text = failure_text(paths, servers)
    servers.cancel()
    await manager.stop(error_text)
    if error_text:
        emit(Event(FAILED, detail=error_text))
    return 1 if error_text else 0


def failure_text(paths: StackPaths, servers: "asyncio.Task[None]") -> str:
    """Why the servers ended; empty if they were only told to stop."""
    failure = servers.exception() if servers.done() else None
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    if failure is None:
        return ""
    if isinstance(failure, OSError) and failure.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}:
        return disk_message(paths.home, failure)
    return str(failure) if isinstance(failure, HeadraceError) else f"{type(failure).__name__}: {failure}"


def stop_signal_future() -> "asyncio.Future[None]":
    """A future that a signal completes."""
    loop = asyncio.get_running_loop()
    signalled: asyncio.Future[None] = loop.create_future()

    def stop() -> None:
        if not signalled.done():
            signalled.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    return signalled


async def wait_for_owner_exit() -> None:
    """End when standard input does; never end once the owner has detached."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if line.strip() == DETACH:
            await asyncio.get_running_loop().create_future()


def emit(event: Event) -> None:
    """Write one event to the owner, who may have stopped reading."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(asdict(event)).encode() + b"\n")


if __name__ == "__main__":
    main()
