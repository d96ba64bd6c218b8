"""The SQLite online store: one file, one writer at a time, readers undisturbed.

Only through Python's own SQLite: a second copy of the library in one process breaks the first one's locks when it
closes the file.
"""

# no failpoint: nobody sees it before the transaction ends, and that is a failpoint

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from feast import FeatureStore
from feast.repo_config import FeastConfigBaseModel, RepoConfig

from headrace import failpoints
from headrace.feast.encoding import cut
from headrace.feast.online_stores.sql_dialect import (
    ASK_FENCE,
    FENCE,
    MAKE_FENCE,
    OLD_COLUMNS,
    RAISE_FENCE,
    columns,
    filled,
    qualified,
    quoted,
    rename_statements,
)
from headrace.feast.online_stores.sql_store import TableOnlineStore
from headrace.feast.online_stores.writer import OnlineView, fenced_error
from headrace.feast.types import KEY, STAMP
from headrace.feast.variables import expand_options
from headrace.retrieve.errors import FeatureStoreError, FeatureStoreUnavailableError
from headrace.storage.sql_errors import is_transient_sql_error

BUSY_SECONDS = 30.0
VARIABLES = 30_000
"""Keys a statement may name, at most; SQLite allows a few more."""

LARGEST = 1 << 29
"""Bytes that are asked for as one value, at most; SQLite allows a little less than twice as many."""


class HeadraceSQLiteOnlineStoreConfig(FeastConfigBaseModel):
    """The `online_store` of `feature_store.yaml`.

    Attributes:
        path: The file, relative to `feature_store.yaml`.
    """

    type: Literal["headrace.feast.online_stores.sqlite.HeadraceSQLiteOnlineStore"] = (
        "headrace.feast.online_stores.sqlite.HeadraceSQLiteOnlineStore"
    )
    path: str

    _expanded = expand_options


