"""population → sample: which rows people are asked about, and why each of them.

Drawn at random with a seed: a row's rank is a hash of the seed and its own id, so the same rows and seed give the same
sample, in any order and on any machine. No row is drawn twice, and none that is held out (gold, test), except by
`GoldSampling`.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256

import polars as pl

from headrace.errors import HeadraceError
from headrace.label import drift

RANK, POSITION = "hash_rank", "position"
"""Columns that only this module uses: a row's rank, and its position in its stratum."""


class SamplingError(HeadraceError):
    """A sample cannot be drawn as it is declared."""


@dataclass(frozen=True)
class UniformSampling:
    """Rows drawn with equal probability: the only part from which shares in the whole population can be estimated."""

    share: float


@dataclass(frozen=True)
class StratifiedSampling:
    """The same number of rows from each stratum, as far as it has them, so that rare strata are sampled too.

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
        reason: What a high score means, as the selection reason says it.
    """

    share: float
    by: str
    reason: str = "uncertain"


@dataclass(frozen=True)
class DriftSampling:
    """Rows of the strata whose share grew or shrank: the further a stratum moved, the more rows of it.

    Attributes:
        share: Of the sample.
        by: Columns whose values make a stratum; numbers are cut at the deciles of the reference.
        reference: Column that is true for the rows to compare with, of an earlier period or release; none is drawn.
    """

    share: float
    by: tuple[str, ...]
    reference: str


@dataclass(frozen=True)
class GoldSampling:
    """Items whose answer is known, to measure the annotators; drawn from those held out."""

    share: float


Policy = UniformSampling | StratifiedSampling | UncertaintySampling | DriftSampling | GoldSampling


def sample_rows(
    population: pl.DataFrame, policies: Sequence[Policy], budget: int, seed: int, held_out: Collection[str] = ()
) -> pl.DataFrame:
    """`budget` rows of `population`, or all there are, sorted by `sample_id`, with `selection_reason`.

    Args:
        population: Rows with a unique `sample_id`.
        policies: How each part of the sample is drawn; their shares add up to one. If one finds too few rows, the first
            one draws the rest.
        budget: Rows of the sample.
        seed: Of the random ranks.
        held_out: Ids of rows that nobody is asked about, except by `GoldSampling`.

    Raises:
        SamplingError: The shares do not add up, or ids are not unique.

    Examples:
        >>> rows = pl.DataFrame({"sample_id": ["a", "b", "c", "d"], "carrier": ["UA", "UA", "UA", "HA"]})
        >>> policies = [headrace.UniformSampling(0.5), headrace.StratifiedSampling(0.5, by=("carrier",))]
        >>> sample = headrace.sample_rows(rows, policies, budget=2, seed=1)
        >>> sample.select("sample_id", "selection_reason").rows()
        [('a', 'one of 3 with carrier UA, drawn at random (seed 1)'), ('d', 'drawn at random (seed 1)')]
    """
    _check(population, policies)
    ranks = pl.Series(RANK, [hash_rank(seed, name) for name in population["sample_id"]], pl.String)
    remaining = population.with_columns(ranks)
    is_held_out, columns = pl.col("sample_id").is_in(list(held_out)), [*remaining.columns, "selection_reason"]
    drawn: list[pl.DataFrame] = []
    for policy, count in [*zip(policies, allocate_budget(policies, budget), strict=True), (policies[0], budget)]:
        pool = remaining.filter(is_held_out if isinstance(policy, GoldSampling) else ~is_held_out)
        missing = budget - sum(part.height for part in drawn)
        if isinstance(policy, DriftSampling):
            pool = _with_drift(policy, population, pool)
        drawn.append(_order(policy, pool, seed).select(columns).head(min(count, missing)))
        remaining = remaining.join(drawn[-1], on="sample_id", how="anti")
    return pl.concat(drawn).drop(RANK).sort("sample_id")


def allocate_budget(policies: Sequence[Policy], budget: int) -> list[int]:
    """Rows that each policy draws: whole numbers that add up to the budget. The first takes what is left over."""
    later = [int(policy.share * budget) for policy in policies[1:]]
    return [budget - sum(later), *later]


