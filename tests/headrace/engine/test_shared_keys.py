"""Keys that occur in several partitions: whatever is interrupted or refused, the earliest partition keeps the key."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import minimal_dataset
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minimal_dataset import RAW, REJECTED, VALIDATED, create_table_store, write_raw_partitions

from headrace.dataset import Dataset
from headrace.engine.plan import Plan
from headrace.engine.run import Done, plan_all, plan_stage, run_stage
from headrace.engine.stage import Stage
from headrace.project import graph
from headrace.project.executors import Executor
from headrace.release.audit import TablesBehindError, audit
from headrace.settings import Settings
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.table_store import TableStore
from headrace.validate.stage import TooManyRejectedError


def dataset(tolerated: float = 1.0) -> Dataset:
    """Sales whose key is an order, here in the column `shop`: no time leads it, so any two days may hold the same."""
    source = replace(minimal_dataset.SALES, key=("shop",), max_rejected_share=tolerated)
    return replace(minimal_dataset.DATASET, sources=(source,))


def stage_of(declared: Dataset) -> Stage:
    return graph.dataset_stages(declared)[0]


def lines(day: str, orders: str) -> str:
    return "".join(f"{day}T12:00:00Z,{order},1\n" for order in orders)


def arrive(table_store: TableStore, orders: Mapping[str, str]) -> None:
    """Day → orders, a letter each."""
    write_raw_partitions(table_store, {day: lines(day, held) for day, held in orders.items()})


def accepted(table_store: TableStore) -> dict[str, list[str]]:
    """Day → the orders that readers see."""
    files = table_store.paths(VALIDATED)
    return {day: sorted(pl.read_parquet(path).get_column("shop")) for day, path in files.items()}


def in_earliest_only(orders: Mapping[str, str]) -> dict[str, list[str]]:
    """What is right: a set that grows from day to day."""
    seen: set[str] = set()
    right = {}
    for day in sorted(orders):
        right[day] = sorted(set(orders[day]) - seen)
        seen |= set(orders[day])
    return right


class InterruptedRunError(Exception):
    """Stands for the death of the process."""


@dataclass
class InterruptedExecutor:
    """Dies once so many partitions have been computed and recorded in the journal."""

    partitions: int

    def __call__(self, plan: Plan, table_store: TableStore, done: Done) -> None:
        def record(partition: str, entry: PartitionEntry) -> None:
            if not self.partitions:
                raise InterruptedRunError
            self.partitions -= 1
            done(partition, entry)

        Executor(Settings(workspace=table_store.root, threads=1))(plan, table_store, record)


def run(table_store: TableStore, declared: Dataset) -> None:
    run_stage(stage_of(declared), table_store, Executor(Settings(workspace=table_store.root, threads=1)))


@pytest.fixture
def repeated(tmp_path: Path) -> tuple[TableStore, Dataset]:
    """A day that is up to date, and a second one that repeats two thirds of its keys and is therefore refused."""
    table_store, declared = create_table_store(tmp_path), dataset(tolerated=0.49)
    arrive(table_store, {"2026-01-01": "abc"})
    run(table_store, declared)
    arrive(table_store, {"2026-01-02": "abe"})
    return table_store, declared


def test_a_partition_that_is_refused_for_its_shared_keys_is_refused_by_every_run_and_never_shown(
    repeated: tuple[TableStore, Dataset],
) -> None:
    table_store, declared = repeated

    for _ in range(3):
        with pytest.raises(TooManyRejectedError, match=r"66\.7% of 3 rows rejected"):
            run(table_store, declared)
        assert accepted(table_store) == {"2026-01-01": ["a", "b", "c"]}
        with pytest.raises(TablesBehindError, match=r"1 that are not, 2026-01-02 first"):
            audit(declared, table_store)


def test_the_plan_after_a_refusal_says_that_the_partition_is_read_with_the_one_that_holds_its_keys(
    repeated: tuple[TableStore, Dataset],
) -> None:
    table_store, declared = repeated
    with pytest.raises(TooManyRejectedError):
        run(table_store, declared)

    (stale,) = plan_all([stage_of(declared)], table_store)[0].stale

    assert list(stale.inputs[RAW]) == ["2026-01-01", "2026-01-02"]


def test_what_was_computed_and_not_shown_cannot_be_released(tmp_path: Path) -> None:
    """The process dies when everything is computed, before anything is shown."""
    table_store, declared = create_table_store(tmp_path), dataset()
    arrive(table_store, {"2026-01-01": "abc"})
    run(table_store, declared)
    arrive(table_store, {"2026-01-02": "de"})
    stage = stage_of(declared)
    plan = plan_stage(stage, table_store)
    Executor(Settings(workspace=table_store.root))(
        plan, table_store, lambda _day, entry: table_store.append_to_journal(stage.table, entry)
    )

    with pytest.raises(TablesBehindError, match=r"validated/tiny/sales: .* 1 that are not, 2026-01-02 first"):
        audit(declared, table_store)
    assert plan_stage(stage, table_store).computed_before == ["2026-01-02"]

    run(table_store, declared)
    assert accepted(table_store) == {"2026-01-01": ["a", "b", "c"], "2026-01-02": ["d", "e"]}


def test_a_table_of_rejected_rows_that_is_not_the_planned_one_cannot_be_released(tmp_path: Path) -> None:
    table_store, declared = create_table_store(tmp_path), replace(dataset(), features=())
    arrive(table_store, {"2026-01-01": "ab", "2026-01-02": "bc"})
    run(table_store, declared)
    audit(declared, table_store)
    table_store.checkout(table_store.manifest(REJECTED).with_partitions({}))

    with pytest.raises(TablesBehindError, match="rejected/tiny/sales"):
        audit(declared, table_store)

    run(table_store, declared)
    audit(declared, table_store)


DAYS = st.lists(
    st.text("abcdef", min_size=1, max_size=4).map(lambda text: "".join(sorted(set(text)))), min_size=1, max_size=5
)


@pytest.mark.slow_lane
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(before=DAYS, after=DAYS, deaths=st.lists(st.integers(0, 6), max_size=3))
def test_however_often_a_run_dies_one_more_gives_what_an_undisturbed_one_gives(
    tmp_path_factory: pytest.TempPathFactory, before: list[str], after: list[str], deaths: list[int]
) -> None:
    declared = dataset()
    first = {f"2026-01-{number:02}": orders for number, orders in enumerate(before, start=1)}
    then = {f"2026-01-{number:02}": orders for number, orders in enumerate(after, start=2)}
    calm, disturbed = (create_table_store(tmp_path_factory.mktemp("tables")) for _ in range(2))
    for table_store in (calm, disturbed):
        arrive(table_store, first)
        run(table_store, declared)
        arrive(table_store, then)

    for left in deaths:
        try:
            run_stage(stage_of(declared), disturbed, InterruptedExecutor(left))
        except InterruptedRunError:
            continue
    run(calm, declared)
    run(disturbed, declared)

    assert accepted(disturbed) == in_earliest_only(first | then)
    for table in (VALIDATED, REJECTED):
        assert disturbed.manifest(table).to_files().head == calm.manifest(table).to_files().head
    audit(replace(declared, features=()), disturbed)
