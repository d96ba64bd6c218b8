"""Lineage: from a row back to object, query and annotations, and forward to the tables and releases that use it.

It comes from the manifests of the release itself: no data file is read unless a row is asked for, so a clone without
data gives the same answer.
"""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import real_flights
from two_releases import ANSWERED_AT, CARRIERS, CORRECTED, DAYS, DELETED, RAW, VALIDATED, TwoReleases, shortened_day
from weather import Weather
from workspaces import Workspace, git

from headrace.lineage.history import DatasetRevision, UnknownTableError
from headrace.lineage.lineage import LineageNode, PartitionLineage, trace_lineage
from headrace.lineage.row_lookup import UnknownRowError


@pytest.mark.slow
def test_a_training_row_leads_back_to_the_object_and_forward_to_the_release(
    two_releases: TwoReleases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEAST_REGISTRY_URL", f"sqlite:///{tmp_path}/registry.db")
    monkeypatch.setenv("FEAST_ONLINE_STORE_PATH", f"{tmp_path}/online.db")
    asked_at = datetime(2013, 1, 2, 15, 20, tzinfo=UTC)
    request = pl.DataFrame({"carrier": ["UA"], "event_timestamp": [asked_at]})
    request.write_parquet(tmp_path / "request.parquet")
    names = ("--requests", str(tmp_path / "request.parquet"), "--out", str(tmp_path / "training.parquet"))
    two_releases.command("publish", "flights")
    two_releases.command("retrieve", "flights", *names, "--feature", "carrier_delays:departed_24h")
    (training,) = pl.read_parquet(tmp_path / "training.parquet").to_dicts()

    traced = two_releases.lineage("features/carrier_delays", carrier="UA", event_timestamp=asked_at.isoformat())

    assert traced.row_match
    (row,) = traced.row_match.rows
    assert row["event_time"] == datetime(2013, 1, 2, 15, tzinfo=UTC)
    assert row["departed_24h"] == training["carrier_delays__departed_24h"]
    assert (traced.node.partition, traced.releases) == (CORRECTED, ["flights/2"])
    assert _raw(traced, CORRECTED).source["objects"][0]["key"] == f"flights/{CORRECTED}.csv.gz"


def test_a_raw_partition_names_its_object_by_bucket_key_etag_version_and_hash(two_releases: TwoReleases) -> None:
    listed = two_releases.bucket.head(f"flights/{CORRECTED}.csv.gz")
    assert listed

    traced = two_releases.lineage("raw/flights", CORRECTED)

    assert traced.node.source["objects"] == [
        {
            "bucket": two_releases.bucket.name,
            "key": f"flights/{CORRECTED}.csv.gz",
            "etag": listed.etag,
            "version": listed.version,
            "sha256": hashlib.sha256(shortened_day(CORRECTED)).hexdigest(),
        }
    ]


def test_a_training_row_before_anything_was_known_has_no_lineage(two_releases: TwoReleases) -> None:
    with pytest.raises(UnknownRowError, match="no row with carrier=UA was known at 2012-12-31T10:00:00"):
        two_releases.lineage("features/carrier_delays", carrier="UA", event_timestamp="2012-12-31T10:00:00Z")


def test_a_partition_came_from_every_day_it_looks_back_on_each_with_the_md5_it_was_read_with(
    two_releases: TwoReleases,
) -> None:
    traced = two_releases.lineage("features/carrier_delays", CORRECTED)

    table_store = two_releases.workspace.table_store
    places = {(node.table, node.partition): node for node in traced.node.walk()}
    assert set(places) == {(CARRIERS, CORRECTED), *((table, day) for table in (VALIDATED, RAW) for day in DAYS[:2])}
    for (table, partition), node in places.items():
        assert node.status == "current"
        assert node.md5 == table_store.manifest(table).partitions[partition].md5


def test_a_correction_leads_from_the_old_release_to_the_old_object_and_from_the_new_one_to_the_new(
    two_releases: TwoReleases,
) -> None:
    old = two_releases.lineage("features/carrier_delays", CORRECTED, "flights/1")
    new = two_releases.lineage("features/carrier_delays", CORRECTED, "flights/2")

    assert (old.releases, new.releases) == (["flights/1"], ["flights/2"])
    sums = [_raw(traced, CORRECTED).source["objects"][0]["sha256"] for traced in (old, new)]
    wanted = (real_flights.flights_object(CORRECTED), shortened_day(CORRECTED))
    assert sums == [hashlib.sha256(content).hexdigest() for content in wanted]
    assert _raw(old, CORRECTED).source["objects"][0]["version"] != _raw(new, CORRECTED).source["objects"][0]["version"]
    assert {node.status for traced in (old, new) for node in traced.node.walk()} == {"current"}


def test_lineage_takes_any_git_revision(two_releases: TwoReleases) -> None:
    commit = git(two_releases.workspace.root, "rev-parse", "flights/1^{commit}")
    wanted = two_releases.lineage("features/carrier_delays", DELETED, "flights/1")

    for revision in (commit, commit[:10], "flights/2~1", "main~1"):
        traced = two_releases.lineage("features/carrier_delays", DELETED, revision)

        assert (traced.tables.commit, traced.node.to_dict()) == (commit, wanted.node.to_dict())
        assert (traced.releases, traced.used_by) == (["flights/1"], wanted.used_by)


def test_unchanged_bytes_are_in_all_releases(two_releases: TwoReleases) -> None:
    assert two_releases.lineage("features/carrier_delays", "2013-01-01").releases == ["flights/1", "flights/2"]


def test_raw_bytes_lead_forward_to_all_that_was_computed_from_them(two_releases: TwoReleases) -> None:
    traced = two_releases.lineage("raw/flights", CORRECTED, "flights/1")

    assert traced.used_by[VALIDATED] == (CORRECTED,)
    assert traced.used_by[CARRIERS] == (CORRECTED, DELETED)
    assert not any(table.endswith("weather") for table in traced.used_by)


def test_a_deleted_partition_is_an_error_that_names_the_release_that_has_it(two_releases: TwoReleases) -> None:
    message = rf"has 2013-01-01, {CORRECTED}; {DELETED} is not among them. flights/1 has it: add `--revision flights/1`"
    with pytest.raises(UnknownTableError, match=message):
        two_releases.lineage("features/carrier_delays", DELETED)

    traced = two_releases.lineage("features/carrier_delays", DELETED, "flights/1")

    assert traced.releases == ["flights/1"]
    assert _raw(traced, DELETED).source["objects"][0]["key"] == f"flights/{DELETED}.csv.gz"


def test_in_a_workspace_that_is_ahead_inputs_are_marked_changed_and_the_old_bytes_are_traced(
    two_releases: TwoReleases,
) -> None:
    clone = two_releases.workspace.clone("ahead")
    clone.raw.edit_day(CORRECTED, lambda rows: rows.head(10))
    clone.raw.delete_day("2013-01-01")

    traced = trace_lineage(DatasetRevision.open(clone.table_store, "flights"), "features/carrier_delays", CORRECTED)

    changed, removed = _raw(traced, CORRECTED), _raw(traced, "2013-01-01")
    assert (changed.status, changed.release) == ("changed", "flights/2")
    assert (removed.status, removed.release) == ("removed", "flights/2")
    assert changed.source["objects"][0]["sha256"] == hashlib.sha256(shortened_day(CORRECTED)).hexdigest()
    output = clone.command("headrace", "lineage", "flights", "-t", "features/carrier_delays", "-p", CORRECTED)
    assert "changed since it was read; these bytes are in flights/2" in output


def test_bytes_that_no_release_has_are_reported_as_such(two_releases: TwoReleases) -> None:
    clone = two_releases.workspace.clone("unreleased")
    clone.raw.edit_day(CORRECTED, lambda rows: rows.head(60))
    clone.refresh()
    clone.raw.edit_day(CORRECTED, lambda rows: rows.head(50))

    traced = trace_lineage(DatasetRevision.open(clone.table_store, "flights"), "features/carrier_delays", CORRECTED)

    node = _raw(traced, CORRECTED)
    assert (node.status, node.release, node.entry, traced.releases) == ("changed", None, None, [])


def test_a_clone_without_data_reads_manifests_and_data_only_for_a_row(two_releases: TwoReleases) -> None:
    clone = two_releases.workspace.clone("bare")
    data = {
        entry.md5
        for table in two_releases.workspace.table_store.tables("flights")
        for entry in two_releases.workspace.table_store.manifest(table).partitions.values()
    }

    traced = trace_lineage(DatasetRevision.open(clone.table_store, "flights"), "features/carrier_delays", CORRECTED)
    cached = {md5 for md5 in data if clone.table_store.cache.path(md5).exists()}
    trace_lineage(
        DatasetRevision.open(clone.table_store, "flights"),
        "features/carrier_delays",
        None,
        {"carrier": "UA", "event_time": CORRECTED},
    )
    fetched = {md5 for md5 in data if clone.table_store.cache.path(md5).exists()}

    assert traced.to_dict() == two_releases.lineage("features/carrier_delays", CORRECTED).to_dict()
    assert (cached, fetched) == (set(), {traced.node.md5})


def test_a_label_leads_to_the_annotations_that_decided_it(two_releases: TwoReleases) -> None:
    traced = two_releases.lineage("labels/delay_cause", sample_id="flight-0")

    assert traced.row_match
    (row,) = traced.row_match.rows
    assert (row["label"], row["annotation_ids"]) == ("weather", ["a0", "a1", "a2"])
    answers = {(item["annotation_id"], item["annotator"], item["choice"]) for item in traced.row_match.annotations}
    assert answers == {("a0", "person-0", "weather"), ("a1", "person-1", "weather"), ("a2", "person-2", "carrier")}
    (node,) = traced.node.inputs
    assert node.source == {"annotations": {"newest": ANSWERED_AT.isoformat(), "answers": 3, "skipped": 0}}


def test_a_training_row_does_not_lead_to_a_label_that_was_unknown_at_its_time(two_releases: TwoReleases) -> None:
    later = (ANSWERED_AT + timedelta(seconds=1)).isoformat()

    traced = two_releases.lineage("labels/delay_cause", carrier="UA", event_timestamp=later)

    assert traced.row_match
    assert [row["label"] for row in traced.row_match.rows] == ["weather"]
    with pytest.raises(UnknownRowError, match="no row with carrier=UA was known at 2013-01-31T23:59:59"):
        two_releases.lineage("labels/delay_cause", carrier="UA", event_timestamp="2013-01-31T23:59:59Z")


def test_a_rejected_row_leads_to_the_object_that_it_came_from(two_releases: TwoReleases) -> None:
    traced = two_releases.lineage("rejected/flights", CORRECTED)

    assert traced.node.producer == VALIDATED
    assert traced.node.inputs == two_releases.lineage("validated/flights", CORRECTED).node.inputs
    assert _raw(traced, CORRECTED).source["objects"][0]["key"] == f"flights/{CORRECTED}.csv.gz"
    assert "rejected/flights/flights" in two_releases.lineage("raw/flights", CORRECTED).used_by


def test_rows_of_a_database_lead_back_to_their_query(workspace: Workspace, sqlite_weather: Weather) -> None:
    sqlite_weather.ingest()

    traced = trace_lineage(
        DatasetRevision.open(workspace.table_store, "sky"),
        "weather",
        None,
        {"origin": "JFK", "at": "2013-01-02T12:30:00Z"},
    )

    assert traced.node.partition == "2013-01-02"
    assert traced.node.source["query"]["where"] == "UTC day of at = 2013-01-02"
    output = workspace.command("headrace", "lineage", "sky", "--table", "raw/weather", "--partition", "2013-01-02")
    assert "query of weather where UTC day of at = 2013-01-02: 6 rows, watermark 2013-01-05" in output
    assert "released in no release yet" in output


def test_lineage_prints_a_tree(two_releases: TwoReleases) -> None:
    output = two_releases.command("lineage", "flights", "--table", "features/carrier_delays", "--partition", CORRECTED)

    lines = output.splitlines()
    assert lines[0].startswith(f"{CARRIERS} {CORRECTED}  ")
    assert lines[1].startswith(f"├── {VALIDATED} 2013-01-01  ")
    source = _raw(two_releases.lineage("features/carrier_delays", CORRECTED), CORRECTED).source["objects"][0]
    assert (
        f"s3://{two_releases.bucket.name}/{source['key']}  ETag {source['etag']}  version {source['version']}" in output
    )
    assert "released in flights/2" in output


def test_lineage_as_json_has_each_node_once_and_inputs_by_id(two_releases: TwoReleases) -> None:
    words = ("lineage", "flights", "--table", "features/carrier_delays", "--revision", "flights/1", "--json")
    output = json.loads(two_releases.command(*words, "--row", "carrier=UA", "--row", f"event_time={DELETED}T10:00:00Z"))

    nodes = {node["id"]: node for node in output["nodes"]}
    assert len(nodes) == len(output["nodes"]) == 1 + 2 * len(DAYS)
    assert {name for node in nodes.values() for name in node["inputs"]} == nodes.keys() - {output["id"]}
    assert nodes[output["id"]]["partition"] == DELETED
    assert output["commit"] == git(two_releases.workspace.root, "rev-parse", "flights/1^{commit}")
    assert output["releases"] == ["flights/1"]
    assert [row["carrier"] for row in output["rows"]] == ["UA"]
    assert "pipelines/flights/features/carrier_delays.py" in output["fingerprint"]["code"]


@pytest.mark.parametrize(
    ("table", "partition", "row", "message"),
    [
        ("features/carriers", None, {}, "is not a table of it. Choose one of: .*features/carrier_delays"),
        ("flights", None, {}, "is ambiguous. Choose one of: raw/flights, .*validated/flights"),
        ("features/carrier_delays", None, {}, "has 2013-01-01, 2013-01-02. Choose one with `--partition`"),
        ("features/carrier_delays", "2014-01-01", {}, "2014-01-01 is not among them. No fetched release"),
        ("raw/flights", CORRECTED, {"carrier": "UA"}, "stores objects unchanged .* Look up a row of validated/flights"),
        ("features/carrier_delays", CORRECTED, {"airline": "UA"}, "has no column 'airline'. Its columns: carrier"),
        ("features/carrier_delays", CORRECTED, {"carrier": "QQ"}, "carrier=QQ matches no row of 2013-01-02"),
        (
            "features/carrier_delays",
            None,
            {"carrier": "UA"},
            "carrier=UA matches rows of 2 partitions: 2013-01-01, 2013-01-02. Choose one",
        ),
        ("features/carrier_delays", None, {"event_timestamp": "2013-01-02"}, "event_timestamp alone identifies no row"),
        ("features/carrier_delays", None, {"event_time": "noon"}, "event_time is Datetime.*'noon' is not a value"),
        (
            "features/carrier_delays",
            CORRECTED,
            {"departed_3h": "1.5"},
            "departed_3h is Int64, and '1.5' is not a value",
        ),
    ],
)
def test_an_unknown_table_partition_or_row_is_an_error_with_the_choices(
    two_releases: TwoReleases, table: str, partition: str | None, row: dict[str, str], message: str
) -> None:
    with pytest.raises((UnknownTableError, UnknownRowError), match=message):
        two_releases.lineage(table, partition, **row)


def test_an_unknown_revision_is_an_error_with_the_releases(two_releases: TwoReleases) -> None:
    output = two_releases.command(
        "lineage", "flights", "-t", "features/carrier_delays", "--revision", "flights/9", fails=True
    )

    assert "error: flights/9 is not a revision of" in output
    assert "Releases of flights there: flights/1, flights/2." in output


def _raw(traced: PartitionLineage, day: str) -> LineageNode:
    """The raw flights of a day that `traced` leads to."""
    (node,) = (item for item in traced.node.walk() if (item.table, item.partition) == (RAW, day))
    return node
