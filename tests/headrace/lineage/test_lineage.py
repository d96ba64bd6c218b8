"""Lineage: from a row back to object, query and annotations, forward to the tables and releases that hold it.

Manifests in the release itself tell it: no data file is read unless a row is asked for, and a clone without data
answers as well.
"""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import real_flights
from two_releases import ANSWERED, CARRIERS, CORRECTED, DAYS, DELETED, RAW, VALIDATED, Story, shorter
from weather import Weather
from workspaces import Workspace, git

from headrace.lineage.history import Tables, UnknownPlaceError
from headrace.lineage.lineage import Lineage, Node, lineage
from headrace.lineage.row_lookup import UnknownRowError


@pytest.mark.slow
def test_a_training_row_leads_back_to_the_object_and_forward_to_the_release(
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEAST_REGISTRY_URL", f"sqlite:///{tmp_path}/registry.db")
    monkeypatch.setenv("FEAST_ONLINE_STORE_PATH", f"{tmp_path}/online.db")
    asked_at = datetime(2013, 1, 2, 15, 20, tzinfo=UTC)
    request = pl.DataFrame({"carrier": ["UA"], "event_timestamp": [asked_at]})
    request.write_parquet(tmp_path / "request.parquet")
    names = ("--requests", str(tmp_path / "request.parquet"), "--out", str(tmp_path / "training.parquet"))
    story.command("publish", "flights")
    story.command("retrieve", "flights", *names, "--feature", "carrier_delays:departed_24h")
    (training,) = pl.read_parquet(tmp_path / "training.parquet").to_dicts()

    found = story.lineage("features/carrier_delays", carrier="UA", event_timestamp=asked_at.isoformat())

    assert found.found
    (row,) = found.found.rows
    assert row["event_time"] == datetime(2013, 1, 2, 15, tzinfo=UTC)
    assert row["departed_24h"] == training["carrier_delays__departed_24h"]
    assert (found.node.partition, found.releases) == (CORRECTED, ["flights/2"])
    assert _raw(found, CORRECTED).origin["object"]["key"] == f"flights/{CORRECTED}.csv.gz"


def test_a_raw_partition_names_its_object_by_bucket_key_etag_version_and_hash(story: Story) -> None:
    listed = story.bucket.head(f"flights/{CORRECTED}.csv.gz")
    assert listed

    found = story.lineage("raw/flights", CORRECTED)

    assert found.node.origin["object"] == {
        "bucket": story.bucket.name,
        "key": f"flights/{CORRECTED}.csv.gz",
        "etag": listed.etag,
        "version": listed.version,
        "sha256": hashlib.sha256(shorter(CORRECTED)).hexdigest(),
    }


def test_a_training_row_before_anything_was_known_has_no_lineage(story: Story) -> None:
    with pytest.raises(UnknownRowError, match="no row of carrier=UA was known at 2012-12-31T10:00:00"):
        story.lineage("features/carrier_delays", carrier="UA", event_timestamp="2012-12-31T10:00:00Z")


def test_a_partition_came_from_every_day_it_looks_back_on_each_with_the_md5_it_was_read_with(story: Story) -> None:
    found = story.lineage("features/carrier_delays", CORRECTED)

    lake = story.workspace.lake
    places = {(node.table, node.partition): node for node in found.node.walk()}
    assert set(places) == {(CARRIERS, CORRECTED), *((table, day) for table in (VALIDATED, RAW) for day in DAYS[:2])}
    for (table, partition), node in places.items():
        assert node.standing == "as read"
        assert node.md5 == lake.manifest(table).partitions[partition].md5


def test_a_correction_leads_from_the_old_release_to_the_old_object_and_from_the_new_one_to_the_new(
    story: Story,
) -> None:
    old = story.lineage("features/carrier_delays", CORRECTED, "flights/1")
    new = story.lineage("features/carrier_delays", CORRECTED, "flights/2")

    assert (old.releases, new.releases) == (["flights/1"], ["flights/2"])
    sums = [_raw(found, CORRECTED).origin["object"]["sha256"] for found in (old, new)]
    wanted = (real_flights.flights_object(CORRECTED), shorter(CORRECTED))
    assert sums == [hashlib.sha256(content).hexdigest() for content in wanted]
    assert _raw(old, CORRECTED).origin["object"]["version"] != _raw(new, CORRECTED).origin["object"]["version"]
    assert {node.standing for found in (old, new) for node in found.node.walk()} == {"as read"}


def test_any_revision_of_git_is_one_to_look_at(story: Story) -> None:
    commit = git(story.workspace.root, "rev-parse", "flights/1^{commit}")
    wanted = story.lineage("features/carrier_delays", DELETED, "flights/1")

    for revision in (commit, commit[:10], "flights/2~1", "main~1"):
        found = story.lineage("features/carrier_delays", DELETED, revision)

        assert (found.tables.commit, found.node.to_dict()) == (commit, wanted.node.to_dict())
        assert (found.releases, found.used_by) == (["flights/1"], wanted.used_by)


def test_bytes_that_no_release_changed_are_in_all_of_them(story: Story) -> None:
    assert story.lineage("features/carrier_delays", "2013-01-01").releases == ["flights/1", "flights/2"]


def test_raw_bytes_lead_forward_to_everything_computed_from_them(story: Story) -> None:
    found = story.lineage("raw/flights", CORRECTED, "flights/1")

    assert found.used_by[VALIDATED] == (CORRECTED,)
    assert found.used_by[CARRIERS] == (CORRECTED, DELETED)
    assert not any(table.endswith("weather") for table in found.used_by)


def test_a_deleted_partition_is_refused_with_the_release_that_has_it_and_found_there(story: Story) -> None:
    message = rf"has 2013-01-01, {CORRECTED}; {DELETED} is not among them. .* add `--revision flights/1`"
    with pytest.raises(UnknownPlaceError, match=message):
        story.lineage("features/carrier_delays", DELETED)

    found = story.lineage("features/carrier_delays", DELETED, "flights/1")

    assert found.releases == ["flights/1"]
    assert _raw(found, DELETED).origin["object"]["key"] == f"flights/{DELETED}.csv.gz"


def test_a_workspace_that_is_ahead_is_said_to_have_changed_and_the_old_bytes_are_followed(story: Story) -> None:
    clone = story.workspace.clone("ahead")
    clone.raw.change(CORRECTED, lambda rows: rows.head(10))
    clone.raw.vanish("2013-01-01")

    found = lineage(Tables.at(clone.lake, "flights"), "features/carrier_delays", CORRECTED)

    changed, gone = _raw(found, CORRECTED), _raw(found, "2013-01-01")
    assert (changed.standing, changed.release) == ("changed", "flights/2")
    assert (gone.standing, gone.release) == ("gone", "flights/2")
    assert changed.origin["object"]["sha256"] == hashlib.sha256(shorter(CORRECTED)).hexdigest()
    said = clone.command("headrace", "lineage", "flights", "-t", "features/carrier_delays", "-p", CORRECTED)
    assert "since changed; these bytes are those of flights/2" in said


def test_bytes_that_no_release_holds_any_more_are_called_so(story: Story) -> None:
    clone = story.workspace.clone("unreleased")
    clone.raw.change(CORRECTED, lambda rows: rows.head(60))
    clone.refresh()
    clone.raw.change(CORRECTED, lambda rows: rows.head(50))

    found = lineage(Tables.at(clone.lake, "flights"), "features/carrier_delays", CORRECTED)

    node = _raw(found, CORRECTED)
    assert (node.standing, node.release, node.entry, found.releases) == ("changed", None, None, [])


def test_a_clone_without_data_answers_from_manifests_and_reads_data_only_for_a_row(story: Story) -> None:
    clone = story.workspace.clone("bare")
    data = {
        entry.md5
        for table in story.workspace.lake.tables("flights")
        for entry in story.workspace.lake.manifest(table).partitions.values()
    }

    found = lineage(Tables.at(clone.lake, "flights"), "features/carrier_delays", CORRECTED)
    cached = {md5 for md5 in data if clone.lake.cache.path(md5).exists()}
    lineage(
        Tables.at(clone.lake, "flights"), "features/carrier_delays", None, {"carrier": "UA", "event_time": CORRECTED}
    )
    fetched = {md5 for md5 in data if clone.lake.cache.path(md5).exists()}

    assert found.to_dict() == story.lineage("features/carrier_delays", CORRECTED).to_dict()
    assert (cached, fetched) == (set(), {found.node.md5})


def test_a_label_leads_to_the_annotations_it_was_decided_by(story: Story) -> None:
    found = story.lineage("labels/delay_cause", sample_id="flight-0")

    assert found.found
    (row,) = found.found.rows
    assert (row["label"], row["annotation_ids"]) == ("weather", ["a0", "a1", "a2"])
    answers = {(item["annotation_id"], item["annotator"], item["choice"]) for item in found.found.annotations}
    assert answers == {("a0", "person-0", "weather"), ("a1", "person-1", "weather"), ("a2", "person-2", "carrier")}
    (source,) = found.node.inputs
    assert source.origin == {"answers": {"newest": ANSWERED.isoformat(), "answers": 3, "skipped": 0}}


def test_a_training_row_does_not_lead_to_a_label_that_nobody_knew_at_its_time(story: Story) -> None:
    later = (ANSWERED + timedelta(seconds=1)).isoformat()

    found = story.lineage("labels/delay_cause", carrier="UA", event_timestamp=later)

    assert found.found
    assert [row["label"] for row in found.found.rows] == ["weather"]
    with pytest.raises(UnknownRowError, match="no row of carrier=UA was known at 2013-01-31T23:59:59"):
        story.lineage("labels/delay_cause", carrier="UA", event_timestamp="2013-01-31T23:59:59Z")


def test_a_rejected_row_leads_to_the_object_it_came_in(story: Story) -> None:
    found = story.lineage("rejected/flights", CORRECTED)

    assert found.node.maker == VALIDATED
    assert found.node.inputs == story.lineage("validated/flights", CORRECTED).node.inputs
    assert _raw(found, CORRECTED).origin["object"]["key"] == f"flights/{CORRECTED}.csv.gz"
    assert "rejected/flights/flights" in story.lineage("raw/flights", CORRECTED).used_by


def test_rows_of_a_database_lead_back_to_the_query(workspace: Workspace, sqlite_weather: Weather) -> None:
    sqlite_weather.ingest()

    found = lineage(Tables.at(workspace.lake, "sky"), "weather", None, {"origin": "JFK", "at": "2013-01-02T12:30:00Z"})

    assert found.node.partition == "2013-01-02"
    assert found.node.origin["query"]["where"] == "UTC day of at = 2013-01-02"
    said = workspace.command("headrace", "lineage", "sky", "--table", "raw/weather", "--partition", "2013-01-02")
    assert "query of weather where UTC day of at = 2013-01-02: 6 rows, watermark 2013-01-05" in said
    assert "released in no release yet" in said


def test_lineage_is_a_tree_for_people(story: Story) -> None:
    said = story.command("lineage", "flights", "--table", "features/carrier_delays", "--partition", CORRECTED)

    lines = said.splitlines()
    assert lines[0].startswith(f"{CARRIERS} {CORRECTED}  ")
    assert lines[1].startswith(f"├── {VALIDATED} 2013-01-01  ")
    found = _raw(story.lineage("features/carrier_delays", CORRECTED), CORRECTED).origin["object"]
    assert f"s3://{story.bucket.name}/{found['key']}  ETag {found['etag']}  version {found['version']}" in said
    assert "released in flights/2" in said


def test_lineage_is_json_for_machines_each_node_once_and_inputs_by_id(story: Story) -> None:
    words = ("lineage", "flights", "--table", "features/carrier_delays", "--revision", "flights/1", "--json")
    said = json.loads(story.command(*words, "--row", "carrier=UA", "--row", f"event_time={DELETED}T10:00:00Z"))

    nodes = {node["id"]: node for node in said["nodes"]}
    assert len(nodes) == len(said["nodes"]) == 1 + 2 * len(DAYS)
    assert {name for node in nodes.values() for name in node["inputs"]} == nodes.keys() - {said["id"]}
    assert nodes[said["id"]]["partition"] == DELETED
    assert said["commit"] == git(story.workspace.root, "rev-parse", "flights/1^{commit}")
    assert said["releases"] == ["flights/1"]
    assert [row["carrier"] for row in said["rows"]] == ["UA"]
    assert "pipelines/flights/features/carrier_delays.py" in said["recipe"]["code"]


@pytest.mark.parametrize(
    ("table", "partition", "row", "message"),
    [
        ("features/carriers", None, {}, "is no table of it. Say which: .*features/carrier_delays"),
        ("flights", None, {}, "may be one of several. Say which: raw/flights, .*validated/flights"),
        ("features/carrier_delays", None, {}, "has 2013-01-01, 2013-01-02. Say which with `--partition`"),
        ("features/carrier_delays", "2014-01-01", {}, "2014-01-01 is not among them. No release"),
        ("raw/flights", CORRECTED, {"carrier": "UA"}, "keeps bytes as they came .* Ask for a row of validated/flights"),
        ("features/carrier_delays", CORRECTED, {"airline": "UA"}, "has no column 'airline'. Its columns: carrier"),
        ("features/carrier_delays", CORRECTED, {"carrier": "QQ"}, "carrier=QQ is no row of 2013-01-02"),
        ("features/carrier_delays", None, {"carrier": "UA"}, "is in 2 partitions, 2013-01-01, 2013-01-02. Say which"),
        ("features/carrier_delays", None, {"event_timestamp": "2013-01-02"}, "event_timestamp alone names no row"),
        ("features/carrier_delays", None, {"event_time": "noon"}, "event_time is Datetime.*'noon' is no value"),
        ("features/carrier_delays", CORRECTED, {"departed_3h": "1.5"}, "departed_3h is Int64, and '1.5' is no value"),
    ],
)
def test_what_is_not_there_is_answered_with_what_there_is(
    story: Story, table: str, partition: str | None, row: dict[str, str], message: str
) -> None:
    with pytest.raises((UnknownPlaceError, UnknownRowError), match=message):
        story.lineage(table, partition, **row)


def test_a_revision_that_git_does_not_know_is_answered_with_the_releases(story: Story) -> None:
    said = story.command("lineage", "flights", "-t", "features/carrier_delays", "--revision", "flights/9", fails=True)

    assert "error: flights/9 is no revision of" in said
    assert "Releases of flights there: flights/1, flights/2." in said


def _raw(found: Lineage, day: str) -> Node:
    """The raw flights of a day, as `found` leads to them."""
    (node,) = (item for item in found.node.walk() if (item.table, item.partition) == (RAW, day))
    return node
