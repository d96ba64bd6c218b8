"""Publish, killed anywhere: readers see the old release or the new one, whole; the next publish completes it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from crash_harness import REFUSED
from crash_runs import rehearse
from online_stores import KINDS, OnlineStore, new_store, redis_port

__all__ = ["new_store", "redis_port"]

NewStore = Callable[[str], OnlineStore]
POINTS = {"lead of the publisher", "claim of the standby", "tags of the proved side", "switch of the service"}


@pytest.mark.slow_lane
@pytest.mark.slow
def test_a_publish_that_dies_at_some_points_is_completed_by_the_next(tmp_path: Path, new_store: NewStore) -> None:
    calm, *_ = rehearse(tmp_path, "crash_publish", vars(new_store("sqlite")), count=6)

    assert {*POINTS, "commit of the online values", "note of the proof"} <= set(calm["points"])


@pytest.mark.slow
def test_kill_9_at_any_moment_leaves_readers_whole_and_the_next_publish_completes_it(
    tmp_path: Path, new_store: NewStore
) -> None:
    _, *cases = rehearse(tmp_path, "crash_publish", vars(new_store("sqlite")), how="kill", count=3)

    assert any(case["died"] for case in cases), "no publish was alive when it was to die"


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", KINDS)
def test_a_publish_that_dies_at_any_point_at_all_is_completed_by_the_next(
    tmp_path: Path, new_store: NewStore, kind: str
) -> None:
    calm, *_ = rehearse(tmp_path, "crash_publish", vars(new_store(kind)))

    assert set(calm["points"]) >= POINTS


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", KINDS)
def test_kill_9_at_many_moments_on_every_store(tmp_path: Path, new_store: NewStore, kind: str) -> None:
    _, *cases = rehearse(tmp_path, "crash_publish", vars(new_store(kind)), how="kill", count=6)

    assert sum(case["died"] for case in cases) > len(cases) // 2


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", KINDS)
def test_a_publish_that_was_paused_anywhere_can_not_take_back_what_another_published(
    tmp_path: Path, new_store: NewStore, kind: str
) -> None:
    every = 1 if kind == "sqlite" else 3

    _, *cases = rehearse(tmp_path, "crash_publish", vars(new_store(kind)), how="pause", count=every)

    assert {case["first"] for case in cases} >= {0, REFUSED}
