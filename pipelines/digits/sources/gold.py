"""raw → validated: the true digit of some pictures, one CSV object. People never see it; it measures them."""

from pathlib import Path

import pandera.polars as pa
import polars as pl

from headrace.dataset import Objects, Source
from headrace.validate.readers import Delimited, delimited


def read(path: Path) -> pl.DataFrame:
    """The object, every column as text."""
    return delimited(path, Delimited())


def tidy(rows: pl.DataFrame) -> pl.DataFrame:
    """The answers, as people would give them."""
    return rows.select("image_id", answer=pl.col("digit"))


SOURCE = Source(
    name="gold",
    origin=Objects(prefix="digits-gold/", partition=r"digits-gold/gold\.csv", suffix=".csv"),
    read=read,
    contract=pa.DataFrameSchema(
        {
            "image_id": pa.Column(pl.String, pa.Check.str_matches(r"^digit-\d{4}$")),
            "digit": pa.Column(pl.String, pa.Check.str_matches(r"^[0-9]$")),
        },
        strict=True,
    ),
    tidy=tidy,
    key=("image_id",),
    tolerance=0.0,
)
