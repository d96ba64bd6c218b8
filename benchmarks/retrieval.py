"""Training rows: requests → three point-in-time joins → one Parquet file, against stock Feast and hand-written joins.

Ours is measured twice: at a release, as `headrace retrieve --release` does it, which needs no Feast, and by Feast's
API (`get_historical_features`), which pays for importing Feast and for a registry: those are the rows `no requests`,
and the ratio that leaves them out is given beside the one that does not. `engines.py` has the engines; what each wrote is
compared with what ours wrote, value by value.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import REPOSITORY, Contender, Cost, Report, in_turns, once, options

ENGINES = Path(__file__).with_name("engines.py")
BY_HAND = ("duckdb", "polars")
IDLE = "headrace, no requests"
FEAST = "feast-duckdb"
FEAST_IDLE = "feast-duckdb, no requests"
RELEASE = "headrace-release"
SAMPLE = "20000"
"""Requests of the real flights that Feast's store is given; all of them take it a minute and 9 GB (`--full`)."""

FEW = "500"
"""So many its default store, on Dask, is given: they take it a minute and a half (`--full`)."""

ENV = {"PYTHONOPTIMIZE": "1", "PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": str(REPOSITORY)}


def main() -> None:
    """Measure and report."""
    asked = options(__doc__ or "").parse_args()
    report = Report("retrieval", as_json=asked.json)
    with TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        real(report, folder, asked.repeats, (SAMPLE, "") if asked.full else (SAMPLE,))
        synthetic(report, folder, ("1000000", "1000000", "100000"), asked.repeats)
        wide(report, folder)
        if asked.full:
            by_default(report, folder)
            synthetic(report, folder, ("10000000", "2000000", "200000"), 1)
    report.end()


def synthetic(report: Report, folder: Path, sizes: Sequence[str], repeats: int) -> None:
    """Requests, rows a table, keys: against the hand-written joins."""
    place = prepared(folder, *sizes)
    engines = ["headrace", RELEASE, IDLE, *BY_HAND]
    costs = in_turns([engine(name, place) for name in engines], repeats)
    report.table(f"{int(sizes[0]):,} requests, 3 tables of {int(sizes[1]):,} rows", costs, "headrace")
    report.note(agreement(place, (RELEASE, *BY_HAND)))
    best = min(costs[name].cpu_s for name in BY_HAND)
    report.target("CPU: ours at a release / the faster hand-written", costs[RELEASE].cpu_s / best, 1.0)
    report.target("CPU: ours, Feast and all / the faster hand-written", costs["headrace"].cpu_s / best, 1.0)
    report.target("CPU: ours less `no requests` / the faster hand-written", net(costs) / best, 1.0)


def wide(report: Report, folder: Path) -> None:
    """17,000 requests, 999 features: what once took Feast half an hour and 50 GB."""
    place = prepared(folder, "17000", "17000", "1700", "333")
    costs = in_turns([engine(name, place) for name in ("headrace", IDLE)], 1)
    report.table("17,000 requests, 3 tables of 333 features", costs, "headrace")
    report.target("memory: ours / 2 GB", costs["headrace"].peak_mb / 2000, 1)


def real(report: Report, folder: Path, repeats: int, samples: Sequence[str]) -> None:
    """The flights of 2013 with weather, aircraft and carriers: against Feast's own store on DuckDB."""
    place = prepared(folder, "flights")
    for most in samples:
        engines = ["headrace", RELEASE, IDLE, FEAST, FEAST_IDLE]
        costs = in_turns([engine(name, place, most) for name in engines], 1 if not most else repeats)
        shown, goal = (f"{int(most):,} of the", 1 / 10) if most else ("the", 1 / 50)
        report.table(f"{shown} 336,776 flights with weather, aircraft, carriers", costs, "headrace")
        report.note(agreement(place, (RELEASE, FEAST)))
        theirs = costs[FEAST].cpu_s
        if not most:
            report.target("CPU: ours at a release / Feast on DuckDB", costs[RELEASE].cpu_s / theirs, goal)
        report.target("CPU: ours / Feast on DuckDB, Feast and all", costs["headrace"].cpu_s / theirs, 1)
        joined = theirs - costs[FEAST_IDLE].cpu_s
        report.target("CPU: ours / Feast on DuckDB, both less `no requests`", net(costs) / joined, goal)


def by_default(report: Report, folder: Path) -> None:
    """A few of the real flights: against the store that Feast takes where nobody says which."""
    place = prepared(folder, "flights")
    costs = in_turns([engine(name, place, FEW) for name in ("headrace", "feast-dask")], 1)
    report.table(f"{FEW} of the 336,776 flights", costs, "headrace")
    report.note(agreement(place, ("feast-dask",)))


def net(costs: dict[str, Cost]) -> float:
    """CPU seconds of ours that are not Feast's import and registry."""
    return costs["headrace"].cpu_s - costs[IDLE].cpu_s


def prepared(folder: Path, *sizes: str) -> Path:
    """Where the requests and tables of that size lie."""
    place = folder / "-".join(sizes)
    subprocess.run([sys.executable, ENGINES, "prepare", place, *sizes], env={**os.environ, **ENV}, check=True)
    once(engine(IDLE, place))  # compiles what Feast imports, which the first run would be charged with
    return place


def engine(name: str, place: Path, most: str = "") -> Contender:
    """One engine on the data of one place; its output is there before the next one runs."""
    out = place / f"{name.replace(', ', '-').replace(' ', '-')}.parquet"
    rows = ["0"] if name in {IDLE, FEAST_IDLE} else [most] if most else []
    command = [sys.executable, str(ENGINES), name.partition(",")[0], str(place), str(out), *rows]
    return Contender(name, command, env=ENV, before=lambda: clean(out))


def clean(out: Path) -> None:
    """Remove what a run left, the copies that Feast's stores read among it."""
    import shutil  # noqa: PLC0415

    for path in out.parent.glob(f"{out.name}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def agreement(place: Path, others: Sequence[str]) -> str:
    """Whether the others' features are ours, in a process of its own."""
    files = [str(place / f"{name}.parquet") for name in others]
    command = [sys.executable, str(ENGINES), "compare", str(place / "headrace.parquet"), *files]
    return subprocess.run(command, env={**os.environ, **ENV}, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
