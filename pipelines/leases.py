"""Every lease of a workspace at once: while they are held, no run reads, computes or releases anything in it."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from pipelines import graph
from pipelines.dataset import raw_table
from pipelines.datasets import NAMES, load
from pipelines.engine.lake import Lake
from pipelines.labeling import tables as labeling_tables


@contextmanager
def held(lake: Lake, tables: Iterable[str] | None = None) -> Iterator[None]:
    """Hold the leases of `tables`, or of everything that a run of any dataset may write.

    Raises:
        TableBusyError: A run holds one of them.
    """
    with ExitStack() as stack:
        for table in sorted(set(everything(lake) if tables is None else tables)):
            stack.enter_context(lake.lease(table))
        yield


def everything(lake: Lake) -> Iterator[str]:
    """Name of every lease: of the tables there are or may be, of releases, and those that a run has ever taken."""
    for name in NAMES:
        dataset = load(name)
        yield f"release/{name}"
        yield from (raw_table(name, source.name) for source in dataset.sources)
        yield from (labeling_tables.annotations(dataset, labeling) for labeling in dataset.labels)
        for stage in graph.stages(dataset):
            yield from (stage.table, *stage.beside)
    for path in (lake.root / ".headrace" / "locks").glob("*.lock"):
        yield path.stem.replace(".", "/")
