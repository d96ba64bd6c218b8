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

import dataframely as dy
import polars as pl

from headrace.dataset import ObjectSource, Source
from headrace.validate.columns import one_of
from headrace.validate.csv_dialect import CsvDialect
from headrace.validate.csv_reader import read_csv
from pipelines.flights.time_zones import ZONES


class Airports(dy.Schema):
    """Airports as the list has them."""

    faa = dy.String(regex=r"^[A-Z0-9]{3}$")
    name = dy.String()
    lat = dy.Float64(min=-90, max=90)
    lon = dy.Float64(min=-180, max=180)
    alt = dy.Int64(min=-1500, max=15000)
    tz = dy.Int64(min=-12, max=14)
    dst = dy.String(check=one_of("A", "N", "U"))
    tzone = dy.String(check=one_of(*ZONES), nullable=True)

    @dy.rule()
    def lon_suits_tz(cls) -> pl.Expr:
        """The sun's time is within 3.5 h of the clock's, across the date line too."""
        apart = (cls.lon.col / 15 - cls.tz.col).abs() % 24
        return pl.min_horizontal(apart, 24 - apart) <= 3.5  # noqa: PLR2004


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


SOURCE = Source(
    name="airports",
    location=ObjectSource(location="airports/", partition=r"airports\.csv", suffix=".csv"),
    read=read,
    contract=Airports,
    transform=tidy,
    key=("airport",),
    max_rejected_share=0.01,
)
