"""The order of an ingest: the lock before the snapshot, the manifest before the end of the journal.

The database is a file, so that what happens between two steps is seen in this process.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import polars as pl
import pytest
from weather import NEW, TABLE, WEATHER, Weather, create_dataset

from headrace.errors import TableLockedError
from headrace.ingest.database import read_transaction
from headrace.ingest.database.read_transaction import ReadTransaction
from headrace.ingest.ingest import IngestResult, UnknownSourceError, ingest
from headrace.partitions import UTC_DAYS
from headrace.settings import Settings
from headrace.storage.manifest import Manifest
from headrace.storage.table_store import TableStore


def test_the_table_is_locked_before_the_snapshot_of_the_database_is_taken(
    sqlite_weather: Weather, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise another run could publish a later state first, and this one would replace it with an earlier one."""
    locked, open_transaction = list[bool](), read_transaction.open_read_transaction

    @contextmanager
    def open_and_look(address: str, **options: float) -> Iterator[ReadTransaction]:
        other = TableStore.at(sqlite_weather.table_store.root)
        try:
            with other.lock_table(TABLE):
                locked.append(False)
        except TableLockedError:
            locked.append(True)
        with open_transaction(address, **options) as transaction:
            yield transaction

    monkeypatch.setattr(read_transaction, "open_read_transaction", open_and_look)

    sqlite_weather.ingest()

    assert locked == [True]
    with TableStore.at(sqlite_weather.table_store.root).lock_table(TABLE):
        """Afterwards it is free."""


def test_the_journal_holds_what_was_read_until_the_manifest_does(
    sqlite_weather: Weather, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = sqlite_weather.table_store.root / ".headrace/journal" / (TABLE.replace("/", ".") + ".jsonl")
    checkout, lines = TableStore.checkout, list[int]()

    def look_and_check_out(table_store: TableStore, manifest: Manifest) -> None:
        lines.append(len(journal.read_text().splitlines()))
        checkout(table_store, manifest)

    monkeypatch.setattr(TableStore, "checkout", look_and_check_out)

    sqlite_weather.ingest()

    assert lines == [3]
    assert not journal.exists()
    assert len(sqlite_weather.hashes) == 3


def ingest_day(weather: Weather, partition: str) -> IngestResult:
    """Ingest one partition."""
    [result] = ingest(create_dataset(weather=WEATHER), weather.table_store, Settings(), partition=partition)
    return result


def test_a_partition_that_the_source_no_longer_has_can_be_selected_to_be_removed(sqlite_weather: Weather) -> None:
    sqlite_weather.ingest()
    sqlite_weather.run("DELETE FROM weather WHERE at LIKE '2013-01-02%'")
    sqlite_weather.run(f"UPDATE weather SET temp = 9, updated_at = '{NEW}' WHERE at LIKE '2013-01-03%'")  # noqa: S608
    before = sqlite_weather.hashes

    result = ingest_day(sqlite_weather, "2013-01-02")

    assert (result.deleted, result.changed, result.new, result.listed, result.read) == (("2013-01-02",), (), (), 0, 0)
    assert sqlite_weather.hashes == {name: before[name] for name in ("2013-01-01", "2013-01-03")}


def test_a_partition_that_neither_the_source_nor_the_table_has_is_unknown(sqlite_weather: Weather) -> None:
    sqlite_weather.ingest()

    with pytest.raises(UnknownSourceError, match=r"no source lists the partition 2013-01-09, and it is not in raw/sky"):
        ingest_day(sqlite_weather, "2013-01-09")


def test_of_many_days_a_few_are_read_by_their_ranges(sqlite_weather: Weather) -> None:
    for day in range(4, 11):
        sqlite_weather.run(f"INSERT INTO weather VALUES ('EWR', '2013-01-{day:02} 00:30:00+00:00', 1, '{NEW}')")  # noqa: S608  of the test
    sqlite_weather.ingest()
    changed = [f"2013-01-{day:02}" for day in (1, 2, 4, 6, 7, 8, 10)]
    for name in changed:
        sqlite_weather.run(f"UPDATE weather SET temp = 99, updated_at = '2014{NEW[4:]}' WHERE at LIKE '{name}%'")  # noqa: S608

    result = sqlite_weather.ingest()

    assert (list(result.changed), result.read) == (changed, 7)
    for name in changed:
        assert sqlite_weather.rows(name)["temp"].unique().to_list() == [99.0]


@pytest.mark.parametrize(
    ("days", "ranges"),
    [
        ([], []),
        ([1], [(1, 1)]),
        ([1, 2, 3], [(1, 3)]),
        ([1, 3], [(1, 1), (3, 3)]),
        ([1, 2, 4, 5, 9], [(1, 2), (4, 5), (9, 9)]),
    ],
)
def test_consecutive_days_are_one_range(days: list[int], ranges: list[tuple[int, int]]) -> None:
    found = read_transaction._ranges([f"2013-01-{day:02}" for day in days], UTC_DAYS)  # noqa: SLF001  a rule of its own

    assert [(start.day, (end - timedelta(days=1)).day) for start, end in found] == ranges


def test_a_sample_of_a_table_has_the_first_rows_in_the_types_of_an_ingest(sqlite_weather: Weather) -> None:
    sqlite_weather.ingest()

    with read_transaction.open_read_transaction(sqlite_weather.address) as transaction:
        sample = transaction.read_sample("weather", 2)

    assert sample.rows.num_rows == 2
    assert sample.rows.column("origin").to_pylist() == ["EWR", "JFK"]
    assert set(pl.DataFrame(sample.rows).rows()) <= set(sqlite_weather.rows().rows())
