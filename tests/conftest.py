"""What every test starts from: real servers on demand, and an environment of its own."""

import os

import pytest

pytest_plugins = ["servers", "label_server", "workspaces"]

SERVERS = frozenset(("s3", "moto_s3", "postgres", "redis", "label_studio"))
"""Fixtures that start a server, and parameters that ask for one."""

HEAVY = frozenset(("airflow", "feast", "publish"))
"""Folders of tests whose imports alone take seconds."""

OURS = ("AIRFLOW", "AWS_", "DASK_", "FEAST_", "HEADRACE_", "LABEL_STUDIO_")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a server, and what is slow, for `make quick` to leave out."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        asked = callspec.params.values() if callspec else ()
        if SERVERS & {*getattr(item, "fixturenames", ()), *(each for each in asked if isinstance(each, str))}:
            item.add_marker("server")
        if item.path.parent.name in HEAVY:
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No setting of the person who runs the tests reaches them, nor their AWS files."""
    for name in list(os.environ):
        if name.startswith(OURS):
            monkeypatch.delenv(name)
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    nothing = tmp_path_factory.getbasetemp() / "aws"
    nothing.touch()
    monkeypatch.setenv("AWS_CONFIG_FILE", str(nothing))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(nothing))
