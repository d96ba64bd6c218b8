"""The workspace of `feature_workspace.py` with applied Feast definitions, copied for each test; fixtures to import."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import feature_workspace
import pytest
from feast import FeatureStore
from feature_workspace import DATASET, open_workspace_store, write_all_tables

from headrace.feast.definitions import Holding, Standing, objects
from headrace.storage.table_store import Lake

__all__ = ["applied", "lake", "store"]


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose definitions are applied, to be copied: applying takes a second."""
    made = feature_workspace.create_workspace(tmp_path_factory.mktemp("template"))
    write_all_tables(made)
    open_workspace_store(made).apply([*objects(DATASET, Standing(Holding("a"), Holding("b")))])
    feature_workspace.close_all()
    return made.root


@pytest.fixture
def lake(applied: Path, tmp_path: Path) -> Iterator[Lake]:
    """A copy of it; every store that the test opens is closed."""
    yield Lake.at(shutil.copytree(applied, tmp_path / "workspace"))
    feature_workspace.close_all()


@pytest.fixture
def store(lake: Lake) -> FeatureStore:
    """Feast's store of the workspace."""
    return open_workspace_store(lake)
