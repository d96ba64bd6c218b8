"""What a plan costs: it reads manifests alone, and calls few functions for each partition.

Ten tables of 3,650 partitions are recorded and shown here whose data exists nowhere: whoever opened it would fail.
"""

import cProfile
import dataclasses
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import minimal_dataset
import pytest
from msgspec.structs import replace

from headrace.dataset import Dataset, Input
from headrace.engine.plan import Plan
from headrace.engine.run import plan_all, plan_stage
from headrace.engine.stage import Stage
from headrace.project import graph
from headrace.storage.files import dump_yaml
from headrace.storage.manifest import HEAD_FILE, Manifest
from headrace.storage.manifest_entries import FOLDER
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.partition_names import partition_interval
from headrace.storage.table_store import TableStore

pytestmark = pytest.mark.slow

DAYS = [str(date(2013, 1, 1) + timedelta(days=number)) for number in range(3650)]
NAMES = [f"sales{number}" for number in range(5)]
DATASET = Dataset(
    name="tiny",
    description="Five sources and what is made of each: ten tables.",
    owner="tests",
    sources=tuple(dataclasses.replace(minimal_dataset.SALES, name=name) for name in NAMES),
    features=tuple(
        dataclasses.replace(
            minimal_dataset.FEATURES, name=f"totals_{name}", inputs={"sales": Input(f"validated/{name}", lookback=2)}
        )
        for name in NAMES
    ),
)
CALLS_PER_PARTITION = 30
"""Of Python and C functions, a table."""


def record(table_store: TableStore, days: Sequence[str] = DAYS) -> None:
    """Tables as they would be after ten years, or after other days."""
    for name in NAMES:
        show(table_store, Manifest(f"raw/tiny/{name}", ".csv", partitions={day: entry(name, day) for day in days}))
    outs = []
    for stage in graph.dataset_stages(DATASET):
        plan = plan_stage(stage, table_store)
        made = {item.partition: computed_entries(stage, item.partition, item.cache_key) for item in plan.stale}
        show(table_store, plan.manifest(made))
        outs.append(table_store.dvc_out(plan.manifest(made), {}))
    lock = {"schema": "2.0", "stages": {"all": {"cmd": "true", "outs": outs}}}
    (table_store.root / "dvc.lock").write_bytes(dump_yaml(lock))


def computed_entries(stage: Stage, day: str, cache_key: str) -> PartitionEntry:
    facts = {"rows_in": 2, "rejected": 0, "keys": [f"{day}T12:00:00+00:00", f"{day}T12:00:00+00:00"]}
    return replace(entry(stage.table, day), cache_key=cache_key, metadata=facts if stage.verb == "validate" else {})


def entry(table: str, day: str) -> PartitionEntry:
    start, end = partition_interval(day)
    return PartitionEntry(f"{table} {day}", f"{table} {day}", 100, 2, start=start, end=end)


def show(table_store: TableStore, manifest: Manifest) -> None:
    folder, files = table_store.folder(manifest.table), manifest.to_files()
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    for chunk in files.chunks:
        (folder / chunk.reference.path).write_bytes(chunk.content)
    (folder / HEAD_FILE).write_bytes(files.head)


def plans(root: Path) -> list[Plan]:
    return plan_all(graph.dataset_stages(DATASET), minimal_dataset.create_table_store(root))


def change(table_store: TableStore, day: str) -> None:
    """The raw object of one day is another one."""
    had = table_store.manifest("raw/tiny/sales0")
    show(table_store, had.plus({day: PartitionEntry("other", "other", 100)}))


def test_a_plan_reads_no_data_file(tmp_path: Path) -> None:
    table_store = minimal_dataset.create_table_store(tmp_path)
    record(table_store)
    change(table_store, DAYS[100])

    stale = {plan.stage.table: [item.partition for item in plan.stale] for plan in plans(tmp_path) if plan.stale}

    assert stale == {"validated/tiny/sales0": DAYS[100:101], "features/tiny/totals_sales0": DAYS[100:103]}


def test_the_work_of_a_plan_grows_with_the_partitions_and_no_faster(tmp_path: Path) -> None:
    year, decade = count_calls(tmp_path / "year", DAYS[:365]), count_calls(tmp_path / "decade", DAYS)

    assert decade < year * len(DAYS) / 365
    assert decade < CALLS_PER_PARTITION * 10 * len(DAYS)


def count_calls(root: Path, days: list[str]) -> int:
    """How many functions a plan calls when one raw object has changed: unlike a time, the same on any machine."""
    root.mkdir()
    table_store = minimal_dataset.create_table_store(root)
    record(table_store, days)
    change(table_store, days[100])
    profile = cProfile.Profile()
    with profile:
        plans(root)
    return sum(found.callcount for found in profile.getstats())
