"""Partitions computed together are, to the last bit, what each would be by itself; only the cost differs."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import dataframely as dy
import minimal_dataset
import polars as pl
import pytest
from accepted_rows import accepted_raw
from hypothesis import given, settings
from hypothesis import strategies as st
from minimal_dataset import REJECTED, TOTALS, VALIDATED, raw_days, write_raw_partitions

from headrace.dataset import Dataset, ObjectSource, Source
from headrace.engine.run import plan_stage, run_stage
from headrace.project import graph
from headrace.project.executors import Executor, group_partitions
from headrace.settings import Settings
from headrace.storage.table_store import TableStore
from headrace.validate.columns import TimeBounds, one_of, utc_time
from headrace.validate.errors import SchemaChangedError
from headrace.validate.validate_partition import validate_frame, validate_frames

DAYS = ("2013-01-09", "2013-01-10", "2013-01-11")
COLUMNS = ("at", "place", "count")


def read_nothing(_path: Path) -> pl.DataFrame:
    raise NotImplementedError


def doubled(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(twice=pl.col("count") * 2)


class Readings(dy.Schema):
    at = utc_time(within=TimeBounds(timedelta(0), timedelta(days=1)))
    place = dy.String(check=one_of("EWR", "JFK"))
    count = dy.Int64(min=0, max=9, nullable=True)

    @dy.rule()
    def count_is_not_5(cls) -> pl.Expr:
        return cls.count.col != pl.lit(5)


SOURCE = Source(
    "readings", ObjectSource("readings/", ".*", ".csv"), read_nothing, Readings, doubled, ("at", "place"), batch_size=8
)


def row(day: str, hour: int, place: str | None = "EWR", count: str | None = "1") -> tuple[str | None, ...]:
    return (f"{day}T{hour:02}:00:00Z", place, count)


def frame(rows: Sequence[tuple[str | None, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict.fromkeys(COLUMNS, pl.String), orient="row")


ROWS = st.tuples(
    st.sampled_from(DAYS),
    st.integers(0, 3),
    st.sampled_from(["EWR", "EWR", "JFK", "LGA", None]),
    st.sampled_from(["1", "2", "3", "5", "12", "one", None]),
)


Drawn = tuple[str, int, str | None, str | None]


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(ROWS, max_size=4), min_size=3, max_size=3))
def test_partitions_validated_together_get_the_results_they_get_alone(
    values: list[list[tuple[str, int, str, str]]],
) -> None:
    frames = {
        day: frame([row(DAYS[number], 9), *(row(*value) for value in rows)])
        for number, (day, rows) in enumerate(zip(DAYS, values, strict=True))
    }

    together = validate_frames(frames, SOURCE)

    for day, rows in frames.items():
        alone = validate_frame(rows, SOURCE, day)
        assert together[day].accepted.equals(alone.accepted)
        assert together[day].rejected.equals(alone.rejected)
        assert accepted_raw(together[day]).equals(accepted_raw(alone))


def test_a_partition_that_is_refused_is_left_to_itself_and_holds_up_no_other() -> None:
    frames = {day: frame([row(day, 1), row(day, 2)]) for day in DAYS}
    frames[DAYS[1]] = frame([row(DAYS[1], 1, count="one"), row(DAYS[1], 2, count="two")])

    assert list(validate_frames(frames, SOURCE)) == [DAYS[0], DAYS[2]]


def test_partitions_whose_columns_have_other_types_get_the_results_they_get_alone() -> None:
    frames = {day: frame([row(day, 1), row(day, 2, "LGA")]) for day in DAYS}
    frames[DAYS[1]] = frames[DAYS[1]].with_columns(pl.col("count").cast(pl.Int32))

    together = validate_frames(frames, SOURCE)

    assert sorted(together) == list(DAYS)
    for day, rows in frames.items():
        assert together[day].accepted.equals(validate_frame(rows, SOURCE, day).accepted)
        assert together[day].counts == {"place|check__one_of": 1}


def test_a_partition_of_other_columns_is_refused_by_name() -> None:
    frames = {DAYS[0]: frame([row(DAYS[0], 1)]), DAYS[1]: frame([row(DAYS[1], 1)]).drop("count")}

    with pytest.raises(SchemaChangedError, match=rf"readings {DAYS[1]}: the columns changed: missing count"):
        validate_frames(frames, SOURCE)


def last_hours(day: str, sales: pl.LazyFrame, end_day: str | None = None) -> pl.LazyFrame:
    """Each shop's sales of a day, one row at its last hour, for a day or several."""
    end = pl.col("at").dt.truncate("1d") + timedelta(hours=23)
    summed = sales.group_by("shop", event_time=end).agg(pl.col("amount").sum())
    held = pl.col("event_time").dt.strftime("%Y-%m-%d").is_between(pl.lit(day), pl.lit(end_day or day))
    return summed.filter(held).with_columns(known_time="event_time")


def dataset(batch_size: int) -> Dataset:
    """The tiny dataset, whose partitions may be computed together."""
    features = replace(minimal_dataset.FEATURES, transform=last_hours, batch_size=batch_size)
    return replace(
        minimal_dataset.DATASET, sources=(replace(minimal_dataset.SALES, batch_size=batch_size),), features=(features,)
    )


def raw() -> dict[str, str]:
    """Ten days with a gap, a bad row, a key twice in a day, and a key that stands in an earlier day."""
    found = raw_days(1, 2, 3, 5, 6, 7, 8, 9, 10, 11)
    found["2026-01-03"] += "2026-01-03T13:00:00Z,east,-1\n"
    found["2026-01-06"] += "2026-01-06T12:00:00Z,east,9\n"
    found["2026-01-09"] += "2026-01-08T12:00:00Z,west,9\n"
    return found


def run_stages(root: Path, batch_size: int, threads: int) -> TableStore:
    """The table store after both stages."""
    table_store = minimal_dataset.create_table_store(root)
    write_raw_partitions(table_store, raw())
    execute = Executor(Settings(workspace=root, threads=threads))
    for stage in graph.dataset_stages(dataset(batch_size)):
        run_stage(stage, table_store, execute)
    return table_store


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "threads"), [(3, 1), (3, 2), (16, 2)])
def test_manifests_are_the_same_however_many_partitions_are_computed_together(
    tmp_path: Path, batch_size: int, threads: int
) -> None:
    alone = run_stages(tmp_path / "alone", 1, 1)

    together = run_stages(tmp_path / "together", batch_size, threads)

    for table in (VALIDATED, REJECTED, TOTALS):
        assert together.manifest(table) == alone.manifest(table)
    assert alone.manifest(REJECTED).rows == 3
    assert alone.manifest(TOTALS).rows == 20


def test_groups_are_as_large_as_the_stage_the_workers_and_the_memory_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table_store = minimal_dataset.create_table_store(tmp_path)
    write_raw_partitions(table_store, raw())
    (stage, _) = graph.dataset_stages(dataset(4))
    plan = plan_stage(stage, table_store)

    assert [len(group) for group in group_partitions(plan, table_store, workers=1)] == [4, 4, 2]
    assert [len(group) for group in group_partitions(plan, table_store, workers=5)] == [2, 2, 2, 2, 2]
    monkeypatch.setattr("headrace.project.executors.GROUP_BYTES", 100)
    assert [len(group) for group in group_partitions(plan, table_store, workers=1)] == [1] * 10
    assert [item.partition for group in group_partitions(plan, table_store, workers=1) for item in group] == sorted(
        raw()
    )
