"""The workspace of `feature_workspace.py` with applied Feast definitions, copied for each test; fixtures to import."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import feature_workspace
import pytest
from feast import FeatureStore
from feature_workspace import DATASET, open_workspace_store, write_all_tables

from headrace.feast.definitions import DeploymentState, SlotState, dataset_objects
from headrace.storage.table_store import TableStore

__all__ = ["applied", "store", "table_store"]


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose definitions are applied, to be copied: applying takes a second."""
    made = feature_workspace.create_workspace(tmp_path_factory.mktemp("template"))
    write_all_tables(made)
    open_workspace_store(made).apply([*dataset_objects(DATASET, DeploymentState(SlotState("a"), SlotState("b")))])
    feature_workspace.close_all()
    return made.root


@pytest.fixture
def table_store(applied: Path, tmp_path: Path) -> Iterator[TableStore]:
    """A copy of it; every store that the test opens is closed."""
    yield TableStore.at(shutil.copytree(applied, tmp_path / "workspace"))
    feature_workspace.close_all()


@pytest.fixture
def store(table_store: TableStore) -> FeatureStore:
    """Feast's store of the workspace."""
    return open_workspace_store(table_store)
