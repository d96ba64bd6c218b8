"""labels → training rows: a release's labels are the requests, and come back with the features of their time."""

import json
from datetime import timedelta

import polars as pl
import pytest
from annotated_flights import FLIGHTS, KEYS, submit_answers
from workspaces import Workspace, git

from headrace.label.quality import QualityError
from headrace.project.loading import load_dataset
from headrace.release.release import create_release
from headrace.retrieve.retrieve import retrieve_at_release

pytestmark = pytest.mark.slow

LABELS = "labels/flights/delay_cause"
DATASET = load_dataset("flights")


def test_labels_below_their_thresholds_are_in_no_release_until_they_are_better_or_rejected(built: Workspace) -> None:
    submit_answers(built.table_store, ["carrier", "unclear", "unclear", "security", "security"])
    built.refresh()

    with pytest.raises(QualityError, match=r"agreement: expected at least 0.3, found 0.000.*headrace label reject"):
        create_release(DATASET, built.table_store)

    assert git(built.root, "tag", "--list") == ""
    submit_answers(built.table_store)
    built.refresh()
    assert create_release(DATASET, built.table_store).name == "flights/1"


def test_labels_that_wait_for_answers_are_held_back_and_the_tables_go_out(built: Workspace) -> None:
    submit_answers(built.table_store, None)
    built.refresh()
    first = create_release(DATASET, built.table_store)
    unfinished = built.table_store.manifest(LABELS)
    submit_answers(built.table_store)
    built.refresh()
    second = create_release(DATASET, built.table_store)
    submit_answers(built.table_store, None)
    built.refresh()

    third = built.command("headrace", "release", "flights")

    assert (first.name, list(first.held)) == ("flights/1", [LABELS])
    assert "agreement: expected at least 0.3, found unknown. 5 items still wait for answers" in first.held[LABELS]
    assert unfinished.rows == FLIGHTS
    assert built.table_store.manifest(LABELS).entries == unfinished.entries, "the workspace keeps what it collected"
    assert (second.name, dict(second.held)) == ("flights/2", {})
    assert third.startswith("flights/2 unchanged since")
    assert f"{LABELS} is held back, as it was in the release before: " in third
    rows = [built.table_store.recorded_manifest(LABELS, name) for name in ("flights/1", "flights/2")]
    assert [manifest.rows for manifest in rows if manifest] == [0, FLIGHTS]
    other = built.clone("other")
    other.dvc("pull")
    assert other.stale_stages() == {}


@pytest.mark.slow_lane
def test_labels_whose_code_has_changed_stop_no_release_and_are_recorded_with_the_code_that_made_them(
    built: Workspace,
) -> None:
    code = built.root / "pipelines/flights/labels/delay_cause.py"
    submit_answers(built.table_store)
    built.refresh()
    built.command("headrace", "release", "flights")
    code.write_text(code.read_text() + "\nUNUSED = 1\n")
    built.publish_code("Change the labels")
    submit_answers(built.table_store, None)

    behind = built.command("headrace", "release", "flights")
    built.command("headrace", "label", "aggregate", "flights")
    unfinished = built.command("headrace", "release", "flights")
    other = built.clone("other")
    other.dvc("pull")
    stale = other.stale_stages()
    elsewhere = other.command("headrace", "release", "flights")
    submit_answers(built.table_store)
    built.command("headrace", "label", "aggregate", "flights")
    finished = built.command("headrace", "release", "flights")

    assert f"{LABELS} is held back, as it was in the release before: {LABELS}: expected every partition" in behind
    assert "`headrace label aggregate flights` brings them up to date" in behind
    assert "5 items still wait for answers" in unfinished
    assert list(stale) == ["flights-label-delay_cause"], "git does not say that the new code made the old labels"
    assert f"{LABELS} is held back" in elsewhere
    assert finished.startswith("flights/")
    assert "held back" not in finished
    git(other.root, "pull", "--quiet", "origin", "main")
    other.dvc("pull")
    assert other.stale_stages() == {}


