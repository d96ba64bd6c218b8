"""Doctor's checks of the machine: Python, open files, disk, settings, and what the DVC remote is told to verify."""

import resource
import shutil
import sys
from typing import NamedTuple

import pytest
from workspaces import Workspace

from headrace.maintenance.doctor import CheckResult, run_checks
from headrace.settings import Settings


class DiskUsage(NamedTuple):
    """What `shutil.disk_usage` returns."""

    total: int
    used: int
    free: int


def check(workspace: Workspace) -> dict[str, CheckResult]:
    return {result.name: result for result in run_checks(Settings(workspace=workspace.root))}


def test_a_machine_that_lacks_something_is_told_what_and_how_to_get_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.edit(".dvc/config", "verify = true", "verify = false")
    monkeypatch.setattr(sys, "version_info", (3, 9, 2, "final", 0))
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (256, 256))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: DiskUsage(2**40, 2**40 - 1000, 1000))

    checks = check(workspace)

    said = {
        "Python": "expected Python 3.11 to 3.13",
        "open files": "expected a limit of at least 1,024, found 256. Run `ulimit -n 1024`",
        "disk": "expected at least 1 GiB free, found 1,000 bytes. `headrace gc`",
        "DVC remote verifies what it pulls": "Run `dvc remote modify storage verify true`",
        "Feast's configuration": "FEAST_ONLINE_STORE_PATH and FEAST_REGISTRY_URL not set",
    }
    assert [name for name, words in said.items() if checks[name].ok or words not in checks[name].detail] == []


def test_a_machine_that_has_everything_passes(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEAST_ONLINE_STORE_PATH", "online.db")
    monkeypatch.setenv("FEAST_REGISTRY_URL", "sqlite:///registry.db")

    assert [result for result in check(workspace).values() if not result.ok] == []
