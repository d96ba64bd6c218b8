"""The code that is fingerprinted is the code that runs, whoever edits a file when; a run that cannot know it stops."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import minimal_dataset
import polars as pl
import pytest

import headrace
from headrace import project_modules
from headrace.engine.code_hash import read_code, source_code
from headrace.engine.fingerprint import CodeChangedError, stage_fingerprint
from headrace.engine.run import run_stage
from headrace.engine.stage import InputHashes, InputPaths, PartitionOutput, Stage
from headrace.project.executors import Executor
from headrace.project_modules import ProjectLoader, watch_imports
from headrace.settings import Settings
from headrace.storage.table_store import TableStore

TABLE = "features/shop/totals"


class Project:
    """A project whose package has a name of its own, since a process imports a name once."""

    def __init__(self, root: Path) -> None:
        self.root, self.package = root, f"shop_{uuid.uuid4().hex}"
        self.write("__init__", "")

    def write(self, module: str, text: str) -> Path:
        path = self.root / self.package / f"{module}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def load(self, module: str) -> ModuleType:
        return import_module(f"{self.package}.{module}")

    def loader(self, module: str) -> ProjectLoader:
        loader = self.load(module).__loader__
        assert isinstance(loader, ProjectLoader)
        return loader

    def hash(self, module: str) -> str:
        return source_code([f"{self.package}.{module}"], self.root).files[f"{self.package}/{module}.py"]

    def stage(self, module: str, edit: Callable[[str], object], files: tuple[str, ...] = ()) -> Stage:
        """A stage of four partitions by the function `total` of a module; `edit` is called within each."""

        def compute(partition: str, _files: InputPaths, _params: Mapping[str, Any]) -> PartitionOutput:
            edit(partition)
            return PartitionOutput(pl.DataFrame({"total": [self.load(module).total]}), ())

        names: list[tuple[str, InputHashes]] = [(f"2026-01-0{day}", {}) for day in range(1, 5)]
        return Stage(
            "transform",
            "shop",
            TABLE,
            (),
            (f"{self.package}.{module}",),
            lambda _inputs, _own: names,
            compute,
            files=files,
        )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.syspath_prepend(tmp_path)
    watch_imports(tmp_path)
    return Project(tmp_path)


@pytest.fixture
def table_store(tmp_path: Path) -> TableStore:
    return minimal_dataset.create_table_store(tmp_path / "workspace")


def run(stage: Stage, table_store: TableStore, threads: int = 2) -> None:
    run_stage(stage, table_store, Executor(Settings(workspace=table_store.root, threads=threads)))


def totals(table_store: TableStore) -> list[int]:
    return table_store.scan(TABLE).collect()["total"].to_list()


def code_hash(text: str) -> str:
    return read_code(text.encode(), Path("module.py"))[0]


def test_a_module_that_is_edited_after_its_import_is_hashed_as_it_was_imported(project: Project) -> None:
    path = project.write("features", "total = 1\n")
    project.load("features")

    path.write_text("total = 2\n")

    assert project.hash("features") == code_hash("total = 1\n")


def test_a_module_that_is_not_imported_yet_is_hashed_as_its_file_is(project: Project) -> None:
    path = project.write("features", "total = 1\n")
    project.hash("features")

    path.write_text("total = 2\n")

    assert project.hash("features") == code_hash("total = 2\n")


def test_an_empty_module_that_is_filled_after_its_import_is_hashed_as_empty(project: Project) -> None:
    path = project.write("features", "")
    project.load("features")

    path.write_text("total = 2\n")

    assert project.hash("features") == code_hash("")


def test_a_traceback_shows_the_lines_that_ran(project: Project) -> None:
    path = project.write("features", "def total():\n    return 1 / 0\n")
    loader = project.loader("features")

    path.write_text("# a line more\ndef total():\n    return 1 / 0\n")

    assert loader.get_source(loader.name) == "def total():\n    return 1 / 0\n"


@pytest.mark.parametrize("cached", ["by Headrace", "by Python"])
def test_a_file_of_the_same_size_and_second_is_not_taken_for_the_one_that_was_compiled(
    tmp_path: Path, cached: str
) -> None:
    module = tmp_path / "pipelines/__init__.py"
    module.parent.mkdir()

    def imported(text: str, *, plainly: bool = False) -> str:
        module.write_text(text)
        os.utime(module, (1_700_000_000, 1_700_000_000))
        watch = "" if plainly else f"from headrace.workspace import use_project; use_project(Path({str(tmp_path)!r}));"
        script = f"from pathlib import Path; {watch} import pipelines; print(pipelines.total, pipelines.__cached__)"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(tmp_path), str(Path(headrace.__file__).parents[1]))),
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
        total, pyc = done.stdout.split()
        assert Path(pyc).exists(), "else nothing is shown"
        return total

    assert imported("total = 1\n", plainly=cached == "by Python") == "1"
    assert imported("total = 2\n") == "2"


def test_a_pyc_of_equal_bytes_is_used_whatever_the_time_of_the_file(project: Project) -> None:
    path = project.write("features", "total = 1\n")
    loader = project.loader("features")
    os.utime(path, (1_700_000_000, 1_700_000_000))

    with patch.object(loader, "source_to_code") as compile_source:
        loader.get_code(loader.name)

    compile_source.assert_not_called()


def test_modules_of_libraries_below_the_project_are_loaded_as_ever(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = project.root / "lib/site-packages"
    (installed / "shelves").mkdir(parents=True)
    (installed / "shelves/__init__.py").write_text("")
    monkeypatch.setattr(project_modules, "INSTALLED", (str(installed),))
    monkeypatch.syspath_prepend(installed)

    assert not isinstance(import_module("shelves").__loader__, ProjectLoader)
    assert project.loader("__init__")


@pytest.mark.parametrize("threads", [1, 2])
def test_a_file_that_changes_during_a_run_stops_it_and_nothing_is_shown(
    project: Project, table_store: TableStore, threads: int
) -> None:
    path = project.write("features", "total = 1\n")
    project.load("features")

    def edit(partition: str) -> None:
        if partition == "2026-01-03":
            path.write_text("total = 2\n")

    with pytest.raises(CodeChangedError, match=r"features.py changed .*Run the same command again"):
        run(project.stage("features", edit), table_store, threads)

    assert not table_store.folder(TABLE).exists()
    path.write_text("total = 1\n")
    run(project.stage("features", str), table_store)
    assert totals(table_store) == [1, 1, 1, 1]


def test_what_was_computed_before_the_change_is_kept_and_what_came_after_is_not(
    project: Project, table_store: TableStore
) -> None:
    path = project.write("features", "total = 1\n")
    begun: list[str] = []

    def edit(partition: str) -> None:
        begun.append(partition)
        if len(begun) == 3:
            path.write_text("total = 2\n")

    with pytest.raises(CodeChangedError):
        run(project.stage("features", edit), table_store, threads=1)
    path.write_text("total = 1\n")
    again: list[str] = []
    run(project.stage("features", again.append), table_store, threads=1)

    assert len(begun) == 3, "the run stopped"
    assert set(again) == {"2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"} - set(begun[:2])


def test_a_comment_that_changes_during_a_run_stops_nothing(project: Project, table_store: TableStore) -> None:
    path = project.write("features", "total = 1\n")
    project.load("features")

    run(project.stage("features", lambda _day: path.write_text("total = 1  # euros\n")), table_store, threads=1)

    assert totals(table_store) == [1, 1, 1, 1]


def test_a_module_that_was_swapped_while_it_was_imported_stops_the_run_though_its_file_is_back(
    project: Project, table_store: TableStore
) -> None:
    path = project.write("features", "total = 1\n")

    def swap(_day: str) -> None:
        path.write_text("total = 2\n")
        project.load("features")
        path.write_text("total = 1\n")

    with pytest.raises(CodeChangedError, match=r"features.py"):
        run(project.stage("features", swap), table_store)


def test_a_declared_file_that_changes_during_a_run_stops_it(project: Project, table_store: TableStore) -> None:
    project.write("features", "total = 1\n")
    (project.root / "zones.csv").write_text("zone\n1\n")

    def edit(_day: str) -> None:
        (project.root / "zones.csv").write_text("zone\n2\n")

    with pytest.raises(CodeChangedError, match=r"zones\.csv"):
        run(project.stage("features", edit, files=("zones.csv",)), table_store)


def test_a_file_that_is_gone_stops_the_run(project: Project, table_store: TableStore) -> None:
    path = project.write("features", "total = 1\n")
    project.load("features")

    with pytest.raises(CodeChangedError, match=r"features.py"):
        run(project.stage("features", lambda _day: path.unlink(missing_ok=True)), table_store)


def test_the_fingerprint_of_a_loaded_stage_names_what_was_loaded(project: Project, table_store: TableStore) -> None:
    path = project.write("features", "total = 1\n")
    project.load("features")
    path.write_text("total = 2\n")
    stage = project.stage("features", str)

    assert f"{project.package}/features.py" in stage_fingerprint(stage, table_store.root).code
    with pytest.raises(CodeChangedError, match=r"features.py"):
        run(stage, table_store)
