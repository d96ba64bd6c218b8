"""A Dask worker keeps a process per bundle while it is used, no more than it may, and none for long after."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from headrace.project.code_bundle import CodeBundle
from headrace.project.worker_processes import ComputationFailedError, ProcessPool

pytestmark = pytest.mark.slow

OLD, NEW, NEWER = (CodeBundle({"pipelines/__init__.py": f"version = {number}\n".encode()}) for number in (1, 2, 3))


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[ProcessPool]:
    """A pool that keeps two processes, for long."""
    made = ProcessPool(tmp_path)
    yield made
    made.end_idle()


def call(pool: ProcessPool, code: CodeBundle) -> None:
    """Send what no process can read: it answers with an error, and goes on."""
    with pytest.raises(ComputationFailedError):
        pool.call(code, b"no request", 2)


def running() -> list[int]:
    return sorted(child.pid for child in psutil.Process().children() if is_code_process(child))


def is_code_process(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):  # nor a zombie
        return "headrace.project.worker_processes" in process.cmdline()
    return False


def test_a_second_request_of_a_bundle_reaches_the_same_process(pool: ProcessPool) -> None:
    call(pool, OLD)
    first = running()

    call(pool, OLD)

    assert running() == first
    assert len(first) == 1


def test_runs_of_two_commits_that_take_turns_start_no_process_anew(pool: ProcessPool) -> None:
    call(pool, OLD)
    call(pool, NEW)
    both = running()

    call(pool, OLD)
    call(pool, NEW)

    assert running() == both
    assert len(both) == 2


def test_the_process_that_waits_longest_makes_room_for_another_bundle(pool: ProcessPool) -> None:
    call(pool, OLD)
    (oldest,) = running()
    call(pool, NEW)

    call(pool, NEWER)

    assert len(running()) == 2
    assert oldest not in running()


def test_a_process_that_died_while_idle_is_replaced(pool: ProcessPool) -> None:
    call(pool, OLD)
    (victim,) = running()
    psutil.Process(victim).kill()
    os.waitid(os.P_PID, victim, os.WEXITED | os.WNOWAIT)  # it is dead, and the pool does not know

    call(pool, OLD)

    assert running() != [victim]
    assert len(running()) == 1


def test_a_bundle_that_nobody_uses_goes_with_its_process(tmp_path: Path) -> None:
    pool = ProcessPool(tmp_path, idle_s=0.5)

    call(pool, OLD)

    assert wait_until(lambda: not running())
    assert wait_until(lambda: list(tmp_path.iterdir()) == [])
    call(pool, OLD)
    assert wait_until(lambda: not running())


def wait_until(is_so: Callable[[], bool], seconds: float = 20) -> bool:
    until = time.monotonic() + seconds
    while not (result := is_so()) and time.monotonic() < until:
        time.sleep(0.05)
    return result
