"""Recording and pushing a table: one new partition on many, and many new objects, against `dvc`, rclone and boto3.

Ours lists the table, writes the objects that are new and looks at each again on the remote; `dvc add` and `dvc push`
are what one would type instead. The remote is `rclone serve s3`.
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

from environment import Workspace, servers, workspace
from measure import Contender, Cost, Report, in_turns, middle, once, options

TABLE = "raw/bench/parts"
FOLDER = f"data/{TABLE}"
SIZES = (365, 3650)
PART = 4096
BULKS = {"small": (500, 50_000), "large": (4, 100_000_000)}
FULL_BULKS = {"small": (5000, 50_000), "large": (20, 100_000_000)}
NUMBERS = count()


def main() -> None:
    """Measure and report."""
    parser = options(__doc__ or "")
    parser.add_argument("--do", nargs="+", help="(for itself)")
    asked = parser.parse_args()
    if asked.do:
        verb, *rest = asked.do
        verbs: dict[str, Callable[..., None]] = {"fill": fill, "append": append, "push": push, "pool": pool}
        verbs[verb](*map(int, rest))
        return
    report = Report("commit", as_json=asked.json)
    with servers("s3") as (folder, env):
        # All of them before the first request: the server remembers which buckets it has seen.
        bulks = {name: workspace(folder, env, name) for name in BULKS}
        appending(report, folder, env, asked.repeats)
        for name, (number, size) in (FULL_BULKS if asked.full else BULKS).items():
            bulk(report, bulks[name], number, size, 1 if asked.full else asked.repeats)
    report.end()


def do(place: Workspace, name: str, *arguments: object) -> Contender:
    """A verb of this script, with the workspace's code."""
    return place.script(name, str(place.root / "benchmarks/commit.py"), "--do", *map(str, arguments))


def appending(report: Report, folder: Path, env: Mapping[str, str], repeats: int) -> None:
    """One new partition, for each size and both ways."""
    places = {(who, size): workspace(folder, env, f"{who}{size}") for who in ("ours", "dvc") for size in SIZES}
    for (_, size), place in places.items():
        once(do(place, "fill", "fill", size, PART))
        shutil.copytree(place.root / ".dvc/cache/files", place.bucket / "dvc/files", copy_function=os.link)
    runs: dict[tuple[str, int], list[Cost]] = {key: [] for key in places}
    for turn in range(repeats + 1):
        for (who, size), place in places.items():
            runs[who, size].append(once(appender(place, who, size + turn)))
    costs = {f"{who}, {size:,}": middle(found[1:]) for (who, size), found in runs.items()}
    report.table("one partition appended, recorded and pushed", costs, f"ours, {SIZES[-1]:,}")
    most = f"{SIZES[-1]:,}"
    report.target(f"ours / dvc add + push at {most}", costs[f"ours, {most}"].cpu_s / costs[f"dvc, {most}"].cpu_s, 0.2)
    report.target(f"ours at {most} / at {SIZES[0]}", costs[f"ours, {most}"].cpu_s / costs["ours, 365"].cpu_s, 1.5)


