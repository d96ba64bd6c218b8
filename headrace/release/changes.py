"""What a release changes: partitions of each table that were added, changed and removed since the one before it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.storage.manifest import Manifest
from headrace.storage.manifest_entries import LazyEntries
from headrace.storage.partition_names import hashes_by_partition
from headrace.storage.table_store import TableStore


@dataclass(frozen=True)
class PartitionDiff:
    """Partitions of a table that were added, changed and removed; a change of one object changes its partition."""

    added: Sequence[str]
    changed: Sequence[str]
    removed: Sequence[str]

    @classmethod
    def between(cls, before: Manifest | None, after: Manifest | None) -> "PartitionDiff":
        """The difference between two versions of a table; None for a table that does not exist."""
        earlier, later = (table.entries if table else LazyEntries() for table in (before, after))
        earlier, later = earlier.without_shared_chunks(later)
        had, has = hashes_by_partition(earlier.md5s), hashes_by_partition(later.md5s)
        return cls(
            sorted(has.keys() - had.keys()),
            sorted(name for name in has.keys() & had.keys() if has[name] != had[name]),
            sorted(had.keys() - has.keys()),
        )

    def __bool__(self) -> bool:
        """Whether there is a difference."""
        return bool(self.added or self.changed or self.removed)

    def __str__(self) -> str:
        """The counts: `+1 ~3 -0`."""
        return f"+{len(self.added)} ~{len(self.changed)} -{len(self.removed)}"


def table_changes(
    dataset: str,
    table_store: TableStore,
    released: Mapping[str, dict[str, Any]],
    recorded: Collection[str] | None = None,
) -> dict[str, PartitionDiff]:
    """Table → what changed since the release whose output entries are `released`; unchanged tables are left out.

    Args:
        dataset: Name of the dataset.
        table_store: Its tables.
        released: Path → output entry of the last release.
        recorded: Tables that the next release has; by default every one that the workspace knows.
    """
    folders = {path.removeprefix("data/"): out["md5"] for path, out in released.items()}
    tables = {table for table in folders if table.split("/")[1:2] == [dataset]}
    here = table_store.tables(dataset) if recorded is None else recorded
    changes = {
        table: PartitionDiff.between(
            table_store.manifest_of_directory(folders[table]) if table in folders else None,
            table_store.manifest(table) if recorded is None or table in recorded else None,
        )
        for table in sorted({*tables, *here})
    }
    return {table: change for table, change in changes.items() if change}


def summarize(changes: Mapping[str, PartitionDiff]) -> str:
    """One line: how many partitions of how many tables changed."""
    total = sum(len(item.added) + len(item.changed) + len(item.removed) for item in changes.values())
    return f"{total} partitions of {len(changes)} tables"
