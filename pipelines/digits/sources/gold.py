"""raw → validated: the true digit of some pictures, one CSV object. People never see it; it measures them."""

from pathlib import Path

import dataframely as dy
import polars as pl

from headrace.dataset import ObjectSource, Source
from headrace.validate.csv_dialect import CsvDialect
from headrace.validate.csv_reader import read_csv


class Gold(dy.Schema):
    """The true digit of a picture."""

    image_id = dy.String(regex=r"^digit-\d{4}$")
    digit = dy.String(regex=r"^[0-9]$")


def read(path: Path) -> pl.DataFrame:
    """The object, every column as text."""
    return read_csv(path, CsvDialect())


def tidy(rows: pl.DataFrame) -> pl.DataFrame:
    """The answers, as people would give them."""
    return rows.select("image_id", answer=pl.col("digit"))


SOURCE = Source(
    name="gold",
    location=ObjectSource(location="digits-gold/", partition=r"gold\.csv", suffix=".csv"),
    read=read,
    contract=Gold,
    transform=tidy,
    key=("image_id",),
    max_rejected_share=0.0,
)
