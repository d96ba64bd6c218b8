"""What an ingest would read is listed without reading it: what is new, what was not asked, and what that cost."""

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import minimal_dataset
import pytest

from headrace.dataset import Dataset, ObjectSource, Source, TableSource
from headrace.engine.run import plan_all
from headrace.errors import NotConfiguredError
from headrace.ingest.ingest import NothingMatchesError, ingest
from headrace.ingest.preview import SourcePreview, preview_sources
from headrace.project import graph
from headrace.settings import Settings
from headrace.storage.local_folder import FolderError
from headrace.storage.s3.errors import StorageUnreachableError
from headrace.storage.table_store import TableStore

PATTERN = r"sales/(?P<partition>.+)\.csv"
FOLDER = ObjectSource("sales/", PATTERN, ".csv", "file:bucket")
OBJECTS = replace(minimal_dataset.SALES, location=FOLDER)
ROWS = replace(minimal_dataset.SALES, name="rows", location=TableSource("sales", ("id",), "changed_at", "at"))


@pytest.fixture
def table_store(tmp_path: Path) -> TableStore:
    (tmp_path / "bucket/sales").mkdir(parents=True)
    return minimal_dataset.create_table_store(tmp_path)


def put(table_store: TableStore, name: str, amount: int = 1) -> None:
    text = f"at,shop,amount\n2026-01-09T12:00:00Z,east,{amount}\n"
    (table_store.root / "bucket/sales" / f"{name}.csv").write_text(text)


def declare(*sources: Source) -> Dataset:
    return replace(minimal_dataset.DATASET, sources=sources)


def preview(table_store: TableStore, source: Source = OBJECTS) -> SourcePreview:
    (found,) = preview_sources(declare(source), table_store, settings(table_store))
    return found


def settings(table_store: TableStore) -> Settings:
    return Settings(workspace=table_store.root)


def test_a_preview_says_what_the_next_ingest_reads_and_reads_nothing(table_store: TableStore) -> None:
    for day in ("2026-01-01", "2026-01-02", "2026-01-03"):
        put(table_store, day)
    ingest(declare(OBJECTS), table_store, settings(table_store))
    put(table_store, "2026-01-02", 7)
    (table_store.root / "bucket/sales/2026-01-03.csv").unlink()
    put(table_store, "2026-01-04")
    before = table_store.manifest(minimal_dataset.RAW).md5s

    found = preview(table_store)
    after = ingest(declare(OBJECTS), table_store, settings(table_store))[0]

    assert (found.new, found.changed, found.deleted) == (("2026-01-04",), ("2026-01-02",), ("2026-01-03",))
    assert (found.new, found.changed, found.deleted) == (after.new, after.changed, after.deleted)
    assert (found.listed, found.size, found.rows) == (after.listed, after.size, None)
    assert before.keys() == {"2026-01-01", "2026-01-02", "2026-01-03"}


def test_a_listing_says_what_it_cost(table_store: TableStore) -> None:
    put(table_store, "2026-01-01")
    (table_store.root / "bucket/sales/README").write_text("x")

    cost = preview(table_store).cost

    assert cost
    assert (cost.objects, cost.requests, cost.queries) == (2, 0, 0)
    assert str(cost) == f"2 objects, {cost.seconds:.1f} s"


def test_a_plan_shows_a_waiting_object_in_every_table_that_comes_of_it(table_store: TableStore) -> None:
    put(table_store, "2026-01-01")
    declared = declare(OBJECTS)
    ingest(declared, table_store, settings(table_store))
    minimal_dataset.run_all_stages(table_store, declared)
    put(table_store, "2026-01-02")
    found = preview(table_store)
    assert found.manifest

    plans = plan_all(graph.dataset_stages(declared), table_store, {found.table: found.manifest})

    assert [[item.partition for item in plan.stale] for plan in plans] == [["2026-01-02"], ["2026-01-02"]]
    assert all(plan.is_empty for plan in plan_all(graph.dataset_stages(declared), table_store))


def test_a_source_that_cannot_be_listed_does_not_hide_the_others(table_store: TableStore) -> None:
    put(table_store, "2026-01-01")
    gone = replace(OBJECTS, name="gone", location=replace(FOLDER, bucket="file:nowhere"))

    first, second, third = preview_sources(declare(gone, ROWS, OBJECTS), table_store, settings(table_store))

    assert isinstance(first.error, FolderError)
    assert isinstance(second.error, NotConfiguredError)
    assert (third.error, third.new) == (None, ("2026-01-01",))


