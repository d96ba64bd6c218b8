"""Lets a run die at its n-th side effect, for n = 1, 2, …; then readers look, and the next run has to heal everything.

A process of its own, because it forks for every case: `python crashes.py SCENARIO SETTINGS.json FOLDER HOW COUNT`
prints a line of JSON a case. SCENARIO is a module `crash_…` beside this one. HOW is `points` (every COUNT-th one:
before the effect, with half of it done, and after the last), `kill` (-9, at COUNT seeded moments) or `pause` (stopped
at every COUNT-th point, until a rival is done, then continued). The parent never computes: Polars' threads do not
survive a fork.
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
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar

from side_effects import listen

from headrace import failpoints
from headrace.errors import HeadraceError
from headrace.storage import git

T = TypeVar("T")
REFUSED = 3
"""Exit code of a process that was told why not."""

PATIENCE_S = 8.0
"""A rival that takes longer waits for the one that is stopped."""

Seen = dict[str, object]


class Case(Protocol):
    """The old state, in a place of its own, where a run may die."""

    def run(self) -> object:
        """What leads from the old state to the new, and is run again after a crash."""

    def seen(self) -> Seen:
        """What readers see; each item must be the old or the new. Raises where it contradicts itself."""

    def shown(self) -> Seen:
        """What the next run leaves, equal to what an undisturbed one does."""


class Contested(Case, Protocol):
    """A case in which somebody else may be at work too."""

    def rival(self) -> object:
        """What another attempt does meanwhile, to its end; with other inputs, so that one can tell them apart."""

    def settled(self, *, first: bool, second: bool) -> None:
        """Hold what is there to who said that it succeeded: the paused one, the rival. Raises if one of them lied."""


class Scenario(Protocol):
    """How a case comes about."""

    def prepare(self) -> None:
        """Make the old state, once, and whatever the run has to deal with."""

    def case(self, name: str) -> Case:
        """The old state, once more."""

    def over(self, name: str) -> None:
        """The case is not needed any more."""


class FailedError(Exception):
    """A process of its own failed; its stack trace."""


def start(work: Callable[[], object]) -> int:
    """A process that does `work`, and exits with 0, `REFUSED` after a known error, or 1 after its stack trace."""
    process = os.fork()
    if not process:
        try:
            work()
            os._exit(0)
        except HeadraceError as error:
            os.write(2, f"refused: {error}\n".encode())
            os._exit(REFUSED)
        except BaseException:  # noqa: BLE001  whatever it was, the parent is told
            traceback.print_exc()
            os._exit(1)
    return process


def wait(process: int) -> int:
    """Exit code of the process."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def ask(work: Callable[[], T]) -> T:
    """What a process of its own makes of `work`."""
    read, write = os.pipe()

    def tell() -> None:
        os.close(read)
        with os.fdopen(write, "wb") as out:
            try:
                pickle.dump((work(), ""), out)
            except BaseException:  # noqa: BLE001  whatever it was, the parent is told
                pickle.dump((None, traceback.format_exc()), out)

    process = start(tell)
    os.close(write)
    with os.fdopen(read, "rb") as told:
        content = told.read()
    if wait(process) or not content:
        raise FailedError("it died")
    answer: tuple[T, str] = pickle.loads(content)  # noqa: S301  our own child
    if answer[1]:
        raise FailedError(answer[1])
    return answer[0]


def counted(case: Case) -> tuple[list[tuple[str, bool]], list[str], float]:
    """The points that an undisturbed run passes, what it did outside of any, and the seconds it took."""
    outside = listen()
    began = time.monotonic()
    failpoints.enable(failpoints.NEVER)
    case.run()
    return failpoints.hits(), outside, time.monotonic() - began


def crash(case: Case, number: int, mode: failpoints.Mode) -> None:
    """Run until the n-th failpoint."""
    failpoints.enable(number, mode)
    case.run()


def aftermath(case: Case) -> tuple[Seen, Seen]:
    """What readers see after a death, and what the next run leaves."""
    seen = case.seen()
    time.sleep(git.DEAD_AFTER_S)  # else a lock that was left here is too young to be taken for dead
    case.run()
    return seen, case.shown()


