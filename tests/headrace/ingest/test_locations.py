"""Places of objects: buckets of several servers in one dataset, and folders of this machine.

The same objects have the same bytes, keys and cache keys however their place is stated.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from servers import S3
from trips import DAYS, TABLE, create_dataset, object_content

from headrace.dataset import ObjectSource
from headrace.errors import HeadraceError, NotConfiguredError
from headrace.ingest.ingest import IngestResult, ingest
from headrace.ingest.object_source import InvalidSourceError
from headrace.ingest.preview import preview_sources
from headrace.settings import Settings
from headrace.storage.local_folder import FolderError
from headrace.storage.table_store import TableStore

DAY = r"(?P<partition>\d{4}-\d\d-\d\d)\.csv\.gz"
FOLDER = ObjectSource(location="file:drop/days/", partition=DAY, suffix=".csv.gz")
ANY_NAME = replace(FOLDER, partition=r"(?P<partition>[^/]+)\.csv\.gz")


@pytest.fixture
def table_store(tmp_path: Path) -> TableStore:
    return TableStore.at(tmp_path)


def write_days(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names, start=1):
        (folder / name).write_bytes(object_content(number))


def read(table_store: TableStore, source: ObjectSource, settings: Settings | None = None) -> IngestResult:
    return ingest(create_dataset(source), table_store, settings or Settings())[0]


def entries(table_store: TableStore) -> dict[str, tuple[str, str]]:
    """Partition → cache key and md5."""
    found = table_store.manifest(TABLE).partitions
    return {name: (entry.cache_key, entry.md5) for name, entry in found.items()}


def test_a_folder_is_the_same_source_as_its_prefix_in_the_folder_above(table_store: TableStore, tmp_path: Path) -> None:
    write_days(tmp_path / "drop/days", "2026-01-01.csv.gz", "2026-01-02.csv.gz")
    read(table_store, replace(DAYS, bucket="file:drop"))
    before = entries(table_store)

    for location in ("file:drop/days/", "file:drop/days", "file:./drop//days/"):
        done = read(table_store, replace(FOLDER, location=location))

        assert (done.read, done.changed) == (0, ())
        assert entries(table_store) == before
    assert table_store.manifest(TABLE).partitions["2026-01-01"].objects[0].key == "days/2026-01-01.csv.gz"


def test_a_file_is_a_source_of_one_partition(table_store: TableStore, tmp_path: Path) -> None:
    write_days(tmp_path / "drop", "all.csv.gz", "all.csv.gz.bak")

    done = read(table_store, ObjectSource(location="file:drop/all.csv.gz", suffix=".csv.gz"))

    assert (done.new, done.unmatched) == (("all",), ())


def test_keys_that_only_begin_as_the_folder_are_not_below_it(table_store: TableStore, tmp_path: Path) -> None:
    write_days(tmp_path / "drop/days", "2026-01-01.csv.gz")
    write_days(tmp_path / "drop/days2", "2026-01-02.csv.gz")

    assert read(table_store, replace(FOLDER, location="file:drop/days")).objects == 1


def test_names_of_files_are_taken_as_they_are(table_store: TableStore, tmp_path: Path) -> None:
    days = tmp_path / "drop 50%20 #1/caf\u00e9"
    write_days(days, "2026-01-01.csv.gz", "a\nb.csv.gz")
    write_days(tmp_path / "drop 50%20 #1/cafe\u0301", "2026-01-02.csv.gz")

    done = read(table_store, replace(FOLDER, location="file:drop 50%20 #1/caf\u00e9/"))

    assert (done.new, done.unmatched) == (("2026-01-01",), ("caf\u00e9/a\nb.csv.gz",))
    assert r"'caf\xe9/a\nb.csv.gz'" in str(done)


def test_a_name_that_is_not_utf_8_is_reported_and_stops_no_other(table_store: TableStore, tmp_path: Path) -> None:
    write_days(tmp_path / "drop/days", "2026-01-01.csv.gz")
    (tmp_path / "drop/days/caf").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "drop/days") + b"/caf/\xe9.csv.gz")).write_bytes(b"")

    done = read(table_store, replace(FOLDER, partition=r"(?:.*/)?(?P<partition>[\d-]+|.)\.csv\.gz"))

    assert done.new == ("2026-01-01",)
    assert [*done.unmatched, *done.invalid] == ["days/caf/\udce9.csv.gz"]


def test_a_link_out_of_the_folder_is_refused_and_the_other_files_are_read(
    table_store: TableStore, tmp_path: Path
) -> None:
    write_days(tmp_path / "drop/days", "2026-01-01.csv.gz")
    write_days(tmp_path / "elsewhere", "secret.csv.gz")
    (tmp_path / "drop/days/2026-01-02.csv.gz").symlink_to("2026-01-01.csv.gz")
    (tmp_path / "drop/days/2026-01-03.csv.gz").symlink_to(tmp_path / "elsewhere/secret.csv.gz")
    (tmp_path / "drop/days/2026-01-04.csv.gz").symlink_to("nowhere")
    (tmp_path / "drop/days/2026-01-05.csv.gz").symlink_to(".")
    os.mkfifo(tmp_path / "drop/days/2026-01-06.csv.gz")

    with pytest.raises(HeadraceError) as caught:
        read(table_store, FOLDER)

    said = str(caught.value)
    assert "4 of 6" in said or "4 partitions" in said, said
    assert f"it is a link that leads out of {tmp_path / 'drop/days'}, to {tmp_path / 'elsewhere/secret.csv.gz'}" in said
    for reason in ("No such file", "it is a link to a folder", "it is not a file"):
        assert reason in said
    for name in ("3", "4", "5", "6"):
        (tmp_path / f"drop/days/2026-01-0{name}.csv.gz").unlink()
    assert read(table_store, FOLDER).new == ("2026-01-01", "2026-01-02")


def test_a_folder_that_is_missing_or_leads_out_of_the_project_is_refused(
    table_store: TableStore, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    write_days(outside, "2026-01-01.csv.gz")
    (tmp_path / "drop").mkdir()

    with pytest.raises(FolderError, match=f"file:drop/days/: expected a folder at {tmp_path}/drop/days, found none"):
        read(table_store, FOLDER)
    (tmp_path / "drop/days").symlink_to(outside)
    with pytest.raises(FolderError, match=f"leads out of it, to {outside}.*Name the folder itself"):
        read(table_store, FOLDER)

    assert read(table_store, replace(FOLDER, location=f"file://{outside}/")).new == ("2026-01-01",)


def test_a_location_that_is_no_address_leaves_the_other_sources_alone(table_store: TableStore, tmp_path: Path) -> None:
    write_days(tmp_path / "drop/days", "2026-01-01.csv.gz")
    (good,) = create_dataset(FOLDER).sources
    bad = replace(good, name="bad", location=replace(FOLDER, location="s3://AKIA:canary@raw/days/"))
    both = replace(create_dataset(FOLDER), sources=(bad, good))

    with pytest.raises(InvalidSourceError) as caught:
        ingest(both, table_store, Settings())

    assert "canary" not in str(caught.value)
    assert list(table_store.manifest(TABLE).partitions) == ["2026-01-01"]


def set_connection(monkeypatch: pytest.MonkeyPatch, name: str, **variables: str) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(f"HEADRACE_CONNECTION_{name.upper()}_{variable.upper()}", value)


def test_one_dataset_reads_buckets_of_two_servers_with_their_own_credentials(
    s3: S3, moto_s3: S3, table_store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of the environment")
    own, partner = s3.new_bucket(), moto_s3.new_bucket()
    own.write("days/2026-01-01.csv.gz", object_content(1))
    partner.write("in/days/2026-01-02.csv.gz", object_content(2))
    (first,) = create_dataset(replace(FOLDER, location=f"s3://{own.name}/days/")).sources
    location = replace(FOLDER, location=f"s3://{partner.name}/in/days", connection="partner")
    second = replace(first, name="theirs", location=location)
    both = replace(create_dataset(), sources=(first, second))
    with pytest.raises(NotConfiguredError, match=r"connection 'partner': .*HEADRACE_CONNECTION_PARTNER_ENDPOINT"):
        ingest(both, table_store, Settings())
    ours, theirs = preview_sources(both, table_store, Settings())
    assert ours.listed == 1
    assert isinstance(theirs.error, NotConfiguredError)
    set_connection(
        monkeypatch,
        "partner",
        endpoint=moto_s3.endpoint,
        access_key=moto_s3.access_key,
        secret_key=moto_s3.secret_key,
    )

    done = ingest(both, table_store, Settings())

    assert [item.listed for item in done] == [1, 1]
    (entry,) = table_store.manifest("raw/trips/theirs").partitions.values()
    assert (entry.objects[0].bucket, entry.objects[0].key) == (partner.name, "in/days/2026-01-02.csv.gz")


def test_a_profile_has_credentials_and_a_missing_one_is_named(
    s3: S3, table_store: TableStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bucket = s3.new_bucket()
    bucket.write("days/2026-01-01.csv.gz", object_content(1))
    keys = f"aws_access_key_id = {s3.access_key}\naws_secret_access_key = {s3.secret_key}\n"
    (tmp_path / "credentials").write_text(f"[partner]\n{keys}")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "one")
    source = replace(FOLDER, location=f"s3://{bucket.name}/days/", connection="partner")
    set_connection(monkeypatch, "partner", endpoint=s3.endpoint, profile="nobody")
    with pytest.raises(NotConfiguredError, match=r"nobody.*Correct HEADRACE_CONNECTION_PARTNER_PROFILE"):
        read(table_store, source)
    set_connection(monkeypatch, "partner", profile="partner")

    assert read(table_store, source).new == ("2026-01-01",)


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"access_key": "canary"}, "expected both or none of HEADRACE_CONNECTION_PARTNER_ACCESS_KEY and"),
        ({"endpoint": "http://user:canary@example.org"}, "HEADRACE_CONNECTION_PARTNER_ENDPOINT: "),
    ],
)
def test_a_connection_that_cannot_be_used_is_named_by_its_variables_and_not_shown(
    table_store: TableStore, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], reason: str
) -> None:
    set_connection(monkeypatch, "partner", **variables)

    with pytest.raises(NotConfiguredError, match=reason) as caught:
        read(table_store, replace(FOLDER, location="s3://raw/days/", connection="partner"))

    assert "canary" not in str(caught.value)


def test_wrong_credentials_of_a_connection_are_named_by_its_variables(
    s3: S3, table_store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_connection(monkeypatch, "partner", endpoint=s3.endpoint, access_key=s3.access_key, secret_key="canary")  # noqa: S106  wrong

    with pytest.raises(HeadraceError, match="Check HEADRACE_CONNECTION_PARTNER_ACCESS_KEY and") as caught:
        read(table_store, replace(FOLDER, location="s3://raw/days/", connection="partner"))

    assert "canary" not in str(caught.value)
