"""Files of JSON are read to the last digit; a line that is no object rejects one row, and hostile files are refused."""

import gzip
import subprocess
import sys
from pathlib import Path

import dataframely as dy
import polars as pl
import pytest
from accepted_rows import accepted_raw

from headrace.dataset import ObjectSource, Source
from headrace.validate.errors import ColumnTypeChangedError, NaiveTimeError, SchemaChangedError
from headrace.validate.json_reader import JsonDialect, Layout, read_json
from headrace.validate.result import ValidationResult
from headrace.validate.unreadable import UnreadableError
from headrace.validate.validate_partition import validate_frame, validate_frames

WORKER_BYTES = 3 << 30
"""Address space of the process that reads hostile files."""


class Orders(dy.Schema):
    id = dy.Int64()
    amount = dy.Decimal(10, 2, nullable=True)
    note = dy.String(nullable=True)


SOURCE = Source(
    "orders",
    ObjectSource("orders/", r".*", ".jsonl"),
    lambda path: read_json(path, JsonDialect()),
    Orders,
    lambda rows: rows,
    ("id",),
    max_rejected_share=1.0,
)


def write(folder: Path, content: bytes, name: str = "all.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def read(folder: Path, content: bytes, layout: Layout = "lines") -> pl.DataFrame:
    return read_json(write(folder, content), JsonDialect(layout=layout))


def validate(folder: Path, content: bytes, layout: Layout = "lines") -> ValidationResult:
    return validate_frame(read(folder, content, layout), SOURCE, "all")


def reason_for(folder: Path, content: bytes, dialect: JsonDialect | None = None) -> str:
    with pytest.raises(UnreadableError) as refusal:
        read_json(write(folder, content), dialect or JsonDialect())
    return refusal.value.reason


TWO = [(1, None, "a"), (2, None, "b")]


@pytest.mark.parametrize(
    ("content", "layout"),
    [
        (b'{"id":1,"note":"a"}\n{"id":2,"note":"b"}\n', "lines"),
        (b'{"id":1,"note":"a"}\n{"id":2,"note":"b"}', "lines"),
        (b'\xef\xbb\xbf{"id":1,"note":"a"}\r\n{"id":2,"note":"b"}\r\n', "lines"),
        (b'\n{"id":1,"note":"a"}\n \n\n{"note":"b","id":2}\n\n', "lines"),
        (gzip.compress(b'{"id":1,"note":"a"}\n{"id":2,"note":"b"}\n', mtime=0), "lines"),
        (b'\xef\xbb\xbf [\n {"id" : 1 ,\n "note":"a"}\r\n,{"id":2,"note":"b"}]\n', "array"),
        (gzip.compress(b'[{"id":1,"note":"a"},{"id":2,"note":"b"}]', mtime=0), "array"),
    ],
)
def test_the_same_records_in_any_form_are_the_same_rows(tmp_path: Path, content: bytes, layout: Layout) -> None:
    assert validate(tmp_path, content, layout).accepted.rows() == TWO


def test_brackets_and_quotes_in_strings_end_no_record(tmp_path: Path) -> None:
    result = validate(tmp_path, rb'[{"id":1,"note":"]},{\""},{"id":2,"note":"\\\\"}]', "array")

    assert result.accepted["note"].to_list() == [']},{"', "\\\\"]


@pytest.mark.parametrize(
    ("line", "check"),
    [
        (b'{"id":2', "json(syntax)"),
        (b"2", "json(no object)"),
        (b"null", "json(no object)"),
        (b"{'id':2}", "json(syntax)"),
        (b'{"id":2}{"id":3}', "json(syntax)"),
        (b'{"id":2,}', "json(syntax)"),
        (b'{"id":2,"note":"\t"}', "json(syntax)"),
        (b'{"id":2,"i\\u0064":3}', "json(duplicate key)"),
        (b'{"id":2,"\\udc00":3}', "json(lone surrogate)"),
        (b'{"id":2,"note":["\\ud83d"]}', "json(lone surrogate)"),
        (b'{"id":2,"note":"\xe9"}', "json(not UTF-8)"),
        (b"[" * 100_000, "json(nested too deeply)"),
        (b'{"id":2,"note":' + b"[" * 65 + b"]" * 65 + b"}", "json(nested too deeply)"),
    ],
)
def test_a_line_that_is_no_object_rejects_one_row_with_its_number_and_text(
    tmp_path: Path, line: bytes, check: str
) -> None:
    result = validate(tmp_path, b'{"id":1}\n\n' + line + b'\n{"id":4}')

    assert result.accepted["id"].to_list() == [1, 4]
    text = line.decode(errors="backslashreplace")
    assert result.rejected.rows() == [(3, None, None, None, text, [check])]
    assert (result.rows_in, result.counts) == (3, {check: 1})


def test_rejected_rows_have_the_numbers_of_their_lines(tmp_path: Path) -> None:
    result = validate(tmp_path, b'\n{"id":1,"amount":1}\nx\n{"id":"a"}\n\n{"id":1}\n{"id":2,"amount":1.239}\n')

    checks = dict(result.rejected.select("_row", "_failed_checks").rows())
    assert checks == {3: ["json(syntax)"], 4: ["id|dtype"], 6: ["unique(id)"], 7: ["amount|dtype"]}
    assert result.rejected.filter(pl.col("_row") == 7)["amount"].to_list() == ["1.239"]
    assert accepted_raw(result)["_row"].to_list() == [2]


def test_partitions_validated_together_keep_their_unreadable_rows(tmp_path: Path) -> None:
    frames = {"a": read(tmp_path, b'{"id":1}\nx\n'), "b": read(tmp_path, b'{"amount":1.10,"id":2}\n')}

    results = validate_frames(frames, SOURCE)

    assert {name: result.accepted.height for name, result in results.items()} == {"a": 1, "b": 1}
    assert results["a"].rejected["_row_text"].to_list() == ["x"]
    assert results["b"].rejected.is_empty()


def test_an_item_of_an_array_that_is_no_object_rejects_one_row(tmp_path: Path) -> None:
    result = validate(tmp_path, b'[{"id":1},[2],{"id":3,"id":3},{"id":4}]', "array")

    assert result.accepted["id"].to_list() == [1, 4]
    assert result.rejected["_row"].to_list() == [2, 3]


def test_a_damaged_item_of_an_array_rejects_one_row_and_the_others_go_on(tmp_path: Path) -> None:
    result = validate(tmp_path, b'[{"id":1},\n{"id":yes},\n{"id":3,},\n{"id":4}]', "array")

    assert result.accepted["id"].to_list() == [1, 4]
    assert result.rejected.select("_row", "_row_text", "_failed_checks").rows() == [
        (2, '{"id":yes}', ["json(syntax)"]),
        (3, '{"id":3,}', ["json(syntax)"]),
    ]


def test_a_file_without_records_has_no_rows(tmp_path: Path) -> None:
    assert validate(tmp_path, b"\n").rows_in == 0
    assert validate(tmp_path, b" [ ]\n", "array").rows_in == 0


def test_a_key_may_be_empty(tmp_path: Path) -> None:
    assert read(tmp_path, b'{"column_4":1,"":2,"0":3}').columns[3:] == ["column_4", "", "0"]


def test_an_unknown_key_is_reported_as_a_new_column(tmp_path: Path) -> None:
    with pytest.raises(SchemaChangedError, match="new price"):
        validate(tmp_path, b'{"id":1}\n{"id":2,"price":3}\n')


def test_a_column_of_other_values_is_reported_with_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(ColumnTypeChangedError, match=r"found JSON: 'a', 'b'.* declare it as dy.String"):
        validate(tmp_path, b'{"id":"a"}\nx\n{"id":"b"}\n')


def test_times_without_a_zone_are_named_as_such(tmp_path: Path) -> None:
    contract = type("Times", (dy.Schema,), {"at": dy.Datetime(time_zone="UTC", time_unit="us")})
    source = Source("times", SOURCE.location, SOURCE.read, contract, SOURCE.transform, ("at",))

    with pytest.raises(NaiveTimeError):
        validate_frame(read(tmp_path, b'{"at":"2013-01-09T05:00:00"}'), source, "all")


def test_nested_lists_and_structs_are_parsed_to_their_leaves(tmp_path: Path) -> None:
    point = dy.Struct({"x": dy.Int64(nullable=True), "y": dy.Decimal(10, 2, nullable=True)}, nullable=True)
    contract = type("Paths", (dy.Schema,), {"id": dy.Int64(), "path": dy.List(dy.List(point, nullable=True))})
    source = Source("paths", SOURCE.location, SOURCE.read, contract, SOURCE.transform, ("id",), max_rejected_share=1.0)
    content = b'{"id":1,"path":[[{"x":9007199254740993,"y":1.10},null,{}],null,[]]}\n{"id":2,"path":[[{"y":1.001}]]}'

    result = validate_frame(read(tmp_path, content), source, "all")

    ((_, path),) = result.accepted.cast({"path": pl.List(pl.List(pl.Struct({"x": pl.Int64, "y": pl.String})))}).rows()
    assert path == [[{"x": 2**53 + 1, "y": "1.10"}, None, {"x": None, "y": None}], None, []]
    assert result.rejected.select("path", "_failed_checks").rows() == [('[[{"y":1.001}]]', ["path|dtype"])]


@pytest.mark.parametrize(
    ("content", "layout", "reason"),
    [
        (b"", "lines", "it is empty: 0 bytes, where an object was expected"),
        (b"\xef\xbb\xbf", "lines", "a byte order mark and nothing else"),
        (gzip.compress(b"", mtime=0), "lines", "gzip of 0 bytes"),
        (gzip.compress(b'{"id":1}', mtime=0)[:-9], "lines", "truncated or damaged gzip"),
        (b'{"id":1}', "array", "expected an array of objects, but it begins with"),
        (b'[{"id":1},{"id":', "array", "its array has no end: the file was cut"),
        (b'[{"id":1}],', "array", "more text follows its array"),
        (b'[{"id":1},]', "array", "item 2 of its array is no JSON"),
        (b'[{"id":1},{"id":2},7x]', "array", "item 3 of its array is no JSON: '7x'"),
        (b'[{"id":"a},\n{"id":"b"},\n{"id":c"}]', "array", "item 1 of its array is no JSON"),
        (b"[,]", "array", "item 1 of its array is no JSON"),
        (b'{"\\u001ffault":1}', "lines", "cannot be the name of a column"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(tmp_path: Path, content: bytes, layout: Layout, reason: str) -> None:
    assert reason in reason_for(tmp_path, content, JsonDialect(layout=layout))


@pytest.mark.parametrize(
    ("dialect", "reason"),
    [
        (JsonDialect(max_bytes=10), "more than the 10"),
        (JsonDialect(max_columns=1), "it has 2 columns, more than the 1 allowed"),
        (JsonDialect(max_fields=3), "it has 4 fields, more than the 3 allowed"),
        (JsonDialect(max_record_bytes=8), "line 2 has 9 bytes, more than the 8 allowed"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_beyond_a_bound_is_refused(tmp_path: Path, dialect: JsonDialect, reason: str, pack: type[bytes]) -> None:
    assert reason in reason_for(tmp_path, pack(b'{"a":1}\n{"bb":22}\n'), dialect)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"layout": "xml"}, "expected 'lines', 'array' or 'document' as `layout`"),
        ({"max_fields": 0}, "a number above 0"),
        ({"records": "data"}, "`records` is a place in a document, but the layout is 'lines'"),
        ({"unnest": "buyer"}, "expected a tuple of keys as `unnest`"),
    ],
)
def test_a_dialect_that_no_file_can_be_read_with_is_refused(arguments: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        JsonDialect(**arguments)  # type: ignore[arg-type]


READ = """
import resource, sys
from pathlib import Path
from headrace.validate.json_reader import JsonDialect, read_json
from headrace.validate.unreadable import UnreadableError

resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
for path in map(Path, sys.argv[2:]):
    try:
        print(read_json(path, JsonDialect(layout="array" if path.suffix == ".json" else "lines")).shape)
    except UnreadableError as error:
        print(error.reason)
"""


@pytest.mark.slow
def test_hostile_files_are_refused_within_the_memory_of_a_worker(tmp_path: Path) -> None:
    files = {
        "keys.jsonl": b"".join(b'{"k%d":1}\n' % number for number in range(20_000)),
        "line.jsonl": b"[" * (100 << 20),
        "array.json": b"[" * (1 << 20),
        "string.json": b'["' + b"a" * (100 << 20),
    }
    paths = [str(write(tmp_path, content, name)) for name, content in files.items()]

    command = [sys.executable, "-c", READ, str(WORKER_BYTES), *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == [
        "it has 20,000 columns, more than the 10,000 allowed",
        "line 1 has 104,857,600 bytes, more than the 16,777,216 allowed",
        "its array has no end: the file was cut",
        "its array has no end: the file was cut",
    ]
