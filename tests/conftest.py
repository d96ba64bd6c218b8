"""What every test starts from: real servers on demand, and an environment of its own."""

import os

import pytest

pytest_plugins = ["servers", "label_server", "workspaces", "weather", "trips", "two_releases"]

OURS = ("AIRFLOW", "AWS_", "DASK_", "FEAST_", "HEADRACE_", "LABEL_STUDIO_")


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
