"""A table's folder is read by the tools that people use, past the manifest in it."""

from collections.abc import Callable
from pathlib import Path

import dask.dataframe as dd
import duckdb
import minimal_dataset
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow.dataset as ds
import pytest
from minimal_dataset import VALIDATED, raw_days, run_all_stages, write_raw_partitions

READERS: dict[str, Callable[[Path], int]] = {
    "pandas": lambda folder: len(pd.read_parquet(folder)),
    "pyarrow": lambda folder: ds.dataset(folder).to_table().num_rows,
    "dask": lambda folder: len(dd.read_parquet(folder).compute()),
    "duckdb": lambda folder: len(duckdb.read_parquet(f"{folder}/*.parquet").fetchall()),
    "polars": lambda folder: pl.scan_parquet(folder / "*.parquet").collect().height,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a table with ten rows in five partitions."""
    table_store = minimal_dataset.create_table_store(tmp_path_factory.mktemp("tables"))
    write_raw_partitions(table_store, raw_days(1, 2, 3, 4, 5))
    run_all_stages(table_store)
    return table_store.folder(VALIDATED)


@pytest.mark.parametrize("reader", READERS)
def test_a_folder_is_read_past_its_manifest(folder: Path, reader: str) -> None:
    assert READERS[reader](folder) == 10
