"""Training requests: any frame is read as it is, or refused by the column at fault and what to do about it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa
import pytest

from headrace.dataset import UTC_MICROSECONDS
from headrace.retrieve.errors import InvalidRequestError
from headrace.retrieve.requests import Requests

NOON = datetime(2013, 1, 9, 12, tzinfo=UTC)


def with_names(frame: pd.DataFrame, *names: str) -> pd.DataFrame:
    frame.columns = pd.Index(names)
    return frame


def objects(*values: object) -> Any:  # noqa: ANN401  a series of pandas
    return pd.Series(values, dtype=object)


FRAMES: dict[str, tuple[Callable[[], object], str]] = {
    "times with and without zone": (
        lambda: pd.DataFrame({"event_timestamp": objects(NOON, NOON.replace(tzinfo=None))}),
        r"Column event_timestamp .*every time with a zone or none, found 1 without in 2",
    ),
    "times without and with zone": (
        lambda: pd.DataFrame({"event_timestamp": objects(pd.Timestamp("2013-01-09"), pd.Timestamp(NOON), pd.NaT)}),
        r"Column event_timestamp .*every time with a zone or none, found 1 without in 2",
    ),
    "such times in another column": (
        lambda: pd.DataFrame({"event_timestamp": [NOON, NOON], "at": objects(NOON, NOON.replace(tzinfo=None))}),
        r"Column at .*every time with a zone or none",
    ),
    "two columns of one name in pandas": (
        lambda: with_names(pd.DataFrame([["EWR", "JFK", NOON]]), "origin", "origin", "event_timestamp"),
        "Several columns of the requests are called origin",
    ),
    "two columns of one name in Arrow": (
        lambda: pa.table([pa.array(["EWR"]), pa.array(["JFK"])], names=["origin", "origin"]),
        "Several columns of the requests are called origin",
    ),
    "a number beyond 64 bits": (
        lambda: pd.DataFrame({"event_timestamp": [NOON], "carrier_id": objects(2**70)}),
        r"cannot be read: column carrier_id: .*too large.* whole numbers have 64 bits",
    ),
    "a text that is no Unicode": (
        lambda: pd.DataFrame({"event_timestamp": [NOON], "origin": ["\ud800"]}),
        r"cannot be read: column origin: .*surrogates not allowed",
    ),
    "numbers and text": (
        lambda: pd.DataFrame({"event_timestamp": [NOON, NOON], "origin": objects(1, "EWR")}),
        r"cannot be read: column origin: .*Every column must have one type",
    ),
    "an offset that Polars has no zone for": (
        lambda: pd.DataFrame({"event_timestamp": [pd.Timestamp("2013-01-09T12:00+05:30")]}),
        r"column event_timestamp: .*tz_convert\('UTC'\)",
    ),
    "a series": (lambda: pd.Series([1]), "Expected requests as a pandas, Polars or Arrow table .* found Series"),
    "a time that nothing can hold": (
        lambda: pl.DataFrame({"event_timestamp": pl.Series([0, 2**63 - 1]).cast(UTC_MICROSECONDS)}),
        "event_timestamp of the requests: expected times of the years 1 to 9999",
    ),
    "such a time in seconds": (
        lambda: pa.table({"event_timestamp": pa.array([0, 2**62]).cast(pa.timestamp("s", "UTC"))}),
        "event_timestamp of the requests: expected times of the years 1 to 9999",
    ),
    "such a time in milliseconds": (
        lambda: pl.DataFrame({"event_timestamp": pl.Series([-(2**62)]).cast(pl.Datetime("ms", "UTC"))}),
        "event_timestamp of the requests: expected times of the years 1 to 9999",
    ),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_an_odd_frame_is_refused_by_the_column_at_fault(kind: str) -> None:
    make, message = FRAMES[kind]

    with pytest.raises(InvalidRequestError, match=message):
        Requests.read(make())


def test_objects_that_all_name_a_zone_are_one_column_of_instants() -> None:
    tokyo = NOON.astimezone(timezone(timedelta(hours=9)))

    requests = Requests.read(pd.DataFrame({"event_timestamp": objects(NOON, tokyo)}))

    assert requests.rows.collect()["event_timestamp"].to_list() == [NOON, NOON]
