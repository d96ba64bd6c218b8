"""A line that cannot become a row is one rejected row with its place, its text and why, and takes no other line along.

The oracles are a parser that reads one character after the other, and Python's `csv`.
"""

import csv
import io
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import dataframely as dy
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.dataset import ObjectSource, Source
from headrace.validate import csv_lines, csv_reader
from headrace.validate.csv_dialect import CsvDialect
from headrace.validate.csv_reader import read_csv
from headrace.validate.errors import SchemaChangedError
from headrace.validate.reserved_names import FAULT, RAW_LINE, RECORD
from headrace.validate.result import ValidationResult
from headrace.validate.unreadable import UnreadableError
from headrace.validate.validate_objects import validate_objects
from headrace.validate.validate_partition import read_raw, validate_frames, validate_partition

Record = tuple[int, list[str] | None, str, str]
"""Line, fields if it can be read, the check that it fails otherwise, and its text."""


class Sales(dy.Schema):
    id = dy.Int64()
    note = dy.String(nullable=True)


def read_default(path: Path) -> pl.DataFrame:
    return read_csv(path, CsvDialect())


SOURCE = Source(
    "sales",
    ObjectSource("sales/", ".*", ".csv"),
    read_default,
    Sales,
    lambda rows: rows,
    ("id",),
    max_rejected_share=1.0,
)


def write(folder: Path, content: bytes, name: str = "all.csv") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def validate(folder: Path, content: bytes, dialect: CsvDialect | None = None) -> ValidationResult:
    source = replace(SOURCE, read=lambda path: read_csv(path, dialect or CsvDialect()))
    return validate_partition(source, "all", {"all": write(folder, content)})


def reason_for(folder: Path, content: bytes, dialect: CsvDialect | None = None) -> str:
    with pytest.raises(UnreadableError) as refusal:
        read_csv(write(folder, content), dialect or CsvDialect())
    return refusal.value.reason


def bad_lines(folder: Path, content: bytes, dialect: CsvDialect | None = None) -> list[tuple[object, ...]]:
    """Line, text and check of what cannot be read."""
    rows = read_csv(write(folder, content), dialect or CsvDialect())
    return rows.filter(pl.col(FAULT).is_not_null()).select(RAW_LINE, RECORD, FAULT).rows() if FAULT in rows else []


