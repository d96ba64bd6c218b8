"""`headrace validate` on what databases really hold: no value stops a run, and each bad one is rejected by name.

The tables are those that failed with 0.1: times that nothing can hold, bytes, columns of our own names, keys of any
type, nulls in keys, and types that Parquet does not keep.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl
import pytest
from minimal_dataset import create_table_store

from headrace.dataset import UTC_MICROSECONDS, Dataset, Source, TableSource
from headrace.engine.run import StageResult, run_stage
from headrace.errors import HeadraceError
from headrace.project.executors import Executor
from headrace.settings import Settings
from headrace.storage import parquet
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.table_store import TableStore
from headrace.validate.columns import TimeBounds, utc_time
from headrace.validate.errors import InvalidContractError
from headrace.validate.parquet_reader import read_parquet
from headrace.validate.stage import validation_stage

RAW, VALIDATED, REJECTED = ("raw/shop/rows", "validated/shop/rows", "rejected/shop/rows")
INFINITY = 2**63 - 1
"""The latest time of 64 bits, in microseconds since 1970."""


def read(path: Path) -> pl.DataFrame:
    return read_parquet(path)


def same(rows: pl.DataFrame) -> pl.DataFrame:
    return rows


def source(key: tuple[str, ...] = ("id",), **columns: dy.Column) -> Source:
    """A table of a database, whose rows are validated as they are."""
    contract = type("Rows", (dy.Schema,), columns)
    location = TableSource(table="rows", key=key, watermark="id")
    return Source("rows", location, read, contract, same, key, max_rejected_share=1.0)


@pytest.fixture
def table_store(tmp_path: Path) -> TableStore:
    return create_table_store(tmp_path)


def validate(table_store: TableStore, declared: Source, **partitions: pl.DataFrame) -> StageResult:
    """Ingest these partitions, as far as they are new, and validate the table."""
    entries: dict[str, PartitionEntry] = dict(table_store.manifest(RAW).partitions)
    for name, frame in partitions.items():
        stored = table_store.cache.add_bytes(memoryview(parquet.to_parquet_bytes(frame)))
        entries[name] = PartitionEntry(stored.md5, stored.md5, stored.size, frame.height)
    table_store.checkout(Manifest(RAW, partitions=entries))
    stage = validation_stage(Dataset(description="", owner="", sources=(declared,), name="shop"), declared)
    return run_stage(stage, table_store, Executor(Settings(workspace=table_store.root)))


def times(*steps: int | None) -> pl.Series:
    return pl.Series(steps, dtype=pl.Int64).cast(UTC_MICROSECONDS)


# Times that nothing can hold

JANUARY = 1_356_998_400_000_000


class UntilNewYork(dy.Schema):
    """Times with every kind of check that would overflow or panic at `infinity`."""

    id = dy.Int64()
    v = utc_time(within=TimeBounds(timedelta(-1), timedelta(days=1)), nullable=True)

    @dy.rule()
    def local_year(cls) -> pl.Expr:
        return cls.v.col.dt.convert_time_zone("America/New_York").dt.replace_time_zone(None).dt.year() >= 2012

    @dy.rule()
    def a_day_later(cls) -> pl.Expr:
        return (cls.v.col + timedelta(days=1)).dt.to_string("%Y") >= "2012"


@pytest.mark.parametrize(
    ("step", "shown"),
    [
        (INFINITY, str(INFINITY)),
        (-INFINITY, str(-INFINITY)),
        (-9_222_425_352_054_775_809, "infinity"),
        (-9_222_425_352_054_775_808, "-infinity"),
        (-62_135_596_800_000_001, "-62135596800000001"),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_time_that_nothing_can_hold_is_rejected_by_column_and_value(
    table_store: TableStore, step: int, shown: str, batch_size: int
) -> None:
    declared = replace(source(id=dy.Int64()), contract=UntilNewYork, batch_size=batch_size)
    first = pl.DataFrame({"id": [1, 2], "v": times(step, JANUARY)})
    second = pl.DataFrame({"id": [3, 4], "v": times(None, JANUARY + 86_400_000_000)})

    ran = validate(table_store, declared, **{"2013-01-01": first, "2013-01-02": second})

    assert dict(ran.checks) == {"v|dtype": 1}
    (bad,) = table_store.scan(REJECTED).collect().rows(named=True)
    assert bad == {"_row": 1, "id": "1", "v": shown, "_failed_checks": ["v|dtype"]}
    assert table_store.scan(VALIDATED).collect()["v"].to_list() == [
        datetime(2013, 1, 1, tzinfo=UTC),
        None,
        datetime(2013, 1, 2, tzinfo=UTC),
    ]


def test_a_bad_row_beside_such_a_time_has_its_text_too(table_store: TableStore) -> None:
    frame = pl.DataFrame({"id": [1, 2, 3], "v": times(INFINITY, None, JANUARY)})

    validate(table_store, source(id=dy.Int64(), v=utc_time()), all=frame)

    assert table_store.scan(REJECTED).collect().select("v", "_failed_checks").rows() == [
        (str(INFINITY), ["v|dtype"]),
        (None, ["v|nullability"]),
    ]


def test_a_column_of_nothing_but_such_times_is_not_called_another_type(table_store: TableStore) -> None:
    frame = pl.DataFrame({"id": [1, 2], "v": times(INFINITY, INFINITY)})

    ran = validate(table_store, source(id=dy.Int64(), v=utc_time(nullable=True)), all=frame)

    assert dict(ran.checks) == {"v|dtype": 2}


# Columns of any name, values of any type


def test_bytes_lists_and_structs_are_rejected_as_text(table_store: TableStore) -> None:
    frame = pl.DataFrame(
        {
            "id": [1, 1],
            "bytes": [b"\xff00", b"\xff01"],
            "tags": [[1], [2, None]],
            "pair": [{"a": b"\xff"}, {"a": None}],
            "span": [timedelta(1), timedelta(2)],
        }
    ).with_columns(pl.col("span").dt.total_microseconds())
    columns = {
        "id": dy.Int64(),
        "bytes": dy.Binary(),
        "tags": dy.List(dy.Int64(nullable=True)),
        "pair": dy.Struct({"a": dy.Binary(nullable=True)}),
        "span": dy.Int64(),
    }

    validate(table_store, source(("id",), **columns), all=frame)

    assert table_store.scan(REJECTED).collect().rows() == [
        (2, "1", "ff3031", "[2,null]", '{"a":null}', "172800000000", ["unique(id)"])
    ]


def test_columns_may_be_called_row_and_checks_as_0_1_called_its_own(table_store: TableStore) -> None:
    frame = pl.DataFrame({"row": [1, 2, 3], "checks": [-1, -2, 5]})

    ran = validate(table_store, source(("row",), row=dy.Int64(max=2), checks=dy.Int64(min=0)), all=frame)

    assert dict(ran.checks) == {"checks|min": 2, "row|max": 1}
    assert table_store.scan(REJECTED).collect().rows(named=True)[1] == {
        "_row": 2,
        "row": "2",
        "checks": "-2",
        "_failed_checks": ["checks|min"],
    }


# Keys

KEY_TYPES: Mapping[str, tuple[dy.Column, list[Any]]] = {
    "integers": (dy.Int64(), [10, 9]),
    "large integers": (dy.UInt64(), [2**64 - 1, 0]),
    "decimals": (dy.Decimal(10, 2), [Decimal("10.00"), Decimal("9.50")]),
    "text": (dy.String(), ["b", "a"]),
    "bytes": (dy.Binary(), [b"\xff", b"\0"]),
    "floats": (dy.Float64(allow_inf=True), [float("inf"), 0.5]),
    "times": (utc_time(), [datetime(2013, 1, 2, tzinfo=UTC), datetime(2013, 1, 1, tzinfo=UTC)]),
    "dates": (dy.Date(), [datetime(2013, 1, 2, tzinfo=UTC).date(), datetime(2013, 1, 1, tzinfo=UTC).date()]),
    "Booleans": (dy.Bool(), [True, False]),
}


@pytest.mark.parametrize("kind", KEY_TYPES)
def test_a_key_of_any_type_is_unique_over_the_table(table_store: TableStore, kind: str) -> None:
    column, (late, early) = KEY_TYPES[kind]
    declared = source(("k",), k=column, v=dy.Int64())
    frame = pl.DataFrame({"k": pl.Series([early, late], dtype=column.dtype), "v": [1, 2]})

    ran = validate(table_store, declared, a=frame, b=frame[1:])

    assert dict(ran.checks) == {"unique(k)": 1}
    assert table_store.manifest(REJECTED).partitions.keys() == {"b"}
    assert validate(table_store, declared).computed == {}


def test_a_key_with_a_null_is_unique_over_the_table_as_it_is_in_a_partition(table_store: TableStore) -> None:
    declared = source(("at", "shop"), at=dy.Int64(), shop=dy.String(nullable=True))
    schema = {"at": pl.Int64, "shop": pl.String}
    first = pl.DataFrame({"at": [1, 1, 2], "shop": [None, None, "a"]}, schema=schema)
    second = pl.DataFrame({"at": [1, 2], "shop": [None, "b"]}, schema=schema)

    ran = validate(table_store, declared, a=first, b=second)

    assert dict(ran.checks) == {"unique(at, shop)": 2}
    assert table_store.scan(VALIDATED).collect().sort("at", "shop").rows() == [(1, None), (2, "a"), (2, "b")]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_leading_key_that_is_null_in_every_row_is_compared_with_the_partitions_that_hold_one(
    table_store: TableStore, batch_size: int
) -> None:
    declared = replace(source(("region", "n"), region=dy.String(nullable=True), n=dy.Int64()), batch_size=batch_size)
    schema = {"region": pl.String, "n": pl.Int64}
    partitions: dict[str, list[tuple[str | None, int]]] = {
        "a": [("east", 1)],
        "b": [(None, 1)],
        "c": [(None, 1), (None, 2)],
        "d": [],
    }

    ran = validate(
        table_store,
        declared,
        **{name: pl.DataFrame(rows, schema=schema, orient="row") for name, rows in partitions.items()},
    )

    assert dict(ran.checks) == {"unique(region, n)": 1}
    assert table_store.manifest(REJECTED).partitions.keys() == {"c"}
    assert validate(table_store, declared).computed == {}


# What `transform` gives

TRANSFORMS: Mapping[str, pl.Expr] = {
    "Duration": pl.lit(timedelta(1)),
    "Float16": pl.lit(1.0).cast(pl.Float16),
    "Array": pl.concat_list("id", "id").list.to_array(2),
    "Null": pl.lit(None),
    "Int128": pl.col("id").cast(pl.Int128),
    "List(Duration": pl.concat_list(pl.lit(timedelta(1))),
    "Struct": pl.struct(pl.lit(timedelta(1)).alias("a")),
    "Datetime(time_unit='us', time_zone=None": pl.col("at").dt.replace_time_zone(None),
    "Datetime(time_unit='us', time_zone='America/New_York'": pl.col("at").dt.convert_time_zone("America/New_York"),
    "Datetime(time_unit='ms', time_zone='UTC'": pl.col("at").dt.cast_time_unit("ms"),
}


def adding(expression: pl.Expr) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """A transform that adds a column."""
    return lambda rows: rows.with_columns(added=expression)


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_a_type_that_the_table_would_not_keep_is_refused_by_the_name_of_its_column(
    table_store: TableStore, kind: str
) -> None:
    declared = replace(source(id=dy.Int64(), at=utc_time()), transform=adding(TRANSFORMS[kind]))

    with pytest.raises(InvalidContractError) as error:
        validate(table_store, declared, all=pl.DataFrame({"id": [1], "at": times(JANUARY)}))

    assert f"the column 'added' as {kind}" in str(error.value)
    assert "rows all: `transform` (" in str(error.value)


def test_an_object_of_python_is_refused_by_the_name_of_its_column(table_store: TableStore) -> None:
    declared = replace(
        source(id=dy.Int64()),
        transform=lambda rows: rows.with_columns(pl.Series("added", [object()], dtype=pl.Object)),
    )

    with pytest.raises(InvalidContractError, match="the column 'added' as Object"):
        validate(table_store, declared, all=pl.DataFrame({"id": [1]}))


def test_categories_are_kept_as_the_text_that_parquet_keeps_of_them(table_store: TableStore) -> None:
    frame = pl.DataFrame({"id": [1, 2], "kind": ["a", "c"], "free": ["x", "y"]})

    ran = validate(table_store, source(id=dy.Int64(), kind=dy.Enum(["b", "a"]), free=dy.Categorical()), all=frame)

    assert dict(ran.checks) == {"kind|dtype": 1}
    assert table_store.scan(VALIDATED).collect().rows() == [(1, "a", "x")]
    assert table_store.scan(VALIDATED).collect_schema() == {"id": pl.Int64, "kind": pl.String, "free": pl.String}


# How many rows may be rejected


@pytest.mark.parametrize("share", [0.01, 0.07, 0.29, 0.57, 1.0])
def test_as_many_rows_as_are_tolerated_may_be_rejected_and_not_one_more(table_store: TableStore, share: float) -> None:
    declared = replace(source(id=dy.Int64(nullable=False), n=dy.Int64(min=0)), max_rejected_share=share)
    tolerated = round(share * 100)

    def rows(rejected: int) -> pl.DataFrame:
        return pl.DataFrame({"id": range(100), "n": [-1] * rejected + [1] * (100 - rejected)})

    validated = validate(table_store, declared, one=rows(tolerated))

    assert validated.manifest.partitions["one"].rows == 100 - tolerated
    if tolerated < 100:
        with pytest.raises(HeadraceError, match=rf"{tolerated + 1}.0% of 100 rows rejected, {tolerated}.0% tolerated"):
            validate(table_store, declared, two=rows(tolerated + 1))
    empty = validate(table_store, declared, two=rows(0).clear())
    assert empty.manifest.partitions["two"].rows == 0
