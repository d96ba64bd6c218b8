"""A transform is a plain function on Polars frames, so its test needs no server and no file."""

from datetime import UTC, datetime

import polars as pl

from pipelines.bikes.features.station_demand import demand


def test_a_rental_counts_from_its_end_on():
    rentals = pl.LazyFrame(
        {
            "station": ["harbour", "harbour", "market"],
            "started_at": [datetime(2026, 1, 3, hour, 30, tzinfo=UTC) for hour in (22, 23, 23)],
            "duration_min": [60, 60, 20],
        },
        schema_overrides={"started_at": pl.Datetime("us", "UTC")},
    )

    rows = demand("2026-01-04", rentals).sort("station").collect()

    assert rows.select("station", "rentals_3d", "minutes_3d").rows() == [("harbour", 1, 60), ("market", 1, 20)]