@pytest.mark.parametrize(
    ("line", "check", "text"),
    [
        (b"2", "line|fields", "2"),
        (b"2,a,b", "line|fields", "2,a,b"),
        (b"", "line|fields", ""),
        (b'2,"a', "line|quotes", '2,"a'),
        (b'2,a"b', "line|quotes", '2,a"b'),
        (b'2,"a"b', "line|quotes", '2,"a"b'),
        (b'"2" ,a', "line|quotes", '"2" ,a'),
        (b"2,a\0b", "line|nul", r"2,a\x00b"),
        (b"2,caf\xe9", "line|encoding", r"2,caf\xe9"),
        (b'2,"caf\xe9\nb"', "line|encoding", '2,"caf\\xe9\nb"'),
    ],
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_line_that_is_no_row_is_one_rejected_row_with_its_line_text_and_reason(
    tmp_path: Path, line: bytes, check: str, text: str, end: bytes
) -> None:
    result = validate(tmp_path, end.join([b"id,note", b"1,a", line, b'4,"b"', b"5,c", b""]))

    assert result.accepted.rows() == [(1, "a"), (4, "b"), (5, "c")]
    assert result.rejected.rows() == [(2, None, None, 3, text, [check])]
    assert result.rejected.columns == ["_row", "id", "note", "_line", "_row_text", "_failed_checks"]
    assert (result.rows_in, result.counts) == (4, {check: 1})


@pytest.mark.parametrize(("cut", "check"), [(b"2", "line|fields"), (b'2,"b', "line|quotes")])
def test_a_last_line_that_was_cut_is_a_rejected_row(tmp_path: Path, cut: bytes, check: str) -> None:
    result = validate(tmp_path, b"id,note\n1,a\n" + cut)

    assert result.accepted.rows() == [(1, "a")]
    assert result.rejected.select("_line", "_row_text", "_failed_checks").rows() == [(3, cut.decode(), [check])]


def test_a_quote_that_never_closes_swallows_no_line(tmp_path: Path) -> None:
    content = b'id,note\n1,"a\n2,b\n3,"c"\n4,"d\n5,e\n'

    assert bad_lines(tmp_path, content) == [(2, '1,"a', "line|quotes"), (5, '4,"d', "line|quotes")]
    assert validate(tmp_path, content).accepted.rows() == [(2, "b"), (3, "c"), (5, "e")]


def test_rows_after_records_of_several_lines_have_their_own_lines(tmp_path: Path) -> None:
    content = b'id,note\n1,"a\n\nb"\nx,c\n2\n3,"d ""e"",\r\nf"\n3,g\n'

    result = validate(tmp_path, content)

    assert result.accepted.rows() == [(1, "a\n\nb"), (3, 'd "e",\r\nf')]
    assert result.rejected.select("_row", "_line", "_failed_checks").rows() == [
        (2, 5, ["id|dtype"]),
        (3, 6, ["line|fields"]),
        (5, 9, ["unique(id)"]),
    ]


def test_two_broken_quotes_swallow_no_line_where_fields_have_no_line_ends(tmp_path: Path) -> None:
    content = b'id,note\n1,"a\n2,b\n3,c"\n'

    assert validate(tmp_path, content).accepted.rows() == [(1, "a\n2,b\n3,c")]
    apart = validate(tmp_path, content, CsvDialect(multiline=False))
    assert apart.accepted.rows() == [(2, "b")]
    assert apart.counts == {"line|quotes": 2}


def test_a_repeated_header_is_rejected_by_its_types_or_by_the_dialect(tmp_path: Path) -> None:
    content = b"id,note\n1,a\nid,note\n2,b\n"

    assert validate(tmp_path, content).counts == {"id|dtype": 1}
    declared = validate(tmp_path, content, CsvDialect(reject_repeated_header=True))
    assert declared.accepted["id"].to_list() == [1, 2]
    assert declared.rejected.select("_line", "_row_text", "_failed_checks").rows() == [(3, "id,note", ["line|header"])]


def test_an_object_without_a_bad_line_has_no_columns_for_them(tmp_path: Path) -> None:
    assert validate(tmp_path, b'id,note\n1,"a\nb"\nx,c').rejected.columns == ["_row", "id", "note", "_failed_checks"]


@pytest.mark.parametrize(
    "content",
    [
        b'id,note\r\n1,"two\r\nlines"\r\n2,"a ""b"""',
        b'\xef\xbb\xbfid,note\n1,"two\r\nlines"\n2,"a ""b"""\n',
        b'"id","note"\n"1","two\r\nlines"\n"2","a ""b"""\r\n',
    ],
)
def test_what_rfc_4180_allows_is_accepted(tmp_path: Path, content: bytes) -> None:
    assert read_default(write(tmp_path, content)).rows() == [("1", "two\r\nlines"), ("2", 'a "b"')]


def test_a_name_in_the_header_may_hold_a_line_end_and_lines_count_from_it(tmp_path: Path) -> None:
    content = b'"the\nid",note\n1,a\n2\n'

    assert read_default(write(tmp_path, content)).columns[:2] == ["the\nid", "note"]
    assert bad_lines(tmp_path, content) == [(4, "2", "line|fields")]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xfei\0d\0\n\0", "expected utf-8, but line 1 holds the bytes ff"),
        (b"i\0d\0,\0n\0\n\0", "it holds NUL characters"),
        (b'id,"note\n1,a\n', "line 1, its header, has a quote"),
        (b'id,no"ta\n1,a\n', "line 1, its header, has a quote"),
        (b"id,id\n1\n", "the header names 'id' more than once"),
    ],
)
def test_an_object_of_another_format_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    assert reason in reason_for(tmp_path, content)


def test_an_object_with_another_header_is_refused_whatever_its_lines_are(tmp_path: Path) -> None:
    with pytest.raises(SchemaChangedError, match="missing note; new remark"):
        validate(tmp_path, b"id,remark\n1\n2,a\n")


