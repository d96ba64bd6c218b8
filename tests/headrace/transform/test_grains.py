"""Inputs are mapped by interval, whatever grain a table has: planned reads and computed rows against nested loops.

The days are those around 2013-11-03, which has 25 hours in New York.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import minimal_dataset
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.dataset import Dataset, FeatureTable, Input, ObjectSource
from headrace.engine.run import StageResult
from headrace.ingest.ingest import IngestResult, ingest
from headrace.partitions import (
    Daily,
    Days,
    Hourly,
    Interval,
    Lookback,
    Monthly,
    Partitions,
    Static,
    TimePartitions,
    Unpartitioned,
    Yearly,
)
from headrace.project.declaration_check import check_declaration
from headrace.retrieve.partition_reader import PartitionReader, microseconds
from headrace.settings import Settings
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.table_store import TableStore
from headrace.transform.stage import ReadTable, partitions
from headrace.validate.stage import TooManyRejectedError

NEW_YORK, AUCKLAND = "America/New_York", "Pacific/Auckland"
HOUR = timedelta(hours=1)
FIRST, LAST = datetime(2013, 10, 29, tzinfo=UTC), datetime(2013, 11, 7, tzinfo=UTC)
CHANGE = datetime(2013, 11, 2, tzinfo=UTC), datetime(2013, 11, 5, tzinfo=UTC)
"""The day on which New York's clocks change, with a day on each side."""
FOLDER = ObjectSource("sales/", r"sales/(?P<partition>.+)\.csv", ".csv", "file:bucket")
FORMS = {Hourly: "%Y-%m-%dT%H", Daily: "%Y-%m-%d", Monthly: "%Y-%m", Yearly: "%Y"}
RAW, VALIDATED, REJECTED, WEEKS = (
    "raw/tiny/sales",
    "validated/tiny/sales",
    "rejected/tiny/sales",
    "features/tiny/weeks",
)


def written(declared: Partitions, instant: datetime) -> str:
    """The name that the clocks of the zone write at an instant."""
    return instant.astimezone(ZoneInfo(declared.timezone)).strftime(FORMS[type(declared)])


def hours(first: datetime = FIRST, last: datetime = LAST) -> Iterator[datetime]:
    while first < last:
        yield first
        first += HOUR


# --- what is read ---


@cache
def covered(declared: TimePartitions) -> dict[str, set[datetime]]:
    """Name → the hours at which clocks show it, for more than a year around the days of the tests."""
    found: dict[str, set[datetime]] = {}
    for hour in hours(FIRST - timedelta(days=400), LAST + timedelta(days=400)):
        found.setdefault(written(declared, hour), set()).add(hour)
    return found


def earliest(start: datetime, lookback: Lookback, zone: str) -> datetime:
    """The start of a window, by trying the hours before: for days, the first that clocks of the zone show so."""
    if isinstance(lookback, timedelta):
        return start - lookback
    count = lookback.count if isinstance(lookback, Days) else lookback
    wall = start.astimezone(ZoneInfo(zone)).replace(tzinfo=None) - timedelta(days=count)
    candidates = hours(start - timedelta(days=count + 1), start + HOUR)
    return next(it for it in candidates if it.astimezone(ZoneInfo(zone)).replace(tzinfo=None) >= wall)


cut_by_time = st.sampled_from(
    [Hourly(), Daily(), Daily(NEW_YORK), Daily(AUCKLAND), Monthly(), Monthly(NEW_YORK), Yearly()]
)
lookbacks = st.one_of(
    st.integers(0, 9),
    st.builds(Days, st.integers(0, 9)),
    st.integers(0, 200).map(lambda count: timedelta(hours=count)),
)


