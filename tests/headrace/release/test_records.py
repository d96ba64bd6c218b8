"""What a release replaces in the files that record tables, and what it leaves to other datasets. Without git."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from headrace.release.build import ReleasedMeanwhileError, merge_hand_written
from headrace.release.records import DatasetRecords, Records, contains_changes

TRAIN = {
    "cmd": "python train.py",
    "deps": ["data/features/flights/delays/manifest.json"],
    "metrics": [{"metrics/flights.json": {"cache": False}}],
}


def stage(dataset: str, table: str = "orders") -> dict[str, Any]:
    return {"cmd": f"headrace validate {dataset} --table {table}", "outs": [f"data/validated/{dataset}/{table}"]}


def locked(dataset: str, md5: str, table: str = "orders") -> dict[str, Any]:
    outs = [{"path": f"data/validated/{dataset}/{table}", "md5": md5}]
    return {"cmd": f"headrace validate {dataset} --table {table}", "outs": outs}


def pointer(md5: str) -> bytes:
    return f"outs:\n- md5: {md5}\n  path: orders\n".encode()


def records(**changes: object) -> Records:
    """Two datasets whose names begin alike, and a hand-written stage."""
    entries = {
        "flights-validate-orders": locked("flights", "f1"),
        "flights_eu-validate-orders": locked("flights_eu", "e1"),
    }
    stages = {name: stage(name.partition("-")[0]) for name in entries}
    files = {"data/raw/flights/orders.dvc": pointer("f0"), "data/raw/flights_eu/orders.dvc": pointer("e0")}
    content: dict[str, Any] = {
        "stages": {"stages": {**stages, "flights-train": TRAIN}},
        "lock": {"schema": "2.0", "stages": entries},
        "files": files,
    }
    return replace(Records(**content), **changes)  # type: ignore[arg-type]


def own(md5: str = "f2", hand_written: Mapping[str, Any] | None = None) -> DatasetRecords:
    return DatasetRecords(
        "flights",
        {"flights-validate-orders": stage("flights"), "flights-validate-lines": stage("flights", "lines")},
        {"flights-validate-orders": locked("flights", md5), "flights-validate-lines": locked("flights", md5, "lines")},
        {"data/raw/flights/orders.dvc": pointer(md5)},
        hand_written or {},
    )


def md5s(found: Records, dataset: str) -> dict[str, str]:
    """Table → md5, of all tables of a dataset."""
    outs = [out for entry in found.locked.values() for out in entry["outs"]]
    computed = {out["path"].removeprefix("data/"): out["md5"] for out in outs if f"/{dataset}/" in out["path"]}
    return found.input_tables(dataset) | computed


def test_a_release_replaces_the_entries_of_its_dataset_alone_each_in_its_place() -> None:
    before = records()

    after = before.with_dataset(own())

    assert list(after.locked) == ["flights-validate-orders", "flights_eu-validate-orders", "flights-validate-lines"]
    assert md5s(after, "flights_eu") == md5s(before, "flights_eu")
    tables = ("raw/flights/orders", "validated/flights/orders", "validated/flights/lines")
    assert md5s(after, "flights") == dict.fromkeys(tables, "f2")
    assert after.declared["flights-train"] == TRAIN
    assert set(after.changed_files(before)) == {"dvc.lock", "dvc.yaml", "data/raw/flights/orders.dvc"}


def test_a_table_that_is_no_longer_declared_leaves_the_files() -> None:
    wider = records().with_dataset(own())
    narrow = DatasetRecords("flights", {}, {}, {}, {})

    after = wider.with_dataset(narrow)

    assert md5s(after, "flights") == {}
    assert after.changed_files(wider)["data/raw/flights/orders.dvc"] is None
    assert "flights_eu-validate-orders" in after.locked


def test_nothing_is_written_where_nothing_differs() -> None:
    once = records().with_dataset(own())

    assert once.with_dataset(own()).changed_files(once) == {}


@pytest.mark.parametrize(
    ("base", "mine", "theirs", "merged"), [(b"1", b"2", b"1", b"2"), (b"1", b"1", b"2", b"2"), (b"1", b"2", b"2", b"2")]
)
def test_metrics_are_taken_from_who_measured_anew(base: bytes, mine: bytes, theirs: bytes, merged: bytes) -> None:
    def with_metric(content: bytes) -> Records:
        return records(files={"metrics/flights.json": content})

    found = merge_hand_written(own(hand_written={"metrics/flights.json": mine}), with_metric(theirs), with_metric(base))

    assert found.hand_written == {"metrics/flights.json": merged}


def test_metrics_that_both_measured_anew_are_refused() -> None:
    theirs, base = (records(files={"metrics/flights.json": content}) for content in (b"2", b"1"))

    with pytest.raises(ReleasedMeanwhileError, match=r"metrics/flights\.json .*git pull --rebase"):
        merge_hand_written(own(hand_written={"metrics/flights.json": b"3"}), theirs, base)


def test_a_lock_that_repro_wrote_is_contained_in_the_release_of_the_same_tables_and_other_work_is_not() -> None:
    before, released = records(), records().with_dataset(own())
    entries = {**before.locked, "flights-validate-orders": locked("flights", "f2")}
    here = records(lock={"schema": "2.0", "stages": entries})
    others = records(lock={"schema": "2.0", "stages": {**entries, "digits-validate-orders": locked("digits", "d1")}})

    assert "dvc.lock" in contains_changes(released, before, here)
    assert "dvc.lock" not in contains_changes(released, before, others)
