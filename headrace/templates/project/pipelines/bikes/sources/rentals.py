"""raw → validated: rentals, one CSV file per day.

The files are in `sample/rentals/`. Add one, change one or delete one, and run `headrace run bikes` again: only that day
and the days that look back on it are computed.
"""

from datetime import timedelta
from pathlib import Path

import dataframely as dy
import polars as pl

from headrace import CsvDialect, ObjectSource, Source, TimeBounds, one_of, read_csv, utc_time

DAY = TimeBounds(timedelta(0), timedelta(days=1))
"""A file holds the rentals that began on its day, in UTC."""


class Rentals(dy.Schema):
    """One row per rental. A row that fails a check is kept in `rejected/`, with the names of the checks."""

    rental_id = dy.String(regex=r"^R\d{4}$")
    station = dy.String(check=one_of("harbour", "market", "museum"))
    started_at = utc_time(within=DAY)
    minutes = dy.Int64(min=1, max=24 * 60)
    member = dy.Bool()


def read(path: Path) -> pl.DataFrame:
    """One file, every column as text."""
    return read_csv(path, CsvDialect())


def transform(rows: pl.DataFrame) -> pl.DataFrame:
    """Good rows: the time first, units in the names."""
    return rows.select("started_at", "rental_id", "station", "member", duration_min="minutes")


SOURCE = Source(
    name="rentals",
    location=ObjectSource(
        location="file:pipelines/bikes/sample/rentals/",  # or s3://bucket/rentals/, or rentals/ in HEADRACE_BUCKET
        partition=r"(?P<partition>\d{4}-\d{2}-\d{2})\.csv",
        suffix=".csv",
    ),
    read=read,
    contract=Rentals,
    transform=transform,
    key=("started_at", "rental_id"),
    max_rejected_share=0.1,
)
