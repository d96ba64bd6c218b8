"""Columns of a source come, go, get another name or another type: old partitions keep their bytes, and all read as one.

What a partition lacks is filled in for every reader; what nobody has declared is refused with what to declare.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dataframely as dy
import duckdb
import polars as pl
import pytest
from changing_source import FEATURES, REJECTED, VALIDATED, ChangingSource, day, feature_table, schema
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.catalog.sql_scan import scan_statement
from headrace.errors import HeadraceError
from headrace.storage.table_schema import table_schema
from headrace.validate.column_history import EarlierType, evolving
from headrace.validate.columns import utc_time
from headrace.validate.schema_changes import declare_type


@pytest.fixture
def rides(tmp_path: Path) -> ChangingSource:
    """One day of rides with a fare."""
    source = ChangingSource.at(tmp_path)
    source.declare(schema(fare=dy.Int64(min=0)))
    source.deliver(day(0), "id,fare\n1,10\n2,-1\n")
    source.run()
    return source


def test_a_new_column_leaves_old_partitions_as_they_are_and_readers_see_its_default(rides: ChangingSource) -> None:
    before = rides.md5s(), rides.md5s(REJECTED)
    rides.declare(schema(tip=evolving(dy.Int64(min=0), since=day(1), default=7), fare=dy.Int64(min=0)))
    rides.deliver(day(1), "id,tip,fare\n3,5,10\n")

    made = rides.run(feature_table({"tip": pl.Int64()}))

    assert list(made[VALIDATED].computed) == [day(0), day(1)]
    assert {day(0): rides.md5s()[day(0)]} == before[0]
    assert rides.md5s(REJECTED) == before[1]
    assert rides.rows() == [{"id": 1, "fare": 10, "tip": 7}, {"id": 3, "fare": 10, "tip": 5}]
    assert [(row["id"], row["tip"]) for row in rides.rows(FEATURES)] == [(1, 7), (1, 7), (3, 5)]


def test_a_change_of_the_contract_leaves_what_is_computed_from_equal_bytes(rides: ChangingSource) -> None:
    rides.run(feature_table({"fare": pl.Int64()}))
    rides.declare(schema(fare=dy.Int64(min=0), tip=evolving(dy.Int64(), since=day(1))))

    made = rides.run(feature_table({"fare": pl.Int64()}))

    assert list(made[VALIDATED].computed) == [day(0)]
    assert not made[FEATURES].computed


@pytest.mark.parametrize("column", [dy.List(dy.Int64()), dy.Struct({"a": dy.List(dy.Date()), "b": dy.Decimal(5, 2)})])
def test_a_nested_column_is_null_before_any_partition_has_it(rides: ChangingSource, column: dy.Column) -> None:
    rides.declare(schema(fare=dy.Int64(min=0), stops=evolving(column, since=day(1))))

    rides.run(feature_table({"stops": column.dtype}))

    schema_of_table = table_schema(rides.table_store.manifest(VALIDATED))
    assert rides.rows() == [{"id": 1, "fare": 10, "stops": None}]
    assert [(row["id"], row["stops"]) for row in rides.rows(FEATURES)] == [(1, None)]
    assert schema_of_table is not None
    assert schema_of_table.types["stops"] == column.dtype
    statement = scan_statement(rides.table_store.paths(VALIDATED), schema_of_table)
    assert duckdb.connect().execute(statement).fetchall() == [(1, 10, None)]


def test_a_column_that_is_gone_is_null_from_then_on(rides: ChangingSource) -> None:
    before = rides.md5s()
    rides.declare(schema(fare=evolving(dy.Int64(min=0), until=day(1))))
    rides.deliver(day(1), "id\n3\n")

    rides.run(feature_table({"fare": pl.Int64()}))

    assert rides.md5s().items() >= before.items()
    assert rides.rows() == [{"id": 1, "fare": 10}, {"id": 3, "fare": None}]


def test_a_renamed_column_keeps_its_field_id_and_old_files_their_name(rides: ChangingSource) -> None:
    before = rides.md5s()
    rides.declare(schema(price=evolving(dy.Int64(min=0), renamed_from="fare")))
    rides.deliver(day(1), "id,price\n3,5\n4,-2\n")

    rides.run(feature_table({"price": pl.Int64()}))

    schemas = rides.table_store.manifest(VALIDATED).schemas.values()
    assert rides.md5s().items() >= before.items()
    assert {field.name for one in schemas for field in one} == {"id", "fare", "price"}
    assert len({field.id for one in schemas for field in one}) == 2
    assert rides.rows() == [{"id": 1, "price": 10}, {"id": 3, "price": 5}]
    assert [(row["id"], row["price"]) for row in rides.rows(FEATURES)] == [(1, 10), (1, 10), (3, 5)]
    assert [(row["price"], row["_failed_checks"]) for row in rides.rows(REJECTED)] == [
        ("-1", ["price|min"]),
        ("-2", ["price|min"]),
    ]


def test_a_column_that_was_renamed_twice_is_one_column(rides: ChangingSource) -> None:
    rides.declare(schema(price=evolving(dy.Int64(min=0), renamed_from="fare")))
    rides.deliver(day(1), "id,price\n3,5\n")
    rides.run()
    before = rides.md5s()
    rides.declare(schema(total=evolving(dy.Int64(min=0), renamed_from=("fare", "price"))))
    rides.deliver(day(2), "id,total\n4,6\n")

    rides.run()

    assert rides.md5s().items() >= before.items()
    assert [row["total"] for row in rides.rows()] == [10, 5, 6]


def test_a_table_may_keep_the_name_of_a_column_that_files_call_otherwise(rides: ChangingSource) -> None:
    before = rides.md5s()
    rides.declare(schema(fare=evolving(dy.Int64(min=0), aliases=("price", "cost"))))
    rides.deliver(day(1), "id,price\n3,5\n", "cost,id\n6,4\n")

    rides.run()

    manifest = rides.table_store.manifest(VALIDATED)
    assert rides.md5s().items() >= before.items()
    assert len(manifest.schemas) == 1
    assert [row["fare"] for row in rides.rows()] == [10, 5, 6]


def test_a_wider_type_is_that_of_the_whole_table_and_old_files_keep_the_narrow_one(tmp_path: Path) -> None:
    rides = ChangingSource.at(tmp_path)
    rides.declare(schema(fare=dy.Int32(), share=dy.Float32()))
    rides.deliver(day(0), "id,fare,share\n1,10,0.5\n2,3000000000,0.5\n")
    rides.run()
    before = rides.md5s()
    fare = evolving(dy.Int64(), earlier_types=EarlierType(pl.Int32(), until=day(1)))
    share = evolving(dy.Float64(), earlier_types=EarlierType(pl.Float32(), until=day(1)))
    rides.declare(schema(fare=fare, share=share))
    rides.deliver(day(1), "id,fare,share\n3,3000000000,0.1\n")

    rides.run(feature_table({"fare": pl.Int64(), "share": pl.Float64()}))

    assert rides.md5s().items() >= before.items()
    assert rides.rows() == [{"id": 1, "fare": 10, "share": 0.5}, {"id": 3, "fare": 3_000_000_000, "share": 0.1}]
    assert [row["id"] for row in rides.rows(REJECTED)] == ["2"]


def test_an_earlier_form_of_a_value_is_read_by_the_declared_function(tmp_path: Path) -> None:
    rides = ChangingSource.at(tmp_path)
    rides.declare(schema(fare=dy.String()))
    rides.deliver(day(0), "id,fare\n1,10 EUR\n2,free\n")
    rides.run()
    euros = EarlierType(pl.String(), until=day(1), parse=lambda text: text.str.strip_suffix(" EUR"))
    rides.declare(schema(fare=evolving(dy.Int64(min=0), earlier_types=euros)))
    rides.deliver(day(1), "id,fare\n3,5\n4,6 EUR\n")

    rides.run()

    assert rides.rows() == [{"id": 1, "fare": 10}, {"id": 3, "fare": 5}]
    assert [(row["fare"], row["_failed_checks"]) for row in rides.rows(REJECTED)] == [
        ("free", ["fare|dtype"]),
        ("6 EUR", ["fare|dtype"]),
    ]


def test_a_late_file_for_an_earlier_partition_may_have_the_new_column(rides: ChangingSource) -> None:
    rides.declare(schema(fare=dy.Int64(), tip=evolving(dy.Int64(min=0), since=day(1), default=7)))
    rides.deliver(day(0), "id,fare\n1,10\n", "id,fare,tip\n2,20,3\n", "id,fare,tip\n3,20,-3\n")

    rides.run()

    assert rides.rows() == [{"id": 1, "fare": 10, "tip": 7}, {"id": 2, "fare": 20, "tip": 3}]
    assert rides.rows(REJECTED)[0]["_failed_checks"] == ["tip|min"]


def test_a_column_without_a_value_before_it_began_is_taken_as_absent(rides: ChangingSource) -> None:
    """A database that gets a column has it in all rows, null in the old ones."""
    before = rides.md5s()
    rides.declare(schema(fare=dy.Int64(min=0), tip=evolving(dy.Int64(), since=day(1), default=7)))
    rides.deliver(day(0), "id,fare,tip\n1,10,\n2,-1,\n")

    rides.run()

    assert rides.md5s() == before


def test_checks_say_nothing_about_rows_that_lack_a_column_that_they_read(rides: ChangingSource) -> None:
    class Rides(dy.Schema):
        id = dy.Int64()
        fare = dy.Int64(min=0)
        tip = evolving(dy.Int64(), since=day(1), default=100)

        @dy.rule()
        def tip_is_less_than_the_fare(cls) -> pl.Expr:
            return cls.tip.col < cls.fare.col

    rides.declare(Rides)
    rides.deliver(day(1), "id,fare,tip\n3,5,10\n4,5,1\n")

    rides.run()

    assert rides.rows() == [{"id": 1, "fare": 10, "tip": 100}, {"id": 4, "fare": 5, "tip": 1}]


def test_columns_that_transform_derives_from_a_new_one_are_left_out_before_it(rides: ChangingSource) -> None:
    before = rides.md5s()
    rides.declare(
        schema(fare=dy.Int64(min=0), tip=evolving(dy.Int64(), since=day(1), derived="cents")),
        lambda rows: rows.with_columns(cents=pl.col("tip") * 100),
    )
    rides.deliver(day(1), "id,fare,tip\n3,5,1\n")

    rides.run()

    assert rides.md5s().items() >= before.items()
    assert [row["cents"] for row in rides.rows()] == [None, 100]


@pytest.mark.parametrize(
    ("dtype", "default"),
    [
        (dy.Decimal(10, 2), Decimal("1.50")),
        (dy.Date(), pl.Series(["2013-01-09"]).str.to_date().item()),
        (dy.String(), "it's"),
        (dy.Bool(), True),
        (dy.Float64(), 0.1),
        (utc_time(), pl.Series(["2013-01-09T05:00:00Z"]).str.to_datetime(time_zone="UTC").item()),
        (dy.Enum(["a", "b"]), "b"),
        (dy.Int64(), None),
    ],
)
def test_a_default_of_any_type_is_read_alike_by_polars_and_duckdb(
    rides: ChangingSource, dtype: dy.Column, default: object
) -> None:
    rides.declare(schema(fare=dy.Int64(min=0), tip=evolving(dtype, since=day(1), default=default)))

    rides.run()

    assert rides.rows() == [{"id": 1, "fare": 10, "tip": default}]
    assert in_duckdb(rides) == rides.rows()


def in_duckdb(rides: ChangingSource) -> list[dict[str, Any]]:
    statement = scan_statement(rides.table_store.paths(VALIDATED), table_schema(rides.table_store.manifest(VALIDATED)))
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        rows: pl.DataFrame = connection.sql(statement).pl()
        return rows.to_dicts()


REFUSED = [
    ("id,fare,tip\n3,5,1\n", r'new tip.*`tip = evolving\(dy\.Int64\(\), since="2013-01-02"\)`'),
    ("id,fare,tip\n3,5,\n", r"`tip = evolving\(dy\.String\(nullable=True\), since="),
    ("id,fare,at\n3,5,2013-01-09T05:00:00Z\n", r"`at = evolving\(utc_time\(\), since="),
    ("id\n3\n", r'missing fare.*`fare = evolving\(dy\.Int64\(…\), until="2013-01-02"\)`'),
    ("id,price\n3,5\n", r'Renamed: new price, missing fare\?.*`fare = evolving\(dy\.Int64\(…\), aliases="price"\)`'),
    ("id,price\n3,5\n", r'`price = evolving\(dy\.Int64\(…\), renamed_from="fare"\)`'),
    ("id,note\n3,late\n", r"`fare = evolving\(dy\.Int64\(…\), until=.*`note = evolving\(dy\.String\(\), since="),
    (
        "id,fare\n3,5.5\n",
        r'`fare = evolving\(dy\.Float64\(…\), earlier_types=EarlierType\(pl\.Int64\(\), until="2013-01-02", par',
    ),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_a_change_that_nobody_declared_is_refused_with_what_to_declare(
    rides: ChangingSource, text: str, message: str
) -> None:
    rides.deliver(day(1), text)

    with pytest.raises(HeadraceError, match=re.compile(message, re.DOTALL)) as refused:
        rides.run()

    assert "rides 2013-01-02" in str(refused.value)
    assert [*rides.md5s()] == [day(0)]


def test_a_file_with_a_column_under_two_of_its_names_is_refused(rides: ChangingSource) -> None:
    rides.declare(schema(price=evolving(dy.Int64(min=0), renamed_from="fare")))
    rides.deliver(day(1), "id,price,fare\n3,5,5\n")

    with pytest.raises(HeadraceError, match="price and fare are declared as names of one column"):
        rides.run()


def test_a_column_must_be_there_from_its_first_partition_to_its_last(rides: ChangingSource) -> None:
    rides.declare(schema(fare=dy.Int64(min=0), tip=evolving(dy.Int64(), since=day(1), until=day(3))))
    for number, text in enumerate(["id,fare\n1,1\n", "id,fare\n2,2\n", "id,fare\n3,3\n", "id,fare\n4,4\n"]):
        rides.deliver(day(number), text)

    with pytest.raises(HeadraceError, match="missing tip") as refused:
        rides.run()

    assert [name for name in map(day, range(4)) if name in str(refused.value)] == [day(1), day(2)]
    # the declaration that is proposed keeps `since`
    assert 'tip = evolving(dy.Int64(…), …, until="2013-01-02")' in str(refused.value)


def test_a_default_cannot_change_once_the_table_was_read_with_it(rides: ChangingSource) -> None:
    rides.declare(schema(fare=dy.Int64(min=0), tip=evolving(dy.Int64(), since=day(1), default=7)))
    rides.run()
    rides.declare(schema(fare=dy.Int64(min=0), tip=evolving(dy.Int64(), since=day(1), default=8)))

    with pytest.raises(HeadraceError, match="the default of the column tip was 7, and is 8 now"):
        rides.run()


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        (pl.List(pl.Int64()), "dy.List(dy.Int64(), nullable=True)"),
        (
            pl.Struct({"a": pl.String(), "b": pl.Boolean()}),
            "dy.Struct({'a': dy.String(), 'b': dy.Bool()}, nullable=True)",
        ),
        (pl.Enum(["x", "y"]), "dy.Enum(['x', 'y'], nullable=True)"),
        (pl.Decimal(10, 2), "dy.Decimal(10, 2, nullable=True)"),
    ],
)
def test_the_declaration_of_a_column_of_any_type_can_be_pasted(dtype: pl.DataType, text: str) -> None:
    assert declare_type(dtype, "nullable=True") == text
    assert eval(text, {"dy": dy}).dtype == dtype  # noqa: S307  our own text


FAULTS = [
    (lambda: {"tip": evolving(dy.Int64(), since="March")}, "expected a partition such as '2013-03-01', found 'March'"),
    (lambda: {"tip": evolving(dy.Int64(), since=day(2), until=day(1))}, "no partition is from"),
    (lambda: {"tip": evolving(dy.Int64(), default=0)}, "say which with `since` or `until`"),
    (lambda: {"tip": evolving(dy.Int64(), since=day(1), default="x")}, "expected a default of the type Int64"),
    (
        lambda: {"tip": evolving(dy.List(dy.Int64()), since=day(1), default=[1])},
        "a column of the type List(Int64) can have no default",
    ),
    (lambda: {"tip": evolving(dy.Float64(), since=day(1), default=float("inf"))}, "expected a finite default"),
    (lambda: {"tip": evolving(dy.Int64(), aliases="fare"), "fare": dy.Int64()}, "'fare' is the name of another column"),
    (
        lambda: {"tip": evolving(dy.Int64(), earlier_types=EarlierType(pl.String(), until=day(1)))},
        "not every value of String is one of Int64: say with `parse`",
    ),
    (lambda: {"id": evolving(dy.Int64(), since=day(1))}, "the key names it"),
    (lambda: {"tip": evolving(dy.Int64(), since="2013-01")}, "expected a partition such as"),
]


@pytest.mark.parametrize(("columns", "message"), FAULTS)
def test_a_history_that_cannot_be_meant_is_refused_before_there_is_data(
    tmp_path: Path, columns: Callable[[], dict[str, dy.Column]], message: str
) -> None:
    source = ChangingSource.at(tmp_path)
    source.declare(type("Rides", (dy.Schema,), {"id": dy.Int64(), **columns()}))
    source.deliver(day(0), "id\n1\n")

    with pytest.raises(HeadraceError, match=re.escape(message)):
        source.run()


# Sequences of changes, against rows as dictionaries.

CHANGES = st.lists(st.sampled_from(["add", "drop", "rename", "alias", "widen"]), min_size=1, max_size=5)


@dataclass
class Column:
    """A column of the source, as an oracle knows it."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    is_wide: bool = False
    file_name: str = ""

    def declared(self) -> dy.Column:
        column = dy.Int64() if self.is_wide else dy.Int32()
        return evolving(column, **self.options) if self.options else column


