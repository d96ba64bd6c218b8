"""Files that are hostile or just large are refused by name, in bounded memory and time."""

import gzip
import json
import subprocess
import sys
import time
import zlib
from contextlib import suppress
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.validate.csv_dialect import CsvDialect
from headrace.validate.csv_reader import read_csv
from headrace.validate.parquet_reader import read_parquet
from headrace.validate.unreadable import UnreadableError

WORKER_BYTES = 3 << 30
"""Address space of the process that reads hostile files: less than a worker of the Helm values has."""

READ = """
import json, resource, sys
from pathlib import Path
from headrace.validate.csv_dialect import CsvDialect
from headrace.validate.csv_reader import read_csv
from headrace.validate.parquet_reader import read_parquet
from headrace.validate.unreadable import UnreadableError

resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
reasons = {}
for path in map(Path, sys.argv[2:]):
    try:
        rows = read_parquet(path) if path.suffix == ".parquet" else read_csv(path, CsvDialect())
        reasons[path.name] = f"{rows.shape}"
    except UnreadableError as error:
        reasons[path.name] = error.reason
print(json.dumps(reasons))
"""


def reason_for(path: Path, dialect: CsvDialect | None = None) -> str:
    with pytest.raises(UnreadableError) as refusal:
        read_csv(path, dialect or CsvDialect())
    return refusal.value.reason


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def write_sparse(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def write_bomb(path: Path, unit: bytes, gibibytes: int) -> Path:
    """Gzip of so many GiB: one deflate block of 16 MiB, again and again."""
    compress = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    head = compress.compress(unit * ((16 << 20) // len(unit))) + compress.flush(zlib.Z_FULL_FLUSH)
    block = compress.compress(unit * ((16 << 20) // len(unit))) + compress.flush(zlib.Z_FULL_FLUSH)
    with path.open("wb") as file:
        file.write(head)
        for _ in range(64 * gibibytes):
            file.write(block)
    return path


def write_constant_parquet(path: Path, rows: int) -> Path:
    """Rows that are all alike: they take next to no bytes, packed or unpacked."""
    part = pa.table({"v": pl.repeat(0, 5_000_000, eager=True).to_arrow()})
    with pq.ParquetWriter(path, part.schema) as writer:
        for _ in range(rows // part.num_rows):
            writer.write_table(part)
    return path


@pytest.mark.slow
def test_hostile_files_are_refused_within_the_memory_of_a_worker(tmp_path: Path) -> None:
    names = ",".join(f"column_{number}" for number in range(40_000)).encode()
    files = {
        "zeros.csv.gz": write_bomb(tmp_path / "zeros.csv.gz", b"\0", 1),
        "lines.csv.gz": write_bomb(tmp_path / "lines.csv.gz", b"a,b\n", 1),
        "sparse.csv": write_sparse(tmp_path / "sparse.csv", 64 << 30),
        "commas.csv": write(tmp_path / "commas.csv", b"a,b,c,d\n" + b",,,\n" * 15_000_000),
        "wide.csv": write(tmp_path / "wide.csv", names + b"\n" + b'"' + names + b'"\n'),
        "members.csv.gz": write(tmp_path / "members.csv.gz", gzip.compress(b"") * 300_000),
        "rows.parquet": write_constant_parquet(tmp_path / "rows.parquet", 60_000_000),
    }
    started = time.process_time()

    command = [sys.executable, "-c", READ, str(WORKER_BYTES), *map(str, files.values())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    reasons = json.loads(done.stdout)
    assert "unpack to more than the 536,870,912 allowed" in reasons["zeros.csv.gz"]
    assert "unpack to more than the 536,870,912 allowed" in reasons["lines.csv.gz"]
    assert reasons["sparse.csv"] == "it has 68,719,476,736 bytes, more than the 536,870,912 allowed"
    assert reasons["commas.csv"] == "it has 60,000,004 fields, more than the 50,000,000 allowed"
    assert reasons["wide.csv"] == "it has 40,000 columns, more than the 10,000 allowed"
    assert reasons["members.csv.gz"] == "it is gzip of 0 bytes, where a header line at least was expected"
    assert reasons["rows.parquet"] == "it has 60,000,000 fields, more than the 50,000,000 allowed"
    assert time.process_time() - started < 60


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_of_just_the_allowed_bytes_is_read_and_one_more_is_refused(tmp_path: Path, packed: bool) -> None:
    content = b"a,b\n1,2\n"
    path = write(tmp_path / "file", gzip.compress(content) if packed else content)

    assert read_csv(path, CsvDialect(max_bytes=len(gzip.compress(content)) if packed else 8)).height == 1
    assert "more than the 7" in reason_for(path, CsvDialect(max_bytes=7))


def test_columns_and_fields_are_counted_up_to_their_bounds(tmp_path: Path) -> None:
    path = write(tmp_path / "file.csv", b"a,b,c\n" + b"1,2,3\n" * 9)

    assert read_csv(path, CsvDialect(max_columns=3, max_fields=30)).height == 9
    assert reason_for(path, CsvDialect(max_columns=2)) == "it has 3 columns, more than the 2 allowed"
    assert reason_for(path, CsvDialect(max_fields=29)) == "it has 30 fields, more than the 29 allowed"


def test_the_rows_of_forty_thousand_columns_are_checked_in_linear_time(tmp_path: Path) -> None:
    names = ",".join(f"column_{number}" for number in range(40_000))
    path = write(
        tmp_path / "wide.csv", f"{names}\n{names.replace('column_7,', chr(34) + 'x' + chr(34) + ',')}\n".encode()
    )
    started = time.process_time()

    assert read_csv(path, CsvDialect(max_columns=40_000)).shape == (1, 40_000)

    narrow = write(tmp_path / "narrow.csv", b"a,b\n" + b'"x",y\n' * 20_000)
    wide_s, started = time.process_time() - started, time.process_time()
    read_csv(narrow, CsvDialect())
    assert wide_s < 100 * (time.process_time() - started), "before, each name was compared with every other one"


def test_values_in_lists_and_fields_of_structs_count(tmp_path: Path) -> None:
    path = tmp_path / "nested.parquet"
    pl.DataFrame({"v": [[1, 2, 3], [4]], "s": [{"a": 1, "b": 2}] * 2}).write_parquet(path)

    assert read_parquet(path).height == 2
    with pytest.raises(UnreadableError, match="it has 3 columns, more than the 2 allowed"):
        read_parquet(path, max_columns=2)
    with pytest.raises(UnreadableError, match="it has 8 fields, more than the 7 allowed"):
        read_parquet(path, max_fields=7)
    with pytest.raises(UnreadableError, match="unpacked bytes, more than the 10 allowed"):
        read_parquet(path, max_bytes=10)


@pytest.mark.parametrize("at", range(0, 400, 7))
def test_a_parquet_file_with_a_damaged_byte_is_read_or_refused_and_raises_nothing_else(tmp_path: Path, at: int) -> None:
    path = tmp_path / "file.parquet"
    pl.DataFrame({"a": [1, 2, 3], "b": ["x", None, "y" * 50]}).write_parquet(path)
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 0x55

    with suppress(UnreadableError):
        read_parquet(write(path, bytes(content)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a,b\r1,2\r", "its lines end with a carriage return alone"),
        (gzip.compress(b"", mtime=0), "it is gzip of 0 bytes"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0) + b"and more", "truncated or damaged gzip"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0) + gzip.compress(b"3,4\n", mtime=0)[:-4], "truncated or damaged gzip"),
        (b"a," + b"b" * 20_000 + b"\n1,2\n", "its header names a column with more than 10,000 characters"),
        (b"a," + b'"' + b"b" * 200_000 + b'"\n1,2\n', "its header"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_as_it_is(tmp_path: Path, content: bytes, reason: str) -> None:
    assert reason in reason_for(write(tmp_path / "file.csv", content))


def test_gzip_members_may_be_padded_with_zeros(tmp_path: Path) -> None:
    content = gzip.compress(b"a,b\n") + b"\0" * 100_000 + gzip.compress(b"1,2\n") + b"\0" * 7

    assert read_csv(write(tmp_path / "file.csv.gz", content), CsvDialect()).rows() == [("1", "2")]
