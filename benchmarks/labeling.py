"""Labels: send and collect against the plain SDK loop, on one real Label Studio; collect again when 1 % changed.

The peer does what the SDK's documentation shows: `projects.import_tasks` in batches, and one `exports.as_json` of the
whole project. Both send the same tasks in the same batches to a project of their own, and both are timed in this
process; CPU is this client's. A server that others use too makes wall times long, so look at the ratios.

A collect looks ten minutes back, and lists what changed in that time. Here all answers are younger than that: the
overlap is one second here, and one answer is given two seconds after the others, as if the others were older.

The ratio of a collect when 1 % changed to a full one is told twice: as it is, and without what a collect costs when
nothing changed at all (looking up the project, one empty listing). Neither counts the start of a process.

    python benchmarks/labeling.py [tasks | --full]
"""

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import polars as pl

from infra.stack.control import running
from pipelines import label
from pipelines.dataset import Dataset, Labeling, Reads
from pipelines.engine import parquet
from pipelines.engine.lake import Lake
from pipelines.engine.manifest import Entry, Manifest
from pipelines.labeling import history
from pipelines.settings import Settings

Json = dict[str, Any]
TASKS, FULL, BATCH, DAYS = 2000, 25_000, 250, 20
REPEATS = 3
CONFIG = (
    '<View><Text name="text" value="$text"/><Choices name="cause" toName="text" choice="single-radio">'
    '<Choice value="carrier"/><Choice value="weather"/></Choices></View>'
)
GIVEN = [{"from_name": "cause", "to_name": "text", "type": "choices", "value": {"choices": ["weather"]}}]
OTHER = [{"from_name": "cause", "to_name": "text", "type": "choices", "value": {"choices": ["carrier"]}}]


def sample(params: dict[str, int], rides: pl.LazyFrame) -> pl.DataFrame:
    """All rides."""
    return rides.head(params["sample"]).collect()


def task(row: Any) -> dict[str, Any]:  # noqa: ANN401  a row
    """What is asked."""
    return {"text": f"car {row['car']} was {row['late_min']} minutes late"}


LABELING = Labeling(
    name="cause", title="Headrace", config=CONFIG, control="cause", choices=("carrier", "weather"),
    reads={"rides": Reads("validated/rides")}, sample=sample, keys=("car",), task=task,
)  # fmt: skip
ANSWERED = replace(LABELING, title="Already answered")
DATASET = Dataset("rides", "Rides.", "someone", (), labels=(LABELING,))


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock, and of this process's CPU."""

    wall_s: float
    cpu_s: float


def timed(work: Callable[[], object]) -> Cost:
    """What `work` costs."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


@contextmanager
def stack() -> Iterator[dict[str, str]]:
    """A Label Studio of our own."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "home", only=("label-studio",)) as env:
        yield dict(env)


def workspace(root: Path, tasks: int) -> Lake:
    """So many rides on some days, validated."""
    lake = Lake.at(root)
    began = datetime(2013, 1, 1, 12, tzinfo=UTC)
    entries = {}
    for day in range(DAYS):
        cars = list(range(day, tasks, DAYS))
        frame = pl.DataFrame({"car": cars, "late_min": [90] * len(cars)}).with_columns(
            pl.format("ride-{}", "car").alias("sample_id"),
            pl.lit(began + timedelta(days=day)).cast(pl.Datetime("us", "UTC")).alias("event_time"),
            pl.lit("all").alias("why"),
        )
        stored = lake.cache.add(partial(parquet.write, frame))
        entries[f"{began + timedelta(days=day):%Y-%m-%d}"] = Entry(stored.md5, stored.md5, stored.size, frame.height)
    lake.commit(Manifest("validated/rides/rides", partitions=entries))
    return lake


def answered(client: httpx.Client, title: str, bodies: list[Json]) -> list[int]:
    """A project whose tasks come with an answer each (one by one, a person's answers take a server minutes)."""
    made = client.post("/api/projects", json={"title": title, "label_config": CONFIG}).raise_for_status().json()["id"]
    for start in range(0, len(bodies), BATCH):
        batch = [{**body, "annotations": [{"result": GIVEN}]} for body in bodies[start : start + BATCH]]
        client.post(f"/api/projects/{made}/import", json=batch).raise_for_status()
    return _numbers(client, title)


