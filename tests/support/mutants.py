"""Mutation testing: make small mistakes in a copy of the tree, one at a time, and see whether the related tests notice.

`make mutants` runs it. A mutant is *killed* if a test fails or hangs because of it, and *survives* if all tests that
run the mutated line pass: then a behaviour is missing in the tests, or the line does nothing. Which tests belong to
which modules, and which survivors are accepted and why, is in `tests/mutants.toml`. The checkout is only read.

    make mutants                                                     # 63 mutants, the sample of the slow lane
    make mutants MUTANTS_ARGS='--seed 7 --number 100'                # another sample
    make mutants MUTANTS_ARGS='--groups release,label'               # of these groups only
    make mutants MUTANTS_ARGS='--at headrace/publish/verification.py:160'   # all mutants of a file or line

A sample depends on the seed and on the mutants themselves, not on line numbers: a change of one function leaves the
mutants of all others in it.
"""

import argparse
import difflib
import json
import os
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from shutil import copyfile

from coverage import CoverageData
from mutators import Mutant, find_mutants

SETTINGS = Path("tests/mutants.toml")
MARKS = "not server and not slow_lane and not faults"
BASELINE_LIMIT_S = 900
STARTUP_S = 30
"""Time of a test run beside its tests: imports, collection, fixtures of a module. A mutant that takes longer hangs."""

TARGET = 0.9


@dataclass(frozen=True)
class Group:
    """Modules, and the tests that specify them.

    Attributes:
        name: Its name on the command line.
        modules: Globs below the root.
        tests: Files and folders below the root.
        marks: Which of them, by pytest's markers.
    """

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]
    marks: str = MARKS


@dataclass(frozen=True)
class Accepted:
    """A survivor that need not be killed.

    Attributes:
        file: The module.
        before: The line as it is, without indentation.
        after: The line as the mutant has it.
        reason: Why no test should notice.
    """

    file: str
    before: str
    after: str
    reason: str


