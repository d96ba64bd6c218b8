"""labels → training rows: a release's labels are the requests, and come back with the features of their time."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import polars as pl
import pytest
from two_releases import create_entry
from workspaces import Workspace, git

from headrace.label import annotations
from headrace.label.quality import QualityError
from headrace.project.loading import load_dataset
from headrace.release.release import create_release
from headrace.retrieve.retrieve import retrieve_at_release
from headrace.storage.manifest import Manifest

if TYPE_CHECKING:
    from headrace.storage.table_store import Lake

pytestmark = pytest.mark.slow

DATASET = load_dataset("flights")
KEYS = DATASET.labels[0].keys
DAY = "2013-01-03"
CHOICES = ("carrier", "weather", "weather", "weather", "weather")
FLIGHTS = len(CHOICES)


def submit_answers(lake: "Lake", of_bob: Sequence[str] = CHOICES) -> pl.DataFrame:
    """Have two people answered about some flights of the day, who agree by default; the flights."""
    late = lake.scan("validated/flights/flights", [DAY]).filter(pl.col("dep_delay_min") >= 60, pl.col("tailnum") != "")
    flights = late.sort(KEYS).head(FLIGHTS).collect()
    answered_at = pl.col("departed_at") + timedelta(days=30)
    frame = flights.select(
        *KEYS,
        sample_id=pl.format("{}{}-{}", "carrier", "flight", "origin"),
        event_time="departed_at",
        task_id=pl.int_range(pl.len()),
        event=pl.lit("created"),
        was_cancelled=pl.lit(value=False),
        created_at=answered_at,
        updated_at=answered_at,
        task_changed_at=answered_at,
        result=pl.lit("[]"),
    )
    people = (
        frame.with_columns(
            annotation_id=pl.format("{} {}", pl.lit(name), "task_id"), annotator=pl.lit(name), choice=pl.Series(choices)
        )
        for name, choices in {"ann": CHOICES, "bob": of_bob}.items()
    )
    frame = pl.concat(people)
    schema = annotations.annotation_schema({name: frame.schema[name] for name in KEYS})
    whole = pl.concat([pl.DataFrame(schema=schema), frame.cast({"task_id": pl.Int64})], how="diagonal")
    lake.commit(Manifest("annotations/flights/delay_cause", partitions={DAY: create_entry(lake, whole)}))
    return flights


def test_labels_below_their_thresholds_are_in_no_release_until_they_are_better_or_rejected(built: Workspace) -> None:
    submit_answers(built.lake, ["carrier", "unclear", "unclear", "security", "security"])
    built.refresh()

    with pytest.raises(QualityError, match=r"agreement: expected at least 0.3, found 0.000.*headrace label reject"):
        create_release(DATASET, built.lake)

    assert git(built.root, "tag", "--list") == ""
    submit_answers(built.lake)
    built.refresh()
    assert create_release(DATASET, built.lake).name == "flights/1"


def test_each_label_gets_the_features_as_they_were_when_its_flight_left_and_leads_to_its_annotations(
    built: Workspace,
) -> None:
    flights = submit_answers(built.lake)
    built.refresh()
    release = create_release(DATASET, built.lake).name

    labels = built.lake.scan("labels/flights/delay_cause").collect()
    requests = labels.join(flights.select(*KEYS, "tailnum"), on=KEYS).rename({"event_time": "event_timestamp"})
    rows = retrieve_at_release(DATASET, built.lake, release, requests.drop("annotation_ids")).to_polars()

    asked = rows.select("carrier", "origin", "tailnum", "event_timestamp")
    plain = retrieve_at_release(DATASET, built.lake, release, asked).to_polars()
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
    submit_answers(built.lake)
    built.refresh()
    release = create_release(DATASET, built.lake).name
    labels = built.lake.scan("labels/flights/delay_cause").collect()
    known = labels["known_time"][0]
    items = labels.select(KEYS).head(1)
    asked = pl.concat([items.with_columns(event_timestamp=known + timedelta(seconds=late)) for late in (-1, 0)])

    answers = retrieve_at_release(
        DATASET, built.lake, release, asked, ["delay_cause:label", "delay_cause:votes"]
    ).to_polars()

    assert answers["delay_cause__label"].to_list() == [None, labels["label"][0]]
    assert answers["delay_cause__votes"].to_list() == [None, 2]


def test_a_training_set_with_labels_is_locked_and_verified_as_any_other(built: Workspace) -> None:
    submit_answers(built.lake)
    built.refresh()
    release = create_release(DATASET, built.lake).name
    labels = built.lake.scan("labels/flights/delay_cause").collect()
    labels.select(*KEYS, event_timestamp="known_time").write_parquet(built.root / "requests.parquet")
    asked = ("retrieve", "flights", "--requests", "requests.parquet", "--lock", "train.lock.json")

    built.command(
        "headrace", *asked, "--out", "a.parquet", "--release", release,
        "--feature", "delay_cause:label", "--feature", "delay_cause:confidence",
    )  # fmt: skip
    built.command("headrace", *asked, "--out", "b.parquet")

    assert (built.root / "a.parquet").read_bytes() == (built.root / "b.parquet").read_bytes()
    assert json.loads((built.root / "train.lock.json").read_text())["table_hashes"].keys() == {"delay_cause"}
