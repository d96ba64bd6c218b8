"""What counts as vanished: partitions, and rows that were there and are not, whatever comes in their place."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from minimal_dataset import DATASET

from headrace.dataset import Dataset, Guards
from headrace.guards.finding import GuardFinding
from headrace.guards.future import LISTED, future_findings, starts_of
from headrace.guards.vanished import Loss, table_loss
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.partition_names import partition_interval

TABLE = "raw/tiny/sales"
MORE = "2026-01-03, 2026-01-04, …"
NOON = datetime(2026, 1, 9, 12, tzinfo=UTC)


def table(**rows: int | None) -> Manifest:
    """A table with these partitions; a number of rows gives the bytes, too."""
    entries = {name: PartitionEntry(f"{n}", f"{n}".zfill(32), 1, n) for name, n in rows.items()}
    return Manifest(TABLE, partitions=entries)


def days(count: int, rows: int | None = 10) -> Manifest:
    names = [f"2026-01-{day:02}" for day in range(1, count + 1)]
    return table(**dict.fromkeys(names, rows))


def found(before: Manifest, after: Manifest, share: float = 0.5) -> str:
    finding = table_loss(before, after).finding(Guards(max_vanished_share=share), "since tiny/1")
    return finding.text if finding else ""


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (days(30), days(1), f"29 of 30 partitions and 290 of 300 rows would vanish (2026-01-02, {MORE})"),
        (days(30, None), days(1, None), f"29 of 30 partitions would vanish (2026-01-02, {MORE})"),
        (days(30, 10), days(30, 1), "270 of 300 rows would vanish (2026-01-01, 2026-01-02, 2026-01-03, …)"),
        (table(all=30), table(all=3), "27 of 30 rows would vanish (all)"),
        (days(3), days(1), "20 of 30 rows would vanish (2026-01-02, 2026-01-03)"),
        (days(4), days(1), f"3 of 4 partitions and 30 of 40 rows would vanish (2026-01-02, {MORE[:-3]})"),
        (table(all=2), table(all=0), "2 of 2 rows would vanish (all)"),
        (days(1), Manifest(TABLE), "1 of 1 partition and 10 of 10 rows would vanish (2026-01-01)"),
        (days(2, 10), days(2, 0), "20 of 20 rows would vanish (2026-01-01, 2026-01-02)"),
    ],
)
def test_a_loss_beyond_half_is_found_with_counts_and_first_names(before: Manifest, after: Manifest, text: str) -> None:
    assert found(before, after) == f"{TABLE}: {text} since tiny/1; at most 50% may"


@pytest.mark.parametrize(
    ("after", "explained"),
    [
        pytest.param(table(a=1, b=1), True, id="the same days, with more of the rows"),
        pytest.param(table(a=1), False, id="one more day"),
        pytest.param(table(a=1, b=0), False, id="rows of a day that stays, too"),
        pytest.param(table(a=1, b=1, c=9), True, id="fewer days"),
    ],
)
def test_what_vanishes_in_days_that_vanish_in_an_input_follows_from_that(after: Manifest, explained: bool) -> None:
    cause = table_loss(table(a=None, b=None, c=None, d=None), table(a=None, b=None))
    loss = table_loss(table(a=1, b=1, c=9, d=9), after)

    assert loss.follows_from(cause) == explained


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Manifest(TABLE), days(3)),
        (days(2), days(1)),
        (days(30), days(15)),
        (days(3), days(30)),
        (days(30, 10), days(30, 5)),
        (table(all=2), table(all=1)),
        (table(all=3), table(all=1)),
        (days(3, None), days(1, None)),
        (days(1, 2), table(**{"2026-01-02": 2})),
        (days(3, None), days(3, 10)),
        (days(3, 0), days(3, 0)),
        (Manifest(TABLE), Manifest(TABLE)),
    ],
)
def test_growth_and_a_loss_of_at_most_half_pass(before: Manifest, after: Manifest) -> None:
    assert found(before, after) == ""


def test_a_first_release_has_nothing_that_could_vanish() -> None:
    assert table_loss(None, days(3)).share == 0


def test_rows_that_come_elsewhere_do_not_make_up_for_rows_that_vanish() -> None:
    after = table(**{"2026-01-01": 1, "2026-01-02": 500})

    assert "9 of 10 rows would vanish (2026-01-01)" in found(days(1), after)


def test_partitions_under_other_names_do_not_make_up_for_those_that_vanish() -> None:
    assert "3 of 3 partitions and 30 of 30 rows" in found(days(3), table(**{"2026-01": 30}))


def test_the_bound_is_declared() -> None:
    assert found(days(30, None), days(27, None), share=0.0).startswith(f"{TABLE}: 3 of 30 partitions")
    assert found(days(30), Manifest(TABLE), share=1.0) == ""


@pytest.mark.parametrize(
    "bounds", [{"max_vanished_share": -0.1}, {"max_vanished_share": 1.1}, {"max_future": -timedelta(1)}]
)
def test_bounds_that_cannot_be_meant_are_refused(bounds: dict[str, float | timedelta]) -> None:
    with pytest.raises(ValueError, match="Guards: expected max_"):
        Guards(**bounds)  # type: ignore[arg-type]


def identity(before: Manifest, after: Manifest) -> str:
    finding = table_loss(before, after).finding(Guards(), "")
    assert finding is not None
    return finding.id


def test_the_id_stays_while_the_same_is_lost_and_changes_with_what_is_lost() -> None:
    one = identity(days(30), days(1))

    assert identity(days(30), table(**{"2026-01-01": 10, "2026-02-01": 5})) == one
    assert identity(days(30), table(**{"2026-01-01": 11})) == one
    assert identity(days(30), days(2)) != one
    assert identity(table(all=30), table(all=3)) != identity(table(all=30), table(all=2))


def test_a_share_is_of_all_that_there_was() -> None:
    assert Loss("row", 27, 30).share == pytest.approx(0.9)
    assert Loss("row", 0, 0).share == 0


# --- the future ---


def future(partitions: list[str], guards: Guards | None = None) -> list[GuardFinding]:
    intervals = {name: partition_interval(name) for name in partitions}
    entries = {name: PartitionEntry("", "0" * 32, 1, start=start, end=end) for name, (start, end) in intervals.items()}
    manifest = Manifest(TABLE, partitions=entries)
    return future_findings(TABLE, starts_of(manifest, partitions), manifest.md5s, guards or Guards(), NOON)


def test_a_partition_beyond_the_moment_is_found_by_name_with_both_times() -> None:
    (one,) = future(["2026-01-08", "2999-01-01", "all", "backfill"])

    assert one.id.startswith(f"future:{TABLE}/2999-01-01@")
    assert one.text == (
        f"{TABLE} 2999-01-01: 2999-01-01T00:00:00+00:00 lies beyond 2026-01-09T12:00:00+00:00, the moment of this step,"
        " by more than 1 day, 0:00:00"
    )


@pytest.mark.parametrize(
    ("partition", "is_found"),
    [
        ("2026-01-10", False),
        ("2026-01-11", True),
        ("2026-01-10T13", True),
        ("2026-02", True),
        ("2026", False),
        ("2027", True),
    ],
)
def test_a_day_that_has_begun_somewhere_on_earth_is_not_the_future(partition: str, is_found: bool) -> None:
    assert bool(future([partition])) == is_found


def test_the_tolerance_is_declared_or_switched_off() -> None:
    assert future(["2026-03-01"], Guards(max_future=timedelta(days=100))) == []
    assert future(["2999-01-01"], Guards(max_future=None)) == []
    assert future(["2026-01-10"], Guards(max_future=timedelta(0)))


def test_a_partition_without_rows_holds_nothing_of_the_future() -> None:
    start, end = partition_interval("2026-03-01")
    entries = {str(rows): PartitionEntry("", "0" * 32, 1, rows, start=start, end=end) for rows in (0, 1)}

    assert list(starts_of(Manifest(TABLE, partitions=entries), ["0", "1"])) == ["1"]


def test_many_partitions_of_the_future_are_one_finding_of_the_table() -> None:
    (one,) = future([f"{2100 + n}-01-01" for n in range(LISTED + 1)])

    assert one.id.startswith(f"future:{TABLE}@")
    assert "21 partitions (2100-01-01, 2101-01-01, 2102-01-01, …)" in one.text


def test_a_source_has_bounds_of_its_own_for_its_raw_and_validated_table() -> None:
    loose = Guards(max_vanished_share=1)
    declared: Dataset = replace(DATASET, sources=(replace(DATASET.sources[0], guards=loose),))

    assert declared.guards_of("raw/tiny/sales") == declared.guards_of("validated/tiny/sales") == loose
    assert declared.guards_of("features/tiny/totals") == Guards()
