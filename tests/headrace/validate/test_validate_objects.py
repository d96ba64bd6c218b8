"""A partition of several objects is validated as one object with the rows of all of them, in the order of the keys.

Rows in = rows accepted + rows rejected; a rejected row names its object and its line in it. How the objects are taken
together decides nothing.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import dataframely as dy
import polars as pl
import pytest
from accepted_rows import accepted_raw
from hypothesis import given
from hypothesis import strategies as st

from headrace.dataset import ObjectSource, Source
from headrace.errors import HeadraceError
from headrace.validate import validate_objects as module
from headrace.validate.errors import ColumnTypeChangedError, SchemaChangedError
from headrace.validate.json_reader import JsonDialect, read_json
from headrace.validate.stage import compute
from headrace.validate.unreadable import UnreadableError
from headrace.validate.validate_objects import validate_entries, validate_objects
from headrace.validate.validate_partition import validate_frame

DAY, EARLIER = "2013-01-09", "2013-01-08"


class Sales(dy.Schema):
    id = dy.Int64()
    amount = dy.Int64(min=0, max=99, nullable=True)


class Rising(Sales):
    @dy.rule()
    def rises(cls) -> pl.Expr:
        return cls.id.col >= cls.id.col.shift(1, fill_value=0)


def read(path: Path) -> pl.DataFrame:
    return pl.read_csv(path.read_bytes(), infer_schema=False, null_values="")


def read_lines(path: Path) -> pl.DataFrame:
    return read_json(path, JsonDialect())


def number_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """A `transform` that looks at all rows of the partition."""
    return rows.with_row_index("place")


SOURCE = Source("sales", ObjectSource("sales/", ".*", ".csv"), read, Sales, number_rows, ("id",))
LINES = replace(SOURCE, read=read_lines, location=ObjectSource("sales/", ".*", ".jsonl"))

Row = tuple[str | None, ...]


def write(folder: Path, *objects: Sequence[Row], columns: str = "id,amount") -> dict[str, Path]:
    """Key → file: `a` has the first rows, `b` the next."""
    files = {}
    for key, rows in zip("abcdefghij", objects, strict=False):
        files[key] = folder / f"{key}.csv"
        files[key].write_text(
            "".join(",".join(value or "" for value in row) + "\n" for row in [columns.split(","), *rows])
        )
    return files


def as_one(objects: Sequence[Sequence[Row]]) -> pl.DataFrame:
    return pl.DataFrame(
        [row for rows in objects for row in rows], dict.fromkeys(("id", "amount"), pl.String), orient="row"
    )


VALUES = st.sampled_from(["1", "2", "3", "7", "50", "-1", "100", "x", None])
OBJECTS = st.lists(st.lists(st.tuples(VALUES, VALUES), max_size=6), min_size=2, max_size=5)


@given(objects=OBJECTS, batch_bytes=st.sampled_from([0, 100, 1 << 20]))
@pytest.mark.parametrize("contract", [Sales, Rising])
def test_objects_give_what_one_object_with_their_rows_gives(
    contract: type[dy.Schema], objects: list[list[Row]], batch_bytes: int
) -> None:
    declared = replace(SOURCE, contract=contract)

    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BATCH_BYTES", batch_bytes)
        try:
            one = validate_frame(as_one(objects), declared, DAY)
        except HeadraceError as error:
            with pytest.raises(type(error)):
                validate_objects(declared, DAY, write(Path(folder), *objects))
            return
        many = validate_objects(declared, DAY, write(Path(folder), *objects))
        places = [
            (key, place) for key, rows in zip("abcdefghij", objects, strict=False) for place, _ in enumerate(rows, 1)
        ]

        assert many.accepted.equals(one.accepted)
        assert many.key_span == one.key_span
        assert (many.rows_in, many.counts) == (one.rows_in, one.counts)
        assert many.rejected.drop("_object", "_row").equals(one.rejected.drop("_row"))
        assert many.rejected.select("_object", "_row").rows() == [places[row - 1] for row in one.rejected["_row"]]
        assert accepted_raw(many).drop("_object", "_row").equals(accepted_raw(one).drop("_row"))
        assert accepted_raw(many).select("_object", "_row").rows() == [
            places[row - 1] for row in accepted_raw(one)["_row"]
        ]


def test_a_rejected_row_names_its_object_and_its_line_there(tmp_path: Path) -> None:
    files = write(tmp_path, [("1", "5")], [("2", "5"), ("3", "-1")])

    result = validate_objects(SOURCE, DAY, files)

    assert result.rejected.rows(named=True) == [
        {"_object": "b", "_row": 2, "id": "3", "amount": "-1", "_failed_checks": ["amount|min"]}
    ]
    assert result.counts == {"amount|min": 1}


def test_the_first_object_by_key_keeps_a_key_that_several_have(tmp_path: Path) -> None:
    files = write(tmp_path, [("1", "5"), ("2", "6")], [("2", "7"), ("3", "8")], [("3", "9")])

    result = validate_objects(SOURCE, DAY, dict(reversed(files.items())))

    assert result.accepted.select("id", "amount").rows() == [(1, 5), (2, 6), (3, 8)]
    assert result.rejected.select("_object", "_row", "amount").rows() == [("b", 1, "7"), ("c", 1, "9")]
    assert result.counts == {"unique(id)": 2}


def test_a_key_of_an_earlier_partition_is_rejected_whatever_the_objects_of_either(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    own = write(tmp_path, [("1", "5")], [("2", "6"), ("4", "6")])
    before = write(tmp_path / "x", [("4", "1")], [("9", "1")])
    files = {f"{DAY}+{key}": path for key, path in own.items()} | {
        f"{EARLIER}+{key}": path for key, path in before.items()
    }

    result = validate_entries(SOURCE, DAY, files, {entry: entry[-1] for entry in files})
    alone = validate_entries(
        SOURCE, DAY, {DAY: own["b"]} | {entry: files[entry] for entry in (f"{EARLIER}+a", f"{EARLIER}+b")}, {}
    )

    assert result.rejected.select("_object", "_row", "id").rows() == [("b", 2, "4")]
    assert alone.rejected.select("_row", "id").rows() == [(2, "4")]


def test_a_partition_of_one_object_has_no_column_for_it(tmp_path: Path) -> None:
    files = write(tmp_path, [("1", "-5")])

    result = validate_entries(SOURCE, DAY, {DAY: files["a"]}, {})

    assert result.rejected.columns == ["_row", "id", "amount", "_failed_checks"]


def test_the_tolerance_is_that_of_the_partition(tmp_path: Path) -> None:
    good = [(str(number), "1") for number in range(99)]
    files = write(tmp_path, good, [("x", "y")])
    entries = {f"{DAY}+{key}": path for key, path in files.items()}

    tolerated = compute(replace(SOURCE, max_rejected_share=0.01), "shop", DAY, {"raw": entries}, {})
    refused = compute(replace(SOURCE, max_rejected_share=0.009), "shop", DAY, {"raw": entries}, {})

    assert (tolerated.metadata["rows_in"], tolerated.metadata["rejected"]) == (100, 1)
    assert tolerated.rejection_error is None
    assert refused.rejection_error
    assert "1.0% of 100 rows rejected" in str(refused.rejection_error("here"))


def test_a_column_of_which_no_object_has_a_value_of_its_type_is_refused(tmp_path: Path) -> None:
    files = write(tmp_path, [("1", "x")], [("2", None)], [("3", "y")])

    with pytest.raises(ColumnTypeChangedError, match=r"^sales 2013-01-09 \(a … c\): the column amount was retyped"):
        validate_objects(SOURCE, DAY, files)


@pytest.mark.parametrize("columns", ["id", "id,amount,colour", "id,amounts"])
def test_an_object_with_other_columns_is_named(tmp_path: Path, columns: str) -> None:
    files = write(tmp_path, [("1", "2")])
    (tmp_path / "b.csv").write_text(f"{columns}\n{','.join('1' for _ in columns.split(','))}\n")

    with pytest.raises(SchemaChangedError, match=r"^sales 2013-01-09 \(sales/b\.csv\): the columns changed"):
        validate_objects(SOURCE, DAY, {"sales/a.csv": files["a"], "sales/b.csv": tmp_path / "b.csv"})


def test_an_object_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    def read_text(path: Path) -> pl.DataFrame:
        if path.name == "b.csv":
            raise UnreadableError("no", "it is cut")
        return read(path)

    files = write(tmp_path, [("1", "2")], [("3", "4")])

    with pytest.raises(UnreadableError, match=re.escape("sales 2013-01-09 (b): it is cut")):
        validate_objects(replace(SOURCE, read=read_text), DAY, files)


def test_objects_without_rows_are_no_hindrance(tmp_path: Path) -> None:
    result = validate_objects(SOURCE, DAY, write(tmp_path, [], [("1", "2")], []))

    assert result.accepted.height == result.rows_in == 1
    assert validate_objects(SOURCE, DAY, write(tmp_path, [], [])).rows_in == 0


def test_lines_of_json_that_cannot_be_read_name_their_object(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n{"id": 2}\n')
    (tmp_path / "b.jsonl").write_text('{"id": 3, "amount": 4}\n\n[1]\n{"id": 3}\n')

    result = validate_objects(LINES, DAY, {key: tmp_path / f"{key}.jsonl" for key in "ab"})

    assert result.accepted.select("id", "amount").rows() == [(1, None), (2, None), (3, 4)]
    rejected = result.rejected.select("_object", "_row", "_row_text", "_failed_checks").rows()
    assert rejected == [("b", 3, "[1]", ["json(no object)"]), ("b", 4, None, ["unique(id)"])]
