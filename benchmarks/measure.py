"""The harness of the benchmarks: programs in child processes, in turns, several times; medians of what they cost.

Contenders take turns within one run, so that a busy machine is as busy for each of them. CPU seconds (user and system,
of the child and all it started) are what counts; wall time stands beside them. It imports nothing heavy, because a
child's peak memory begins with its parent's.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Cost:
    """What one run of a program took."""

    cpu_s: float
    wall_s: float
    peak_mb: float


@dataclass(frozen=True)
class Contender:
    """A program that does the job.

    Attributes:
        name: What the table calls it.
        command: The program and its arguments.
        folder: Where it runs.
        env: What its environment has beyond ours.
        before: Puts things in place for each run; not counted.
    """

    name: str
    command: Sequence[str]
    folder: Path = REPOSITORY
    env: Mapping[str, str] = field(default_factory=dict)
    before: Callable[[], object] = lambda: None


def once(contender: Contender) -> Cost:
    """Run the program to its end; one that fails ends the benchmark, with what it said."""
    contender.before()
    with tempfile.TemporaryFile() as said:
        began = time.monotonic()
        process = subprocess.Popen(
            [str(part) for part in contender.command],
            cwd=contender.folder,
            env={**os.environ, **contender.env},
            stdout=said,
            stderr=said,
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            sys.exit(f"{contender.name} failed with {process.returncode}:\n{said.read().decode()[-4000:]}")
    return Cost(used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1024)


def in_turns(contenders: Sequence[Contender], repeats: int) -> dict[str, Cost]:
    """Name → median cost of `repeats` runs, the contenders one after the other in each round."""
    runs: dict[str, list[Cost]] = {contender.name: [] for contender in contenders}
    for _ in range(repeats):
        for contender in contenders:
            runs[contender.name].append(once(contender))
    return {name: middle(costs) for name, costs in runs.items()}


def middle(costs: Iterable[Cost]) -> Cost:
    """The median of each figure."""
    found = list(costs)
    return Cost(*(median(getattr(cost, name) for cost in found) for name in ("cpu_s", "wall_s", "peak_mb")))


def total(costs: Iterable[Cost]) -> Cost:
    """Several programs, one after the other."""
    found = list(costs)
    cpu, wall = sum(cost.cpu_s for cost in found), sum(cost.wall_s for cost in found)
    return Cost(cpu, wall, max(cost.peak_mb for cost in found))


@dataclass(frozen=True)
class Target:
    """A ratio, and what it may be at most."""

    what: str
    ratio: float
    at_most: float

    @property
    def is_met(self) -> bool:
        """Whether it is."""
        return self.ratio <= self.at_most


class Report:
    """Tables and targets, as they are measured: text at once, or JSON at the end."""

    def __init__(self, name: str, *, as_json: bool) -> None:
        self.name = name
        self.as_json = as_json
        self.tables: dict[str, dict[str, Cost]] = {}
        self.targets: list[Target] = []
        self.notes: list[str] = []

    def table(self, title: str, costs: Mapping[str, Cost], reference: str) -> None:
        """A table; the ratio is that of CPU seconds to `reference`."""
        self.tables[title] = dict(costs)
        width = max(map(len, costs))
        self._say(f"\n{title}\n  {'':{width}}   CPU s  wall s  peak MB  ratio")
        for name, cost in costs.items():
            ratio = cost.cpu_s / costs[reference].cpu_s
            line = f"{cost.cpu_s:7.2f} {cost.wall_s:7.2f} {cost.peak_mb:8.0f} {ratio:6.2f}"
            self._say(f"  {name:{width}} {line}")

    def target(self, what: str, ratio: float, at_most: float) -> None:
        """Hold a ratio against its target."""
        self.targets.append(Target(what, ratio, at_most))
        word = "met" if self.targets[-1].is_met else "MISSED"
        self._say(f"  {word}: {what}: {ratio:.3g}, at most {at_most:g}")

    def note(self, text: str) -> None:
        """A fact that is no ratio."""
        self.notes.append(text)
        self._say(f"  {text}")

    def end(self) -> None:
        """Print the JSON, if that was asked for."""
        if self.as_json:
            tables = {
                title: {name: asdict(cost) for name, cost in costs.items()} for title, costs in self.tables.items()
            }
            targets = [{**asdict(target), "met": target.is_met} for target in self.targets]
            print(json.dumps({"name": self.name, "tables": tables, "targets": targets, "notes": self.notes}))

    def _say(self, line: str) -> None:
        if not self.as_json:
            print(line, flush=True)


def options(about: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--full", action="store_true", help="the large sizes too")
    parser.add_argument("--json", action="store_true", help="print JSON at the end, and nothing else")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each contender (default: 3)")
    return parser
