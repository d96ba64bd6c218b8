"""population → sample: deterministic, explainable, and never what is held out."""

import math
from collections.abc import Sequence

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.label import drift
from headrace.label.sampling import (
    DriftSampling,
    GoldSampling,
    Policy,
    SamplingError,
    StratifiedSampling,
    UncertaintySampling,
    UniformSampling,
    allocate_budget,
    in_holdout,
    sample_rows,
)

MIX: tuple[Policy, ...] = (
    UniformSampling(0.4),
    StratifiedSampling(0.2, ("carrier",)),
    UncertaintySampling(0.2, "doubt"),
    GoldSampling(0.2),
)


def population(rows: int = 100) -> pl.DataFrame:
    """Rows of which one in twenty is of a rare carrier, each with a doubt of its own; some have none."""
    return pl.DataFrame(
        {
            "sample_id": [f"row-{number}" for number in range(rows)],
            "carrier": ["rare" if number % 20 == 0 else "common" for number in range(rows)],
            "doubt": [None if number % 10 == 9 else number / rows for number in range(rows)],
        }
    )


def ids(frame: pl.DataFrame) -> list[str]:
    return frame["sample_id"].to_list()


HELD_OUT = [f"row-{number}" for number in range(0, 100, 5)]


def test_a_mix_draws_its_shares_and_each_row_has_its_reason() -> None:
    drawn = sample_rows(population(), MIX, 20, seed=7, held_out=HELD_OUT)

    reasons = drawn["selection_reason"].to_list()
    assert drawn.height == 20
    assert (
        sum(reason.startswith("drawn at random") for reason in reasons) == 8 + 4
    )  # uniform and gold, which look the same
    assert sum(reason.startswith("one of ") and "with carrier" in reason for reason in reasons) == 4
    assert sum(reason.startswith("uncertain: doubt 0.") and "place 1 of" in reason for reason in reasons) == 1
    assert len(set(ids(drawn)) & set(HELD_OUT)) == 4


def test_nothing_held_out_is_drawn_unless_gold_asks_for_it() -> None:
    drawn = sample_rows(
        population(), (UniformSampling(0.5), UncertaintySampling(0.5, "doubt")), 80, seed=7, held_out=HELD_OUT
    )

    assert drawn.height == 80
    assert not set(ids(drawn)) & set(HELD_OUT)


def test_strata_are_drawn_from_in_turn_so_that_rare_ones_are_asked_about() -> None:
    drawn = sample_rows(population(), (StratifiedSampling(1.0, ("carrier",)),), 8, seed=7)

    assert drawn["carrier"].to_list().count("rare") == 4


def test_the_highest_scores_come_first_and_rows_without_one_never() -> None:
    drawn = sample_rows(population(), (UncertaintySampling(1.0, "doubt"),), 3, seed=7)

    assert ids(drawn) == ["row-96", "row-97", "row-98"]
    assert "uncertain: doubt 0.98, place 1 of 90" in drawn["selection_reason"].to_list()


def test_where_a_policy_finds_too_few_the_first_one_draws_in_its_place() -> None:
    drawn = sample_rows(population(), (UniformSampling(0.5), GoldSampling(0.5)), 20, seed=7, held_out=HELD_OUT[:3])

    assert (drawn.height, len(set(ids(drawn)) & set(HELD_OUT[:3]))) == (20, 3)


def test_a_budget_beyond_the_population_takes_all_of_it_once() -> None:
    assert sorted(ids(sample_rows(population(10), (UniformSampling(1.0),), 50, seed=7))) == sorted(ids(population(10)))


# What drifted


def periods(then: dict[str, int], now: dict[str, int]) -> pl.DataFrame:
    """So many rows of each airport in the reference, and now."""
    rows = [
        (f"{when}-{airport}-{number}", airport, when == "then")
        for when, counts in (("then", then), ("now", now))
        for airport, count in counts.items()
        for number in range(count)
    ]
    return pl.DataFrame(rows, schema=["sample_id", "airport", "before"], orient="row")


DRIFTED = (DriftSampling(1.0, ("airport",), "before"),)


