"""A change of code, parameters or libraries that makes many partitions stale is announced with its cost."""

import io
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import minimal_dataset
import polars as pl
import pytest
import typer
from minimal_dataset import TOTALS, VALIDATED, day_names, raw_days, run_all_stages, write_raw_partitions

from headrace.cli import recomputation as question
from headrace.engine import recomputation
from headrace.engine.durations import StageDuration, estimate_seconds, record_duration
from headrace.engine.partition_range import PartitionRange
from headrace.engine.recomputation import Recomputation, find_recomputation
from headrace.engine.run import plan_all, run_stage
from headrace.project import graph
from headrace.project.executors import Executor
from headrace.settings import Settings
from headrace.storage.table_store import TableStore


def scaled_totals(day: str, params: Mapping[str, int], sales: pl.LazyFrame) -> pl.LazyFrame:
    return minimal_dataset.totals(day, sales).with_columns(pl.col("amount") * params["factor"])


def add_most(rows: pl.DataFrame, params: Mapping[str, int]) -> pl.DataFrame:
    return rows.with_columns(most=pl.lit(params["most"], pl.Int64))


DATASET = replace(
    minimal_dataset.DATASET,
    sources=(replace(minimal_dataset.SALES, params=("most",), transform=add_most),),
    features=(replace(minimal_dataset.FEATURES, params=("factor",), transform=scaled_totals),),
)
STAGES = graph.dataset_stages(DATASET)


def set_params(table_store: TableStore, *, most: int = 1, factor: int = 1) -> None:
    (table_store.root / "params.yaml").write_text(f"tiny:\n  most: {most}\n  factor: {factor}\n")


def found_in(table_store: TableStore, chosen: PartitionRange | None = None) -> Recomputation | None:
    return find_recomputation(plan_all(STAGES, table_store, only=chosen), table_store)


@pytest.fixture
def table_store(tmp_path: Path) -> TableStore:
    """Five days, computed; a run took two seconds for each of the features, and one for each validation."""
    made = minimal_dataset.create_table_store(tmp_path)
    write_raw_partitions(made, raw_days(1, 2, 3, 4, 5))
    set_params(made)
    run_all_stages(made, DATASET)
    record_duration(made, TOTALS, StageDuration(100, 200.0))
    record_duration(made, VALIDATED, StageDuration(100, 100.0))
    return made


