"""Crash cases of a table that is written: chunks of its manifest come, change and go, and then its head names them."""

import shutil
from pathlib import Path

import polars as pl
from crash_harness import State
from crash_state import hash_files

from headrace.engine.compute import store_partition
from headrace.storage.dvc.cache import Cache
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.table_store import TableStore

TABLE = "features/tiny/totals"
OLD = ("2026-01-01", "2026-02-01", "2026-03-01")
NEW = ("2026-02-01", "2026-03-01", "2026-03-02", "2026-04-01")


def entry(table_store: TableStore, name: str) -> PartitionEntry:
    return store_partition(table_store.cache, pl.DataFrame({"day": [name]}), name, f"key of {name}")


class WrittenTable:
    """A table of three months: of the new one, January is gone, February as before, March longer, and April new."""

    def __init__(self, root: Path) -> None:
        self.table_store = TableStore(root, Cache(root / ".dvc/cache", root))

    def run(self) -> None:
        """Write the new table."""
        self.table_store.checkout(Manifest(TABLE, partitions={name: entry(self.table_store, name) for name in NEW}))

    def read_visible_state(self) -> State:
        """The entries of the manifest, read from the table's folder alone: an empty cache has no chunk of it."""
        reader = TableStore(self.table_store.root, Cache(self.table_store.root / "empty", self.table_store.root))
        manifest = reader.manifest(TABLE)
        missing = [name for name in manifest.files if not (reader.folder(TABLE) / name).exists()]
        assert not missing, f"the manifest names files that are not there: {missing}"
        return {"entries": dict(manifest.partitions)}

    def read_final_state(self) -> State:
        """Every file of the table's folder."""
        return hash_files(self.table_store.root, "data")


class WrittenTables:
    """Makes the cases below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Write the old table."""
        table_store = TableStore(self.folder / "old", Cache(self.folder / "old/.dvc/cache", self.folder / "old"))
        table_store.checkout(Manifest(TABLE, partitions={name: entry(table_store, name) for name in OLD}))

    def new_case(self, name: str) -> WrittenTable:
        """A copy of the old table."""
        shutil.copytree(self.folder / "old", self.folder / name)
        return WrittenTable(self.folder / name)

    def remove_case(self, name: str) -> None:
        """Delete it."""
        shutil.rmtree(self.folder / name)


def scenario(folder: Path) -> WrittenTables:
    return WrittenTables(folder)