def test_rows_of_the_strata_that_moved_are_drawn_and_their_reason_says_how_far() -> None:
    rows = periods({"JFK": 500, "EWR": 450, "LGA": 50}, {"JFK": 50, "EWR": 35, "LGA": 15})

    drawn = sample_rows(rows, DRIFTED, 10, seed=7)

    counts = dict(drawn.group_by("airport").len().iter_rows())
    assert counts["LGA"] > 2 * counts.get("EWR", 0)
    assert "JFK" not in counts
    assert all(name.startswith("now-") for name in ids(drawn))
    assert (
        "drifted: airport LGA is 15.0 % of the rows now and was 5.0 % (stability index 0.135), drawn at random (seed 7)"
        in drawn["selection_reason"].to_list()
    )


def test_the_index_is_the_sum_over_strata_as_by_hand() -> None:
    found = drift.stability_index(periods({"a": 60, "b": 40}, {"a": 3, "b": 7}), ("airport",), "before")

    by_hand = (0.3 - 0.6) * math.log(0.3 / 0.6) + (0.7 - 0.4) * math.log(0.7 / 0.4)
    assert found["stability_index"].unique().to_list() == [pytest.approx(by_hand)]


def test_a_stratum_that_is_new_drifted_and_where_nothing_moved_nothing_is_drawn() -> None:
    new = sample_rows(periods({"a": 100}, {"a": 10, "b": 10}), DRIFTED, 8, seed=7)
    same = sample_rows(periods({"a": 100, "b": 100}, {"a": 10, "b": 10}), DRIFTED, 8, seed=7)

    assert new["airport"].to_list().count("b") > 4
    assert same.is_empty()


def test_numbers_are_compared_by_the_deciles_of_the_reference() -> None:
    delays = [*range(100), *([95] * 20), *range(0, 100, 10)]
    rows = pl.DataFrame(
        {
            "sample_id": [f"row-{number}" for number in range(len(delays))],
            "delay": delays,
            "before": [number < 100 for number in range(len(delays))],
        }
    )

    drawn = sample_rows(rows, (DriftSampling(1.0, ("delay",), "before"),), 10, seed=7)

    assert drawn.filter(pl.col("delay") >= 90).height >= 8


@settings(deadline=None)
@given(st.permutations(range(40)))
def test_what_drifted_is_drawn_the_same_in_any_order(order: Sequence[int]) -> None:
    rows = periods({"a": 12, "b": 8}, {"a": 5, "b": 15})

    assert sample_rows(rows[list(order)], DRIFTED, 6, seed=1).equals(sample_rows(rows, DRIFTED, 6, seed=1))


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 5), st.permutations(range(60)))
def test_the_order_of_the_population_never_matters_and_no_row_is_drawn_twice(
    budget: int, seed: int, order: Sequence[int]
) -> None:
    rows = population(60)

    drawn = sample_rows(rows, MIX, budget, seed, held_out=HELD_OUT)

    assert drawn.equals(sample_rows(rows[list(order)], MIX, budget, seed, held_out=HELD_OUT))
    assert drawn["sample_id"].n_unique() == drawn.height <= budget


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 500))
def test_allocations_are_whole_and_add_up_to_the_budget(parts: list[int], budget: int) -> None:
    found = allocate_budget([UniformSampling(part / sum(parts)) for part in parts], budget)

    assert sum(found) == budget
    assert min(found) >= 0


def test_shares_that_do_not_add_up_are_rejected() -> None:
    with pytest.raises(SamplingError, match=r"add up to 0\.9, expected 1"):
        sample_rows(population(), (UniformSampling(0.9),), 5, seed=7)


def test_a_duplicate_id_is_rejected() -> None:
    twice = pl.concat([population(5), population(1)])

    with pytest.raises(SamplingError, match="6 rows but 5 ids"):
        sample_rows(twice, (UniformSampling(1.0),), 5, seed=7)


def test_a_share_of_all_rows_is_held_out_for_a_purpose_and_another_purpose_holds_out_others() -> None:
    names = [f"row-{number}" for number in range(2000)]

    hidden = {name for name in names if in_holdout(name, 0.25, "hidden")}
    other = {name for name in names if in_holdout(name, 0.25, "other")}

    assert 400 < len(hidden) < 600
    assert 60 < len(hidden & other) < 190
