"""Tables from tables: a run computes them in the order of the edges, and says what it read and when that was known."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import minimal_dataset
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minimal_dataset import SALES, create_table_store, raw_day, run_all_stages, write_raw_partitions

from headrace.dataset import UTC_MICROSECONDS, Dataset, DerivedTable, FeatureTable, Input
from headrace.engine.run import plan_all
from headrace.errors import HeadraceError
from headrace.lineage.partition_preview import preview_partition
from headrace.partitions import Interval, Monthly
from headrace.project import dvc_stages, graph
from headrace.project.schema_check import schema_faults
from headrace.storage.table_store import TableStore

ROOT = Path(minimal_dataset.__file__).resolve().parents[2]
DAYS = [f"2026-01-{day:02}" for day in range(1, 8)]
SHOPS = ("east", "west")


def day_totals(day: str, sales: pl.LazyFrame) -> pl.LazyFrame:
    """Sales of each shop on that day alone, without a time."""
    of_day = sales.filter(pl.col("at").dt.date() == pl.lit(day).str.to_date())
    return of_day.group_by("shop").agg(pl.col("amount").sum(), best=pl.col("amount").max())


def best_day(interval: Interval, totals: pl.LazyFrame) -> pl.LazyFrame:
    """The largest day of each shop in the three days up to the partition."""
    end = pl.lit(interval.end, UTC_MICROSECONDS) - timedelta(microseconds=1)
    return (
        totals.group_by("shop").agg(pl.col("amount").max().alias("most")).with_columns(event_time=end, known_time=end)
    )


TOTALS = DerivedTable(
    name="day_totals",
    key=("shop",),
    inputs={"sales": Input("validated/sales")},
    transform=day_totals,
    columns={"shop": pl.String(), "amount": pl.Int64()},
)
BEST = FeatureTable(
    name="best_day",
    keys=("shop",),
    inputs={"totals": Input("derived/day_totals", lookback=2)},
    transform=best_day,
    features={"most": pl.Int64()},
    ttl=timedelta(0),
)
TINY = Dataset(name="tiny", description="Sales.", owner="tests", sources=(SALES,), features=(BEST,), derived=(TOTALS,))


@pytest.fixture
def table_store(tmp_path: Path) -> TableStore:
    return create_table_store(tmp_path)


Amounts = dict[int, list[tuple[str, int]]]
"""Day of the month → sales of shops."""


def write_sales(table_store: TableStore, amounts: Amounts) -> None:
    contents = {
        f"2026-01-{day:02}": "".join(
            f"2026-01-{day:02}T{hour:02}:00:00Z,{shop},{amount}\n" for hour, (shop, amount) in enumerate(sales)
        )
        for day, sales in amounts.items()
    }
    gone = [name for name in table_store.manifest("raw/tiny/sales").partitions if name not in contents]
    write_raw_partitions(table_store, contents, drop=tuple(gone))


def expected_best(amounts: Amounts) -> set[tuple[str, str, int]]:
    """Day, shop and largest total, by nested loops over sales."""
    found = set()
    for day in amounts:
        for shop in SHOPS:
            totals = []
            for other in range(day - 2, day + 1):
                sales = [amount for name, amount in amounts.get(other, []) if name == shop]
                totals += [sum(sales)] if sales else []
            if totals:
                found.add((f"2026-01-{day:02}", shop, max(totals)))
    return found


def computed_best(table_store: TableStore) -> set[tuple[str, str, int]]:
    rows = table_store.scan("features/tiny/best_day").collect()
    return {(str(row["event_time"].date()), row["shop"], row["most"]) for row in rows.iter_rows(named=True)}


SALES_OF_DAYS = st.dictionaries(
    st.integers(1, 9),
    st.lists(st.tuples(st.sampled_from(SHOPS), st.integers(0, 9)), min_size=1, max_size=4),
    min_size=1,
    max_size=6,
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=SALES_OF_DAYS, second=SALES_OF_DAYS)
def test_features_of_a_derived_table_are_those_of_nested_loops_also_after_a_change(
    tmp_path_factory: pytest.TempPathFactory, first: Amounts, second: Amounts
) -> None:
    table_store = create_table_store(tmp_path_factory.mktemp("chain"))
    for amounts in (first, second):
        write_sales(table_store, amounts)
        run_all_stages(table_store, TINY, threads=1)

        assert computed_best(table_store) == expected_best(amounts)


def test_a_changed_day_recomputes_its_derived_partition_and_the_features_that_read_it(table_store: TableStore) -> None:
    write_raw_partitions(table_store, {day: raw_day(int(day[-2:])) for day in DAYS})
    run_all_stages(table_store, TINY)
    write_raw_partitions(table_store, {DAYS[1]: raw_day(2, 5)})

    plans = {plan.stage.table: [item.partition for item in plan.stale] for plan in plan_all(stages(TINY), table_store)}
    done = run_all_stages(table_store, TINY)

    assert plans["derived/tiny/day_totals"] == [*done["derived/tiny/day_totals"].computed] == DAYS[1:2]
    assert plans["features/tiny/best_day"] == [*done["features/tiny/best_day"].computed] == DAYS[1:4]


def test_a_derived_table_has_its_declared_columns_and_says_what_it_read(table_store: TableStore) -> None:
    write_raw_partitions(table_store, {day: raw_day(int(day[-2:])) for day in DAYS})
    run_all_stages(table_store, TINY)

    assert table_store.scan("derived/tiny/day_totals").collect_schema() == {"shop": pl.String, "amount": pl.Int64}
    entry = table_store.manifest("features/tiny/best_day").partitions[DAYS[3]]
    assert {table: [*names] for table, names in entry.inputs.items()} == {"derived/tiny/day_totals": DAYS[1:4]}
    entry = table_store.manifest("derived/tiny/day_totals").partitions[DAYS[3]]
    assert {table: [*names] for table, names in entry.inputs.items()} == {"validated/tiny/sales": DAYS[3:4]}


def test_a_derived_table_of_another_grain_is_read_by_interval(table_store: TableStore) -> None:
    monthly = replace(TOTALS, transform=month_totals, partitions=Monthly())
    declared = replace(TINY, derived=(monthly,), features=())
    write_raw_partitions(table_store, {day: raw_day(int(day[-2:])) for day in DAYS})

    run_all_stages(table_store, declared)

    [entry] = table_store.manifest("derived/tiny/day_totals").partitions.items()
    assert (entry[0], [*entry[1].inputs["validated/tiny/sales"]]) == ("2026-01", DAYS)
    assert table_store.scan("derived/tiny/day_totals").collect()["amount"].to_list() == [len(DAYS)] * 2


def month_totals(interval: Interval, sales: pl.LazyFrame) -> pl.LazyFrame:
    assert interval.end - interval.start == timedelta(days=31)
    return sales.group_by("shop").agg(pl.col("amount").sum())


def test_two_rows_of_one_key_of_a_derived_table_are_refused(table_store: TableStore) -> None:
    twice = replace(TOTALS, transform=lambda day, sales: pl.concat([day_totals(day, sales)] * 2))
    write_raw_partitions(table_store, {DAYS[0]: raw_day(1)})

    with pytest.raises(HeadraceError, match=r"derived/tiny/day_totals.* expected one row per key, found 4 that share"):
        run_all_stages(table_store, replace(TINY, derived=(twice,), features=()))


def test_a_preview_computes_the_derived_partitions_that_it_reads(table_store: TableStore) -> None:
    write_raw_partitions(table_store, {day: raw_day(int(day[-2:])) for day in DAYS})

    shown = preview_partition(TINY, table_store, "best_day", DAYS[3])

    assert dict(shown.computed_first)["derived/tiny/day_totals"] == DAYS[1:4]
    assert shown.tables[0].rows["most"].to_list() == [1, 1]
    assert not table_store.manifest("derived/tiny/day_totals").partitions


def test_dvc_runs_the_stages_of_derived_tables_and_knows_what_they_read() -> None:
    derived, features = (stage for stage in stages(TINY) if stage.verb == "transform")

    one, two = dvc_stages.dvc_stage(derived, ROOT), dvc_stages.dvc_stage(features, ROOT)

    assert dvc_stages.stage_name(derived) == "tiny-transform-day_totals"
    assert one["outs"] == ["data/derived/tiny/day_totals"]
    assert "data/derived/tiny/day_totals/_manifest/head.json" in two["deps"]


def test_what_kernels_of_derived_tables_give_for_no_rows_is_checked() -> None:
    wrong = replace(TOTALS, columns={"shop": pl.String(), "amount": pl.Float64(), "town": pl.String()})

    found = [fault.text for fault in schema_faults(replace(TINY, derived=(wrong,)))]

    assert any("gives 'amount' as Int64, declared is Float64" in text for text in found)
    assert any("gives no column 'town'" in text for text in found)
    assert list(schema_faults(TINY)) == []


def stages(dataset: Dataset) -> list[Any]:
    return list(graph.dataset_stages(dataset))


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def shop_facts(day: str, sales: pl.LazyFrame) -> pl.LazyFrame:
    """Each sale is known as many hours late as its amount."""
    late = pl.col("at") + pl.duration(hours=pl.col("amount"))
    return sales.select("shop", "amount", "at", known_time=late.cast(UTC_MICROSECONDS)).filter(
        pl.col("at").dt.date() == pl.lit(day).str.to_date()
    )


FACTS = DerivedTable(
    name="facts",
    key=("shop", "at"),
    inputs={"sales": Input("validated/sales")},
    transform=shop_facts,
    columns={"shop": pl.String(), "at": UTC_MICROSECONDS, "amount": pl.Int64(), "known_time": UTC_MICROSECONDS},
)


def honest(day: str, facts: pl.LazyFrame, end_day: str | None = None) -> pl.LazyFrame:
    assert day <= (end_day or day)
    return facts.group_by("shop").agg(
        pl.col("amount").sum().alias("most"), pl.col("at").max().alias("event_time"), pl.col("known_time").max()
    )


def hasty(day: str, facts: pl.LazyFrame, end_day: str | None = None) -> pl.LazyFrame:
    return honest(day, facts, end_day).with_columns(known_time=pl.col("event_time"))


def patient(day: str, facts: pl.LazyFrame) -> pl.LazyFrame:
    """Says what was known at the event, and leaves out what was not."""
    at = pl.lit(NOON, UTC_MICROSECONDS)
    return honest(day, facts.filter(pl.col("known_time") <= at)).with_columns(known_time=at)


def features_of_facts(kernel: Any) -> Dataset:  # noqa: ANN401  any of these
    table = replace(BEST, name="late", inputs={"facts": Input("derived/facts")}, transform=kernel)
    return replace(TINY, derived=(FACTS,), features=(table,))


@pytest.mark.parametrize("kernel", [honest, patient])
def test_features_may_be_known_when_all_that_they_read_was_known(table_store: TableStore, kernel: Any) -> None:  # noqa: ANN401
    write_sales(table_store, {1: [("east", 1), ("east", 3), ("west", 30)]})

    run_all_stages(table_store, features_of_facts(kernel))

    assert table_store.scan("features/tiny/late").collect().height >= 1


@pytest.mark.parametrize("batch_size", [1, 2])
def test_features_that_say_they_were_known_before_what_they_read_are_refused(
    table_store: TableStore, batch_size: int
) -> None:
    declared = features_of_facts(hasty)
    declared = replace(declared, features=(replace(declared.features[0], batch_size=batch_size),))
    write_sales(table_store, {1: [("east", 1), ("east", 3)], 2: [("west", 5)]})

    with pytest.raises(
        HeadraceError, match=r"(?s)features/tiny/late 2026-01-01: .*without what derived/facts knew later"
    ):
        run_all_stages(table_store, declared)
