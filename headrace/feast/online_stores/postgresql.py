"""The PostgreSQL online store: rows come and go by `COPY`, in transactions that readers never see half of."""

# no failpoint: nobody sees it before the transaction ends, and that is a failpoint

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import polars as pl
import psycopg
import pyarrow as pa
from adbc_driver_manager import Error
from adbc_driver_postgresql import dbapi
from feast import FeatureStore
from feast.infra.utils.postgres.connection_utils import _get_conn, _get_connection_pool
from feast.infra.utils.postgres.postgres_config import ConnectionType, PostgreSQLConfig
from feast.repo_config import RepoConfig
from sqlalchemy.engine import URL

from headrace import failpoints
from headrace.feast.online_stores.sql_dialect import (
    ASK_FENCE,
    FENCE,
    HOLD_FENCE,
    MAKE_FENCE,
    OLD_COLUMNS,
    RAISE_FENCE,
    columns,
    filled,
    literal,
    qualified,
    quoted,
    rename_statements,
)
from headrace.feast.online_stores.sql_store import TableOnlineStore
from headrace.feast.online_stores.writer import OnlineView, fenced_error
from headrace.feast.types import KEY, STAMP
from headrace.feast.variables import expand_options
from headrace.ingest.database.postgresql import CONNECTION_OPTIONS, libpq_address, redact
from headrace.retrieve.errors import FeatureStoreError, FeatureStoreUnavailableError
from headrace.storage.sql_errors import is_transient_sql_error

OPTIONS = ("sslmode", "sslkey", "sslcert", "sslrootcert")
LOCK_S = 60
"""Seconds that a statement waits for somebody else's transaction, at most."""

LIMIT_EXCEEDED = "54"
"""Class of the SQLSTATE of what does not fit: a row, for example, that is larger than a page."""


class HeadracePostgreSQLOnlineStoreConfig(PostgreSQLConfig):
    """The `online_store` of `feature_store.yaml`: Feast's own options of `postgres`."""

    type: Literal["headrace.feast.online_stores.postgresql.HeadracePostgreSQLOnlineStore"] = (
        "headrace.feast.online_stores.postgresql.HeadracePostgreSQLOnlineStore"
    )

    _expanded = expand_options


