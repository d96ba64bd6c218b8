"""bytes → rows of text: a file is read exactly as declared, with its bad lines as such, or refused."""

import gzip
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minimal_dataset import SALES

from headrace.dataset import ObjectSource
from headrace.validate import csv_reader
from headrace.validate.csv_dialect import CsvDialect
from headrace.validate.csv_reader import read_csv
from headrace.validate.parquet_reader import read_parquet
from headrace.validate.unreadable import UnreadableError
from headrace.validate.validate_partition import read_raw

DAY = b"carrier,flight,note\nUA,0017,\nDL,NA,caf\xc3\xa9\n"


def write_file(folder: Path, content: bytes, name: str = "2013-01-09.csv") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def outcome_for(path: Path) -> str:
    """The rows, or why there are none."""
    try:
        return str(read_csv(path, CsvDialect()).rows())
    except (UnreadableError, pl.exceptions.PolarsError) as error:
        return str(error)


def message_for(path: Path, dialect: CsvDialect | None = None) -> str:
    with pytest.raises(UnreadableError) as refusal:
        read_csv(path, dialect or CsvDialect())
    return str(refusal.value)


def test_every_column_is_text_as_it_came_and_only_declared_words_are_null(tmp_path: Path) -> None:
    rows = read_csv(write_file(tmp_path, DAY), CsvDialect()).rows()

    assert rows == [("UA", "0017", None), ("DL", None, "café")]


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(DAY, mtime=0),
        gzip.compress(DAY[:20], mtime=0) + gzip.compress(DAY[20:], mtime=0),
        b"\xef\xbb\xbf" + DAY,
    ],
    ids=["one member", "two members", "byte order mark"],
)
def test_gzip_of_one_or_more_members_and_a_byte_order_mark_are_read(tmp_path: Path, content: bytes) -> None:
    plain = read_csv(write_file(tmp_path, DAY), CsvDialect())

    assert read_csv(write_file(tmp_path, content, "other.csv"), CsvDialect()).equals(plain)


def test_quotes_may_hold_the_separator(tmp_path: Path) -> None:
    path = write_file(tmp_path, b'carrier,note\nUA,"late, again"\nDL,"a ""quoted"" word"\n')

    assert read_csv(path, CsvDialect()).rows() == [("UA", "late, again"), ("DL", 'a "quoted" word')]


@pytest.mark.parametrize("kept", [12, 30, -1])
def test_a_truncated_gzip_is_refused_with_its_partition_and_the_next_command(tmp_path: Path, kept: int) -> None:
    path = write_file(tmp_path, gzip.compress(DAY)[:kept], "2013-01-09.csv.gz")

    message = message_for(path)

    assert "2013-01-09.csv.gz: truncated or damaged gzip" in message
    assert "headrace ingest" in message


def test_a_damaged_gzip_is_refused(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(DAY))
    packed[-6] ^= 1

    assert "damaged gzip" in message_for(write_file(tmp_path, bytes(packed)))


def test_an_object_that_is_named_gz_and_is_none_is_refused(tmp_path: Path) -> None:
    assert isinstance(SALES.location, ObjectSource)
    source = replace(SALES, location=replace(SALES.location, suffix=".csv.gz"))
    cached = write_file(tmp_path, DAY, "5d41402abc4b2a76b9719d911017c592")  # objects of the cache have no suffix

    with pytest.raises(UnreadableError, match=r"sales 2013-01-09: .*expected gzip by its suffix \.csv\.gz"):
        read_raw(source, "2013-01-09", cached)


def test_gzip_that_unpacks_to_more_than_allowed_is_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path, gzip.compress(DAY * 1000))

    assert "unpack to more than the 10,000 allowed" in message_for(path, CsvDialect(max_bytes=10_000))


def test_an_empty_object_is_refused(tmp_path: Path) -> None:
    assert "it is empty: 0 bytes" in message_for(write_file(tmp_path, b""))


def test_a_header_in_another_encoding_is_refused_with_the_line_and_the_bytes(tmp_path: Path) -> None:
    path = write_file(tmp_path, DAY.replace(b"note", b"not\xe9"))

    assert "expected utf-8, but line 1 holds the bytes e9" in message_for(path)


def test_text_of_utf_7_that_is_no_unicode_is_named_as_it_is(tmp_path: Path) -> None:
    utf_7 = CsvDialect(encoding="utf-7")

    assert r"expected utf-7, but line 1 holds '\ud800'" in message_for(write_file(tmp_path, b"carrier,+2AA-\n"), utf_7)
    assert read_csv(write_file(tmp_path, b"carrier\n+2AA-\n"), utf_7).row(0)[-2:] == (r"\ud800", "line|encoding")


def test_utf_16_is_refused(tmp_path: Path) -> None:
    assert "expected utf-8" in message_for(write_file(tmp_path, DAY.decode().encode("utf-16")))
    assert "NUL" in message_for(write_file(tmp_path, "a,b\n1,2\n".encode("utf-16-le")))


def test_a_file_cut_in_its_last_field_is_refused_where_the_dialect_says_so(tmp_path: Path) -> None:
    path = write_file(tmp_path, DAY[:-3])

    assert "the last line, 'DL,NA,caf', has no line end" in message_for(path, CsvDialect(final_newline=True))
    assert read_csv(path, CsvDialect()).row(1) == ("DL", None, "caf")


