"""population → sample: which rows people are asked about, and why each of them.

Drawn by lot: a row's lot is a hash of the seed and its own id, so the same rows and seed always give the same sample,
in any order and on any machine. No row is drawn twice, and none that is held out (gold, test), unless `Gold` asks.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256

import polars as pl

from headrace.errors import HeadraceError
from headrace.label import drift

LOT, PLACE = "lot", "place"


class SampleError(HeadraceError):
    """A sample cannot be drawn as it is declared."""


@dataclass(frozen=True)
class UniformSampling:
    """Any row, each as likely: the only part that tells how often each answer is right in the whole."""

    share: float


@dataclass(frozen=True)
class StratifiedSampling:
    """As many rows of each stratum, as far as they go: rare ones are asked about too.

    Attributes:
        share: Of the sample.
        by: Columns whose values make a stratum.
    """

    share: float
    by: tuple[str, ...]


@dataclass(frozen=True)
class UncertaintySampling:
    """The rows with the highest score: the least certain ones.

    Attributes:
        share: Of the sample.
        by: Column of the score; rows without one are not drawn.
        word: What a high score means, for people.
    """

    share: float
    by: str
    word: str = "uncertain"


@dataclass(frozen=True)
class DriftSampling:
    """Rows of the strata that are more, or fewer, than they were: the further one moved, the more rows of it.

    Attributes:
        share: Of the sample.
        by: Columns whose values make a stratum; numbers are cut into tenths of the reference.
        reference: Column that is true for the rows to compare with, of an earlier period or release; none is drawn.
    """

    share: float
    by: tuple[str, ...]
    reference: str


@dataclass(frozen=True)
class GoldSampling:
    """Items whose answer is known, to measure who labels; drawn from those held out."""

    share: float


Policy = UniformSampling | StratifiedSampling | UncertaintySampling | DriftSampling | GoldSampling


def sample_rows(
    population: pl.DataFrame, policies: Sequence[Policy], budget: int, seed: int, held_out: Collection[str] = ()
) -> pl.DataFrame:
    """`budget` rows of `population`, or all there are, sorted by `sample_id`, with `why`.

    Args:
        population: Rows with a unique `sample_id`.
        policies: What part of the sample is drawn how; their shares add up to one. Where one finds too few rows, the
            first one draws in its place.
        budget: Rows of the sample.
        seed: Of the lot.
        held_out: Ids of rows that nobody is asked about, but for `Gold`.

    Raises:
        SampleError: The shares do not add up, or ids are not unique.
    """
    _check(population, policies)
    left = population.with_columns(pl.Series(LOT, [lot(seed, name) for name in population["sample_id"]], pl.String))
    known, columns = pl.col("sample_id").is_in(list(held_out)), [*left.columns, "why"]
    drawn: list[pl.DataFrame] = []
    for policy, count in [*zip(policies, quotas(policies, budget), strict=True), (policies[0], budget)]:
        pool = left.filter(known if isinstance(policy, GoldSampling) else ~known)
        missing = budget - sum(part.height for part in drawn)
        if isinstance(policy, DriftSampling):
            pool = _moved(policy, population, pool)
        drawn.append(_drawn(policy, pool, seed).select(columns).head(min(count, missing)))
        left = left.join(drawn[-1], on="sample_id", how="anti")
    return pl.concat(drawn).drop(LOT).sort("sample_id")


def quotas(policies: Sequence[Policy], budget: int) -> list[int]:
    """Rows that each policy draws: whole numbers that add up to the budget, the first takes what is left over."""
    later = [int(policy.share * budget) for policy in policies[1:]]
    return [budget - sum(later), *later]


def lot(seed: int | str, sample_id: str) -> str:
    """A number drawn for a row, as text of equal length."""
    return sha256(f"{seed}:{sample_id}".encode()).hexdigest()


def falls(sample_id: str, share: float, purpose: str) -> bool:
    """Whether the lot for `purpose` falls on a row, as it does on a `share` of all rows."""
    return int(lot(purpose, sample_id)[:8], 16) < share * 16**8


def _check(population: pl.DataFrame, policies: Sequence[Policy]) -> None:
    total = sum(policy.share for policy in policies)
    if not policies or abs(total - 1) > 1e-9:  # noqa: PLR2004  sums of shares are not exact
        raise SampleError(f"a sample's shares add up to {total:g}, expected 1. Mend its policies in the declaration.")
    if population["sample_id"].n_unique() != population.height:
        raise SampleError(
            f"a sample's population has {population.height:,} rows but {population['sample_id'].n_unique():,} ids:"
            " expected one `sample_id` a row. Mend the declaration."
        )


def _drawn(policy: Policy, pool: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The pool in the order of the policy, each row with why it would be drawn."""
    return _ORDERS[type(policy)](policy, pool.sort(LOT), seed)


def _by_lot(_policy: UniformSampling | GoldSampling, pool: pl.DataFrame, seed: int) -> pl.DataFrame:
    """People read why; it must not tell them which items are gold."""
    return pool.with_columns(why=pl.lit(f"drawn by lot (seed {seed})"))


def _stratified(policy: StratifiedSampling, pool: pl.DataFrame, seed: int) -> pl.DataFrame:
    values = [pl.format(f"{name} {{}}", pl.col(name).cast(pl.String).fill_null("unknown")) for name in policy.by]
    stratum = pl.concat_str(values, separator=", ")
    size, place = pl.len().over(policy.by), pl.int_range(1, pl.len() + 1).over(policy.by)
    why = pl.format(f"one of {{}} with {{}}, by lot (seed {seed})", size, stratum)
    return pool.with_columns(why=why, **{PLACE: place}).sort(PLACE, LOT).drop(PLACE)


def _highest(policy: UncertaintySampling, pool: pl.DataFrame, _seed: int) -> pl.DataFrame:
    scored = pool.filter(pl.col(policy.by).is_not_null()).sort(policy.by, LOT, descending=[True, False])
    place = pl.int_range(1, pl.len() + 1)
    score = pl.col(policy.by).round(3)
    why = pl.format(f"{policy.word}: {policy.by} {{}}, place {{}} of {scored.height:,}", score, place)
    return scored.with_columns(why=why)


def _moved(policy: DriftSampling, population: pl.DataFrame, pool: pl.DataFrame) -> pl.DataFrame:
    """The rows of the pool that are not of the reference, with how far their stratum moved in the whole population."""
    return pool.join(drift.measured(population, policy.by, policy.reference), on="sample_id")


def _drifted(_policy: DriftSampling, pool: pl.DataFrame, seed: int) -> pl.DataFrame:
    """From each stratum as many as its part of the index says; from one that stayed as it was, none."""
    turn = pl.int_range(1, pl.len() + 1).over("stratum") / pl.col("moved")
    why = pl.format(
        f"drifted: {{}} is {{}} % of the rows now and was {{}} % (stability index {{}}), by lot (seed {seed})",
        "stratum",
        (pl.col("now") * 100).round(1),
        (pl.col("then") * 100).round(1),
        pl.col("index").round(3),
    )
    return pool.filter(pl.col("moved") > 0).with_columns(why=why, **{PLACE: turn}).sort(PLACE, LOT)


_ORDERS: dict[type, Callable[..., pl.DataFrame]] = {
    UniformSampling: _by_lot,
    StratifiedSampling: _stratified,
    UncertaintySampling: _highest,
    DriftSampling: _drifted,
    GoldSampling: _by_lot,
}
