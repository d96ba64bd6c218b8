"""`headrace check` and `headrace plan` in a project outside of this repository.

Each finding has file and line; one broken dataset does not hide the others; sources are asked where that is wanted.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import minimal_dataset
import pytest
from projects import Project

from headrace.cli import app
from headrace.storage.s3.errors import StorageUnreachableError
from headrace.storage.table_store import TableStore

pytestmark = pytest.mark.slow  # each test starts commands

MODULE = '''"""Sales."""
from dataclasses import replace

from minimal_dataset import FEATURES, SALES

from headrace.dataset import Dataset, Input, ObjectSource

SOURCE = replace(SALES, location=ObjectSource("sales/", r"sales/(?P<partition>.+)\\.csv", ".csv", "file:sample"))
DATASET = Dataset(description="Sales.", owner="tests", sources=(SOURCE,), features=(FEATURES,))
'''

UNKNOWN_INPUT = '''"""Sales of shops."""
from headrace.dataset import Dataset, FeatureTable, Input
from minimal_dataset import FEATURES, SALES, totals

TOTALS = FeatureTable(
    name="totals",
    keys=("shop",),
    inputs={
        "sales": Input("validated/salez"),
    },
    transform=totals,
    features=FEATURES.features,
    ttl=FEATURES.ttl,
    key_types={"shop": float},
)
DATASET = Dataset(description="Sales.", owner="tests", sources=(SALES,), features=(TOTALS,))
'''


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One sound dataset, and three that are broken in different ways; a commit of all."""
    root = tmp_path_factory.mktemp("check")
    codes = {
        "tiny": MODULE,
        "unknown_input": UNKNOWN_INPUT,
        "raises": "x = 1\nDATASET = x / 0\n",
        "torn": "DATASET = (\n",
    }
    for name, code in codes.items():
        folder = root / "pipelines" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(code)
    (root / "pipelines/__init__.py").touch()
    (root / "dvc.yaml").touch()
    (root / "sample/sales").mkdir(parents=True)
    for day in ("2026-01-01", "2026-01-02"):
        (root / f"sample/sales/{day}.csv").write_text(f"at,shop,amount\n{day}T12:00:00Z,east,1\n")
    (root / "sample/sales/backfill.csv").touch()
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "Declare"]):
        subprocess.run(["git", "-C", root, *command], check=True)
    return Project(root)


def test_each_broken_dataset_is_a_finding_with_file_and_line(project: Project) -> None:
    found = project.headrace("check", fails=True).splitlines()

    where = [line.partition(": error: ")[0] for line in found[:-1]]
    assert where == [
        "pipelines/raises/__init__.py:2",
        "pipelines/torn/__init__.py:1",
        "pipelines/unknown_input/__init__.py:9",
        "pipelines/unknown_input/__init__.py:14",
    ]
    assert "(did you mean 'validated/sales'?)" in found[2]
    assert "the key 'shop' is declared as <class 'float'>" in found[3]
    assert found[-1] == "4 datasets checked, 4 errors, 0 warnings"


LOADS_NOTHING = {
    "exits": ("import sys\n\nsys.exit(0)\n", "SystemExit: 0"),
    "unheard": ("raise BaseException('nobody catches this')\n", "BaseException: nobody catches this"),
    "mute": (
        "class Mute(Exception):\n    def __str__(self):\n        return 1 / 0\n\n\nraise Mute\n",
        "Mute: its message cannot be shown",
    ),
    "fileless": (
        MODULE.replace("features=(FEATURES,)", "features=(replace(FEATURES, files=('holidays.csv',)),)"),
        "feature table totals: expected the file holidays.csv in the project, found none",
    ),
}


def test_a_dataset_that_ends_the_process_or_lacks_a_file_hides_no_other(project: Project, tmp_path: Path) -> None:
    copy = Project(tmp_path / "copy")
    subprocess.run(["cp", "-R", project.root, copy.root], check=True)
    for name, (code, _) in LOADS_NOTHING.items():
        (copy.root / "pipelines" / name).mkdir()
        (copy.root / f"pipelines/{name}/__init__.py").write_text(code)

    found = copy.headrace("check", *LOADS_NOTHING, "unknown_input", fails=True)

    for _, problem in LOADS_NOTHING.values():
        assert f": error: {problem}" in found
    assert "pipelines/exits/__init__.py:3: error: SystemExit: 0. Fix it" in found
    assert "5 datasets checked, 6 errors, 0 warnings" in found


def test_a_check_in_json_names_level_and_dataset(project: Project) -> None:
    found = json.loads(project.run("headrace", "check", "unknown_input", "tiny", "--json", fails=True))

    assert found["datasets"] == ["unknown_input", "tiny"]
    assert {(finding["dataset"], finding["level"]) for finding in found["findings"]} == {("unknown_input", "error")}
    assert set(found["findings"][0]) == {"file", "line", "problem", "level", "dataset"}


