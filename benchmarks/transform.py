"""Validate and transform a year of flights: all of Headrace, against straight lines of code doing the same job.

Raw days of gzipped CSV become the validated flights and the hourly table of carriers. Headrace holds every check of
the contract, keeps what it rejects, writes a file a day, hashes each and writes manifests; the others (`straight.py`)
hold the main conditions and write two files. Rows and a sum of each result must agree. A day is repeated to reach the
size: see `synthetic.py`.
"""

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import Contender, Report, in_turns, once, options

PEERS = ("polars", "duckdb", "pandas", "dask")
DAYS = 365
RAW = "raw/flights/flights"
MADE = {"flights": "validated/flights/flights", "carriers": "features/flights/carrier_delays"}
TARGETS = {3: {"cpu": 1.1}, 30: {"cpu": 0.7, "memory": 1 / 8}}
"""Copies of the year → Headrace's share of the best peer's CPU seconds, and of the leanest of the four's memory."""


def main() -> None:
    """Measure and report."""
    parser = options(__doc__ or "")
    parser.add_argument("--do", nargs=2, help="(for itself) prepare COPIES, run PLACE or check PLACE")
    asked = parser.parse_args()
    if asked.do:
        {"prepare": prepare, "run": run, "check": check}[asked.do[0]](asked.do[1])
        return
    report = Report("transform", as_json=asked.json)
    for copies, repeats in ((3, asked.repeats), (30, 1)) if asked.full else ((3, asked.repeats),):
        compare(report, copies, repeats)
    report.end()


def compare(report: Report, copies: int, repeats: int) -> None:
    """One size."""
    with TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        mine = partial(Contender, command=[sys.executable, __file__, "--do"], folder=folder)
        once(mine("prepare", command=[sys.executable, __file__, "--do", "prepare", str(copies)]))
        contenders = [
            mine("headrace", command=[sys.executable, __file__, "--do", "run", "run"], before=partial(fresh, folder))
        ]
        raw = folder / "prepared/data" / RAW
        straight = Path(__file__).with_name("straight.py")
        for peer in PEERS:
            command = [sys.executable, str(straight), peer, str(raw), str(folder / peer), "2013-12-31"]
            contenders.append(Contender(peer, command, folder, before=partial(emptied, folder / peer)))
        costs = in_turns(contenders, repeats)
        said = {
            name: subprocess.run(
                [sys.executable, __file__, "--do", "check", name], cwd=folder, capture_output=True, check=True
            ).stdout
            for name in ("run", *PEERS)
        }
        report.table(f"{copies} times 336,776 flights", costs, "headrace")
        if len(set(said.values())) > 1:
            sys.exit(f"the results differ: {said}")
        report.note(f"all agree: {json.loads(said['run'])}")
        best = min(costs[peer].cpu_s for peer in PEERS)
        least = min(costs[peer].peak_mb for peer in PEERS)
        report.target("CPU: Headrace / the best of them", costs["headrace"].cpu_s / best, TARGETS[copies]["cpu"])
        if "memory" in TARGETS[copies]:
            report.target("peak memory: Headrace / the leanest of them", costs["headrace"].peak_mb / least, 1 / 8)


def fresh(folder: Path) -> None:
    """A workspace with raw days and nothing else."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    shutil.copytree(folder / "prepared", folder / "run", copy_function=os.link)


def emptied(folder: Path) -> None:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def prepare(copies: str) -> None:
    """The raw days."""
    from synthetic import days, flights, packed  # noqa: PLC0415

    from pipelines.engine.lake import Lake  # noqa: PLC0415
    from pipelines.engine.manifest import Entry, Manifest  # noqa: PLC0415
    from pipelines.systems.dvc.cache import Cache  # noqa: PLC0415

    root = Path("prepared").resolve()
    lake = Lake(root, Cache(root / ".dvc/cache", root))
    entries = {}
    for day in days(DAYS):
        stored = lake.cache.add_bytes(packed(flights(day, copies=int(copies))))
        entries[str(day)] = Entry(stored.md5, stored.md5, stored.size)
    lake.commit(Manifest(RAW, ".csv.gz", partitions=entries))


def run(place: str) -> None:
    """Headrace: the two stages, as its commands run them."""
    from pipelines import graph  # noqa: PLC0415
    from pipelines.engine.lake import Lake  # noqa: PLC0415
    from pipelines.engine.run import run_stage  # noqa: PLC0415
    from pipelines.settings import Settings  # noqa: PLC0415
    from pipelines.systems.dask import Executor  # noqa: PLC0415
    from pipelines.systems.dvc.cache import Cache  # noqa: PLC0415

    root = Path(place).resolve()
    lake = Lake(root, Cache(root / ".dvc/cache", root))
    for table in MADE.values():
        run_stage(graph.stage("flights", table), lake, Executor(Settings(workspace=root)))


def check(place: str) -> None:
    """Print what a result amounts to."""
    import polars as pl  # noqa: PLC0415

    root = Path(place)
    if place == "run":
        paths = {name: str(root / "data" / table / "*.parquet") for name, table in MADE.items()}
    else:
        paths = {"flights": str(root / "validated.parquet"), "carriers": str(root / "carriers.parquet")}
        paths["flights"] = str(root / "validated/*.parquet") if place == "dask" else paths["flights"]
    flights, carriers = (pl.scan_parquet(paths[name]) for name in ("flights", "carriers"))
    delay = "dep_delay_min" if place == "run" else "dep_delay"
    first = pl.datetime(2013, 1, 1, time_zone="UTC")
    found = flights.select(pl.len().alias("flights"), pl.col(delay).sum().alias("delay_min")).collect().row(0)
    mean = pl.col("dep_delay_mean_24h_min").fill_nan(None).sum().round(1)
    row = carriers.filter(pl.col("event_time") >= first).select(
        pl.len(), pl.col("departed_7d").cast(pl.Int64).sum(), mean
    )
    print(json.dumps([int(value) for value in (*found, *row.collect().row(0))]))


if __name__ == "__main__":
    main()
