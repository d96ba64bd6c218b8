"""Training rows: requests → three point-in-time joins → one Parquet file, against stock Feast and hand-written joins.

Headrace is measured at a release, as `headrace retrieve --release` does it, without Feast; and through Feast's API
(`get_historical_features`) on the workspace's tables, which pays for importing Feast and for a registry. The rows `no
requests` measure that cost, and ratios are given with and without it. Headrace hashes every file before it reads it for
the first time, and remembers which it has hashed: the memory is removed before each run, and kept in the rows `files
hashed before`. The engines are in `engines.py`; the output of each is compared with that of Headrace, value by value.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import REPOSITORY, Contender, Cost, Report, create_parser, run_interleaved, run_once

ENGINES = Path(__file__).with_name("engines.py")
BY_HAND = ("duckdb", "polars")
NO_REQUESTS = "headrace, no requests"
FEAST = "feast-duckdb"
FEAST_NO_REQUESTS = "feast-duckdb, no requests"
RELEASE = "headrace-release"
REMEMBERED = ", files hashed before"
SAMPLE = "20000"
"""Requests of the real flights for Feast's DuckDB store; all of them take it a minute and 9 GB (`--full`)."""

DEFAULT_STORE_SAMPLE = "500"
"""Requests for Feast's default store, on Dask, which takes a minute and a half for them (`--full`)."""

ENVIRONMENT = {
    "PYTHONOPTIMIZE": "1",
    "PYTHONDONTWRITEBYTECODE": "",
    "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "benchmarks"))),
}


def main() -> None:
    """Measure and report."""
    large = "ten million requests, all flights against Feast on DuckDB, and Feast's default store"
    arguments = create_parser(__doc__ or "", large=large).parse_args()
    report = Report("retrieval", as_json=arguments.json)
    with TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        measure_flights(report, folder, arguments.repeats, (SAMPLE, "") if arguments.full else (SAMPLE,))
        measure_synthetic(report, folder, ("1000000", "1000000", "100000"), arguments.repeats)
        measure_wide(report, folder, arguments.repeats)
        if arguments.full:
            measure_default_store(report, folder, arguments.repeats)
            measure_synthetic(report, folder, ("10000000", "2000000", "200000"), arguments.repeats)
        else:
            report.leave_out("ten million requests; all flights on Feast's DuckDB store", "only with `--full`")
    report.end()


def measure_synthetic(report: Report, folder: Path, sizes: Sequence[str], repeats: int) -> None:
    """Measure synthetic tables (sizes: requests, rows per table, keys) against the hand-written joins."""
    place = prepare_data(folder, *sizes)
    engines = [RELEASE, RELEASE + REMEMBERED, "headrace", NO_REQUESTS, *BY_HAND]
    costs = run_interleaved([engine_contender(name, place) for name in engines], repeats)
    report.table(f"{int(sizes[0]):,} requests, 3 tables of {int(sizes[1]):,} rows", costs, RELEASE)
    report.note(compare_outputs(place, (RELEASE, *BY_HAND)))
    best = min(costs[name].total_s for name in BY_HAND)
    for what, seconds in (
        ("at a release", costs[RELEASE].total_s),
        ("at a release, files hashed before", costs[RELEASE + REMEMBERED].total_s),
        ("Feast and all", costs["headrace"].total_s),
        ("through Feast less `no requests`", net_cpu_s(costs)),
    ):
        report.target(f"CPU: ours, {what} / the faster hand-written", seconds / best, 1.0)


def measure_wide(report: Report, folder: Path, repeats: int) -> None:
    """Measure 17,000 requests with 999 features."""
    place = prepare_data(folder, "17000", "17000", "1700", "333")
    costs = run_interleaved([engine_contender(name, place) for name in ("headrace", NO_REQUESTS)], repeats)
    report.table("17,000 requests, 3 tables of 333 features", costs, "headrace")
    report.target("memory: ours / 2 GB", costs["headrace"].peak_mb / 2000, 1)