def test_more_bad_lines_than_are_kept_are_another_format(tmp_path: Path) -> None:
    with patch.object(csv_lines, "MOST_BAD_RECORDS", 2):
        assert len(bad_lines(tmp_path, b"id,note\n1\n2\n3,c\n")) == 2
        assert "more of its lines than are kept" in reason_for(tmp_path, b"id,note\n1\n2\n3\n")
    with patch.object(csv_lines, "MOST_BAD_BYTES", 5):
        assert "more of its lines than are kept" in reason_for(tmp_path, b"id,note\n123456\n")


def test_a_read_that_drops_what_says_which_lines_are_bad_is_refused(tmp_path: Path) -> None:
    source = replace(SOURCE, read=lambda path: read_default(path).select("id", "note"))

    assert read_raw(source, "all", write(tmp_path, b"id,note\n1,a\n")).height == 1
    with pytest.raises(UnreadableError, match=r"sales all: line 3 cannot be read \(line\|fields: '2'\).* `read` drops"):
        read_raw(source, "all", write(tmp_path, b"id,note\n1,a\n2\n"))


def test_partitions_validated_together_keep_their_bad_lines(tmp_path: Path) -> None:
    contents = {"a": b"id,note\n1,a\n2\n", "b": b"id,note\n3,c\n", "c": b'id,note\n"4,d\n5,e\n'}
    frames = {name: read_default(write(tmp_path, content)) for name, content in contents.items()}

    results = validate_frames(frames, SOURCE)

    assert {name: result.accepted["id"].to_list() for name, result in results.items()} == {"a": [1], "b": [3], "c": [5]}
    assert [result.rejected["_line"].to_list() for name, result in results.items() if name != "b"] == [[3], [2]]


def test_bad_lines_of_several_objects_name_their_object(tmp_path: Path) -> None:
    objects = {"a": b"id,note\n1,a\n", "b": b'id,note\n2,"b\n3,c\n1,d\n', "c": b"id,note\n4,d\nx,e\n"}
    files = {key: write(tmp_path, content, f"{key}.csv") for key, content in objects.items()}

    result = validate_objects(SOURCE, "all", files)

    assert result.accepted["id"].to_list() == [1, 3, 4]
    assert result.rejected.drop("id", "note").rows() == [
        ("b", 1, 2, '2,"b', ["line|quotes"]),
        ("b", 3, 4, None, ["unique(id)"]),
        ("c", 2, None, None, ["id|dtype"]),
    ]
    assert result.origins(result.accepted["id"] == 3) == [("b", 2)]


def records_of(text: str, columns: int) -> Iterator[Record]:
    """The records after the header, by reading one character after the other."""
    lines = text.removesuffix("\n").split("\n")
    place = 1
    while place < len(lines):
        fields, length = first_record("\n".join(lines[place:]) + "\n")
        if fields is not None and len(fields) == columns:
            yield place + 1, fields, "", "\n".join(lines[place : place + length])
            place += length
        else:
            check = "line|quotes" if fields is None or length > 1 else "line|fields"
            yield place + 1, None, check, lines[place]
            place += 1


def first_record(text: str) -> tuple[list[str] | None, int]:
    """The fields of the first record and its number of lines; None if it is not well-formed."""
    fields: list[str] = []
    field, state = "", "begin"
    for place, character in enumerate(text):
        if state == "quoted":
            if character == '"':
                state = "quote"
            else:
                field += character
        elif character == "\n":
            return [*fields, end_of_field(field, state)], text.count("\n", 0, place) + 1
        elif character == ",":
            fields, field, state = [*fields, end_of_field(field, state)], "", "begin"
        elif character == '"' and state in ("begin", "quote"):
            field += '"' if state == "quote" else ""
            state = "quoted"
        elif character == '"' or (state == "quote" and text[place : place + 2] != "\r\n"):
            return None, 1
        elif state != "quote":
            field, state = field + character, "plain"
    return None, 1


def end_of_field(field: str, state: str) -> str:
    """Polars takes a carriage return at the end of a field without quotes for part of a line end."""
    return field if state == "quote" else field.removesuffix("\r")