class HeadraceSQLiteOnlineStore(TableOnlineStore):
    """Serves what was published to an SQLite file."""

    max_features = 1998  # SQLITE_MAX_COLUMN is 2,000; two columns are the key and the time

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None
        self._writers: dict[Path, sqlite3.Connection] = {}

    def rows_of(
        self, config: RepoConfig, table: str, features: tuple[str, ...], keys: Sequence[bytes]
    ) -> Mapping[bytes, Sequence[Any]]:
        """As the base class says."""
        try:
            if self._connection is None:
                # Threads of a server share it; SQLite lets one of them in at a time.
                self._connection = sqlite3.connect(_path(config), timeout=BUSY_SECONDS, check_same_thread=False)
            found: dict[bytes, Sequence[Any]] = {}
            for start in range(0, len(keys), VARIABLES):
                some = keys[start : start + VARIABLES]
                found |= {row[0]: row for row in _select(self._connection, table, features, some)}
        except sqlite3.Error as error:
            raise _refusal(_path(config), table, error) from error
        return found

    def make(self, config: RepoConfig, keep: Mapping[str, Sequence[str]], drop: Iterable[str]) -> None:
        """As the base class says."""
        with _database(_path(config), self._writers) as database:
            for table in drop:
                database.execute(f"DROP TABLE IF EXISTS {quoted(table)}")
            for table, features in keep.items():
                cells = "".join(f", {quoted(name)} BLOB" for name in features)
                database.execute(
                    f"CREATE TABLE IF NOT EXISTS {quoted(table)} ({quoted(KEY)} BLOB PRIMARY KEY,"
                    f" {quoted(STAMP)} INTEGER{cells}) WITHOUT ROWID"
                )
                for name in sorted(set(features) - _columns(database, quoted(table))):
                    database.execute(f"ALTER TABLE {quoted(table)} ADD COLUMN {quoted(name)} BLOB")

    def disconnect(self) -> None:
        """As the base class says."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        while self._writers:
            self._writers.popitem()[1].close()

    def publisher(self, store: FeatureStore, dataset: str) -> "SQLiteWriter":
        """How the file is written."""
        return SQLiteWriter(_path(store.config), store.project, dataset, self._writers)


@dataclass(frozen=True)
class SQLiteWriter:
    """The database of one project.

    Attributes:
        path: The file.
        project: The project.
        dataset: The dataset, which has a fence of its own.
        connections: The connection to that file, once there is one; whoever gave the mapping closes it.
    """

    path: Path
    project: str
    dataset: str
    connections: dict[Path, sqlite3.Connection] = field(repr=False, compare=False)

    def rows(self, view: OnlineView, among: pl.Series | None = None) -> pl.DataFrame:
        """As `Online`."""
        names = ", ".join(qualified("t", view.features))
        # CROSS JOIN tells SQLite to look the wanted keys up, and not to walk through all there are.
        chosen = "wanted CROSS JOIN " if among is not None else ""
        where = f" WHERE t.{quoted(KEY)} = wanted.entity_key" if among is not None else ""
        with self._database(view) as database:
            if among is not None:
                database.execute("BEGIN")  # without it, every key would be a transaction
                database.execute("CREATE TEMP TABLE wanted (entity_key BLOB PRIMARY KEY) WITHOUT ROWID")
                database.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", zip(among, strict=True))
            found = database.execute(f"SELECT {names} FROM {chosen}{self._table(view)} t{where}").fetchall()  # noqa: S608  our own names
        kinds = {KEY: pl.Binary, STAMP: pl.Int64, **dict.fromkeys(view.features, pl.Binary)}
        cells = zip(*found, strict=True) if found else ([] for _ in kinds)
        return pl.DataFrame(dict(zip(kinds, cells, strict=True)), schema=kinds)

    def keys(self, view: OnlineView) -> pl.Series:
        """As `Online`."""
        key, table = qualified("t", ())[0], f"{self._table(view)} t"
        with self._database(view) as database:
            count = database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608  our own names
            size = view.key_size
            if size and 0 < count * size <= LARGEST:
                # All keys as one value, not an object for each.
                joined = database.execute(f"SELECT CAST(group_concat({key}, '') AS BLOB) FROM {table}").fetchone()[0]  # noqa: S608
                if len(joined) == count * size:
                    return cut(joined, np.full(count, size))
            # One by one: a hundred thousand tuples at once would have Python look for garbage among them.
            return pl.Series(KEY, [key for (key,) in database.execute(f"SELECT {key} FROM {table}")], dtype=pl.Binary)  # noqa: S608

    def change(self, view: OnlineView, write: pl.DataFrame, delete: pl.Series, generation: int) -> None:
        """As `Online`, in one transaction."""
        table, marks = self._table(view), ", ".join("?" * (len(view.features) + 2))
        insert = f"INSERT OR REPLACE INTO {table} ({columns(view.features)}) VALUES ({marks})"  # noqa: S608
        with self._database(view) as database:
            database.execute("BEGIN IMMEDIATE")
            seen = self._held(database)
            if seen != generation:
                raise fenced_error(self.dataset, generation, seen)
            # In order of keys, which is that of the table.
            database.executemany(insert, write.sort(KEY).select(KEY, STAMP, *view.features).iter_rows())
            key = qualified(table, ())[0]
            database.executemany(f"DELETE FROM {table} WHERE {key} = ?", zip(delete, strict=True))  # noqa: S608
            with failpoints.failpoint("commit of the online values"):
                database.execute("COMMIT")

    def take_lead(self, generation: int, last: int) -> None:
        """As `Online`."""
        with self._database(None) as database:
            database.execute("BEGIN IMMEDIATE")
            seen = self._held(database)
            if not last <= seen <= generation:
                raise fenced_error(self.dataset, generation, seen)
            database.execute(MAKE_FENCE)
            database.execute(filled(RAISE_FENCE, self.project, self.dataset, generation))
            database.execute("COMMIT")

    def generation(self) -> int:
        """As `Online`."""
        with self._database(None) as database:
            return self._held(database)

    def stamps(self, times: pl.Series) -> pl.Series:
        """As they are."""
        return times

    def migrate(self, views: Iterable[OnlineView]) -> list[str]:
        """As `OnlineStoreWriter`, in one transaction."""
        with self._database(None) as database:
            old = [table for table in map(self._table, views) if OLD_COLUMNS[KEY] in _columns(database, table)]
            if old:
                database.execute("BEGIN IMMEDIATE")
                for table in old:
                    for statement in rename_statements(table):
                        database.execute(statement)
                with failpoints.failpoint("columns of tables that 0.1 wrote"):
                    database.execute("COMMIT")
            return old

    def _held(self, database: sqlite3.Connection) -> int:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (FENCE,)).fetchone():
            return 0
        found = database.execute(filled(ASK_FENCE, self.project, self.dataset)).fetchone()
        return int(found[0]) if found else 0

    def _table(self, view: OnlineView) -> str:
        return quoted(f"{self.project}_{view.name}")

    @contextmanager
    def _database(self, view: OnlineView | None) -> Iterator[sqlite3.Connection]:
        with _database(self.path, self.connections, self._table(view) if view else "") as database:
            yield database


def _select(
    connection: sqlite3.Connection, table: str, features: tuple[str, ...], keys: Sequence[bytes]
) -> list[tuple[Any, ...]]:
    """The rows of these keys, also of a table that 0.1 wrote."""
    try:
        return connection.execute(_question(table, features, len(keys)), keys).fetchall()
    except sqlite3.OperationalError as error:
        if f"no such column: t.{KEY}" not in str(error):
            raise
        return connection.execute(_question(table, features, len(keys), is_old=True), keys).fetchall()


@lru_cache(256)
def _question(table: str, features: tuple[str, ...], count: int, *, is_old: bool = False) -> str:
    """The query for the rows of so many keys."""
    names, marks = qualified("t", features, is_old=is_old), ",".join("?" * count)
    return f"SELECT {', '.join(names)} FROM {quoted(table)} t WHERE {names[0]} IN ({marks})"  # noqa: S608  our own names


def _columns(database: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in database.execute(f"PRAGMA table_info({table})")}


def _path(config: RepoConfig) -> Path:
    return Path(config.repo_path or ".") / str(config.online_store.path)


@contextmanager
def _database(path: Path, connections: dict[Path, sqlite3.Connection], table: str = "") -> Iterator[sqlite3.Connection]:
    """The connection; a transaction that is not committed goes back."""
    try:
        if path not in connections:
            connections[path] = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
            # Readers in other processes go on reading what was there while we write.
            connections[path].execute("PRAGMA journal_mode = WAL")
        database = connections[path]
        try:
            yield database
        finally:
            database.rollback()
    except sqlite3.Error as error:
        raise _refusal(path, table, error) from error


def _refusal(path: Path, table: str, error: sqlite3.Error) -> FeatureStoreError:
    """The error of a file that cannot be read or written."""
    named = f", table {table}" if table else ""
    kind = FeatureStoreUnavailableError if is_transient_sql_error(error) else FeatureStoreError
    return kind(
        f"The online store {path}{named}: {error}. Nothing in it was changed."
        " FEAST_ONLINE_STORE_PATH is its path: check that it can be written, then publish again."
    )
