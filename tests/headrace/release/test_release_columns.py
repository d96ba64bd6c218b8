"""Releases before and after a source's columns changed: each is read as it was, old partitions are the same bytes."""

import shutil
from dataclasses import replace
from pathlib import Path

import dataframely as dy
import polars as pl
import pytest
from changing_source import DATASET, VALIDATED, ChangingSource, day, feature_table, schema
from release_clones import Clone, Origin

from headrace.catalog.tables import DatasetTables
from headrace.dataset import FeatureTable
from headrace.lineage.diff import diff_releases
from headrace.release.guards import column_findings
from headrace.release.release import create_release
from headrace.retrieve.retrieve import retrieve_at_release
from headrace.storage.dvc.lock import recorded_outs
from headrace.storage.table_store import TableStore
from headrace.validate.column_history import evolving

FEATURE_REPOSITORY = Path(__file__).parents[3] / "feature_repo"
PRICE = feature_table({"price": pl.Int64(), "tip": pl.Int64()})


@pytest.fixture
def clone(origin: Origin) -> Clone:
    """A clone with a release before the change, and one after it."""
    first = origin.first
    rides = ChangingSource(first.table_store)
    rides.declare(schema(fare=dy.Int64(min=0)))
    rides.deliver(day(0), "id,fare\n1,10\n")
    release(first, rides)
    rides.declare(
        schema(
            price=evolving(dy.Int64(min=0), renamed_from="fare"),
            tip=evolving(dy.Int64(), since=day(1), default=7),
        )
    )
    rides.deliver(day(1), "id,price,tip\n2,20,3\n")
    release(first, rides, PRICE)
    return first


def release(clone: Clone, rides: ChangingSource, *features: FeatureTable) -> None:
    """Commit the parameters, run all stages, and release."""
    clone.git("add", "params.yaml")
    clone.git("commit", "--quiet", "--message", "Change the contract")
    clone.git("push", "--quiet", "origin", "HEAD:main")
    rides.run(*features)
    create_release(replace(DATASET, features=features), TableStore.at(clone.root))


def test_each_release_is_read_as_it_was_from_any_clone(clone: Clone, origin: Origin) -> None:
    assert clone.table_store.tables("rides")
    reader = origin.clone("reader").table_store
    before, after = (DatasetTables.open(DATASET, reader, name) for name in ("rides/1", "rides/2"))

    assert before["validated/rides"].polars().collect().to_dicts() == [{"id": 1, "fare": 10}]
    expected = [{"id": 1, "price": 10, "tip": 7}, {"id": 2, "price": 20, "tip": 3}]
    table = after["validated/rides"]
    assert table.polars().collect().to_dicts() == expected
    assert table.arrow().to_pylist() == expected
    assert table.duckdb().pl().to_dicts() == expected
    assert table.select(columns=["tip"]).polars().collect().to_dicts() == [{"tip": 7}, {"tip": 3}]
    assert table.polars().filter(pl.col("tip") == 7).select("price").collect().to_dicts() == [{"price": 10}]
    assert table.select(partitions=[day(0)]).polars().collect().to_dicts() == expected[:1]
    old, new = (tables["validated/rides"].reader.manifest.md5s for tables in (before, after))
    assert new[day(0)] == old[day(0)]


def test_a_difference_of_releases_names_the_column_that_was_renamed_and_the_new_one(clone: Clone) -> None:
    tables = {diff.table: diff for diff in diff_releases(clone.table_store, "rides/1", "rides/2").tables}

    assert str(tables[VALIDATED].columns) == "+tip Int64, fare → price (renamed)"
    assert tables[VALIDATED].partitions.changed == []
    assert tables[VALIDATED].partitions.added == [day(1)]


def test_training_rows_of_an_old_partition_have_the_default(clone: Clone) -> None:
    shutil.copytree(FEATURE_REPOSITORY, clone.root / FEATURE_REPOSITORY.name)
    declared = replace(DATASET, features=(PRICE,))
    noon = pl.Series([f"{day(1)}T12:00:00Z"]).str.to_datetime(time_zone="UTC").item()
    requests = pl.DataFrame({"id": [1, 2], "event_timestamp": [noon, noon]})

    rows = retrieve_at_release(declared, clone.table_store, "rides/2", requests).to_polars()

    assert rows.select("rides__price", "rides__tip").rows() == [(10, 7), (20, 3)]


def test_a_renamed_column_of_a_validated_table_is_a_warning(clone: Clone) -> None:
    rides = ChangingSource(clone.table_store)
    rides.declare(
        schema(
            cost=evolving(dy.Int64(min=0), renamed_from=("fare", "price")),
            tip=evolving(dy.Int64(), since=day(1), default=7),
        )
    )
    rides.run()
    out = recorded_outs(clone.root, "refs/tags/rides/2")[f"data/{VALIDATED}"]

    [finding] = column_findings(
        DATASET,
        clone.table_store,
        [VALIDATED],
        lambda _: clone.table_store.manifest_of_directory(out["md5"]),
        "rides/2",
    )

    assert finding.level == "warning"
    assert "since rides/2, price is called cost; queries and notebooks" in finding.text
