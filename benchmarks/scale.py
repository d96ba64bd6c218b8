"""What plans, manifests, listings, locks and git cost per partition, stage and release: the constants of docs/scale.md.

Tables have manifests as the engine writes them, and no data behind them. Listings, git and its remote are real, on this
machine.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time
from typing import TYPE_CHECKING, Any

from environment import create_workspace, run_git, run_servers
from measure import Contender, Report, create_parser, run_interleaved, run_once

if TYPE_CHECKING:
    from headrace.engine.plan import Plan
    from headrace.engine.stage import InputHashes, PartitionOutput, Stage
    from headrace.storage.manifest import Manifest
    from headrace.storage.table_store import TableStore

RAW, TABLE = "raw/bench/hours", "features/bench/hours"
SIZES = (10_000, 100_000)
FULL_SIZES = (10_000, 100_000, 1_000_000)
MOST_MB = 1500
"""Memory in which a million partitions are planned."""

HOURS_PER_MONTH = 365.25 * 24 / 12
OBJECTS = 20_000
STAGES = (100, 1000)
DATASET_STAGES = 10
"""Stages of one dataset, whose entries in `dvc.lock` a release replaces."""
RELEASES = 200
FULL_RELEASES = 2000
TASKS = 2000
APPEND_FIGURES = {
    "head": "head of the manifest",
    "entry": "an entry",
    "chunk": "the largest chunk",
    "list": "list of files",
    "written": "written for one hour",
}
PLANS = {"nothing new": 0, "one in a thousand changed": 1000, "everything new": 1}
"""Plan → of how many partitions one is changed; none, or all of a table that does not exist yet."""


def main() -> None:
    """Measure and report."""
    parser = create_parser(__doc__ or "", large="a million partitions and 2,000 releases too")
    parser.add_argument("--do", nargs="+", help="(internal)")
    arguments = parser.parse_args()
    if arguments.do:
        subcommands: dict[str, Callable[..., None]] = {
            "create": create_tables,
            "plan": plan_table,
            "append": append_partition,
            "list": list_objects,
            "hash": hash_bytes,
            "lock": rewrite_lock,
            "release": make_releases,
            "tasks": run_tasks,
        }
        subcommands[arguments.do[0]](*arguments.do[1:])
        return
    report = Report("scale", as_json=arguments.json)
    measure_tables(report, FULL_SIZES if arguments.full else SIZES, arguments.repeats)
    measure_listing(report, arguments.repeats)
    measure_hashing(report, arguments.repeats)
    measure_lock(report, arguments.repeats)
    measure_git(report, FULL_RELEASES if arguments.full else RELEASES, arguments.repeats)
    measure_tasks(report, arguments.repeats)
    report.end()


def subcommand(name: str, folder: Path, *arguments: object, env: Mapping[str, str] | None = None) -> Contender:
    """A subcommand of this script."""
    command = [sys.executable, __file__, "--do", *map(str, arguments)]
    return Contender(name, command, folder, env or {})


def read_result(folder: Path) -> dict[str, float]:
    """What a subcommand measured."""
    found: dict[str, float] = json.loads((folder / "result.json").read_text())
    return found


def median_results(contender: Contender, repeats: int) -> dict[str, float]:
    """What a subcommand measures, the median of each figure."""
    runs = []
    for _ in range(repeats):
        run_once(contender)
        runs.append(read_result(contender.folder))
    return {name: median(run[name] for run in runs) for name in runs[0]}


def write_result(**figures: float) -> None:
    """Note what this subcommand measured."""
    Path("result.json").write_text(json.dumps(figures))


# Plans and manifests


def measure_tables(report: Report, sizes: tuple[int, ...], repeats: int) -> None:
    """Measure planning tables of N partitions, and appending one partition."""
    with TemporaryDirectory(prefix="headrace-bench-") as name:
        folders = {size: Path(name) / str(size) for size in sizes}
        for size, folder in folders.items():
            folder.mkdir()
            run_once(subcommand("create", folder, "create", size))
        for plan in PLANS:
            contenders = [subcommand(f"{size:,} partitions", folder, "plan", plan) for size, folder in folders.items()]
            costs = run_interleaved(contenders, repeats)
            report.table(f"plan, {plan}, start-up included", costs, contenders[0].name)
            low, high = (costs[f"{size:,} partitions"] for size in sizes[-2:])
            cpu, memory = high.cpu_s - low.cpu_s, high.peak_mb - low.peak_mb
            more = sizes[-1] - sizes[-2]
            report.figure(f"plan, {plan}: CPU of a partition", cpu / more * 1e6, "µs")
            report.figure(f"plan, {plan}: memory of a partition", memory / more * 1e6, "bytes")
            if sizes is FULL_SIZES:
                report.target(f"{sizes[-1]:,} partitions: MB / the {MOST_MB:,} allowed", high.peak_mb / MOST_MB, 1.0)
        contenders = [subcommand(f"{size:,} partitions", folder, "append") for size, folder in folders.items()]
        costs = run_interleaved(contenders, repeats)
        report.table("one hour appended and recorded, start-up included", costs, contenders[0].name)
        for size, folder in folders.items():
            for what, value in read_result(folder).items():
                report.figure(f"{size:,} partitions: {APPEND_FIGURES[what]}", value, "bytes")
        last = read_result(folders[sizes[-1]])
        report.figure("list of files: a partition", last["list"] / sizes[-1], "bytes")
        report.figure("manifest: a month in the head", last["head"] / (sizes[-1] / HOURS_PER_MONTH), "bytes")


def hours(count: int) -> list[str]:
    """Names of hourly partitions."""
    start = datetime(1900, 1, 1, tzinfo=UTC)
    return [(start + timedelta(hours=number)).strftime("%Y-%m-%dT%H") for number in range(count)]


def open_table_store() -> "TableStore":
    """A table store in the current folder, whose tables are manifests alone."""
    from headrace.storage.dvc.cache import Cache  # noqa: PLC0415
    from headrace.storage.table_store import TableStore  # noqa: PLC0415

    root = Path.cwd()
    return TableStore(root, Cache(root / ".dvc/cache", root), run_outs={})


def bench_stage() -> "Stage":
    """A stage that computes each hour from the same hour of the raw table."""
    from headrace.engine.stage import Stage  # noqa: PLC0415

    return Stage("transform", "bench", TABLE, (RAW,), (), _each, _never)


def _each(inputs: "Mapping[str, Manifest]", _own: "Manifest") -> "Iterator[tuple[str, InputHashes]]":
    for name, md5 in inputs[RAW].md5s.items():
        yield name, {RAW: {name: md5}}


def _never(*_: object) -> "PartitionOutput":
    raise AssertionError(os.getpid())


def create_tables(size: str) -> None:
    """Write the manifests of a raw table and of the table computed from it."""
    from headrace.engine.plan import partition_cache_key  # noqa: PLC0415
    from headrace.storage.manifest import Manifest  # noqa: PLC0415

    table_store, names = open_table_store(), hours(int(size))
    key, md5s = _fingerprint().key, {name: f"{number:032x}" for number, name in enumerate(names)}
    table_store.checkout(Manifest(RAW, partitions={name: _entry(name, md5, md5) for name, md5 in md5s.items()}))
    own = {
        name: _entry(name, partition_cache_key(key, name, {RAW: {name: md5}}), md5, {RAW: {name: md5}})
        for name, md5 in md5s.items()
    }
    table_store.checkout(Manifest(TABLE, partitions=own))


def _fingerprint() -> Any:  # noqa: ANN401  imported late
    from headrace.engine.fingerprint import Fingerprint  # noqa: PLC0415

    return Fingerprint({}, {}, {})


def _entry(name: str, cache_key: str, md5: str, inputs: "InputHashes | None" = None) -> Any:  # noqa: ANN401
    from headrace.storage.partition_entry import PartitionEntry  # noqa: PLC0415
    from headrace.storage.partition_names import partition_interval  # noqa: PLC0415

    start, end = partition_interval(name)
    return PartitionEntry(
        cache_key, md5, 4096, 24, sha256=md5 * 2, start=start, end=end, inputs=inputs or {}, metadata={"rejected": 0}
    )


def make_plan(table_store: "TableStore", one_in: int) -> "Plan":
    """Plan the table, with one in so many raw partitions changed."""
    from headrace.engine.plan import plan  # noqa: PLC0415

    raw = table_store.manifest(RAW)
    if one_in > 1:
        changed = list(raw.md5s)[::one_in]
        raw = raw.plus({name: _entry(name, "changed", "f" * 32) for name in changed})
    known = [] if one_in == 1 else [table_store.manifest(TABLE)]
    return plan(bench_stage(), {RAW: raw}, known, _fingerprint())


def plan_table(kind: str) -> None:
    """Plan the table."""
    table_store, one_in = open_table_store(), PLANS[kind]
    made = make_plan(table_store, one_in)
    size = len(table_store.manifest(RAW).entries)
    if len(made.stale) != (-(-size // one_in) if one_in else 0):
        raise SystemExit(f"{len(made.stale)} stale of {size}: the plan is wrong.")


def append_partition() -> None:
    """Add the next hour to the table and record it; what was written."""
    table_store = open_table_store()
    table = table_store.manifest(TABLE)
    name = hours(len(table.entries) + 1)[-1]
    recorded = {f"data/{TABLE}": table_store.dvc_out(table, {})}
    before = {path: path.stat().st_size for path in table_store.cache.folder.rglob("*") if path.is_file()}
    after = table.plus({name: _entry(name, "new", "e" * 32)})
    table_store.checkout(after)
    table_store.dvc_out(after, recorded)
    files = after.to_files()
    sizes = [chunk.reference.size for chunk in files.chunks]
    written = [
        path.stat().st_size for path in table_store.cache.folder.rglob("*") if path.is_file() and path not in before
    ]
    write_result(
        head=len(files.head),
        entry=sum(sizes) / len(after.entries),
        chunk=max(sizes),
        list=max(written),
        written=sum(written),
    )


# Listings


def measure_listing(report: Report, repeats: int) -> None:
    """Measure listing a bucket."""
    with run_servers("s3") as (folder, env):
        place = create_workspace(folder, env, "listing")
        (place.bucket / "hours").mkdir()
        for name in hours(OBJECTS):
            (place.bucket / "hours" / f"{name}.csv").touch()
        found = median_results(subcommand("list", place.root, "list", env=place.env), repeats)
    report.section(f"a listing of {OBJECTS:,} objects")
    report.figure("listing: CPU of an object", found["cpu_us"], "µs")


def list_objects() -> None:
    """List the bucket; CPU per object, of the second listing."""
    from headrace.storage.s3.bucket import Bucket  # noqa: PLC0415

    bucket = Bucket(os.environ["HEADRACE_BUCKET"])
    list(bucket.list("hours/"))
    started = process_time()
    listed = len(list(bucket.list("hours/")))
    write_result(objects=listed, cpu_us=(process_time() - started) / listed * 1e6)


def measure_hashing(report: Report, repeats: int) -> None:
    """Measure the two hashes of every object."""
    with TemporaryDirectory(prefix="headrace-bench-") as name:
        found = median_results(subcommand("hash", Path(name), "hash"), repeats)
    report.section("md5 and sha256")
    report.figure("hashing: CPU of a GB", found["gb_s"], "s")


def hash_bytes() -> None:
    """Hash a quarter of a gigabyte."""
    from headrace.storage.digests import Digests  # noqa: PLC0415

    content = os.urandom(250_000_000)
    started = process_time()
    Digests.of_bytes(content)
    write_result(gb_s=(process_time() - started) * 4)


# dvc.lock


def lock_content(stages: int, release: int) -> dict[str, Any]:
    """A `dvc.lock` in which a release has replaced the entries of its dataset, the first ten stages."""

    def out(stage: int, number: int, path: str) -> dict[str, Any]:
        seed = release if stage < DATASET_STAGES else 0
        return {
            "path": path,
            "hash": "md5",
            "md5": _digest(stage, number, seed),
            "size": 12_000_000 + seed,
            "nfiles": 3650,
        }

    return {
        "schema": "2.0",
        "stages": {
            f"dataset{stage // DATASET_STAGES}-transform-table{stage}": {
                "cmd": f"headrace transform dataset{stage // DATASET_STAGES} --table table{stage}",
                "deps": [
                    out(stage, number, f"data/validated/dataset/source{number}/_manifest/head.json")
                    for number in range(4)
                ],
                "params": {"headrace.lock": {"libraries.polars": "1.44.2", "result_versions.transform": 2}},
                "outs": [out(stage, 9, f"data/features/dataset/table{stage}")],
            }
            for stage in range(stages)
        },
    }


def _digest(*parts: int) -> str:
    from hashlib import md5  # noqa: PLC0415

    return md5(str(parts).encode(), usedforsecurity=False).hexdigest()


def measure_lock(report: Report, repeats: int) -> None:
    """Measure reading and writing `dvc.lock`."""
    with TemporaryDirectory(prefix="headrace-bench-") as name:
        contenders = [subcommand(f"{count:,} stages", Path(name), "lock", count) for count in STAGES]
        costs = run_interleaved(contenders, repeats)
        report.table("dvc.lock read and written once, start-up included", costs, contenders[0].name)
        found = read_result(Path(name))
        report.figure("dvc.lock: size of a stage", found["bytes"], "bytes")
        report.figure("dvc.lock: CPU to read a stage", found["read_ms"], "ms")
        report.figure("dvc.lock: CPU to write a stage", found["write_ms"], "ms")


def rewrite_lock(stages: str) -> None:
    """Write `dvc.lock` and read it; the cost of each per stage."""
    from headrace.storage.files import dump_yaml, parse_yaml  # noqa: PLC0415

    content = lock_content(int(stages), 0)
    started = process_time()
    text = dump_yaml(content)
    written = process_time()
    if parse_yaml(text) != content:
        raise SystemExit("dvc.lock is not what was written.")
    read = process_time()
    each = 1000 / int(stages)
    write_result(bytes=len(text) / int(stages), write_ms=(written - started) * each, read_ms=(read - written) * each)


# Git


def measure_git(report: Report, releases: int, repeats: int) -> None:
    """Measure what each release adds to a repository, and what its tags cost those who fetch."""
    with TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        origin, root = folder / "origin.git", folder / "clone"
        run_git(folder, "init", "--quiet", "--bare", "--initial-branch", "main", str(origin))
        run_git(folder, "clone", "--quiet", str(origin), str(root))
        run_once(subcommand("release", root, "release", releases, STAGES[0]))
        loose = _size(root / ".git")
        run_git(root, "gc", "--quiet", "--prune=now")
        packed = _size(root / ".git")
        run_git(root, "push", "--quiet", "--mirror", "origin")
        refs = len(run_git(root, "ls-remote", "origin"))
        remote = [
            Contender("git ls-remote", ["git", "ls-remote", "--quiet", "origin"], root),
            Contender(
                "git clone", ["sh", "-c", f"rm -rf ../again && git clone --quiet file://{origin} ../again"], root
            ),
            Contender("git fetch, nothing new", ["git", "fetch", "--quiet", "--tags", "origin"], root),
        ]
        title = f"git, {releases:,} releases of {DATASET_STAGES} of {STAGES[0]} stages"
        report.table(title, run_interleaved(remote, repeats), "git ls-remote")
        report.figure("git: a release, as it is made", loose / releases, "bytes")
        report.figure("git: a release, after `git gc`", packed / releases, "bytes")
        report.figure("git: a release in the remote's list of refs", refs / releases, "bytes")


def _size(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def make_releases(count: str, stages: str) -> None:
    """Make releases as Headrace makes them, one commit and one annotated tag each."""
    from headrace.storage import git, git_commits  # noqa: PLC0415
    from headrace.storage.files import dump_yaml  # noqa: PLC0415

    root, commit = Path.cwd(), ""
    lines = []
    for number in range(1, int(count) + 1):
        content = dump_yaml(lock_content(int(stages), number))
        parents = [commit] if commit else []
        commit = git_commits.build_commit(root, parents, commit, {"dvc.lock": content}, f"dataset0/{number}: new day")
        tag = git_commits.build_tag(root, f"dataset0/{number}", commit, "code: 0123456789\n" * 10)
        lines.append(f"create refs/tags/dataset0/{number} {tag}\n")
    git.git(root, "update-ref", "--stdin", given=f"{''.join(lines)}update refs/heads/main {commit}\n")


# Dask


def measure_tasks(report: Report, repeats: int) -> None:
    """Measure what each task costs the process that waits for it."""
    with TemporaryDirectory(prefix="headrace-bench-") as name:
        found = median_results(subcommand("tasks", Path(name), "tasks"), repeats)
    report.section(f"{TASKS:,} tasks on a Dask cluster of one worker with one thread")
    report.figure("Dask: CPU of the driver for a task", found["driver_ms"], "ms")
    report.figure("Dask: wall time of a task", found["wall_ms"], "ms")


def run_tasks() -> None:
    """Send tasks that do nothing to a cluster, and fetch each result."""
    import time  # noqa: PLC0415

    from cluster import run_cluster  # noqa: PLC0415
    from distributed import Client  # noqa: PLC0415

    from headrace.project.executors import results_as_completed  # noqa: PLC0415

    with run_cluster(1) as address, Client(address, set_as_default=False) as client:
        client.submit(int, 0).result()
        cpu, wall = process_time(), time.monotonic()
        futures = client.map(_nothing, range(TASKS), pure=False)
        done = sum(1 for _ in results_as_completed(client, futures))
        driver, total = process_time() - cpu, time.monotonic() - wall
    write_result(driver_ms=driver / done * 1000, wall_ms=total / done * 1000)


def _nothing(number: int) -> dict[str, Any]:
    return {"partition": str(number), "md5": "0" * 32}


if __name__ == "__main__":
    main()
