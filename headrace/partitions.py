"""How a table is cut into partitions: by hours, days, months or years, by fixed names, or not at all.

A time partition is a half-open interval, and the intervals of consecutive names tile time: no gap, no overlap. Hours
are always UTC, so they have names of their own when clocks are turned back. Days, months and years may be those of a
time zone: the name is the local date, the zone is declared, and a day has 23 or 25 hours where clocks change.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import ClassVar, NamedTuple
from zoneinfo import ZoneInfo

UTC_ZONE = "UTC"

_ISO_START = "0001-01-01T00"
"""What completes the name of a year, a month or a day to its first hour."""

_STATIC_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._=-]*")


class Interval(NamedTuple):
    """A half-open interval of time, as a kernel receives it for one partition or for several consecutive ones.

    Attributes:
        start: Its first moment (UTC).
        end: The first moment after it (UTC).
    """

    start: datetime
    end: datetime


ALL_TIME = Interval(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
"""The interval of a partition that is not cut by time."""


@dataclass(frozen=True)
class Days:
    """A lookback of so many calendar days in the time zone of the input.

    `Days(7)` before a local midnight is the local midnight seven days earlier: 167 or 169 hours, where clocks changed.

    Attributes:
        count: How many.

    Raises:
        ValueError: It is not a whole number of 0 or more.
    """

    count: int

    def __post_init__(self) -> None:
        """Refuse what is not a number of days."""
        if type(self.count) is not int or self.count < 0:
            raise ValueError(f"Days: expected a whole number of 0 or more, found {self.count!r}")


Lookback = int | timedelta | Days
"""How far an input is read back: elapsed time, or calendar days; a plain number means `Days`."""


class Partitions(ABC):
    """The partitions of a table."""

    timezone: str = UTC_ZONE
    unit: ClassVar[str]
    """What one partition is, for messages: `hour`."""

    @abstractmethod
    def interval(self, name: str) -> Interval:
        """The interval of a partition.

        Raises:
            ValueError: There is no such partition.
        """

    @abstractmethod
    def name_at(self, instant: datetime) -> str:
        """The partition that holds an instant.

        Raises:
            ValueError: None does: partitions with fixed names are not cut by time.
        """

    def is_valid(self, name: str) -> bool:
        """Whether there is a partition of that name."""
        try:
            self.interval(name)
        except ValueError:
            return False
        return True

    @property
    def label(self) -> str:
        """What one partition is, with its time zone: `UTC day`, `day in America/New_York`."""
        return f"UTC {self.unit}" if self.timezone == UTC_ZONE else f"{self.unit} in {self.timezone}"

    @property
    @abstractmethod
    def example(self) -> str:
        """A name, for messages."""


class TimePartitions(Partitions):
    """Partitions that are intervals of time."""

    name_length: ClassVar[int]
    """Characters of a name: how much it keeps of the first hour in ISO 8601."""

    def interval(self, name: str) -> Interval:
        """The interval of a partition.

        Raises:
            ValueError: The name is not written as these are, or no calendar has it: 2013-02-30, or the day that Samoa
                skipped.
        """
        try:
            return _interval(self.name_length, self.timezone, name)
        except ValueError as error:
            raise ValueError(f"{name!r} is no {self.label}, such as {self.example}: {error}") from None

    def name_at(self, instant: datetime) -> str:
        """The partition that holds an instant (with a time zone)."""
        name = instant.astimezone(_zone(self.timezone)).isoformat()[: self.name_length]
        # Where clocks are turned back across midnight, a date occurs, ends, and goes on an hour later.
        if not self.is_valid(name) or instant < self.interval(name).start:
            return self._neighbour(name, -1)
        return name if instant < self.interval(name).end or name == self._last else self._neighbour(name, 1)

    def local_date(self, instant: datetime) -> date:
        """The date of an instant in the time zone of the partitions."""
        return instant.astimezone(_zone(self.timezone)).date()

    def names_between(self, interval: Interval) -> Iterator[str]:
        """The partitions that overlap an interval, in order."""
        name = self.name_at(interval.start)
        while True:
            yield name
            end = self.interval(name).end
            if end >= interval.end:
                return
            name = self.name_at(end)

    @property
    def example(self) -> str:
        return "2013-01-09T05"[: self.name_length]

    @property
    def _last(self) -> str:
        return "9999-12-31T23"[: self.name_length]

    def _neighbour(self, name: str, step: int) -> str:
        wall = _wall_start(self.name_length, name)
        while True:
            wall = _move(self.name_length, wall, step)
            if self.is_valid(found := wall.isoformat()[: self.name_length]):
                return found


@dataclass(frozen=True)
class Hourly(TimePartitions):
    """One partition per UTC hour, named `2013-03-10T05`."""

    unit: ClassVar[str] = "hour"
    name_length: ClassVar[int] = 13


@dataclass(frozen=True)
class _CalendarPartitions(TimePartitions):
    timezone: str = UTC_ZONE

    def __post_init__(self) -> None:
        """Refuse a zone that the time zone database does not have."""
        try:
            _zone(self.timezone)
        except (KeyError, ValueError, OSError, TypeError, AttributeError):  # a name may be a folder, or no text
            raise ValueError(
                f"{type(self).__name__}: expected a name of the time zone database such as 'America/New_York', found"
                f" {self.timezone!r}"
            ) from None


@dataclass(frozen=True)
class Daily(_CalendarPartitions):
    """One partition per day, named `2013-03-10`.

    Attributes:
        timezone: The days are those of this time zone. A day begins with its first midnight.

    Raises:
        ValueError: There is no such time zone.
    """

    unit: ClassVar[str] = "day"
    name_length: ClassVar[int] = 10


@dataclass(frozen=True)
class Monthly(_CalendarPartitions):
    """One partition per month, named `2013-03`.

    Attributes:
        timezone: The months are those of this time zone.

    Raises:
        ValueError: There is no such time zone.
    """

    unit: ClassVar[str] = "month"
    name_length: ClassVar[int] = 7


@dataclass(frozen=True)
class Yearly(_CalendarPartitions):
    """One partition per year, named `2013`.

    Attributes:
        timezone: The years are those of this time zone.

    Raises:
        ValueError: There is no such time zone.
    """

    unit: ClassVar[str] = "year"
    name_length: ClassVar[int] = 4


@dataclass(frozen=True, init=False)
class Static(Partitions):
    """Partitions with fixed names, such as `Static("emea", "apac")`, that are not cut by time.

    Attributes:
        names: The names.

    Raises:
        ValueError: There are none, one is given twice, or one cannot be the name of a partition.
    """

    names: tuple[str, ...]
    unit: ClassVar[str] = "static name"

    def __init__(self, *names: str) -> None:
        """Partitions of these names."""
        wrong = [name for name in names if not (isinstance(name, str) and _STATIC_NAME.fullmatch(name))]
        if not names or wrong or len(set(names)) < len(names):
            found = ", ".join(map(repr, wrong or names)) or "none"
            raise ValueError(
                "Static: expected different names of letters, digits and `._=-` that begin with a letter or digit,"
                f" found {found}"
            )
        object.__setattr__(self, "names", names)

    def interval(self, name: str) -> Interval:
        """All of time.

        Raises:
            ValueError: The name is not declared.
        """
        if name not in self.names:
            raise ValueError(f"{name!r} is none of {', '.join(self.names)}")
        return ALL_TIME

    def name_at(self, instant: datetime) -> str:
        """None.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"static partitions are not cut by time, so none of {', '.join(self.names)} holds {instant}")

    @property
    def label(self) -> str:
        return self.unit

    @property
    def example(self) -> str:
        return self.names[0]


