"""The records of a JSON document are its rows: found by their path, unnested, and refused where it is not whole."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dataframely as dy
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.dataset import ObjectSource, Source
from headrace.validate.json_reader import JsonDialect, read_json
from headrace.validate.result import ValidationResult
from headrace.validate.unreadable import UnreadableError
from headrace.validate.validate_partition import validate_frame

DOCUMENT = JsonDialect(layout="document", records="data.items")


class Orders(dy.Schema):
    id = dy.Int64()


def rows(folder: Path, content: bytes, dialect: JsonDialect = DOCUMENT) -> list[dict[str, str | None]]:
    """The text of each value, without the columns that only validation needs."""
    frame = read_json(write(folder, content), dialect)
    names = [name for name in frame.columns if not name.startswith("\x1f")]
    return frame.select(pl.col(name).struct.field("json_text").alias(name) for name in names).to_dicts()


def write(folder: Path, content: bytes) -> Path:
    path = folder / "all.json"
    path.write_bytes(content)
    return path


def validate(folder: Path, content: bytes, dialect: JsonDialect = DOCUMENT, **columns: dy.Column) -> ValidationResult:
    contract = type("Orders", (Orders,), columns)
    location = ObjectSource("orders/", ".*", ".json")
    source = Source("orders", location, lambda path: read_json(path, dialect), contract, lambda it: it, ("id",), 1.0)
    return validate_frame(read_json(write(folder, content), dialect), source, "all")


def reason_for(folder: Path, content: bytes, dialect: JsonDialect = DOCUMENT) -> str:
    with pytest.raises(UnreadableError) as refusal:
        read_json(write(folder, content), dialect)
    return refusal.value.reason


@pytest.mark.parametrize(
    ("content", "records"),
    [
        (b'{"data":{"items":[{"id":1},{"id":2}]}}', "data.items"),
        (b'\xef\xbb\xbf {"data" : {"items" :\n[{"id":1}\n,{"id":2}] } }\r\n', "data.items"),
        (
            b'{"meta":{"items":[{"id":9}],"n":-1e3},"data":{"x":"}]","items":[{"id":1},{"id":2}],"y":[[]]}}',
            "data.items",
        ),
        (rb'{"\"data":1,"d\u0061ta":{"items":[{"id":1},{"id":2}]}}', "data.items"),
        (b'{"a.b":[{"id":1},{"id":2}]}', ("a.b",)),
        (b'{"":[{"id":1},{"id":2}]}', ("",)),
        (b'[{"id":1},{"id":2}]', ""),
    ],
)
def test_the_records_are_found_by_their_path(tmp_path: Path, content: bytes, records: Any) -> None:  # noqa: ANN401
    assert rows(tmp_path, content, JsonDialect(layout="document", records=records)) == [{"id": "1"}, {"id": "2"}]


def test_a_document_may_be_one_record_over_several_lines(tmp_path: Path) -> None:
    content = b'{\n  "id": 12345678901234567890123,\n  "tags": ["a"]\n}\n'

    assert rows(tmp_path, content, JsonDialect(layout="document")) == [
        {"id": "12345678901234567890123", "tags": '["a"]'}
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"data":{"rows":[],"n":1}}', "the key 'items', but the object at 'data' has the keys 'rows', 'n'"),
        (b'{"rows":[]}', "the key 'data', but the document has the keys 'rows'"),
        (b'{"data":[]}', "the object at 'data' has the keys none"),
        (
            b'{"data":{"items":{"id":1}}}',
            "expected an array of objects at 'data.items', but it begins with '{\"id\":1}",
        ),
        (b'{"data":{"items":null}}', "but it begins with 'null}}'"),
        (b'{"data":{"items":[{"id":1}', "its document has no end: the file was cut"),
        (b'{"data":{"items":[{"id":1}]}', "around its records, the document is no JSON (syntax)"),
        (b'{"data":{"items":[{"id":1}]}} x', "around its records, the document is no JSON (syntax)"),
        (b'{"data":{"items":[]}}{"data":{"items":[]}}', "around its records, the document is no JSON (syntax)"),
        (b'{"data":{"items":[]},"data":{"items":[]}}', "the document is no JSON (duplicate key)"),
        (b'{"data":{"items":[]},"n":NaN}', "the document is no JSON (NaN or infinity)"),
        (b'{"data":{"items":[]},"n":01}', "the document is no JSON (syntax)"),
        (b'{"data":{"items":[]},"n":"\xff"}', "the document is no JSON (not UTF-8)"),
        (b'{"n":' + b"[" * 70 + b"]" * 70 + b',"data":{"items":[]}}', "the document is no JSON (nested too deeply)"),
        (b'{"data" {"items":[]}}', "around its records, the document is no JSON (syntax)"),
        (b'{"data":{"items":[{"id":1} {"id":2}]', "around its records, the document is no JSON (syntax)"),
        (b'{"data":{"items":[{"id":1},2x]}}', "item 2 of its array is no JSON: '2x'"),
        (b'{"data":{"items":[{"id":"1},\n{"id":"2"},\n{"id":3"}]}}', "item 1 of its array is no JSON"),
    ],
)
def test_a_document_that_is_not_whole_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    assert reason in reason_for(tmp_path, content)


@pytest.mark.parametrize(
    ("item", "check"),
    [
        (b'{"id":yes}', "json(syntax)"),
        (b'{"id":2,}', "json(syntax)"),
        (b'{"id":2,"id":3}', "json(duplicate key)"),
        (b'{"id":Infinity}', "json(NaN or infinity)"),
        (b"[1]", "json(no object)"),
        (b'{"id":' + b"[" * 70 + b"]" * 70 + b"}", "json(nested too deeply)"),
        (b'{"id":"\xff"}', "json(not UTF-8)"),
    ],
)
def test_a_broken_item_rejects_one_row_where_the_rest_is_whole(tmp_path: Path, item: bytes, check: str) -> None:
    result = validate(tmp_path, b'{"data":{"items":[{"id":1},' + item + b',{"id":3}]}}')

    assert result.accepted["id"].to_list() == [1, 3]
    text = item.decode(errors="backslashreplace")
    assert result.rejected.select("_row", "_row_text", "_failed_checks").rows() == [(2, text, [check])]


def test_objects_become_columns_and_the_items_of_one_array_become_rows(tmp_path: Path) -> None:
    content = b"""[
      {"id":1,"buyer":{"name":"Ann","address":{"city":"Bern"}},"lines":[{"sku":"a","n":1},{"sku":"b","n":2}]},
      {"id":2,"buyer":null,"lines":[]},
      {"id":3,"buyer":{"name":"Bo"},"lines":[null]}
    ]"""
    dialect = JsonDialect(layout="array", unnest=("buyer", "buyer.address", "lines"), explode="lines")

    assert rows(tmp_path, content, dialect) == [
        {"id": "1", "buyer.name": "Ann", "buyer.address.city": "Bern", "lines.sku": "a", "lines.n": "1"},
        {"id": "1", "buyer.name": "Ann", "buyer.address.city": "Bern", "lines.sku": "b", "lines.n": "2"},
        {"id": "2", "buyer.name": None, "buyer.address.city": None, "lines.sku": None, "lines.n": None},
        {"id": "3", "buyer.name": "Bo", "buyer.address.city": None, "lines.sku": None, "lines.n": None},
    ]


def test_an_array_below_an_object_and_items_that_are_no_objects_become_rows_too(tmp_path: Path) -> None:
    dialect = JsonDialect(unnest=("cart",), explode="cart.tags")

    assert rows(tmp_path, b'{"id":1,"cart":{"tags":["x",2]}}\n', dialect) == [
        {"id": "1", "cart.tags": "x"},
        {"id": "1", "cart.tags": "2"},
    ]


@pytest.mark.parametrize(
    ("line", "check"),
    [
        (b'{"id":2,"buyer":5}', "json(buyer is no object)"),
        (b'{"id":2,"buyer":{"name":1},"buyer.name":2}', "json(duplicate key)"),
        (b'{"id":2,"lines":{}}', "json(lines is no array)"),
        (b'{"id":2,"lines":"a"}', "json(lines is no array)"),
    ],
)
def test_a_record_of_another_shape_is_a_rejected_row(tmp_path: Path, line: bytes, check: str) -> None:
    dialect = JsonDialect(unnest=("buyer", "lines"), explode="lines")
    columns = {"buyer.name": dy.String(nullable=True), "lines.sku": dy.String(nullable=True)}

    result = validate(tmp_path, b'{"id":1}\n' + line + b"\n", dialect, **columns)

    assert result.accepted["id"].to_list() == [1]
    assert result.rejected.select("_row", "_row_text", "_failed_checks").rows() == [(2, line.decode(), [check])]


def test_one_item_of_another_shape_rejects_its_row_alone(tmp_path: Path) -> None:
    dialect = JsonDialect(unnest=("lines",), explode="lines")
    content = b'{"id":1,"lines":[{"sku":"a"},7,{"sku":"b"}]}\n'

    result = validate(tmp_path, content, dialect, **{"lines.sku": dy.String(nullable=True)})

    assert result.rows_in == 3
    assert {check for checks in result.rejected["_failed_checks"] for check in checks} == {
        "json(lines is no object)",
        "unique(id)",
    }


def test_rows_of_one_record_count_towards_the_bounds(tmp_path: Path) -> None:
    content = b'{"id":1,"n":[' + b"1," * 50_000 + b"1]}\n"

    assert "more than the 50,000 allowed" in reason_for(tmp_path, content, JsonDialect(explode="n", max_fields=50_000))


def test_what_is_around_the_records_counts_towards_the_bound_of_a_record(tmp_path: Path) -> None:
    content = b'{"note":"' + b"a" * 100 + b'","data":{"items":[]}}'

    assert "bytes around its records, more than the 99 allowed" in reason_for(
        tmp_path, content, JsonDialect(layout="document", records="data.items", max_record_bytes=99)
    )


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.fixed_dictionaries({"v": VALUES}), max_size=4), VALUES, st.booleans(), st.sampled_from([None, 2]))
def test_any_records_in_any_document_are_what_python_reads(
    records: list[dict[str, Any]],
    other: Any,  # noqa: ANN401
    ascii_only: bool,
    indent: int | None,
) -> None:
    document = {"before": other, "data": {"x": other, "items": records, "y": other}, "after": other}
    content = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode(errors="surrogatepass")

    with TemporaryDirectory() as folder:
        found = rows(Path(folder), content)

    expected = [record["v"] for record in records]
    texts = [row.get("v") for row in found]
    assert len(texts) == len(expected)
    for text, value in zip(texts, expected, strict=True):
        assert (text if isinstance(value, str) or value is None else json.loads(str(text))) == value
