"""Publish, killed anywhere: readers see the old release or the new one, whole; the next publish completes it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from online_stores import KINDS, OnlineStore, new_store, redis_port

__all__ = ["new_store", "redis_port"]

SCRIPT = Path(__file__).with_name("publish_crashes.py")


def rehearse(folder: Path, store: OnlineStore, how: str, every: int) -> list[dict[str, object]]:
    """A line for each case; none was seen half, and all were healed."""
    where = folder / "store.json"
    where.write_text(json.dumps(vars(store)))
    paths = os.pathsep.join((str(SCRIPT.parent), str(SCRIPT.parents[1]), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        [sys.executable, SCRIPT, folder, where, how, str(every)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    bad = [case for case in found if not (case["whole"] and case["healed"])]
    assert bad == [], done.stderr[-4000:]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("how", ["before", "half"])
def test_a_publish_that_dies_at_some_points_is_completed_by_the_next(
    tmp_path: Path, new_store: Callable[[str], OnlineStore], how: str
) -> None:
    found = rehearse(tmp_path, new_store("sqlite"), how, every=4)

    assert len(found) >= 2
    assert all(case["died"] for case in found)


@pytest.mark.slow
def test_kill_9_at_any_moment_leaves_readers_whole_and_the_next_publish_completes_it(
    tmp_path: Path, new_store: Callable[[str], OnlineStore]
) -> None:
    found = rehearse(tmp_path, new_store("sqlite"), "kill", every=4)

    assert any(case["died"] for case in found), "no publish was alive when it was to die"


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("how", ["before", "half", "kill"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_publish_that_dies_anywhere_at_all_is_completed_by_the_next(
    tmp_path: Path, new_store: Callable[[str], OnlineStore], kind: str, how: str
) -> None:
    found = rehearse(tmp_path, new_store(kind), how, every=30 if how == "kill" else 1)

    assert how == "kill" or [case["at"] for case in found] == list(range(1, len(found) + 1))
    assert len(found) > 5
