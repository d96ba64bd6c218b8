"""Injects crashes: a run dies at its n-th side effect, for n = 1, 2, …; readers look, then one more run must recover.

Runs as a process of its own, because it forks for each case: `python crash_harness.py SCENARIO SETTINGS.json FOLDER
INTERRUPTION COUNT` prints one line of JSON per case. SCENARIO is a module `crash_…` beside this one. INTERRUPTION is
`points` (crash at every COUNT-th position: before a side effect, with half of it done, and after the last one), `kill`
(`kill -9` at COUNT seeded times) or `pause` (stop at every COUNT-th failpoint until a concurrent writer has finished,
then continue). The parent process computes nothing, because Polars' threads do not survive a fork.
"""

import json
import os
import pickle
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar

from side_effects import record_unguarded_effects

from headrace import failpoints
from headrace.errors import HeadraceError
from headrace.storage import git

T = TypeVar("T")
EXIT_REJECTED = 3
"""Exit code of a process that ended with a `HeadraceError`."""

CONCURRENT_TIMEOUT_S = 8.0
"""A concurrent writer that takes longer is waiting for the run that is paused, which then continues."""

State = dict[str, object]
"""Name of something that readers or the next run can observe → its value."""


class CrashCase(Protocol):
    """The old state, in a place of its own, in which a run may crash."""

    def run(self) -> object:
        """Lead from the old state to the new one. It is run again after a crash."""

    def read_visible_state(self) -> State:
        """Read what readers see; each item must be old or new. Raises if the state contradicts itself."""

    def read_final_state(self) -> State:
        """Read what the next run leaves, which must equal what an undisturbed run leaves."""


class ContendedCase(CrashCase, Protocol):
    """A case in which a concurrent writer may be at work, too."""

    def run_concurrent_writer(self) -> object:
        """Run another writer to its end, with other inputs, so that the results can be distinguished."""

    def check_consistent(self, *, paused_succeeded: bool, concurrent_succeeded: bool) -> None:
        """Compare the state with the exit codes of both writers. Raises if one of them reported a wrong outcome."""


class CrashScenario(Protocol):
    """Makes the cases."""

    def prepare(self) -> None:
        """Create the old state, once, and the changes that the run has to process."""

    def new_case(self, name: str) -> CrashCase:
        """Create a case in the old state."""

    def remove_case(self, name: str) -> None:
        """Delete a case."""


class ChildFailedError(Exception):
    """A child process failed; the message is its stack trace."""


def fork_process(work: Callable[[], object]) -> int:
    """Run `work` in a child, which exits with 0, `EXIT_REJECTED`, or 1 after a stack trace; its process number."""
    process = os.fork()
    if not process:
        try:
            work()
            os._exit(0)
        except HeadraceError as error:
            os.write(2, f"rejected: {error}\n".encode())
            os._exit(EXIT_REJECTED)
        except BaseException:  # noqa: BLE001  the parent must see any error
            traceback.print_exc()
            os._exit(1)
    return process


def wait_for_exit_code(process: int) -> int:
    """Wait for a child; its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def run_in_child(work: Callable[[], T]) -> T:
    """Run `work` in a child, and return its result. What the child imported, later children find imported.

    Raises:
        ChildFailedError: It failed.
    """
    read, write = os.pipe()
    known = set(sys.modules)

    def send_result() -> None:
        os.close(read)
        with os.fdopen(write, "wb") as pipe:
            try:
                pickle.dump((work(), "", sorted(set(sys.modules) - known)), pipe)
            except BaseException:  # noqa: BLE001  the parent must see any error
                pickle.dump((None, traceback.format_exc(), []), pipe)

    process = fork_process(send_result)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        content = pipe.read()
    if wait_for_exit_code(process) or not content:
        raise ChildFailedError("the process died")
    result: tuple[T, str, list[str]] = pickle.loads(content)  # noqa: S301  our own child
    if result[1]:
        raise ChildFailedError(result[1])
    preload(result[2])
    return result[0]


def preload(modules: list[str]) -> None:
    """Import modules that a child had to import; those that a library makes at run time are left to the children."""
    for name in modules:
        with suppress(ImportError):
            import_module(name)


def run_undisturbed(case: CrashCase) -> tuple[list[tuple[str, bool]], list[str], float]:
    """Run without a crash; the failpoints it passes, its side effects outside of failpoints, and its seconds."""
    unguarded = record_unguarded_effects()
    started_at = time.monotonic()
    failpoints.enable(failpoints.NEVER)
    case.run()
    return failpoints.hits(), unguarded, time.monotonic() - started_at


def run_to_failpoint(case: CrashCase, number: int, mode: failpoints.Mode) -> None:
    """Run until the n-th failpoint."""
    failpoints.enable(number, mode)
    case.run()


def recover(case: CrashCase) -> tuple[State, State]:
    """Run again after a crash; the visible state before that run, and the final state after it."""
    visible = case.read_visible_state()
    time.sleep(git.STALE_AFTER_S)  # a younger lock of the crashed run would not count as stale
    case.run()
    return visible, case.read_final_state()


def inconsistent_items(state: Mapping[str, object], old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Names of the items whose value is neither the old nor the new one."""
    names = sorted({*state, *old, *new})
    return [name for name in names if state.get(name) not in (old.get(name), new.get(name))]


