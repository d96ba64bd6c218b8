"""Recording and pushing tables: one new day on many, and many new objects, against DVC, rclone and boto3.

One day more in two tables of one file per day, which the stages have written: `headrace release` audits them, uploads
what is new, verifies it on the remote, and pushes a commit and a tag; the alternative is `dvc add`, `dvc push`, `git
commit`, `git tag` and `git push` on the same files. It is measured as commands, and as calls in one process that has
imported everything: `create_release`, and `Repo.add` and `Repo.push` of DVC, with the same steps of git. The remote is
`rclone serve s3`.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from itertools import count
from pathlib import Path

from environment import Workspace, create_workspace, run_git, run_servers
from measure import (
    Contender,
    Cost,
    Report,
    create_parser,
    measure_call,
    median_cost,
    run_interleaved,
    run_once,
)

SIZES = (365, 3650)
TABLES = ("raw/bench/sales", "validated/bench/sales")
SOURCE = ".headrace/source/sales"
RESULT = ".headrace/cost.json"
KINDS = {"commands": "commands", "calls": "calls in one process"}
GIT_STEPS = (
    "git add --all data && git commit --quiet --message next && git tag bench-$(git rev-list --count HEAD)"
    " && git push --quiet --atomic --tags origin HEAD"
)
PIPELINE = '''"""Sales of two shops, one file per day."""

import dataframely as dy
import polars as pl

from headrace import CsvDialect, Dataset, ObjectSource, Source, read_csv, utc_time


class Sales(dy.Schema):
    """One row per shop and time."""

    at = utc_time()
    shop = dy.String()
    amount = dy.Int64(min=0)


def read(path) -> pl.DataFrame:
    """One file, every column as text."""
    return read_csv(path, CsvDialect())


def keep(rows: pl.DataFrame) -> pl.DataFrame:
    """All rows."""
    return rows


SALES = Source(
    name="sales",
    location=ObjectSource(
        location="file:.headrace/source/sales/", partition=r"(?P<partition>.+)\\.csv", suffix=".csv"
    ),
    read=read,
    contract=Sales,
    transform=keep,
    key=("at", "shop"),
)
DATASET = Dataset(description="Sales.", owner="bench", sources=(SALES,))
'''

TABLE = "raw/bench/parts"
FOLDER = f"data/{TABLE}"
OBJECTS = {"small": (500, 50_000), "large": (4, 100_000_000)}
FULL_OBJECTS = {"small": (5000, 50_000), "large": (20, 100_000_000)}
PREFIX_NUMBERS = count()


def main() -> None:
    """Measure and report."""
    parser = create_parser(__doc__ or "", large="ten times as many small objects, five times as many large ones")
    parser.add_argument("--do", nargs="+", help="(internal)")
    arguments = parser.parse_args()
    if arguments.do:
        name, *rest = arguments.do
        subcommands: dict[str, Callable[..., None]] = {
            "fill": write_table,
            "call-ours": call_headrace,
            "call-dvc": call_dvc,
            "push": push_table,
            "pool": push_with_boto3,
        }
        subcommands[name](*map(int, rest))
        return
    report = Report("commit", as_json=arguments.json)
    with run_servers("s3") as (folder, env):
        # All workspaces are created before the first request, because the server caches its list of buckets.
        bulks = {name: create_workspace(folder, env, name) for name in OBJECTS}
        measure_append(report, folder, env, arguments.repeats)
        for name, (number, size) in (FULL_OBJECTS if arguments.full else OBJECTS).items():
            measure_bulk_push(report, bulks[name], number, size, arguments.repeats)
    report.end()


def subcommand(place: Workspace, name: str, *arguments: object) -> Contender:
    """A subcommand of this script, with the workspace's code."""
    return place.script(name, str(place.root / "benchmarks/commit.py"), "--do", *map(str, arguments))


# One partition more


def measure_append(report: Report, folder: Path, env: Mapping[str, str], repeats: int) -> None:
    """Measure recording and pushing one more day on top of each number of days: commands, and calls in one process."""
    places = {
        (tool, size): create_workspace(folder, env, f"{tool}{size}") for tool in ("ours", "dvc") for size in SIZES
    }
    for size in SIZES:
        prepare_release(places["ours", size], size)
        prepare_dvc(places["dvc", size], places["ours", size])
    costs: dict[str, dict[str, Cost]] = {}
    days = dict.fromkeys(places, 0)
    for kind, described in KINDS.items():
        runs: dict[tuple[str, int], list[Cost]] = {key: [] for key in places}
        for turn in range(repeats + 1):  # the first writes bytecode
            for tool, size in list(places)[:: -1 if turn % 2 else 1]:
                add_day(places[tool, size], tool, size + days[tool, size])
                days[tool, size] += 1
                runs[tool, size].append(record_day(places[tool, size], tool, kind))
        costs[kind] = {f"{tool}, {size:,} days": median_cost(found[1:]) for (tool, size), found in runs.items()}
        few, many = (f"ours, {size:,} days" for size in SIZES)
        report.table(f"one day more in two tables, recorded, pushed and tagged: {described}", costs[kind], many)
        stock = costs[kind][f"dvc, {SIZES[-1]:,} days"]
        report.target(f"ours / DVC at {SIZES[-1]:,} days", costs[kind][many].total_s / stock.total_s, 0.2)
        report.target(
            f"ours at {SIZES[-1]:,} / at {SIZES[0]:,}", costs[kind][many].total_s / costs[kind][few].total_s, 1.5
        )


