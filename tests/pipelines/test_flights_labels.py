"""validated → sample, dataset `flights`: which delayed flights people are asked about, and what they see."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import polars as pl
import real_flights
import yaml

from headrace.project.loading import load_dataset

(LABELING,) = load_dataset("flights").labels
PARAMS = {"sample": 24, "delayed_by_min": 60, "seed": 7}
LAST = "2013-01-10"


def sampled(*, lookback: int = 4, **params: int) -> pl.DataFrame:
    """The sample of the days up to 10 January."""
    return LABELING.sample(
        params={**PARAMS, **params},
        flights=real_flights.validated_rows("flights", LAST, lookback),
        weather=real_flights.validated_rows("weather", LAST, lookback),
    )


def shown(row: Mapping[str, Any]) -> str:
    """The page of one task."""
    return str(LABELING.task(row)["html"])


def test_the_sample_has_as_many_flights_as_asked_each_late_enough_and_says_why() -> None:
    rows = sampled()

    assert rows.height == 24
    assert (rows["dep_delay_min"] >= 60).all()
    assert rows["sample_id"].is_unique().all()
    reasons = rows["selection_reason"]
    assert sum("min late; drawn at random (seed 7)" in reason for reason in reasons) == 12
    assert sum("min late; one of" in reason and "carrier" in reason for reason in reasons) == 12


def test_the_same_flights_and_parameters_give_the_same_sample_in_any_order() -> None:
    shuffled = real_flights.validated_rows("flights", LAST, 4).collect().sample(fraction=1, shuffle=True, seed=3)

    again = LABELING.sample(
        params=PARAMS, flights=shuffled.lazy(), weather=real_flights.validated_rows("weather", LAST, 4)
    )

    assert again.equals(sampled())


def test_another_seed_gives_another_sample() -> None:
    assert set(sampled(seed=8)["sample_id"]) != set(sampled()["sample_id"])


def test_new_days_replace_only_what_they_must() -> None:
    before, after = sampled(lookback=4), sampled(lookback=5)

    kept = set(before["sample_id"]) & set(after["sample_id"])
    older = set(after["sample_id"]) - kept
    assert kept
    assert len(older) == 24 - len(kept)
    new = after.filter(pl.col("sample_id").is_in(older))
    assert set(new["scheduled_at"].dt.convert_time_zone("America/New_York").dt.date()) == {date(2013, 1, 5)}


def test_fewer_delayed_flights_than_asked_are_all_taken() -> None:
    rows = sampled(delayed_by_min=600)

    late = real_flights.validated_rows("flights", LAST, 4).filter(pl.col("dep_delay_min") >= 600).collect()
    assert 0 < rows.height == late.height < 24


def test_a_label_is_known_no_earlier_than_the_flight_left() -> None:
    rows = sampled()

    assert (rows["event_time"] == rows["departed_at"]).all()


def test_a_task_shows_the_flight_and_the_weather_of_its_departure() -> None:
    row = sampled(delayed_by_min=1301).row(0, named=True)

    page = shown(row)

    observed = real_flights.validated_rows("weather", "2013-01-10", 1).filter(
        pl.col("origin") == row["origin"], pl.col("time_hour") == row["departed_at"].replace(minute=0)
    )
    assert "<b>1301</b>" in page
    assert f"<td>{observed.collect()['temperature_f'].item()}</td>" in page


def test_what_is_not_known_is_said_and_not_left_blank() -> None:
    row = sampled().row(0, named=True)

    assert shown({**row, "wind_gust_mph": None}).count("not known") >= 1


def test_text_from_the_data_is_shown_as_text_and_never_run() -> None:
    row = sampled().row(0, named=True)

    page = shown({**row, "tailnum": "<script>alert(1)</script>"})

    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_the_page_offers_the_declared_choices_under_the_declared_control() -> None:
    control = ET.fromstring(LABELING.config).find(f".//Choices[@name='{LABELING.control}']")  # noqa: S314

    assert control is not None
    assert tuple(choice.attrib["value"] for choice in control) == LABELING.choices
    assert 3 <= len(LABELING.title) <= 50


def test_the_parameters_stand_in_params_yaml() -> None:
    params = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text("utf-8"))

    assert set(params["flights"]["delay_cause"]) == set(PARAMS)
