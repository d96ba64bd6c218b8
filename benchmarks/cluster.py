"""A Dask cluster of one and two workers against this process's threads; and the cost of planning a million partitions.

The cluster is a scheduler and worker processes on this machine, so it shows what the cluster itself costs, not what a
large one gains. The plan is that of a simulated table: manifests of N partitions, one in a thousand changed, planned
and recorded, with no data behind them.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from measure import Contender, Report, create_parser, run_interleaved, run_once
from transform import OUTPUT_TABLES, reset_workspace, subcommand

if TYPE_CHECKING:
    from headrace.engine.stage import InputHashes, PartitionOutput
    from headrace.storage.manifest import Manifest

SIZES = (10_000, 100_000)
FULL_SIZES = (10_000, 100_000, 1_000_000)


def main() -> None:
    """Measure and report."""
    parser = create_parser(__doc__ or "", large="a million partitions too")
    parser.add_argument("--do", nargs="+", help="(internal)")
    arguments = parser.parse_args()
    if arguments.do:
        subcommands: dict[str, Callable[..., None]] = {"plan": plan_table, "run": run_stages, "serve": run_on_cluster}
        subcommands[arguments.do[0]](*arguments.do[1:])
        return
    report = Report("cluster", as_json=arguments.json)
    measure_stages(report, arguments.repeats)
    measure_planning(report, FULL_SIZES if arguments.full else SIZES, arguments.repeats)
    report.end()


def cluster_subcommand(name: str, folder: Path, *arguments: object) -> Contender:
    """A subcommand of this script."""
    return Contender(name, [sys.executable, __file__, "--do", *map(str, arguments)], folder)


def measure_stages(report: Report, repeats: int) -> None:
    """Measure validating and transforming a year of flights; the CPU of the workers is included."""
    with TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        run_once(subcommand(folder, "prepare", "1 1"))
        contenders = [
            Contender(
                who,
                cluster_subcommand(who, folder, "serve", workers).command,
                folder,
                setup=partial(reset_workspace, folder / "run"),
            )
            for who, workers in (("threads", 0), ("1 worker", 1), ("2 workers", 2))
        ]
        costs = run_interleaved(contenders, repeats)
        report.table("336,776 flights in 365 days, scheduler and workers included", costs, "threads")


def measure_planning(report: Report, sizes: tuple[int, ...], repeats: int) -> None:
    """Measure planning and committing a table of N partitions."""
    with TemporaryDirectory(prefix="headrace-bench-") as name:
        costs = run_interleaved(
            [cluster_subcommand(f"{size:,} partitions", Path(name), "plan", size) for size in sizes], repeats
        )
    report.table("plan, manifest and list of files, start-up included", costs, f"{sizes[0]:,} partitions")
    least, most = (costs[f"{size:,} partitions"] for size in (sizes[-2], sizes[-1]))
    times = sizes[-1] / sizes[-2]
    report.target(f"CPU: t({sizes[-1]:,}) / t({sizes[-2]:,})", most.total_s / least.total_s, times * 1.2)
    report.target("memory: the same", most.peak_mb / least.peak_mb, times * 1.2)
    each = (most.cpu_s - least.cpu_s) / (sizes[-1] - sizes[-2])
    memory = (most.peak_mb - least.peak_mb) / (sizes[-1] - sizes[-2])
    report.figure("each additional partition: CPU", each * 1e6, "µs")
    report.figure("each additional partition: memory", memory * 1024, "KiB")


def run_on_cluster(workers: str) -> None:
    """Run the stages on a cluster with that many workers, which this process starts and stops."""
    with run_cluster(int(workers)) as address:
        subprocess.run([sys.executable, __file__, "--do", "run", address], check=True)


@contextmanager
def run_cluster(workers: int) -> Iterator[str]:
    """Start a scheduler with workers; its address, which is empty without workers."""
    if not workers:
        yield ""
        return
    settings = Path("scheduler.json")
    settings.unlink(missing_ok=True)
    program = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    program += ["--no-dashboard", "--scheduler-file", str(settings)]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(settings), "--nthreads", "1"]
    worker += ["--nworkers", str(workers), "--no-dashboard", "--local-directory", "dask"]
    started = [subprocess.Popen(program)]
    try:
        while not settings.exists():
            time.sleep(0.05)
        started.append(subprocess.Popen(worker))
        yield json.loads(settings.read_text())["address"]
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait()


def run_stages(address: str = "") -> None:
    """Run the two stages of `transform.py`."""
    from headrace.engine.run import run_stage  # noqa: PLC0415
    from headrace.project import graph  # noqa: PLC0415
    from headrace.project.executors import Executor  # noqa: PLC0415
    from headrace.settings import Settings  # noqa: PLC0415
    from headrace.storage.dvc.cache import Cache  # noqa: PLC0415
    from headrace.storage.table_store import TableStore  # noqa: PLC0415

    root = Path("run").resolve()
    table_store = TableStore(root, Cache(root / ".dvc/cache", root))
    for table in OUTPUT_TABLES.values():
        settings = Settings(workspace=root, scheduler=address or None)
        run_stage(graph.find_stage("flights", table), table_store, Executor(settings))


def plan_table(size: str) -> None:
    """Plan and record a table of `size` partitions that reads one input."""
    from headrace.engine.fingerprint import Fingerprint  # noqa: PLC0415
    from headrace.engine.plan import plan as plan_stage  # noqa: PLC0415
    from headrace.engine.stage import Stage  # noqa: PLC0415
    from headrace.storage.dvc.objects import directory_bytes  # noqa: PLC0415
    from headrace.storage.manifest import Manifest, parse_manifest  # noqa: PLC0415
    from headrace.storage.manifest_entries import LazyEntries  # noqa: PLC0415
    from headrace.storage.partition_entry import PartitionEntry  # noqa: PLC0415

    names = [f"{number:08}" for number in range(int(size))]
    raw = {name: PartitionEntry(name, f"{index:032x}", 1) for index, name in enumerate(names)}
    stage = Stage("transform", "bench", "features/bench/t", ("raw/bench/t",), (), _each, _never)
    fingerprint, inputs = Fingerprint({}, {}, {}), {"raw/bench/t": Manifest("raw/bench/t", partitions=raw)}
    first = plan_stage(stage, inputs, [], fingerprint)
    made = {
        item.partition: PartitionEntry(item.cache_key, item.cache_key, 1, 1, inputs=item.inputs) for item in first.stale
    }
    files = first.manifest(made).to_files()
    chunks = {chunk.reference.md5: chunk.content for chunk in files.chunks}
    changed = {name: PartitionEntry("new", "new", 1) for name in names[::1000]}
    inputs = {"raw/bench/t": Manifest("raw/bench/t", partitions=LazyEntries.of(raw) | changed)}
    before = parse_manifest(files.head, lambda reference: chunks[reference.md5])
    again = plan_stage(stage, inputs, [before], fingerprint)
    made = {
        item.partition: PartitionEntry(item.cache_key, item.cache_key, 1, 1, inputs=item.inputs) for item in again.stale
    }
    after = again.manifest(again.reused | made)
    for chunk in after.to_files().chunks:
        Path(chunk.reference.name).write_bytes(chunk.content)
    Path("list.dir").write_bytes(directory_bytes(after.files))
    if len(again.stale) != len(names[::1000]):
        raise SystemExit(f"{len(again.stale)} stale of {len(names)}: the plan is wrong.")


def _each(inputs: "Mapping[str, Manifest]", _own: "Manifest") -> "Iterator[tuple[str, InputHashes]]":
    for name, md5 in inputs["raw/bench/t"].md5s.items():
        yield name, {"raw/bench/t": {name: md5}}


def _never(*_: object) -> "PartitionOutput":
    raise AssertionError(os.getpid())


if __name__ == "__main__":
    main()
