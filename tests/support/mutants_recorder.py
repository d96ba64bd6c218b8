"""A plugin of pytest that records how long each test takes, with its fixtures, and which fail; for `mutants`."""

import json
import os
from pathlib import Path

import pytest

_seconds: dict[str, float] = {}
_failed: set[str] = set()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Take one phase of a test."""
    _seconds[report.nodeid] = _seconds.get(report.nodeid, 0) + report.duration
    if not report.passed:  # a test that is skipped says nothing either
        _failed.add(report.nodeid)


def pytest_sessionfinish() -> None:
    """Write what was recorded."""
    Path(os.environ["MUTANTS_RECORD"]).write_text(json.dumps({"seconds": _seconds, "failed": sorted(_failed)}))
