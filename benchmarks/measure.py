"""The harness of the benchmarks: runs contenders in turns, takes medians, and reports costs, ratios and targets.

Contenders take turns within one run, in alternating order, so that load on the machine affects all of them alike. CPU
seconds (user and system) are what counts: those of the contender with all its descendants, and those of the servers
that it uses. Wall time and peak memory are reported beside them. This module imports nothing heavy, because a child's
peak memory starts with its parent's.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
PEERS = Path(os.environ.get("HEADRACE_BENCH_PEERS", REPOSITORY / ".venv-bench"))
"""The environment of peers that Headrace does not depend on: `make bench` creates it."""

SERVER_PIDS: list[int] = []
"""The servers whose CPU is counted: see `counted_servers`."""


@dataclass(frozen=True)
class Cost:
    """Cost of a run, or the median of several.

    Attributes:
        cpu_s: CPU seconds of the program and its descendants.
        wall_s: Wall time.
        peak_mb: Peak memory of the largest process; 0 if it is not known, because a child starts with its parent's.
        server_s: CPU seconds of the servers meanwhile.
        runs: Number of runs.
        spread_s: The least and the most CPU seconds of a run, client and server.
    """

    cpu_s: float
    wall_s: float
    peak_mb: float
    server_s: float = 0.0
    runs: int = 1
    spread_s: tuple[float, float] | None = None

    @property
    def total_s(self) -> float:
        """CPU seconds of client and server."""
        return self.cpu_s + self.server_s


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


@contextmanager
def counted_servers(pids: Iterable[int]) -> Iterator[None]:
    """Count the CPU of these servers in every measurement of the block."""
    added = list(pids)
    SERVER_PIDS.extend(added)
    try:
        yield
    finally:
        for pid in added:
            SERVER_PIDS.remove(pid)


def server_cpu_s() -> float:
    """CPU seconds of the counted servers so far."""
    return sum(map(tree_cpu_s, SERVER_PIDS))


def tree_cpu_s(pid: int) -> float:
    """CPU seconds of a process and its descendants so far, including those that have ended."""
    seconds = 0.0
    head = psutil.Process(pid)
    for process in (head, *head.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds += _own_cpu_s(process.pid, times) + times.children_user + times.children_system
    return seconds


def _own_cpu_s(pid: int, times: Any) -> float:  # noqa: ANN401  a named tuple of psutil
    """CPU seconds of a process: `cpu_times` has ticks of 10 ms, the process's clock on Linux has nanoseconds."""
    if sys.platform == "linux":
        with suppress(OSError):
            return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3); 2 is CPUCLOCK_SCHED
    return float(times.user + times.system)


def run_once(contender: Contender) -> Cost:
    """Run the program. A failure ends the benchmark and prints the program's output."""
    contender.setup()
    # An installed package has its bytecode; without it, every run would compile all modules.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryFile() as output:
        server_s, started_at = server_cpu_s(), time.monotonic()
        process = subprocess.Popen(
            [str(part) for part in contender.command],
            cwd=contender.folder,
            env={**inherited, **contender.env},
            stdout=output,
            stderr=output,
        )
        _, status, used = os.wait4(process.pid, 0)
        wall, server_s = time.monotonic() - started_at, server_cpu_s() - server_s
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            sys.exit(f"{contender.name} failed with {process.returncode}:\n{output.read().decode()[-4000:]}")
    inherited_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    peak_mb = used.ru_maxrss / 1024
    return Cost(used.ru_utime + used.ru_stime, wall, peak_mb if peak_mb > inherited_mb else 0.0, server_s)


def measure_call(work: Callable[[], object]) -> Cost:
    """Cost of a call in this process and in the programs that it runs."""
    server_s, wall, cpu, children = server_cpu_s(), time.monotonic(), time.process_time(), _children_cpu_s()
    work()
    cpu_s = time.process_time() - cpu + _children_cpu_s() - children
    wall_s = time.monotonic() - wall
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Cost(cpu_s, wall_s, peak_mb, server_cpu_s() - server_s)


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_interleaved(contenders: Sequence[Contender], repeats: int) -> dict[str, Cost]:
    """Run each contender `repeats` times, in turns of alternating order; name → median cost."""
    calls = {contender.name: (lambda contender=contender: run_once(contender)) for contender in contenders}
    return measure_interleaved(calls, repeats)


def measure_interleaved(calls: Mapping[str, Callable[[], Cost]], repeats: int) -> dict[str, Cost]:
    """Call each `repeats` times, in turns of alternating order; name → median of the costs that it returns."""
    runs: dict[str, list[Cost]] = {name: [] for name in calls}
    for turn in range(repeats):
        for name in list(calls)[:: -1 if turn % 2 else 1]:
            runs[name].append(calls[name]())
    return {name: median_cost(costs) for name, costs in runs.items()}


