"""raw → validated: the true digit of some pictures, one CSV object. People never see it; it measures them."""

from pathlib import Path

import pandera.polars as pa
import polars as pl

from headrace.dataset import ObjectSource, Source
from headrace.validate.readers import CsvDialect, read_csv


def read(path: Path) -> pl.DataFrame:
    """The object, every column as text."""
    return read_csv(path, CsvDialect())


def tidy(rows: pl.DataFrame) -> pl.DataFrame:
    """The answers, as people would give them."""
    return rows.select("image_id", answer=pl.col("digit"))


SOURCE = Source(
    name="gold",
    location=ObjectSource(prefix="digits-gold/", partition=r"digits-gold/gold\.csv", suffix=".csv"),
    read=read,
    contract=pa.DataFrameSchema(
        {
            "image_id": pa.Column(pl.String, pa.Check.str_matches(r"^digit-\d{4}$")),
            "digit": pa.Column(pl.String, pa.Check.str_matches(r"^[0-9]$")),
        },
        strict=True,
    ),
    transform=tidy,
    key=("image_id",),
    max_rejected_share=0.0,
)
