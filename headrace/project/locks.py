"""The locks of several tables, or of all: while all are held, no run reads, computes or releases anything here."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from headrace.dataset import raw_table
from headrace.label import table_names as labeling_tables
from headrace.project import graph
from headrace.project.loading import dataset_names, load_dataset
from headrace.storage.table_store import TableStore


@contextmanager
def lock_tables(table_store: TableStore, tables: Iterable[str] | None = None) -> Iterator[None]:
    """Hold the locks of `tables`, or of everything that a run of any dataset may write.

    Raises:
        TableLockedError: A run holds one of them.
    """
    with ExitStack() as stack:
        for table in sorted(set(all_lock_names(table_store) if tables is None else tables)):
            stack.enter_context(table_store.lock_table(table))
        yield


def all_lock_names(table_store: TableStore) -> Iterator[str]:
    """Name of every lock: of the tables that datasets declare, of releases, and those that any run has taken here."""
    for name in dataset_names():
        dataset = load_dataset(name)
        yield f"release/{name}"
        yield f"runs/{name}"
        yield from (raw_table(name, source.name) for source in dataset.raw_sources)
        yield from (labeling_tables.annotations_table(dataset, labeling) for labeling in dataset.labels)
        for stage in graph.dataset_stages(dataset):
            yield from (stage.table, *stage.companion_tables)
    for path in (table_store.root / ".headrace" / "locks").glob("*.lock"):
        yield path.stem.replace(".", "/")