@pytest.mark.parametrize("line", ["UA,1", "UA,1,x,y", ""])
def test_a_ragged_line_is_kept_as_its_text_with_its_number(tmp_path: Path, line: str) -> None:
    rows = read_csv(write_file(tmp_path, DAY + line.encode() + b"\n"), CsvDialect())

    assert rows.row(2) == (None, None, None, 3, 4, line, "line|fields")


LINES = st.lists(st.text('a,,,"\r\n\0', max_size=9), max_size=5)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LINES)
def test_a_look_at_the_bytes_decides_as_a_look_at_each_line_does(tmp_path: Path, lines: list[str]) -> None:
    path = write_file(tmp_path, "\n".join(["x,y,z", *lines, ""]).encode())

    quick = outcome_for(path)

    with patch.object(csv_reader, "_is_even", return_value=False):
        assert quick == outcome_for(path)


def test_a_field_too_many_and_one_too_few_do_not_make_up_for_each_other(tmp_path: Path) -> None:
    rows = read_csv(write_file(tmp_path, DAY + b"UA,1,x,y\nDL,2\n"), CsvDialect())

    assert [row[-2:] for row in rows.rows()[2:]] == [("UA,1,x,y", "line|fields"), ("DL,2", "line|fields")]


@pytest.mark.parametrize("line", ['UA,1,"x \\"y\\", z"', 'UA,1, "x"', 'UA,1,x"y"', 'UA,"1"2,x', '"UA""",1,"x"y"'])
def test_a_quote_that_neither_encloses_a_field_nor_is_doubled_in_one_makes_a_line_bad(
    tmp_path: Path, line: str
) -> None:
    rows = read_csv(write_file(tmp_path, DAY + line.encode() + b"\n"), CsvDialect())

    assert rows.row(2)[-2:] == (line, "line|quotes")


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_doubled_quote_in_a_field_that_quotes_enclose_is_a_quote(
    tmp_path: Path, separator: str, ending: bytes
) -> None:
    line = separator.join(['"UA"', '""', '"say ""a,b"" \\"']).encode()
    path = write_file(tmp_path, separator.join(["a", "b", "c"]).encode() + ending + line + ending)

    assert read_csv(path, CsvDialect(separator)).rows() == [("UA", None, 'say "a,b" \\')]


@pytest.mark.parametrize("content", [b"\n", b"\r\n", b"\n\n\n", b"\xef\xbb\xbf\n"])
def test_lines_without_a_header_are_refused_and_raise_nothing_else(tmp_path: Path, content: bytes) -> None:
    assert message_for(write_file(tmp_path, content))


def test_a_column_named_twice_is_refused(tmp_path: Path) -> None:
    assert "the header names 'flight' more than once" in message_for(write_file(tmp_path, b"flight,flight\n1,2\n"))


def test_a_header_alone_is_a_day_without_rows(tmp_path: Path) -> None:
    assert read_csv(write_file(tmp_path, b"carrier,flight\n"), CsvDialect()).shape == (0, 2)


@pytest.mark.parametrize("content", [b"", b"PAR1 and then nothing"])
def test_a_damaged_parquet_file_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UnreadableError, match="expected a Parquet file written by ingest"):
        read_parquet(write_file(tmp_path, content, "2013-01-09.parquet"))


def test_a_quoted_field_may_hold_line_ends_unless_the_dialect_says_no(tmp_path: Path) -> None:
    path = write_file(tmp_path, b'id,note\n1,"two\nlines, and ""more"""\n2,plain\n')

    assert read_csv(path, CsvDialect()).rows() == [("1", 'two\nlines, and "more"'), ("2", "plain")]
    assert [row[-1] for row in read_csv(path, CsvDialect(multiline=False)).rows()] == ["line|quotes"] * 2 + [None]


def test_a_field_too_few_is_found_beside_quoted_line_ends_too(tmp_path: Path) -> None:
    path = write_file(tmp_path, b'id,note\n1,"two\nlines"\n2\n')

    assert read_csv(path, CsvDialect()).row(1)[-3:] == (4, "2", "line|fields")


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbf", b"\xef\xbb\xbf\n", b"\n", b"\r\n\r\n", gzip.compress(b"\xef\xbb\xbf\r\n", mtime=0)]
)
def test_a_file_of_nothing_but_marks_and_line_ends_says_so(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UnreadableError, match="nothing but line ends and byte order marks, where a header line"):
        read_csv(write_file(tmp_path, content), CsvDialect())


@pytest.mark.parametrize(
    "kind", [pa.decimal256(50, 2), pa.list_(pa.decimal256(39, 0)), pa.struct({"x": pa.decimal256(76, 0)})]
)
def test_a_decimal_of_too_many_digits_is_refused_by_column(tmp_path: Path, kind: pa.DataType) -> None:
    pq.write_table(pa.table({"id": [1], "price": pa.array([None], kind)}), tmp_path / "all.parquet")

    with pytest.raises(UnreadableError, match=r"the column price holds .*decimal256\(.*38 digits at most"):
        read_parquet(tmp_path / "all.parquet")


@pytest.mark.parametrize("year", [1500, 2262, 2263, 9999])
def test_times_in_96_bits_are_those_of_any_year(tmp_path: Path, year: int) -> None:
    at = datetime(year, 6, 1, 12, 30, 15, 123456, UTC)
    times = pa.table({"at": pa.array([at], pa.timestamp("us", "UTC"))})
    pq.write_table(times, tmp_path / "all.parquet", use_deprecated_int96_timestamps=True)

    assert read_parquet(tmp_path / "all.parquet")["at"].to_list() == [at]
