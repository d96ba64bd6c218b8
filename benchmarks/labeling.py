"""Labels: send and collect against the plain SDK loop, on one real Label Studio; collect again when 1 % changed.

The peer does what the SDK's documentation shows: `projects.import_tasks` in batches, and one `exports.as_json` of the
whole project. Both send the same tasks in the same batches to a project of their own, and both are timed in this
process; CPU is the client's and the server's. On a shared machine wall times are long, so look at the ratios.

A collect looks ten minutes back, and lists what changed in that time. Here all answers are younger than that: the
overlap is set to one second, and one answer is given two seconds after the others, as if the others were older.

The ratio of a collect when 1 % changed to a full one is printed twice: as it is, and without what a collect costs when
nothing changed at all (looking up the project, one empty listing). Neither counts the start of a process.

Memory is the peak of a process that only collects everything into an empty workspace, beside one that exports it.

    python benchmarks/labeling.py [number of tasks | --full]
"""

import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import psutil

from headrace.dataset import Dataset, Input, LabelingTask
from headrace.label import sync, tasks
from headrace.label.collect import collect_annotations
from headrace.label.send import send_tasks
from headrace.settings import Settings
from headrace.stack.control import running
from headrace.stack.paths import StackPaths
from headrace.stack.state import read_state
from headrace.storage import parquet
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.table_store import TableStore

Json = dict[str, Any]
TASKS, FULL, BATCH, DAYS = 2000, 25_000, 250, 20
REPEATS = 3
CONFIG = (
    '<View><Text name="text" value="$text"/><Choices name="cause" toName="text" choice="single-radio">'
    '<Choice value="carrier"/><Choice value="weather"/></Choices></View>'
)
ANSWER = [{"from_name": "cause", "to_name": "text", "type": "choices", "value": {"choices": ["weather"]}}]
CHANGED_ANSWER = [{"from_name": "cause", "to_name": "text", "type": "choices", "value": {"choices": ["carrier"]}}]


def sample(params: dict[str, int], rides: pl.LazyFrame) -> pl.DataFrame:
    """All rides."""
    return rides.head(params["sample"]).collect()


def task(row: Any) -> dict[str, Any]:  # noqa: ANN401  a row
    """The data of a task."""
    return {"text": f"car {row['car']} was {row['late_min']} minutes late"}


LABELING = LabelingTask(
    name="cause", title="Headrace", config=CONFIG, control="cause", choices=("carrier", "weather"),
    inputs={"rides": Input("validated/rides")}, sample=sample, keys=("car",), task=task,
    unreviewed="accept",
)  # fmt: skip
ANNOTATED = replace(LABELING, title="Already answered")
DATASET = Dataset(name="rides", description="Rides.", owner="someone", sources=(), labels=(LABELING,))


@dataclass(frozen=True)
class Cost:
    """Wall time, CPU seconds of this process, and CPU seconds of the server."""

    wall_s: float
    cpu_s: float
    server_s: float

    @property
    def all_s(self) -> float:
        """CPU seconds of both."""
        return self.cpu_s + self.server_s

    def __str__(self) -> str:
        return f"{self.wall_s:6.2f} s ({self.cpu_s:5.2f} CPU, server {self.server_s:5.2f})"


@dataclass(frozen=True)
class CostMeter:
    """Measures the cost of a call.

    Attributes:
        server: The processes of the server.
    """

    server: list[psutil.Process]

    def measure(self, work: Callable[[], object]) -> Cost:
        """Run `work`; its cost."""
        wall, cpu, server = time.perf_counter(), time.process_time(), self._server_s()
        work()
        return Cost(time.perf_counter() - wall, time.process_time() - cpu, self._server_s() - server)

    def _server_s(self) -> float:
        return sum(sum(one.cpu_times()[:2]) for one in self.server)