@dataclass(frozen=True)
class Unpartitioned(Partitions):
    """One partition, `all`, with the whole table."""

    NAME: ClassVar[str] = "all"
    unit: ClassVar[str] = "whole table"

    def interval(self, name: str) -> Interval:
        """All of time.

        Raises:
            ValueError: The name is not `all`.
        """
        if name != self.NAME:
            raise ValueError(f"{name!r} is not {self.NAME!r}, the only partition")
        return ALL_TIME

    def name_at(self, instant: datetime) -> str:  # noqa: ARG002  whatever the instant
        """`all`."""
        return self.NAME

    @property
    def label(self) -> str:
        return self.unit

    @property
    def example(self) -> str:
        return self.NAME


def interval_of(partitions: Partitions, name: str) -> Interval:
    """The interval of a partition; the whole table, `all`, is all of time however a table is declared.

    Raises:
        ValueError: There is no such partition.
    """
    return ALL_TIME if name == Unpartitioned.NAME else partitions.interval(name)


def look_back(start: datetime, lookback: Lookback, timezone: str) -> datetime:
    """The moment from which an input is read.

    Args:
        start: Start of the partition that reads it.
        lookback: How far back: elapsed time, or calendar days.
        timezone: Time zone of the input's partitions, in which calendar days count.
    """
    if not lookback:
        return start
    try:
        if isinstance(lookback, timedelta):
            return start - lookback
        days = timedelta(days=lookback if isinstance(lookback, int) else lookback.count)
        if timezone == UTC_ZONE:
            return start - days
        return _to_utc(start.astimezone(_zone(timezone)).replace(tzinfo=None) - days, timezone)
    except OverflowError:
        return ALL_TIME.start