def hash_rank(seed: int | str, sample_id: str) -> str:
    """A pseudo-random number of a row, as text of equal length."""
    return sha256(f"{seed}:{sample_id}".encode()).hexdigest()


def in_holdout(sample_id: str, share: float, purpose: str) -> bool:
    """Whether a row is among the `share` of all rows that is set apart for `purpose`."""
    return int(hash_rank(purpose, sample_id)[:8], 16) < share * 16**8


def _check(population: pl.DataFrame, policies: Sequence[Policy]) -> None:
    total = sum(policy.share for policy in policies)
    if not policies or abs(total - 1) > 1e-9:  # noqa: PLR2004  sums of shares are not exact
        raise SamplingError(
            f"a sample's shares add up to {total:g}, expected 1. Correct its policies in the declaration."
        )
    if population["sample_id"].n_unique() != population.height:
        raise SamplingError(
            f"a sample's population has {population.height:,} rows but {population['sample_id'].n_unique():,} ids:"
            " expected one `sample_id` per row. Correct the declaration."
        )


def _order(policy: Policy, pool: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The pool in the order in which the policy draws it, each row with the reason."""
    return _ORDERS[type(policy)](policy, pool.sort(RANK), seed)


def _order_randomly(_policy: UniformSampling | GoldSampling, pool: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Annotators read the reason, so it is the same for gold items."""
    return pool.with_columns(selection_reason=pl.lit(f"drawn at random (seed {seed})"))


def _order_by_stratum(policy: StratifiedSampling, pool: pl.DataFrame, seed: int) -> pl.DataFrame:
    values = [pl.format(f"{name} {{}}", pl.col(name).cast(pl.String).fill_null("unknown")) for name in policy.by]
    stratum = pl.concat_str(values, separator=", ")
    size, position = pl.len().over(policy.by), pl.int_range(1, pl.len() + 1).over(policy.by)
    reason = pl.format(f"one of {{}} with {{}}, drawn at random (seed {seed})", size, stratum)
    return pool.with_columns(selection_reason=reason, **{POSITION: position}).sort(POSITION, RANK).drop(POSITION)


def _order_by_score(policy: UncertaintySampling, pool: pl.DataFrame, _seed: int) -> pl.DataFrame:
    scored = pool.filter(pl.col(policy.by).is_not_null()).sort(policy.by, RANK, descending=[True, False])
    position, score = pl.int_range(1, pl.len() + 1), pl.col(policy.by).round(3)
    reason = pl.format(f"{policy.reason}: {policy.by} {{}}, place {{}} of {scored.height:,}", score, position)
    return scored.with_columns(selection_reason=reason)


def _with_drift(policy: DriftSampling, population: pl.DataFrame, pool: pl.DataFrame) -> pl.DataFrame:
    """The rows of the pool that are not of the reference, with how far their stratum moved in the whole population."""
    return pool.join(drift.stability_index(population, policy.by, policy.reference), on="sample_id")


def _order_by_drift(_policy: DriftSampling, pool: pl.DataFrame, seed: int) -> pl.DataFrame:
    """From each stratum in proportion to its contribution to the index; from one that did not move, none."""
    position = pl.int_range(1, pl.len() + 1).over("stratum") / pl.col("contribution")
    reason = pl.format(
        f"drifted: {{}} is {{}} % of the rows now and was {{}} % (stability index {{}}), drawn at random (seed {seed})",
        "stratum",
        (pl.col("current_share") * 100).round(1),
        (pl.col("reference_share") * 100).round(1),
        pl.col("stability_index").round(3),
    )
    moved = pool.filter(pl.col("contribution") > 0)
    return moved.with_columns(selection_reason=reason, **{POSITION: position}).sort(POSITION, RANK)


_ORDERS: dict[type, Callable[..., pl.DataFrame]] = {
    UniformSampling: _order_randomly,
    StratifiedSampling: _order_by_stratum,
    UncertaintySampling: _order_by_score,
    DriftSampling: _order_by_drift,
    GoldSampling: _order_randomly,
}
