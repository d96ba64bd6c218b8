"""Tables on record that no declaration makes, after somebody removed or renamed one."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from headrace.dataset import Dataset
from headrace.project.findings import Finding
from headrace.project.input_check import Maker, TableGraph
from headrace.project.loading import dataset_names
from headrace.storage.dvc.lock import recorded_outs
from headrace.storage.table_store import TableStore
from headrace.workspace import PACKAGE


def declared_tables(dataset: Dataset) -> dict[str, Maker]:
    """Table, `<state>/<dataset>/<name>` → the declaration that makes it."""
    makers = TableGraph(dataset).makers
    return {table.replace("/", f"/{dataset.name}/", 1): declared for table, declared in makers.items()}


def undeclared_tables(dataset: Dataset, table_store: TableStore) -> list[str]:
    """Tables of the dataset that the workspace shows or records, and that it does not declare."""
    declared = declared_tables(dataset)
    return [table for table in table_store.known_tables(dataset.name) if table not in declared]


def undeclared_datasets(table_store: TableStore) -> list[str]:
    """Datasets with tables that the workspace shows or records, and that have no folder in `pipelines/`."""
    recorded = {path.split("/")[2] for path in recorded_outs(table_store.root) if path.count("/") == 3}  # noqa: PLR2004
    shown = {path.parent.name for path in (table_store.root / "data").glob("*/*/*/")}
    known = (name for name in recorded | shown if table_store.known_tables(name))
    return sorted(set(known) - set(dataset_names(table_store.root)))


def table_names(tables: Iterable[str]) -> list[str]:
    """The tables' own names, each once."""
    return sorted({table.rsplit("/", 1)[1] for table in tables})


def next_command(dataset: str, tables: Iterable[str] = ()) -> str:
    """What to run about these tables that are on record and not declared, or about a whole dataset that is not."""
    names = [f" {name}" for name in table_names(tables)] or [""]
    drop = " and ".join(f"`headrace drop {dataset}{name}`" for name in names)
    return f"{drop} or, under a new name, `headrace rename {dataset}{names[0]} NEW`"


def find_undeclared(datasets: Iterable[Dataset], table_store: TableStore, *, every: bool) -> Iterator[Finding]:
    """Findings of `headrace check`: tables on record that these datasets do not declare.

    Args:
        datasets: The datasets.
        table_store: The workspace's tables.
        every: Whether they are all datasets of the project, so that those without a folder are found, too.
    """
    root = table_store.root
    for dataset in datasets:
        if tables := undeclared_tables(dataset, table_store):
            text = f"nothing declares {', '.join(tables)}, on record here: {next_command(dataset.name, tables)}."
            yield Finding(_relative(dataset.place[0], root), dataset.place[1], text, "warning", dataset.name)
    for name in undeclared_datasets(table_store) if every else ():
        text = f"no folder declares the dataset {name}, whose tables are on record: {next_command(name)}."
        yield Finding(f"{PACKAGE}/{name}", 0, text, "warning", name)


def place_of(declared: Maker, root: Path) -> str:
    """File and line of a declaration, `pipelines/flights/sources/planes.py:61`."""
    file, line = declared.place
    return f"{_relative(file, root)}:{line}"


def _relative(file: str, root: Path) -> str:
    path = Path(file)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else file