def measure_flights(report: Report, folder: Path, repeats: int, samples: Sequence[str]) -> None:
    """Measure the flights of 2013 with weather, aircraft and carriers against Feast's own store on DuckDB."""
    place = prepare_data(folder, "flights")
    for most in samples:
        engines = ["headrace", RELEASE, NO_REQUESTS, FEAST, FEAST_NO_REQUESTS]
        costs = run_interleaved([engine_contender(name, place, most) for name in engines], repeats)
        shown, goal = (f"{int(most):,} of the", 1 / 10) if most else ("the", 1 / 50)
        report.table(f"{shown} 336,776 flights with weather, aircraft, carriers", costs, "headrace")
        report.note(compare_outputs(place, (RELEASE, FEAST)))
        theirs = costs[FEAST].total_s
        if not most:
            report.target("CPU: ours at a release / Feast on DuckDB", costs[RELEASE].total_s / theirs, goal)
        report.target("CPU: ours / Feast on DuckDB, Feast and all", costs["headrace"].total_s / theirs, 1)
        joined = theirs - costs[FEAST_NO_REQUESTS].total_s
        what = "CPU: ours / Feast on DuckDB, both less `no requests`"
        least, greatest = costs["headrace"].spread_s or (0, 0)
        if net_cpu_s(costs) < greatest - least:
            report.leave_out(what, "our runs differ by more than the requests cost")
        else:
            report.target(what, net_cpu_s(costs) / joined, goal)


def measure_default_store(report: Report, folder: Path, repeats: int) -> None:
    """Measure a few of the real flights against Feast's default store."""
    place = prepare_data(folder, "flights")
    costs = run_interleaved(
        [engine_contender(name, place, DEFAULT_STORE_SAMPLE) for name in ("headrace", "feast-dask")], repeats
    )
    report.table(f"{DEFAULT_STORE_SAMPLE} of the 336,776 flights", costs, "headrace")
    report.note(compare_outputs(place, ("feast-dask",)))


def net_cpu_s(costs: dict[str, Cost]) -> float:
    """CPU seconds of Headrace without Feast's import and registry."""
    return costs["headrace"].total_s - costs[NO_REQUESTS].total_s


def prepare_data(folder: Path, *sizes: str) -> Path:
    """Prepare the requests and tables of that size, once; their folder."""
    place = folder / "-".join(sizes)
    if place.exists():
        return place
    subprocess.run([sys.executable, ENGINES, "prepare", place, *sizes], env={**os.environ, **ENVIRONMENT}, check=True)
    run_once(
        engine_contender(NO_REQUESTS, place)
    )  # compiles what Feast imports, which would otherwise count for the first run
    return place


def engine_contender(name: str, place: Path, most: str = "") -> Contender:
    """One engine on the data of a folder; it writes its output to that folder."""
    out = place / f"{name.replace(', ', '-').replace(' ', '-')}.parquet"
    rows = ["0"] if name in {NO_REQUESTS, FEAST_NO_REQUESTS} else [most] if most else []
    command = [sys.executable, str(ENGINES), name.partition(",")[0], str(place), str(out), *rows]

    def prepare_run() -> None:
        remove_output(out)
        shutil.rmtree(place / ".headrace", ignore_errors=True)  # the memory of what was hashed
        if name.endswith(REMEMBERED):
            run_once(engine_contender(name.removesuffix(REMEMBERED), place, most))

    return Contender(name, command, env=ENVIRONMENT, setup=prepare_run)


def remove_output(out: Path) -> None:
    """Remove the output of a run, and the copies that Feast's stores read."""
    for path in out.parent.glob(f"{out.name}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def compare_outputs(place: Path, others: Sequence[str]) -> str:
    """Compare the others' features with Headrace's, in a separate process."""
    files = [str(place / f"{name}.parquet") for name in others]
    command = [sys.executable, str(ENGINES), "compare", str(place / "headrace.parquet"), *files]
    return subprocess.run(
        command, env={**os.environ, **ENVIRONMENT}, check=True, capture_output=True, text=True
    ).stdout.strip()


if __name__ == "__main__":
    main()