FILES = st.lists(st.text('a,,""\n\r', max_size=8), max_size=6).map("\n".join)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=FILES, columns=st.integers(1, 3), block=st.sampled_from([1, 5, 1 << 20]), is_quick=st.booleans())
def test_records_are_those_that_a_parser_of_single_characters_finds(
    tmp_path: Path, text: str, columns: int, block: int, is_quick: bool
) -> None:
    content = ",".join("xyz"[:columns]) + "\n" + text
    expected = list(records_of(content if content.endswith("\n") else content + "\n", columns))

    look = nullcontext() if is_quick else patch.object(csv_reader, "_is_even", return_value=False)
    with patch.object(csv_lines, "BLOCK", block), look:
        rows = read_csv(write(tmp_path, content.encode()), CsvDialect(nulls=("",)))

    values = [[value or "" for value in row] for row in rows.select(list("xyz"[:columns])).iter_rows()]
    is_good = rows[FAULT].is_null() if FAULT in rows else pl.repeat(value=True, n=rows.height, eager=True)
    assert [row for row, good in zip(values, is_good, strict=True) if good] == [
        one[1] for one in expected if one[1] is not None
    ]
    assert bad_lines(tmp_path, content.encode()) == [
        (line, text.removesuffix("\r"), check) for line, fields, check, text in expected if fields is None
    ]
    if FAULT in rows:
        assert rows[RAW_LINE].to_list() == [one[0] for one in expected]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.text('ab ,"\n\r;', min_size=1, max_size=6), min_size=2, max_size=2), max_size=6), st.booleans()
)
def test_what_python_writes_as_csv_is_read_back(tmp_path: Path, rows: list[list[str]], are_all_quoted: bool) -> None:
    into = io.StringIO(newline="")
    writer = csv.writer(into, quoting=csv.QUOTE_ALL if are_all_quoted else csv.QUOTE_MINIMAL)
    writer.writerows([["x", "y"], *rows])

    found = read_csv(write(tmp_path, into.getvalue().encode()), CsvDialect(nulls=("",)))

    assert [list(row) for row in found.iter_rows()] == rows
    assert rows == list(csv.reader(io.StringIO(into.getvalue(), newline=""), strict=True))[1:]


MYSQL = CsvDialect("\t", quote=None, escape="\\")


@pytest.mark.parametrize(
    ("dialect", "content", "rows"),
    [
        (CsvDialect(";", quote="'"), b"id;note\n1;'it''s; \"a\"'\n", [("1", 'it\'s; "a"')]),
        (CsvDialect(quote=None), b'id,note\n1,5" pipe\n2,"a\n', [("1", '5" pipe'), ("2", '"a')]),
        (
            CsvDialect(escape="\\"),
            b'id,note\n1,"a\\"b\\\\"\n2,a\\,b\n3,"x""y"\n',
            [("1", 'a"b\\'), ("2", "a,b"), ("3", 'x"y')],
        ),
        (MYSQL, b'id\tnote\n1\ta\\\tb"\r\n2\t\\\\\n', [("1", 'a\tb"'), ("2", "\\")]),
        (CsvDialect(names=("id", "note")), b"1,a\n2,b", [("1", "a"), ("2", "b")]),
        (CsvDialect(skip_lines=2), b'Report, "of\n\xff\nid,note\n1,a\n', [("1", "a")]),
        (CsvDialect(skip_lines=1, names=("id", "note")), b'x\n1,"a\nb"\n', [("1", "a\nb")]),
        (CsvDialect(comment="#"), b'# "\nid,note\n#\n1,"a\n# b"\n#2,c\n', [("1", "a\n# b")]),
        (CsvDialect(skip_blank_lines=True), b"\nid,note\n\n1,a\n\r\n2,b\n\n", [("1", "a"), ("2", "b")]),
        (CsvDialect(nulls=("-", "n/a")), b"id,note\n-,n/a\n", [(None, None)]),
        (CsvDialect(encoding="utf-16"), 'id,note\n1,"é\n"\n'.encode("utf-16"), [("1", "é\n")]),
        (CsvDialect(encoding="utf-16-le"), "id,note\n1,é\n".encode("utf-16-le"), [("1", "é")]),
        (CsvDialect(encoding="latin-1"), "id,note\n1,é\n".encode("latin-1"), [("1", "é")]),
        (CsvDialect(encoding="cp1252"), "id,note\n1,€\n".encode("cp1252"), [("1", "€")]),
        (CsvDialect(encoding="shift_jis"), "id,note\n1,表\n".encode("shift_jis"), [("1", "表")]),
    ],
)
def test_a_declared_dialect_reads_what_it_says(
    tmp_path: Path, dialect: CsvDialect, content: bytes, rows: list[tuple[str | None, ...]]
) -> None:
    assert read_csv(write(tmp_path, content), dialect).rows() == rows


