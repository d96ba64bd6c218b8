"""Which declarations a process loads: those of HEADRACE_WORKSPACE, else of the project of the current folder.

No process needs the project on its import path, and an engine inside a project does not run.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import headrace

ENGINE = Path(headrace.__file__).parents[1]
SCRIPT = """
import headrace
from headrace.project.loading import dataset_names, project_root
print(project_root(), *dataset_names(), headrace.__file__)
"""


def new_project(folder: Path, dataset: str) -> Path:
    """A project with one dataset and a script, and with an engine of its own."""
    for name, text in {
        "dvc.yaml": "stages: {}\n",
        "pipelines/__init__.py": "",
        f"pipelines/{dataset}/__init__.py": "",
        "headrace/__init__.py": "raise RuntimeError('not the engine that is installed')\n",
        "examples/script.py": SCRIPT,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def run(script: Path, folder: Path, **settings: object) -> str:
    """What a script prints, run in a folder by a new process; the engine is found as one from a wheel is."""
    env = {**os.environ, "PYTHONPATH": str(ENGINE), **{name: str(value) for name, value in settings.items()}}
    done = subprocess.run([sys.executable, script], cwd=folder, env=env, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip()


@pytest.mark.slow
@pytest.mark.parametrize("below", [".", "examples"])
def test_a_script_loads_the_project_of_the_current_folder(tmp_path: Path, below: str) -> None:
    project = new_project(tmp_path, "orders")

    assert run(project / "examples/script.py", project / below) == f"{project} orders {headrace.__file__}"


@pytest.mark.slow
def test_a_script_loads_the_workspace_that_the_environment_names(tmp_path: Path) -> None:
    here, there = new_project(tmp_path / "here", "orders"), new_project(tmp_path / "there", "rides")

    printed = run(here / "examples/script.py", here, HEADRACE_WORKSPACE=there)

    assert printed == f"{there} rides {headrace.__file__}"
