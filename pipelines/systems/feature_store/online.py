"""The online store as a projection: bring a view to exactly these values by the difference, and read it back."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import polars as pl
from feast import FeatureStore
from feast.infra.key_encoding_utils import deserialize_entity_key, serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from pipelines.dataset import FeatureTable
from pipelines.features import EVENT_TIME
from pipelines.systems.feature_store.definitions import key_type, physical
from pipelines.systems.feature_store.errors import FeatureStoreError
from pipelines.systems.feature_store.types import kind_of

Cells = dict[tuple[bytes, str], tuple[bytes, int]]
"""Key and feature → value and event time, as the store's own bytes."""

BUSY_SECONDS = 30.0
KEY_VERSION = 3


@dataclass(frozen=True)
class Loaded:
    """What a load changed: keys written (new, or a value differed), deleted, and right already."""

    written: int
    deleted: int
    kept: int


@dataclass(frozen=True)
class Shelf:
    """The values of one physical view in the SQLite online store.

    Attributes:
        path: The database.
        name: Its table for the view.
        table: The feature table.
    """

    path: Path
    name: str
    table: FeatureTable

    @classmethod
    def of(cls, store: FeatureStore, table: FeatureTable, side: str) -> Self:
        """The values of `table` on `side`.

        Raises:
            FeatureStoreError: The online store is not SQLite.
        """
        config = store.config
        if config.online_store.type != "sqlite":
            raise FeatureStoreError(
                f"Publishing to an online store of type {config.online_store.type!r} is not built yet: expected sqlite."
                " Set it in feature_repo/feature_store.yaml."
            )
        path = Path(config.repo_path or ".") / config.online_store.path
        return cls(path, f'"{store.project}_{physical(table, side)}"', table)

    def load(self, wanted: pl.DataFrame) -> Loaded:
        """Make the view hold `wanted` (keys, event time, features; a row a key) and nothing else, in one transaction.

        Raises:
            FeatureStoreError: The database can not be written.
        """
        cells = self._encode(wanted)
        with self._database() as database:
            held = self._cells(database)
            write = {place: cell for place, cell in cells.items() if held.get(place) != cell}
            gone = held.keys() - cells.keys()
            database.execute("BEGIN IMMEDIATE")
            database.executemany(
                f"INSERT OR REPLACE INTO {self.name} (entity_key, feature_name, value, event_ts)"  # noqa: S608  our own name
                " VALUES (?, ?, ?, ?)",
                ((*place, *cell) for place, cell in write.items()),
            )
            database.executemany(f"DELETE FROM {self.name} WHERE entity_key = ? AND feature_name = ?", gone)  # noqa: S608
            database.execute("COMMIT")
        changed = {key for key, _ in write} | ({key for key, _ in gone} & {key for key, _ in cells})
        return Loaded(len(changed), len({key for key, _ in gone} - changed), wanted.height - len(changed))

    def read(self) -> pl.DataFrame:
        """Everything the view holds: keys and features, in the table's own types, through Feast's own decoding."""
        with self._database() as database:
            cells = self._cells(database)
        rows: dict[bytes, dict[str, Any]] = {}
        for (key, feature), (value, _) in cells.items():
            row = rows.setdefault(key, {})
            row[feature] = _value(value)
        return pl.DataFrame([self._keys(key) | row for key, row in rows.items()], schema=self.schema)

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """Keys and features with their types."""
        return {key: key_type(self.table, key) for key in self.table.keys} | dict(self.table.features)

    @staticmethod
    def _keys(key: bytes) -> dict[str, Any]:
        found = deserialize_entity_key(key, KEY_VERSION)
        return {name: _plain(value) for name, value in zip(found.join_keys, found.entity_values, strict=True)}

    def _encode(self, wanted: pl.DataFrame) -> Cells:
        keys = list(self._entity_keys(wanted))
        times = [_seconds(time) for time in wanted[EVENT_TIME]]
        cells: Cells = {}
        for feature, dtype in self.table.features.items():
            field = kind_of(feature, dtype).field
            for key, value, time in zip(keys, wanted[feature], times, strict=True):
                cells[key, feature] = _bytes(field, value), time
        return cells

    def _entity_keys(self, wanted: pl.DataFrame) -> Iterator[bytes]:
        names = list(self.table.keys)
        fields = [kind_of(name, key_type(self.table, name)).field for name in names]
        for row in wanted.select(names).iter_rows():
            values = [Value(**{field: value}) for field, value in zip(fields, row, strict=True)]
            yield serialize_entity_key(EntityKey(join_keys=names, entity_values=values), KEY_VERSION)

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)) as database:
                # Readers in other processes go on reading what was there while we write.
                database.execute("PRAGMA journal_mode = WAL")
                yield database
        except sqlite3.Error as error:
            raise FeatureStoreError(
                f"The online store {self.path}, table {self.name}: {error}. Nothing of it was changed."
                " FEAST_ONLINE_STORE_PATH says where it lies; see that it can be written, then publish again."
            ) from error

    def _cells(self, database: sqlite3.Connection) -> Cells:
        rows = database.execute(f"SELECT entity_key, feature_name, value, event_ts FROM {self.name}")  # noqa: S608
        return {(key, feature): (value, time) for key, feature, value, time in rows}


def _bytes(field: str, value: object) -> bytes:
    fields: Mapping[str, Any] = {} if value is None else {field: value}
    found: bytes = Value(**fields).SerializeToString()
    return found


def _value(found: bytes) -> Any:  # noqa: ANN401  whatever the feature holds
    return _plain(Value.FromString(found))


def _plain(value: Value) -> Any:  # noqa: ANN401
    field = value.WhichOneof("val")
    return None if field is None else getattr(value, field)


def _seconds(time: datetime) -> int:
    """How Feast writes a stamp to SQLite and reads it back: UTC without its zone, taken for local time."""
    return int(time.astimezone(UTC).replace(tzinfo=None).timestamp())
