"""A window of time is read from the chunks of the manifest, and the files, that can hold its events."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from headrace.engine.compute import store_partition
from headrace.retrieve.errors import UnreadablePartitionError
from headrace.retrieve.partition_reader import PartitionReader, microseconds
from headrace.storage.dvc.cache import Cache
from headrace.storage.manifest import Manifest, parse_manifest
from headrace.storage.table_store import TableStore

START = datetime(2026, 1, 1, tzinfo=UTC)
TABLE = "features/tiny/totals"


@pytest.fixture
def table_store(tmp_path: Path) -> TableStore:
    return TableStore(tmp_path, Cache(tmp_path / "cache", tmp_path))


def quarter(table_store: TableStore, read: list[str]) -> Manifest:
    """A table with a partition per day of three months; `read` receives the names of the chunks that are read."""
    names = [str((START + timedelta(days=day)).date()) for day in range(90)]
    entries = {name: store_partition(table_store.cache, pl.DataFrame({"day": [name]}), name, name) for name in names}
    files = Manifest(TABLE, partitions=entries).to_files()
    contents = {chunk.reference.md5: chunk.content for chunk in files.chunks}
    return parse_manifest(files.head, lambda ref: read.append(ref.name) or contents[ref.md5])  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    ("since", "until", "chunks", "days"),
    [
        (START + timedelta(days=40), START + timedelta(days=42), ["2026-02"], 3),
        (START + timedelta(days=30), START + timedelta(days=31), ["2026-01", "2026-02"], 2),
        (START + timedelta(days=80), None, ["2026-03"], 10),
        (None, START, ["2026-01"], 1),
    ],
)
def test_only_the_chunks_of_the_window_are_read(
    table_store: TableStore, since: datetime | None, until: datetime | None, chunks: list[str], days: int
) -> None:
    read: list[str] = []
    first, last = (None if time is None else microseconds(time) for time in (since, until))

    rows = PartitionReader.between(table_store, quarter(table_store, read), first, last).read(["day"])

    assert (sorted(read), rows.height) == (chunks, days)


def test_a_window_without_events_has_the_columns_of_the_table(table_store: TableStore) -> None:
    read: list[str] = []
    far = microseconds(START + timedelta(days=4000))

    rows = PartitionReader.between(table_store, quarter(table_store, read), far, far).read(["day"])

    assert (read, rows.height, rows.schema) == (["2026-01"], 0, {"day": pl.String()})


def test_a_window_that_no_date_can_hold_is_the_whole_table(table_store: TableStore) -> None:
    reader = PartitionReader.between(table_store, quarter(table_store, []), -(2**62), 2**62)

    assert len(reader.partitions) == 90


def test_partitions_with_a_narrower_type_are_read_in_the_wider_one(table_store: TableStore) -> None:
    frames = {"2026-01-01": pl.Series([1], dtype=pl.Int32), "2026-01-02": pl.Series([1 << 40])}
    reader = reader_of(table_store, {name: pl.DataFrame({"n": column}) for name, column in frames.items()})

    assert reader.read(["n"])["n"].to_list() == [1, 1 << 40]
    assert reader.read(["n"], pl.col("n") > 1, numbered=True).rows() == [(1, 1 << 40)]


def test_a_feature_that_some_partition_lacks_is_not_taken_for_null(table_store: TableStore) -> None:
    frames = {"2026-01-01": pl.DataFrame({"n": [1]}), "2026-01-02": pl.DataFrame({"n": [1], "new": [2]})}
    reader = reader_of(table_store, frames)

    assert reader.read(["n"])["n"].to_list() == [1, 1]
    with pytest.raises(UnreadablePartitionError, match=r"features/tiny/totals 2026-01-01: expected the columns n, new"):
        reader.read(["n", "new"])


def reader_of(table_store: TableStore, frames: dict[str, pl.DataFrame]) -> PartitionReader:
    """All partitions of a table with these."""
    entries = {name: store_partition(table_store.cache, frame, name, name) for name, frame in frames.items()}
    table_store.checkout(Manifest(TABLE, partitions=entries))
    return PartitionReader(table_store, table_store.manifest(TABLE), (*frames,))