@settings(deadline=None, max_examples=25)
@given(
    own=st.sampled_from([Daily(), Daily(NEW_YORK), Monthly(NEW_YORK)]),
    driving=cut_by_time,
    other=cut_by_time,
    lookback=lookbacks,
    data=st.data(),
)
def test_every_partition_that_overlaps_the_interval_and_its_lookback_is_read_and_no_other(
    own: TimePartitions, driving: TimePartitions, other: TimePartitions, lookback: Lookback, data: st.DataObject
) -> None:
    names = {it: sorted({written(it, hour) for hour in hours()}) for it in (driving, other)}
    kept = {it: data.draw(st.sets(st.sampled_from(found), max_size=12)) for it, found in names.items()}
    inputs = {"raw/t/a": kept[driving], "raw/t/b": kept[other]}
    reads = {"raw/t/a": ReadTable(driving), "raw/t/b": ReadTable(other, lookback)}
    manifests = {
        table: Manifest(table, partitions={name: PartitionEntry("", name, 1) for name in found})
        for table, found in inputs.items()
    }

    planned = dict(partitions(own, reads, manifests, Manifest("features/t/c")))

    expected = {}
    driven = {hour for name in kept[driving] for hour in covered(driving)[name]}
    for name, span in covered(own).items():
        if not span & driven:
            continue
        first = earliest(min(span), lookback, other.timezone)
        window = set(hours(first, max(span) + HOUR))
        expected[name] = {
            "raw/t/a": {it: it for it in sorted(kept[driving]) if covered(driving)[it] & span},
            "raw/t/b": {it: it for it in sorted(kept[other]) if covered(other)[it] & window},
        }
    assert planned == expected


# --- small declared datasets on a folder ---


def weeks(interval: Interval, sales: pl.LazyFrame) -> pl.LazyFrame:
    """Sales of each shop in the 168 hours before the partition."""
    start = pl.lit(interval.start)
    past = sales.filter(pl.col("at") < start, pl.col("at") >= start - timedelta(hours=168))
    return past.group_by("shop").agg(pl.col("amount").sum()).with_columns(event_time=start, known_time=start)


def sums(interval: Interval, sales: pl.LazyFrame) -> pl.LazyFrame:
    """Sales of each shop in the partition, of one that is not cut by time at the time of the last sale."""
    own = sales.filter(pl.col("at") >= interval.start, pl.col("at") < interval.end)
    last = pl.col("at").max()
    return own.group_by("shop").agg(pl.col("amount").sum(), event_time=last, known_time=last)


def each(interval: Interval, sales: pl.LazyFrame) -> pl.LazyFrame:
    """Every sale of the partition, or of several."""
    own = sales.filter(pl.col("at") >= interval.start, pl.col("at") < interval.end)
    return own.with_columns(event_time="at", known_time="at")


def sale(hour: datetime) -> int:
    return 1 + int((hour - FIRST) / HOUR) % 97


def lines(rows: list[datetime]) -> str:
    sales = (f"{hour:%Y-%m-%dT%H:%M:%SZ},{shop},{sale(hour)}\n" for hour in rows for shop in ("east", "west"))
    return "at,shop,amount\n" + "".join(sales)


@dataclass(frozen=True)
class Shop:
    """A dataset on a folder of the workspace."""

    table_store: TableStore
    declared: Dataset

    def write(self, name: str, rows: list[datetime]) -> None:
        (self.table_store.root / "bucket/sales" / f"{name}.csv").write_text(lines(rows))

    def ingest(self) -> IngestResult:
        (result,) = ingest(self.declared, self.table_store, Settings(workspace=self.table_store.root))
        return result

    def run(self) -> dict[str, StageResult]:
        self.ingest()
        return minimal_dataset.run_all_stages(self.table_store, self.declared)

    @property
    def names(self) -> list[str]:
        return sorted(self.table_store.manifest(WEEKS).md5s)

    def rows(self, name: str) -> dict[str, int]:
        """Shop → amount of a partition."""
        return dict(self.table_store.scan(WEEKS, [name]).select("shop", "amount").collect().iter_rows())


