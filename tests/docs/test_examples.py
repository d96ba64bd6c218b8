"""The examples in the docstrings of the public API print what they say, on real tables in a fresh clone."""

import json
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import doc_examples
import pytest
from workspaces import Workspace

import headrace

EXAMPLES = doc_examples.find_examples()
NOT_INSTALLED = {"to_hugging_face", "to_torch"}
"""Functions of libraries that the tests do without."""


def test_every_public_function_has_an_example() -> None:
    functions = {name for name in headrace.__all__ if isinstance(getattr(headrace, name), FunctionType)}

    assert functions - NOT_INSTALLED - EXAMPLES.keys() == set()


@pytest.fixture(scope="module")
def differences(_released: Workspace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Example → what it printed instead of what its docstring says, in a clone with the release `flights/1`."""
    root = _released.copy(tmp_path_factory.mktemp("examples")).clone("reader").root
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FEAST_REGISTRY_URL", f"sqlite:///{root}/registry.db")
        environment.setenv("FEAST_ONLINE_STORE_PATH", f"{root}/online.db")
        done = subprocess.run(
            [sys.executable, Path(doc_examples.__file__)], cwd=root, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_what_its_docstring_says(differences: dict[str, str], name: str) -> None:
    assert not differences[name], differences[name]