@pytest.mark.parametrize(
    ("dialect", "content", "bad"),
    [
        (CsvDialect(quote="'"), b"id,note\n1,'a\n2,b\n", (2, "1,'a", "line|quotes")),
        (CsvDialect(escape="\\"), b'id,note\n1,"a\\"\n2,b\n', (2, '1,"a\\"', "line|quotes")),
        (CsvDialect(escape="\\"), b"id,note\n1,a\\\n2,b\n", (2, "1,a\\", "line|quotes")),
        (MYSQL, b"id\tnote\n1\\\ta\n2\tb\n", (2, "1\\\ta", "line|fields")),
        (CsvDialect(names=("id", "note")), b"1\n2,b\n", (1, "1", "line|fields")),
        (CsvDialect(skip_lines=2), b"x\ny\nid,note\n1\n2,b\n", (4, "1", "line|fields")),
        (CsvDialect(comment="#"), b"#\nid,note\n#\n1,a,#\n2,b\n", (4, "1,a,#", "line|fields")),
        (CsvDialect(skip_blank_lines=True), b"id,note\n\n1\n\n2,b\n", (3, "1", "line|fields")),
        (CsvDialect(encoding="cp1252"), b"id,note\n1,\x81\n2,b\n", (2, r"1,\x81", "line|encoding")),
        (
            CsvDialect(encoding="utf-16-le"),
            "id,note\n1,a".encode("utf-16-le") + b"\0\xd8\n\0",
            (2, r"1,a\x00\xd8", "line|encoding"),
        ),
        (CsvDialect(encoding="utf-16-le"), "id,note\n2,a\n".encode("utf-16-le") + b"1", (3, r"\x31", "line|encoding")),
    ],
)
def test_a_bad_line_of_a_declared_dialect_has_its_line_and_text(
    tmp_path: Path, dialect: CsvDialect, content: bytes, bad: tuple[int, str, str]
) -> None:
    assert bad_lines(tmp_path, content, dialect) == [bad]


@pytest.mark.parametrize(
    ("dialect", "content", "reason"),
    [
        (
            CsvDialect(names=("id", "note")),
            b"1;a\n2;b\n",
            "none of its 2 lines is a record of 2 fields; line 1 fails line",
        ),
        (CsvDialect(skip_lines=2), b"id,note\n1,a\n", "it has no line after the 2 that are skipped"),
        (CsvDialect(comment="#"), b"# a\n# b\n", "nothing but comments and empty lines"),
        (CsvDialect(encoding="utf-16"), b"\xff\xfe\0\xd8,\0\n\0", "expected utf-16, but line 1 holds the bytes 00"),
    ],
)
def test_an_object_of_another_dialect_is_refused(
    tmp_path: Path, dialect: CsvDialect, content: bytes, reason: str
) -> None:
    assert reason in reason_for(tmp_path, content, dialect)


FIELDS = st.text('ab,"\\\n#', min_size=1, max_size=5)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(FIELDS, min_size=2, max_size=2), max_size=5), st.sampled_from(['"', "'", None]))
def test_what_python_writes_with_escapes_is_read_back(tmp_path: Path, rows: list[list[str]], quote: str | None) -> None:
    if quote is None:
        rows = [[value.replace("\n", "") or "a" for value in row] for row in rows]
    into = io.StringIO(newline="")
    how = csv.QUOTE_NONE if quote is None else csv.QUOTE_ALL
    form = {"quotechar": quote, "quoting": how, "escapechar": "\\", "doublequote": False, "lineterminator": "\n"}
    csv.writer(into, **form).writerows([["x", "y"], *rows])  # type: ignore[arg-type]

    found = read_csv(write(tmp_path, into.getvalue().encode()), CsvDialect(nulls=("",), quote=quote, escape="\\"))

    assert [list(row) for row in found.iter_rows()] == rows