def declare(
    cut: Partitions | None,
    kernel: Callable[..., pl.LazyFrame] = weeks,
    lookback: Lookback = timedelta(hours=170),  # not whole days, which would have to be written as hours here
    own: Partitions | None = None,
    batch_size: int = 1,
) -> Dataset:
    pattern = r"sales/.*\.csv" if cut == Unpartitioned() else r"sales/(?P<partition>.+)\.csv"
    location = replace(FOLDER, partition=pattern)
    source = replace(minimal_dataset.SALES, location=location, partitions=cut, max_rejected_share=0.9, batch_size=64)
    table = replace(
        minimal_dataset.FEATURES,
        name="weeks",
        inputs={"sales": Input("validated/sales", lookback=lookback)},
        transform=kernel,
        partitions=own,
        batch_size=batch_size,
    )
    return replace(minimal_dataset.DATASET, sources=(source,), features=(table,))


def open_shop(root: Path, declared: Dataset, span: tuple[datetime, datetime] = (FIRST, LAST)) -> Shop:
    """A dataset with sales of every hour, one object per partition, as the clocks of its zone name it."""
    (root / "bucket/sales").mkdir(parents=True)
    shop = Shop(minimal_dataset.create_table_store(root), declared)
    cut = declared.sources[0].partitions or Daily()
    objects: dict[str, list[datetime]] = {}
    for hour in hours(*span):
        name = written(cut, hour) if isinstance(cut, TimePartitions) else ("day", "night")[hour.hour < 6]
        objects.setdefault("all" if cut == Unpartitioned() else name, []).append(hour)
    for name, rows in objects.items():
        shop.write(name, rows)
    return shop


def week_before(start: datetime) -> int:
    """Sales of a shop in the 168 hours before `start`."""
    total = 0
    for hour in hours():
        if start - 168 * HOUR <= hour < start:
            total += sale(hour)
    return total


def sum_of(declared: TimePartitions, name: str) -> int:
    total = 0
    for hour in hours(*CHANGE):
        if written(declared, hour) == name:
            total += sale(hour)
    return total


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cut", "own"),
    [
        (Hourly(), Daily()),
        (Monthly(), Daily()),
        (Daily(NEW_YORK), Daily()),
        (Daily(AUCKLAND), Daily()),
        (Daily(), Daily(NEW_YORK)),
        (Hourly(), Daily(NEW_YORK)),
        (Daily(NEW_YORK), None),
        (Monthly(NEW_YORK), Daily(NEW_YORK)),
        (None, None),
        (Daily(), None),
    ],
)
def test_features_of_a_week_are_the_same_whatever_grain_their_input_has(
    tmp_path: Path, cut: Partitions | None, own: TimePartitions | None
) -> None:
    shop = open_shop(tmp_path, declare(cut, own=own))
    assert check_declaration(shop.declared, tmp_path) == []

    ran = shop.run()

    table = own or cut or Daily()
    assert isinstance(table, TimePartitions)
    assert shop.table_store.manifest(VALIDATED).rows == 2 * len([*hours()])
    assert shop.table_store.manifest(REJECTED).rows == 0
    shown = {written(table, hour) for hour in hours()}
    assert shown <= set(shop.names)
    for name in shown:
        total = week_before(table.interval(name).start)
        assert shop.rows(name) == ({"east": total, "west": total} if total else {}), name
    assert len(ran[WEEKS].computed) == len(shop.names)
    assert not shop.run()[WEEKS].computed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cut", "own"),
    [
        (Hourly(), None),
        (Hourly(), Monthly()),
        (Monthly(), None),
        (Yearly(), None),
        (Yearly(), Monthly()),
        (Daily(NEW_YORK), Monthly(NEW_YORK)),
        (Daily(), Hourly()),
    ],
)
def test_a_table_may_have_hours_months_and_years(
    tmp_path: Path, cut: TimePartitions, own: TimePartitions | None
) -> None:
    shop = open_shop(tmp_path, declare(cut, sums, 0, own), CHANGE)

    shop.run()

    table = own or cut
    shown = {written(table, hour) for hour in hours(*CHANGE)}
    assert shown <= set(shop.names)
    assert len(shop.names) == (12 if (cut, own) == (Yearly(), Monthly()) else len(shown))
    for name in shown:
        assert shop.rows(name) == dict.fromkeys(("east", "west"), sum_of(table, name)), name


