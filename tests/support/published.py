"""The workspace of `feature_workspace.py`, published once and copied for each test; fixtures to import."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import feature_workspace
import pytest
from feature_workspace import AIRCRAFT, AIRCRAFT_ROWS, publish_release, write_all_tables, write_table

from headrace.storage.table_store import TableStore

__all__ = ["published", "table_store"]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose tables are published in slot `b`, to be copied."""
    made = feature_workspace.create_workspace(tmp_path_factory.mktemp("template"))
    write_all_tables(made)
    write_table(made, AIRCRAFT, AIRCRAFT_ROWS)
    publish_release(made)
    return made.root


@pytest.fixture
def table_store(published: Path, tmp_path: Path) -> Iterator[TableStore]:
    """A copy of it; every store that the test opens is closed."""
    yield TableStore.at(shutil.copytree(published, tmp_path / "workspace"))
    feature_workspace.close_all()
