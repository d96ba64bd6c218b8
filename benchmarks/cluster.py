"""A Dask cluster of one and two workers against this process's threads; and what planning a million partitions costs.

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

from measure import Contender, Report, in_turns, once, options
from transform import MADE, fresh, itself

if TYPE_CHECKING:
    from headrace.engine.stage import Inputs, Outcome
    from headrace.storage.manifest import Manifest

SIZES = (10_000, 100_000)
FULL_SIZES = (10_000, 100_000, 1_000_000)


def main() -> None:
    """Measure and report."""
    parser = options(__doc__ or "")
    parser.add_argument("--do", nargs="+", help="(for itself)")
    asked = parser.parse_args()
    if asked.do:
        verbs: dict[str, Callable[..., None]] = {"plan": plan, "run": run, "serve": serve}
        verbs[asked.do[0]](*asked.do[1:])
        return
    report = Report("cluster", as_json=asked.json)
    working(report, asked.repeats)
    planning(report, FULL_SIZES if asked.full else SIZES, 1 if asked.full else asked.repeats)
    report.end()


def me(name: str, folder: Path, *arguments: object) -> Contender:
    """A verb of this script."""
    return Contender(name, [sys.executable, __file__, "--do", *map(str, arguments)], folder)


def working(report: Report, repeats: int) -> None:
    """A year of flights, validated and transformed; the workers' CPU seconds are counted with their cluster's."""
    with TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        once(itself(folder, "prepare", "1 1"))
        contenders = [
            Contender(who, me(who, folder, "serve", workers).command, folder, before=partial(fresh, folder / "run"))
            for who, workers in (("threads", 0), ("1 worker", 1), ("2 workers", 2))
        ]
        costs = in_turns(contenders, repeats)
        report.table("336,776 flights in 365 days, servers included", costs, "threads")


def planning(report: Report, sizes: tuple[int, ...], repeats: int) -> None:
    """The planner and the commit of a table of N partitions."""
    with TemporaryDirectory(prefix="headrace-bench-") as name:
        costs = in_turns([me(f"{size:,} partitions", Path(name), "plan", size) for size in sizes], repeats)
    report.table("plan, manifest and list of files, start-up included", costs, f"{sizes[0]:,} partitions")
    least, most = (costs[f"{size:,} partitions"] for size in (sizes[-2], sizes[-1]))
    times = sizes[-1] / sizes[-2]
    report.target(f"CPU: t({sizes[-1]:,}) / t({sizes[-2]:,})", most.cpu_s / least.cpu_s, times * 1.2)
    report.target("memory: the same", most.peak_mb / least.peak_mb, times * 1.2)
    each = (most.cpu_s - least.cpu_s) / (sizes[-1] - sizes[-2])
    memory = (most.peak_mb - least.peak_mb) / (sizes[-1] - sizes[-2])
    report.note(f"each more partition: {each * 1e6:.0f} µs of CPU, {memory * 1024:.1f} KiB of memory")


def serve(workers: str) -> None:
    """Run the stages on a cluster of so many workers that comes and goes with this process."""
    with cluster(int(workers)) as address:
        subprocess.run([sys.executable, __file__, "--do", "run", address], check=True)


@contextmanager
def cluster(workers: int) -> Iterator[str]:
    """Address of a scheduler with workers; empty for none."""
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


def run(address: str = "") -> None:
    """The two stages of `transform.py`."""
    from headrace.engine.run import run_stage  # noqa: PLC0415
    from headrace.project import graph  # noqa: PLC0415
    from headrace.project.executors import Executor  # noqa: PLC0415
    from headrace.settings import Settings  # noqa: PLC0415
    from headrace.storage.dvc.cache import Cache  # noqa: PLC0415
    from headrace.storage.table_store import Lake  # noqa: PLC0415

    root = Path("run").resolve()
    lake = Lake(root, Cache(root / ".dvc/cache", root))
    for table in MADE.values():
        settings = Settings(workspace=root, scheduler=address or None)
        run_stage(graph.find_stage("flights", table), lake, Executor(settings))


def plan(size: str) -> None:
    """Plan and record a table of `size` partitions that reads one input."""
    from headrace.engine.fingerprint import Fingerprint  # noqa: PLC0415
    from headrace.engine.plan import plan as decide  # noqa: PLC0415
    from headrace.engine.stage import Stage  # noqa: PLC0415
    from headrace.storage.dvc.objects import directory_bytes  # noqa: PLC0415
    from headrace.storage.manifest import LazyEntries, Manifest, PartitionEntry, parse_manifest  # noqa: PLC0415

    names = [f"{number:08}" for number in range(int(size))]
    raw = {name: PartitionEntry(name, f"{index:032x}", 1) for index, name in enumerate(names)}
    stage = Stage("transform", "bench", "features/bench/t", ("raw/bench/t",), (), _each, _never)
    fingerprint, inputs = Fingerprint({}, {}, {}), {"raw/bench/t": Manifest("raw/bench/t", partitions=raw)}
    first = decide(stage, inputs, [], fingerprint)
    made = {item.partition: PartitionEntry(item.memo, item.memo, 1, 1, inputs=item.inputs) for item in first.stale}
    files = first.manifest(made).to_files()
    chunks = {chunk.reference.md5: chunk.content for chunk in files.chunks}
    changed = {name: PartitionEntry("new", "new", 1) for name in names[::1000]}
    inputs = {"raw/bench/t": Manifest("raw/bench/t", partitions=LazyEntries.of(raw) | changed)}
    again = decide(stage, inputs, [parse_manifest(files.head, lambda reference: chunks[reference.md5])], fingerprint)
    made = {item.partition: PartitionEntry(item.memo, item.memo, 1, 1, inputs=item.inputs) for item in again.stale}
    after = again.manifest(again.keep | made)
    for chunk in after.to_files().chunks:
        Path(chunk.reference.name).write_bytes(chunk.content)
    Path("list.dir").write_bytes(directory_bytes(after.files))
    if len(again.stale) != len(names[::1000]):
        raise SystemExit(f"{len(again.stale)} stale of {len(names)}: the plan is wrong.")


def _each(inputs: "Mapping[str, Manifest]", _own: "Manifest") -> "Iterator[tuple[str, Inputs]]":
    for name, md5 in inputs["raw/bench/t"].md5s.items():
        yield name, {"raw/bench/t": {name: md5}}


def _never(*_: object) -> "Outcome":
    raise AssertionError(os.getpid())


if __name__ == "__main__":
    main()
