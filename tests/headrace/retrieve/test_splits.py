"""Splits promise: a row's split depends on its own key or time and nothing else, and what splits share is counted."""

import hashlib
import json
import random
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from headrace.retrieve.splits import InvalidSplitError, KeySplit, TimeSplit, measure_leakage, parse_split

NOON = datetime(2013, 1, 9, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
THREE = {"train": 0.8, "validation": 0.1, "test": 0.1}

keys = st.lists(st.tuples(st.text(max_size=4), st.none() | st.integers(-5, 5)), max_size=20)


def frame(rows: list[tuple[str, int | None]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"a": pl.String, "b": pl.Int64}, orient="row")


@given(some=keys, more=keys)
@examples(deadline=None)
def test_no_row_moves_when_rows_are_added(
    some: list[tuple[str, int | None]], more: list[tuple[str, int | None]]
) -> None:
    split = KeySplit(["a", "b"], THREE)

    assert split.assign(frame(more + some))[len(more) :].to_list() == split.assign(frame(some)).to_list()


def test_the_split_of_a_key_is_written_down_for_ever() -> None:
    rows = pl.DataFrame({"tailnum": ["N10156", "N102UW", "N103US", None, "N10156"]})

    found = KeySplit(["tailnum"], {"train": 0.5, "test": 0.5}).assign(rows).to_list()

    places = [
        int.from_bytes(hashlib.blake2b(json.dumps(["", key]).encode(), digest_size=8).digest(), "big") / 2**64
        for key in rows["tailnum"]
    ]
    assert found == ["train" if place < 0.5 else "test" for place in places]
    assert found == ["test", "train", "train", "test", "test"]


def test_the_width_of_a_whole_number_does_not_matter() -> None:
    split = KeySplit(["k"], THREE)
    wide = pl.DataFrame({"k": list(range(100))}, schema={"k": pl.Int64})

    assert split.assign(wide.cast(pl.Int16)).to_list() == split.assign(wide).to_list()


def test_the_shares_are_kept_to_within_chance_and_a_salt_gives_other_splits() -> None:
    rows = pl.DataFrame({"k": list(range(20_000))})

    one, two = KeySplit(["k"], THREE).assign(rows), KeySplit(["k"], THREE, salt="2").assign(rows)

    assert one.value_counts().sort("split")["count"].to_list() == pytest.approx([2_000, 16_000, 2_000], abs=200)
    assert 0.6 < (one == two).mean() < 0.72  # type: ignore[operator]


def test_a_larger_first_share_takes_keys_and_gives_none_away() -> None:
    rows = pl.DataFrame({"k": list(range(1_000))})

    before = KeySplit(["k"], {"train": 0.5, "test": 0.5}).assign(rows)
    after = KeySplit(["k"], {"train": 0.7, "test": 0.3}).assign(rows)

    assert set(rows.filter(before == "train")["k"]) < set(rows.filter(after == "train")["k"])


def test_splits_by_time_begin_at_their_first_moment() -> None:
    starts = {"validation": NOON, "test": NOON + HOUR}
    times = [NOON - timedelta(microseconds=1), NOON, NOON + HOUR - timedelta(microseconds=1), NOON + HOUR]

    found = TimeSplit("train", starts).assign(pl.DataFrame({"event_timestamp": times}))

    assert found.to_list() == ["train", "validation", "validation", "test"]


def test_the_same_key_at_nearly_the_same_time_in_two_splits_is_counted() -> None:
    rows = pl.DataFrame(
        {
            "k": ["a", "a", "a", "b", "b", "c", "c", None, None],
            "split": ["train", "test", "test", "train", "test", "train", "train", "train", "test"],
            "event_timestamp": [NOON, NOON + HOUR, NOON + HOUR, NOON, NOON + 9 * HOUR, NOON, NOON, NOON, NOON],
        }
    )

    found = measure_leakage(rows.lazy(), ["k"], HOUR)

    assert (found.shared_keys, found.neighbours) == (2, 1)


def test_what_a_person_writes_is_read_as_keys_or_as_times() -> None:
    assert parse_split("train=0.8,test=0.2", ["k"]) == KeySplit(("k",), {"train": 0.8, "test": 0.2})
    assert parse_split("train, test=2013-11-01", []) == TimeSplit("train", {"test": datetime(2013, 11, 1, tzinfo=UTC)})
    assert parse_split("a,b=2013-11-01T05:00-05:00", []).to_dict()["starts"] == {"b": "2013-11-01T10:00:00+00:00"}


@pytest.mark.parametrize(
    ("text", "by", "message"),
    [
        ("train=0.8,test=0.3", ["k"], r"add up to 1, found .* add up to 1.1"),
        ("train=0.8,test=x", ["k"], r"Expected a split such as"),
        ("train=0.8,test=0.2", [], r"Expected a split such as"),
        ("train", [], r"Expected the starts of splits in order"),
        ("train,test=2013-11-01T05:00", [], r"each with a zone"),
        ("train,validation=2013-11-01,test=2013-10-01", [], r"in order"),
    ],
)
def test_a_split_that_is_none_is_refused_with_an_example(text: str, by: list[str], message: str) -> None:
    with pytest.raises(InvalidSplitError, match=message):
        parse_split(text, by)


def test_a_split_of_rows_without_its_column_is_refused() -> None:
    with pytest.raises(InvalidSplitError, match=r"expected the column tailnum in the requests, found k"):
        KeySplit(["tailnum"], THREE).assign(pl.DataFrame({"k": [1]}))

    with pytest.raises(InvalidSplitError, match=r"expected no column split"):
        KeySplit(["k"], THREE).assign(pl.DataFrame({"k": [1], "split": [1]}))


def test_the_leak_report_is_the_same_a_part_of_the_keys_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(7)  # noqa: S311  rows, no secret
    rows = pl.DataFrame(
        {
            "tailnum": [draw.choice("abcdefgh") for _ in range(500)],
            "event_timestamp": [NOON + timedelta(hours=draw.randrange(2000)) for _ in range(500)],
            "split": [draw.choice(["train", "test"]) for _ in range(500)],
        }
    ).lazy()
    whole = measure_leakage(rows, ["tailnum"], timedelta(hours=1))

    monkeypatch.setattr("headrace.retrieve.splits.AT_ONCE", 60)

    assert measure_leakage(rows, ["tailnum"], timedelta(hours=1)) == whole
    assert whole.shared_keys == 8
    assert whole.neighbours > 0
