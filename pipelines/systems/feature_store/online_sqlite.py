"""The SQLite online store: one file, one writer at a time, readers undisturbed.

Only through Python's own SQLite, as Feast does: a second copy of the library in one process breaks the first one's
locks when it closes the file.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import polars as pl
from feast import FeatureStore

from pipelines import faults
from pipelines.systems.feature_store.encoding import KEY, STAMP
from pipelines.systems.feature_store.errors import FeatureStoreError
from pipelines.systems.feature_store.online import View
from pipelines.systems.feature_store.online_sql import (
    ASK_FENCE,
    MAKE_FENCE,
    PASS_FENCE,
    filled,
    literal,
    overtaken,
    quoted,
)

BUSY_SECONDS = 30.0


@dataclass(frozen=True)
class SQLite:
    """The database of one project."""

    path: Path
    project: str

    @classmethod
    def of(cls, store: FeatureStore) -> Self:
        """The one of `feature_store.yaml`."""
        config = store.config
        return cls(Path(config.repo_path or ".") / config.online_store.path, store.project)

    def rows(self, view: View, among: pl.Series | None = None) -> pl.DataFrame:
        """As `Online`."""
        # A row a key comes out of SQLite itself: a fifth of the objects that a row a value would be.
        time_of = "CASE WHEN min(event_ts) = max(event_ts) THEN max(event_ts) END"
        values = [f"max(CASE feature_name WHEN {literal(name)} THEN value END)" for name in view.features]
        # CROSS JOIN tells SQLite to look the wanted keys up, and not to walk through all there are.
        chosen = "wanted CROSS JOIN " if among is not None else ""
        where = " WHERE t.entity_key = wanted.entity_key" if among is not None else ""
        select = f"SELECT t.entity_key, {', '.join((time_of, *values))} FROM {chosen}{self._table(view)} t{where}"  # noqa: S608  our own names
        with self._database(view) as database:
            if among is not None:
                database.execute("CREATE TEMP TABLE wanted (entity_key BLOB PRIMARY KEY) WITHOUT ROWID")
                database.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", zip(among, strict=True))
            found = database.execute(f"{select} GROUP BY t.entity_key").fetchall()
        kinds = {KEY: pl.Binary, STAMP: pl.Int64, **dict.fromkeys(view.features, pl.Binary)}
        columns = zip(*found, strict=True) if found else ([] for _ in kinds)
        return pl.DataFrame(dict(zip(kinds, columns, strict=True)), schema=kinds)

    def keys(self, view: View) -> pl.Series:
        """As `Online`."""
        with self._database(view) as database:
            found = database.execute(f"SELECT DISTINCT entity_key FROM {self._table(view)}").fetchall()  # noqa: S608
        return pl.Series(KEY, [key for (key,) in found], dtype=pl.Binary)

    def change(self, view: View, write: pl.DataFrame, delete: pl.Series, generation: int) -> None:
        """As `Online`, in one transaction."""
        table = self._table(view)
        rows = ", ".join(f"(?1, {literal(name)}, ?{place}, ?2)" for place, name in enumerate(view.features, 3))
        insert = f"INSERT OR REPLACE INTO {table} (entity_key, feature_name, value, event_ts) VALUES {rows}"  # noqa: S608
        with self._database(view) as database:
            database.execute("BEGIN IMMEDIATE")
            self._pass_fence(database, generation)
            # In order of keys, which is that of the index.
            database.executemany(insert, write.sort(KEY).select(KEY, STAMP, *view.features).iter_rows())
            database.executemany(f"DELETE FROM {table} WHERE entity_key = ?", zip(delete, strict=True))  # noqa: S608
            faults.point("commit of the online values")
            database.execute("COMMIT")

    def generation(self) -> int:
        """As `Online`."""
        with self._database(None) as database:
            made = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'headrace_fence'").fetchone()
            return self._held(database) if made else 0

    def stamps(self, times: pl.Series) -> pl.Series:
        """Whole seconds. Feast writes UTC without its zone, and reads that as local time: so do we."""
        seconds = times // 1_000_000
        if time.timezone == 0 and not time.daylight:
            return seconds
        local = {found: _local(found) for found in seconds.unique()}
        return seconds.replace_strict(local, return_dtype=pl.Int64)

    def _pass_fence(self, database: sqlite3.Connection, generation: int) -> None:
        database.execute(MAKE_FENCE)
        database.execute(filled(PASS_FENCE, self.project, generation))
        seen = self._held(database)
        if seen != generation:
            raise overtaken(self.project, generation, seen)

    def _held(self, database: sqlite3.Connection) -> int:
        found = database.execute(filled(ASK_FENCE, self.project)).fetchone()
        return int(found[0]) if found else 0

    def _table(self, view: View) -> str:
        return quoted(f"{self.project}_{view.name}")

    @contextmanager
    def _database(self, view: View | None) -> Iterator[sqlite3.Connection]:
        """A connection; a transaction that is not committed goes back with it."""
        try:
            with closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)) as database:
                # Readers in other processes go on reading what was there while we write.
                database.execute("PRAGMA journal_mode = WAL")
                yield database
        except sqlite3.Error as error:
            table = f", table {self._table(view)}" if view else ""
            raise FeatureStoreError(
                f"The online store {self.path}{table}: {error}. Nothing of it was changed."
                " FEAST_ONLINE_STORE_PATH says where it lies; see that it can be written, then publish again."
            ) from error


def _local(seconds: int) -> int:
    return int(datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).timestamp())
