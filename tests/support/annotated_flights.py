"""Answers that two people gave about delayed flights of the worked example: a history without a Label Studio."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import polars as pl
from two_releases import create_entry

from headrace.label import annotations
from headrace.project.loading import load_dataset
from headrace.storage.manifest import Manifest

if TYPE_CHECKING:
    from headrace.storage.table_store import TableStore

KEYS = load_dataset("flights").labels[0].keys
DAY = "2013-01-03"
CHOICES = ("carrier", "weather", "weather", "weather", "weather")
FLIGHTS = len(CHOICES)


def submit_answers(table_store: "TableStore", of_bob: Sequence[str] | None = CHOICES) -> pl.DataFrame:
    """Have two people answered about some flights of the day, who agree by default; the flights.

    Args:
        table_store: Whose history the answers enter.
        of_bob: The answers of the second; None if he has not answered yet.
    """
    late = table_store.scan("validated/flights/flights", [DAY]).filter(
        pl.col("dep_delay_min") >= 60, pl.col("tailnum") != ""
    )
    flights = late.sort(KEYS).head(FLIGHTS).collect()
    answered_at = pl.col("departed_at") + timedelta(days=30)
    frame = flights.select(
        *KEYS,
        sample_id=pl.format("{}{}-{}", "carrier", "flight", "origin"),
        event_time="departed_at",
        task_id=pl.int_range(pl.len()),
        event=pl.lit("created"),
        was_cancelled=pl.lit(value=False),
        created_at=answered_at,
        updated_at=answered_at,
        task_changed_at=answered_at,
        result=pl.lit("[]"),
    )
    people = (
        frame.with_columns(
            annotation_id=pl.format("{} {}", pl.lit(name), "task_id"), annotator=pl.lit(name), choice=pl.Series(choices)
        )
        for name, choices in {"ann": CHOICES, "bob": of_bob}.items()
        if choices is not None
    )
    frame = pl.concat(people)
    schema = annotations.annotation_schema({name: frame.schema[name] for name in KEYS})
    whole = pl.concat([pl.DataFrame(schema=schema), frame.cast({"task_id": pl.Int64})], how="diagonal")
    table_store.checkout(
        Manifest("annotations/flights/delay_cause", partitions={DAY: create_entry(table_store, whole)})
    )
    return flights