@contextmanager
def run_label_studio() -> Iterator[tuple[dict[str, str], CostMeter]]:
    """Run a Label Studio; its environment variables, and a meter of its costs."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "home", only=("label-studio",)) as env:
        state = read_state(StackPaths(Path(folder) / "home"))
        heads = [psutil.Process(server.process.pid) for server in state.servers] if state else []
        yield dict(env), CostMeter([one for head in heads for one in (head, *head.children(recursive=True))])


def create_workspace(root: Path, size: int) -> TableStore:
    """Create a workspace with validated rides on some days."""
    table_store = TableStore.at(root)
    began = datetime(2013, 1, 1, 12, tzinfo=UTC)
    entries = {}
    for day in range(DAYS):
        cars = list(range(day, size, DAYS))
        frame = pl.DataFrame({"car": cars, "late_min": [90] * len(cars)}).with_columns(
            pl.format("ride-{}", "car").alias("sample_id"),
            pl.lit(began + timedelta(days=day)).cast(pl.Datetime("us", "UTC")).alias("event_time"),
            pl.lit("all").alias("selection_reason"),
        )
        stored = table_store.cache.add(partial(parquet.write, frame))
        entries[f"{began + timedelta(days=day):%Y-%m-%d}"] = PartitionEntry(
            stored.md5, stored.md5, stored.size, frame.height
        )
    table_store.checkout(Manifest("validated/rides/rides", partitions=entries))
    return table_store


def create_annotated_project(client: httpx.Client, title: str, bodies: list[Json]) -> list[int]:
    """Create a project whose tasks are imported with one answer each: submitting them one by one takes minutes."""
    made = client.post("/api/projects", json={"title": title, "label_config": CONFIG}).raise_for_status().json()["id"]
    for start in range(0, len(bodies), BATCH):
        batch = [{**body, "annotations": [{"result": ANSWER}]} for body in bodies[start : start + BATCH]]
        client.post(f"/api/projects/{made}/import", json=batch).raise_for_status()
    return _task_numbers(client, title)


def main(size: int) -> None:
    """Measure and print."""
    sync.OVERLAP = timedelta(seconds=1)
    with run_label_studio() as (env, clock), tempfile.TemporaryDirectory() as folder:
        url, token = env["LABEL_STUDIO_URL"], env["LABEL_STUDIO_API_KEY"]
        settings = Settings.model_validate(
            {"LABEL_STUDIO_URL": url, "LABEL_STUDIO_API_KEY": token, "HEADRACE_PSEUDONYM_KEY": "benchmark"}
        )
        table_store, measure = create_workspace(Path(folder) / "ours", size), clock.measure
        first = measure(lambda: send_tasks(DATASET, LABELING, table_store, settings, {"sample": size}))
        again = measure(lambda: send_tasks(DATASET, LABELING, table_store, settings, {"sample": size}))
        rows = tasks.draw_sample(DATASET, LABELING, table_store, {"sample": size})
        bodies: list[Json] = [{"data": data} for data in tasks.task_data(DATASET, LABELING, rows).values()]
        plain = _sdk(url, token)
        peer = measure(lambda: _import_with_sdk(plain, bodies))
        with httpx.Client(base_url=url, headers={"Authorization": f"Token {token}"}, timeout=600) as client:
            ours = create_annotated_project(client, ANNOTATED.title, bodies)
            project = _project(client, ANNOTATED.title)
            time.sleep(2 * sync.OVERLAP.total_seconds())
            _change_answers(client, ours[-1:])
            full = measure(lambda: collect_annotations(DATASET, ANNOTATED, table_store, settings))
            peer_full = measure(lambda: plain.projects.exports.as_json(project))
            memory = _peak_memory_mb(_collect_in_child, Path(folder) / "elsewhere", size, settings)
            peer_memory = _peak_memory_mb(_export_in_child, url, token, project)
            nothing = measure(lambda: collect_annotations(DATASET, ANNOTATED, table_store, settings))
            changes = []
            for turn in range(REPEATS):
                time.sleep(2 * sync.OVERLAP.total_seconds())
                _change_answers(client, ours[turn * size // 100 : (turn + 1) * size // 100])
                changes.append(measure(lambda: collect_annotations(DATASET, ANNOTATED, table_store, settings)))
            changed = sorted(changes, key=lambda cost: cost.wall_s)[REPEATS // 2]
            peer_changed = measure(lambda: plain.projects.exports.as_json(project))
            client.delete(f"/api/tasks/{ours[0]}/").raise_for_status()
            gone = measure(lambda: collect_annotations(DATASET, ANNOTATED, table_store, settings))
    lines = [
        ("send", first, peer),
        ("send again, nothing missing", again, None),
        ("collect all", full, peer_full),
        ("collect, nothing new", nothing, None),
        ("collect, 1 % changed", changed, peer_changed),
        ("collect, one task deleted", gone, None),
    ]
    print(f"{size} tasks, one answer each")
    for name, mine, theirs in lines:
        against = f"; plain SDK {theirs}, ratio {mine.wall_s / theirs.wall_s:.2f}" if theirs else ""
        print(f"{name:28} {mine}, {size / mine.wall_s:8.0f} tasks/s{against}")
    net = (changed.wall_s - nothing.wall_s) / full.wall_s
    share, of_cpu = changed.wall_s / full.wall_s, changed.all_s / full.all_s
    print(f"1 % changed costs {share:.1%} of a full collect, {of_cpu:.1%} of its CPU, {net:.1%} net; target 5 %")
    print(f"peak memory: collect {memory:.0f} MB more than its imports, plain SDK {peer_memory:.0f} MB")
    print(json.dumps({name: [mine.wall_s, theirs and theirs.wall_s] for name, mine, theirs in lines}))


def _peak_memory_mb(work: Callable[..., None], *args: object) -> float:
    """Peak memory of `work` in its own process, in MB above its imports."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_memory_growth_mb, work, *args).result()


