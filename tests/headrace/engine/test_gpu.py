"""On a GPU node RAPIDS collects the same frames, as near to the CPU's result as floats allow, and it is said."""

import shutil
import subprocess
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import minimal_dataset
import polars as pl
import pytest
from minimal_dataset import raw_days, write_raw_partitions
from polars.testing import assert_frame_equal
from raw_data import days
from workspaces import Workspace

from headrace.engine.run import run_stage
from headrace.extras import MissingExtraError
from headrace.project import graph
from headrace.project.executors import Executor
from headrace.settings import Settings

RELATIVE, ABSOLUTE = 1e-9, 1e-9
"""How far a float of the GPU may be from the CPU's: sums are added up in another order there."""


def has_gpu() -> bool:
    """Whether this machine has a GPU that RAPIDS can use."""
    smi = shutil.which("nvidia-smi")
    if smi is None or find_spec("cudf_polars") is None:
        return False
    return subprocess.run([smi, "-L"], capture_output=True, check=False).returncode == 0


needs_gpu = pytest.mark.skipif(not has_gpu(), reason="no GPU")


@needs_gpu
def test_every_feature_table_is_the_same_as_on_the_cpu_within_the_stated_tolerance(workspace: Workspace) -> None:
    workspace.raw.add_days(*days(1, 5))
    workspace.refresh()
    other = workspace.clone("gpu")
    other.raw.add_days(*days(1, 5))
    execute = Executor(Settings(workspace=other.root, engine="gpu"))

    ran = {stage.table: run_stage(stage, other.table_store, execute) for stage in graph.dataset_stages(other.dataset)}

    for table, done in ran.items():
        if table.startswith("features/"):
            assert sum(done.engines.values()) == len(done.computed)
            expected, seen = workspace.table_store.scan(table).collect(), other.table_store.scan(table).collect()
            assert_frame_equal(seen, expected, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


@needs_gpu
def test_a_query_that_rapids_cannot_do_falls_back_to_the_cpu_and_is_counted(tmp_path: Path) -> None:
    def odd(day: str, sales: pl.LazyFrame) -> pl.LazyFrame:
        return minimal_dataset.totals(day, sales).with_columns(pl.col("amount").map_batches(lambda amounts: amounts))

    table_store = minimal_dataset.create_table_store(tmp_path)
    write_raw_partitions(table_store, raw_days(1, 2))
    dataset = replace(minimal_dataset.DATASET, features=(replace(minimal_dataset.FEATURES, transform=odd),))
    execute = Executor(Settings(workspace=tmp_path, engine="gpu"))

    ran = [run_stage(stage, table_store, execute) for stage in graph.dataset_stages(dataset)]

    assert ran[-1].engines == {"cpu": 2}


@pytest.mark.skipif(find_spec("cudf_polars") is not None, reason="RAPIDS is installed")
def test_a_gpu_that_is_asked_for_without_rapids_is_an_error_that_says_what_to_install(tmp_path: Path) -> None:
    table_store = minimal_dataset.create_table_store(tmp_path)
    write_raw_partitions(table_store, raw_days(1))
    execute = Executor(Settings(workspace=tmp_path, engine="gpu"))
    validate, transform = graph.dataset_stages(minimal_dataset.DATASET)
    run_stage(validate, table_store, execute)

    with pytest.raises(MissingExtraError, match=r"HEADRACE_ENGINE=gpu needs cudf-polars-cu13.*headrace\[gpu\]"):
        run_stage(transform, table_store, execute)
