"""A source of several objects per day for the tests: files below a folder that stands in for a bucket."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import minimal_dataset
from minimal_dataset import RAW

from headrace.dataset import Dataset, ObjectSource, Source
from headrace.ingest.ingest import IngestResult, ingest
from headrace.settings import Settings
from headrace.storage.dvc.cache import Cache
from headrace.storage.manifest import Manifest
from headrace.storage.table_store import TableStore

FOLDERS = ObjectSource("sales/", r"sales/(?P<partition>\d{4}-\d\d-\d\d)/.+\.csv", ".csv", "file:bucket")
MARKED = replace(FOLDERS, marker="_SUCCESS")

FIRST, SECOND = "2026-01-01", "2026-01-02"


@dataclass
class ManyObjects:
    """A folder of objects, and the workspace that reads them.

    Attributes:
        root: The workspace; the folder is `bucket` in it.
        source: What is declared.
        added: Bytes that went into the cache, in order.
    """

    root: Path
    source: Source = field(default_factory=lambda: replace(minimal_dataset.SALES, location=FOLDERS))

    @property
    def table_store(self) -> TableStore:
        """The tables, as another process opens them."""
        return TableStore(self.root, Cache(self.root / ".dvc/cache", self.root))

    @property
    def dataset(self) -> Dataset:
        """The dataset with this source."""
        return replace(minimal_dataset.DATASET, sources=(self.source,))

    @property
    def manifest(self) -> Manifest:
        """The raw table."""
        return self.table_store.manifest(RAW)

    @property
    def keys(self) -> dict[str, list[str]]:
        """Partition → keys of its objects, as the raw table has them."""
        found: dict[str, list[str]] = {}
        for name, entry in self.manifest.partitions.items():
            found.setdefault(name.partition("+")[0], []).extend(item.key for item in entry.objects)
        return {partition: sorted(keys) for partition, keys in found.items()}

    def put(self, name: str, *lines: str, header: str = "at,shop,amount") -> None:
        """Write an object of lines `at,shop,amount`."""
        path = self.root / "bucket/sales" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in (header, *lines)) if path.suffix else "")

    def put_days(self, days: Iterable[str], names: str = "abc") -> None:
        """An object for each letter and day: a sale of the shop of that letter."""
        for day in days:
            for name in names:
                self.put(f"{day}/{name}.csv", f"{day}T12:00:00Z,{name},1")

    def delete(self, name: str) -> None:
        """Delete an object."""
        (self.root / "bucket/sales" / name).unlink()

    def ingest(self, **options: str | bool) -> IngestResult:
        """Read what is new."""
        return ingest(self.dataset, self.table_store, Settings(workspace=self.root), **options)[0]  # type: ignore[arg-type]
