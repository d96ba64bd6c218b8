"""A project as `headrace init` makes it, for the tests of what is done in one."""

import shutil
from pathlib import Path

import pytest
from projects import Project

from headrace.templates.create_project import create_project


@pytest.fixture(scope="session")
def _created(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create_project("shop", tmp_path_factory.mktemp("created"))


@pytest.fixture
def project(_created: Path, tmp_path: Path) -> Project:
    """A copy of a new project, so that a test may change it."""
    return Project(Path(shutil.copytree(_created, tmp_path / "shop")))