def prepare_release(place: Workspace, days: int) -> None:
    """A workspace with a dataset of that many days, validated and released."""
    (place.root / "pipelines/bench").mkdir()
    (place.root / "pipelines/bench/__init__.py").write_text(PIPELINE)
    run_once(place.headrace("dvc-sync", "dvc-sync"))
    run_git(place.root, "add", "--all")
    run_git(place.root, "commit", "--quiet", "--message", "Declare bench")
    run_git(place.root, "push", "--quiet", "origin", "HEAD")
    (place.root / SOURCE).mkdir(parents=True)
    for number in range(days):
        write_day(place.root / SOURCE, number)
    for command in ("ingest", "validate", "release"):
        run_once(place.headrace(command, command, "bench"))


def prepare_dvc(place: Workspace, ours: Workspace) -> None:
    """A workspace with the same files, recorded and pushed by DVC."""
    for table in TABLES:
        files = [path for path in (ours.root / "data" / table).iterdir() if path.is_file()]
        (place.root / "data" / table).mkdir(parents=True)
        for path in files:
            shutil.copyfile(path, place.root / "data" / table / path.name)
    (place.root / "dvc.yaml").unlink()  # whose stages have these tables as outputs
    dvc(place)


def add_day(place: Workspace, tool: str, number: int) -> None:
    """Write the files of one more day to both tables."""
    if tool == "ours":
        write_day(place.root / SOURCE, number)
        for command in ("ingest", "validate"):
            run_once(place.headrace(command, command, "bench"))
        return
    for table in TABLES:
        last = max((place.root / "data" / table).iterdir())
        last.with_name(f"{day_name(number)}{last.suffix}").write_bytes(last.read_bytes() + os.urandom(16))


def record_day(place: Workspace, tool: str, kind: str) -> Cost:
    """Record, push and tag what is new; its cost."""
    if kind == "commands":
        return run_once(place.headrace("release", "release", "bench")) if tool == "ours" else dvc(place)
    whole = run_once(subcommand(place, tool, f"call-{tool}"))
    return Cost(**json.loads((place.root / RESULT).read_text()), server_s=whole.server_s)


