"""Validate and transform flights: Headrace against hand-written code that does the same job.

Raw days of gzipped CSV become the validated flights and the hourly table of carriers. Headrace evaluates every check
of the contract, would keep rejected rows (a whole year has none), writes each day's file twice (to the cache and to the
workspace), hashes each and writes manifests; the others (`baselines.py`) check the main conditions. `polars`, `duckdb`,
`pandas` and `dask` take the whole year at once, which is why their memory grows with it; `polars-daily` and
`duckdb-daily` go day by day, as Headrace does by design. Row counts and a sum of each result must agree. Days are
repeated to reach the size, each time with other carriers: see `synthetic.py`. With `--full`, Headrace alone then
processes three such years: its memory must not grow.

The output of a run is moved aside, not deleted: for some seconds after many deletions, ext4 creates files slowly.
"""

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import REPOSITORY, Contender, Cost, Report, create_parser, run_interleaved, run_once

YEARLY_PEERS = ("polars", "duckdb", "pandas", "dask")
DAILY_PEERS = ("polars-daily", "duckdb-daily")
PEERS = YEARLY_PEERS + DAILY_PEERS
DAYS = 365
RAW = "raw/flights/flights"
OUTPUT_TABLES = {"flights": "validated/flights/flights", "carriers": "features/flights/carrier_delays"}
TARGETS = {3: {"cpu": 1.1}, 30: {"cpu": 0.7, "memory": 1 / 8}}
"""Copies of the year → what Headrace may take of the best peer's CPU seconds, and of the memory of a whole year."""

GROWTH_YEARS, MAX_MEMORY_GROWTH = 3, 1.1
"""Years of the largest size, and the limit of their memory relative to that of one year."""


def main() -> None:
    """Measure and report."""
    parser = create_parser(__doc__ or "", large="ten million flights too, and thirty by Headrace alone")
    parser.add_argument("--do", nargs=2, help="(internal) prepare 'COPIES YEARS', run FOLDER or check FOLDER")
    arguments = parser.parse_args()
    if arguments.do:
        {"prepare": prepare, "run": run, "check": summarize_result}[arguments.do[0]](arguments.do[1])
        return
    report = Report("transform", as_json=arguments.json)
    with TemporaryDirectory(prefix="headrace-bench-") as folder:
        measure_size(report, Path(folder), 3, arguments.repeats)
    if arguments.full:
        with TemporaryDirectory(prefix="headrace-bench-") as folder:
            one = measure_size(report, Path(folder), 30, arguments.repeats)
            measure_growth(report, Path(folder), 30, one, arguments.repeats)
    report.end()


def measure_size(report: Report, folder: Path, copies: int, repeats: int) -> Cost:
    """Measure one size; the cost of Headrace."""
    run_once(subcommand(folder, "prepare", f"{copies} 1"))
    contenders = [subcommand(folder, "run", "run")]
    baselines, raw = Path(__file__).with_name("baselines.py"), folder / "prepared/data" / RAW
    for peer in PEERS:
        command = [sys.executable, str(baselines), peer, str(raw), str(folder / peer), "2013-12-31"]
        contenders.append(Contender(peer, command, folder, setup=partial(reset_folder, folder / peer)))
    costs = run_interleaved(contenders, repeats)
    own = costs["run"]
    report.table(
        f"{copies} times 336,776 flights", {"headrace": own, **{peer: costs[peer] for peer in PEERS}}, "headrace"
    )
    report.note(f"all agree: {compare_results(folder)}")
    best = min(PEERS, key=lambda peer: costs[peer].total_s)
    report.target(
        f"CPU: Headrace / the best of them ({best})", own.total_s / costs[best].total_s, TARGETS[copies]["cpu"]
    )
    yearly, daily = (min(costs[peer].peak_mb for peer in peers) for peers in (YEARLY_PEERS, DAILY_PEERS))
    what = "peak memory: Headrace / the leanest that takes the whole year at once"
    if "memory" in TARGETS[copies]:
        report.target(what, own.peak_mb / yearly, TARGETS[copies]["memory"])
    else:
        report.figure(what, own.peak_mb / yearly)
    report.figure("peak memory: Headrace / the leaner that goes day by day", own.peak_mb / daily)
    return own