def main(tasks: int) -> None:
    """Measure, and print."""
    history.OVERLAP = timedelta(seconds=1)
    with stack() as env, tempfile.TemporaryDirectory() as folder:
        url, token = env["LABEL_STUDIO_URL"], env["LABEL_STUDIO_API_KEY"]
        settings = Settings.model_validate(
            {"LABEL_STUDIO_URL": url, "LABEL_STUDIO_API_KEY": token, "HEADRACE_PSEUDONYM_KEY": "benchmark"}
        )
        lake = workspace(Path(folder), tasks)
        send = timed(lambda: label.send(DATASET, LABELING, lake, settings, {"sample": tasks}))
        again = timed(lambda: label.send(DATASET, LABELING, lake, settings, {"sample": tasks}))
        every = label.tasks_of(DATASET, LABELING, lake, {"sample": tasks}).values()
        bodies: list[Json] = [{"data": data} for data in every]
        plain = _sdk(url, token)
        peer = timed(lambda: _import(plain, bodies))
        with httpx.Client(base_url=url, headers={"Authorization": f"Token {token}"}, timeout=600) as client:
            ours = answered(client, ANSWERED.title, bodies)
            project = _project(client, ANSWERED.title)
            time.sleep(2 * history.OVERLAP.total_seconds())
            _change(client, ours[-1:])
            full = timed(lambda: label.collect(DATASET, ANSWERED, lake, settings))
            peer_full = timed(lambda: plain.projects.exports.as_json(project))
            nothing = timed(lambda: label.collect(DATASET, ANSWERED, lake, settings))
            changes = []
            for turn in range(REPEATS):
                time.sleep(2 * history.OVERLAP.total_seconds())
                _change(client, ours[turn * tasks // 100 : (turn + 1) * tasks // 100])
                changes.append(timed(lambda: label.collect(DATASET, ANSWERED, lake, settings)))
            changed = sorted(changes, key=lambda cost: cost.wall_s)[REPEATS // 2]
            peer_changed = timed(lambda: plain.projects.exports.as_json(project))
            client.delete(f"/api/tasks/{ours[0]}/").raise_for_status()
            gone = timed(lambda: label.collect(DATASET, ANSWERED, lake, settings))
    rows = [
        ("send", send, peer),
        ("send again, nothing missing", again, None),
        ("collect all", full, peer_full),
        ("collect, nothing new", nothing, None),
        ("collect, 1 % changed", changed, peer_changed),
        ("collect, one task deleted", gone, None),
    ]
    print(f"{tasks} tasks, one answer each")
    for name, mine, theirs in rows:
        against = (
            f"; plain SDK {theirs.wall_s:6.2f} s ({theirs.cpu_s:5.2f} CPU), ratio {mine.wall_s / theirs.wall_s:.2f}"
            if theirs
            else ""
        )
        print(f"{name:28} {mine.wall_s:6.2f} s ({mine.cpu_s:5.2f} CPU), {tasks / mine.wall_s:8.0f} tasks/s{against}")
    net = (changed.wall_s - nothing.wall_s) / full.wall_s
    print(f"1 % changed costs {changed.wall_s / full.wall_s:.1%} of a full collect, {net:.1%} net; target 5 %")
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"largest memory of this process, the SDK's imports among it: {largest:.0f} MB")
    print(json.dumps({name: [mine.wall_s, theirs and theirs.wall_s] for name, mine, theirs in rows}))


def _sdk(url: str, token: str) -> Any:  # noqa: ANN401  its own type tells less
    from label_studio_sdk import LabelStudio  # noqa: PLC0415  its import is not what is measured

    return LabelStudio(base_url=url, api_key=token, timeout=600)  # type: ignore[no-untyped-call]


def _import(client: Any, bodies: list[Json]) -> None:  # noqa: ANN401  the SDK's client
    """The plain loop."""
    project = client.projects.create(title="Plain SDK", label_config=CONFIG)
    for start in range(0, len(bodies), BATCH):
        client.projects.import_tasks(id=project.id, request=bodies[start : start + BATCH])


def _project(client: httpx.Client, title: str) -> int:
    [found] = client.get("/api/projects", params={"title": title}).raise_for_status().json()["results"]
    return int(found["id"])


def _numbers(client: httpx.Client, title: str) -> list[int]:
    """The project's tasks."""
    query: dict[str, str | int] = {"project": _project(client, title), "page_size": 100_000, "include": "id"}
    return [item["id"] for item in client.get("/api/tasks/", params=query).raise_for_status().json()["tasks"]]


def _change(client: httpx.Client, numbers: list[int]) -> None:
    for number in numbers:
        for given in client.get(f"/api/tasks/{number}/annotations/").raise_for_status().json():
            client.patch(f"/api/annotations/{given['id']}/", json={"result": OTHER}).raise_for_status()


if __name__ == "__main__":
    main(FULL if "--full" in sys.argv else int(sys.argv[1]) if len(sys.argv) > 1 else TASKS)
