"""Partitions of other shapes than one object per day, and many small files.

- Hours of several objects: the four commands' work on them, against the same rows as one object per day; what one more
  object costs; and a run that finds nothing new.
- Many small files, a hundred to a partition: ingest against a loop over obstore, which hashes nothing. What the server
  has sent is compared, too: every byte is read once, and the second run reads none.

The data is made up: sensors that report a temperature twice an hour.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import psutil
from environment import Workspace, create_workspace, run_servers
from ingest import clear
from measure import SERVER_PIDS, Cost, Report, create_parser, median_cost, run_once
from transform import move_aside

DAYS, FULL_DAYS = 15, 365
OBJECTS_PER_HOUR, ROWS_PER_OBJECT = 4, 10
FILES, FULL_FILES = 5_000, 100_000
FILES_PER_PARTITION = 100
FIRST = datetime(2026, 1, 1, tzinfo=UTC)

DATASET = '''"""Sensors."""

from datetime import timedelta
from pathlib import Path

import dataframely as dy
import polars as pl

from headrace import {partitions}, CsvDialect, Dataset, FeatureTable, Input, Interval, ObjectSource, Source
from headrace import read_csv, utc_time


class Readings(dy.Schema):
    """One row per reading."""

    read_at = utc_time()
    sensor = dy.String(min_length=1)
    celsius = dy.Float64(min=-80, max=80)


def read(path: Path) -> pl.DataFrame:
    """One file."""
    return read_csv(path, CsvDialect())


def transform(rows: pl.DataFrame) -> pl.DataFrame:
    """Good rows."""
    return rows.select("read_at", "sensor", "celsius")


def mean(interval: Interval, readings: pl.LazyFrame) -> pl.LazyFrame:
    """The mean of each sensor's partition, known at its end."""
    inside = readings.filter(pl.col("read_at").is_between(interval.start, interval.end, closed="left"))
    grouped = inside.group_by("sensor").agg(celsius_mean=pl.col("celsius").mean())
    return grouped.with_columns(event_time=pl.lit(interval.start), known_time=pl.lit(interval.end))


DATASET = Dataset(
    description="Sensors.",
    owner="bench",
    sources=(
        Source(
            name="readings",
            location=ObjectSource("readings/", r"readings/(?P<partition>[0-9T-]+)(_\\d+)?\\.csv", ".csv"),
            partitions={partitions}(),
            read=read,
            contract=Readings,
            transform=transform,
            key=("read_at", "sensor"),
        ),
    ),
    features=(
        FeatureTable(
            name="means",
            keys=("sensor",),
            inputs={{"readings": Input("validated/readings")}},
            transform=mean,
            features={{"celsius_mean": pl.Float64()}},
            ttl=timedelta(days=2),
        ),
    ),
)
'''

SMALL_FILES = '''"""Small files."""

from pathlib import Path

import dataframely as dy
import polars as pl

from headrace import CsvDialect, Dataset, ObjectSource, Source, Static, read_csv


class Any(dy.Schema):
    """Any text."""

    text = dy.String()


def read(path: Path) -> pl.DataFrame:
    """One file."""
    return read_csv(path, CsvDialect())


def transform(rows: pl.DataFrame) -> pl.DataFrame:
    """Good rows."""
    return rows


