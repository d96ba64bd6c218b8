"""Tables of other datasets are read at a release: ingest records which, and everything else reads a raw table."""

import os
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from minimal_dataset import FEATURES, day_names
from release_clones import Clone, Origin, dataset

from headrace.dataset import HISTORY_COLUMNS, Dataset, FeatureTable, Guards, Input, Retention
from headrace.engine.run import plan_all, plan_stage
from headrace.errors import HeadraceError
from headrace.guards.gate import FindingsError
from headrace.ingest.ingest import IngestResult, UnknownSourceError, ingest
from headrace.ingest.preview import preview_sources
from headrace.ingest.release_source import UnknownReleasedTableError, check_is_no_history
from headrace.lineage.history import DatasetRevision
from headrace.lineage.lineage import trace_lineage
from headrace.maintenance.drop import StillDeclaredError, find_dropped
from headrace.maintenance.gc import collect_garbage
from headrace.maintenance.prune import prune
from headrace.maintenance.rename import find_renaming, rename_tables
from headrace.partitions import Monthly
from headrace.project import graph
from headrace.project.release_check import find_unreleased
from headrace.release.release import create_release
from headrace.settings import Settings
from headrace.storage.dvc.lock import recorded_outs
from headrace.storage.field_ids import SchemaField
from headrace.storage.released_inputs import ReleasedInput

FLIGHTS = dataset("flights")
NAME = "flights__features__totals"
RAW, MOOD = f"raw/delays/{NAME}", "features/delays/mood"
TABLE = "flights:features/totals"
DAYS = dict.fromkeys(range(1, 6), 1)


def mood(day: str, totals: pl.LazyFrame) -> pl.LazyFrame:
    """The largest total of each shop of a day and the one before, known when the totals were."""
    end = pl.lit(day).str.to_datetime(time_unit="us", time_zone="UTC") + timedelta(hours=23)
    return (
        totals.group_by("shop").agg(pl.col("amount").max().alias("most")).with_columns(event_time=end, known_time=end)
    )


def table(release: str = "latest", read: str = TABLE, **fields: Any) -> FeatureTable:  # noqa: ANN401  of an input
    return FeatureTable(
        name="mood",
        keys=("shop",),
        inputs={"totals": Input(read, lookback=1, release=release, **fields)},
        transform=mood,
        features={"most": pl.Int64()},
        ttl=timedelta(0),
    )


def declare(*tables: FeatureTable, **fields: Any) -> Dataset:  # noqa: ANN401  of the dataset
    declared = Dataset(name="delays", description="Delays.", owner="tests", sources=(), features=tables or (table(),))
    return replace(declared, **fields)


DELAYS = declare()


def read(clone: Clone, declared: Dataset = DELAYS, **options: Any) -> IngestResult:  # noqa: ANN401  of an ingest
    [result] = ingest(declared, clone.table_store, Settings(workspace=clone.root), **options)
    return result


def release_flights(clone: Clone, days: dict[int, int]) -> None:
    clone.run(FLIGHTS, days)
    clone.release(FLIGHTS)


def release_delays(clone: Clone, declared: Dataset = DELAYS) -> str:
    read(clone, declared)
    clone.refresh(declared)
    return create_release(declared, clone.table_store).name


def pointed(clone: Clone) -> ReleasedInput | None:
    return ReleasedInput.of_manifest(clone.table_store.manifest(RAW))


@pytest.fixture
def clone(origin: Origin) -> Clone:
    """A clone in which `flights/1` has five days."""
    release_flights(origin.first, DAYS)
    return origin.first


def test_ingest_records_the_latest_release_and_copies_no_object(clone: Clone) -> None:
    cache = clone.table_store.cache.folder
    before = {path.name for path in (cache / "files/md5").glob("??/*")}

    result = read(clone)

    assert (result.table, result.listed, result.size) == (RAW, 5, 0)
    assert result.new == tuple(day_names(*DAYS))
    manifest = clone.table_store.manifest(RAW)
    assert manifest.md5s == clone.table_store.manifest("features/flights/totals").md5s
    assert pointed(clone) == ReleasedInput("features/flights/totals", "flights/1")
    new = {path.name for path in (cache / "files/md5").glob("??/*")} - before
    assert new == {chunk.reference.md5[2:] for chunk in manifest.entries.chunks}


