"""population → what moved: how far the share of each stratum is from what it was in a reference period.

Measured by the population stability index (Siddiqi, Credit Risk Scorecards, 2006): the sum over strata of
(now - then) * ln(now / then); by his rule of thumb below 0.1 nothing happened, above 0.25 much did.
"""

from collections.abc import Sequence

import polars as pl

PARTS = 10
"""A column of numbers is cut at the tenths of its reference."""


def measured(population: pl.DataFrame, by: Sequence[str], reference: str) -> pl.DataFrame:
    """One row a `sample_id` that is not of the reference: its `stratum`, and how far that moved.

    Args:
        population: Rows with `sample_id`.
        by: Columns whose values make a stratum; numbers are cut into tenths of the reference.
        reference: Column that is true for the rows of the reference.

    Returns:
        `sample_id`, `stratum`, `then` and `now` (shares of the rows), `moved` (the stratum's part of the index), and
        `index` (of all strata).
    """
    strata = pl.concat_str([_part(population, name, reference) for name in by], separator=", ")
    rows = population.select("sample_id", reference, stratum=strata)
    counts = rows.group_by("stratum").agg(
        then=pl.col(reference).sum().cast(pl.Float64), now=(~pl.col(reference)).sum().cast(pl.Float64)
    )
    shares = counts.with_columns(_share("then"), _share("now")).with_columns(
        moved=(pl.col("now") - pl.col("then")) * (pl.col("now") / pl.col("then")).log()
    )
    shares = shares.sort("stratum").with_columns(index=pl.col("moved").sum())
    return rows.filter(~pl.col(reference)).drop(reference).join(shares, on="stratum").sort("sample_id")


def _share(name: str) -> pl.Expr:
    """Of all rows; half a row stands for none, so that a stratum that came or went has a finite part."""
    filled = pl.max_horizontal(pl.col(name), 0.5)
    return (filled / filled.sum()).alias(name)


def _part(population: pl.DataFrame, name: str, reference: str) -> pl.Expr:
    column = pl.col(name)
    if population[name].dtype.is_numeric():
        before = population.filter(reference)[name].drop_nulls()
        cuts = {before.quantile(place / PARTS) for place in range(1, PARTS)} - {None}
        column = column.cut(sorted(float(cut) for cut in cuts if cut is not None))
    return pl.format(f"{name} {{}}", column.cast(pl.String).fill_null("unknown"))