DATASET = Dataset(
    description="Small files.",
    owner="bench",
    sources=(
        Source(
            name="files",
            location=ObjectSource("files/", r"files/(?P<partition>p\\d+)_\\d+\\.csv", ".csv"),
            partitions=Static(*(f"p{{number:05}}" for number in range({count}))),
            read=read,
            contract=Any,
            transform=transform,
            key=("text",),
        ),
    ),
)
'''


def main() -> None:
    """Measure and report."""
    arguments = create_parser(__doc__ or "", large="a whole year of hours, 100,000 small files").parse_args()
    report = Report("shapes", as_json=arguments.json)
    with run_servers("s3") as (folder, env):
        places = {name: create_workspace(folder, env, name) for name in ("hourly", "daily", "files")}
        measure_hours(report, places, FULL_DAYS if arguments.full else DAYS, arguments.repeats)
        measure_small_files(report, places["files"], FULL_FILES if arguments.full else FILES, arguments.repeats)
    report.end()


def declare(place: Workspace, text: str) -> None:
    """Declare the dataset `shapes` in a workspace."""
    folder = place.root / "pipelines/shapes"
    folder.mkdir()
    (folder / "__init__.py").write_text(text)


def measure_hours(report: Report, places: dict[str, Workspace], days: int, repeats: int) -> None:
    """Measure hours of several objects against one object per day with the same rows."""
    hourly, daily = places["hourly"], places["daily"]
    declare(hourly, DATASET.format(partitions="Hourly"))
    declare(daily, DATASET.format(partitions="Daily"))
    hours = [FIRST + timedelta(hours=number) for number in range(24 * days)]
    for hour in hours:
        for number in range(OBJECTS_PER_HOUR):
            write_object(hourly, f"{hour:%Y-%m-%dT%H}_{number}", readings(hour, number))
    for day in hours[::24]:
        rows = [
            row
            for hour in range(24)
            for number in range(OBJECTS_PER_HOUR)
            for row in readings(day + timedelta(hours=hour), number)
        ]
        write_object(daily, f"{day:%Y-%m-%d}", rows)
    costs: dict[str, list[Cost]] = {}
    for turn in range(repeats):
        for place in (hourly, daily)[:: -1 if turn % 2 else 1]:
            clear_tables(place)
            costs.setdefault(f"{place.bucket.name}, everything", []).append(run_dataset(place))
        added = FIRST + timedelta(hours=12)
        write_object(hourly, f"{added:%Y-%m-%dT%H}_{OBJECTS_PER_HOUR + turn}", readings(added, OBJECTS_PER_HOUR + turn))
        costs.setdefault("hourly, one object more", []).append(run_dataset(hourly))
        costs.setdefault("hourly, nothing new", []).append(run_dataset(hourly))
    medians = {name: median_cost(runs) for name, runs in costs.items()}
    objects = len(hours) * OBJECTS_PER_HOUR
    report.table(f"{len(hours):,} hours of {OBJECTS_PER_HOUR} objects", medians, "daily, everything")
    whole, idle = medians["hourly, everything"].total_s, medians["hourly, nothing new"].total_s
    report.figure("each hour: CPU", (whole - idle) / len(hours) * 1000, "ms")
    report.figure("each object: CPU", (whole - idle) / objects * 1000, "ms")
    report.target(
        "one object more less nothing new / everything",
        (medians["hourly, one object more"].total_s - idle) / whole,
        0.02,
    )


def measure_small_files(report: Report, place: Workspace, count: int, repeats: int) -> None:
    """Measure the ingest of small files, and what the server sends for it."""
    declare(place, SMALL_FILES.format(count=count // FILES_PER_PARTITION))
    (place.bucket / "files").mkdir()
    for number in range(count):
        name = f"p{number // FILES_PER_PARTITION:05}_{number % FILES_PER_PARTITION:02}.csv"
        (place.bucket / "files" / name).write_text(f"text\nfile {number} {'x' * 900}\n")
    script = place.script("obstore", str(place.root / "benchmarks/ingest.py"), "--do", "obstore_get", "files")
    again = place.headrace("headrace ingest, again", "ingest", "shapes")
    loop = replace(script, setup=partial(clear, place.root))
    first = replace(again, name="headrace ingest", setup=partial(clear_tables, place))
    costs: dict[str, list[Cost]] = {}
    sent: dict[str, int] = {}
    for _ in range(repeats):
        for contender in (loop, first, again):
            before = sent_bytes()
            costs.setdefault(contender.name, []).append(run_once(contender))
            sent[contender.name] = sent_bytes() - before
    medians = {name: median_cost(runs) for name, runs in costs.items()}
    report.table(f"{count:,} files of 1 kB", medians, "obstore")
    listing = sent["headrace ingest, again"]
    report.target("ingest / obstore", medians["headrace ingest"].total_s / medians["obstore"].total_s, 2)
    report.target(
        "bytes read, less the listing / those of obstore",
        (sent["headrace ingest"] - listing) / (sent["obstore"] - listing),
        1.01,
    )


def sent_bytes() -> int:
    """Bytes that the servers have written so far, to sockets above all."""
    return sum(psutil.Process(pid).io_counters().write_chars for pid in SERVER_PIDS)


def run_dataset(place: Workspace) -> Cost:
    """Cost of `headrace run`."""
    return run_once(place.headrace("run", "run", "shapes"))


def clear_tables(place: Workspace) -> None:
    """Remove what earlier runs have made."""
    clear(place.root)
    for folder in filter(Path.exists, (place.root / "data" / state for state in ("validated", "rejected", "features"))):
        move_aside(folder)


def write_object(place: Workspace, name: str, rows: Iterator[str] | list[str]) -> None:
    """Write an object to the bucket's folder."""
    (place.bucket / "readings").mkdir(exist_ok=True)
    (place.bucket / "readings" / f"{name}.csv").write_text("read_at,sensor,celsius\n" + "".join(rows))


def readings(hour: datetime, number: int) -> Iterator[str]:
    """Lines of a file: some sensors, within an hour."""
    for row in range(ROWS_PER_OBJECT):
        at = hour + timedelta(minutes=30 * (row % 2))
        yield f"{at:%Y-%m-%dT%H:%M:%SZ},s{number}{row // 2},{20 + row / 10:.1f}\n"


if __name__ == "__main__":
    main()
