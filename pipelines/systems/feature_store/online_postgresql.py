"""The PostgreSQL online store: rows come and go by `COPY`, in transactions that readers never see half of."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import polars as pl
import pyarrow as pa
from adbc_driver_manager import Error
from adbc_driver_postgresql import dbapi
from feast import FeatureStore
from sqlalchemy.engine import URL

from pipelines import faults
from pipelines.systems.feature_store.encoding import KEY
from pipelines.systems.feature_store.errors import FeatureStoreError
from pipelines.systems.feature_store.online import View
from pipelines.systems.feature_store.online_sql import (
    ASK_FENCE,
    MAKE_FENCE,
    PASS_FENCE,
    SCHEMA,
    arrow,
    cells,
    filled,
    literal,
    overtaken,
    quoted,
    wide,
)
from pipelines.systems.postgresql import said_without

STAMP_TYPE = pa.timestamp("us", "UTC")
MICROSECONDS = "(extract(epoch FROM event_ts) * 1000000)::bigint AS event_ts"
COLUMNS = "entity_key, feature_name, value, event_ts"
OPTIONS = ("sslmode", "sslkey", "sslcert", "sslrootcert")


@dataclass(frozen=True)
class PostgreSQL:
    """The schema of one project."""

    address: URL = field(repr=False)
    schema: str
    project: str

    @classmethod
    def of(cls, store: FeatureStore) -> Self:
        """The one of `feature_store.yaml`."""
        found = store.config.online_store
        files = (found.sslmode, found.sslkey_path, found.sslcert_path, found.sslrootcert_path)
        query = {name: str(value) for name, value in zip(OPTIONS, files, strict=True) if value}
        address = URL.create(
            "postgresql",
            found.user,
            found.password,
            found.host,
            int(found.port),
            found.database,
            {**query, "connect_timeout": "10", "application_name": "headrace"},
        )
        return cls(address, found.db_schema or found.user, store.project)

    def rows(self, view: View, among: pl.Series | None = None) -> pl.DataFrame:
        """As `Online`."""
        select = f"SELECT entity_key, feature_name, value, {MICROSECONDS} FROM {self._table(view)}"  # noqa: S608  our own names
        with self._cursor(view) as cursor:
            if among is not None:
                cursor.adbc_ingest("headrace_keys", _keys(among), mode="create", temporary=True)
                select += " WHERE entity_key IN (SELECT entity_key FROM headrace_keys)"
            cursor.execute(select)
            return wide(pl.DataFrame(cursor.fetch_arrow_table()).cast(pl.Schema(SCHEMA)), view)

    def keys(self, view: View) -> pl.Series:
        """As `Online`."""
        with self._cursor(view) as cursor:
            cursor.execute(f"SELECT DISTINCT entity_key FROM {self._table(view)}")  # noqa: S608
            return pl.DataFrame(cursor.fetch_arrow_table())["entity_key"].cast(pl.Binary).alias(KEY)

    def change(self, view: View, write: pl.DataFrame, delete: pl.Series, generation: int) -> None:
        """As `Online`, in one transaction."""
        table = self._table(view)
        with self._cursor(view) as cursor:
            self._pass_fence(cursor, generation)
            if write.height:
                cursor.adbc_ingest(
                    "headrace_new", arrow(cells(write, view), event_ts=STAMP_TYPE), mode="create", temporary=True
                )
                cursor.execute(
                    f"INSERT INTO {table} ({COLUMNS}) SELECT {COLUMNS} FROM headrace_new"  # noqa: S608
                    " ON CONFLICT (entity_key, feature_name) DO UPDATE SET value = excluded.value, value_text = NULL,"
                    " vector_value = NULL, event_ts = excluded.event_ts, created_ts = NULL"
                )
            if delete.len():
                cursor.adbc_ingest("headrace_gone", _keys(delete), mode="create", temporary=True)
                gone = "SELECT entity_key FROM headrace_gone"
                cursor.execute(f"DELETE FROM {table} WHERE entity_key IN ({gone})")  # noqa: S608
            faults.point("commit of the online values")
            cursor.connection.commit()

    def generation(self) -> int:
        """As `Online`."""
        with self._cursor(None) as cursor:
            cursor.execute("SELECT to_regclass('headrace_fence') IS NOT NULL")
            return self._held(cursor) if cursor.fetchall()[0][0] else 0

    def stamps(self, times: pl.Series) -> pl.Series:
        """As they are."""
        return times

    def _pass_fence(self, cursor: Any, generation: int) -> None:  # noqa: ANN401  ADBC has no types
        if not self.generation():
            cursor.execute(MAKE_FENCE)
        cursor.execute(filled(PASS_FENCE, self.project, generation))
        seen = self._held(cursor)
        if seen != generation:
            raise overtaken(self.project, generation, seen)

    def _held(self, cursor: Any) -> int:  # noqa: ANN401
        cursor.execute(filled(ASK_FENCE, self.project))
        return next((int(row[0]) for row in cursor.fetchall()), 0)

    def _table(self, view: View) -> str:
        return f"{quoted(self.schema)}.{quoted(f'{self.project}_{view.name}')}"

    @contextmanager
    def _cursor(self, view: View | None) -> Iterator[Any]:
        """A cursor in a transaction that goes back unless it is committed."""
        try:
            with (
                closing(dbapi.connect(self.address.render_as_string(hide_password=False))) as connection,
                closing(connection.cursor()) as cursor,
            ):
                cursor.execute(f"SELECT set_config('search_path', {literal(quoted(self.schema))}, false)")
                cursor.fetchall()
                yield cursor
        except Error as error:
            where = self.address.set(query={}).render_as_string(hide_password=True)
            table = f", table {self._table(view)}" if view else ""
            raise FeatureStoreError(
                f"The online store {where}{table}: {said_without(str(error), str(self.address.password or ''))}."
                " Nothing of it was changed. See that it runs and that this user may write, then publish again."
            ) from None


def _keys(keys: pl.Series) -> pa.Table:
    return arrow(keys.alias("entity_key").to_frame())
