"""Publish, killed anywhere: readers see the old release or the new one, whole; the next publish completes it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from crash_harness import EXIT_REJECTED
from crash_runs import inject_crashes
from online_stores import STORE_TYPES, OnlineStore, new_store, redis_port

__all__ = ["new_store", "redis_port"]

NewStore = Callable[[str], OnlineStore]
POINTS = {"lead of the publisher", "claim of the standby", "tags of the proved side", "switch of the service"}


@pytest.mark.slow_lane
@pytest.mark.slow
def test_a_publish_that_dies_at_some_points_is_completed_by_the_next(tmp_path: Path, new_store: NewStore) -> None:
    undisturbed, *_ = inject_crashes(tmp_path, "crash_publish", vars(new_store("sqlite")), count=6)

    assert {*POINTS, "commit of the online values", "note of the proof"} <= set(undisturbed["failpoints"])


@pytest.mark.slow_lane
def test_kill_9_at_any_moment_leaves_readers_whole_and_the_next_publish_completes_it(
    tmp_path: Path, new_store: NewStore
) -> None:
    _, *cases = inject_crashes(tmp_path, "crash_publish", vars(new_store("sqlite")), interruption="kill", count=3)

    assert any(case["interrupted"] for case in cases), "no publish was alive when it was to die"


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", STORE_TYPES)
def test_a_publish_that_dies_at_any_point_at_all_is_completed_by_the_next(
    tmp_path: Path, new_store: NewStore, kind: str
) -> None:
    undisturbed, *_ = inject_crashes(tmp_path, "crash_publish", vars(new_store(kind)))

    assert set(undisturbed["failpoints"]) >= POINTS


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", STORE_TYPES)
def test_kill_9_at_many_moments_on_every_store(tmp_path: Path, new_store: NewStore, kind: str) -> None:
    _, *cases = inject_crashes(tmp_path, "crash_publish", vars(new_store(kind)), interruption="kill", count=6)

    assert sum(case["interrupted"] for case in cases) > len(cases) // 2


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", STORE_TYPES)
def test_a_publish_that_was_paused_anywhere_can_not_take_back_what_another_published(
    tmp_path: Path, new_store: NewStore, kind: str
) -> None:
    every = 1 if kind == "sqlite" else 3

    _, *cases = inject_crashes(tmp_path, "crash_publish", vars(new_store(kind)), interruption="pause", count=every)

    assert {case["paused_exit_code"] for case in cases} >= {0, EXIT_REJECTED}
