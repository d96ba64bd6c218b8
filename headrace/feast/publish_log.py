"""Who publishes, and what is online: a row a dataset in the database of Feast's registry. Nothing here imports Feast.

A publisher is given a generation, one more than the last. Who has a lower one than the row says has been overtaken, and
can switch nothing: the row is locked and compared while the registry is written. The row also keeps the last proof.
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
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from headrace import failpoints
from headrace.errors import HeadraceError, TransientError
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


class OvertakenError(HeadraceError):
    """Another publish came later and was given the lead.

    It is terminal, as a fenced producer of Kafka is: to publish again would take the lead back from the newer one.
    """


class RegistryError(HeadraceError):
    """The registry's database refuses, or is damaged."""


class RegistryUnavailableError(RegistryError, TransientError):
    """The registry's database does not answer, or gave up our transaction."""


@dataclass(frozen=True)
class Online:
    """What the last publish that switched or proved wrote down.

    Attributes:
        switched_at: When, ISO 8601.
        proof: Its report.
    """

    switched_at: datetime
    proof: dict[str, Any]


@dataclass(frozen=True)
class Publications:
    """The row of one dataset."""

    engine: Engine
    dataset: str

    @classmethod
    def at(cls, registry: str, dataset: str) -> Self:
        """The row in the database of the registry at that SQLAlchemy address.

        A registry in an SQLite file has it in a file beside: there, one transaction locks the whole database, and
        Feast could not write its own while we hold ours.
        """
        url = make_url(registry)
        if url.get_backend_name() == "sqlite":
            url = url.set(database=f"{url.database}.headrace")
            return cls(create_engine(url, connect_args={"timeout": BUSY_SECONDS}), dataset)
        return cls(create_engine(_modern(url), pool_pre_ping=True), dataset)

    def take(self, at_least: int = 0) -> int:
        """A generation higher than any before, and than `at_least`: whoever published until now is overtaken."""
        with self.known():
            self._make()
            with self.engine.begin() as database:
                held = self._generation(database, lock=True)
                mine = max(held, at_least) + 1
                with failpoints.failpoint("lead of the publisher"):
                    database.execute(update(TABLE).where(self._mine).values(generation=mine))
            return mine

    @contextmanager
    def held(self, generation: int) -> Iterator[Connection]:
        """Keep every other publisher out until the block ends.

        Raises:
            OvertakenError: There has been a later one.
        """
        with self.known(), self.engine.begin() as database:
            seen = self._generation(database, lock=True)
            if seen != generation:
                raise OvertakenError(
                    f"{self.dataset}: another publish ({seen}) came after this one ({generation}) and has the lead."
                    " Nothing was switched now. If that one is of an older release, run"
                    f" `headrace publish {self.dataset}` again."
                )
            yield database

    # no failpoint: in the transaction of the switch, which is a failpoint
    def note(self, database: Connection, proof: dict[str, Any]) -> None:
        """Write down what is online, in the transaction of `held`."""
        values = {"switched_at": datetime.now(UTC).isoformat(timespec="seconds"), "proof": json.dumps(proof)}
        database.execute(update(TABLE).where(self._mine).values(**values))

    # no failpoint: what it makes is a temporary table of its own connection
    def online(self) -> Online | None:
        """What was written down last; None before the first publish."""
        file = self.engine.url.database or ""
        if self.engine.dialect.name == "sqlite" and not Path(file).exists():
            return None
        with self.known(), self.engine.connect() as database:
            if not inspect(database).has_table(TABLE.name):
                return None
            row = database.execute(select(TABLE.c.switched_at, TABLE.c.proof).where(self._mine)).first()
        return Online(datetime.fromisoformat(row.switched_at), json.loads(row.proof)) if row and row.proof else None

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
        return int(found or 0)

    # no failpoint: what it makes is a temporary table of its own connection
    def _make(self) -> None:
        """The table and the row; two that make them at once both find them made."""
        for _ in range(2):
            try:
                with failpoints.failpoint("table of the publishers"):
                    TABLE.metadata.create_all(self.engine)
                with self.engine.begin() as database:
                    if database.execute(select(TABLE.c.dataset).where(self._mine)).first():
                        return
                    new = {"dataset": self.dataset, "generation": 0, "switched_at": "", "proof": ""}
                    with failpoints.failpoint("row of the publisher"):
                        database.execute(insert(TABLE).values(**new))
            except (IntegrityError, DBAPIError):
                continue

    @contextmanager
    def known(self) -> Iterator[None]:
        """What uses the registry's database stands in this block.

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
                f" {str(error).splitlines()[0]}. What was served is served, or the new release, whole, where the switch"
                " was under way. `headrace stack status` says whether it runs, FEAST_REGISTRY_URL where it is looked"
                " for; then run the command again."
            ) from error


def _modern(url: URL) -> URL:
    """The address with the driver that is installed."""
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url
