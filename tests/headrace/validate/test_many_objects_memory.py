"""Partitions of 10,000 objects are validated in the memory that one object with the same rows takes."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from many_objects import FIRST, ManyObjects
from minimal_dataset import VALIDATED, run_all_stages

from headrace.validate import validate_objects
from headrace.validate.fit_columns import RawRows

ROWS = 200
"""Rows of each of many objects."""

PROGRAM = """
import resource, sys
from pathlib import Path
from many_objects import ManyObjects
from headrace.engine.run import run_stage
from headrace.project.executors import Executor
from headrace.settings import Settings
from headrace.validate.stage import validation_stage

many = ManyObjects(Path(sys.argv[1]))
many.ingest()
stage = validation_stage(many.dataset, many.source)
done = run_stage(stage, many.table_store, Executor(Settings(workspace=many.root, threads=1)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, done.totals["rows"])
"""


def write_objects(folder: Path, partitions: int, objects: int, rows: int) -> None:
    """`objects` objects of `rows` rows for each of the first days of a month."""
    for day in range(1, partitions + 1):
        path = folder / f"bucket/sales/2026-01-{day:02}"
        path.mkdir(parents=True)
        for number in range(objects):
            lines = (f"2026-01-{day:02}T12:00:00Z,shop {number * rows + row:07},{row}\n" for row in range(rows))
            (path / f"{number:05}.csv").write_text("at,shop,amount\n" + "".join(lines))


def measure(folder: Path, partitions: int, objects: int, rows: int) -> tuple[int, int]:
    """Peak memory (MiB) of a process that ingests and validates such objects, and the validated rows."""
    write_objects(folder, partitions, objects, rows)
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peak, validated = map(int, done.stdout.split())
    return peak, validated


@pytest.mark.slow_lane
def test_ten_thousand_objects_take_no_more_memory_than_one_with_the_same_rows(tmp_path: Path) -> None:
    one, of_one = measure(tmp_path / "one", 1, 1, 10_000 * ROWS)
    many, of_many = measure(tmp_path / "many", 1, 10_000, ROWS)
    days, of_days = measure(tmp_path / "days", 24, 417, ROWS)

    figures = f"peak memory: one object {one} MiB, 10,000 objects {many} MiB, 24 days of 417 objects {days} MiB"
    assert (of_one, of_many, of_days) == (10_000 * ROWS, 10_000 * ROWS, 24 * 417 * ROWS)
    assert many <= 1.1 * one, figures
    assert days <= one, figures


def test_raw_rows_of_few_objects_are_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate_objects, "BATCH_BYTES", most := 5_000)
    write_objects(tmp_path, 1, 100, 10)
    many, sizes = ManyObjects(tmp_path), list[int]()
    add = validate_objects.CheckedObjects.add

    def note_size(self: validate_objects.CheckedObjects, batch: Mapping[int, RawRows]) -> None:
        sizes.append(int(sum(rows.frame.estimated_size() for rows in batch.values())))
        add(self, batch)

    monkeypatch.setattr(validate_objects.CheckedObjects, "add", note_size)
    many.ingest()

    done = run_all_stages(many.table_store, many.dataset)[VALIDATED]

    assert done.manifest.partitions[FIRST].rows == 1_000
    assert len(sizes) > 5
    assert max(sizes) < 2 * most
