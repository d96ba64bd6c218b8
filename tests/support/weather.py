"""Table sources for the tests: weather of three days, in PostgreSQL and in SQLite. A pytest plugin."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dataframely as dy
import polars as pl
import pytest
from servers import PostgreSQL, Relay

from headrace.dataset import Dataset, Source, TableSource
from headrace.ingest.ingest import IngestResult, Progress, ingest
from headrace.settings import Settings
from headrace.storage.table_store import TableStore

TABLE = "raw/sky/weather"
WEATHER = TableSource("weather", ("origin", "at"), "updated_at", "at")
PLANES = TableSource("planes", ("tail",), "updated_at")
OLD = "2013-01-05 00:00:00+00:00"
NEW = "2013-02-01 00:00:00+00:00"
INSERT = "INSERT INTO weather VALUES "


def create_source(name: str, table: TableSource) -> Source:
    return Source(name, table, pl.read_parquet, dy.Schema, lambda rows: rows, table.key)


def create_dataset(**tables: TableSource) -> Dataset:
    return Dataset(
        name="sky",
        description="",
        owner="",
        sources=tuple(create_source(name, table) for name, table in tables.items()),
    )


@dataclass(frozen=True)
class Weather:
    """A database with three days of weather, and an empty workspace."""

    address: str
    run: Callable[[str], object]
    table_store: TableStore
    relay: Relay | None = None

    def ingest(
        self,
        table: TableSource = WEATHER,
        *,
        full_refresh: bool = False,
        progress: Progress = lambda _source, _done, _total: None,
    ) -> IngestResult:
        (result,) = ingest(
            create_dataset(weather=table),
            self.table_store,
            Settings(),
            full_refresh=full_refresh,
            progress=progress,
        )
        return result

    def rows(self, partition: str = "2013-01-01") -> pl.DataFrame:
        return pl.read_parquet(self.table_store.paths(TABLE)[partition])

    @property
    def hashes(self) -> dict[str, str]:
        """Partition → md5."""
        return {name: entry.md5 for name, entry in self.table_store.manifest(TABLE).partitions.items()}

    @property
    def reads(self) -> int:
        """Number of statements that read rows of the weather."""
        assert self.relay is not None
        return self.relay.count(b'COPY (SELECT "origin", "at"')


def create_weather_table(run: Callable[[str], object], timestamp_type: str, *, backwards: bool = False) -> None:
    """Create the table: three UTC days, two stations, three hours each."""
    run(f"CREATE TABLE weather (origin TEXT, at {timestamp_type}, temp REAL, updated_at {timestamp_type})")
    rows = [
        f"('{origin}', '2013-01-{day:02} {hour:02}:30:00+00:00', {day}.5, '{OLD}')"
        for day in (1, 2, 3)
        for hour in (0, 12, 23)
        for origin in ("EWR", "JFK")
    ]
    for row in reversed(rows) if backwards else rows:
        run(INSERT + row)


@pytest.fixture(scope="session")
def weather_database(postgres: PostgreSQL) -> str:
    return postgres.new_database()


@pytest.fixture
def postgresql_weather(
    postgres: PostgreSQL,
    weather_database: str,
    relay: Callable[[int], Relay],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Weather:
    name, proxy = weather_database, relay(postgres.port)

    def run(statement: str) -> object:
        with postgres.connect(name) as connection:
            return connection.execute(statement.encode())

    monkeypatch.setenv("HEADRACE_DATABASE_URL", postgres.address(name, port=proxy.port))
    run("DROP SCHEMA public CASCADE")
    run("CREATE SCHEMA public")
    create_weather_table(run, "timestamptz")
    return Weather(postgres.address(name, port=proxy.port), run, TableStore.at(tmp_path), proxy)


@pytest.fixture
def sqlite_weather(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weather:
    path = tmp_path / "source.db"

    def run(statement: str) -> object:
        connection = sqlite3.connect(path)
        try:
            with connection:
                return connection.execute(statement)
        finally:
            connection.close()

    monkeypatch.setenv("HEADRACE_DATABASE_URL", f"sqlite:///{path}")
    create_weather_table(run, "TIMESTAMP")
    return Weather(f"sqlite:///{path}", run, TableStore.at(tmp_path / "workspace"))


@pytest.fixture(params=["postgresql_weather", "sqlite_weather"])
def weather(request: pytest.FixtureRequest) -> Weather:
    database: Weather = request.getfixturevalue(request.param)
    return database