def test_features_are_those_of_nested_loops_over_the_rows_of_the_release(clone: Clone) -> None:
    release_delays(clone)

    totals = clone.table_store.scan("features/flights/totals").collect().rows(named=True)
    expected = set()
    for row in totals:
        for other in totals:
            age = row["event_time"] - other["event_time"]
            if other["shop"] == row["shop"] and timedelta(0) <= age <= timedelta(days=1):
                best = max(
                    it["amount"]
                    for it in totals
                    if it["shop"] == row["shop"]
                    and timedelta(0) <= row["event_time"] - it["event_time"] <= timedelta(days=1)
                )
                expected.add((row["shop"], row["event_time"], best))
    rows = clone.table_store.scan(MOOD).collect()
    assert set(rows.select("shop", "event_time", "most").rows()) == expected


def test_an_ingest_with_nothing_new_leaves_every_byte(clone: Clone) -> None:
    release_delays(clone)
    before = clone.tables(DELAYS)

    result = read(clone)

    assert (result.new, result.changed, result.deleted, result.read) == ((), (), (), 0)
    assert clone.tables(DELAYS) == before
    assert create_release(DELAYS, clone.table_store).created is False


def test_a_release_that_changes_other_tables_leaves_the_table_at_the_release_that_it_names(clone: Clone) -> None:
    release_delays(clone)
    before = clone.tables(DELAYS)
    other = replace(FLIGHTS, features=(replace(FEATURES), replace(FEATURES, name="more")))
    clone.refresh(other)
    create_release(other, clone.table_store)

    read(clone)

    assert clone.tables(DELAYS) == before
    assert pointed(clone) == ReleasedInput("features/flights/totals", "flights/1")


def test_a_newer_release_makes_exactly_the_changed_partitions_stale(clone: Clone) -> None:
    release_delays(clone)
    release_flights(clone, {**DAYS, 4: 9})

    shown = preview_sources(DELAYS, clone.table_store, Settings(workspace=clone.root))
    raw = {each.table: each.manifest for each in shown if each.manifest}
    planned = plan_all(graph.dataset_stages(DELAYS), clone.table_store, raw)
    result = read(clone)

    changed = tuple(day_names(4, 5))  # the totals of a day look back two days
    assert (shown[0].changed, result.changed) == (changed, changed)
    [plan] = [plan_stage(stage, clone.table_store) for stage in graph.dataset_stages(DELAYS)]
    assert [item.partition for item in plan.stale] == [item.partition for item in planned[0].stale] == [*changed]
    assert pointed(clone) == ReleasedInput("features/flights/totals", "flights/2")


def test_what_the_workspace_has_and_no_release_is_not_read(clone: Clone) -> None:
    clone.run(FLIGHTS, {1: 100})

    read(clone)

    assert clone.table_store.manifest(RAW).rows == 2 * len(DAYS)


def test_a_release_can_be_pinned(clone: Clone) -> None:
    release_flights(clone, {**DAYS, 4: 9})
    pinned = declare(table("flights/1"))

    read(clone, pinned)

    assert pointed(clone) == ReleasedInput("features/flights/totals", "flights/1")
    first = clone.table_store.recorded_manifest("features/flights/totals", "flights/1")
    assert first is not None
    assert clone.table_store.manifest(RAW).md5s == first.md5s