@lru_cache(maxsize=1 << 16)  # every plan asks for each name
def _interval(name_length: int, timezone: str, name: str) -> Interval:
    wall = _wall_start(name_length, name)
    try:
        start = _to_utc(wall, timezone)
    except OverflowError:
        raise ValueError("it begins before the year 1") from None
    try:
        end = _to_utc(_move(name_length, wall, 1), timezone)
    except (OverflowError, ValueError):
        end = ALL_TIME.end
    if start >= end:
        raise ValueError("clocks there skipped it")
    return Interval(start, end)


def _wall_start(name_length: int, name: str) -> datetime:
    """The first moment of a partition on the clocks of its time zone.

    Raises:
        ValueError: The name is not written as it has to be, or not in the calendar.
    """
    if len(name) != name_length:
        raise ValueError(f"expected {name_length} characters")
    wall = datetime.fromisoformat(name + _ISO_START[name_length:])
    if wall.isoformat()[:name_length] != name:  # it reads 2013-W02-3, too
        raise ValueError(f"expected {wall.isoformat()[:name_length]}")
    return wall


def _move(name_length: int, wall: datetime, steps: int) -> datetime:
    """The first moment of the partition so many partitions later, on the same clocks.

    Raises:
        ValueError: It would be a month or year beyond those from 1 to 9999.
        OverflowError: The same, of a day or an hour.
    """
    if name_length > Monthly.name_length:
        return wall + steps * (timedelta(days=1) if name_length == Daily.name_length else timedelta(hours=1))
    months = wall.year * 12 + wall.month - 1 + steps * (12 if name_length == Yearly.name_length else 1)
    return wall.replace(year=months // 12, month=months % 12 + 1)


def _to_utc(wall: datetime, timezone: str) -> datetime:
    """What clocks of a time zone show, as an instant: the first one where they show it twice."""
    return wall.replace(tzinfo=UTC) if timezone == UTC_ZONE else wall.replace(tzinfo=_zone(timezone)).astimezone(UTC)


@lru_cache(maxsize=64)
def _zone(timezone: str) -> ZoneInfo:
    return ZoneInfo(timezone)


UTC_DAYS = Daily()
"""The partitions of a table that declares none."""
