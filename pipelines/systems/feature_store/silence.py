"""A PostgreSQL server that takes everything and answers nobody is cut off, for its drivers wait without an end.

Whoever waits then has the error of a lost connection, where it was used: a statement may take as long as it likes, as
long as the server still answers newcomers.
"""

import os
import socket
import stat
import struct
import sys
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

EVERY_S = 20.0
"""Between two questions to a server."""

PATIENCE_S = 20.0
"""How long an answer to such a question may take."""

TRIES = 2
"""Questions in a row that went unanswered: then nobody waits any more."""

ENCRYPTED = struct.pack("!ii", 8, 80877103)
"""Asks PostgreSQL whether it speaks TLS: the shortest question there is, which needs no password."""

Server = tuple[str, int]
"""Host and port."""


@contextmanager
def cut_off_when_silent(servers: Collection[Server]) -> Iterator[None]:
    """While the block runs, shut this process's connections to any of these servers that has gone silent."""
    over = Event()
    for server in servers:
        Thread(target=_watch, args=(server, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(server: Server, over: Event) -> None:
    silent = 0
    while not over.wait(EVERY_S):
        silent = 0 if _answers(server) else silent + 1
        if silent >= TRIES and not over.is_set():
            seconds = TRIES * PATIENCE_S
            print(f"{server[0]}:{server[1]} answers nobody for {seconds:.0f} s: cut off", file=sys.stderr)  # noqa: T201
            _cut(server)


def _answers(server: Server) -> bool:
    """Whether it answers within the time; one that refuses or hangs up leaves nobody waiting either."""
    try:
        with closing(socket.create_connection(server, timeout=PATIENCE_S)) as line:
            line.sendall(ENCRYPTED)
            line.recv(1)
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def _cut(server: Server) -> None:
    """Shut every connection to it down, whichever driver holds it."""
    with suppress(OSError):
        addresses = {found[4][:2] for found in socket.getaddrinfo(*server, type=socket.SOCK_STREAM)}
        for file in Path("/dev/fd").iterdir():
            with suppress(OSError):
                _shut(int(file.name), addresses)


def _shut(file: int, addresses: Collection[object]) -> None:
    if not stat.S_ISSOCK(os.fstat(file).st_mode):
        return
    with closing(socket.socket(fileno=os.dup(file))) as line:
        if line.family != socket.AF_UNIX and line.getpeername()[:2] in addresses:
            line.shutdown(socket.SHUT_RDWR)
