"""Rows of a database table: counted a partition in one snapshot, read as Arrow, kept as canonical Parquet."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

import polars as pl

from headrace.dataset import TableSource
from headrace.engine.result_versions import result_version
from headrace.ingest.database.read_transaction import Listing, Snapshot
from headrace.ingest.listing import memo_key
from headrace.storage import parquet
from headrace.storage.manifest import Entry
from headrace.storage.table_store import Lake


@dataclass(frozen=True)
class Rows:
    """A database table, as one snapshot shows it."""

    lake: Lake
    moment: Snapshot
    query: TableSource
    listing: Listing

    @classmethod
    def listed(cls, lake: Lake, moment: Snapshot, query: TableSource) -> "Rows":
        """Count the table's partitions."""
        return cls(lake, moment, query, moment.listing(query))

    @property
    def where(self) -> str:
        """As `Origin`."""
        return f"the table {self.query.table} ({self.query.database})"

    @property
    def unmatched(self) -> tuple[str, ...]:
        """As `Origin`: every row has a partition."""
        return ()

    @property
    def libraries(self) -> Mapping[str, str]:
        """As `Origin`."""
        return {name: version(name) for name in ("polars", "pyarrow")}

    @cached_property
    def offers(self) -> Mapping[str, str]:
        """As `Origin`."""
        shape = [self.listing.columns, self.query.key, dict(self.libraries), result_version("ingest")]
        return {partition: memo_key([shape, self._facts(partition)]) for partition in self.listing.groups}

    def read(self, partitions: Iterable[str]) -> Iterator[tuple[str, Entry | None]]:
        """As `Origin`: sorted by key, so that equal rows are equal bytes in whatever order they came."""
        offers = self.offers
        for partition, rows in self.moment.read(self.query, self.listing, partitions):
            frame = parquet.canonical(_frame(pl.from_arrow(rows)), self.query.key)
            stored = self.lake.cache.add_bytes(memoryview(parquet.content(frame)), stays=False)
            facts = {"query": self._facts(partition)}
            yield partition, Entry(offers[partition], stored.md5, stored.size, frame.height, facts=facts)

    def _facts(self, partition: str) -> dict[str, Any]:
        """What was asked and counted; the partition is the UTC day of `partition_by`."""
        by = self.query.partition_by
        group = self.listing.groups[partition]
        return {
            "table": self.query.table,
            "where": f"UTC day of {by} = {partition}" if by else "",
            "rows": group.rows,
            "watermark": group.watermark,
            "sum": group.total,
        }


def _frame(found: pl.DataFrame | pl.Series) -> pl.DataFrame:
    if isinstance(found, pl.Series):
        raise TypeError(found)
    return found
