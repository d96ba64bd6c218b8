"""One new day on top of 30, 365 and 3,650 days: the cost of each stage, including the release's commit and push.

A run that finds nothing new is compared with a process that only imports Polars, boto3 and SQLAlchemy.

The first days are tiny (24 flights and 6 hours of weather each), so that what grows with their number shows. Raw data
is really ingested. The last days of the other tables are computed; entries of earlier days are simulated, with their
own cache keys, counts and bytes in the workspace, in the cache and on the remote: the file of a computed day, and the
name of the day in it. No run reads these bytes, which is the claim. A full run over 365 days is measured for
comparison.

With tiny days, start-up dominates both sides. So the share of one day in a year is measured again on days as large as
those of 2013 (336,776 flights), all of them really run: with the four commands, and with `headrace run --release`. A
year of such days is so cheap that a process with nothing to do costs a tenth of it: the share is reported with and
without that cost.
"""

import os
import shutil
import sys
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from environment import Workspace, create_workspace, run_servers
from measure import Contender, Cost, Report, create_parser, median_cost, run_interleaved, run_once, total_cost

if TYPE_CHECKING:
    from headrace.engine.plan import StalePartition
    from headrace.storage.partition_entry import PartitionEntry
    from headrace.storage.table_store import TableStore

SIZES = (30, 365, 3650)
FLIGHTS_PER_DAY = 24
COMPUTED_DAYS = {"validate": 28, "transform": 14}
"""Number of last days that are computed: a day of features reads the ten days before it."""
COMMANDS = ("ingest", "validate", "transform", "release")
GROWTH_LIMITS = {"release": 1.2, "total": 1.15}
"""What the costs at the most days may be of those at the fewest."""

LIBRARIES = ("polars", "boto3", "sqlalchemy")
"""What every run of a dataset with a bucket and a database imports, and what it may cost 1.3 times."""

RUN_AND_RELEASE = ("run --release",)
"""The same as one command."""
DAYS_PER_YEAR = 365


def main() -> None:
    """Measure and report."""
    parser = create_parser(__doc__ or "")
    parser.add_argument("--add-days", help="(internal) add days FIRST:COUNT to a workspace's sources")
    parser.add_argument("--real", action="store_true", help="(internal) days as large as those of 2013")
    parser.add_argument("--create-history", action="store_true", help="(internal) create a workspace's history")
    arguments = parser.parse_args()
    if arguments.add_days:
        first, count = map(int, arguments.add_days.split(":"))
        add_days(first, count, None if arguments.real else FLIGHTS_PER_DAY)
    elif arguments.create_history:
        create_history(Path.cwd())
    else:
        measure_sizes(Report("increment", as_json=arguments.json), arguments.repeats)


def measure_sizes(report: Report, repeats: int) -> None:
    """Measure adding one day to each size; each repeat adds the next day to every size in turn."""
    with run_servers("s3", "postgres") as (folder, env):
        places = {size: create_workspace(folder, env, f"days{size}") for size in SIZES}
        # All workspaces are created before the first request, because the server caches its list of buckets.
        full, real = (
            [create_workspace(folder, env, f"{name}{number}") for number in range(repeats)] for name in ("full", "real")
        )
        for size, place in places.items():
            prepare_workspace(place, size)
        runs: dict[int, list[dict[str, Cost]]] = {size: [] for size in SIZES}
        for turn in range(repeats + 1):
            for size, place in list(places.items())[:: -1 if turn % 2 else 1]:
                run_once(subcommand(place, "--add-days", f"{size + turn}:1"))
                runs[size].append({verb: run_once(place.headrace(verb, verb, "flights")) for verb in COMMANDS})
                check_day_released(place, str(days(1, size + turn)[0]))
        costs = {size: median_by_stage(found[1:]) for size, found in runs.items()}  # the first run writes bytecode
        for size in SIZES:
            report.table(f"one new day on top of {size:,}", costs[size], "total")
        least, middle_size, most = SIZES
        for verb in (*COMMANDS, "total"):
            ratio, what = costs[most][verb].total_s / costs[least][verb].total_s, f"{verb}: t({most:,}) / t({least})"
            if verb in GROWTH_LIMITS:
                report.target(what, ratio, GROWTH_LIMITS[verb])
            else:
                report.figure(what, ratio)
        measure_nothing_new(report, places[least], repeats)
        whole = measure_full_runs(full, middle_size)
        report.table(f"everything, {middle_size} days", whole, "total")
        ratio = costs[middle_size]["total"].total_s / whole["total"].total_s
        report.target(f"one day / a full run of {middle_size} days", ratio, 0.02)
        measure_real_size(report, real)
    report.end()


