"""Recording and pushing a table: one new partition on many, and many new objects, against `dvc`, rclone and boto3.

Headrace lists the table, uploads the new objects and verifies each on the remote; the alternative is `dvc add` and
`dvc push`. The remote is `rclone serve s3`.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path

from environment import Workspace, create_workspace, run_servers
from measure import Contender, Cost, Report, create_parser, median_cost, run_interleaved, run_once

TABLE = "raw/bench/parts"
FOLDER = f"data/{TABLE}"
SIZES = (365, 3650)
PARTITION_BYTES = 4096
OBJECTS = {"small": (500, 50_000), "large": (4, 100_000_000)}
FULL_OBJECTS = {"small": (5000, 50_000), "large": (20, 100_000_000)}
PREFIX_NUMBERS = count()


def main() -> None:
    """Measure and report."""
    parser = create_parser(__doc__ or "")
    parser.add_argument("--do", nargs="+", help="(internal)")
    arguments = parser.parse_args()
    if arguments.do:
        name, *rest = arguments.do
        subcommands: dict[str, Callable[..., None]] = {
            "fill": write_table,
            "append": append_partition,
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
            measure_bulk_push(report, bulks[name], number, size, 1 if arguments.full else arguments.repeats)
    report.end()


def subcommand(place: Workspace, name: str, *arguments: object) -> Contender:
    """A subcommand of this script, with the workspace's code."""
    return place.script(name, str(place.root / "benchmarks/commit.py"), "--do", *map(str, arguments))


def measure_append(report: Report, folder: Path, env: Mapping[str, str], repeats: int) -> None:
    """Measure appending one partition, for each table size, with Headrace and with DVC."""
    places = {
        (tool, size): create_workspace(folder, env, f"{tool}{size}") for tool in ("ours", "dvc") for size in SIZES
    }
    for (_, size), place in places.items():
        run_once(subcommand(place, "fill", "fill", size, PARTITION_BYTES))
        shutil.copytree(place.root / ".dvc/cache/files", place.bucket / "dvc/files", copy_function=os.link)
    runs: dict[tuple[str, int], list[Cost]] = {key: [] for key in places}
    for turn in range(repeats + 1):
        for (tool, size), place in places.items():
            runs[tool, size].append(run_once(append_contender(place, tool, size + turn)))
    costs = {f"{tool}, {size:,}": median_cost(found[1:]) for (tool, size), found in runs.items()}
    report.table("one partition appended, recorded and pushed", costs, f"ours, {SIZES[-1]:,}")
    most = f"{SIZES[-1]:,}"
    report.target(f"ours / dvc add + push at {most}", costs[f"ours, {most}"].cpu_s / costs[f"dvc, {most}"].cpu_s, 0.2)
    report.target(f"ours at {most} / at {SIZES[0]}", costs[f"ours, {most}"].cpu_s / costs["ours, 365"].cpu_s, 1.5)


def append_contender(place: Workspace, tool: str, number: int) -> Contender:
    """Append one partition, with Headrace or with DVC."""
    if tool == "ours":
        return subcommand(place, tool, "append", number)
    dvc = Path(sys.executable).with_name("dvc")
    new = place.root / FOLDER / f"{number:06}.bin"
    line = f"{dvc} add --quiet {FOLDER} && {dvc} push --quiet {FOLDER}.dvc"
    env = {**place.env, "PATH": f"{dvc.parent}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    return Contender(tool, ["sh", "-c", line], place.root, env, partial(new.write_bytes, os.urandom(PARTITION_BYTES)))


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
    report.target("CPU: ours / the best of them", costs["ours"].cpu_s / min(cost.cpu_s for cost in peers), 1.3)
    report.target("wall: ours / the best of them", costs["ours"].wall_s / min(cost.wall_s for cost in peers), 1.3)


def write_table(number: int, size: int) -> None:
    """Write a table of `number` partitions to the workspace and the cache, and record it."""
    from headrace.storage.dvc.lock import write_pointer  # noqa: PLC0415
    from headrace.storage.manifest import Manifest  # noqa: PLC0415
    from headrace.storage.partition_entry import PartitionEntry  # noqa: PLC0415
    from headrace.storage.table_store import TableStore  # noqa: PLC0415

    table_store, entries = TableStore.at(Path.cwd()), {}
    for name in range(number):
        stored = table_store.cache.add_bytes(os.urandom(size))
        entries[f"{name:06}"] = PartitionEntry(stored.md5, stored.md5, stored.size)
    manifest = Manifest(TABLE, ".bin", partitions=entries)
    table_store.checkout(manifest)
    write_pointer(table_store.root, table_store.dvc_out(manifest, {}))


def append_partition(number: int) -> None:
    """Headrace: append one partition, record and push it."""
    from headrace.storage.dvc.lock import recorded_outs, write_pointer  # noqa: PLC0415
    from headrace.storage.dvc.push import push_objects  # noqa: PLC0415
    from headrace.storage.partition_entry import PartitionEntry  # noqa: PLC0415
    from headrace.storage.table_store import TableStore  # noqa: PLC0415

    table_store = TableStore.at(Path.cwd())
    before, recorded = table_store.manifest(TABLE), recorded_outs(table_store.root)
    stored = table_store.cache.add_bytes(os.urandom(PARTITION_BYTES))
    after = before.plus({f"{number:06}": PartitionEntry(stored.md5, stored.md5, stored.size)})
    table_store.checkout(after)
    out = table_store.dvc_out(after, recorded)
    push_objects(table_store.cache, [out], recorded.values(), {})
    write_pointer(table_store.root, out)


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
