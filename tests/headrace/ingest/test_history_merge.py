"""Histories that two workspaces have recorded of one table are merged: nothing released changes, nothing is lost."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from weather import TABLE, create_dataset

from headrace.as_known import as_known
from headrace.dataset import KNOWN_TIME, OPERATION, SEEN_TIME, TableSource
from headrace.ingest.database.read_transaction import ReadTransaction
from headrace.ingest.ingest import ingest
from headrace.ingest.table_history import merge_histories, recorded_listing
from headrace.partitions import Daily
from headrace.settings import Settings
from headrace.storage.manifest import Manifest
from headrace.storage.table_store import TableStore

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
CITIES = TableSource("cities", ("city",), "updated_at", history=True)
Change = tuple[str, int, int, int, str]
"""City, people, hour when it was known and seen, operation."""


@dataclass(frozen=True)
class Places:
    """A database, two workspaces that read it, and a clock."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def run(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.folder / "cities.db")) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    def set(self, city: str, people: int, hour: int) -> None:
        """Insert or update a row."""
        mark = (START + hour * HOUR).isoformat()
        self.run(DELETE + f" WHERE city = '{city}'", INSERT + f"('{city}', {people}, '{mark}')")

    def table_store(self, name: str) -> TableStore:
        return TableStore.at(self.folder / name)

    def ingest(self, name: str, hour: int) -> None:
        """Read the table in a workspace at an hour."""
        self.monkeypatch.setattr(ReadTransaction, "current_time", lambda _self: START + hour * HOUR)
        ingest(create_dataset(weather=CITIES), self.table_store(name), Settings())

    def merge(self, released: str, own: str) -> Manifest:
        """The released history, with what the other workspace has, in the cache of that one."""
        for path in (self.folder / released).rglob("*"):
            target = self.folder / own / path.relative_to(self.folder / released)
            if ".dvc/cache" in str(path) and path.is_file() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        store = self.table_store(own)
        merged = merge_histories(store, self.table_store(released).manifest(TABLE), store.manifest(TABLE), Daily())
        store.checkout(merged)
        return merged

    def changes(self, name: str) -> list[Change]:
        rows = self.rows(name).sort(KNOWN_TIME, "city")
        hours = ((pl.col(time) - START).dt.total_hours() for time in (KNOWN_TIME, SEEN_TIME))
        found: Sequence[Change] = rows.select("city", "people", *hours, OPERATION).rows()
        return list(found)

    def rows(self, name: str) -> pl.DataFrame:
        return pl.concat(map(pl.read_parquet, self.table_store(name).paths(TABLE).values()), how="diagonal")


INSERT, DELETE = "INSERT INTO cities VALUES ", "DELETE FROM cities"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.setenv("HEADRACE_DATABASE_URL", f"sqlite:///{tmp_path}/cities.db")
    found = Places(tmp_path, monkeypatch)
    found.run("CREATE TABLE cities (city TEXT, people INTEGER, updated_at TIMESTAMP)")
    found.set("Bern", 1, 0)
    return found


def test_what_both_have_recorded_is_kept_as_it_was_released(places: Places) -> None:
    places.ingest("own", 1)
    places.ingest("released", 2)
    places.set("Wien", 2, 3)
    places.ingest("released", 4)
    places.ingest("own", 5)

    merged = places.merge("released", "own")

    assert places.changes("own") == [("Bern", 1, 2, 2, "insert"), ("Wien", 2, 3, 4, "insert")]
    assert merged.md5s == places.table_store("released").manifest(TABLE).md5s


def test_what_one_has_recorded_alone_is_added_at_its_time(places: Places) -> None:
    for name in ("own", "released"):
        places.ingest(name, 1)
    places.set("Bern", 5, 2)
    places.ingest("own", 3)
    places.set("Bern", 6, 4)
    places.ingest("released", 30)
    places.run(DELETE)
    places.set("Wien", 2, 31)
    places.ingest("own", 32)

    places.merge("released", "own")

    assert places.changes("own") == [
        ("Bern", 1, 1, 1, "insert"),
        ("Bern", 5, 2, 3, "update"),
        ("Bern", 6, 4, 30, "update"),
        ("Wien", 2, 31, 32, "insert"),
        ("Bern", 5, 32, 32, "delete"),
    ]


def test_merging_again_changes_nothing(places: Places) -> None:
    for name in ("own", "released"):
        places.ingest(name, 1)
    places.set("Bern", 5, 2)
    places.ingest("own", 3)
    once = places.merge("released", "own")

    assert places.merge("released", "own").to_files().head == once.to_files().head


def test_a_row_that_became_the_same_twice_keeps_both(places: Places) -> None:
    for name in ("own", "released"):
        places.ingest(name, 1)
    for hour, people in ((2, 5), (4, 1), (6, 5)):
        places.set("Bern", people, hour)
        places.ingest("own", hour + 1)

    places.merge("released", "own")

    assert [change[1] for change in places.changes("own")] == [1, 5, 1, 5]


def test_the_next_run_goes_on_from_the_newest_snapshot_of_both(places: Places) -> None:
    places.ingest("released", 1)
    places.set("Wien", 2, 2)
    places.ingest("own", 3)
    places.merge("released", "own")
    merged = places.table_store("own").manifest(TABLE)

    places.ingest("own", 4)

    assert places.table_store("own").manifest(TABLE).md5s == merged.md5s
    assert recorded_listing(merged)
    places.set("Graz", 3, 2)  # before the newest snapshot
    places.ingest("own", 6)
    assert places.changes("own")[-1] == ("Graz", 3, 6, 6, "insert")


def test_what_was_released_stays_as_it_was(places: Places) -> None:
    for name in ("own", "released"):
        places.ingest(name, 1)
    places.set("Wien", 2, 2)
    places.ingest("released", 3)
    places.set("Graz", 3, 4)
    places.ingest("own", 5)
    before = places.rows("released")

    places.merge("released", "own")

    after = places.rows("own")
    assert before.join(after, on=before.columns, how="semi", nulls_equal=True).height == before.height
    now = as_known(after.lazy(), key="city", at=START + 9 * HOUR).collect()
    assert sorted(now["city"]) == ["Bern", "Graz", "Wien"]


def test_a_workspace_that_recorded_nothing_takes_the_released_history(places: Places) -> None:
    places.ingest("released", 1)
    released = places.table_store("released").manifest(TABLE)

    merged = merge_histories(places.table_store("own"), released, Manifest(TABLE), Daily())

    assert merged == released
