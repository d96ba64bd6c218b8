"""Validate and transform flights: all of Headrace, against straight lines of code doing the same job.

Raw days of gzipped CSV become the validated flights and the hourly table of carriers. Headrace holds every check of
the contract, would keep what it rejects (a whole year has nothing to reject), writes a file a day twice (the cache, and
the copy that the workspace shows), hashes each and writes manifests; the others (`baselines.py`) hold the main
conditions and write two files. Rows and a sum of each result must agree. A day is repeated to reach the size, with
carriers of its own each time: see `synthetic.py`. With `--full`, Headrace alone then does three such years: its memory
must not grow.

What a run wrote is put aside, not deleted: ext4 makes whoever creates files in the next seconds look past those that
are gone.
"""

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import Contender, Cost, Report, in_turns, once, options

PEERS = ("polars", "duckdb", "pandas", "dask")
DAYS = 365
RAW = "raw/flights/flights"
MADE = {"flights": "validated/flights/flights", "carriers": "features/flights/carrier_delays"}
TARGETS = {3: {"cpu": 1.1}, 30: {"cpu": 0.7, "memory": 1 / 8}}
"""Copies of the year → Headrace's share of the best peer's CPU seconds, and of the leanest of the four's memory."""

YEARS, FLAT = 3, 1.1
"""So many years of the largest size may take so many times the memory of one."""


def main() -> None:
    """Measure and report."""
    parser = options(__doc__ or "")
    parser.add_argument("--do", nargs=2, help="(for itself) prepare 'COPIES YEARS', run PLACE or check PLACE")
    asked = parser.parse_args()
    if asked.do:
        {"prepare": prepare, "run": run, "check": check}[asked.do[0]](asked.do[1])
        return
    report = Report("transform", as_json=asked.json)
    with TemporaryDirectory(prefix="headrace-bench-") as folder:
        compare(report, Path(folder), 3, asked.repeats)
    if asked.full:
        with TemporaryDirectory(prefix="headrace-bench-") as folder:
            grow(report, Path(folder), 30, compare(report, Path(folder), 30, 1))
    report.end()


def compare(report: Report, folder: Path, copies: int, repeats: int) -> Cost:
    """One size; what it cost Headrace."""
    once(itself(folder, "prepare", f"{copies} 1"))
    contenders = [itself(folder, "run", "run")]
    straight, raw = Path(__file__).with_name("baselines.py"), folder / "prepared/data" / RAW
    for peer in PEERS:
        command = [sys.executable, str(straight), peer, str(raw), str(folder / peer), "2013-12-31"]
        contenders.append(Contender(peer, command, folder, before=partial(emptied, folder / peer)))
    costs = in_turns(contenders, repeats)
    own = costs["run"]
    report.table(
        f"{copies} times 336,776 flights", {"headrace": own, **{peer: costs[peer] for peer in PEERS}}, "headrace"
    )
    report.note(f"all agree: {agreed(folder)}")
    best, least = (min(getattr(costs[peer], figure) for peer in PEERS) for figure in ("cpu_s", "peak_mb"))
    report.target("CPU: Headrace / the best of them", own.cpu_s / best, TARGETS[copies]["cpu"])
    if "memory" in TARGETS[copies]:
        report.target("peak memory: Headrace / the leanest of them", own.peak_mb / least, TARGETS[copies]["memory"])
    return own


def grow(report: Report, folder: Path, copies: int, one: Cost) -> None:
    """More years of the same size, by Headrace alone."""
    once(itself(folder, "prepare", f"{copies} {YEARS}"))
    more = once(itself(folder, "run", "run"))
    report.table(f"{copies} times 336,776 flights a year", {"one year": one, f"{YEARS} years": more}, "one year")
    report.target(f"peak memory: {YEARS} years / one", more.peak_mb / one.peak_mb, FLAT)


def itself(folder: Path, name: str, argument: str) -> Contender:
    """This script, doing one of its parts."""
    before = partial(fresh, folder / "run") if name == "run" else lambda: None
    return Contender(name, [sys.executable, __file__, "--do", name, argument], folder, before=before)


def agreed(folder: Path) -> list[int]:
    """What every result amounts to."""
    said = {}
    for name in ("run", *PEERS):
        command = [sys.executable, __file__, "--do", "check", name]
        said[name] = subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout
    if len(set(said.values())) > 1:
        sys.exit(f"the results differ: {said}")
    found: list[int] = json.loads(said["run"])
    return found


def fresh(place: Path) -> None:
    """A workspace with raw days and nothing else."""
    aside(place)
    shutil.copytree(place.with_name("prepared"), place, copy_function=os.link)


def emptied(place: Path) -> None:
    """An empty folder."""
    aside(place)
    place.mkdir()


def aside(place: Path) -> None:
    """Put away what was written there before."""
    done = place.with_name("done")
    done.mkdir(exist_ok=True)
    if place.exists():
        place.rename(done / f"{place.name}-{len(list(done.iterdir()))}")


def prepare(size: str) -> None:
    """The raw days of so many copies and years, as far as they are not there."""
    from synthetic import days, flights, packed  # noqa: PLC0415

    from headrace.storage.dvc.cache import Cache  # noqa: PLC0415
    from headrace.storage.manifest import Manifest, PartitionEntry  # noqa: PLC0415
    from headrace.storage.table_store import Lake  # noqa: PLC0415

    root = Path("prepared").resolve()
    lake = Lake(root, Cache(root / ".dvc/cache", root))
    copies, years = map(int, size.split())
    entries = dict(lake.manifest(RAW).partitions)
    for day in days(DAYS * years)[len(entries) :]:
        stored = lake.cache.add_bytes(packed(flights(day, copies=copies)))
        entries[str(day)] = PartitionEntry(stored.md5, stored.md5, stored.size)
    lake.commit(Manifest(RAW, ".csv.gz", partitions=entries))


def run(place: str) -> None:
    """Headrace: the two stages, as its commands run them."""
    from headrace.__main__ import tune_gc  # noqa: PLC0415
    from headrace.engine.run import run_stage  # noqa: PLC0415
    from headrace.project import graph  # noqa: PLC0415
    from headrace.project.executors import Executor  # noqa: PLC0415
    from headrace.settings import Settings  # noqa: PLC0415
    from headrace.storage.dvc.cache import Cache  # noqa: PLC0415
    from headrace.storage.table_store import Lake  # noqa: PLC0415

    tune_gc()
    root = Path(place).resolve()
    lake = Lake(root, Cache(root / ".dvc/cache", root))
    for table in MADE.values():
        run_stage(graph.find_stage("flights", table), lake, Executor(Settings(workspace=root)))


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