@pytest.mark.parametrize("cut", [Static("day", "night"), Unpartitioned()])
def test_what_is_not_cut_by_time_is_read_whole(tmp_path: Path, cut: Partitions) -> None:
    shop = open_shop(tmp_path, declare(cut, sums, 0, Unpartitioned()))
    assert check_declaration(shop.declared, tmp_path) == []

    shop.run()

    assert shop.names == ["all"]
    assert shop.rows("all") == dict.fromkeys(("east", "west"), sum(map(sale, hours())))


@pytest.mark.slow
@pytest.mark.parametrize("cut", [Hourly(), Daily(NEW_YORK), Monthly()])
def test_consecutive_partitions_that_are_computed_together_are_those_computed_alone(
    tmp_path: Path, cut: TimePartitions
) -> None:
    alone = open_shop(tmp_path / "alone", declare(cut, each, 0), CHANGE)
    together = open_shop(tmp_path / "together", declare(cut, each, 0, batch_size=8), CHANGE)

    alone.run()
    together.run()

    assert alone.table_store.manifest(WEEKS).md5s == together.table_store.manifest(WEEKS).md5s
    assert together.table_store.manifest(WEEKS).rows == 2 * len([*hours(*CHANGE)])


@pytest.mark.slow
def test_a_late_hour_makes_the_days_stale_that_look_back_on_it(tmp_path: Path) -> None:
    shop = open_shop(tmp_path, declare(Hourly(), lookback=timedelta(hours=30), own=Daily()), (CHANGE[0], LAST))
    shop.run()
    shop.write("2013-11-03T17", [datetime(2013, 11, 3, 17, 5, tzinfo=UTC)])
    shop.write("2013-11-03T18", [datetime(2013, 11, 3, 18, 5, tzinfo=UTC)])

    assert sorted(shop.run()[WEEKS].computed) == ["2013-11-03", "2013-11-04", "2013-11-05"]
    shop.write("2013-11-03T17", [datetime(2013, 11, 3, 17, 6, tzinfo=UTC)])
    assert sorted(shop.run()[WEEKS].computed) == ["2013-11-03", "2013-11-04"]


def test_a_row_outside_of_its_partition_is_rejected_by_name_and_takes_no_key(tmp_path: Path) -> None:
    shop = open_shop(tmp_path, declare(Daily(NEW_YORK)))
    strays = [datetime(2013, 11, 3, 3, tzinfo=UTC), datetime(2013, 11, 4, 5, tzinfo=UTC)]
    own = [hour for hour in hours() if written(Daily(NEW_YORK), hour) == "2013-11-03"]
    shop.write("2013-11-03", [strays[0], *own, strays[1]])

    shop.run()

    rejected = shop.table_store.scan(REJECTED).collect()
    assert rejected["_failed_checks"].to_list() == [["at|partition"]] * 4
    assert rejected["_row"].to_list() == [1, 2, 53, 54]
    assert shop.table_store.manifest(REJECTED).md5s.keys() == {"2013-11-03"}
    accepted = shop.table_store.scan(VALIDATED, ["2013-11-02", "2013-11-04"]).collect()
    assert all(hour in accepted["at"].to_list() for hour in strays), "the partition that has the hour keeps its row"