def measure_nothing_new(report: Report, place: Workspace, repeats: int) -> None:
    """Measure a run that finds nothing to do against a process that only imports the libraries behind it."""
    imports = f"import {', '.join(LIBRARIES)}"
    idle = run_interleaved(
        [
            Contender(imports, [sys.executable, "-c", imports], place.root, place.env),
            place.headrace("run, nothing new", "run", "flights"),
            place.headrace("run --release, nothing new", "run", "--release", "flights"),
        ],
        2 * repeats + 1,
    )
    report.table("nothing new", idle, imports)
    report.target(f"run, nothing new / {imports}", idle["run, nothing new"].total_s / idle[imports].total_s, 1.3)


def measure_real_size(report: Report, places: list[Workspace]) -> None:
    """Measure a year of days of real size, and one more day, with one command and with four."""
    years = []
    for place in places:
        run_once(subcommand(place, "--add-days", f"0:{DAYS_PER_YEAR}", "--real"))
        years.append(total_cost(run_commands(place, RUN_AND_RELEASE)))
    whole, repeats = median_cost(years), len(places)
    ways: dict[tuple[str, ...], list[Cost]] = {RUN_AND_RELEASE: [], COMMANDS: []}
    for turn in range(repeats):
        for number, (way, costs) in enumerate(list(ways.items())[:: -1 if turn % 2 else 1]):
            run_once(subcommand(place, "--add-days", f"{DAYS_PER_YEAR + 2 * turn + number}:1", "--real"))
            costs.append(total_cost(run_commands(place, way)))
    idle = median_cost(total_cost(run_commands(place, RUN_AND_RELEASE)) for _ in range(repeats))
    more = {f"one more: {', '.join(way)}": median_cost(costs) for way, costs in ways.items()}
    everything, nothing = (
        f"all {DAYS_PER_YEAR} days: {', '.join(RUN_AND_RELEASE)}",
        f"nothing new: {', '.join(RUN_AND_RELEASE)}",
    )
    report.table("days of real size, some 920 flights", {everything: whole, **more, nothing: idle}, everything)
    for what, cost in more.items():
        report.target(f"{what} / {everything}", cost.total_s / whole.total_s, 0.02)
    alone = median_cost(ways[RUN_AND_RELEASE]).total_s - idle.total_s
    report.target(f"one more less nothing new / {everything}", alone / whole.total_s, 0.02)


def run_commands(place: Workspace, commands: tuple[str, ...]) -> list[Cost]:
    """Run commands; the cost of each."""
    return [run_once(place.headrace(command, *command.split(), "flights")) for command in commands]


def days(count: int, first: int) -> list[date]:
    """Days since the beginning of 2013."""
    return [date(2013, 1, 1) + timedelta(days=first + number) for number in range(count)]


def check_day_released(place: Workspace, day: str) -> None:
    """Check that every stage has processed the day."""
    from headrace.storage.table_store import TableStore  # noqa: PLC0415

    table_store = TableStore.at(place.root)
    for table in ("raw/flights/flights", "validated/flights/flights", "features/flights/carrier_delays"):
        if day not in table_store.manifest(table).partitions:
            raise SystemExit(f"{table} has no partition {day}: nothing was measured.")


def median_by_stage(runs: list[dict[str, Cost]]) -> dict[str, Cost]:
    """Stage → median cost, and the median of the totals."""
    stages = {verb: median_cost(run[verb] for run in runs) for verb in COMMANDS}
    return {**stages, "total": median_cost(total_cost(run.values()) for run in runs)}


def measure_full_runs(places: list[Workspace], size: int) -> dict[str, Cost]:
    """Measure a full run over all days, once in each workspace."""
    runs = []
    for place in places:
        run_once(subcommand(place, "--add-days", f"0:{size}"))
        runs.append({verb: run_once(place.headrace(verb, verb, "flights")) for verb in COMMANDS})
    return median_by_stage(runs)


def prepare_workspace(place: Workspace, size: int) -> None:
    """Bring a workspace into the state after `size` days."""
    run_once(subcommand(place, "--add-days", f"0:{size}"))
    run_once(place.headrace("ingest", "ingest", "flights"))
    run_once(subcommand(place, "--create-history"))


def subcommand(place: Workspace, *arguments: str) -> Contender:
    """This script, run with the workspace's code."""
    return place.script("prepare", str(place.root / "benchmarks/increment.py"), *arguments)