class HeadracePostgreSQLOnlineStore(TableOnlineStore):
    """Serves what was published to a PostgreSQL schema, over one connection or, with `conn_type: pool`, several."""

    max_features = 1598  # MaxHeapAttributeNumber is 1,600; two columns are the key and the time

    def __init__(self) -> None:
        self._connection: Any = None
        self._pool: Any = None
        self._writers: dict[URL, Any] = {}

    def rows_of(
        self, config: RepoConfig, table: str, features: tuple[str, ...], keys: Sequence[bytes]
    ) -> Mapping[bytes, Sequence[Any]]:
        """As the base class says; a connection that was lost is made anew, once; also of a table that 0.1 wrote."""
        found, schema = config.online_store, _schema(config)
        query = _question(schema, table, features)
        try:
            try:
                rows = self._rows(found, query, keys)
            except psycopg.OperationalError:
                self.disconnect()
                rows = self._rows(found, query, keys)
            except psycopg.errors.UndefinedColumn as error:
                if f"t.{KEY}" not in str(error):
                    raise
                rows = self._rows(found, _question(schema, table, features, is_old=True), keys)
        except psycopg.Error as error:
            name = f"{quoted(schema)}.{quoted(table)}"
            raise _kind(error)(
                f"The online store at {found.host}:{found.port}, table {name}: {redact(str(error), found.password)}."
                " Check that it runs and that the dataset is published, then ask or publish again."
            ) from None
        return {row[0]: row for row in rows}

    def _rows(self, options: PostgreSQLConfig, query: str, keys: Sequence[bytes]) -> list[Sequence[Any]]:
        with self._connected(options) as connection, connection.cursor(binary=True) as cursor:
            return list(cursor.execute(query, (list(keys),)).fetchall())

    @contextmanager
    def _connected(self, options: PostgreSQLConfig) -> Iterator[Any]:
        if options.conn_type == ConnectionType.pool:
            if self._pool is None:
                self._pool = _get_connection_pool(options)
                self._pool.open()
            with self._pool.connection() as connection:
                yield connection
            return
        if self._connection is None:
            self._connection = _get_conn(options)
            self._connection.set_autocommit(True)
        yield self._connection

    def make(self, config: RepoConfig, keep: Mapping[str, Sequence[str]], drop: Iterable[str]) -> None:
        """As the base class says, in one transaction."""
        schema = quoted(_schema(config))
        with self.publisher_of(config, "").cursor() as cursor:
            cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            for table in drop:
                cursor.execute(f"DROP TABLE IF EXISTS {schema}.{quoted(table)}")
            for table, features in keep.items():
                name, cells = f"{schema}.{quoted(table)}", "".join(f", {quoted(name)} bytea" for name in features)
                own = f"{quoted(KEY)} bytea PRIMARY KEY, {quoted(STAMP)} bigint"
                cursor.execute(f"CREATE TABLE IF NOT EXISTS {name} ({own}{cells})")
                for feature in features:
                    cursor.execute(f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS {quoted(feature)} bytea")
            cursor.connection.commit()

    def disconnect(self) -> None:
        """As the base class says."""
        for held in (self._connection, self._pool, *self._writers.values()):
            if held is not None:
                held.close()
        self._connection = self._pool = None
        self._writers.clear()

    def publisher(self, store: FeatureStore, dataset: str) -> "PostgreSQLWriter":
        """How the schema is written."""
        return self.publisher_of(store.config, dataset)

    def publisher_of(self, config: RepoConfig, dataset: str) -> "PostgreSQLWriter":
        """The same for a configuration."""
        found = config.online_store
        files = (found.sslmode, found.sslkey_path, found.sslcert_path, found.sslrootcert_path)
        query = {name: str(value) for name, value in zip(OPTIONS, files, strict=True) if value}
        address = URL.create(
            "postgresql",
            found.user,
            found.password,
            found.host,
            int(found.port),
            found.database,
            {**query, **CONNECTION_OPTIONS},
        )
        return PostgreSQLWriter(address, _schema(config), config.project, dataset, self._writers)


@dataclass(frozen=True)
class PostgreSQLWriter:
    """The schema of one project.

    Attributes:
        address: The database.
        schema: The schema.
        project: The project.
        dataset: The dataset, which has a fence of its own.
        connections: The connection to that address, once there is one; whoever gave the mapping closes it.
    """

    address: URL = field(repr=False)
    schema: str
    project: str
    dataset: str
    connections: dict[URL, Any] = field(repr=False, compare=False)

    def rows(self, view: OnlineView, among: pl.Series | None = None) -> pl.DataFrame:
        """As `Online`."""
        select = f"SELECT {columns(view.features)} FROM {self._table(view)}"  # noqa: S608  our own names
        with self.cursor(view) as cursor:
            if among is not None:
                cursor.adbc_ingest("headrace_keys", _keys(among), mode="create", temporary=True)
                select += f" WHERE {quoted(KEY)} IN (SELECT entity_key FROM headrace_keys)"  # noqa: S608
            cursor.execute(select)
            kinds = {KEY: pl.Binary, STAMP: pl.Int64, **dict.fromkeys(view.features, pl.Binary)}
            return pl.DataFrame(cursor.fetch_arrow_table()).cast(pl.Schema(kinds))

    def keys(self, view: OnlineView) -> pl.Series:
        """As `Online`."""
        with self.cursor(view) as cursor:
            cursor.execute(f"SELECT {quoted(KEY)} FROM {self._table(view)}")  # noqa: S608  our own names
            return pl.DataFrame(cursor.fetch_arrow_table())[KEY].cast(pl.Binary)

    def change(self, view: OnlineView, write: pl.DataFrame, delete: pl.Series, generation: int) -> None:
        """As `Online`, in one transaction."""
        table = self._table(view)
        with self.cursor(view) as cursor:
            self._hold_fence(cursor, generation)
            if write.height:
                cursor.adbc_ingest("headrace_new", _arrow(write, view), mode="create", temporary=True)
                names = columns(view.features)
                values = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in (STAMP, *view.features))
                cursor.execute(
                    f"INSERT INTO {table} ({names}) SELECT {names} FROM headrace_new"  # noqa: S608
                    f" ON CONFLICT ({quoted(KEY)}) DO UPDATE SET {values}"
                )
            if delete.len():
                cursor.adbc_ingest("headrace_gone", _keys(delete), mode="create", temporary=True)
                gone = "SELECT entity_key FROM headrace_gone"
                cursor.execute(f"DELETE FROM {table} WHERE {quoted(KEY)} IN ({gone})")  # noqa: S608
            for name in ("headrace_new", "headrace_gone"):
                cursor.execute(f"DROP TABLE IF EXISTS pg_temp.{name}")
            with failpoints.failpoint("commit of the online values"):
                cursor.connection.commit()

    def take_lead(self, generation: int, last: int) -> None:
        """As `Online`."""
        with self.cursor() as cursor:
            if not self._has_fence(cursor):
                cursor.execute(MAKE_FENCE)
            seen = self._held(cursor)
            if not last <= seen <= generation:
                raise fenced_error(self.dataset, generation, seen)
            cursor.execute(filled(RAISE_FENCE, self.project, self.dataset, generation))
            if (seen := self._held(cursor)) != generation:
                raise fenced_error(self.dataset, generation, seen)
            cursor.connection.commit()

    def generation(self) -> int:
        """As `Online`."""
        with self.cursor(None) as cursor:
            return self._held(cursor) if self._has_fence(cursor) else 0

    def stamps(self, times: pl.Series) -> pl.Series:
        """As they are."""
        return times

    def migrate(self, views: Iterable[OnlineView]) -> list[str]:
        """As `OnlineStoreWriter`, in one transaction."""
        names = ", ".join(literal(self._table(view)) for view in views)
        old = (
            f"SELECT name FROM unnest(ARRAY[{names}]) name JOIN pg_attribute ON attrelid = to_regclass(name)"  # noqa: S608
            f" AND attname = {literal(OLD_COLUMNS[KEY])} AND NOT attisdropped"
        )
        with self.cursor() as cursor:
            cursor.execute(old)
            tables = [row[0] for row in cursor.fetchall()]
            for table in tables:
                for statement in rename_statements(table):
                    cursor.execute(statement)
            if tables:
                with failpoints.failpoint("columns of tables that 0.1 wrote"):
                    cursor.connection.commit()
        return tables

    @contextmanager
    def cursor(self, view: OnlineView | None = None) -> Iterator[Any]:
        """A cursor in a transaction that goes back unless it is committed; temporary tables go in any case."""
        try:
            if self.address not in self.connections:
                self.connections[self.address] = dbapi.connect(libpq_address(self.address))
            connection = self.connections[self.address]
            try:
                with closing(connection.cursor()) as cursor:
                    path = f"set_config('search_path', {literal(quoted(self.schema))}, false)"
                    cursor.execute(f"SELECT {path}, set_config('lock_timeout', '{LOCK_S}s', false)")
                    cursor.fetchall()
                    yield cursor
            finally:
                # A line that was cut says so where it was used; that nothing can go back over it says less.
                with suppress(Error):
                    connection.rollback()
        except Error as error:
            self._drop_connection()
            where = self.address.set(query={}).render_as_string(hide_password=True)
            table = f", table {self._table(view)}" if view else ""
            advice = "Check that it runs and that this user may write, then publish again: it writes what is missing."
            if str(error.sqlstate or "").startswith(LIMIT_EXCEEDED):
                advice = "Divide the feature table into several with fewer features, release and publish again."
            raise _kind(error)(
                f"The online store {where}{table}: {redact(str(error), str(self.address.password or ''))}."
                f" The slot that was being loaded is not served. {advice}"
            ) from None

    def _drop_connection(self) -> None:
        """The next cursor makes a new one."""
        connection = self.connections.pop(self.address, None)
        if connection is not None:
            with suppress(Error):
                connection.close()

    def _hold_fence(self, cursor: Any, generation: int) -> None:  # noqa: ANN401  ADBC has no types
        there = self._has_fence(cursor)
        if there:
            cursor.execute(filled(HOLD_FENCE, self.project, self.dataset, generation))
        seen = self._held(cursor) if there else 0
        if seen != generation:
            raise fenced_error(self.dataset, generation, seen)

    @staticmethod
    def _has_fence(cursor: Any) -> bool:  # noqa: ANN401
        cursor.execute(f"SELECT to_regclass({literal(FENCE)}) IS NOT NULL")
        return bool(cursor.fetchall()[0][0])

    def _held(self, cursor: Any) -> int:  # noqa: ANN401
        cursor.execute(filled(ASK_FENCE, self.project, self.dataset))
        return next((int(row[0]) for row in cursor.fetchall()), 0)

    def _table(self, view: OnlineView) -> str:
        return f"{quoted(self.schema)}.{quoted(f'{self.project}_{view.name}')}"


