"""raw → validated: the aircraft register, from the table `planes`.

How the contract deals with what is odd in this data:

- **Aircraft that fly and are not registered here** (50,094 flights of 2013) are not invented: their facts are null in
  the features.
- **Not known**: the year of 70 aircraft and the speed of nearly all are null.
"""

from datetime import UTC, datetime
from pathlib import Path

import dataframely as dy
import polars as pl

from headrace.dataset import Source, TableSource
from headrace.validate.columns import TimeBounds, utc_time
from headrace.validate.parquet_reader import read_parquet

UPDATED = TimeBounds(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


class Planes(dy.Schema):
    """Aircraft as the register has them."""

    tailnum = dy.String(regex=r"^[A-Z0-9]{4,7}$")
    year = dy.Int64(min=1930, max=2100, nullable=True)
    type = dy.String()
    manufacturer = dy.String()
    model = dy.String()
    engines = dy.Int64(min=1, max=8)
    seats = dy.Int64(min=1, max=1000)
    speed = dy.Int64(min=50, max=800, nullable=True)
    engine = dy.String()
    updated_at = utc_time(within=UPDATED)


def read(path: Path) -> pl.DataFrame:
    """One partition as ingest wrote it from the database."""
    return read_parquet(path)


def tidy(rows: pl.DataFrame) -> pl.DataFrame:
    """Typed aircraft, units in the names."""
    return rows.select(
        tailnum="tailnum",
        built_year="year",
        kind="type",
        manufacturer="manufacturer",
        model="model",
        engines="engines",
        seats="seats",
        speed_mph="speed",
        engine="engine",
        updated_at="updated_at",
    )


SOURCE = Source(
    name="planes",
    location=TableSource(table="planes", key=("tailnum",), watermark="updated_at"),
    read=read,
    contract=Planes,
    transform=tidy,
    key=("tailnum",),
    max_rejected_share=0.01,
)
