"""A database table is cut as its source declares: hours, months and local days, in the SQL of both databases.

The rows are of half past midnight, noon and eleven at night (UTC) of three days, two for each.
"""

from dataclasses import replace
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from weather import INSERT, NEW, OLD, TABLE, WEATHER, Weather, create_dataset

from headrace.dataset import Dataset, Guards
from headrace.guards.gate import FindingsError
from headrace.ingest.database.backend import DatabaseError
from headrace.ingest.ingest import IngestResult, ingest
from headrace.partitions import Daily, Hourly, Monthly, TimePartitions, Yearly
from headrace.settings import Settings

FORMS = {Hourly: "%Y-%m-%dT%H", Daily: "%Y-%m-%d", Monthly: "%Y-%m", Yearly: "%Y"}
TIMES = [datetime(2013, 1, day, hour, 30, tzinfo=UTC) for day in (1, 2, 3) for hour in (0, 12, 23)]
GRAINS = [Hourly(), Daily("America/New_York"), Daily("Pacific/Auckland"), Monthly("America/New_York"), Yearly()]


def declare(partitions: TimePartitions, time_column: str = "at") -> Dataset:
    dataset = create_dataset(weather=replace(WEATHER, partition_by=time_column))
    return replace(dataset, sources=(replace(dataset.sources[0], partitions=partitions),))


def read(weather: Weather, partitions: TimePartitions, time_column: str = "at") -> IngestResult:
    (result,) = ingest(declare(partitions, time_column), weather.table_store, Settings())
    return result


def written(partitions: TimePartitions, instant: datetime) -> str:
    return instant.astimezone(ZoneInfo(partitions.timezone)).strftime(FORMS[type(partitions)])


def times_by_partition(partitions: TimePartitions) -> dict[str, list[datetime]]:
    expected: dict[str, list[datetime]] = {}
    for time in TIMES:
        expected.setdefault(written(partitions, time), []).extend([time, time])
    return expected


@pytest.mark.parametrize("partitions", GRAINS, ids=lambda it: it.label)
def test_each_row_is_in_the_partition_that_the_clocks_of_the_zone_show(
    weather: Weather, partitions: TimePartitions
) -> None:
    read(weather, partitions)

    found = {name: sorted(weather.rows(name)["at"]) for name in weather.hashes}
    assert found == times_by_partition(partitions)
    for name, entry in weather.table_store.manifest(TABLE).partitions.items():
        assert (entry.start, entry.end) == partitions.interval(name)
        assert entry.metadata["query"]["where"] == f"{partitions.label} of at = {name}"


@pytest.mark.parametrize("partitions", GRAINS, ids=lambda it: it.label)
def test_a_changed_row_reads_its_partition_and_no_other(weather: Weather, partitions: TimePartitions) -> None:
    read(weather, partitions)
    changed = [TIMES[2], TIMES[6]]
    for time in changed:
        weather.run(f"UPDATE weather SET temp = 30.5, updated_at = '{NEW}' WHERE at = '{time}'")  # noqa: S608

    result = read(weather, partitions)

    names = {written(partitions, time) for time in changed}
    assert (set(result.changed), result.read, result.new, result.deleted) == (names, len(names), (), ())
    for name in names:
        hot = weather.rows(name).filter(pl.col("temp") == 30.5)["at"]
        assert set(hot) == {time for time in changed if written(partitions, time) == name}
    assert not read(weather, partitions).read


@pytest.mark.parametrize(
    "partitions", [Daily("America/New_York"), Monthly(), Yearly("Asia/Tokyo")], ids=lambda it: it.label
)
def test_a_date_is_one_of_the_zone(weather: Weather, partitions: TimePartitions) -> None:
    weather.run("ALTER TABLE weather ADD COLUMN day DATE")
    weather.run("UPDATE weather SET day = '2013-01-01'")
    weather.run("UPDATE weather SET day = '2013-02-01' WHERE origin = 'JFK'")

    read(weather, partitions, "day")
    weather.run(f"UPDATE weather SET updated_at = '{NEW}' WHERE origin = 'JFK'")  # noqa: S608
    again = read(weather, partitions, "day")

    form = FORMS[type(partitions)]
    names = [day.strftime(form) for day in (date(2013, 1, 1), date(2013, 2, 1))]
    assert sorted(weather.hashes) == sorted(set(names))
    assert again.changed == (names[1],)
    assert set(weather.rows(names[1])["origin"]) >= {"JFK"}


def test_a_date_has_no_hour(weather: Weather) -> None:
    weather.run("ALTER TABLE weather ADD COLUMN day DATE")

    with pytest.raises(DatabaseError, match="partition_by day: expected a column of times, since partitions are hours"):
        read(weather, Hourly(), "day")


def test_another_grain_replaces_all_partitions_once_that_is_accepted(weather: Weather) -> None:
    weather.ingest()
    dataset = declare(Monthly())
    with pytest.raises(FindingsError, match="3 of 3 partitions"):
        read(weather, Monthly())

    (result,) = ingest(replace(dataset, guards=Guards(max_vanished_share=1)), weather.table_store, Settings())

    assert (result.new, result.deleted) == (("2013-01",), ("2013-01-01", "2013-01-02", "2013-01-03"))


def test_a_timestamp_of_sqlite_without_a_zone_is_in_no_local_day(sqlite_weather: Weather) -> None:
    sqlite_weather.run(INSERT + f"('EWR', '2013-01-04 05:00:00', 1, '{OLD}')")

    with pytest.raises(
        DatabaseError, match=r"1 row has no day in America/New_York in at \(found '2013-01-04 05:00:00'"
    ):
        read(sqlite_weather, Daily("America/New_York"))
