"""validated → sample: delayed flights whose cause a person is asked for.

The same flights and parameters always give the same sample: `sample` of the flights that left `delayed_by_min` late or
more, drawn at random with the seed `seed`. New days change it no more than they must.
"""

from collections.abc import Mapping
from datetime import datetime
from html import escape
from typing import Any

import polars as pl

from headrace.dataset import UTC_MICROSECONDS, Input, LabelingTask, Thresholds
from headrace.label.sampling import StratifiedSampling, UniformSampling, sample_rows

KEYS = ("scheduled_at", "carrier", "flight", "origin")
RECORD = {
    "carrier": "Carrier",
    "flight": "Flight",
    "tailnum": "Aircraft",
    "origin": "From",
    "dest": "To",
    "distance_miles": "Distance, miles",
    "scheduled_at": "Scheduled (UTC)",
    "departed_at": "Left (UTC)",
    "dep_delay_min": "Late at departure, min",
    "arr_delay_min": "Late at arrival, min",
    "air_time_min": "In the air, min",
    "temperature_f": "Temperature, °F",
    "wind_speed_mph": "Wind, mph",
    "wind_gust_mph": "Gusts, mph",
    "precipitation_in": "Rain in the hour, inches",
    "visibility_miles": "Visibility, miles",
}
"""Column of the sample → what the annotator reads, in order."""

WEATHER = ("temperature_f", "wind_speed_mph", "wind_gust_mph", "precipitation_in", "visibility_miles")

CONFIG = """<View><View style="display:flex; gap:24px; align-items:flex-start">
  <View style="flex:1 1 58%">
    <HyperText name="record" value="$html" inline="true" selectionEnabled="false"/>
  </View>
  <View style="flex:1 1 42%">
    <Header value="What caused this delay?" size="4"/>
    <Choices name="cause" toName="record" choice="single-radio" required="true"
             requiredMessage="Pick one cause, or Skip">
      <Choice value="carrier" hint="crew, maintenance, fuelling, baggage" hotkey="1"/>
      <Choice value="weather" hint="weather at the airport or on the way" hotkey="2"/>
      <Choice value="air_traffic" hint="too many flights, airspace closed, control" hotkey="3"/>
      <Choice value="security" hint="evacuation, screening" hotkey="4"/>
      <Choice value="late_aircraft" hint="the same aircraft came late" hotkey="5"/>
      <Choice value="unclear" hint="the record does not say" hotkey="6"/>
    </Choices>
    <TextArea name="note" toName="record" placeholder="Note, if you like" rows="2" maxSubmissions="1"
              editable="true"/>
  </View>
</View></View>
"""


POLICIES = (UniformSampling(0.5), StratifiedSampling(0.5, ("carrier",)))
"""One half estimates how frequent each cause is; the other half asks about small airlines too."""

STORM_MPH, FOG_MILES, WET_IN = 20.0, 3.0, 0.05
EVENING = 22
"""Hour (UTC) from which an aircraft has flown for a day in New York."""


def sample(*, params: Mapping[str, int], flights: pl.LazyFrame, weather: pl.LazyFrame) -> pl.DataFrame:
    """`params["sample"]` delayed flights with the weather at their departure, in order of their id."""
    late = flights.filter(pl.col("dep_delay_min") >= params["delayed_by_min"]).sort(KEYS).collect()
    ids = [_sample_id(row) for row in late.select(KEYS).iter_rows(named=True)]
    population = late.with_columns(pl.Series("sample_id", ids, pl.String))
    chosen = sample_rows(population, POLICIES, params["sample"], params["seed"]).lazy()
    reason = pl.format("left {} min late; {}", "dep_delay_min", "selection_reason")
    observed = weather.select("origin", *WEATHER, hour="time_hour")
    return (
        chosen.with_columns(
            event_time="departed_at", selection_reason=reason, hour=pl.col("departed_at").dt.truncate("1h")
        )
        .join(observed, on=["origin", "hour"], how="left")
        .select("sample_id", "event_time", "selection_reason", *RECORD)
        .sort("sample_id")
        .collect()
    )


def bad_weather(row: Mapping[str, Any]) -> str | None:
    """Wind, fog or rain at the airport."""
    windy = (row["wind_speed_mph"] or 0) >= STORM_MPH
    foggy = (row["visibility_miles"] or 10) < FOG_MILES
    return "weather" if windy or foggy or (row["precipitation_in"] or 0) >= WET_IN else None


def late_in_the_day(row: Mapping[str, Any]) -> str | None:
    """Delays add up as an aircraft flies on."""
    hour = row["scheduled_at"].hour
    return "late_aircraft" if hour >= EVENING or hour < 4 else None  # noqa: PLR2004  past midnight in UTC


def task(row: Mapping[str, Any]) -> dict[str, Any]:
    """What Label Studio holds and shows for one sampled flight: the page as HTML, and the record as plain data."""
    plain = {name: _plain(value) for name, value in row.items()}
    lines = [_line(label, plain[name], loud=name.startswith("dep_delay")) for name, label in RECORD.items()]
    return {**plain, "html": f"<table>{''.join(lines)}</table>"}


def _sample_id(row: Mapping[str, Any]) -> str:
    return f"{row['carrier']}{row['flight']}-{row['origin']}-{row['scheduled_at']:%Y%m%dT%H%MZ}"


def _plain(value: object) -> object:
    return f"{value:%Y-%m-%d %H:%M}" if isinstance(value, datetime) else value


def _line(label: str, value: object, *, loud: bool) -> str:
    shown = "not known" if value is None else escape(f"{value:.1f}" if isinstance(value, float) else str(value))
    shown = f"<b>{shown}</b>" if loud else shown
    return f'<tr><th style="text-align:left;padding:2px 16px 2px 0">{escape(label)}</th><td>{shown}</td></tr>'


LABELING = LabelingTask(
    name="delay_cause",
    title="What caused this delay?",
    config=CONFIG,
    control="cause",
    choices=("carrier", "weather", "air_traffic", "security", "late_aircraft", "unclear"),
    inputs={"flights": Input("validated/flights"), "weather": Input("validated/weather")},
    sample=sample,
    keys=KEYS,
    key_types={"scheduled_at": UTC_MICROSECONDS, "flight": pl.Int64()},
    task=task,
    labeling_functions=(bad_weather, late_in_the_day),
    annotators_per_item=2,
    max_annotators_per_item=3,
    thresholds=Thresholds(agreement=0.3),
    unreviewed="accept",
)