def dvc(place: Workspace) -> Cost:
    """What DVC's documentation shows: `dvc add`, `dvc push`, and a commit with a tag."""
    program = Path(sys.executable).with_name("dvc")
    folders = " ".join(f"data/{table}" for table in TABLES)
    pointers = " ".join(f"data/{table}.dvc" for table in TABLES)
    line = f"{program} add --quiet {folders} && {program} push --quiet {pointers} && {GIT_STEPS}"
    env = {**place.env, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    return run_once(Contender("dvc", ["sh", "-c", f"set -e; {line}"], place.root, env))


def call_headrace() -> None:
    """Headrace: `create_release`, after all imports."""
    from headrace.__main__ import tune_gc  # noqa: PLC0415
    from headrace.project.loading import load_dataset  # noqa: PLC0415
    from headrace.release.release import create_release  # noqa: PLC0415
    from headrace.storage.table_store import TableStore  # noqa: PLC0415

    tune_gc()
    dataset, table_store = load_dataset("bench"), TableStore.at(Path.cwd())
    write_cost(measure_call(lambda: create_release(dataset, table_store)))


def call_dvc() -> None:
    """DVC: `Repo.add` and `Repo.push`, after all imports, and the same steps of git."""
    import dvc_s3  # type: ignore[import-untyped]  # noqa: F401, PLC0415
    from dvc.repo import Repo  # noqa: PLC0415

    from headrace.__main__ import tune_gc  # noqa: PLC0415

    tune_gc()

    def record() -> None:
        with Repo() as repo:
            repo.add([f"data/{table}" for table in TABLES])
            repo.push([f"data/{table}.dvc" for table in TABLES])
        subprocess.run(["sh", "-c", f"set -e; {GIT_STEPS}"], check=True)

    write_cost(measure_call(record))


def write_cost(cost: Cost) -> None:
    """Hand a cost to the process that started this one, which counts the servers."""
    Path(RESULT).parent.mkdir(exist_ok=True)
    Path(RESULT).write_text(json.dumps({"cpu_s": cost.cpu_s, "wall_s": cost.wall_s, "peak_mb": cost.peak_mb}))


def day_name(number: int) -> str:
    """A partition."""
    return (date(2013, 1, 1) + timedelta(days=number)).isoformat()


def write_day(folder: Path, number: int) -> None:
    """Write the source's file of a day."""
    day = day_name(number)
    (folder / f"{day}.csv").write_text(f"at,shop,amount\n{day}T12:00:00Z,east,{number}\n{day}T12:00:00Z,west,1\n")


# Many new objects


def measure_bulk_push(report: Report, place: Workspace, number: int, size: int, repeats: int) -> None:
    """Measure pushing many new objects, each time to a new prefix."""
    run_once(subcommand(place, "fill", "fill", number, size))
    config = Path(place.root / ".dvc/config.local").read_text()

    def use_new_prefix() -> None:
        (place.root / ".dvc/config.local").write_text(config.replace("/dvc\n", f"/dvc{next(PREFIX_NUMBERS)}\n"))

    binaries = Path(sys.executable).parent
    env = {**place.env, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    rclone_env = {
        "RCLONE_CONFIG_B_TYPE": "s3", "RCLONE_CONFIG_B_PROVIDER": "Rclone",
        "RCLONE_CONFIG_B_ENDPOINT": env["AWS_ENDPOINT_URL"], "RCLONE_CONFIG_B_ACCESS_KEY_ID": env["AWS_ACCESS_KEY_ID"],
        "RCLONE_CONFIG_B_SECRET_ACCESS_KEY": env["AWS_SECRET_ACCESS_KEY"],
    }  # fmt: skip
    copy = f"rclone copy --config /dev/null --transfers 16 .dvc/cache/files B:{place.bucket.name}/copy$(date +%s%N)"
    contenders = [
        Contender("ours", subcommand(place, "ours", "push").command, place.root, place.env, use_new_prefix),
        Contender(
            "dvc push", [str(binaries / "dvc"), "push", "--quiet", f"{FOLDER}.dvc"], place.root, env, use_new_prefix
        ),
        Contender("rclone copy", ["sh", "-c", copy], place.root, {**env, **rclone_env}),
        Contender("boto3, 16 threads", subcommand(place, "boto3", "pool").command, place.root, place.env),
    ]
    costs = run_interleaved(contenders, repeats)
    report.table(f"{number:,} objects of {size / 1e6:g} MB pushed", costs, "ours")
    peers = [cost for name, cost in costs.items() if name != "ours"]
    report.target("CPU: ours / the best of them", costs["ours"].total_s / min(cost.total_s for cost in peers), 1.3)
    report.target("wall: ours / the best of them", costs["ours"].wall_s / min(cost.wall_s for cost in peers), 1.3)


def write_table(number: int, size: int) -> None:
    """Write a table of `number` partitions to the workspace and the cache, and record it."""
    from headrace.storage.dvc.lock import pointer_file  # noqa: PLC0415
    from headrace.storage.manifest import Manifest  # noqa: PLC0415
    from headrace.storage.partition_entry import PartitionEntry  # noqa: PLC0415
    from headrace.storage.table_store import TableStore  # noqa: PLC0415

    table_store, entries = TableStore.at(Path.cwd()), {}
    for name in range(number):
        stored = table_store.cache.add_bytes(os.urandom(size))
        entries[f"{name:06}"] = PartitionEntry(stored.md5, stored.md5, stored.size)
    manifest = Manifest(TABLE, ".bin", partitions=entries)
    table_store.checkout(manifest)
    path, content = pointer_file(table_store.dvc_out(manifest, {}))
    (table_store.root / path).write_bytes(content)


def push_table() -> None:
    """Headrace: push every object of the table."""
    from headrace.storage.dvc.lock import recorded_outs  # noqa: PLC0415
    from headrace.storage.dvc.push import push_objects  # noqa: PLC0415
    from headrace.storage.table_store import TableStore  # noqa: PLC0415

    table_store = TableStore.at(Path.cwd())
    pushed = push_objects(table_store.cache, recorded_outs(table_store.root).values(), (), {})
    print(json.dumps(vars(pushed)))


def push_with_boto3() -> None:
    """boto3: `upload_file` on 16 threads."""
    import boto3  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    bucket, prefix = os.environ["HEADRACE_BUCKET"], f"pool{os.getpid()}"
    client = boto3.client("s3", config=Config(max_pool_connections=16))
    files = [path for path in Path(".dvc/cache/files").rglob("*") if path.is_file()]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda path: client.upload_file(str(path), bucket, f"{prefix}/{path.name}"), files))


if __name__ == "__main__":
    main()