def add_days(first: int, count: int, size: int | None) -> None:
    """Add days to the sources: files in the folder of the S3 server's bucket, rows in PostgreSQL."""
    import psycopg  # noqa: PLC0415
    from synthetic import compress, flights, planes, weather  # noqa: PLC0415

    from headrace.storage.s3.bucket import Bucket  # noqa: PLC0415
    from infra.demo.data import FlightYear  # noqa: PLC0415
    from infra.demo.seed_sources import PLANES, WEATHER, create_table  # noqa: PLC0415

    bucket = Path.cwd().parent / "home/stack/s3" / os.environ["HEADRACE_BUCKET"]
    new: list[date] = days(count, first)
    objects = {f"flights/{day}.csv.gz": compress(flights(day, rows=size)) for day in new}
    if first:  # the server caches the listing of a folder, so later objects are written through it
        for key, content in objects.items():
            Bucket(bucket.name, endpoint=os.environ["AWS_ENDPOINT_URL"]).write(key, content)
    else:
        objects["airports/airports.csv"] = FlightYear.installed().airports()
        for key, content in objects.items():
            (bucket / key).parent.mkdir(exist_ok=True)
            (bucket / key).write_bytes(content)
    with psycopg.connect(os.environ["HEADRACE_DATABASE_URL"].replace("+psycopg", "")) as connection:
        create_table(connection, "weather", WEATHER, ("origin", "time_hour"))
        create_table(connection, "planes", PLANES, ("tailnum",))
        for table, rows in (("weather", weather(new)), ("planes", planes() if not first else ())):
            with connection.cursor().copy(f"COPY {table} FROM STDIN".encode()) as copy:
                for row in rows:
                    copy.write_row(row)


def create_history(root: Path) -> None:
    """Create the tables and a release: the last days are computed, the entries of earlier days are simulated."""
    from headrace.engine.compute import compute_partition  # noqa: PLC0415
    from headrace.engine.run import plan_stage  # noqa: PLC0415
    from headrace.project import graph  # noqa: PLC0415
    from headrace.project.loading import load_dataset  # noqa: PLC0415
    from headrace.release import release  # noqa: PLC0415
    from headrace.storage.dvc.push import PushResult  # noqa: PLC0415
    from headrace.storage.manifest_entries import LazyEntries  # noqa: PLC0415
    from headrace.storage.table_store import TableStore  # noqa: PLC0415

    table_store, dataset = TableStore.at(root), load_dataset("flights")
    for stage in graph.dataset_stages(dataset):
        made = plan_stage(stage, table_store)
        entries: dict[str, PartitionEntry] = {}
        for item in reversed(made.stale):
            if len(entries) < COMPUTED_DAYS[stage.verb]:
                entries[item.partition] = compute_partition(stage, item, made.fingerprint, table_store)
                model = entries[item.partition]
            else:
                entries[item.partition] = _simulated_entry(table_store, stage.table, item, model)
        for manifest in replace(made, reused=LazyEntries.of(entries), stale=()).kept_manifests().values():
            table_store.checkout(manifest)
    bucket = root.parent / "home/stack/s3" / os.environ["HEADRACE_BUCKET"]

    def onto_disk(*_: object) -> PushResult:
        shutil.copytree(table_store.cache.folder / "files", bucket / "dvc/files", copy_function=os.link)
        return PushResult()

    with patch.object(release, "push_objects", onto_disk):
        release.create_release(dataset, table_store)


def _simulated_entry(
    table_store: "TableStore", table: str, item: "StalePartition", model: "PartitionEntry"
) -> "PartitionEntry":
    """An entry as the engine would have written it, with files of its own that nobody reads."""
    from msgspec import structs  # noqa: PLC0415

    from headrace.storage.partition_names import partition_interval  # noqa: PLC0415

    facts = dict(model.metadata)
    if "keys" in facts:
        facts["keys"] = [item.partition + str(end)[10:] for end in facts["keys"]]
    start, end = partition_interval(item.partition)

    def simulate(entry: "PartitionEntry", name: str) -> "PartitionEntry":
        computed = table_store.cache.path(entry.md5).read_bytes()
        stored = table_store.cache.add_bytes(_insert_before_footer(computed, f"{name} {item.partition}".encode()))
        own = structs.replace(entry, cache_key=item.cache_key, md5=stored.md5, sha256=stored.sha256, size=stored.size)
        return structs.replace(own, start=start, end=end)

    companions = {name: simulate(entry, name) for name, entry in model.companions.items()}
    return structs.replace(simulate(model, table), inputs=item.inputs, metadata=facts, companions=companions)


def _insert_before_footer(content: bytes, text: bytes) -> bytes:
    """A Parquet file with other bytes and the same rows: readers find columns by offsets from the file's start."""
    # At the end of a file: the footer, its length in four bytes, and the magic number.
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    return content[:footer] + text + content[footer:]


if __name__ == "__main__":
    main()
