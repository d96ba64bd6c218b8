"""One new day on top of 30, 365 and 3,650 days: what each stage costs, the release's commit and push included.

The first days are tiny (24 flights and 6 hours of weather each), so that what grows with their number shows. Raw data
is ingested for real. Of what came of it, the last days are computed and the ones before stand as if they had been: with
their memo keys, counts and bytes of their own, in the workspace, in the cache and on the remote. No run reads them,
which is the claim. A full run over 365 days stands beside it.

Of tiny days, what a command takes to start is most of either side. So the share of one day in a year is measured a
second time on days as large as those of 2013 (336,776 flights), all of them run for real: with the four commands, and
with `headrace run --release`, as one types it. A year of such days takes so little that a process that finds nothing to
do is a tenth of it: the share is told with it and without.
"""

import os
import shutil
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from environment import Workspace, servers, workspace
from measure import Contender, Cost, Report, in_turns, middle, once, options, total

if TYPE_CHECKING:
    from headrace.engine.plan import Stale
    from headrace.storage.manifest import PartitionEntry
    from headrace.storage.table_store import Lake

SIZES = (30, 365, 3650)
FLIGHTS_A_DAY = 24
COMPUTED = {"validate": 28, "transform": 14}
"""Days at the end that are computed: a feature's day reads the ten before it."""
VERBS = ("ingest", "validate", "transform", "release")
RUN = ("run --release",)
"""The same, as one types it."""
YEAR = 365


def main() -> None:
    """Measure and report."""
    parser = options(__doc__ or "")
    parser.add_argument("--grow", help="(for itself) bring days FIRST:COUNT of a workspace's sources")
    parser.add_argument("--real", action="store_true", help="(for itself) days as large as those of 2013")
    parser.add_argument("--stand-in", action="store_true", help="(for itself) make a workspace's history")
    asked = parser.parse_args()
    if asked.grow:
        first, count = map(int, asked.grow.split(":"))
        grow(first, count, None if asked.real else FLIGHTS_A_DAY)
    elif asked.stand_in:
        stand_in(Path.cwd())
    else:
        compare(Report("increment", as_json=asked.json), asked.repeats)


def compare(report: Report, repeats: int) -> None:
    """Each repeat brings the next day to every size, in turns."""
    with servers("s3", "postgres") as (folder, env):
        places = {size: workspace(folder, env, f"days{size}") for size in SIZES}
        full, real = (workspace(folder, env, name) for name in ("full", "real"))  # before the server lists its buckets
        for size, place in places.items():
            prepare(place, size)
        runs: dict[int, list[dict[str, Cost]]] = {size: [] for size in SIZES}
        for turn in range(repeats + 1):
            for size, place in places.items():
                once(script(place, "--grow", f"{size + turn}:1"))
                runs[size].append({verb: once(place.headrace(verb, verb, "flights")) for verb in VERBS})
                expect(place, str(days(1, size + turn)[0]))
        costs = {size: by_stage(found[1:]) for size, found in runs.items()}  # the first run writes bytecode
        for size in SIZES:
            report.table(f"one new day on top of {size:,}", costs[size], "total")
        least, middle_size, most = SIZES
        for verb in (*VERBS, "total"):
            ratio = costs[most][verb].cpu_s / costs[least][verb].cpu_s
            report.target(f"{verb}: t({most:,}) / t({least})", ratio, 1.5)
        whole = full_run(full, middle_size)
        report.table(f"everything, {middle_size} days", whole, "total")
        ratio = costs[middle_size]["total"].cpu_s / whole["total"].cpu_s
        report.target(f"one day / a full run of {middle_size} days", ratio, 0.02)
        real_size(report, real, repeats)
    report.end()


def real_size(report: Report, place: Workspace, repeats: int) -> None:
    """A year of days of real size, and one more day, in both ways."""
    once(script(place, "--grow", f"0:{YEAR}", "--real"))
    whole = total(typed(place, RUN))
    ways: dict[tuple[str, ...], list[Cost]] = {RUN: [], VERBS: []}
    for turn in range(repeats):
        for number, (way, costs) in enumerate(ways.items()):
            once(script(place, "--grow", f"{YEAR + 2 * turn + number}:1", "--real"))
            costs.append(total(typed(place, way)))
    idle = middle(total(typed(place, RUN)) for _ in range(repeats))
    more = {f"one more: {', '.join(way)}": middle(costs) for way, costs in ways.items()}
    everything, nothing = f"all {YEAR} days: {', '.join(RUN)}", f"nothing new: {', '.join(RUN)}"
    report.table("days of real size, some 920 flights", {everything: whole, **more, nothing: idle}, everything)
    for what, cost in more.items():
        report.target(f"{what} / {everything}", cost.cpu_s / whole.cpu_s, 0.02)
    alone = middle(ways[RUN]).cpu_s - idle.cpu_s
    report.target(f"one more less nothing new / {everything}", alone / whole.cpu_s, 0.02)


def typed(place: Workspace, commands: tuple[str, ...]) -> list[Cost]:
    """What each of these commands costs."""
    return [once(place.headrace(command, *command.split(), "flights")) for command in commands]


