"""A git remote for runs."""

from pathlib import Path

import pytest
from release_clones import Origin
from servers import S3


@pytest.fixture
def origin(tmp_path: Path, s3: S3) -> Origin:
    """A repository with one commit, and no release."""
    return Origin.begin(tmp_path, s3)