@dataclass
class Oracle:
    """Rows as dictionaries: column → value by the object that stands for the column, whatever its name is."""

    columns: list[Column] = field(default_factory=lambda: [Column("c0")])
    rows: list[tuple[int, dict[int, int]]] = field(default_factory=list)
    names: Iterator[str] = field(default_factory=lambda: iter(f"c{number}" for number in range(1, 99)))

    def change(self, kind: str, number: int) -> None:
        alive = [column for column in self.columns if "until" not in column.options]
        last = alive[-1] if alive else None
        if kind == "add" or last is None:
            self.columns.append(Column(next(self.names), {"since": day(number), "default": number}))
        elif kind == "drop":
            last.options |= {"until": day(number)} | ({} if "default" in last.options else {"default": -number})
        elif kind == "rename":
            last.options["renamed_from"] = (*last.options.get("renamed_from", ()), last.name)
            last.name, last.file_name = next(self.names), ""
        elif kind == "alias":
            last.file_name = next(self.names)
            last.options["aliases"] = (*last.options.get("aliases", ()), last.file_name)
        elif not last.is_wide:
            last.is_wide = True
            last.options["earlier_types"] = EarlierType(pl.Int32(), until=day(number))

    def deliver(self, number: int) -> str:
        there = [column for column in self.columns if "until" not in column.options]
        values = {id(column): number * 10 + place for place, column in enumerate(there)}
        self.rows.append((number, values))
        names = ["id", *(column.file_name or column.name for column in there)]
        return f"{','.join(names)}\n{','.join(map(str, [number, *values.values()]))}\n"

    def expected(self) -> list[dict[str, Any]]:
        return [
            {"id": number}
            | {column.name: values.get(id(column), column.options.get("default")) for column in self.columns}
            for number, values in self.rows
        ]


@settings(max_examples=15)
@example(changes=["alias", "rename"])
@given(changes=CHANGES)
def test_after_any_changes_old_partitions_have_their_bytes_and_all_rows_the_columns_of_today(
    changes: list[str],
) -> None:
    with TemporaryDirectory() as folder:
        rides, oracle = ChangingSource.at(Path(folder)), Oracle()
        before: dict[str, str] = {}
        for number, kind in enumerate(["", *changes]):
            if kind:
                oracle.change(kind, number)
            rides.declare(schema(**{column.name: column.declared() for column in oracle.columns}))
            rides.deliver(day(number), oracle.deliver(number))
            rides.run()
            assert rides.md5s().items() >= before.items()
            before = rides.md5s()

        by_name = [dict(sorted(row.items())) for row in rides.rows()]
        assert by_name == [dict(sorted(row.items())) for row in oracle.expected()]
        assert [dict(sorted(row.items())) for row in in_duckdb(rides)] == by_name
