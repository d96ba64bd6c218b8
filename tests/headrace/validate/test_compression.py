"""Packed files are read like plain ones, within bounds; what is damaged, encrypted or ambiguous is refused by name."""

import gzip
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from headrace.dataset import ObjectSource
from headrace.validate.compression import MAX_MEMBERS
from headrace.validate.csv_dialect import CsvDialect
from headrace.validate.csv_reader import read_csv
from headrace.validate.json_reader import JsonDialect, read_json
from headrace.validate.unreadable import UnreadableError

CSV = b"carrier,flight\n" + b"UA,17\nB6,4\n" * 500
ROWS = [("UA", "17"), ("B6", "4")] * 500


def zstandard(content: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(content, asbytes=True))


def archive(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return into.getvalue()


def encrypted(packed: bytes) -> bytes:
    """The archive with the flag of encryption in its first member and in its directory."""
    content = bytearray(packed)
    content[6] |= 1
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def write(folder: Path, content: bytes, name: str = "object") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def reason_for(path: Path, dialect: CsvDialect | None = None) -> str:
    with pytest.raises(UnreadableError) as refusal:
        read_csv(path, dialect or CsvDialect())
    return refusal.value.reason


PACKED = {
    "gzip": gzip.compress(CSV),
    "Zstandard": zstandard(CSV),
    "Zstandard of two frames": zstandard(CSV[:1000]) + zstandard(CSV[1000:]),
    "zip": archive({"orders.csv": CSV}),
    "stored zip": archive({"orders.csv": CSV}, zipfile.ZIP_STORED),
    "bzip2 in zip": archive({"orders.csv": CSV}, zipfile.ZIP_BZIP2),
    "LZMA in zip": archive({"orders.csv": CSV}, zipfile.ZIP_LZMA),
    "zip with a folder": archive({"2013/": b"", "2013/orders.csv": CSV}),
    "zip of macOS": archive({"orders.csv": CSV, "__MACOSX/._orders.csv": b"x", ".DS_Store": b"x"}),
}


@pytest.mark.parametrize("kind", PACKED)
def test_a_packed_file_has_the_rows_of_the_plain_one(tmp_path: Path, kind: str) -> None:
    assert read_csv(write(tmp_path, PACKED[kind]), CsvDialect()).rows() == ROWS


@pytest.mark.parametrize("kind", ["gzip", "Zstandard", "zip"])
def test_json_may_be_packed_too(tmp_path: Path, kind: str) -> None:
    line = b'{"order_id": 7}\n'
    packed = {"gzip": gzip.compress(line), "Zstandard": zstandard(line), "zip": archive({"a.jsonl": line})}[kind]

    assert read_json(write(tmp_path, packed), JsonDialect())["order_id"].struct.field("json_text").to_list() == ["7"]


@pytest.mark.parametrize("kind", ["gzip", "Zstandard", "zip"])
def test_a_file_of_just_the_allowed_unpacked_bytes_is_read_and_one_more_is_refused(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, PACKED[kind])

    assert read_csv(path, CsvDialect(max_bytes=len(CSV))).rows() == ROWS
    assert f"bytes of {kind} unpack to more than the {len(CSV) - 1:,}" in reason_for(
        path, CsvDialect(max_bytes=len(CSV) - 1)
    )


@pytest.mark.parametrize("kind", ["gzip", "Zstandard", "zip", "stored zip"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused_by_its_kind(tmp_path: Path, kind: str, share: float) -> None:
    packed = PACKED[kind]

    reason = reason_for(write(tmp_path, packed[: int(len(packed) * share)]))

    assert reason.startswith(f"truncated or damaged {kind.rsplit(maxsplit=1)[-1]} of ")


@pytest.mark.parametrize("kind", ["gzip", "zip", "stored zip"])  # a checksum is optional in Zstandard
def test_a_damaged_byte_is_noticed(tmp_path: Path, kind: str) -> None:
    packed = bytearray(PACKED[kind])
    packed[len(packed) // 2] ^= 0xFF

    assert "truncated or damaged" in reason_for(write(tmp_path, bytes(packed)))


@pytest.mark.parametrize("kind", ["gzip", "Zstandard", "zip"])
def test_what_follows_a_packed_file_is_noticed_or_belongs_to_no_member(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, PACKED[kind] + b"trailing")

    if kind == "zip":  # archives are read from their end on, where self-extracting and signed ones have more
        assert read_csv(path, CsvDialect()).rows() == ROWS
    else:
        assert f"truncated or damaged {kind}" in reason_for(path)


@pytest.mark.parametrize(
    ("members", "dialect", "reason"),
    [
        ({}, CsvDialect(), "begins with the bytes 50 4b 05 06"),
        ({"a/": b""}, CsvDialect(), "found 0: its members are none"),
        ({"a.csv": CSV, "b.csv": CSV}, CsvDialect(), "found 2: its members are 'a.csv', 'b.csv'"),
        ({f"{n}.csv": CSV for n in range(9)}, CsvDialect(member="1*"), ""),
        ({"a.csv": CSV, "b.csv": CSV}, CsvDialect(member="c.csv"), "expected one member 'c.csv', found 0"),
        ({"a.csv": CSV, "b.csv": CSV}, CsvDialect(member="*.csv"), "expected one member '*.csv', found 2"),
        ({"A.CSV": CSV}, CsvDialect(member="a.csv"), "its members are 'A.CSV'"),
        ({"../a.csv": CSV}, CsvDialect(), "the name of its member '../a.csv' leaves the archive"),
        ({"/etc/a.csv": CSV}, CsvDialect(), "leaves the archive"),
        ({"a.csv": b""}, CsvDialect(), "it is zip of 0 bytes"),
        ({"a.zip": PACKED["zip"]}, CsvDialect(), "it is zip in zip"),
        ({"a.csv.gz": PACKED["gzip"]}, CsvDialect(), "it is gzip in zip"),
        ({"a.csv.zst": PACKED["Zstandard"]}, CsvDialect(), "it is Zstandard in zip"),
    ],
    ids=lambda value: value or "read" if isinstance(value, str) else "",
)
def test_an_archive_has_one_data_file_or_the_one_that_is_named(
    tmp_path: Path, members: Mapping[str, bytes], dialect: CsvDialect, reason: str
) -> None:
    path = write(tmp_path, archive(members), "orders.zip")

    if reason:
        assert reason in reason_for(path, dialect)
    else:
        assert read_csv(path, dialect).rows() == ROWS


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, encrypted(PACKED["zip"]))

    assert reason_for(path) == "its member 'orders.csv' is encrypted"


def test_a_member_that_is_asked_for_has_to_be_in_an_archive(tmp_path: Path) -> None:
    dialect = CsvDialect(member="orders.csv")

    assert "with the member 'orders.csv', found a file as it is" in reason_for(write(tmp_path, CSV), dialect)
    assert "found gzip" in reason_for(write(tmp_path, PACKED["gzip"]), dialect)


def test_an_archive_of_very_many_members_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    path = write(tmp_path, b"PK\x03\x04" + b"PK\x01\x02" * (MAX_MEMBERS + 1))

    assert reason_for(path) == f"it has {MAX_MEMBERS + 1:,} members, more than the {MAX_MEMBERS:,} allowed"


def test_an_archive_that_says_too_small_a_size_is_refused(tmp_path: Path) -> None:
    content = bytearray(PACKED["zip"])
    place = content.rindex(b"PK\x01\x02")
    content[place + 24 : place + 28] = (10).to_bytes(4, "little")

    assert "truncated or damaged zip" in reason_for(write(tmp_path, bytes(content)))


@pytest.mark.parametrize(
    ("suffix", "kind"), [(".csv.zst", "Zstandard"), (".zip", "a zip archive"), (".xlsx", "an Excel workbook")]
)
def test_an_object_that_does_not_begin_as_its_suffix_says_is_refused(tmp_path: Path, suffix: str, kind: str) -> None:
    assert f"expected {kind}" in reason_for(write(tmp_path, CSV, f"orders{suffix}"))
    assert ObjectSource("orders/", ".*", suffix).suffix == suffix
