"""Who publishes, and what is online: one row per dataset in the registry's database. Nothing here imports Feast.

Every publisher gets a generation, one more than the last. A publisher with a lower generation than the row is fenced
off and cannot switch: the row is locked and compared while the registry is written. The row also keeps the last report.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    delete,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError

from headrace import failpoints
from headrace.errors import HeadraceError, NotConfiguredError, TransientError
from headrace.extras import require_extra
from headrace.storage.sql_errors import is_transient_sql_error

BUSY_SECONDS = 30
TABLE = Table(
    "headrace_publications",
    MetaData(),
    Column("dataset", String(255), primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("switched_at", String(32), nullable=False),
    Column("proof", Text, nullable=False),
)

RENAMED_IN_0_2 = {"side": "slot", "proofs": "verifications", "newest": "newest_times"}
TIMES_IN_0_1 = {"event": "event_time", "known": "known_time"}


class PublisherFencedError(HeadraceError):
    """A later publish of the dataset holds the lead: this one may not write any more.

    It is terminal, as a fenced producer of Kafka is: publishing again would take the lead back from the newer one.
    """


class RegistryError(HeadraceError):
    """The registry's database refuses, or is damaged."""


class RegistryUnavailableError(RegistryError, TransientError):
    """The registry's database does not answer, or gave up our transaction."""


@dataclass(frozen=True)
class PublishRecord:
    """What the last publish that switched or verified recorded.

    Attributes:
        switched_at: When it did.
        report: `PublishResult.report`, in today's names.
    """

    switched_at: datetime
    report: dict[str, Any]