@pytest.mark.parametrize("command", ["run", "plan", "ingest"])
def test_every_command_begins_with_the_check_and_prints_no_trace(project: Project, command: str) -> None:
    found = project.headrace(command, "unknown_input", fails=True)

    assert "The dataset unknown_input (pipelines/unknown_input) cannot be loaded:" in found
    assert "  pipelines/unknown_input/__init__.py:9: feature table totals: there is no table 'validated/salez'" in found
    assert "the other datasets are not affected" in found
    assert "Traceback" not in found


def test_a_sound_dataset_is_checked_with_its_sources(project: Project) -> None:
    assert project.headrace("check", "tiny") == "1 dataset checked, nothing found\n"

    found = project.headrace("check", "tiny", "--sources")

    assert "warning: source sales: 1 key has no valid partition name and was not read" in found
    assert "1 dataset checked, 0 errors, 1 warning" in found


def test_feature_tables_of_one_name_in_two_datasets_are_named(project: Project, tmp_path: Path) -> None:
    copy = Project(tmp_path / "copy")
    subprocess.run(["cp", "-R", project.root, copy.root], check=True)
    shutil.copytree(copy.root / "pipelines/tiny", copy.root / "pipelines/twin")

    found = copy.headrace("check", "tiny", "twin", fails=True)

    assert "error: feature table totals: the dataset tiny has a feature table or service 'totals', too" in found
    assert "1 error" in found


def test_a_plan_shows_an_object_that_waits_unless_it_is_offline(project: Project) -> None:
    planned: Any = json.loads(project.headrace("plan", "tiny", "--json"))
    lines = project.headrace("plan", "tiny")
    offline = project.headrace("plan", "tiny", "--offline")

    (source,) = planned["sources"]
    assert source["new"] == ["2026-01-01", "2026-01-02"]
    assert source["cost"].keys() == {"objects", "requests", "queries", "seconds"}
    assert [sorted(stage["stale"]) for stage in planned["stages"]] == [source["new"], source["new"]]
    assert "raw/tiny/sales: 2 listed, 2 new; 86 bytes to read (3 objects, " in lines
    assert (
        offline == "validated/tiny/sales: up to date (0 partitions)\nfeatures/tiny/totals: up to date (0 partitions)\n"
    )


def test_a_plan_names_a_source_that_cannot_be_listed_and_plans_the_rest(project: Project, tmp_path: Path) -> None:
    copy = Project(tmp_path / "copy")
    subprocess.run(["cp", "-R", project.root, copy.root], check=True)
    (copy.root / "sample").rename(copy.root / "elsewhere")

    found = copy.headrace("plan", "tiny")
    checked = copy.headrace("check", "tiny", "--sources", fails=True)

    assert "raw/tiny/sales: not listed, planned as in the workspace: file:sample: expected the folder" in found
    assert "features/tiny/totals: up to date (0 partitions)" in found
    assert "error: source sales: it cannot be listed: file:sample: expected the folder" in checked


@pytest.fixture
def unavailable(project: Project, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A workspace whose registry cannot be opened, and whose recorded tables are on a remote that does not answer.

    Returns:
        The tables that the remote was asked for.
    """
    monkeypatch.setenv("HEADRACE_WORKSPACE", str(project.root))
    monkeypatch.setenv("FEAST_REGISTRY_URL", "postgresql+psycopg://me:secret@127.0.0.1:1/registry")
    table_store, asked = minimal_dataset.create_table_store(project.root), list[str]()
    minimal_dataset.write_raw_partitions(table_store, minimal_dataset.raw_days(1, 2))

    def read_from_remote(_table_store: TableStore, table: str, _revision: str | None = None) -> None:
        asked.append(table)
        raise StorageUnreachableError("the remote does not answer")

    recorded = (minimal_dataset.RAW, minimal_dataset.TOTALS, minimal_dataset.VALIDATED)
    monkeypatch.setattr(TableStore, "recorded_manifest", read_from_remote)
    monkeypatch.setattr(TableStore, "known_tables", lambda _table_store, _dataset: recorded)
    return asked


def test_status_shows_what_it_can_and_says_what_it_could_not_ask(
    unavailable: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    app(["status", "tiny"], standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    app(["status", "tiny", "--json"], standalone_mode=False)
    content = json.loads(capsys.readouterr().out)

    assert lines[1].startswith("raw/tiny/sales: 2 partitions (2026-01-01 … 2026-01-02)")
    assert lines[2] == "not known: features/tiny/totals, validated/tiny/sales: the remote does not answer"
    assert re.match("not known: online: .*registry.*does not answer", lines[3])
    assert "secret" not in "".join(lines)
    assert set(content["tables"]) == {minimal_dataset.RAW}
    assert set(content["unknown"]) == {minimal_dataset.TOTALS, minimal_dataset.VALIDATED, "online"}
    assert content["unknown"][minimal_dataset.TOTALS] == {
        "type": "StorageUnreachableError",
        "message": "the remote does not answer",
        "transient": True,
    }
    assert unavailable == [minimal_dataset.TOTALS] * 2  # it is waited for once in each command