def days(count: int, first: int) -> list[date]:
    """Days since the beginning of 2013."""
    return [date(2013, 1, 1) + timedelta(days=first + number) for number in range(count)]


def expect(place: Workspace, day: str) -> None:
    """Make sure that the day went all the way."""
    for table in ("raw/flights/flights", "validated/flights/flights", "features/flights/carrier_delays"):
        if day not in place.lake.manifest(table).partitions:
            raise SystemExit(f"{table} has no partition {day}: nothing was measured.")


def by_stage(runs: list[dict[str, Cost]]) -> dict[str, Cost]:
    """Stage → median, and that of the totals."""
    stages = {verb: middle(run[verb] for run in runs) for verb in VERBS}
    return {**stages, "total": middle(total(run.values()) for run in runs)}


def full_run(place: Workspace, size: int) -> dict[str, Cost]:
    """All days, from nothing, once."""
    once(script(place, "--grow", f"0:{size}"))
    costs = in_turns([place.headrace(verb, verb, "flights") for verb in VERBS], 1)
    return {**costs, "total": total(costs.values())}


def prepare(place: Workspace, size: int) -> None:
    """Bring a workspace to where it would be after `size` days."""
    once(script(place, "--grow", f"0:{size}"))
    once(place.headrace("ingest", "ingest", "flights"))
    once(script(place, "--stand-in"))


def script(place: Workspace, *arguments: str) -> Contender:
    """This script, with the workspace's code."""
    return place.script("prepare", str(place.root / "benchmarks/increment.py"), *arguments)


def grow(first: int, count: int, size: int | None) -> None:
    """Put days into the sources: files where the S3 server has its bucket, rows into PostgreSQL."""
    import psycopg  # noqa: PLC0415
    from synthetic import file, flights, packed, planes, weather  # noqa: PLC0415

    from headrace.storage.s3.bucket import Bucket  # noqa: PLC0415
    from infra.demo.seed_sources import PLANES, WEATHER, create_table  # noqa: PLC0415

    bucket = Path.cwd().parent / "home/stack/s3" / os.environ["HEADRACE_BUCKET"]
    new: list[date] = days(count, first)
    objects = {f"flights/{day}.csv.gz": packed(flights(day, rows=size)) for day in new}
    if first:  # the server remembers a folder that it has listed: what comes later goes through it
        for key, content in objects.items():
            Bucket(bucket.name, endpoint=os.environ["AWS_ENDPOINT_URL"]).write(key, content)
    else:
        objects["airports/airports.csv"] = file("airports.csv").read_bytes()
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


def stand_in(root: Path) -> None:
    """Make the tables and a release: the last days computed, the others as if they had been."""
    from headrace.engine.compute import build  # noqa: PLC0415
    from headrace.engine.run import plan_stage  # noqa: PLC0415
    from headrace.project import graph  # noqa: PLC0415
    from headrace.project.loading import load_dataset  # noqa: PLC0415
    from headrace.release import release  # noqa: PLC0415
    from headrace.storage.dvc.push import PushResult  # noqa: PLC0415
    from headrace.storage.table_store import Lake  # noqa: PLC0415

    lake, dataset = Lake.at(root), load_dataset("flights")
    for stage in graph.dataset_stages(dataset):
        made = plan_stage(stage, lake)
        entries: dict[str, PartitionEntry] = {}
        for item in reversed(made.stale):
            if len(entries) < COMPUTED[stage.verb]:
                entries[item.partition] = build(stage, item, made.fingerprint, lake)
                model = entries[item.partition]
            else:
                entries[item.partition] = _as_if(lake, stage.table, item, model)
        for table in stage.beside:
            lake.commit(replace(made.manifest({}), table=table))
        lake.commit(made.manifest(entries))
    bucket = root.parent / "home/stack/s3" / os.environ["HEADRACE_BUCKET"]

    def onto_disk(*_: object) -> PushResult:
        shutil.copytree(lake.cache.folder / "files", bucket / "dvc/files", copy_function=os.link)
        return PushResult()

    with patch.object(release, "push_objects", onto_disk):
        release.create_release(dataset, lake)


def _as_if(lake: "Lake", table: str, item: "Stale", model: "PartitionEntry") -> "PartitionEntry":
    """An entry as the engine would have made it, of bytes that nobody reads."""
    from msgspec import structs  # noqa: PLC0415

    from headrace.storage.partition_names import partition_interval  # noqa: PLC0415

    stored = lake.cache.add_bytes(f"{table} {item.partition}".encode().ljust(model.size))
    facts = dict(model.metadata)
    if "keys" in facts:
        facts["keys"] = [item.partition + str(end)[10:] for end in facts["keys"]]
    start, end = partition_interval(item.partition)
    return structs.replace(
        model,
        cache_key=item.memo,
        md5=stored.md5,
        sha256=stored.sha256,
        size=stored.size,
        start=start,
        end=end,
        inputs=item.inputs,
        metadata=facts,
        companions={},
    )


if __name__ == "__main__":
    main()