def crash_positions(points: list[tuple[str, bool]], every: int) -> list[tuple[int, failpoints.Mode]]:
    """Where to crash: before each failpoint, with half of its effect done, and after the last one.

    After any other failpoint is before the next one.
    """
    numbered = list(enumerate(points, start=1))
    positions: list[tuple[int, failpoints.Mode]] = [(at, "before") for at, _ in numbered]
    positions += [(at, "half") for at, (_, can_be_half) in numbered if can_be_half]
    positions += [(len(points), "after")]
    return positions[:: every or 1]


def inject_crashes(scenario: CrashScenario, interruption: str, count: int) -> Iterator[dict[str, object]]:
    """Results of the undisturbed run, then of each case."""
    run_in_child(scenario.prepare)
    undisturbed = run_in_child(lambda: scenario.new_case("undisturbed"))
    old = run_in_child(undisturbed.read_visible_state)
    points, unguarded, seconds = run_in_child(lambda: run_undisturbed(undisturbed))
    new, final = run_in_child(undisturbed.read_visible_state), run_in_child(undisturbed.read_final_state)
    scenario.remove_case("undisturbed")
    changed = inconsistent_items(old, new, new)
    yield {"failpoints": [name for name, _ in points], "unguarded_effects": unguarded, "changed": changed}

    def crash_once(name: str, interrupt: Callable[[CrashCase], int], **position: object) -> dict[str, object]:
        case = run_in_child(lambda: scenario.new_case(name))
        exit_code = interrupt(case)
        result: dict[str, object] = {"inconsistent": [], "not_recovered": [], "error": ""}
        try:
            visible, recovered = run_in_child(lambda: recover(case))
            result["inconsistent"] = inconsistent_items(visible, old, new)
            result["not_recovered"] = inconsistent_items(recovered, final, final)
        except ChildFailedError as error:
            result["error"] = str(error)
        scenario.remove_case(name)
        return {**position, "interrupted": exit_code in (failpoints.KILLED, -signal.SIGKILL), **result}

    if interruption == "pause":
        for at in range(1, len(points) + 1, count):
            yield pause_once(scenario, at)
        return
    if interruption == "kill":
        chance = random.Random(7)  # noqa: S311  a moment, no secret
        delays_s = [chance.uniform(0.0, 1.2 * seconds) for _ in range(count)]
        for number, delay_s in enumerate(delays_s):
            yield crash_once(f"kill-{number}", lambda case, s=delay_s: kill_after(case, s), at=delay_s)  # type: ignore[misc]
        return
    for at, mode in crash_positions(points, count):
        yield crash_once(
            f"{at}-{mode}",
            lambda case, at=at, mode=mode: wait_for_exit_code(fork_process(lambda: run_to_failpoint(case, at, mode))),  # type: ignore[misc]
            at=at,
            mode=mode,
        )


def pause_once(scenario: CrashScenario, at: int) -> dict[str, object]:
    """Stop a run at a failpoint, run a concurrent writer, let the first run continue, and check the outcome."""
    case = run_in_child(lambda: scenario.new_case(f"{at}-pause"))
    paused = fork_process(lambda: run_to_failpoint(case, at, "pause"))
    _, status = os.waitpid(paused, os.WUNTRACED)
    concurrent = fork_process(case.run_concurrent_writer)  # type: ignore[attr-defined]
    deadline = time.monotonic() + CONCURRENT_TIMEOUT_S
    while time.monotonic() < deadline and not os.waitid(os.P_PID, concurrent, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        time.sleep(0.02)
    os.kill(paused, signal.SIGCONT)
    paused_code, concurrent_code = wait_for_exit_code(paused), wait_for_exit_code(concurrent)
    succeeded = {"paused_succeeded": paused_code == 0, "concurrent_succeeded": concurrent_code == 0}
    try:
        run_in_child(lambda: case.check_consistent(**succeeded))  # type: ignore[attr-defined]
        error = "" if {paused_code, concurrent_code} <= {0, EXIT_REJECTED} else "a writer failed with an unknown error"
    except ChildFailedError as failure:
        error = str(failure)
    scenario.remove_case(f"{at}-pause")
    return {
        "at": at,
        "interrupted": os.WIFSTOPPED(status),
        "paused_exit_code": paused_code,
        "concurrent_exit_code": concurrent_code,
        "inconsistent": [],
        "not_recovered": [],
        "error": error,
    }


def kill_after(case: CrashCase, delay_s: float) -> int:
    """Kill a run after that time; its exit code."""
    process = fork_process(case.run)
    time.sleep(delay_s)
    os.kill(process, signal.SIGKILL)
    return wait_for_exit_code(process)


def main(module: str, settings_path: str, folder: str, interruption: str, count: str) -> None:
    """Print one line of JSON per case."""
    git.STALE_AFTER_S = 0.05
    settings: dict[str, Any] = json.loads(Path(settings_path).read_text())
    scenario: CrashScenario = import_module(module).scenario(Path(folder), **settings)
    for result in inject_crashes(scenario, interruption, int(count)):
        print(json.dumps(result), flush=True)  # noqa: T201
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