def test_a_server_that_does_not_answer_is_waited_for_once(
    table_store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class AwayBucket:
        name = "away"

        def list(self, prefix: str) -> Iterator[object]:
            asked.append(prefix)
            raise StorageUnreachableError("the bucket away does not answer")

    monkeypatch.setattr("headrace.ingest.preview.open_object_store", lambda _name, **_options: AwayBucket())
    places = {name: replace(FOLDER, bucket="away", prefix=f"{name}/") for name in ("a", "b", "c")}
    sources = [replace(OBJECTS, name=name, location=place) for name, place in places.items()]

    found = preview_sources(declare(*sources), table_store, settings(table_store))

    assert [str(preview.error) for preview in found] == ["the bucket away does not answer"] * 3
    assert asked == ["a/"]


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
    monkeypatch.setenv("HEADRACE_DATABASE_URL", f"sqlite:///{tmp_path}/sales.db")
    with sqlite3.connect(tmp_path / "sales.db", isolation_level=None) as connection:
        connection.execute("CREATE TABLE sales (id INTEGER, at DATE, changed_at INTEGER)")
        connection.execute("INSERT INTO sales VALUES (1, '2026-01-01', 1), (2, '2026-01-01', 1), (3, '2026-01-02', 1)")
        yield connection
    connection.close()


def test_rows_of_a_table_are_counted_by_queries(table_store: TableStore, database: sqlite3.Connection) -> None:
    declared, options = (
        declare(ROWS),
        Settings(workspace=table_store.root, database_url=os.environ["HEADRACE_DATABASE_URL"]),
    )
    ingest(declared, table_store, options)
    database.execute("UPDATE sales SET changed_at = 2 WHERE id = 1")
    database.execute("INSERT INTO sales VALUES (4, '2026-01-03', NULL)")

    (first,) = preview_sources(declared, table_store, options)
    ingest(declared, table_store, options)
    (second,) = preview_sources(declared, table_store, options)

    assert (first.new, first.changed, first.always_read, first.rows) == (("2026-01-03",), ("2026-01-01",), (), 3)
    assert (second.new, second.changed, second.always_read, second.rows) == ((), (), ("2026-01-03",), 1)
    assert first.cost
    assert (first.cost.objects, first.cost.requests, first.cost.queries) == (None, 0, 2)
    assert first.columns == ("id", "at", "changed_at")


@pytest.mark.parametrize("name", ["2026-01", "2026-1-1", "backfill", "20260101", "2026-W01-1"])
def test_a_key_that_names_no_day_is_reported_and_the_others_are_read(
    table_store: TableStore, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    put(table_store, "2026-01-01")
    put(table_store, name)

    found = preview(table_store)
    (done,) = ingest(declare(OBJECTS), table_store, settings(table_store))

    assert done.new == found.new == ("2026-01-01",)
    assert done.invalid == found.invalid
    assert list(done.invalid) == [f"sales/{name}.csv"]
    assert (
        f"1 key has no valid partition name and was not read, e.g. 'sales/{name}.csv': '{name}' is no UTC day"
        in str(done)
    )
    assert f"'{name}' is no UTC day" in caplog.text


def test_a_source_of_months_that_features_read_is_refused_by_key(table_store: TableStore) -> None:
    for month in ("2026-01", "2026-02"):
        put(table_store, month)

    with pytest.raises(NothingMatchesError, match=r"2 keys have no valid .* '2026-01' is no UTC day"):
        ingest(declare(OBJECTS), table_store, settings(table_store))


def test_a_source_that_no_features_read_may_have_any_partitions(table_store: TableStore) -> None:
    for name in ("2026-01", "backfill"):
        put(table_store, name)

    (done,) = ingest(replace(declare(OBJECTS), features=()), table_store, settings(table_store))

    assert done.new == ("2026-01", "backfill")


def test_a_pattern_that_matches_no_key_is_named_with_a_key(table_store: TableStore) -> None:
    for number in range(60):
        put(table_store, f"2026-01-{number:02}")
    source = replace(OBJECTS, location=replace(FOLDER, partition=r"sales/(?P<partition>.+)\.csv\.gz"))

    with pytest.raises(NothingMatchesError, match=r"60 keys match no .*e\.g\. 'sales/2026-01-00.csv'") as caught:
        ingest(declare(source), table_store, settings(table_store))

    assert "Its pattern is 'sales/(?P<partition>.+)" in str(caught.value)
    assert isinstance(preview(table_store, source).error, NothingMatchesError)


def test_a_pattern_that_stops_matching_leaves_the_table_as_it_was(table_store: TableStore) -> None:
    put(table_store, "2026-01-01")
    ingest(declare(OBJECTS), table_store, settings(table_store))
    source = replace(OBJECTS, location=replace(FOLDER, partition=r"sales/(?P<partition>.+)\.txt"))

    with pytest.raises(NothingMatchesError, match="1 key matches no partition"):
        ingest(declare(source), table_store, settings(table_store))

    assert set(table_store.manifest(minimal_dataset.RAW).md5s) == {"2026-01-01"}
