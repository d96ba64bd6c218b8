"""raw → validated: the aircraft register, from the table `planes`.

How the contract deals with what is odd in this data:

- **Aircraft that fly and are not registered here** (50,094 flights of 2013) are not invented: their facts are null in
  the features.
- **Not known**: the year of 70 aircraft and the speed of nearly all are null.
"""

from datetime import UTC, datetime
from pathlib import Path

import pandera.polars as pa
import polars as pl

from headrace.dataset import UTC_MICROSECONDS, Source, TableSource
from headrace.validate.contract import TimeBounds
from headrace.validate.readers import read_parquet

UPDATED = TimeBounds(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


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


CONTRACT = pa.DataFrameSchema(
    {
        "tailnum": pa.Column(pl.String, pa.Check.str_matches(r"^[A-Z0-9]{4,7}$")),
        "year": pa.Column(pl.Int64, pa.Check.in_range(1930, 2100), nullable=True),
        "type": pa.Column(pl.String),
        "manufacturer": pa.Column(pl.String),
        "model": pa.Column(pl.String),
        "engines": pa.Column(pl.Int64, pa.Check.in_range(1, 8)),
        "seats": pa.Column(pl.Int64, pa.Check.in_range(1, 1000)),
        "speed": pa.Column(pl.Int64, pa.Check.in_range(50, 800), nullable=True),
        "engine": pa.Column(pl.String),
        "updated_at": pa.Column(UTC_MICROSECONDS, metadata={"within": UPDATED}),
    },
    strict=True,
)

SOURCE = Source(
    name="planes",
    location=TableSource(table="planes", key=("tailnum",), watermark="updated_at"),
    read=read,
    contract=CONTRACT,
    transform=tidy,
    key=("tailnum",),
    max_rejected_share=0.01,
)
