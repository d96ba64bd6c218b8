"""Fixtures and markers of all tests: real servers on demand, and a clean environment."""

import os
from collections import Counter
from pathlib import Path

import hypothesis
import pytest

from headrace.feast_import import import_feast_unchecked

pytest_plugins = ["servers", "label_server", "workspaces", "release_clones"]

SERVER_FIXTURES = frozenset(("s3", "moto_s3", "postgres", "redis", "label_studio", "postgresql_weather"))
"""Fixtures that start a server, and parameters that request one."""

ENVIRONMENT_PREFIXES = ("AIRFLOW", "AWS_", "DASK_", "FEAST_", "HEADRACE_", "LABEL_STUDIO_")

SUPPORT = Path(__file__).parent / "support"
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(SUPPORT), os.environ.get("PYTHONPATH"))))
"""Projects of the tests import their support, in the commands that they start as well."""

MEMORY = Path("/dev/shm")  # noqa: S108  tmpfs on Linux; pytest creates a folder of this user in it
GIB = 1 << 30


def has_room(folder: Path) -> bool:
    """Whether the tests may write to a file system in memory: it has room, so has the machine, and programs may run."""
    try:
        found, memory = os.statvfs(folder), Path("/proc/meminfo").read_text("ascii")
    except OSError:
        return False
    available = int(memory.partition("MemAvailable:")[2].split()[0]) * 1024
    is_free = min(found.f_bavail * found.f_frsize, available) >= 12 * GIB
    return is_free and not found.f_flag & os.ST_NOEXEC


if has_room(MEMORY):
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
"""A copy of a workspace has a thousand files, which a disk creates in five times the processor time."""

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
"""Threads of scikit-learn that wait take no processor from the other worker."""

if os.environ.get("UNCHECKED_FEAST"):  # as in `make quick`: seconds less in each worker
    import_feast_unchecked()

hypothesis.settings.register_profile("same", max_examples=50, derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("explore", max_examples=300, deadline=None, print_blob=True)
hypothesis.settings.load_profile("same")
"""The same examples on every machine, so that a run judges the change alone; `make faults` looks for new ones."""

LONGEST = (
    "test_demo.py", "test_first_hour.py", "test_celery.py", "test_restore.py", "test_online_stores.py",
    "test_cluster.py", "test_crashes.py", "test_doctor.py", "test_label_collect.py", "test_infra_scripts.py",
    "test_train_delay.py", "test_version.py",
)  # fmt: skip
"""Files that take a minute or more: they begin first, so that none is left to one worker at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, and mark tests that need a server, which `make quick` leaves out."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))
    for item in items:
        callspec = getattr(item, "callspec", None)
        asked = callspec.params.values() if callspec else ()
        if SERVER_FIXTURES & {*getattr(item, "fixturenames", ()), *(each for each in asked if isinstance(each, str))}:
            item.add_marker("server")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out because something is missing here, once for each reason."""
    skipped = terminalreporter.getreports("skipped")
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped if report.longrepr)
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"not checked here: {reason} ({count} test{'s' * (count > 1)})")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Remove the developer's settings and AWS files from the tests' environment."""
    for name in list(os.environ):
        if name.startswith(ENVIRONMENT_PREFIXES):
            monkeypatch.delenv(name)
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    nothing = tmp_path_factory.getbasetemp() / "aws"
    nothing.touch()
    monkeypatch.setenv("AWS_CONFIG_FILE", str(nothing))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(nothing))
