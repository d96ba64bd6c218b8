"""Crash cases of `ingest`: objects and database rows were added, changed and deleted since the last run."""

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
from crash_harness import State
from crash_state import (
    VISIBLE_FOLDERS,
    assert_files_match_manifest,
    copy_workspace,
    hash_files,
    lost_locks,
    read_intact_tables,
    remove_locks,
)

from headrace.dataset import ObjectSource, Source, TableSource
from headrace.ingest.ingest import ingest
from headrace.settings import Settings
from headrace.storage.s3.bucket import Bucket
from headrace.storage.table_store import TableStore

DATABASE = "CRASH_DATABASE_URL"
VISITS = Source(
    "visits",
    TableSource("visits", ("shop", "at"), "updated_at", "at", DATABASE),
    pl.read_parquet,
    dy.Schema,  # ingest reads no contract
    minimal_dataset.keep_rows,
    ("shop",),
)
SALES = replace(
    minimal_dataset.SALES,
    location=ObjectSource("sales/", r"sales/(?P<partition>\d{4}-\d\d-\d\d)(/\w+)?\.csv", ".csv"),
)
DATASET = replace(minimal_dataset.DATASET, sources=(SALES, VISITS), features=())
FIRST_DAY, LATE = "2026-01-01", "2026-01-03/late"
CURRENT_OBJECTS = {
    **{f"2026-01-{day:02}": minimal_dataset.raw_day(day, amount).encode() for day, amount in ((2, 7), (3, 1), (4, 1))},
    LATE: b"late",
}
LATER_OBJECTS = {
    **{f"2026-01-{day:02}": minimal_dataset.raw_day(day, amount).encode() for day, amount in ((2, 9), (3, 1), (5, 1))},
    LATE: b"later",
}
"""Name → object in the source, when the run starts and when the concurrent writer starts."""

TABLES = ("raw/tiny/sales", "raw/tiny/visits")


@dataclass(frozen=True)
class IngestCase:
    """A workspace whose source does not change during the run."""

    root: Path
    bucket: dict[str, Any]

    @property
    def table_store(self) -> TableStore:
        """The workspace's tables, opened again on each access."""
        return minimal_dataset.create_table_store(self.root)

    def run(self) -> None:
        settings = Settings(workspace=self.root, bucket=self.bucket["name"], s3_endpoint=self.bucket["endpoint"])
        ingest(DATASET, self.table_store, settings)

    def run_concurrent_writer(self) -> None:
        """The source has changed, and somebody removed the locks of the paused run."""
        remove_locks(self.root)
        replace(self, bucket={**self.bucket, "name": self.bucket["later"]}).run()

    def check_consistent(self, *, paused_succeeded: bool, concurrent_succeeded: bool) -> None:
        """The tables equal the newest source, and so do the files.

        A run that holds no lock on the sales when it is paused, because it has not come to them, lists them when it
        continues, and its own bucket has not changed. One that held it has taken nothing back.
        """
        assert concurrent_succeeded
        sales, _ = TABLES
        entries = self.table_store.manifest(sales).partitions
        contents = {
            entries[name].objects[0].key.removeprefix("sales/").removesuffix(".csv"): path.read_bytes()
            for name, path in self.table_store.paths(sales).items()
        }
        lists_them_later = paused_succeeded and sales not in lost_locks(self.root)
        assert contents in [LATER_OBJECTS] + [CURRENT_OBJECTS] * lists_them_later
        for table in TABLES:
            assert_files_match_manifest(self.table_store, table)

    def read_visible_state(self) -> State:
        return read_intact_tables(self.table_store, TABLES)

    def read_final_state(self) -> State:
        return hash_files(self.root, *VISIBLE_FOLDERS)


@dataclass(frozen=True)
class IngestScenario:
    """Three days are ingested; then one object and one day of rows is corrected, one is added, one is deleted.

    Another day has a second object by then, so the entry of its first one has another name.
    """

    template: IngestCase

    def prepare(self) -> None:
        keys = {name: value for name, value in self.template.bucket.items() if name != "later"}
        bucket, later = Bucket(**keys), Bucket(**{**keys, "name": self.template.bucket["later"]})
        for day, content in LATER_OBJECTS.items():
            later.write(f"sales/{day}.csv", content)
        for day in (FIRST_DAY, *list(CURRENT_OBJECTS)[:2]):
            bucket.write(f"sales/{day}.csv", minimal_dataset.raw_day(int(day[-2:])).encode())
        self._execute("CREATE TABLE visits (shop TEXT, at TIMESTAMP, people INT, updated_at TIMESTAMP)")
        self._execute(*map(_insert_visits, (1, 2, 3)))
        self.template.run()
        for day, content in CURRENT_OBJECTS.items():
            bucket.write(f"sales/{day}.csv", content)
        bucket.delete(f"sales/{FIRST_DAY}.csv")
        correction = (
            "UPDATE visits SET people = 9, updated_at = '2026-02-01 00:00:00+00:00' WHERE at LIKE '2026-01-02%'"
        )
        self._execute(_insert_visits(4), correction, "DELETE FROM visits WHERE at LIKE '2026-01-01%'")

    def new_case(self, name: str) -> IngestCase:
        return replace(self.template, root=copy_workspace(self.template.root, name))

    def remove_case(self, name: str) -> None:
        shutil.rmtree(self.template.root.with_name(name))

    def _execute(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.template.root.with_name("source.db"))) as database, database:
            for statement in statements:
                database.execute(statement)


def _insert_visits(day: int) -> str:
    at = f"2026-01-{day:02} 12:00:00+00:00"
    return f"INSERT INTO visits VALUES ('east', '{at}', 5, '{at}'), ('west', '{at}', 6, '{at}')"  # noqa: S608  our own


def scenario(folder: Path, bucket: dict[str, Any]) -> IngestScenario:
    """The crash scenario of an ingest."""
    folder.mkdir()
    os.environ[DATABASE] = f"sqlite:///{folder}/source.db"
    os.environ |= {"AWS_ACCESS_KEY_ID": bucket["access_key"], "AWS_SECRET_ACCESS_KEY": bucket["secret_key"]}
    os.environ["AWS_DEFAULT_REGION"] = bucket["region"]
    return IngestScenario(IngestCase(folder / "template", bucket))