@dataclass(frozen=True)
class PublishLog:
    """The row of one dataset."""

    engine: Engine
    dataset: str

    @classmethod
    def at(cls, registry: str, dataset: str) -> Self:
        """The row in the database of the registry at that SQLAlchemy address.

        A registry in an SQLite file has it in a file beside: there, one transaction locks the whole database, and
        Feast could not write its own while we hold ours.

        Raises:
            NotConfiguredError: The address cannot be used.
        """
        try:
            url = make_url(registry)
            url.get_dialect()
        except (ArgumentError, ImportError, ValueError):  # no address; no driver; a port that is no number
            raise NotConfiguredError(
                "FEAST_REGISTRY_URL is not an SQLAlchemy address that can be used, such as sqlite:////path/registry.db"
                " or postgresql+psycopg://user:password@host/feast. Its text is not shown because it may contain a"
                " password. Correct it in the environment or in .env."
            ) from None
        if url.get_backend_name() == "sqlite":
            url = url.set(database=f"{url.database}.headrace")
            return cls(create_engine(url, connect_args={"timeout": BUSY_SECONDS}), dataset)
        if url.get_backend_name() == "postgresql":
            require_extra("postgres", "Feast's registry in PostgreSQL")
        return cls(create_engine(_modern(url), pool_pre_ping=True), dataset)

    def take_lead(self, at_least: int = 0) -> int:
        """A generation higher than any before, and than `at_least`: every earlier publisher is fenced off."""
        with self.translated_errors():
            self._make()
            with self.engine.begin() as database:
                held = self._generation(database, lock=True)
                mine = max(held, at_least) + 1
                with failpoints.failpoint("lead of the publisher"):
                    database.execute(update(TABLE).where(self._mine).values(generation=mine))
            return mine

    @contextmanager
    def hold_lead(self, generation: int) -> Iterator[Connection]:
        """Keep every other publisher out until the block ends.

        Raises:
            PublisherFencedError: There has been a later one.
        """
        with self.translated_errors(), self.engine.begin() as database:
            seen = self._generation(database, lock=True)
            if seen != generation:
                raise PublisherFencedError(
                    f"{self.dataset}: a later publish ({seen}) than this one ({generation}) holds the lead. Nothing was"
                    f" switched. If that one is of an older release, run `headrace publish {self.dataset}` again."
                )
            yield database

    @contextmanager
    def pause_switches(self) -> Iterator[None]:
        """Let nobody switch until the block ends; whoever is about to waits."""
        with self.translated_errors():
            self._make()
            with self.engine.begin() as database:
                self._generation(database, lock=True)
                yield

    # no failpoint: in the transaction of the switch, which is a failpoint
    def record(self, database: Connection, proof: dict[str, Any]) -> None:
        """Record what is online, in the transaction of `hold_lead`."""
        values = {"switched_at": datetime.now(UTC).isoformat(timespec="seconds"), "proof": json.dumps(proof)}
        database.execute(update(TABLE).where(self._mine).values(**values))

    # no failpoint: what it makes is a temporary table of its own connection
    def online(self) -> PublishRecord | None:
        """The last record; None before the first publish."""
        file = self.engine.url.database or ""
        if self.engine.dialect.name == "sqlite" and not Path(file).exists():
            return None
        with self.translated_errors(), self.engine.connect() as database:
            if not inspect(database).has_table(TABLE.name):
                return None
            row = database.execute(select(TABLE.c.switched_at, TABLE.c.proof).where(self._mine)).first()
        if not (row and row.proof):
            return None
        return PublishRecord(datetime.fromisoformat(row.switched_at), _current(json.loads(row.proof)))

    def forget(self) -> None:
        """Delete the row: the dataset is not published any more."""
        file = self.engine.url.database or ""
        if self.engine.dialect.name == "sqlite" and not Path(file).exists():
            return
        with self.translated_errors(), self.engine.begin() as database:
            if inspect(database).has_table(TABLE.name):
                with failpoints.failpoint("row of a publisher that is gone"):
                    database.execute(delete(TABLE).where(self._mine))

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    @property
    def _mine(self) -> Any:  # noqa: ANN401  an SQL expression
        return TABLE.c.dataset == self.dataset

    # no failpoint: locks a row, and changes nothing in it
    def _generation(self, database: Connection, *, lock: bool) -> int:
        if lock:
            # An update that changes nothing locks the row on every database, and on SQLite the file.
            database.execute(update(TABLE).where(self._mine).values(dataset=self.dataset))
        found = database.execute(select(TABLE.c.generation).where(self._mine)).scalar()
        if found is None:
            raise RegistryError(
                f"{self.dataset}: the registry's database has lost who publishes it: expected a row in {TABLE.name},"
                f" found none. Nothing was switched. Run `headrace publish {self.dataset}` again."
            )
        return int(found)

    def _make(self) -> None:
        """The table and the row; of two publishers that make them at once, the slower one finds them made."""
        try:
            with failpoints.failpoint("table of the publishers"):
                TABLE.metadata.create_all(self.engine)
        except DBAPIError:
            if not inspect(self.engine).has_table(TABLE.name):
                raise
        if self._has_row():
            return
        new = {"dataset": self.dataset, "generation": 0, "switched_at": "", "proof": ""}
        try:
            with self.engine.begin() as database, failpoints.failpoint("row of the publisher"):
                database.execute(insert(TABLE).values(**new))
        except IntegrityError:
            if not self._has_row():
                raise

    # no failpoint: what it makes is a temporary table of its own connection
    def _has_row(self) -> bool:
        with self.engine.connect() as database:
            return database.execute(select(TABLE.c.dataset).where(self._mine)).first() is not None

    @contextmanager
    def translated_errors(self) -> Iterator[None]:
        """Turn errors of the registry's database into ours.

        Raises:
            RegistryUnavailableError: The database does not answer.
            RegistryError: It refuses.
        """
        try:
            yield
        except SQLAlchemyError as error:
            where = self.engine.url.set(query={}).render_as_string(hide_password=True)
            transient = is_transient_sql_error(error)
            raise (RegistryUnavailableError if transient else RegistryError)(
                f"{self.dataset}: the registry's database at {where} {'does not answer' if transient else 'refuses'}:"
                f" {str(error).splitlines()[0]}. What was served is still served; if the switch was under way, it may"
                " be the new release. `headrace stack status` shows whether the database runs; FEAST_REGISTRY_URL is"
                " its address. Then run the command again."
            ) from error


def _current(report: dict[str, Any]) -> dict[str, Any]:
    """The report with the names that it has since 0.2; a registry keeps reports of 0.1 until the next publish."""
    found = {RENAMED_IN_0_2.get(name, name): value for name, value in report.items()}
    newest = found.get("newest_times", {})
    found["newest_times"] = {
        table: {TIMES_IN_0_1.get(name, name): time for name, time in times.items()} for table, times in newest.items()
    }
    return found


def _modern(url: URL) -> URL:
    """The address with the driver that is installed."""
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url
