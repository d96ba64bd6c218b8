"""The harness of the benchmarks: runs programs in child processes, interleaved and repeated, and takes median costs.

Contenders are interleaved within one run, so that load on the machine affects all of them alike. CPU seconds (user and
system, of the child and all its descendants) are what counts; wall time is reported beside them. This module imports
nothing heavy, because a child's peak memory starts with its parent's.
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
    """Cost of one run of a program."""

    cpu_s: float
    wall_s: float
    peak_mb: float


@dataclass(frozen=True)
class Contender:
    """A program that does the job.

    Attributes:
        name: Its name in the table.
        command: The program and its arguments.
        folder: Where it runs.
        env: Environment variables in addition to ours.
        setup: Prepares each run; its cost is not counted.
    """

    name: str
    command: Sequence[str]
    folder: Path = REPOSITORY
    env: Mapping[str, str] = field(default_factory=dict)
    setup: Callable[[], object] = lambda: None


def run_once(contender: Contender) -> Cost:
    """Run the program. A failure ends the benchmark and prints the program's output."""
    contender.setup()
    # An installed package has its bytecode; without it, every run would compile all modules.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryFile() as output:
        started_at = time.monotonic()
        process = subprocess.Popen(
            [str(part) for part in contender.command],
            cwd=contender.folder,
            env={**inherited, **contender.env},
            stdout=output,
            stderr=output,
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - started_at
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            sys.exit(f"{contender.name} failed with {process.returncode}:\n{output.read().decode()[-4000:]}")
    return Cost(used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1024)


def run_interleaved(contenders: Sequence[Contender], repeats: int) -> dict[str, Cost]:
    """Run the contenders one after the other, `repeats` times; name → median cost."""
    runs: dict[str, list[Cost]] = {contender.name: [] for contender in contenders}
    for _ in range(repeats):
        for contender in contenders:
            runs[contender.name].append(run_once(contender))
    return {name: median_cost(costs) for name, costs in runs.items()}


def median_cost(costs: Iterable[Cost]) -> Cost:
    """The median of each figure."""
    found = list(costs)
    return Cost(*(median(getattr(cost, name) for cost in found) for name in ("cpu_s", "wall_s", "peak_mb")))


def total_cost(costs: Iterable[Cost]) -> Cost:
    """The cost of several programs, one after the other."""
    found = list(costs)
    cpu, wall = sum(cost.cpu_s for cost in found), sum(cost.wall_s for cost in found)
    return Cost(cpu, wall, max(cost.peak_mb for cost in found))


@dataclass(frozen=True)
class Target:
    """A ratio and its upper limit."""

    what: str
    ratio: float
    at_most: float

    @property
    def is_met(self) -> bool:
        """Whether the ratio is within its limit."""
        return self.ratio <= self.at_most


class Report:
    """Tables and targets, printed as text at once, or as JSON at the end."""

    def __init__(self, name: str, *, as_json: bool) -> None:
        self.name = name
        self.as_json = as_json
        self.tables: dict[str, dict[str, Cost]] = {}
        self.targets: list[Target] = []
        self.notes: list[str] = []

    def table(self, title: str, costs: Mapping[str, Cost], reference: str) -> None:
        """Add a table; the ratio is that of CPU seconds to those of `reference`."""
        self.tables[title] = dict(costs)
        width = max(map(len, costs))
        self._print_line(f"\n{title}\n  {'':{width}}   CPU s  wall s  peak MB  ratio")
        for name, cost in costs.items():
            ratio = cost.cpu_s / costs[reference].cpu_s
            line = f"{cost.cpu_s:7.2f} {cost.wall_s:7.2f} {cost.peak_mb:8.0f} {ratio:6.2f}"
            self._print_line(f"  {name:{width}} {line}")

    def target(self, what: str, ratio: float, at_most: float) -> None:
        """Compare a ratio with its limit."""
        self.targets.append(Target(what, ratio, at_most))
        status = "met" if self.targets[-1].is_met else "MISSED"
        self._print_line(f"  {status}: {what}: {ratio:.3g}, at most {at_most:g}")

    def note(self, text: str) -> None:
        """Add a fact that is not a ratio."""
        self.notes.append(text)
        self._print_line(f"  {text}")

    def end(self) -> None:
        """Print the JSON, if requested."""
        if self.as_json:
            tables = {
                title: {name: asdict(cost) for name, cost in costs.items()} for title, costs in self.tables.items()
            }
            targets = [{**asdict(target), "met": target.is_met} for target in self.targets]
            print(json.dumps({"name": self.name, "tables": tables, "targets": targets, "notes": self.notes}))

    def _print_line(self, line: str) -> None:
        if not self.as_json:
            print(line, flush=True)


def create_parser(about: str) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--full", action="store_true", help="the large sizes too")
    parser.add_argument("--json", action="store_true", help="print JSON at the end, and nothing else")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each contender (default: 3)")
    return parser