def test_another_clone_ingests_releases_and_computes_from_the_remote_alone(clone: Clone, origin: Origin) -> None:
    release_delays(clone)
    other = origin.clone("other")

    assert all(plan_stage(stage, other.table_store).is_empty for stage in graph.dataset_stages(DELAYS))
    release_flights(clone, {**DAYS, 5: 3})
    name = release_delays(other)

    assert name == "delays/2"
    assert other.table_store.scan(MOOD).collect()["most"].max() == 5


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        (declare(table("flights/7")), "expected one of flights/1 to flights/1, found no such release"),
        (declare(table(read="trips:features/totals")), "trips has no release yet. .*`headrace run trips --release`"),
        (declare(table(read="flights:features/total")), r"no features/flights/total in flights/1: .*did you mean"),
    ],
)
def test_what_no_release_has_is_refused_with_the_next_command(clone: Clone, declared: Dataset, problem: str) -> None:
    with pytest.raises(HeadraceError, match=problem):
        read(clone, declared)


def test_a_table_that_the_other_dataset_renamed_is_named_with_its_new_name(clone: Clone) -> None:
    renamed = replace(FLIGHTS, features=(replace(FEATURES, name="sums"),))
    rename_tables(
        renamed,
        find_renaming(renamed, "totals", "sums", clone.table_store),
        clone.table_store,
        reason="why",
        dry_run=False,
    )
    clone.push_file("retired_tables.yaml", (clone.root / "retired_tables.yaml").read_text())
    create_release(renamed, clone.table_store)

    with pytest.raises(HeadraceError, match=r"renamed to features/flights/sums .*: why.*'flights:features/sums'"):
        read(clone)


def test_partitions_of_another_grain_are_refused_with_the_declaration_to_add(clone: Clone) -> None:
    with pytest.raises(HeadraceError, match=r"found 2026-01-01. Add `partitions=Daily\(\)` to the input"):
        read(clone, declare(table(partitions=Monthly())))


def test_a_history_of_another_dataset_is_refused_since_its_readers_would_miss_earlier_changes(clone: Clone) -> None:
    totals = clone.table_store.manifest("features/flights/totals")
    fields = tuple(SchemaField(number, name, "timestamp") for number, name in enumerate(HISTORY_COLUMNS))
    history = totals.with_partitions(totals.entries.with_schemas(dict.fromkeys(totals.schemas, fields)))
    [source] = DELAYS.release_sources

    with pytest.raises(UnknownReleasedTableError, match=r"flights/1, which is a history: .*join_as_known"):
        check_is_no_history("delays", source, "flights/1", history)
    check_is_no_history("delays", source, "flights/1", totals)


def test_one_partition_of_a_release_cannot_be_read(clone: Clone) -> None:
    for sources in (None, [NAME]):
        with pytest.raises(UnknownSourceError, match="read as a whole"):
            read(clone, sources=sources, partition="2026-01-01")


def test_a_loss_in_the_other_dataset_waits_for_an_acceptance(clone: Clone) -> None:
    release_delays(clone)
    lenient = replace(FLIGHTS, guards=Guards(max_vanished_share=1))
    clone.run(lenient, {1: 1})
    create_release(lenient, clone.table_store)

    with pytest.raises(FindingsError, match="4 of 5 partitions"):
        read(clone)

    assert len(clone.table_store.manifest(RAW).md5s) == len(DAYS)


def test_lineage_goes_on_in_the_other_dataset_to_its_raw_objects(clone: Clone) -> None:
    release_delays(clone)

    traced = trace_lineage(DatasetRevision.open(clone.table_store, "delays"), "mood", day_names(3)[0])

    nodes = {(node.table, node.partition, node.status, node.release) for node in traced.node.walk()}
    for day in day_names(2, 3):
        assert (RAW, day, "current", None) in nodes
        assert ("features/flights/totals", day, "released", "flights/1") in nodes
    assert ("raw/flights/sales", day_names(1)[0], "current", None) in nodes
    assert traced.to_dict()["nodes"][0]["id"].startswith(MOOD)


