"""A command imports Feast without its type checks; code that imports Feast itself keeps them."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

IMPORT = """
import typeguard
from headrace.feast_import import import_feast_unchecked

checked = typeguard.typechecked
{first}
import_feast_unchecked()
import feast

assert typeguard.typechecked is checked
assert feast.entity.Entity is feast.Entity
field = feast.Field(name=1, dtype=feast.types.Int64)
"""


def run(first: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", IMPORT.format(first=first)], capture_output=True, text=True, check=False
    )


def test_feast_imported_by_a_command_is_whole_without_type_checks_and_leaves_typeguard_as_it_was() -> None:
    assert not run().returncode


def test_feast_that_was_imported_before_keeps_its_type_checks() -> None:
    assert "TypeCheckError" in run("import feast").stderr
