"""Run the benchmarks, and write `RESULTS.md` from what they report: the page that the documentation refers to.

`make bench` runs all of them. Each report is kept as JSON in `.headrace/bench/`;
`python benchmarks/results.py retrieval online` runs two again and writes the page from all reports, and
`python benchmarks/results.py --no-run` only writes the page. A report is used as long as nothing that it measured has
changed since: the code, the packages, and the benchmark itself.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from measure import PEERS, REPOSITORY, format_figure, positive

SCRIPTS = (
    "increment",
    "scale",
    "transform",
    "ingest",
    "shapes",
    "commit",
    "cluster",
    "labeling",
    "retrieval",
    "correctness",
    "publish",
    "online",
    "maintenance",
)
REPORTS = REPOSITORY / ".headrace/bench"
PAGE = REPOSITORY / "benchmarks/RESULTS.md"
MEASURED = ("headrace", "pipelines", "infra/demo", "feature_repo", "params.yaml", "requirements")
"""What every benchmark measures, or makes its data with."""
LIBRARIES = ("polars", "duckdb", "pandas", "dask", "dvc", "boto3", "obstore", "s3fs", "feast", "label-studio-sdk")
PEER_LIBRARIES = ("s5cmd", "connectorx")

NOT_RUN = "not run since the code changed, or it failed"

Json = dict[str, Any]


def main() -> None:
    """Run what is asked for, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scripts", nargs="*", help=f"of {', '.join(SCRIPTS)} (default: all)", metavar="NAME")
    parser.add_argument("--full", action="store_true", help="the large sizes too: hours")
    parser.add_argument("--repeats", type=positive, default=3, help="runs of each contender (default: 3)")
    parser.add_argument("--no-run", action="store_true", help="write the page from the reports that are there")
    arguments = parser.parse_args()
    if unknown := set(arguments.scripts) - set(SCRIPTS):
        parser.error(f"expected names of {', '.join(SCRIPTS)}, found {', '.join(sorted(unknown))}")
    options = ["--repeats", str(arguments.repeats), *(["--full"] if arguments.full else [])]
    failed = [] if arguments.no_run else [name for name in arguments.scripts or SCRIPTS if not run(name, options)]
    PAGE.write_text(render(read_machine(), read_reports()))
    print(f"\n{PAGE.relative_to(REPOSITORY)} is written.")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run(name: str, options: Sequence[str]) -> bool:
    """Run one benchmark and keep its report; False if it failed."""
    print(f"\n{name}.py", flush=True)
    command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), "--json", *options]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=False)
    path = REPORTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    lines = done.stdout.splitlines()
    if lines and lines[-1].startswith("{"):
        report = {**json.loads(lines[-1]), "options": options, "commit": read_commit()}
        path.write_text(json.dumps(report, indent=1))
    return done.returncode == 0 and path.exists()


def read_reports() -> dict[str, Json]:
    """Name → report, of those that still hold."""
    found = {path.stem: json.loads(path.read_text()) for path in REPORTS.glob("*.json")}
    return {name: found[name] for name in SCRIPTS if name in found and still_holds(name, found[name]["commit"])}


def still_holds(name: str, commit: str) -> bool:
    """Whether nothing that a benchmark measures has changed since a commit."""
    benchmarks = [path.name for path in Path(__file__).parent.glob("*.py")]
    others = {f"{other}.py" for other in SCRIPTS if other != name} | {Path(__file__).name}
    paths = [*MEASURED, *(f"benchmarks/{each}" for each in benchmarks if each not in others)]
    command = ["git", "-C", str(REPOSITORY), "diff", "--quiet", commit, "--", *paths]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def read_commit() -> str:
    """The commit, and whether something else is in the working tree; the page itself does not count."""
    commit = run_git("rev-parse", "--short=12", "HEAD")
    changed = run_git("status", "--porcelain", "--", ".", f":!{PAGE.relative_to(REPOSITORY)}")
    return f"{commit} with changes" if changed else commit


def run_git(*arguments: str) -> str:
    """Output of a git command in the repository."""
    command = ["git", "-C", str(REPOSITORY), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def read_machine() -> dict[str, str]:
    """What the figures depend on besides the code; no names of hosts or folders."""
    versions = [f"{name} {version(name)}" for name in LIBRARIES if is_installed(name)]
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": read_commit(),
        "cores": f"{os.cpu_count()} ({platform.machine()})",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "versions": ", ".join([*versions, *peer_versions()]),
    }