def test_of_several_objects_of_a_local_day_only_the_rows_outside_are_rejected(tmp_path: Path) -> None:
    declared = declare(Daily(NEW_YORK))
    location = replace(FOLDER, partition=r"sales/(?P<partition>[^_]+)(?:_.*)?\.csv")
    source = replace(declared.sources[0], location=location)
    shop = open_shop(tmp_path, replace(declared, sources=(source,)))
    stray = datetime(2013, 11, 4, 5, tzinfo=UTC)
    shop.write("2013-11-03_late", [datetime(2013, 11, 4, 4, 30, tzinfo=UTC), stray])

    shop.run()

    rejected = shop.table_store.scan(REJECTED).collect()
    assert rejected["_object"].unique().to_list() == ["sales/2013-11-03_late.csv"]
    assert (rejected["_row"].to_list(), rejected["_failed_checks"].to_list()) == ([3, 4], [["at|partition"]] * 2)
    assert shop.table_store.scan(VALIDATED, ["2013-11-03"]).collect().height == 2 * 26
    assert stray in shop.table_store.scan(VALIDATED, ["2013-11-04"]).collect()["at"].to_list()


def test_rows_outside_of_their_partition_stay_where_no_partitions_are_declared(tmp_path: Path) -> None:
    shop = open_shop(tmp_path, declare(None))
    shop.write("2013-11-03", [datetime(2013, 12, 24, tzinfo=UTC)])

    shop.ingest()
    minimal_dataset.run_all_stages(shop.table_store, replace(shop.declared, features=()))

    assert shop.table_store.scan(VALIDATED, ["2013-11-03"]).collect().height == 2


def test_too_many_rows_outside_are_refused_with_the_interval(tmp_path: Path) -> None:
    shop = open_shop(tmp_path, declare(Daily(NEW_YORK)))
    shop.write("2013-11-03", [datetime(2013, 12, 24, tzinfo=UTC)])

    with pytest.raises(
        TooManyRejectedError, match=r"at\|partition \(from 2013-11-03T04:00 up to 2013-11-04T05:00 UTC\), 2 rows"
    ):
        shop.run()


def test_a_key_that_names_none_of_the_declared_partitions_is_reported_and_not_read(tmp_path: Path) -> None:
    shop = open_shop(tmp_path, replace(declare(Hourly()), features=()), CHANGE)
    shop.write("2013-11-03", [FIRST])

    result = shop.ingest()

    assert result.listed == len([*hours(*CHANGE)])
    assert result.invalid == {
        "sales/2013-11-03.csv": (
            "'2013-11-03' is no UTC hour, such as 2013-01-09T05: correct the pattern or the key, or declare the"
            " source's `partitions`"
        )
    }


def test_intervals_of_local_days_are_recorded_and_found_by_time(tmp_path: Path) -> None:
    shop = open_shop(tmp_path, declare(Daily(AUCKLAND), sums, 0))
    shop.run()
    found: Mapping[str, Manifest] = {it: shop.table_store.manifest(it) for it in (RAW, VALIDATED, WEEKS)}

    for table, manifest in found.items():
        for name, entry in manifest.partitions.items():
            assert (entry.start, entry.end) == Daily(AUCKLAND).interval(name), table
    for hour in hours():
        time = microseconds(hour)
        reader = PartitionReader.between(shop.table_store, found[WEEKS], time, time)
        assert reader.partitions == (written(Daily(AUCKLAND), hour),)


def test_another_time_zone_reads_the_objects_again_and_says_nothing_changed(tmp_path: Path) -> None:
    shop = open_shop(tmp_path, declare(Daily(), sums, 0))
    shop.ingest()
    moved = replace(shop, declared=declare(Daily(NEW_YORK), sums, 0))

    result = moved.ingest()

    assert (result.read, result.changed) == (len({hour.date() for hour in hours()}), ())
    entry = moved.table_store.manifest(RAW).partitions["2013-11-03"]
    assert (entry.start, entry.end) == Daily(NEW_YORK).interval("2013-11-03")


# --- what `headrace check` says ---


def check(declared: Dataset) -> list[str]:
    return [finding.problem for finding in check_declaration(declared, Path(__file__).parents[3])]