def appender(place: Workspace, who: str, number: int) -> Contender:
    """One more partition, ours or stock."""
    if who == "ours":
        return do(place, who, "append", number)
    dvc = Path(sys.executable).with_name("dvc")
    new = place.root / FOLDER / f"{number:06}.bin"
    line = f"{dvc} add --quiet {FOLDER} && {dvc} push --quiet {FOLDER}.dvc"
    env = {**place.env, "PATH": f"{dvc.parent}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    return Contender(who, ["sh", "-c", line], place.root, env, partial(new.write_bytes, os.urandom(PART)))


def bulk(report: Report, place: Workspace, number: int, size: int, repeats: int) -> None:
    """Many new objects, to a prefix of its own each time."""
    once(do(place, "fill", "fill", number, size))
    shown = Path(place.root / ".dvc/config.local").read_text()

    def elsewhere() -> None:
        (place.root / ".dvc/config.local").write_text(shown.replace("/dvc\n", f"/dvc{next(NUMBERS)}\n"))

    binaries = Path(sys.executable).parent
    env = {**place.env, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    there = {
        "RCLONE_CONFIG_B_TYPE": "s3", "RCLONE_CONFIG_B_PROVIDER": "Rclone",
        "RCLONE_CONFIG_B_ENDPOINT": env["AWS_ENDPOINT_URL"], "RCLONE_CONFIG_B_ACCESS_KEY_ID": env["AWS_ACCESS_KEY_ID"],
        "RCLONE_CONFIG_B_SECRET_ACCESS_KEY": env["AWS_SECRET_ACCESS_KEY"],
    }  # fmt: skip
    copy = f"rclone copy --config /dev/null --transfers 16 .dvc/cache/files B:{place.bucket.name}/copy$(date +%s%N)"
    contenders = [
        Contender("ours", do(place, "ours", "push").command, place.root, place.env, elsewhere),
        Contender("dvc push", [str(binaries / "dvc"), "push", "--quiet", f"{FOLDER}.dvc"], place.root, env, elsewhere),
        Contender("rclone copy", ["sh", "-c", copy], place.root, {**env, **there}),
        Contender("boto3, 16 threads", do(place, "boto3", "pool").command, place.root, place.env),
    ]
    costs = in_turns(contenders, repeats)
    report.table(f"{number:,} objects of {size / 1e6:g} MB pushed", costs, "ours")
    peers = [cost for name, cost in costs.items() if name != "ours"]
    report.target("CPU: ours / the best of them", costs["ours"].cpu_s / min(cost.cpu_s for cost in peers), 1.3)
    report.target("wall: ours / the best of them", costs["ours"].wall_s / min(cost.wall_s for cost in peers), 1.3)


def fill(number: int, size: int) -> None:
    """A table of `number` partitions, shown, in the cache and recorded."""
    from headrace.storage.dvc.lock import write_pointer  # noqa: PLC0415
    from headrace.storage.manifest import Manifest, PartitionEntry  # noqa: PLC0415
    from headrace.storage.table_store import Lake  # noqa: PLC0415

    lake, entries = Lake.at(Path.cwd()), {}
    for name in range(number):
        stored = lake.cache.add_bytes(os.urandom(size))
        entries[f"{name:06}"] = PartitionEntry(stored.md5, stored.md5, stored.size)
    manifest = Manifest(TABLE, ".bin", partitions=entries)
    lake.commit(manifest)
    write_pointer(lake.root, lake.out(manifest, {}))


def append(number: int) -> None:
    """Ours: one more partition, recorded and pushed."""
    from headrace.storage.dvc.lock import recorded_outs, write_pointer  # noqa: PLC0415
    from headrace.storage.dvc.push import push_objects  # noqa: PLC0415
    from headrace.storage.manifest import PartitionEntry  # noqa: PLC0415
    from headrace.storage.table_store import Lake  # noqa: PLC0415

    lake = Lake.at(Path.cwd())
    before, there = lake.manifest(TABLE), recorded_outs(lake.root)
    stored = lake.cache.add_bytes(os.urandom(PART))
    after = before.plus({f"{number:06}": PartitionEntry(stored.md5, stored.md5, stored.size)})
    lake.commit(after)
    out = lake.out(after, there)
    push_objects(lake.cache, [out], there.values(), {})
    write_pointer(lake.root, out)


def push() -> None:
    """Ours: every object of the table."""
    from headrace.storage.dvc.lock import recorded_outs  # noqa: PLC0415
    from headrace.storage.dvc.push import push_objects  # noqa: PLC0415
    from headrace.storage.table_store import Lake  # noqa: PLC0415

    lake = Lake.at(Path.cwd())
    pushed = push_objects(lake.cache, recorded_outs(lake.root).values(), (), {})
    print(json.dumps(vars(pushed)))


def pool() -> None:
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
