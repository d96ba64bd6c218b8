"""A dataset of a few rows for the tests: one source, one feature table that looks back two days."""

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path

import dataframely as dy
import polars as pl

from headrace.dataset import Dataset, FeatureTable, Input, ObjectSource, Source
from headrace.engine.run import StageResult, run_stage
from headrace.project import graph
from headrace.project.executors import Executor
from headrace.settings import Settings
from headrace.storage.dvc.cache import Cache
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.table_store import TableStore
from headrace.validate.columns import utc_time

RAW, VALIDATED, REJECTED, TOTALS = (
    "raw/tiny/sales",
    "validated/tiny/sales",
    "rejected/tiny/sales",
    "features/tiny/totals",
)


class Sales(dy.Schema):
    """Sales of shops."""

    at = utc_time()
    shop = dy.String()
    amount = dy.Int64(min=0)


def read(path: Path) -> pl.DataFrame:
    """Every column as text."""
    return pl.read_csv(path.read_bytes(), infer_schema=False)


def keep_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """Keep the rows as the contract has typed them."""
    return rows


def totals(day: str, sales: pl.LazyFrame) -> pl.LazyFrame:
    """Each shop's sales of the three days up to `day`, one row at its last hour."""
    end = pl.lit(day).str.to_datetime(time_unit="us", time_zone="UTC") + timedelta(hours=23)
    summed = sales.group_by("shop").agg(pl.col("amount").sum().alias("amount"))
    return summed.with_columns(event_time=end, known_time=end)


SALES = Source(
    name="sales",
    location=ObjectSource(prefix="sales/", partition=r"sales/(?P<partition>.+)\.csv", suffix=".csv"),
    read=read,
    contract=Sales,
    transform=keep_rows,
    key=("at", "shop"),
    max_rejected_share=0.5,
)
FEATURES = FeatureTable(
    name="totals",
    keys=("shop",),
    inputs={"sales": Input("validated/sales", lookback=2)},
    transform=totals,
    features={"amount": pl.Int64()},
    ttl=timedelta(days=2),
)
DATASET = Dataset(name="tiny", description="Sales.", owner="tests", sources=(SALES,), features=(FEATURES,))


def create_table_store(root: Path) -> TableStore:
    """An empty table store without git, DVC or a remote."""
    return TableStore(root, Cache(root / ".dvc/cache", root))


def write_raw_partitions(table_store: TableStore, contents: Mapping[str, str], *, drop: tuple[str, ...] = ()) -> None:
    """Write raw partitions of lines `at,shop,amount`, and delete those in `drop`."""
    entries = {name: entry for name, entry in table_store.manifest(RAW).partitions.items() if name not in drop}
    for name, text in contents.items():
        stored = table_store.cache.add(partial(Path.write_bytes, data=f"at,shop,amount\n{text}".encode()))
        entries[name] = PartitionEntry(stored.md5, stored.md5, stored.size)
    table_store.checkout(Manifest(RAW, ".csv", partitions=entries))


def raw_day(number: int, amount: int = 1) -> str:
    """The lines of one day: one sale at noon in each of two shops."""
    return "".join(f"2026-01-{number:02}T12:00:00Z,{shop},{amount}\n" for shop in ("east", "west"))


def raw_days(*numbers: int) -> dict[str, str]:
    """Partition → lines, of these days."""
    return {f"2026-01-{number:02}": raw_day(number) for number in numbers}


def day_names(*numbers: int) -> list[str]:
    """Names of these days."""
    return [f"2026-01-{number:02}" for number in numbers]


def run_all_stages(table_store: TableStore, dataset: Dataset = DATASET, threads: int = 2) -> dict[str, StageResult]:
    """Run all stages; table → result."""
    execute = Executor(Settings(workspace=table_store.root, threads=threads))
    return {stage.table: run_stage(stage, table_store, execute) for stage in graph.dataset_stages(dataset)}