def _memory_growth_mb(work: Callable[..., None], *args: object) -> float:
    before = psutil.Process().memory_info().rss / 2**20
    work(*args)
    [peak] = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())  # ru_maxrss holds the parent's
    return int(peak) / 1024 - before


def _collect_in_child(root: Path, size: int, settings: Settings) -> None:
    collect_annotations(DATASET, ANNOTATED, create_workspace(root, size), settings)


def _export_in_child(url: str, token: str, project: int) -> None:
    _sdk(url, token).projects.exports.as_json(project)


def _sdk(url: str, token: str) -> Any:  # noqa: ANN401  its own type tells less
    from label_studio_sdk import LabelStudio  # noqa: PLC0415  its import is not what is measured

    return LabelStudio(base_url=url, api_key=token, timeout=600)


def _import_with_sdk(client: Any, bodies: list[Json]) -> None:  # noqa: ANN401  the SDK's client
    """The plain loop over the SDK."""
    project = client.projects.create(title="Plain SDK", label_config=CONFIG)
    for start in range(0, len(bodies), BATCH):
        client.projects.import_tasks(id=project.id, request=bodies[start : start + BATCH])


def _project(client: httpx.Client, title: str) -> int:
    [found] = client.get("/api/projects", params={"title": title}).raise_for_status().json()["results"]
    return int(found["id"])


def _task_numbers(client: httpx.Client, title: str) -> list[int]:
    """The numbers of the project's tasks."""
    query: dict[str, str | int] = {"project": _project(client, title), "page_size": 100_000, "include": "id"}
    return [item["id"] for item in client.get("/api/tasks/", params=query).raise_for_status().json()["tasks"]]


def _change_answers(client: httpx.Client, numbers: list[int]) -> None:
    for number in numbers:
        for given in client.get(f"/api/tasks/{number}/annotations/").raise_for_status().json():
            client.patch(f"/api/annotations/{given['id']}/", json={"result": CHANGED_ANSWER}).raise_for_status()


if __name__ == "__main__":
    main(FULL if "--full" in sys.argv else int(sys.argv[1]) if len(sys.argv) > 1 else TASKS)
