"""The engine: cost follows what is new, and same inputs give same bytes.

Every stage of every dataset runs on it; the dataset here is small enough to see through.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import dataframely as dy
import minimal_dataset
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minimal_dataset import RAW, REJECTED, TOTALS, VALIDATED, day_names, raw_days, run_all_stages, write_raw_partitions

from headrace.engine.plan import Plan
from headrace.engine.run import Done, plan_all, plan_stage, run_stage
from headrace.errors import HeadraceError
from headrace.project import graph
from headrace.project.executors import Executor
from headrace.settings import Settings
from headrace.storage.partition_names import PartitionNameError
from headrace.storage.table_store import TableStore


@pytest.fixture
def table_store(tmp_path: Path) -> TableStore:
    """Five days, nothing computed yet."""
    made = minimal_dataset.create_table_store(tmp_path)
    write_raw_partitions(made, raw_days(1, 2, 3, 4, 5))
    return made


def folder_content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}


def reasons(plans: Sequence[Plan], table: str) -> dict[str, tuple[str, ...]]:
    return {item.partition: item.reasons for made in plans if made.stage.table == table for item in made.stale}


def test_a_second_run_does_nothing(table_store: TableStore) -> None:
    run_all_stages(table_store)

    again = run_all_stages(table_store)

    assert all(not ran.computed and not ran.removed for ran in again.values())


def test_a_new_day_costs_that_day(table_store: TableStore) -> None:
    run_all_stages(table_store)
    write_raw_partitions(table_store, raw_days(6))

    ran = run_all_stages(table_store)

    assert list(ran[VALIDATED].computed) == day_names(6)
    assert list(ran[TOTALS].computed) == day_names(6)


def test_a_correction_makes_the_days_stale_that_look_back_on_it_and_no_others(table_store: TableStore) -> None:
    run_all_stages(table_store)
    write_raw_partitions(table_store, {"2026-01-02": minimal_dataset.raw_day(2, amount=7)})

    ran = run_all_stages(table_store)

    assert list(ran[VALIDATED].computed) == day_names(2)
    assert sorted(ran[TOTALS].computed) == day_names(2, 3, 4)
    assert table_store.scan(TOTALS, day_names(4)).collect()["amount"].to_list() == [9, 9]


def test_a_deleted_input_deletes_what_came_of_it_and_changes_what_looked_back_on_it(table_store: TableStore) -> None:
    run_all_stages(table_store)
    write_raw_partitions(table_store, {}, drop=("2026-01-02",))

    ran = run_all_stages(table_store)

    assert ran[VALIDATED].removed == ran[TOTALS].removed == day_names(2)
    assert sorted(ran[TOTALS].computed) == day_names(3, 4)
    assert not (table_store.folder(VALIDATED) / "2026-01-02.parquet").exists()


def test_a_late_day_makes_later_days_stale(tmp_path: Path) -> None:
    table_store = minimal_dataset.create_table_store(tmp_path)
    write_raw_partitions(table_store, raw_days(1, 3, 4, 6))
    run_all_stages(table_store)
    write_raw_partitions(table_store, raw_days(2))

    assert sorted(run_all_stages(table_store)[TOTALS].computed) == day_names(2, 3, 4)


def test_a_correction_that_changes_no_accepted_row_stops_there(table_store: TableStore) -> None:
    run_all_stages(table_store)
    write_raw_partitions(table_store, {"2026-01-02": minimal_dataset.raw_day(2) + "2026-01-02T13:00:00Z,east,-5\n"})

    ran = run_all_stages(table_store)

    assert list(ran[VALIDATED].computed) == day_names(2)
    assert not ran[TOTALS].computed
    assert table_store.scan(REJECTED).collect()["_failed_checks"].to_list() == [["amount|min"]]


def test_a_rejected_row_goes_when_its_partition_is_mended(table_store: TableStore) -> None:
    write_raw_partitions(table_store, {"2026-01-02": minimal_dataset.raw_day(2) + "2026-01-02T13:00:00Z,east,-5\n"})
    run_all_stages(table_store)
    write_raw_partitions(table_store, raw_days(2))

    run_all_stages(table_store)

    assert table_store.manifest(REJECTED).partitions == {}
    assert [path.name for path in table_store.folder(REJECTED).rglob("*.*")] == ["head.json"]


def test_partitions_of_one_table_that_read_the_same_bytes_are_not_taken_for_one_another(
    table_store: TableStore,
) -> None:
    stage = graph.dataset_stages(minimal_dataset.DATASET)[0]
    every = {RAW: dict(table_store.manifest(RAW).md5s)}
    same = replace(stage, partitions=lambda _inputs, _own: ((day, every) for day in day_names(1, 2)))

    made = plan_stage(same, table_store)

    assert len({item.cache_key for item in made.stale}) == len(made.stale) == 2


def test_the_plan_says_why_before_anything_runs(table_store: TableStore) -> None:
    run_all_stages(table_store)
    write_raw_partitions(
        table_store, {"2026-01-02": minimal_dataset.raw_day(2, amount=7), **raw_days(6)}, drop=("2026-01-05",)
    )

    plans = plan_all(graph.dataset_stages(minimal_dataset.DATASET), table_store)

    assert reasons(plans, VALIDATED) == {
        "2026-01-02": (f"input changed: {RAW}/2026-01-02",),
        "2026-01-06": ("never built",),
    }
    assert reasons(plans, TOTALS)["2026-01-03"] == (f"input changed: {VALIDATED}/2026-01-02",)
    assert [list(made.removed) for made in plans] == [day_names(5), day_names(5)]


def scaled_totals(day: str, params: Mapping[str, int], sales: pl.LazyFrame) -> pl.LazyFrame:
    return minimal_dataset.totals(day, sales).with_columns(pl.col("amount") * params["factor"])


def contract_with_limit(params: Mapping[str, int]) -> type[dy.Schema]:
    class LimitedSales(minimal_dataset.Sales):
        amount = dy.Int64(min=0, max=params["most"])

    return LimitedSales


def keep_up_to(rows: pl.DataFrame, params: Mapping[str, int]) -> pl.DataFrame:
    return rows.with_columns(most=pl.lit(params["most"], pl.Int64))


WITH_PARAMS = replace(
    minimal_dataset.DATASET,
    sources=(
        replace(
            minimal_dataset.SALES, params=("most",), contract=contract_with_limit, transform=keep_up_to, batch_size=2
        ),
    ),
    features=(
        replace(minimal_dataset.FEATURES, params=("factor",), transform=scaled_totals),
        replace(minimal_dataset.FEATURES, name="plain"),
    ),
)


def write_params(table_store: TableStore, *, most: int, factor: int) -> None:
    (table_store.root / "params.yaml").write_text(f"tiny:\n  most: {most}\n  factor: {factor}\n")


def amounts(table_store: TableStore, table: str) -> list[int]:
    return table_store.scan(table).collect().sort("amount")["amount"].to_list()


def test_a_changed_parameter_recomputes_exactly_the_table_that_receives_it(table_store: TableStore) -> None:
    write_params(table_store, most=9, factor=1)
    run_all_stages(table_store, WITH_PARAMS)
    before = amounts(table_store, TOTALS)

    write_params(table_store, most=9, factor=10)
    planned = plan_all(graph.dataset_stages(WITH_PARAMS), table_store)
    ran = run_all_stages(table_store, WITH_PARAMS)

    assert set(reasons(planned, TOTALS).values()) == {("parameter changed: tiny.factor",)}
    computed = {table: list(result.computed) for table, result in ran.items()}
    assert computed == {VALIDATED: [], TOTALS: day_names(1, 2, 3, 4, 5), "features/tiny/plain": []}
    assert amounts(table_store, TOTALS) == [10 * amount for amount in before]
    write_params(table_store, most=9, factor=1)
    assert not plan_all(graph.dataset_stages(WITH_PARAMS), table_store)[2].stale


def test_the_contract_and_the_transform_of_a_source_receive_its_parameters(table_store: TableStore) -> None:
    write_raw_partitions(table_store, {"2026-01-06": minimal_dataset.raw_day(6, amount=7)})
    write_params(table_store, most=9, factor=1)
    accepted = run_all_stages(table_store, WITH_PARAMS)[VALIDATED].manifest.rows

    write_params(table_store, most=5, factor=1)
    stage = graph.dataset_stages(
        replace(WITH_PARAMS, sources=(replace(WITH_PARAMS.sources[0], max_rejected_share=1),))
    )[0]
    (planned,) = {item.reasons for item in plan_stage(stage, table_store).stale}
    ran = run_stage(stage, table_store, Executor(Settings(workspace=table_store.root)))

    assert planned == ("parameter changed: tiny.most",)
    assert accepted - ran.manifest.rows == 2
    rejected = table_store.scan(REJECTED).collect()
    assert rejected["amount"].to_list() == ["7", "7"]
    assert table_store.scan(VALIDATED).collect()["most"].unique().to_list() == [5]


def test_a_library_of_another_version_makes_every_partition_stale(
    table_store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all_stages(table_store)
    stages = graph.dataset_stages(minimal_dataset.DATASET)
    assert all(plan_stage(stage, table_store).is_empty for stage in stages)

    monkeypatch.setattr(
        "headrace.engine.fingerprint.library_version", lambda name: "0" if name == "pyarrow" else version(name)
    )

    for stage in stages:
        stale = {item.partition: item.reasons for item in plan_stage(stage, table_store).stale}
        assert stale == dict.fromkeys(day_names(1, 2, 3, 4, 5), ("library changed: pyarrow",))


def test_a_declared_data_file_counts_as_code_and_one_that_is_missing_is_named(
    table_store: TableStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.engine.fingerprint.project_folder", lambda _modules: tmp_path)
    (tmp_path / "zones.csv").write_text("JFK,America/New_York\n")
    source = replace(minimal_dataset.SALES, files=("zones.csv",))
    dataset = replace(minimal_dataset.DATASET, sources=(source,))
    run_all_stages(table_store, dataset)
    stage = graph.dataset_stages(dataset)[0]
    assert plan_stage(stage, table_store).is_empty

    (tmp_path / "zones.csv").write_text("JFK,UTC\n")
    assert {item.reasons for item in plan_stage(stage, table_store).stale} == {("code changed: zones.csv",)}

    (tmp_path / "zones.csv").unlink()
    with pytest.raises(HeadraceError, match=r"validated/tiny/sales: the declared file .*zones\.csv cannot be read"):
        plan_stage(stage, table_store)


def test_a_partition_that_is_changed_back_is_not_computed_again_while_something_remembers_it(
    table_store: TableStore,
) -> None:
    run_all_stages(table_store)
    before = table_store.manifest(TOTALS)
    write_raw_partitions(table_store, {"2026-01-02": minimal_dataset.raw_day(2, amount=7)})
    run_all_stages(table_store)
    write_raw_partitions(table_store, raw_days(2))

    run_all_stages(table_store)

    assert table_store.manifest(TOTALS) == before


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(1, 9)), threads=st.sampled_from([1, 2, 5]), cut=st.integers(1, 7))
def test_neither_order_of_arrival_nor_threads_change_a_byte(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], threads: int, cut: int
) -> None:
    one, other = (minimal_dataset.create_table_store(tmp_path_factory.mktemp("tables")) for _ in range(2))
    write_raw_partitions(one, raw_days(*range(1, 9)))
    run_all_stages(one)

    write_raw_partitions(other, raw_days(*order[:cut]))
    run_all_stages(other, threads=threads)
    write_raw_partitions(other, raw_days(*order[cut:]))
    run_all_stages(other, threads=threads)

    for table in (VALIDATED, REJECTED, TOTALS):
        assert folder_content(one.folder(table)) == folder_content(other.folder(table))


def test_a_key_in_two_partitions_stays_in_the_earliest_whichever_came_first(tmp_path: Path) -> None:
    twice = "2026-01-02T12:00:00Z,east,1\n"
    late, early = (
        minimal_dataset.create_table_store(tmp_path / "late"),
        minimal_dataset.create_table_store(tmp_path / "early"),
    )
    contents = {
        **raw_days(1, 2),
        "2026-01-03": minimal_dataset.raw_day(3) + twice,
        "2026-01-04": minimal_dataset.raw_day(4),
    }
    write_raw_partitions(late, {name: contents[name] for name in day_names(3, 4)})
    run_all_stages(late)
    write_raw_partitions(late, contents)
    run_all_stages(late)

    write_raw_partitions(early, contents)
    ran = run_all_stages(early)

    for table_store in (late, early):
        assert table_store.scan(REJECTED).collect()["_failed_checks"].to_list() == [["unique(at, shop)"]]
        assert list(table_store.manifest(REJECTED).partitions) == day_names(3)
    assert late.manifest(VALIDATED) == early.manifest(VALIDATED)
    assert sorted(ran[VALIDATED].computed) == day_names(1, 2, 3, 4)


def test_a_partition_whose_earlier_twin_is_deleted_gets_its_row_back(tmp_path: Path) -> None:
    table_store = minimal_dataset.create_table_store(tmp_path)
    write_raw_partitions(
        table_store, {**raw_days(2), "2026-01-03": minimal_dataset.raw_day(3) + "2026-01-02T12:00:00Z,east,1\n"}
    )
    run_all_stages(table_store)
    write_raw_partitions(table_store, {}, drop=("2026-01-02",))

    run_all_stages(table_store)

    assert table_store.manifest(REJECTED).partitions == {}
    assert table_store.manifest(VALIDATED).partitions["2026-01-03"].rows == 3


def test_a_kernel_that_breaks_its_declaration_is_told_which_column(table_store: TableStore) -> None:
    wrong = replace(minimal_dataset.FEATURES, features={"amount": pl.Float64()})

    with pytest.raises(
        HeadraceError, match=r"totals 2026-01-01: expected amount: Float64; its kernel returned .*amount: Int64"
    ):
        run_all_stages(table_store, replace(minimal_dataset.DATASET, features=(wrong,)))


@pytest.mark.parametrize(
    ("feature", "key", "message"),
    [
        (pl.Duration("us"), pl.String(), r"amount: Duration\(time_unit='us'\) would not be read back as that"),
        (pl.Int64(), pl.Categorical(), r"shop: Categorical.* would not be read back as that"),
    ],
)
def test_a_feature_or_key_of_a_type_that_parquet_does_not_keep_is_refused_by_name(
    table_store: TableStore, feature: pl.DataType, key: pl.DataType, message: str
) -> None:
    def kernel(day: str, sales: pl.LazyFrame) -> pl.LazyFrame:
        return minimal_dataset.totals(day, sales).cast({"amount": feature, "shop": key})

    wrong = replace(minimal_dataset.FEATURES, transform=kernel, features={"amount": feature})

    with pytest.raises(HeadraceError, match=rf"totals 2026-01-01: {message}"):
        run_all_stages(table_store, replace(minimal_dataset.DATASET, features=(wrong,)))


def _a_day_late(day: str, sales: pl.LazyFrame) -> pl.LazyFrame:
    return minimal_dataset.totals(day, sales).with_columns(pl.col("event_time") + timedelta(days=1))


def _twice(day: str, sales: pl.LazyFrame) -> pl.LazyFrame:
    return pl.concat([minimal_dataset.totals(day, sales), minimal_dataset.totals(day, sales)])


def _with_nulls(day: str, sales: pl.LazyFrame) -> pl.LazyFrame:
    is_west = pl.col("shop") == "west"
    rows = minimal_dataset.totals(day, sales).with_columns(known_time=pl.when(~is_west).then(pl.col("known_time")))
    return rows.with_columns(shop=pl.when(is_west).then(pl.col("shop")))


def _numbered(day: str, sales: pl.LazyFrame) -> pl.LazyFrame:
    return minimal_dataset.totals(day, sales).with_columns(shop=pl.lit(7, pl.Int64))


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (
            _with_nulls,
            r"totals 2026-01-01: expected a value of shop, known_time in every row, found null in 1, 1 of 2",
        ),
        (_numbered, r"totals 2026-01-01: expected shop: String; its kernel returned .*shop: Int64"),
        (_a_day_late, r"totals 2026-01-01: expected event times of that UTC day, found 2 others, 2026-01-02 23:00:00"),
        (_twice, r"totals 2026-01-01: expected one row per key and event time, found 4 that share theirs, \('\w+', "),
    ],
)
def test_rows_that_retrieval_would_not_find_or_not_tell_apart_are_refused(
    table_store: TableStore, kernel: Callable[..., pl.LazyFrame], message: str
) -> None:
    wrong = replace(minimal_dataset.FEATURES, transform=kernel)

    with pytest.raises(HeadraceError, match=message):
        run_all_stages(table_store, replace(minimal_dataset.DATASET, features=(wrong,)))


def test_a_table_whose_first_input_is_one_partition_has_rows_of_any_time(table_store: TableStore) -> None:
    def kernel(day: str, sales: pl.LazyFrame) -> pl.LazyFrame:
        assert day == "all"
        return minimal_dataset.totals("2026-01-02", sales)

    write_raw_partitions(table_store, {"all": minimal_dataset.raw_day(1)}, drop=tuple(table_store.manifest(RAW).md5s))
    whole = replace(minimal_dataset.FEATURES, transform=kernel)

    run_all_stages(table_store, replace(minimal_dataset.DATASET, features=(whole,)))

    assert table_store.manifest(TOTALS).rows == 2


@pytest.mark.parametrize(
    "name", ["2026-01", "2026-1-1", "backfill", "20260101", "2026-W01-1", "2026-01-01T05", "2026-02-30"]
)
def test_a_partition_that_is_no_day_is_named_before_anything_is_computed(table_store: TableStore, name: str) -> None:
    write_raw_partitions(table_store, {name: minimal_dataset.raw_day(9)})

    with pytest.raises(PartitionNameError, match=rf"{VALIDATED}: .* UTC days .* found 1 other: {name}"):
        run_all_stages(table_store)

    assert name in table_store.manifest(VALIDATED).md5s


def test_one_partition_can_be_asked_for_and_the_others_stay_as_they_are(table_store: TableStore) -> None:
    run_all_stages(table_store)
    write_raw_partitions(
        table_store,
        {"2026-01-02": minimal_dataset.raw_day(2, amount=7), "2026-01-04": minimal_dataset.raw_day(4, amount=7)},
        drop=("2026-01-05",),
    )
    before = table_store.manifest(VALIDATED).partitions
    stage = graph.dataset_stages(minimal_dataset.DATASET)[0]

    ran = run_stage(stage, table_store, Executor(Settings(workspace=table_store.root)), day_names(2))

    after = table_store.manifest(VALIDATED).partitions
    assert (list(ran.computed), ran.removed) == (day_names(2), [])
    assert {name for name in before if after[name] != before[name]} == set(day_names(2))
    assert list(run_all_stages(table_store)[VALIDATED].computed) == day_names(4)


def test_a_shuffled_plan_gives_the_same_manifest(table_store: TableStore, tmp_path: Path) -> None:
    other = minimal_dataset.create_table_store(tmp_path / "other")
    write_raw_partitions(other, raw_days(1, 2, 3, 4, 5))
    run_all_stages(table_store)

    def shuffled(made: Plan, where: TableStore, done: Done) -> None:
        items = list(made.stale)
        random.Random(7).shuffle(items)  # noqa: S311  an order, no secret
        Executor(Settings(workspace=other.root))(replace(made, stale=items), where, done)

    for stage in graph.dataset_stages(minimal_dataset.DATASET):
        run_stage(stage, other, shuffled)

    assert other.manifest(TOTALS) == table_store.manifest(TOTALS)
