"""raw → validated: airports, one CSV object.

How the contract deals with what is odd in this data:

- **Airports that flights name and this list lacks** (BQN, PSE, SJU, STT) are not invented: an arrival there counts
  as known only when it must have happened (see `aircraft_history`).
- **Positions on the wrong side of the world.** DVT and MYF lost a minus sign and got a zone in China, EEN has
  latitude and longitude swapped. The zone must be one of the country's and the longitude must suit the offset
  `tz`: the three rows are rejected.
- **No zone** (`NA`, two rows besides EEN): good, null.
"""

from pathlib import Path

import pandera.polars as pa
import polars as pl

from headrace.dataset import ObjectSource, Source
from headrace.validate.readers import CsvDialect, read_csv
from pipelines.flights.time_zones import ZONES


def read(path: Path) -> pl.DataFrame:
    """The object as text; `NA` and nothing are null."""
    return read_csv(path, CsvDialect())


def tidy(rows: pl.DataFrame) -> pl.DataFrame:
    """Typed airports."""
    return rows.select(
        airport="faa",
        name="name",
        latitude_deg="lat",
        longitude_deg="lon",
        altitude_ft="alt",
        zone="tzone",
    )


def _position_suits_offset(data: pa.PolarsData) -> pl.LazyFrame:
    """The sun's time is within 3.5 h of the clock's, across the date line too."""
    apart = (pl.col("lon") / 15 - pl.col("tz")).abs() % 24
    return data.lazyframe.select(pl.min_horizontal(apart, 24 - apart) <= 3.5)  # noqa: PLR2004


CONTRACT = pa.DataFrameSchema(
    {
        "faa": pa.Column(pl.String, pa.Check.str_matches(r"^[A-Z0-9]{3}$")),
        "name": pa.Column(pl.String),
        "lat": pa.Column(pl.Float64, pa.Check.in_range(-90, 90)),
        "lon": pa.Column(pl.Float64, pa.Check.in_range(-180, 180)),
        "alt": pa.Column(pl.Int64, pa.Check.in_range(-1500, 15000)),
        "tz": pa.Column(pl.Int64, pa.Check.in_range(-12, 14)),
        "dst": pa.Column(pl.String, pa.Check.isin(["A", "N", "U"])),
        "tzone": pa.Column(pl.String, pa.Check.isin(list(ZONES), error="one_of_our_zones"), nullable=True),
    },
    checks=[pa.Check(_position_suits_offset, name="lon: suits(tz)")],
    strict=True,
)

SOURCE = Source(
    name="airports",
    location=ObjectSource(prefix="airports/", partition=r"airports/airports\.csv", suffix=".csv"),
    read=read,
    contract=CONTRACT,
    transform=tidy,
    key=("airport",),
    max_rejected_share=0.01,
)