def test_the_report_command_prints_the_quality_and_fails_at_the_gate_below_the_thresholds(built: Workspace) -> None:
    submit_answers(built.table_store, ["carrier", "unclear", "unclear", "security", "security"])
    built.refresh()
    report = ("headrace", "label", "report", "flights")
    bad = built.command(*report)
    refused = built.command(*report, "--gate", fails=True)

    submit_answers(built.table_store)
    built.refresh()
    good = built.command(*report, "--gate")
    content = json.loads(built.command(*report, "--table", "delay_cause", "--gate", "--json"))

    assert bad.startswith("delay_cause:\n  10 answers to 5 items, 4 undecided; alpha 0.000; no gold item has a label\n")
    assert "agreement: expected at least 0.3, found 0.000" in refused
    assert "  10 answers to 5 items, 0 undecided; alpha 1.000;" in good
    assert "  10 answers to accept or reject, 0 rejected\n" in good
    assert "  bad_weather: votes on " in good
    assert (content["labeling"], content["unreviewed"], content["rejected"]) == ("delay_cause", 10, 0)
    assert (content["quality"]["answers"], content["quality"]["krippendorff_alpha"]) == (10, 1.0)
    assert [one["name"] for one in content["labeling_functions"]] == ["bad_weather", "late_in_the_day"]
    assert content["summary"] == good.splitlines()[1:]


def test_each_label_gets_the_features_as_they_were_when_its_flight_left_and_leads_to_its_annotations(
    built: Workspace,
) -> None:
    flights = submit_answers(built.table_store)
    built.refresh()
    release = create_release(DATASET, built.table_store).name

    labels = built.table_store.scan("labels/flights/delay_cause").collect()
    requests = labels.join(flights.select(*KEYS, "tailnum"), on=KEYS).rename({"event_time": "event_timestamp"})
    rows = retrieve_at_release(DATASET, built.table_store, release, requests.drop("annotation_ids")).to_polars()

    asked = rows.select("carrier", "origin", "tailnum", "event_timestamp")
    plain = retrieve_at_release(DATASET, built.table_store, release, asked).to_polars()
    row = f"sample_id={rows['sample_id'][0]}"
    told = built.command("headrace", "lineage", "flights", "--table", "labels/delay_cause", "--row", row)
    assert rows["sample_id"].to_list() == labels["sample_id"].to_list()
    assert (rows.height, set(rows["label"])) == (FLIGHTS, {"carrier", "weather"})
    assert rows["known_time"].min() > rows["event_timestamp"].max()  # type: ignore[operator]
    assert plain.equals(rows.select(plain.columns))
    assert all(rows[name].count() for name in plain.columns if name.startswith("carrier_delays__"))
    assert any(name.startswith("carrier_delays__") for name in plain.columns)
    assert labels["annotation_ids"][0][0] in told


def test_labels_join_by_the_items_key_as_features_do_from_when_they_are_known(built: Workspace) -> None:
    submit_answers(built.table_store)
    built.refresh()
    release = create_release(DATASET, built.table_store).name
    labels = built.table_store.scan("labels/flights/delay_cause").collect()
    known = labels["known_time"][0]
    items = labels.select(KEYS).head(1)
    asked = pl.concat([items.with_columns(event_timestamp=known + timedelta(seconds=late)) for late in (-1, 0)])

    answers = retrieve_at_release(
        DATASET, built.table_store, release, asked, ["delay_cause:label", "delay_cause:votes"]
    ).to_polars()

    assert answers["delay_cause__label"].to_list() == [None, labels["label"][0]]
    assert answers["delay_cause__votes"].to_list() == [None, 2]


def test_a_training_set_with_labels_is_locked_and_verified_as_any_other(built: Workspace) -> None:
    submit_answers(built.table_store)
    built.refresh()
    release = create_release(DATASET, built.table_store).name
    labels = built.table_store.scan("labels/flights/delay_cause").collect()
    labels.select(*KEYS, event_timestamp="known_time").write_parquet(built.root / "requests.parquet")
    asked = ("retrieve", "flights", "--requests", "requests.parquet", "--lock", "train.lock.json")

    built.command(
        "headrace", *asked, "--out", "a.parquet", "--release", release,
        "--feature", "delay_cause:label", "--feature", "delay_cause:confidence",
    )  # fmt: skip
    built.command("headrace", *asked, "--out", "b.parquet")

    assert (built.root / "a.parquet").read_bytes() == (built.root / "b.parquet").read_bytes()
    assert json.loads((built.root / "train.lock.json").read_text())["table_hashes"].keys() == {"delay_cause"}