def test_a_release_is_kept_as_long_as_a_release_of_another_dataset_reads_it(clone: Clone) -> None:
    kept = replace(FLIGHTS, retention=Retention(keep_last=1))
    release_delays(clone)
    for amount in (2, 3):
        release_flights(clone, {**DAYS, 1: amount})
    release_delays(clone)

    first = prune(kept, clone.table_store, Settings(workspace=clone.root), dry_run=False)

    assert first.pruned == ["flights/2"]
    assert first.kept_by["flights/1"] == ["read by delays/1"]
    assert first.kept_by["flights/3"] == ["latest", "keep_last", *first.kept_by["flights/3"][2:]]
    collect_garbage(clone.table_store, min_age_hours=0, remote=True, dry_run=False)
    old = clone.table_store.recorded_manifest("features/flights/totals", "flights/1")
    assert old is not None
    assert all(clone.table_store.cache.remote.has(md5, size) for md5, size in old.objects.items())

    fewer = replace(DELAYS, retention=Retention(keep_last=1))
    prune(fewer, clone.table_store, Settings(workspace=clone.root), dry_run=False)
    second = prune(kept, clone.table_store, Settings(workspace=clone.root), dry_run=False)
    assert second.pruned == ["flights/1"]


def test_dvc_finds_the_raw_table_and_what_was_computed_from_it_as_they_are_recorded(clone: Clone) -> None:
    """Of the data; the code of these tests is not in the clone."""
    release_delays(clone)

    changed = run_dvc(clone, "status", "--json")

    assert f"{RAW}.dvc" not in changed
    assert "data/" not in changed
    pointed_at = recorded_outs(clone.root)[f"data/{RAW}"]
    assert f"data/{RAW}/_manifest/head.json" in (clone.root / "dvc.yaml").read_text()
    assert pointed_at["nfiles"] == len(DAYS) + 2  # head and one chunk


def test_a_rename_in_the_other_dataset_is_followed_without_computing(clone: Clone) -> None:
    release_delays(clone)
    renamed = replace(FLIGHTS, features=(replace(FEATURES, name="sums"),))
    found = find_renaming(renamed, "totals", "sums", clone.table_store)
    rename_tables(renamed, found, clone.table_store, reason="why", dry_run=False)
    create_release(renamed, clone.table_store)
    before, follows = clone.table_store.manifest(MOOD).md5s, declare(table(read="flights:features/sums"))

    moved = find_renaming(follows, NAME, "flights__features__sums", clone.table_store)
    rename_tables(follows, moved, clone.table_store, reason="why", dry_run=False)
    read(clone, follows)

    manifest = clone.table_store.manifest("raw/delays/flights__features__sums")
    assert ReleasedInput.of_manifest(manifest) == ReleasedInput("features/flights/sums", "flights/2")
    assert moved.old_input("flights:features/sums") == TABLE
    assert all(plan_stage(stage, clone.table_store).is_empty for stage in graph.dataset_stages(follows))
    assert clone.table_store.manifest(MOOD).md5s == before


def run_dvc(clone: Clone, *arguments: str) -> str:
    command = [str(Path(sys.executable).parent / "dvc"), *arguments]
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    return subprocess.run(command, cwd=clone.root, env=environment, capture_output=True, text=True, check=True).stdout


def test_a_table_that_is_read_no_more_is_dropped_under_its_name_here(clone: Clone) -> None:
    release_delays(clone)
    unread = replace(DELAYS, features=())

    assert find_dropped(unread, NAME, clone.table_store) == [RAW]
    with pytest.raises(StillDeclaredError, match=r"test_release_sources.py:\d+ still declares"):
        find_dropped(DELAYS, NAME, clone.table_store)


@pytest.mark.parametrize(
    ("declared", "level", "problem"),
    [
        (declare(table("flights/7")), "error", "found no such release"),
        (declare(table(read="flights:features/total")), "error", "no features/flights/total in flights/1"),
        (declare(table(read="digits:features/totals")), "warning", "digits has no release yet"),
        (declare(table(read="flihgts:features/totals")), "error", "no dataset 'flihgts' (did you mean 'flights'?)"),
    ],
)
def test_the_check_names_what_no_release_has(
    clone: Clone, declared: Dataset, level: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.project.release_check.dataset_names", lambda _root: ("digits", "flights"))

    [found] = find_unreleased([declared], clone.root)

    assert (found.level, found.dataset) == (level, "delays")
    assert problem in found.problem
    assert list(find_unreleased([DELAYS], clone.root)) == []
