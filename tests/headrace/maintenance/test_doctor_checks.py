"""Doctor's checks of the project: `headrace.lock`, `dvc.yaml` and the datasets, each with its next command.

A check that fails does not hide the others.
"""

import json
import re
from typing import Any

import pytest
from workspaces import Workspace

from headrace.maintenance.doctor import CheckResult, run_checks
from headrace.settings import Settings
from headrace.storage import golden
from headrace.storage.files import load_yaml


def test_a_project_that_matches_its_environment_passes_every_check(workspace: Workspace) -> None:
    checks = doctor(workspace, fails=False)

    assert [name for name, check in checks.items() if not check["ok"] and not check["is_warning"]] == []
    assert {"headrace.lock", "dvc.yaml", "dataset digits", "dataset flights"} <= checks.keys()
    assert checks["dataset flights"]["detail"] == "4 sources, 4 feature tables, 1 labeling task"


def test_a_library_that_headrace_lock_does_not_name_is_reported_with_the_install_command(workspace: Workspace) -> None:
    lock = (workspace.root / "headrace.lock").read_text("utf-8")
    installed = re.search(r"polars: (\S+)", lock)
    assert installed
    workspace.edit("headrace.lock", f"polars: {installed[1]}", "polars: 1.35.0")

    checks = doctor(workspace, fails=True)

    assert not checks["headrace.lock"]["ok"]
    assert f"polars 1.35.0 expected, {installed[1]} found" in checks["headrace.lock"]["detail"]
    assert "`pip install 'polars==1.35.0'`" in checks["headrace.lock"]["detail"]
    assert checks["dataset flights"]["ok"]
    assert checks["DVC remote"]["ok"]


def test_a_missing_headrace_lock_is_a_warning_with_the_command_that_writes_it(workspace: Workspace) -> None:
    (workspace.root / "headrace.lock").unlink()

    check = doctor(workspace, fails=True)["headrace.lock"]

    assert check["is_warning"]
    assert "Run `headrace dvc-sync`" in check["detail"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "stages:",
            "stages:\n  flights-validate-wether:\n    cmd: headrace validate flights",
            "dvc.yaml is not what the datasets declare",
        ),
        ("stages:", "<<<<<<< HEAD\nstages:", "dvc.yaml cannot be parsed"),
    ],
)
def test_a_dvc_yaml_that_is_out_of_date_or_damaged_is_reported_with_the_next_command(
    workspace: Workspace, old: str, new: str, problem: str
) -> None:
    workspace.edit("dvc.yaml", old, new)

    checks = doctor(workspace, fails=True)

    assert not checks["dvc.yaml"]["ok"]
    assert problem in checks["dvc.yaml"]["detail"]
    assert re.search("`headrace dvc-sync`|`git checkout -- dvc.yaml`", checks["dvc.yaml"]["detail"])
    assert checks["headrace.lock"]["ok"]
    assert checks["git remote"]["ok"]


def test_a_dataset_that_cannot_be_loaded_is_reported_by_name_and_the_others_are_checked(workspace: Workspace) -> None:
    file = workspace.root / "pipelines/digits/__init__.py"
    file.write_text("import nowhere\n", "utf-8")

    checks = doctor(workspace, fails=True)

    assert not checks["dataset digits"]["ok"]
    assert "ModuleNotFoundError: No module named 'nowhere'" in checks["dataset digits"]["detail"]
    assert "pipelines/digits/__init__.py:1" in checks["dataset digits"]["detail"]
    assert "then run the command again" in checks["dataset digits"]["detail"]
    assert {name for name, check in checks.items() if not check["ok"] and not check["is_warning"]} == {"dataset digits"}
    assert checks["dvc.yaml"]["detail"].endswith("as the datasets declare; not checked: those of digits")


def test_dvc_sync_keeps_the_stages_and_lock_entries_of_a_dataset_that_cannot_be_loaded(workspace: Workspace) -> None:
    before = [load_yaml(workspace.root / name) for name in ("dvc.yaml", "headrace.lock")]
    (workspace.root / "pipelines/digits/__init__.py").write_text("import nowhere\n", "utf-8")

    workspace.command("headrace", "dvc-sync", fails=True)

    assert [load_yaml(workspace.root / name) for name in ("dvc.yaml", "headrace.lock")] == before


def test_a_parquet_writer_with_other_bytes_is_reported(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    golden.check_writer.cache_clear()
    monkeypatch.setattr(golden, "golden_hash", lambda: "0" * 64)

    results = {result.name: result for result in run_checks(Settings(workspace=workspace.root))}

    golden.check_writer.cache_clear()
    assert isinstance(results["Parquet writer"], CheckResult)
    assert not results["Parquet writer"].ok
    assert "`pip install" in results["Parquet writer"].detail
    assert results["git remote"].ok


def doctor(workspace: Workspace, *, fails: bool) -> dict[str, dict[str, Any]]:
    """Name → result of every check of `headrace doctor`."""
    output = workspace.command("headrace", "doctor", "--json", fails=fails)
    return {check["name"]: check for check in json.loads(output)["checks"]}
