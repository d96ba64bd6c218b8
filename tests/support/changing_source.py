"""A source whose columns change from day to day, and whose contract follows: `version` in `params.yaml` chooses it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl
from minimal_dataset import create_table_store, run_all_stages

from headrace.dataset import Dataset, FeatureTable, Input, ObjectSource, Source
from headrace.engine.run import StageResult
from headrace.partitions import Daily
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry, SourceObject
from headrace.storage.partition_names import object_entries
from headrace.storage.table_store import TableStore

RAW, VALIDATED, REJECTED, FEATURES = (
    "raw/rides/rides",
    "validated/rides/rides",
    "rejected/rides/rides",
    "features/rides/rides",
)

CONTRACTS: list[type[dy.Schema]] = []
"""Contracts by version."""

TRANSFORMS: dict[int, Callable[[pl.DataFrame], pl.DataFrame]] = {}
"""Version → how it transforms rows, of those that do."""


def contract(params: Mapping[str, Any]) -> type[dy.Schema]:
    """The contract of a version."""
    declared: type[dy.Schema] = CONTRACTS[params["version"]]
    return declared


def transform(rows: pl.DataFrame, params: Mapping[str, Any]) -> pl.DataFrame:
    """The rows as a version transforms them."""
    return TRANSFORMS.get(params["version"], pl.DataFrame.clone)(rows)


def read(path: Path) -> pl.DataFrame:
    """Every column as text."""
    return pl.read_csv(path.read_bytes(), infer_schema=False)


SOURCE = Source(
    name="rides",
    location=ObjectSource(prefix="rides/", partition=r"rides/(?P<partition>[^/]+)/.+\.csv", suffix=".csv"),
    read=read,
    contract=contract,
    transform=transform,
    key=("id",),
    max_rejected_share=0.5,
    params=("version",),
    partitions=Daily(),
)
DATASET = Dataset(name="rides", description="Rides.", owner="tests", sources=(SOURCE,))


def schema(**columns: dy.Column) -> type[dy.Schema]:
    """A contract with these columns, and the key."""
    return type("Rides", (dy.Schema,), {"id": dy.Int64(), **columns})


def feature_table(features: Mapping[str, pl.DataType], lookback: int = 1) -> FeatureTable:
    """The newest values of columns, of all rides of two days, by the key."""

    def kernel(interval: Any, rides: pl.LazyFrame) -> pl.LazyFrame:  # noqa: ANN401  an interval
        return rides.select("id", *features, event_time=pl.lit(interval.start), known_time=pl.lit(interval.start)).cast(
            {"event_time": pl.Datetime("us", "UTC"), "known_time": pl.Datetime("us", "UTC")}
        )

    return FeatureTable(
        name="rides",
        keys=("id",),
        key_types={"id": pl.Int64()},
        inputs={"rides": Input("validated/rides", lookback=lookback)},
        transform=kernel,
        features=features,
        ttl=timedelta(0),
    )


def day(number: int) -> str:
    """Name of the partition of a day, from 0 on."""
    return f"{datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=number):%Y-%m-%d}"


@dataclass(frozen=True)
class ChangingSource:
    """The workspace of the source.

    Attributes:
        table_store: Its tables.
        key: The column of its key.
    """

    table_store: TableStore
    key: str = "id"

    @classmethod
    def at(cls, root: Path, key: str = "id") -> "ChangingSource":
        """An empty one."""
        (root / "pyproject.toml").touch()
        return cls(create_table_store(root), key)

    def declare(self, declared: type[dy.Schema], change: Callable[[pl.DataFrame], pl.DataFrame] | None = None) -> None:
        """Declare another contract, and how its rows are transformed."""
        CONTRACTS.append(declared)
        version = len(CONTRACTS) - 1
        if change:
            TRANSFORMS[version] = change
        (self.table_store.root / "params.yaml").write_text(f"rides:\n  version: {version}\n")

    def deliver(self, partition: str, *texts: str) -> None:
        """Ingest a partition: one object per text."""
        entries = {
            name: entry
            for name, entry in self.table_store.manifest(RAW).partitions.items()
            if name.partition("+")[0] != partition
        }
        keys = [f"rides/{partition}/{number}.csv" for number in range(len(texts))]
        for (name, key), text in zip(object_entries(partition, keys).items(), texts, strict=True):
            stored = self.table_store.cache.add(partial(Path.write_bytes, data=text.encode()))
            objects = (SourceObject("b", key, stored.md5, stored.sha256),)
            entries[name] = PartitionEntry(stored.md5, stored.md5, stored.size, sha256=stored.sha256, objects=objects)
        self.table_store.checkout(Manifest(RAW, ".csv", partitions=entries))

    def run(self, *features: FeatureTable) -> dict[str, StageResult]:
        """Run all stages."""
        sources = (replace(SOURCE, key=(self.key,)),)
        return run_all_stages(self.table_store, replace(DATASET, sources=sources, features=features))

    def rows(self, table: str = VALIDATED, partitions: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The rows of a table."""
        return self.table_store.scan(table, partitions).collect().to_dicts()

    def md5s(self, table: str = VALIDATED) -> dict[str, str]:
        """Partition → hash of its bytes."""
        return dict(self.table_store.manifest(table).md5s)
