"""Tables that a project no longer has: `retired_tables.yaml`, which is committed with the declarations.

A release leaves such a table out. One that is neither declared nor retired would disappear without a reason, and that
refuses the release. Earlier releases keep every table that they have.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from headrace.dataset import Dataset
from headrace.guards.gate import accepting_person
from headrace.project.declared_tables import declared_tables
from headrace.project.findings import Finding
from headrace.storage import git
from headrace.storage.files import atomic_write, dump_yaml, load_yaml
from headrace.storage.retired_tables import FILE, RetiredTable, decode_retired_tables, parse_retired_tables
from headrace.workspace import PACKAGE

HEADER = (
    "# Written by `headrace drop` and `headrace rename`, and committed: tables that releases leave out, and why.\n"
    "# Remove the entry of a table that is declared again.\n"
)


def read_retired_tables(root: Path) -> dict[str, RetiredTable]:
    """Table → why it is retired, of the project `root`.

    Raises:
        DamagedFileError: The file cannot be parsed.
        HeadraceError: It holds something else.
    """
    path = root / FILE
    return decode_retired_tables(load_yaml(path), str(path)) if path.exists() else {}


def retire_tables(root: Path, tables: Iterable[str], reason: str, renamed: Mapping[str, str] | None = None) -> None:
    """Record that these tables are retired, unless that is recorded.

    Args:
        root: The project.
        tables: The tables.
        reason: Why.
        renamed: Table → its new name, of those that were renamed.
    """
    before, names = read_retired_tables(root), renamed or {}
    by, at = accepting_person(root), datetime.now(UTC).isoformat(timespec="seconds")
    wanted = {table: RetiredTable(reason, by, at, names.get(table, "")) for table in tables}
    same = {table for table in wanted if table in before and before[table].renamed_to == wanted[table].renamed_to}
    after = {**before, **{table: entry for table, entry in wanted.items() if table not in same}}
    if after != before:
        content = {table: _written(after[table]) for table in sorted(after)}
        atomic_write(root / FILE, HEADER.encode() + dump_yaml(content))


def find_declared_again(datasets: Iterable[Dataset], root: Path) -> Iterator[Finding]:
    """Findings of `headrace check`: entries of tables that are declared again, which would excuse a later loss."""
    retired = read_retired_tables(root)
    lines = (root / FILE).read_text("utf-8").splitlines() if retired else []
    for dataset in datasets:
        for table in sorted(retired.keys() & declared_tables(dataset).keys()):
            text = f"{table} is declared again: remove its entry, which would let a release leave it out."
            yield Finding(FILE, lines.index(f"{table}:") + 1, text, "warning", dataset.name)


def _written(table: RetiredTable) -> dict[str, str]:
    return {name: value for name, value in asdict(table).items() if value}


def retired_datasets(root: Path, commit: str) -> set[str]:
    """Datasets whose tables are retired at `commit`, and that it does not declare any more."""
    text = git.show(root, commit, FILE)
    names = {table.split("/")[1] for table in parse_retired_tables(text)} if text else set()
    folders = {name: f"{PACKAGE}/{name}/__init__.py" for name in names}
    declared = git.tree(root, commit, *folders.values()) if folders else {}
    return {name for name, path in folders.items() if path not in declared}
