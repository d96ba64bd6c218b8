"""Labels: send and collect against the plain SDK loop, on one real Label Studio; collect again when 1 % changed.

The peer does what the SDK's documentation shows: `projects.import_tasks` in batches, and one `exports.as_json` of the
whole project. Both send the same tasks in the same batches, each time to a project of their own, and take turns in this
process; CPU is that of this process and of Label Studio. Neither counts the start of a process.

A collect looks ten minutes back, and lists what changed in that time. Here all answers are younger than that: the
overlap is set to one second, and one answer is given two seconds after the others, as if the others were older.

The ratio of a collect when 1 % changed to a full one is given twice: as it is, and without what a collect costs when
nothing changed at all (looking up the project, one empty listing). Memory is the peak of a process that only collects
everything into an empty workspace, beside one that exports it.
"""

import re
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import psutil
from environment import run_servers
from measure import Cost, Report, create_parser, measure_call, measure_interleaved, median_cost

from headrace.dataset import Dataset, Input, LabelingTask
from headrace.label import sync, tasks
from headrace.label.collect import collect_annotations
from headrace.label.send import send_tasks
from headrace.settings import Settings
from headrace.storage import parquet
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.table_store import TableStore

Json = dict[str, Any]
TASKS, FULL_TASKS, BATCH, DAYS = 2000, 25_000, 250, 20
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


def main() -> None:
    """Measure and report."""
    parser = create_parser(__doc__ or "", large=f"{FULL_TASKS:,} tasks instead of {TASKS:,}")
    parser.add_argument("--tasks", type=int, help=f"number of tasks (default: {TASKS:,})")
    arguments = parser.parse_args()
    size = arguments.tasks or (FULL_TASKS if arguments.full else TASKS)
    sync.OVERLAP = timedelta(seconds=1)
    report = Report("labeling", as_json=arguments.json)
    with run_servers("label-studio") as (folder, env):
        url, token = env["LABEL_STUDIO_URL"], env["LABEL_STUDIO_API_KEY"]
        settings = Settings.model_validate(
            {"LABEL_STUDIO_URL": url, "LABEL_STUDIO_API_KEY": token, "HEADRACE_PSEUDONYM_KEY": "benchmark"}
        )
        with httpx.Client(base_url=url, headers={"Authorization": f"Token {token}"}, timeout=600) as client:
            measurement = LabelingMeasurement(folder, size, settings, client, _sdk(url, token))
            measurement.measure_send(report, arguments.repeats)
            measurement.measure_collect(report, arguments.repeats)
            project = _project(client, ANNOTATED.title)
        memory = _peak_memory_mb(_collect_in_child, folder / "elsewhere", size, settings)
        peer_memory = _peak_memory_mb(_export_in_child, url, token, project)
    report.section(f"peak memory above the imports, {size:,} tasks")
    report.figure("collect all", memory, "MB")
    report.figure("the SDK's export", peer_memory, "MB")
    report.end()


class LabelingMeasurement:
    """Measures on one Label Studio."""

    def __init__(self, folder: Path, size: int, settings: Settings, client: httpx.Client, peer: Any) -> None:  # noqa: ANN401  the SDK's client
        """Create the workspace, and the tasks that both send."""
        self.folder, self.size, self.settings, self.client, self.peer = folder, size, settings, client, peer
        self.table_store = create_workspace(folder / "ours", size)
        rows = tasks.draw_sample(DATASET, LABELING, self.table_store, {"sample": size})
        self.bodies: list[Json] = [{"data": data} for data in tasks.task_data(DATASET, LABELING, rows).values()]
        self.projects = 0

    def measure_send(self, report: Report, repeats: int) -> None:
        """Measure sending all tasks, and sending them again."""
        costs = measure_interleaved({"ours": self.send_new, "plain SDK": self.import_with_sdk}, repeats)
        again = median_cost(measure_call(self.send) for _ in range(repeats))
        report.table(f"{self.size:,} tasks sent", {**costs, "ours, nothing missing": again}, "ours")
        report.target("send: ours / plain SDK", costs["ours"].total_s / costs["plain SDK"].total_s, 1.2)

    def measure_collect(self, report: Report, repeats: int) -> None:
        """Measure collecting all answers, and what changed."""
        answered = create_annotated_project(self.client, ANNOTATED.title, self.bodies)
        project = _project(self.client, ANNOTATED.title)
        self.wait_for_overlap()
        _change_answers(self.client, answered[-1:])
        calls = {
            "collect all": self.collect_into_new,
            "all, by the SDK's export": lambda: measure_call(lambda: self.peer.projects.exports.as_json(project)),
        }
        costs = measure_interleaved(calls, repeats)
        self.collect()
        costs["nothing changed"] = median_cost(measure_call(self.collect) for _ in range(repeats))
        changes, deletions = [], []
        for turn in range(repeats):
            self.wait_for_overlap()
            _change_answers(self.client, answered[turn * self.size // 100 : (turn + 1) * self.size // 100])
            changes.append(measure_call(self.collect))
        for turn in range(repeats):
            self.client.delete(f"/api/tasks/{answered[turn]}/").raise_for_status()
            deletions.append(measure_call(self.collect))
        costs |= {"1 % changed": median_cost(changes), "one task deleted": median_cost(deletions)}
        full, peer = (costs[name].total_s for name in calls)
        changed, nothing = costs["1 % changed"].total_s, costs["nothing changed"].total_s
        report.table(f"{self.size:,} tasks with one answer each, collected", costs, "collect all")
        report.target("collect all / the SDK's export", full / peer, 1.2)
        report.target("1 % changed / collect all", changed / full, 0.05)
        report.target("1 % changed less nothing changed / collect all", (changed - nothing) / full, 0.05)

    def send_new(self) -> Cost:
        """Cost of sending all tasks to a new project."""
        self.projects += 1
        return measure_call(self.send)

    def send(self) -> None:
        """Send the tasks that are missing to the newest project: another title means another project."""
        labeling = replace(LABELING, title=f"{LABELING.title} {self.projects}")
        send_tasks(DATASET, labeling, self.table_store, self.settings, {"sample": self.size})

    def import_with_sdk(self) -> Cost:
        """Cost of the plain loop over the SDK."""
        return measure_call(lambda: _import_with_sdk(self.peer, self.bodies))

    def collect(self) -> None:
        """Collect what changed."""
        collect_annotations(DATASET, ANNOTATED, self.table_store, self.settings)

    def collect_into_new(self) -> Cost:
        """Cost of collecting everything into a workspace without annotations."""
        shutil.rmtree(self.folder / "new", ignore_errors=True)
        table_store = create_workspace(self.folder / "new", self.size)
        return measure_call(lambda: collect_annotations(DATASET, ANNOTATED, table_store, self.settings))

    @staticmethod
    def wait_for_overlap() -> None:
        """Wait until what changed before is older than the time that a collect looks back."""
        time.sleep(2 * sync.OVERLAP.total_seconds())


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
    main()
