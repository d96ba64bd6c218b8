"""Partitions: the interval of each name, in UTC and in time zones, against what clocks show hour by hour."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.partitions import (
    ALL_TIME,
    Daily,
    Days,
    Hourly,
    Interval,
    Monthly,
    Static,
    TimePartitions,
    Unpartitioned,
    Yearly,
    interval_of,
    look_back,
)

STEP = timedelta(minutes=15)
"""Since 1975, the clocks of these zones have changed at multiples of it."""

ZONES = (
    "UTC",
    "America/New_York",
    "America/Sao_Paulo",  # no midnight on the day on which clocks went forward
    "America/Havana",  # two midnights on the day on which they go back
    "Africa/Cairo",  # back at midnight: the day before has 25 hours
    "Australia/Lord_Howe",  # half an hour
    "Asia/Kathmandu",
    "Pacific/Apia",  # skipped 2011-12-30
    "Pacific/Kiritimati",
)
FORMS = {Hourly: "%Y-%m-%dT%H", Daily: "%Y-%m-%d", Monthly: "%Y-%m", Yearly: "%Y"}

SPAN_S = 62 * 365 * 86_400
instants = st.integers(0, SPAN_S).map(lambda seconds: datetime(1975, 1, 3, tzinfo=UTC) + timedelta(seconds=seconds))
grains = st.one_of(
    st.just(Hourly()),
    st.builds(Daily, st.sampled_from(ZONES)),
    st.builds(Monthly, st.sampled_from(ZONES)),
    st.builds(Yearly, st.sampled_from(ZONES)),
)


def written(partitions: TimePartitions, instant: datetime) -> str:
    """The name that the clocks of the zone write at an instant."""
    return instant.astimezone(ZoneInfo(partitions.timezone)).strftime(FORMS[type(partitions)])


def quarters(start: datetime, end: datetime) -> Iterator[datetime]:
    while start < end:
        yield start
        start += STEP


@given(st.sampled_from(ZONES), st.dates(date(1975, 1, 3), date(2037, 12, 1)))
@pytest.mark.parametrize("partitions", [Daily, Monthly])
def test_an_interval_is_all_the_time_at_which_clocks_show_its_name(
    partitions: type[Daily | Monthly], zone: str, day: date
) -> None:
    declared = partitions(zone)
    name = day.strftime(FORMS[partitions])
    if not declared.is_valid(name):
        assert (zone, name) == ("Pacific/Apia", "2011-12-30")
        return

    start, end = declared.interval(name)

    margin = timedelta(hours=3)
    shown = [written(declared, it) == name for it in (start, end - STEP)]
    assert shown == [True, True]
    assert not any(written(declared, it) == name for it in quarters(start - margin, start))
    assert not any(written(declared, it) == name for it in quarters(end, end + margin))


@pytest.mark.parametrize(
    ("zone", "name", "hours"),
    [
        ("America/New_York", "2013-03-10", 23),
        ("America/New_York", "2013-11-03", 25),
        ("America/Sao_Paulo", "2013-10-20", 23),
        ("America/Havana", "2013-11-03", 25),
        ("Africa/Cairo", "2014-09-25", 25),
        ("Australia/Lord_Howe", "2013-10-06", 23.5),
        ("Pacific/Apia", "2011-12-31", 24),
        ("UTC", "2013-03-10", 24),
    ],
)
def test_a_day_on_which_clocks_change_is_as_long_as_they_say(zone: str, name: str, hours: float) -> None:
    start, end = Daily(zone).interval(name)

    counted = [
        it for it in quarters(start - timedelta(days=1), end + timedelta(days=1)) if written(Daily(zone), it) == name
    ]

    assert end - start == timedelta(hours=hours) == len(counted) * STEP
    assert (counted[0], counted[-1] + STEP) == (start, end)


@given(grains, instants)
def test_every_instant_is_in_the_interval_of_its_partition_and_the_next_one_begins_where_that_ends(
    partitions: TimePartitions, instant: datetime
) -> None:
    name = partitions.name_at(instant)
    start, end = partitions.interval(name)
    following = partitions.name_at(end)

    assert start <= instant < end
    assert name < following
    assert partitions.interval(following).start == end
    assert partitions.name_at(start) == partitions.name_at(end - timedelta(microseconds=1)) == name


@given(grains, instants, st.timedeltas(timedelta(minutes=1), timedelta(days=3)))
def test_the_partitions_between_two_instants_tile_the_time_between_them(
    partitions: TimePartitions, start: datetime, length: timedelta
) -> None:
    names = list(partitions.names_between(Interval(start, start + length)))
    intervals = [partitions.interval(name) for name in names]

    assert names == sorted(set(names))
    assert intervals[0].start <= start < intervals[0].end
    assert intervals[-1].start < start + length <= intervals[-1].end
    assert [one.end for one in intervals[:-1]] == [one.start for one in intervals[1:]]


def test_clocks_that_are_turned_back_across_midnight_leave_no_gap_and_no_overlap() -> None:
    # St. John's changed its clocks one minute after midnight until 2011: 2010-11-07 began, ended, and went on.
    days = Daily("America/St_Johns")
    first, second = days.interval("2010-11-06"), days.interval("2010-11-07")

    assert first.end == second.start == datetime(2010, 11, 7, 2, 30, tzinfo=UTC)
    assert days.name_at(second.start + timedelta(minutes=30)) == "2010-11-07"
    assert days.name_at(second.start - timedelta(minutes=1)) == "2010-11-06"


def test_hours_are_utc_so_that_an_hour_that_clocks_show_twice_has_two_names() -> None:
    local_day = Daily("America/New_York").interval("2013-11-03")

    names = list(Hourly().names_between(local_day))

    assert len(set(names)) == 25
    assert (names[0], names[-1]) == ("2013-11-03T04", "2013-11-04T04")


@pytest.mark.parametrize(
    ("partitions", "name"),
    [
        (Hourly(), "2013-03-10T24"),
        (Hourly(), "2013-03-10"),
        (Hourly(), "2013-03-10 05"),
        (Daily(), "2013-02-30"),
        (Daily(), "2013-W02-3"),
        (Daily(), "20130109"),
        (Daily(), "2013-1-9"),
        (Daily(), "2013-01"),
        (Daily(), "all"),
        (Daily("Pacific/Auckland"), "0001-01-01"),
        (Monthly(), "2013-13"),
        (Monthly(), "2013-1"),
        (Yearly(), "0000"),
        (Yearly(), "13"),
        (Static("emea", "apac"), "EMEA"),
        (Unpartitioned(), "2013"),
    ],
)
def test_a_name_of_another_form_is_no_partition(partitions: TimePartitions | Static | Unpartitioned, name: str) -> None:
    assert not partitions.is_valid(name)
    with pytest.raises(ValueError, match=name):
        partitions.interval(name)


@pytest.mark.parametrize("partitions", [Hourly(), Daily(), Daily("America/New_York"), Monthly(), Yearly()])
def test_the_last_partition_of_the_calendar_ends_with_it(partitions: TimePartitions) -> None:
    name = "9999-12-31T23"[: partitions.name_length]
    start, end = partitions.interval(name)

    assert end == ALL_TIME.end
    assert list(partitions.names_between(Interval(start, end))) == [name]


def test_what_is_not_cut_by_time_is_all_of_it() -> None:
    assert Static("emea").interval("emea") == Unpartitioned().interval("all") == ALL_TIME
    assert interval_of(Daily(), "all") == ALL_TIME
    assert Unpartitioned().name_at(datetime(2013, 1, 1, tzinfo=UTC)) == "all"
    with pytest.raises(ValueError, match="static partitions are not cut by time"):
        Static("emea").name_at(datetime(2013, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("zone", ["America/Nowhere", "", "America", "../UTC", None, 5])
def test_a_time_zone_that_there_is_not_is_named(zone: str) -> None:
    with pytest.raises(ValueError, match=r"Daily: expected a name of the time zone database"):
        Daily(zone)


@pytest.mark.parametrize("names", [(), ("a", "a"), ("a/b",), ("..",), ("a", 5)])
def test_static_names_are_different_and_can_be_file_names(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="Static: expected different names"):
        Static(*names)


@pytest.mark.parametrize("count", [-1, 1.0, True, "7"])
def test_days_are_a_whole_number(count: int) -> None:
    with pytest.raises(ValueError, match="Days: expected a whole number of 0 or more"):
        Days(count)


@given(st.sampled_from(ZONES), st.dates(date(1975, 3, 1), date(2037, 12, 1)), st.integers(0, 40))
def test_days_go_back_to_the_midnight_of_so_many_dates_before(zone: str, day: date, count: int) -> None:
    partitions, earlier = Daily(zone), day - timedelta(days=count)
    if not (partitions.is_valid(str(day)) and partitions.is_valid(str(earlier))):
        return
    start, until = partitions.interval(str(day)).start, partitions.interval(str(earlier))

    back = look_back(start, Days(count), zone)

    assert until.start <= back < until.end
    assert look_back(start, count, zone) == back
    if start.astimezone(ZoneInfo(zone)).hour == 0:
        assert back == until.start


def test_elapsed_time_and_calendar_days_differ_by_the_hour_that_clocks_were_changed_by() -> None:
    zone = "America/New_York"
    start = Daily(zone).interval("2013-11-05").start

    assert start - look_back(start, timedelta(hours=168), zone) == timedelta(hours=168)
    assert start - look_back(start, Days(7), zone) == timedelta(hours=169)
    assert look_back(start, Days(7), "UTC") == look_back(start, timedelta(hours=168), "UTC")


def test_a_lookback_ends_with_the_calendar() -> None:
    assert look_back(datetime(1, 1, 3, tzinfo=UTC), Days(7), "UTC") == ALL_TIME.start
    assert look_back(datetime(1, 1, 3, tzinfo=UTC), timedelta(hours=168), "UTC") == ALL_TIME.start
    assert look_back(datetime(1, 1, 3, tzinfo=UTC), Days(7), "America/New_York") == ALL_TIME.start
