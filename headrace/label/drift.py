"""population → drift: how far the share of each stratum moved from what it was in a reference period.

Measured by the population stability index (Siddiqi, Credit Risk Scorecards, 2006): the sum over strata of
(current - reference) * ln(current / reference). By his rule of thumb, below 0.1 nothing happened, above 0.25 much did.
"""

from collections.abc import Sequence

import polars as pl

BINS = 10
"""A column of numbers is cut at the deciles of its reference."""


def stability_index(population: pl.DataFrame, by: Sequence[str], reference: str) -> pl.DataFrame:
    """How far the stratum of each row moved.

    Args:
        population: Rows with `sample_id`.
        by: Columns whose values make a stratum; numbers are cut at the deciles of the reference.
        reference: Column that is true for the rows of the reference.

    Returns:
        One row per `sample_id` that is not of the reference, with its `stratum`, the stratum's `reference_share` and
        `current_share` of the rows, its `contribution` to the index, and the `stability_index` of all strata.
    """
    strata = pl.concat_str([_bin(population, name, reference) for name in by], separator=", ")
    rows = population.select("sample_id", reference, stratum=strata)
    counts = rows.group_by("stratum").agg(
        reference_share=pl.col(reference).sum().cast(pl.Float64),
        current_share=(~pl.col(reference)).sum().cast(pl.Float64),
    )
    now, then = pl.col("current_share"), pl.col("reference_share")
    shares = counts.with_columns(_share("reference_share"), _share("current_share"))
    shares = shares.with_columns(contribution=(now - then) * (now / then).log()).sort("stratum")
    shares = shares.with_columns(stability_index=pl.col("contribution").sum())
    return rows.filter(~pl.col(reference)).drop(reference).join(shares, on="stratum").sort("sample_id")


def _share(name: str) -> pl.Expr:
    """Share of all rows. No row counts as half a row: a stratum that appeared or vanished has a finite contribution."""
    filled = pl.max_horizontal(pl.col(name), 0.5)
    return (filled / filled.sum()).alias(name)


def _bin(population: pl.DataFrame, name: str, reference: str) -> pl.Expr:
    column = pl.col(name)
    if population[name].dtype.is_numeric():
        values = population.filter(reference)[name].drop_nulls()
        cuts = {values.quantile(number / BINS) for number in range(1, BINS)} - {None}
        column = column.cut(sorted(float(cut) for cut in cuts if cut is not None))
    return pl.format(f"{name} {{}}", column.cast(pl.String).fill_null("unknown"))