def measure_growth(report: Report, folder: Path, copies: int, one: Cost, repeats: int) -> None:
    """Measure more years of the same size, by Headrace alone."""
    run_once(subcommand(folder, "prepare", f"{copies} {GROWTH_YEARS}"))
    more = run_interleaved([subcommand(folder, "run", "run")], repeats)["run"]
    report.table(f"{copies} times 336,776 flights a year", {"one year": one, f"{GROWTH_YEARS} years": more}, "one year")
    report.target(f"peak memory: {GROWTH_YEARS} years / one", more.peak_mb / one.peak_mb, MAX_MEMORY_GROWTH)


def subcommand(folder: Path, name: str, argument: str) -> Contender:
    """A subcommand of this script."""
    setup = partial(reset_workspace, folder / "run") if name == "run" else lambda: None
    return Contender(name, [sys.executable, __file__, "--do", name, argument], folder, setup=setup)


def compare_results(folder: Path) -> list[int]:
    """Check that all results agree; their summary."""
    summaries = {}
    for name in ("run", *PEERS):
        command = [sys.executable, __file__, "--do", "check", name]
        summaries[name] = subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout
    if len(set(summaries.values())) > 1:
        sys.exit(f"the results differ: {summaries}")
    found: list[int] = json.loads(summaries["run"])
    return found


def reset_workspace(place: Path) -> None:
    """Replace the workspace by one that has raw days only."""
    move_aside(place)
    shutil.copytree(place.with_name("prepared"), place, copy_function=os.link)


def reset_folder(place: Path) -> None:
    """Replace the folder by an empty one."""
    move_aside(place)
    place.mkdir()


def move_aside(place: Path) -> None:
    """Move the output of an earlier run aside."""
    done = place.with_name("done")
    done.mkdir(exist_ok=True)
    if place.exists():
        place.rename(done / f"{place.name}-{len(list(done.iterdir()))}")


def prepare(size: str) -> None:
    """Write the missing raw days of that many copies and years."""
    from synthetic import compress, days, flights  # noqa: PLC0415

    from headrace.storage.dvc.cache import Cache  # noqa: PLC0415
    from headrace.storage.manifest import Manifest  # noqa: PLC0415
    from headrace.storage.partition_entry import PartitionEntry  # noqa: PLC0415
    from headrace.storage.table_store import TableStore  # noqa: PLC0415

    root = Path("prepared").resolve()
    root.mkdir(exist_ok=True)
    shutil.copy(REPOSITORY / "params.yaml", root)
    table_store = TableStore(root, Cache(root / ".dvc/cache", root))
    copies, years = map(int, size.split())
    entries = dict(table_store.manifest(RAW).partitions)
    for day in days(DAYS * years)[len(entries) :]:
        stored = table_store.cache.add_bytes(compress(flights(day, copies=copies)))
        entries[str(day)] = PartitionEntry(stored.md5, stored.md5, stored.size)
    table_store.checkout(Manifest(RAW, ".csv.gz", partitions=entries))


def run(place: str) -> None:
    """Headrace: run the two stages, as its commands do."""
    from headrace.__main__ import tune_gc  # noqa: PLC0415
    from headrace.engine.run import run_stage  # noqa: PLC0415
    from headrace.project import graph  # noqa: PLC0415
    from headrace.project.executors import Executor  # noqa: PLC0415
    from headrace.settings import Settings  # noqa: PLC0415
    from headrace.storage.dvc.cache import Cache  # noqa: PLC0415
    from headrace.storage.table_store import TableStore  # noqa: PLC0415

    tune_gc()
    root = Path(place).resolve()
    table_store = TableStore(root, Cache(root / ".dvc/cache", root))
    for table in OUTPUT_TABLES.values():
        run_stage(graph.find_stage("flights", table), table_store, Executor(Settings(workspace=root)))


def summarize_result(place: str) -> None:
    """Print the row counts and sums of a result."""
    import polars as pl  # noqa: PLC0415

    root = Path(place)
    if place == "run":
        paths = {name: str(root / "data" / table / "*.parquet") for name, table in OUTPUT_TABLES.items()}
    else:
        paths = {"flights": str(root / "validated.parquet"), "carriers": str(root / "carriers.parquet")}
        if place in {"dask", *DAILY_PEERS}:
            paths["flights"] = str(root / "validated/*.parquet")
        if place in DAILY_PEERS:
            paths["carriers"] = str(root / "carriers/*.parquet")
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