def median_cost(costs: Iterable[Cost]) -> Cost:
    """The median of each figure, and the range of the CPU seconds."""
    runs = list(costs)
    cpu_s, wall_s, peak_mb, server_s = (
        median(getattr(cost, name) for cost in runs) for name in ("cpu_s", "wall_s", "peak_mb", "server_s")
    )
    totals = [cost.total_s for cost in runs]
    return Cost(cpu_s, wall_s, peak_mb, server_s, len(runs), (min(totals), max(totals)))


def total_cost(costs: Iterable[Cost]) -> Cost:
    """The cost of several programs, one after the other."""
    parts = list(costs)
    cpu_s, wall_s, server_s = (sum(getattr(cost, name) for cost in parts) for name in ("cpu_s", "wall_s", "server_s"))
    return Cost(cpu_s, wall_s, max(cost.peak_mb for cost in parts), server_s)


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

    @property
    def status(self) -> str:
        """The outcome in a word."""
        return "met" if self.is_met else "missed"


@dataclass
class Section:
    """What was measured under one title.

    Attributes:
        title: What was measured.
        reference: The contender that the ratios of the table refer to.
        costs: Contender → its cost.
        targets: Ratios with a limit.
        figures: What → a figure with its unit: a ratio without a limit, or a cost per unit of work.
        notes: Sentences.
    """

    title: str
    reference: str = ""
    costs: dict[str, Cost] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)
    figures: dict[str, tuple[float, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def ratio(self, name: str) -> float:
        """CPU seconds of a contender by those of the reference."""
        return self.costs[name].total_s / self.costs[self.reference].total_s


class Report:
    """Tables, targets and figures, printed as text at once; as JSON, at the end, to standard output."""

    def __init__(self, name: str, *, as_json: bool) -> None:
        self.name = name
        self.as_json = as_json
        self.sections: list[Section] = []
        self.not_checked: dict[str, str] = {}
        self.started_at = time.monotonic()

    def section(self, title: str) -> None:
        """Begin a section without a table."""
        self.sections.append(Section(title))
        self._print_line(f"\n{title}")

    def table(self, title: str, costs: Mapping[str, Cost], reference: str) -> None:
        """Begin a section with a table; ratios are of CPU seconds, client and server, to those of `reference`."""
        section = Section(title, reference, dict(costs))
        self.sections.append(section)
        width = max(map(len, costs))
        self._print_line(f"\n{title}\n  {'':{width}}   CPU s  server    least to most  wall s  peak MB  ratio")
        for name, cost in costs.items():
            spread = "{:.2f} to {:.2f}".format(*(cost.spread_s or (cost.total_s, cost.total_s)))
            line = f"{cost.cpu_s:7.2f} {cost.server_s:7.2f} {spread:>16} {cost.wall_s:7.2f} {cost.peak_mb:8.0f}"
            self._print_line(f"  {name:{width}} {line} {section.ratio(name):6.2f}")

    def target(self, what: str, ratio: float, at_most: float) -> None:
        """Compare a ratio with its limit."""
        target = Target(what, ratio, at_most)
        self.sections[-1].targets.append(target)
        self._print_line(f"  {target.status}: {what}: {ratio:.3g}, at most {at_most:.3g}")

    def figure(self, what: str, value: float, unit: str = "") -> None:
        """Add a figure without a limit."""
        self.sections[-1].figures[what] = (value, unit)
        self._print_line(f"  {what}: {format_figure(value)} {unit}".rstrip())

    def note(self, text: str) -> None:
        """Add a sentence."""
        self.sections[-1].notes.append(text)
        self._print_line(f"  {text}")

    def leave_out(self, what: str, reason: str) -> None:
        """Say what is not checked here, and why."""
        self.not_checked[what] = reason
        self._print_line(f"  not checked here: {what}: {reason}")

    def end(self) -> None:
        """Print the JSON, if requested."""
        if self.as_json:
            print(json.dumps(self.to_dict()))

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        sections = [
            {
                **asdict(section),
                "targets": [{**asdict(target), "status": target.status} for target in section.targets],
            }
            for section in self.sections
        ]
        wall_s = round(time.monotonic() - self.started_at, 1)
        return {"name": self.name, "wall_s": wall_s, "sections": sections, "not_checked": self.not_checked}

    def _print_line(self, line: str) -> None:
        print(line, file=sys.stderr if self.as_json else sys.stdout, flush=True)


def format_figure(value: float) -> str:
    """Three digits, and a separator of thousands."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004


def create_parser(about: str, *, large: str = "") -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has.

    Args:
        about: What the benchmark measures.
        large: What `--full` adds; empty if there is one size only.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help=large or "accepted, and the same: there is one size only")
    parser.add_argument("--json", action="store_true", help="JSON on standard output; the text on standard error")
    parser.add_argument("--repeats", type=positive, default=3, help="runs of each contender (default: 3)")
    return parser


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError("expected at least 1")
    return int(text)