def _kind(error: Exception) -> type[FeatureStoreError]:
    """The class of the error that we raise for one of a driver."""
    return FeatureStoreUnavailableError if is_transient_sql_error(error) else FeatureStoreError


@lru_cache(256)
def _question(schema: str, table: str, features: tuple[str, ...], *, is_old: bool = False) -> str:
    """The query for the rows of some keys."""
    names = qualified("t", features, is_old=is_old)
    return f"SELECT {', '.join(names)} FROM {quoted(schema)}.{quoted(table)} t WHERE {names[0]} = ANY(%b)"  # noqa: S608  our own names


def _schema(config: RepoConfig) -> str:
    return str(config.online_store.db_schema or config.online_store.user)


def _arrow(rows: pl.DataFrame, view: OnlineView) -> pa.Table:
    """The rows as PostgreSQL's driver takes them, in order of keys, which is that of the index."""
    kinds = {KEY: pa.binary(), STAMP: pa.int64(), **dict.fromkeys(view.features, pa.binary())}
    return rows.sort(KEY).select(list(kinds)).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.schema(kinds))


def _keys(keys: pl.Series) -> pa.Table:
    found = keys.alias("entity_key").to_frame().to_arrow(compat_level=pl.CompatLevel.oldest())
    return found.cast(pa.schema({"entity_key": pa.binary()}))
