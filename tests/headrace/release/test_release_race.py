"""Many datasets, many clones, one branch: each tag holds exactly what was audited, and nobody's entries are lost.

What a tag holds is read with `git show` and plain YAML and JSON, by nothing of Headrace.
"""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import dataframely as dy
import minimal_dataset
import polars as pl
import pytest
from release_clones import QUESTION, Clone, Origin, dataset
from release_race import Race, run_race
from servers import S3

from headrace.dataset import TableSource
from headrace.ingest.ingest import ingest
from headrace.release.build import ReleasedMeanwhileError
from headrace.settings import Settings
from headrace.validate.columns import utc_time

INSERT = "INSERT INTO cities VALUES "


@pytest.mark.parametrize(
    "size",
    [
        pytest.param((4, 2, 4), id="small"),
        pytest.param((10, 3, 20), id="full", marks=[pytest.mark.faults, pytest.mark.timeout(1800)]),
    ],
)
def test_releases_of_many_datasets_at_once_hold_their_audited_bytes_and_lose_nothing(
    tmp_path: Path, s3: S3, size: tuple[int, int, int]
) -> None:
    race = run_race(Race, Origin.begin(tmp_path, s3), size)

    race.check(rounds=size[-1])


def test_a_dataset_whose_name_begins_like_anothers_keeps_its_entries(tmp_path: Path, s3: S3) -> None:
    origin = Origin.begin(tmp_path, s3)
    place, flights, europe = origin.first, dataset("flights"), dataset("flights_eu")
    place.release(europe, 1)
    reader = Race(origin, [place], [])
    before = reader.tables_at("main", "flights_eu")

    place.release(flights, 2)
    place.release(flights, 3)

    assert reader.tables_at("main", "flights_eu") == before
    assert sorted(origin.tags()) == ["flights/1", "flights/2", "flights_eu/1"]


def test_of_two_runs_of_one_dataset_the_older_listing_is_refused_until_the_source_is_read_again(
    tmp_path: Path, s3: S3
) -> None:
    origin = Origin.begin(tmp_path, s3)
    ours, theirs, flights = origin.first, origin.clone("colleague"), dataset("flights")
    ours.run(flights, {1: 1})
    theirs.run(flights, {1: 1, 2: 2})
    theirs.release(flights)

    for _ in range(2):
        with pytest.raises(ReleasedMeanwhileError, match=r"raw/flights/sales.*`headrace run flights --release`"):
            ours.release(flights)
        ours.git("pull", "--quiet", "--rebase", "origin", "main")  # this alone does not make the tables newer

    assert origin.tags() == ["flights/1"]
    assert ours.git("rev-list", "--count", "HEAD", "--not", "origin/main") == "0", "no local commit is left"
    ours.run(flights, {1: 1, 2: 2, 3: 3})
    assert ours.release(flights).name == "flights/2"
    reader = Race(origin, [ours], [])
    raw = reader.tables_at("main", "flights")["raw/flights/sales"]
    assert list(reader.partitions(raw)) == ["2026-01-01", "2026-01-02", "2026-01-03"]


def test_annotations_that_two_clones_collected_are_merged_and_the_labels_are_made_of_all(
    tmp_path: Path, s3: S3
) -> None:
    origin = Origin.begin(tmp_path, s3)
    ours, theirs, rides = origin.first, origin.clone("colleague"), dataset("rides", QUESTION)
    for clone in (ours, theirs):
        clone.run(rides, {1: 1})
    ours.collect(rides, "a", "b")
    theirs.collect(rides, "b", "c")
    theirs.release(rides)

    made = ours.release(rides)

    assert made.name == "rides/2"
    assert Race(origin, [ours], []).annotation_ids("rides/2", "rides") == ["a", "b", "c"]
    assert sorted(ours.table_store.scan("labels/rides/state").collect()["sample_id"]) == ["a", "b", "c"]
    ours.collect(rides, "d")
    assert ours.release(rides).name == "rides/3"


class Cities(dy.Schema):
    """Cities."""

    city = dy.String()
    people = dy.Int64()
    updated_at = utc_time(nullable=True)


CITIES = replace(
    minimal_dataset.SALES,
    name="cities",
    location=TableSource("cities", ("city",), "updated_at", history=True),
    read=pl.read_parquet,
    contract=Cities,
    key=("city",),
)


def test_histories_of_a_table_that_two_clones_recorded_are_merged(
    tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_DATABASE_URL", f"sqlite:///{tmp_path}/cities.db")
    origin = Origin.begin(tmp_path, s3)
    ours, theirs, idle = origin.first, origin.clone("colleague"), origin.clone("idle")
    tours = replace(dataset("tours"), sources=(minimal_dataset.SALES, CITIES))

    def record(clone: Clone, *statements: str) -> None:
        with closing(sqlite3.connect(tmp_path / "cities.db")) as connection, connection:
            for statement in statements:
                connection.execute(statement)
        ingest(tours, clone.table_store, Settings(), sources=["cities"])
        clone.refresh(tours)

    for clone in (ours, theirs, idle):
        clone.run(tours, {1: 1})
    record(ours, "CREATE TABLE cities (city TEXT, people INTEGER, updated_at TIMESTAMP)", INSERT + "('Bern', 1, NULL)")
    record(theirs, "UPDATE cities SET people = 2")
    theirs.release(tours)
    record(ours, INSERT + "('Wien', 3, NULL)")

    made = ours.release(tours)

    assert made.name == "tours/2"
    rows = ours.table_store.scan("raw/tours/cities").sort("known_time").collect()
    assert rows.select("city", "people").rows() == [("Bern", 1), ("Bern", 2), ("Wien", 3)]
    assert idle.release(tours).name == "tours/2"


def test_a_clone_that_collected_nothing_keeps_the_annotations_of_the_others(tmp_path: Path, s3: S3) -> None:
    origin = Origin.begin(tmp_path, s3)
    ours, theirs, rides = origin.first, origin.clone("colleague"), dataset("rides", QUESTION)
    ours.run(rides, {1: 1})
    theirs.run(rides, {1: 1})
    theirs.collect(rides, "a")
    theirs.release(rides)

    made = ours.release(rides)

    assert (made.name, made.created) == ("rides/1", False)
    assert Race(origin, [theirs], []).annotation_ids("main", "rides") == ["a"]