@pytest.fixture
def _large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three partitions and a second are much."""
    monkeypatch.setattr(recomputation, "LARGE_PARTITIONS", 3)
    monkeypatch.setattr(recomputation, "LARGE_SECONDS", 1.0)


def test_a_changed_parameter_is_announced_with_partitions_and_time(table_store: TableStore) -> None:
    set_params(table_store, factor=2)

    found = found_in(table_store)

    assert found
    assert (found.partitions, found.seconds, found.is_upper_bound) == ({TOTALS: 5}, 10.0, False)
    assert str(found) == f"a parameter change (tiny.factor) makes 5 partitions of {TOTALS} stale, about 10 s"


def test_what_reads_recomputed_partitions_counts_as_far_as_it_may_change(table_store: TableStore) -> None:
    set_params(table_store, most=2)

    found = found_in(table_store)

    assert found
    assert (found.partitions, found.seconds) == ({VALIDATED: 5, TOTALS: 5}, 15.0)
    assert "makes up to 10 partitions of validated/tiny/sales, features/tiny/totals stale, about 15 s" in str(found)


def test_new_and_changed_data_is_no_recomputation(table_store: TableStore) -> None:
    write_raw_partitions(table_store, {**raw_days(6), "2026-01-02": minimal_dataset.raw_day(2, amount=7)})

    assert found_in(table_store) is None


def test_a_range_limits_what_is_announced_and_what_is_computed(table_store: TableStore) -> None:
    set_params(table_store, factor=2)
    chosen = PartitionRange("2026-01-02", "2026-01-03")

    found = found_in(table_store, chosen)
    ran = run_stage(STAGES[1], table_store, Executor(Settings(workspace=table_store.root)), chosen)
    rest = found_in(table_store)

    assert found
    assert found.partitions == {TOTALS: 2}
    assert sorted(ran.computed) == day_names(2, 3)
    assert rest
    assert rest.partitions == {TOTALS: 3}
    assert str(rest).startswith("a change of code, parameters or libraries makes 3 partitions of")


def test_it_is_large_only_with_many_partitions_and_a_long_or_unknown_time() -> None:
    def is_large(partitions: int, seconds: float | None) -> bool:
        return Recomputation({TOTALS: partitions}, False, ("code changed: k.py",), seconds).is_large

    assert [is_large(3650, 2460.0), is_large(3650, None), is_large(101, 61.0)] == [True] * 3
    assert [is_large(3650, 30.0), is_large(100, 2460.0), is_large(100, None)] == [False] * 3


@pytest.mark.parametrize(
    ("reasons", "seconds", "text"),
    [
        (["code changed: k.py"], 2460.0, "a code change (k.py) makes 365 partitions of t stale, about 41 min"),
        (
            ["code changed: a.py", "code changed: b.py", "library changed: polars"],
            7500.0,
            "a code change (a.py, b.py) and a library change (polars) make 365 partitions of t stale, about 2 h 5 min",
        ),
        (
            ["engine changed: field ids"],
            None,
            "an engine change (field ids) makes 365 partitions of t stale, how long they take is not known here",
        ),
    ],
)
def test_the_announcement_says_what_changed(reasons: list[str], seconds: float | None, text: str) -> None:
    assert str(Recomputation({"t": 365}, False, reasons, seconds)) == text


@pytest.mark.usefixtures("_large")
def test_a_run_without_a_terminal_warns_and_goes_on(table_store: TableStore, caplog: pytest.LogCaptureFixture) -> None:
    set_params(table_store, factor=2)

    with caplog.at_level(logging.WARNING):
        ran = run_all_stages(table_store, DATASET)

    assert len(ran[TOTALS].computed) == 5
    assert caplog.messages == [f"a parameter change (tiny.factor) makes 5 partitions of {TOTALS} stale, about 10 s"]


@pytest.mark.usefixtures("_large")
@pytest.mark.parametrize(("answer", "goes_on"), [("y", True), ("", True), ("n", False)])
def test_a_person_at_a_terminal_is_asked(
    table_store: TableStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    goes_on: bool,
) -> None:
    set_params(table_store, factor=2)
    monkeypatch.setattr(question, "can_ask", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{answer}\n"))

    if goes_on:
        question.confirm_recomputation(STAGES, table_store, None, yes=False)
    else:
        with pytest.raises(typer.Exit):
            question.confirm_recomputation(STAGES, table_store, None, yes=False)

    asked = capsys.readouterr().err
    assert f"A parameter change (tiny.factor) makes 5 partitions of {TOTALS} stale, about 10 s." in asked
    assert ("Nothing was computed. `headrace preview tiny TABLE`" in asked) != goes_on


@pytest.mark.usefixtures("_large")
def test_nobody_is_asked_about_little_or_with_yes(table_store: TableStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question, "can_ask", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO())

    question.confirm_recomputation(STAGES, table_store, None, yes=False)
    set_params(table_store, factor=2)
    question.confirm_recomputation(STAGES, table_store, None, yes=True)
    question.confirm_recomputation(STAGES, table_store, PartitionRange("2026-01-02", "2026-01-02"), yes=False)


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_only_a_person_at_a_terminal_can_be_asked_and_not_below_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.delenv("DVC_STAGE", raising=False)
    at_terminal = question.can_ask()
    monkeypatch.setenv("DVC_STAGE", "flights-validate-flights")
    below_dvc = question.can_ask()
    monkeypatch.delenv("DVC_STAGE")
    monkeypatch.setattr("sys.stdin", io.StringIO())

    assert (at_terminal, below_dvc, question.can_ask()) == (True, False, False)


def test_a_small_run_does_not_replace_what_a_large_one_took(table_store: TableStore) -> None:
    record_duration(table_store, TOTALS, StageDuration(1, 60.0))
    after_one = estimate_seconds(table_store, TOTALS, 3650)
    record_duration(table_store, TOTALS, StageDuration(40, 40.0))

    assert (after_one, estimate_seconds(table_store, TOTALS, 3650)) == (7300.0, 3650.0)


def test_a_run_records_what_its_partitions_took(tmp_path: Path) -> None:
    table_store = minimal_dataset.create_table_store(tmp_path)
    write_raw_partitions(table_store, raw_days(1, 2))
    set_params(table_store)
    before = estimate_seconds(table_store, TOTALS, 2)

    run_all_stages(table_store, DATASET)

    assert before is None
    assert 0 < (estimate_seconds(table_store, TOTALS, 2) or 0) < 60


def test_a_torn_record_makes_the_time_unknown(table_store: TableStore) -> None:
    (path,) = (table_store.cache.folder / "durations").glob("features.*")
    path.write_bytes(path.read_bytes()[:5])

    assert estimate_seconds(table_store, TOTALS, 2) is None
