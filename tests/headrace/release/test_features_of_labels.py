"""Features of labels: people's answers come between, and a release has features of the labels that it has."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest
from minimal_dataset import FEATURES
from release_clones import QUESTION, Clone, Origin, dataset

from headrace.dataset import Dataset, FeatureTable, Input, LabelingTask, Thresholds
from headrace.engine.run import plan_stage
from headrace.errors import HeadraceError
from headrace.maintenance.rename import find_renaming, rename_tables
from headrace.project import graph
from headrace.storage.dvc.lock import read_lock, recorded_outs


def answered(day: str, states: pl.LazyFrame) -> pl.LazyFrame:
    """How often people called a shop fine on a day, known when they had said so."""
    of_day = states.filter(pl.col("event_time").dt.date() == pl.lit(day).str.to_date())
    return of_day.group_by("shop").agg(
        pl.col("event_time").max(),
        pl.col("known_time").max(),
        (pl.col("label") == "fine").sum().cast(pl.Int64).alias("fine"),
    )


def too_early(day: str, states: pl.LazyFrame) -> pl.LazyFrame:
    return answered(day, states).with_columns(known_time=pl.col("event_time") - timedelta(hours=1))


ANSWERED = FeatureTable(
    name="answered",
    keys=("shop",),
    inputs={"states": Input("labels/state")},
    transform=answered,
    features={"fine": pl.Int64()},
    ttl=timedelta(0),
)


def declare(question: LabelingTask = QUESTION, table: FeatureTable = ANSWERED) -> Dataset:
    return replace(dataset("tiny", question), features=(table, FEATURES))


TINY = declare()
UNREACHED = replace(QUESTION, annotators_per_item=2, thresholds=Thresholds(agreement=0.9))
"""The same question, whose labels wait for a second opinion."""


def shops(clone: Clone) -> list[str]:
    return sorted(clone.table_store.scan("features/tiny/answered").collect()["shop"].to_list())


def test_labels_are_aggregated_before_the_features_that_read_them(origin: Origin) -> None:
    clone = origin.first
    clone.run(TINY, {1: 1})
    clone.collect(TINY, "east", "west")

    made = clone.release(TINY)

    assert (made.name, shops(clone)) == ("tiny/1", ["east", "west"])
    rows = clone.table_store.scan("features/tiny/answered").collect()
    assert (rows["known_time"] >= rows["event_time"]).all()
    lock = read_lock(clone.root)["stages"]["tiny-transform-answered"]
    assert "data/labels/tiny/state/_manifest/head.json" in [dep["path"] for dep in lock["deps"]]


def test_new_answers_make_the_features_stale_that_read_their_labels_and_no_others(origin: Origin) -> None:
    clone = origin.first
    clone.run(TINY, {1: 1})
    clone.collect(TINY, "east")
    totals = clone.table_store.manifest("features/tiny/totals").md5s

    clone.collect(TINY, "west")

    names = [stage.table for stage in graph.dependent_stages(TINY, ["labels/tiny/state"])]
    assert names == ["features/tiny/answered"]
    assert (shops(clone), clone.table_store.manifest("features/tiny/totals").md5s) == (["east", "west"], totals)
    assert all(plan_stage(stage, clone.table_store).is_empty for stage in graph.dataset_stages(TINY))


def test_a_transform_aggregates_the_labels_that_it_reads_and_only_those() -> None:
    other = replace(QUESTION, name="mood")
    declared = replace(TINY, labels=(QUESTION, other))

    names = [f"{stage.verb} {stage.name}" for stage in graph.transform_stages(declared)]

    assert names == ["label state", "transform answered", "transform totals"]
    assert [stage.name for stage in graph.command_stages(declared, "transform")] == ["answered", "totals"]


def test_features_known_before_the_answers_they_are_made_of_are_refused(origin: Origin) -> None:
    hasty = declare(table=replace(ANSWERED, transform=too_early))
    clone = origin.first
    clone.run(TINY, {1: 1})

    with pytest.raises(
        HeadraceError, match=r"features/tiny/answered 2026-01-01: .*without what labels/state knew later"
    ):
        clone.collect(hasty, "east")


def test_features_of_labels_that_are_held_back_are_held_back_with_them(origin: Origin) -> None:
    clone = origin.first
    clone.run(TINY, {1: 1})
    clone.collect(TINY, "east")
    clone.release(TINY)
    waiting = declare(UNREACHED)
    clone.collect(waiting, "west")
    clone.run(waiting, {1: 1, 2: 1})

    made = clone.release(waiting)

    assert made.name == "tiny/2"
    assert [*made.held] == ["labels/tiny/state", "features/tiny/answered"]
    assert "computed from labels/tiny/state, which is held back" in made.held["features/tiny/answered"]
    assert sorted(made.changes) == ["features/tiny/totals", "raw/tiny/sales", "validated/tiny/sales"]
    first, second = recorded_outs(clone.root, "tiny/1"), recorded_outs(clone.root, "tiny/2")
    for table in ("labels/tiny/state", "features/tiny/answered"):
        assert md5(first, table) == md5(second, table)
    assert shops(clone) == ["east", "west"]  # the workspace goes on


def md5(outs: Mapping[str, Mapping[str, str]], table: str) -> str:
    return outs[f"data/{table}"]["md5"]


def test_a_renamed_labeling_task_keeps_the_features_of_its_labels(origin: Origin) -> None:
    clone = origin.first
    clone.run(TINY, {1: 1})
    clone.collect(TINY, "east")
    clone.release(TINY)
    before = clone.table_store.manifest("features/tiny/answered").md5s
    table = replace(ANSWERED, inputs={"states": Input("labels/mood")})
    renamed = declare(replace(QUESTION, name="mood"), table)

    renaming = find_renaming(renamed, "state", "mood", clone.table_store)
    rename_tables(renamed, renaming, clone.table_store, reason="a test", dry_run=False)

    assert clone.table_store.manifest("features/tiny/answered").md5s == before
    assert all(plan_stage(stage, clone.table_store).is_empty for stage in graph.dataset_stages(renamed))