COMMON: dict[str, Any] = {
    "keys": ("shop",),
    "features": {"amount": pl.Int64()},
    "ttl": timedelta(days=2),
    "transform": weeks,
}
WEEK = timedelta(hours=24 * 7)
IN_DAYS = FeatureTable(name="weeks", inputs={"sales": Input("validated/sales", lookback=timedelta(days=7))}, **COMMON)
IN_WEEKS = FeatureTable(name="weeks", inputs={"sales": Input("validated/sales", lookback=timedelta(weeks=1))}, **COMMON)
BY_PLACE = FeatureTable(name="weeks", inputs={"sales": Input("validated/sales", lookback=timedelta(7))}, **COMMON)
IN_HOURS = FeatureTable(
    name="weeks", inputs={"sales": Input("validated/sales", lookback=timedelta(hours=168))}, **COMMON
)
BY_NAME = FeatureTable(name="weeks", inputs={"sales": Input("validated/sales", lookback=WEEK)}, **COMMON)
IN_CALENDAR_DAYS = FeatureTable(name="weeks", inputs={"sales": Input("validated/sales", lookback=Days(7))}, **COMMON)


@pytest.mark.parametrize("table", [IN_DAYS, IN_WEEKS, BY_PLACE], ids=["days", "weeks", "positional"])
def test_whole_days_of_elapsed_time_on_local_days_are_refused_with_both_ways_to_write_them(table: FeatureTable) -> None:
    (problem,) = check(replace(declare(Daily(NEW_YORK)), features=(table,)))

    assert problem == (
        "feature table weeks: 'validated/sales' is cut by days in America/New_York, which have 23 to 25 hours, so"
        " `timedelta(days=7)` may mean either: write `timedelta(hours=168)` for elapsed time, or `Days(7)` for calendar"
        " days."
    )


@pytest.mark.parametrize("table", [IN_HOURS, BY_NAME, IN_CALENDAR_DAYS], ids=["hours", "constant", "Days"])
def test_a_lookback_that_says_which_days_it_means_is_good(table: FeatureTable) -> None:
    assert check(replace(declare(Daily(NEW_YORK)), features=(table,))) == []


def test_days_of_utc_are_of_one_length() -> None:
    assert check(replace(declare(Daily()), features=(IN_DAYS,))) == []


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        (declare(Hourly(), minimal_dataset.totals), "takes `day`, a UTC day, and each partition is a UTC hour: take"),
        (declare(Daily(NEW_YORK), minimal_dataset.totals), "each partition is a day in America/New_York: take"),
        (declare(Static("day", "night")), "its partitions are the static names day, night, and a kernel computes"),
        (
            declare(Static("a"), own=Daily()),
            "'validated/sales', its first input, has no intervals of time (static name)",
        ),
        (declare(Unpartitioned(), own=Daily()), "has no intervals of time (whole table)"),
        (declare(Daily(), own="daily"), "expected partitions such as Daily(), found 'daily'"),  # type: ignore[arg-type]
        (declare("daily"), "expected partitions such as Daily(), found 'daily'"),  # type: ignore[arg-type]
        (
            declare(Daily(), lookback=timedelta(days=-1)),
            "expected a lookback of 0 to 36,525 whole days, `Days(…)` or a",
        ),
        (declare(Daily(), lookback=Days(40_000)), "expected a lookback of 0 to 36,525 whole days"),
    ],
)
def test_partitions_that_can_only_fail_are_named(declared: Dataset, problem: str) -> None:
    assert any(problem in found for found in check(declared))


@pytest.mark.parametrize(
    ("pattern", "cut", "problem"),
    [
        (r"sales/(?P<partition>.+)\.csv", Unpartitioned(), "declared as Unpartitioned(), but its pattern has a group"),
        (r"sales/all\.csv", Hourly(), "each partition is declared as a UTC hour, but its pattern has no group"),
    ],
)
def test_a_pattern_and_partitions_have_to_fit(pattern: str, cut: Partitions, problem: str) -> None:
    location = replace(FOLDER, partition=pattern)
    source = replace(declare(cut).sources[0], location=location)

    assert any(problem in found for found in check(replace(declare(None), sources=(source,), features=())))
