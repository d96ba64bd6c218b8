"""ingest, of objects and of database tables, after some came, some changed and some went; rehearsed by `crashes.py`."""

import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dataframely as dy
import minimal_dataset
import polars as pl
from crash_harness import Seen
from crash_state import VISIBLE, copied, expect_shown, files, remove_locks, whole

from headrace.dataset import Source, TableSource
from headrace.ingest.ingest import ingest
from headrace.settings import Settings
from headrace.storage.s3.bucket import Bucket
from headrace.storage.table_store import Lake

DATABASE = "CRASH_DATABASE_URL"
VISITS = Source(
    "visits",
    TableSource("visits", ("shop", "at"), "updated_at", "at", DATABASE),
    pl.read_parquet,
    dy.Schema,  # ingest reads no contract
    minimal_dataset.tidy,
    ("shop",),
)
DATASET = replace(minimal_dataset.DATASET, sources=(minimal_dataset.SALES, VISITS), features=())
FIRST = "2026-01-01"
NOW = {f"2026-01-{day:02}": minimal_dataset.day(day, amount).encode() for day, amount in ((2, 7), (3, 1), (4, 1))}
LATER = {f"2026-01-{day:02}": minimal_dataset.day(day, amount).encode() for day, amount in ((2, 9), (3, 1), (5, 1))}
"""Partition → object, as the source is when the run begins, and when the rival does."""

TABLES = ("raw/tiny/sales", "raw/tiny/visits")


@dataclass(frozen=True)
class Ingest:
    """One workspace; what it reads from stands still."""

    root: Path
    bucket: dict[str, Any]

    @property
    def lake(self) -> Lake:
        """Its tables, read afresh."""
        return minimal_dataset.lake_at(self.root)

    def run(self) -> None:
        """As `Case`."""
        settings = Settings(workspace=self.root, bucket=self.bucket["name"], s3_endpoint=self.bucket["endpoint"])
        ingest(DATASET, self.lake, settings)

    def rival(self) -> None:
        """As `Contested`: the source has moved on, and somebody took the paused run for dead."""
        remove_locks(self.root)
        replace(self, bucket={**self.bucket, "name": self.bucket["later"]}).run()

    def settled(self, *, first: bool, second: bool) -> None:
        """As `Contested`: the tables are what the source was last, and so are the files.

        A run that is stopped between two tables has taken no lease on the second: it lists that one afterwards, here
        in the bucket that stands still.
        """
        assert second
        sales, _ = TABLES
        seen = {name: path.read_bytes() for name, path in self.lake.paths(sales).items()}
        assert seen in [LATER] + [NOW] * first
        for table in TABLES:
            expect_shown(self.lake, table)

    def seen(self) -> Seen:
        """As `Case`."""
        return whole(self.lake, TABLES)

    def shown(self) -> Seen:
        """As `Case`."""
        return files(self.root, *VISIBLE)


@dataclass(frozen=True)
class Ingests:
    """Three objects and rows of three days read; then one of each is corrected, one comes, one goes."""

    template: Ingest

    def prepare(self) -> None:
        """As `Scenario`."""
        keys = {name: value for name, value in self.template.bucket.items() if name != "later"}
        bucket, later = Bucket(**keys), Bucket(**{**keys, "name": self.template.bucket["later"]})
        for day, content in LATER.items():
            later.write(f"sales/{day}.csv", content)
        for day in (FIRST, *list(NOW)[:2]):
            bucket.write(f"sales/{day}.csv", minimal_dataset.day(int(day[-2:])).encode())
        self._execute("CREATE TABLE visits (shop TEXT, at TIMESTAMP, people INT, updated_at TIMESTAMP)")
        self._execute(*map(_visits, (1, 2, 3)))
        self.template.run()
        for day, content in NOW.items():
            bucket.write(f"sales/{day}.csv", content)
        bucket.delete(f"sales/{FIRST}.csv")
        more = "UPDATE visits SET people = 9, updated_at = '2026-02-01 00:00:00+00:00' WHERE at LIKE '2026-01-02%'"
        self._execute(_visits(4), more, "DELETE FROM visits WHERE at LIKE '2026-01-01%'")

    def case(self, name: str) -> Ingest:
        """As `Scenario`."""
        return replace(self.template, root=copied(self.template.root, name))

    def over(self, name: str) -> None:
        """As `Scenario`."""
        shutil.rmtree(self.template.root.with_name(name))

    def _execute(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.template.root.with_name("source.db"))) as database, database:
            for statement in statements:
                database.execute(statement)


def _visits(day: int) -> str:
    at = f"2026-01-{day:02} 12:00:00+00:00"
    return f"INSERT INTO visits VALUES ('east', '{at}', 5, '{at}'), ('west', '{at}', 6, '{at}')"  # noqa: S608  our own


def scenario(folder: Path, bucket: dict[str, Any]) -> Ingests:
    """The rehearsal of an ingest."""
    folder.mkdir()
    os.environ[DATABASE] = f"sqlite:///{folder}/source.db"
    os.environ |= {"AWS_ACCESS_KEY_ID": bucket["access_key"], "AWS_SECRET_ACCESS_KEY": bucket["secret_key"]}
    os.environ["AWS_DEFAULT_REGION"] = bucket["region"]
    return Ingests(Ingest(folder / "template", bucket))