def mixed(seen: Mapping[str, object], old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """What is neither as it was nor as it is to be."""
    names = sorted({*seen, *old, *new})
    return [name for name in names if seen.get(name) not in (old.get(name), new.get(name))]


def plan(points: list[tuple[str, bool]], every: int) -> list[tuple[int, failpoints.Mode]]:
    """Where to die: before each point, with half of it done, and after the last: after another is before the next."""
    numbered = list(enumerate(points, start=1))
    wanted: list[tuple[int, failpoints.Mode]] = [(at, "before") for at, _ in numbered]
    wanted += [(at, "half") for at, (_, can_be_half) in numbered if can_be_half]
    wanted += [(len(points), "after")]
    return wanted[:: every or 1]


def rehearse(scenario: Scenario, how: str, count: int) -> Iterator[dict[str, object]]:
    """The undisturbed run, then a line for each case."""
    ask(scenario.prepare)
    calm = ask(lambda: scenario.case("calm"))
    old = ask(calm.seen)
    points, outside, seconds = ask(lambda: counted(calm))
    new, wanted = ask(calm.seen), ask(calm.shown)
    scenario.over("calm")
    yield {"points": [name for name, _ in points], "outside": outside, "differ": mixed(old, new, new)}

    def case(name: str, end: Callable[[Case], int], **told: object) -> dict[str, object]:
        here = ask(lambda: scenario.case(name))
        code = end(here)
        try:
            seen, shown = ask(lambda: aftermath(here))
            after = {"mixed": mixed(seen, old, new), "other": mixed(shown, wanted, wanted), "failed": ""}
        except FailedError as failed:
            after = {"mixed": [], "other": [], "failed": str(failed)}
        scenario.over(name)
        return {**told, "died": code in (failpoints.KILLED, -signal.SIGKILL), **after}

    if how == "pause":
        for at in range(1, len(points) + 1, count):
            yield contest(scenario, at)
        return
    if how == "kill":
        chance = random.Random(7)  # noqa: S311  a moment, no secret
        moments = [chance.uniform(0.0, 1.2 * seconds) for _ in range(count)]
        yield from (case(f"moment-{at}", lambda here, s=s: killed(here, s), at=s) for at, s in enumerate(moments))  # type: ignore[misc]
        return
    for at, mode in plan(points, count):
        name = f"{at}-{mode}"
        yield case(name, lambda here, at=at, mode=mode: wait(start(lambda: crash(here, at, mode))), at=at, mode=mode)  # type: ignore[misc]


def contest(scenario: Scenario, at: int) -> dict[str, object]:
    """A run is stopped at a point, another comes and goes, the first goes on."""
    here = ask(lambda: scenario.case(f"{at}-pause"))
    process = start(lambda: crash(here, at, "pause"))
    _, status = os.waitpid(process, os.WUNTRACED)
    rival = start(here.rival)  # type: ignore[attr-defined]
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and not os.waitid(os.P_PID, rival, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        time.sleep(0.02)
    os.kill(process, signal.SIGCONT)
    first, second = wait(process), wait(rival)
    try:
        ask(lambda: here.settled(first=first == 0, second=second == 0))  # type: ignore[attr-defined]
        failed = "" if {first, second} <= {0, REFUSED} else "an error that nobody knows"
    except FailedError as error:
        failed = str(error)
    scenario.over(f"{at}-pause")
    told = {"at": at, "died": os.WIFSTOPPED(status), "first": first, "second": second}
    return {**told, "mixed": [], "other": [], "failed": failed}


def killed(case: Case, seconds: float) -> int:
    """Exit code of a run that was killed after that time."""
    process = start(case.run)
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    return wait(process)


def main(module: str, settings: str, folder: str, how: str, count: str) -> None:
    """Print a line for each case."""
    git.DEAD_AFTER_S = 0.05
    told: dict[str, Any] = json.loads(Path(settings).read_text())
    scenario: Scenario = import_module(module).scenario(Path(folder), **told)
    for found in rehearse(scenario, how, int(count)):
        print(json.dumps(found), flush=True)  # noqa: T201
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