def is_installed(name: str) -> bool:
    """Whether a package is in this environment."""
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def peer_versions() -> Iterator[str]:
    """Versions of the peers in the environment of their own."""
    for name in PEER_LIBRARIES:
        for found in PEERS.glob(f"lib/python*/site-packages/{name}-*.dist-info"):
            yield f"{name} {found.name.removesuffix('.dist-info').rpartition('-')[2]}"


def render(machine: Mapping[str, str], reports: Mapping[str, Json]) -> str:
    """The page."""
    lines = [
        "# Results of the benchmarks",
        "",
        "`make bench` writes this page; do not edit it. [Benchmarks](README.md) says what each script measures.",
        "CPU seconds are those of the client with all its descendants + those of the servers; ratios are of their sum.",
        "A figure is the median of several runs, in which the contenders take turns. No peak memory is given where it",
        "is below that of the process that starts the contenders.",
        "",
        *table(("", ""), machine.items()),
        *render_targets(reports),
        *render_not_checked(reports),
    ]
    for name in SCRIPTS:
        if (report := reports.get(name)) is None:
            lines += [f"## {name}", "", NOT_RUN.capitalize() + ".", ""]
            continue
        repeats = report["options"][report["options"].index("--repeats") + 1]
        lines += [f"## {name}", "", f"`benchmarks/{name}.py {' '.join(report['options'])}`: {runs(repeats)}.", ""]
        for section in report["sections"]:
            lines += render_section(section)
    return "\n".join(lines).rstrip() + "\n"


def runs(repeats: str) -> str:
    """How often each contender ran."""
    return "one run of each" if repeats == "1" else f"{repeats} runs of each"


def render_targets(reports: Mapping[str, Json]) -> Iterator[str]:
    """Every ratio with a target, met or missed."""
    yield from ("## Targets", "")
    rows = [
        (name, f"{section['title']}: {what}", *rest)
        for name, report in reports.items()
        for section in report["sections"]
        for what, *rest in map(format_target, section["targets"])
    ]
    if not rows:
        yield from ("None was measured.", "")
        return
    missed = sum(row[-1] == "missed" for row in rows)
    yield from (f"{len(rows)} ratios: {len(rows) - missed} met, {missed} missed.", "")
    yield from table(("script", "ratio", "measured", "at most", ""), rows)


def render_not_checked(reports: Mapping[str, Json]) -> Iterator[str]:
    """What was not measured, and why."""
    reasons = {f"`{name}.py`": NOT_RUN for name in SCRIPTS if name not in reports}
    for name, report in reports.items():
        reasons |= report["not_checked"]
        if name != "correctness" and "--full" not in report["options"]:
            reasons["the large sizes"] = "only with `--full`"
    yield from ("## Not checked", "")
    yield from (f"- not checked here: {what}: {reason}" for what, reason in reasons.items())
    yield ""


def render_section(section: Json) -> Iterator[str]:
    """A table of costs, targets, figures and sentences."""
    yield from (f"### {section['title']}", "")
    if costs := section["costs"]:
        reference = total_s(costs[section["reference"]])
        rows = [(name, *format_cost(cost), f"{total_s(cost) / reference:.2f}") for name, cost in costs.items()]
        yield from table(("", "CPU s", "least to most", "wall s", "peak MB", "ratio"), rows)
    if section["targets"]:
        yield from table(("ratio", "measured", "at most", ""), map(format_target, section["targets"]))
    if figures := section["figures"]:
        measured = [(what, f"{format_figure(value)} {unit}".strip()) for what, (value, unit) in figures.items()]
        yield from table(("figure", "measured"), measured)
    if section["notes"]:
        yield from (*(f"- {line}" for note in section["notes"] for line in note.splitlines()), "")


def total_s(cost: Json) -> float:
    """CPU seconds of client and server."""
    return float(cost["cpu_s"] + cost["server_s"])


def format_cost(cost: Json) -> tuple[str, str, str, str]:
    """CPU seconds of client and server, their range, wall seconds, and peak memory."""
    least, most = cost["spread_s"] or (total_s(cost), total_s(cost))
    cpu_s = f"{cost['cpu_s']:.2f} + {cost['server_s']:.2f}" if cost["server_s"] else f"{cost['cpu_s']:.2f}"
    peak_mb = f"{cost['peak_mb']:.0f}" if cost["peak_mb"] else ""
    return cpu_s, f"{least:.2f} to {most:.2f}", f"{cost['wall_s']:.2f}", peak_mb


def format_target(target: Json) -> tuple[str, str, str, str]:
    """The ratio, its value, its limit, and whether it is met."""
    return target["what"], f"{target['ratio']:.3g}", f"{target['at_most']:.3g}", target["status"]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table of Markdown, and an empty line."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


if __name__ == "__main__":
    main()