@dataclass(frozen=True)
class Baseline:
    """What the tests of a group do without a mutation.

    Attributes:
        seconds: Test → how long it takes; only tests that pass.
        failing: Tests that fail without a mutation, and so say nothing.
        lines: Module → line → tests that run it.
    """

    seconds: Mapping[str, float]
    failing: Sequence[str]
    lines: Mapping[str, Mapping[int, frozenset[str]]]

    def related_tests(self, mutant: Mutant, budget_s: float) -> list[str]:
        """The tests that run the mutated line, the fastest first, as many as the budget allows.

        A line of a module or a class runs at import: then the tests that run anything of the module.
        """
        lines = self.lines.get(mutant.file, {})
        wanted = [lines.get(line, frozenset()) for line in (mutant.lines if mutant.function else lines)]
        selected: list[str] = []
        total = 0.0
        for name in sorted(frozenset().union(*wanted) & self.seconds.keys(), key=lambda name: self.seconds[name]):
            total += self.seconds[name]
            if selected and total > budget_s:
                break
            selected.append(name)
        return selected


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant.

    Attributes:
        mutant: The mutant.
        tests: Number of tests that were run at most.
        result: `killed`, `timed out` or `survived`.
        reason: Why it may survive; empty if nobody said so.
    """

    mutant: Mutant
    tests: int
    result: str
    reason: str = ""

    @property
    def is_killed(self) -> bool:
        """Whether the tests noticed."""
        return self.result != "survived"


class Copy:
    """A copy of the tree, in which mutants are tried one after the other."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = root
        self.folder = folder
        self._time = 1_600_000_000
        for name in _files(root):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copyfile(root / name, target)
        # A repository, as some tests ask for what is tracked.
        git = ["git", "-C", str(folder), "-c", "user.name=mutants", "-c", "user.email=mutants@localhost"]
        for arguments in (("init",), ("add", "--force", "."), ("commit", "--no-verify", "--message", "As it is")):
            subprocess.run([*git, *arguments], check=True, capture_output=True)

    def pytest(self, arguments: Sequence[str], limit_s: float, **environment: str) -> int | None:
        """The exit status of pytest in the copy; None if it took too long."""
        paths = [str(self.folder), str(self.folder / "tests/support"), str(Path(__file__).parent)]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        command += ["--basetemp", f"{self.folder}.tmp", "--rootdir", str(self.folder)]
        variables = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(paths)}
        with (
            Path(f"{self.folder}.log").open("wb") as log,
            subprocess.Popen(
                command, cwd=self.folder, env=variables, stdout=log, stderr=log, start_new_session=True
            ) as process,
        ):
            try:
                return process.wait(limit_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return None

    def write(self, file: str, source: bytes) -> None:
        """Write a module, with a time of its own: Python compares times in seconds to reuse compiled code."""
        self._time += 10
        path = self.folder / file
        path.write_bytes(source)
        os.utime(path, (self._time, self._time))

    def measure(self, group: Group, modules: Iterable[str]) -> Baseline:
        """Run the tests of a group and record who runs which line.

        Raises:
            SystemExit: No test passes.
        """
        record, data = Path(f"{self.folder}.record"), Path(f"{self.folder}.coverage")
        settings = Path(f"{self.folder}.coveragerc")
        settings.write_text("[run]\nbranch = false\nsource = .\n")
        coverage = ["--cov", "--cov-context=test", "--cov-report=", f"--cov-config={settings}"]
        arguments = [*group.tests, "-m", group.marks, *coverage, "-p", "mutants_recorder"]
        record.unlink(missing_ok=True)
        data.unlink(missing_ok=True)
        self.pytest(arguments, BASELINE_LIMIT_S, COVERAGE_FILE=str(data), MUTANTS_RECORD=str(record))
        seen = json.loads(record.read_text()) if record.exists() else {"seconds": {}, "failed": []}
        failed = set(seen["failed"])
        seconds = {name: time for name, time in seen["seconds"].items() if name not in failed}
        if not seconds:
            log = Path(f"{self.folder}.log").read_text(errors="replace")
            raise SystemExit(f"{group.name}: no test of {', '.join(group.tests)} passes. pytest says:\n{log[-3000:]}")
        return Baseline(seconds, sorted(failed), dict(_lines(CoverageData(str(data)), self.folder, modules)))

    def try_mutant(self, mutant: Mutant, tests: Sequence[str], limit_s: float) -> str:
        """What the tests say to the mutant; the copy is as before afterwards."""
        if not tests:
            return "survived"
        source = (self.root / mutant.file).read_bytes()
        self.write(mutant.file, mutant.apply(source))
        try:
            status = self.pytest(["-x", "--no-header", "--tb=no", "-m", "", *_by_file(tests)], limit_s)
        finally:
            self.write(mutant.file, source)
        return {None: "timed out", 0: "survived"}.get(status, "killed")


def _files(root: Path) -> list[str]:
    """Tracked files, and those that git does not ignore."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True).stdout.decode().split("\0")
    return sorted(name for name in set(listed) if name and (root / name).is_file())


def _by_file(tests: Sequence[str]) -> list[str]:
    """The tests of a file one after the other, so that it is set up once; files in the order of their first test."""
    files = list(dict.fromkeys(name.partition("::")[0] for name in tests))
    return sorted(tests, key=lambda name: files.index(name.partition("::")[0]))


def _lines(data: CoverageData, folder: Path, modules: Iterable[str]) -> Iterator[tuple[str, dict[int, frozenset[str]]]]:
    data.read()
    for name in modules:
        contexts = data.contexts_by_lineno(str(folder / name))
        yield (
            name,
            {line: frozenset(each.partition("|")[0] for each in seen if each) for line, seen in contexts.items()},
        )


def read_settings(root: Path) -> tuple[list[Group], list[Accepted]]:
    """The groups, and the survivors that are accepted."""
    settings = tomllib.loads((root / SETTINGS).read_text())
    groups = [
        Group(name, tuple(each["modules"]), tuple(each["tests"]), each.get("marks", MARKS))
        for name, each in settings["groups"].items()
    ]
    return groups, [Accepted(**each) for each in settings.get("accepted", ())]


def mutants_of(root: Path, group: Group) -> list[Mutant]:
    """All mutants of the modules of a group."""
    files = sorted({path for pattern in group.modules for path in root.glob(pattern) if path.is_file()})
    return [each for path in files for each in find_mutants(path.relative_to(root).as_posix(), path.read_bytes())]


def sample(mutants: Iterable[Mutant], number: int, seed: int) -> list[Mutant]:
    """As many of the mutants, of different lines, in an order that seed and mutant decide."""
    by_line: dict[tuple[str, int], Mutant] = {}
    for mutant in sorted(mutants, key=lambda each: each.rank(seed)):
        by_line.setdefault((mutant.file, mutant.line), mutant)
    return sorted(by_line.values(), key=lambda each: each.rank(seed))[:number]


def select(root: Path, groups: Sequence[Group], options: argparse.Namespace) -> dict[Group, list[Mutant]]:
    """Group → the mutants to try.

    Raises:
        SystemExit: There is none.
    """
    found = {group: mutants_of(root, group) for group in groups}
    if options.at:
        file, _, line = options.at.partition(":")
        chosen = {
            group: [each for each in mutants if each.file == file and (not line or int(line) in each.lines)]
            for group, mutants in found.items()
        }
    else:
        share, rest = divmod(options.number, len(groups))
        chosen = {
            group: sample(mutants, share + (place < rest), options.seed)
            for place, (group, mutants) in enumerate(found.items())
        }
    if not any(chosen.values()):
        raise SystemExit(f"No mutant of {options.at or ', '.join(group.name for group in groups)}: see `--help`.")
    return {group: mutants for group, mutants in chosen.items() if mutants}


def run(
    root: Path, chosen: Mapping[Group, Sequence[Mutant]], accepted: Sequence[Accepted], options: argparse.Namespace
) -> tuple[dict[Group, list[Outcome]], list[str]]:
    """Try the mutants, in as many copies as there are jobs; the outcomes, and tests that fail without a mutation."""
    reasons = {(each.file, each.before, each.after): each.reason for each in accepted}
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as folder:
        copies: SimpleQueue[Copy] = SimpleQueue()
        for number in range(options.jobs):
            copies.put(Copy(root, Path(folder) / str(number)))

        def measure(group: Group) -> Baseline:
            copy = copies.get()
            try:
                return copy.measure(group, sorted({each.file for each in chosen[group]}))
            finally:
                copies.put(copy)

        def attempt(group: Group, mutant: Mutant) -> Outcome:
            tests = baselines[group].related_tests(mutant, options.budget)
            limit_s = 3 * sum(baselines[group].seconds[name] for name in tests) + STARTUP_S
            copy = copies.get()
            try:
                result = copy.try_mutant(mutant, tests, limit_s)
            finally:
                copies.put(copy)
            reason = reasons.get((mutant.file, *mutant.changed_lines), "") if result == "survived" else ""
            outcome = Outcome(mutant, len(tests), result, reason)
            print(f"{'accepted' if reason else result:9} {mutant} ({len(tests)} tests)", flush=True)  # noqa: T201
            return outcome

        with ThreadPoolExecutor(options.jobs) as pool:
            baselines = dict(zip(chosen, pool.map(measure, chosen), strict=True))
            futures = {
                group: [pool.submit(attempt, group, each) for each in mutants] for group, mutants in chosen.items()
            }
            outcomes = {group: [future.result() for future in each] for group, each in futures.items()}
    return outcomes, sorted({name for baseline in baselines.values() for name in baseline.failing})


def report(outcomes: Mapping[Group, Sequence[Outcome]], failing: Sequence[str], options: argparse.Namespace) -> str:
    """The result for people, in Markdown."""
    every = [each for group in outcomes.values() for each in group]
    which = f"all mutants of `{options.at}`" if options.at else f"{len(every)} mutants, seed {options.seed}"
    lines = [
        "# Mutation testing",
        "",
        f"{which}; at most {options.budget:g} s of the tests that run the line.",
        "",
        "| modules | mutants | killed | survived | accepted | share killed |",
        "|---|---|---|---|---|---|",
        *(_table_row(group.name, each) for group, each in outcomes.items()),
        _table_row("**all**", every),
        "",
        f"Target: {TARGET:.0%} killed, {'met' if share_killed(every) >= TARGET else 'missed'}.",
    ]
    if failing:
        lines += ["", "Left out, as they do not pass without a mutation:", "", *(f"- `{name}`" for name in failing)]
    for title, is_wanted in (("Survivors", False), ("Accepted survivors", True)):
        survivors = [each for each in every if not each.is_killed and bool(each.reason) == is_wanted]
        if survivors:
            lines += ["", f"## {title}"]
            lines += [line for each in survivors for line in _survivor(each)]
    return "\n".join(lines) + "\n"


def _table_row(name: str, outcomes: Sequence[Outcome]) -> str:
    killed, accepted = sum(each.is_killed for each in outcomes), sum(bool(each.reason) for each in outcomes)
    survived = len(outcomes) - killed - accepted
    return f"| {name} | {len(outcomes)} | {killed} | {survived} | {accepted} | {share_killed(outcomes):.0%} |"


def share_killed(outcomes: Sequence[Outcome]) -> float:
    """Killed mutants of all; accepted ones count as survivors."""
    return sum(each.is_killed for each in outcomes) / len(outcomes)


def _survivor(outcome: Outcome) -> list[str]:
    mutant = outcome.mutant
    tests = f"related tests: {outcome.tests}, all pass" if outcome.tests else "no related test runs this line"
    title = f"`{mutant.file}:{mutant.line}` in `{mutant.function or 'the module'}`: {mutant.kind}; {tests}"
    before, after = mutant.changed_lines
    diff = [*difflib.ndiff([before], [after])] if "\n" not in before + after else [f"- {before}", f"+ {after}"]
    shown = [line.rstrip("\n") for line in diff if line.startswith(("-", "+"))]
    return ["", title, "", *([f"Accepted: {outcome.reason}", ""] if outcome.reason else []), "```diff", *shown, "```"]


def stale(root: Path, accepted: Iterable[Accepted]) -> list[Accepted]:
    """Accepted survivors of lines that are not there any more."""
    files = {each.file for each in accepted}
    text = {name: (root / name).read_text() if (root / name).exists() else "" for name in files}
    return [each for each in accepted if each.before not in text[each.file]]


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--number", type=int, default=63, metavar="N", help="mutants to try, shared among the groups (default: 63)")
    add("--seed", type=int, default=1, help="which sample (default: 1)")
    add("--groups", default="", metavar="A,B", help="only these groups of tests/mutants.toml (default: all)")
    add("--at", default="", metavar="FILE[:LINE]", help="all mutants of a module, or of a line of it, and no sample")
    add("--jobs", type=int, default=2, metavar="N", help="copies that are used at the same time (default: 2)")
    add("--budget", type=float, default=30, metavar="S", help="seconds of tests for each mutant (default: 30)")
    add("--at-least", type=float, default=0, metavar="SHARE", help="exit with 1 if fewer are killed, such as 0.8")
    add("--report", type=Path, metavar="FILE", help="where to write the report (default: print it)")
    add("--list", action="store_true", help="print the mutants, run nothing")
    add("--root", type=Path, default=Path(__file__).parents[2], help="the checkout (default: this one)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try a sample of mutants; the exit status."""
    options = parse_options(arguments)
    root = options.root.resolve()
    groups, accepted = read_settings(root)
    names = options.groups.split(",") if options.groups else [group.name for group in groups]
    if unknown := sorted({*names} - {group.name for group in groups}):
        raise SystemExit(f"No group {', '.join(unknown)} in {SETTINGS}: {', '.join(group.name for group in groups)}.")
    for each in stale(root, accepted):
        print(f"{SETTINGS}: {each.file} has no line `{each.before}` any more: remove it.", file=sys.stderr)  # noqa: T201
    chosen = select(root, [group for group in groups if group.name in names], options)
    if options.list:
        print("\n".join(str(each) for mutants in chosen.values() for each in mutants))  # noqa: T201
        return 0
    outcomes, failing = run(root, chosen, accepted, options)
    text = report(outcomes, failing, options)
    if options.report:
        options.report.write_text(text)
        print(f"Report: {options.report}")  # noqa: T201
    else:
        print(text)  # noqa: T201
    return int(share_killed([each for group in outcomes.values() for each in group]) < options.at_least)


if __name__ == "__main__":
    sys.exit(main())
