"""Packed bytes → bytes: gzip, Zstandard and members of zip archives, recognised by how they begin.

What is unpacked is bounded while it is unpacked. Nothing is written to disk, so the name of a member is no path.
"""

import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from headrace.validate.unreadable import check_limit, refused

GZIP, ZSTANDARD, ZIP = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"
MAGIC = {
    ".gz": GZIP,
    ".bz2": b"BZh",
    ".zst": ZSTANDARD,
    ".xz": b"\xfd7zXZ",
    ".parquet": b"PAR1",
    ".zip": ZIP,
    ".xlsx": ZIP,
}
KINDS = {
    ".gz": "gzip",
    ".bz2": "bzip2",
    ".zst": "Zstandard",
    ".xz": "XZ",
    ".parquet": "Parquet",
    ".zip": "a zip archive",
    ".xlsx": "an Excel workbook (a zip archive)",
}
"""Suffix → how a file of that kind begins, and what it is called."""

PACKED = {GZIP: "gzip", ZSTANDARD: "Zstandard", ZIP: "zip"}
"""How a packed file that can be unpacked begins → what it is called."""

GZIP_FORMAT = zlib.MAX_WBITS | 16

CHUNK = 32 << 10
"""Bytes of gzip that are unpacked together: what is left of them after each member of the file is copied."""

READ_BYTES = 1 << 20
"""Unpacked bytes that a stream is asked for at once."""

MAX_MEMBERS = 10_000
"""Most members of an archive: each takes about a kilobyte of memory while the archive is open."""

MOST_NAMES = 5

ENCRYPTED = 1
"""Bit of a member's flags: section 4.4.4 of the ZIP specification (APPNOTE.TXT)."""

CENTRAL_ENTRY = b"PK\x01\x02"
"""How an entry of an archive's directory begins."""

ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
"""What `zipfile` raises for damaged archives, and for methods that Python does not have."""


def check_suffix(path: Path, suffix: str) -> None:
    """Check that a raw partition begins as files with its suffix do: the objects of a cache have no suffix.

    Raises:
        UnreadableError: It does not.
    """
    name, magic = next(((end, start) for end, start in MAGIC.items() if suffix.endswith(end)), ("", b""))
    if magic:
        with path.open("rb") as file:
            start = file.read(len(magic))
        if start and start != magic:
            seen = start.hex(" ")
            raise refused(path, f"expected {KINDS[name]} by its suffix {suffix}, but it begins with the bytes {seen}")


def read_unpacked(path: Path, max_bytes: int, expected: str = "a header line at least", member: str = "") -> bytes:
    """The bytes of a plain file or of a packed one; there are some, and no more than allowed.

    Args:
        path: The file.
        max_bytes: Most bytes, packed or not.
        expected: What an empty file lacks, for the message.
        member: Name of the member of a zip archive, or a pattern with `*` and `?`; if empty, it has one data file.

    Raises:
        UnreadableError: Empty, too large, truncated, damaged, encrypted, packed twice, or an archive of which it is not
            clear which member is meant.
    """
    size = path.stat().st_size
    if not size:
        raise refused(path, f"it is empty: 0 bytes, where {expected} was expected")
    check_suffix(path, path.suffix)
    check_limit(path, "bytes", size, max_bytes)
    packed = path.read_bytes()
    kind = packing_of(packed)
    if member and kind != "zip":
        raise refused(path, f"expected a zip archive with the member {member!r}, found {kind or 'a file as it is'}")
    if not kind:
        return packed
    content = _unpack(path, packed, kind, max_bytes, member)
    if len(content) > max_bytes:
        raise refused(path, f"{len(packed):,} bytes of {kind} unpack to more than the {max_bytes:,} allowed")
    if not content:
        raise refused(path, f"it is {kind} of 0 bytes, where {expected} was expected")
    if inner := packing_of(content):
        raise refused(path, f"it is {inner} in {kind}: expected a file that is packed once")
    return content


def packing_of(content: bytes) -> str:
    """What the bytes are packed with; empty if with nothing that can be unpacked."""
    return next((name for magic, name in PACKED.items() if content.startswith(magic)), "")


def _unpack(path: Path, packed: bytes, kind: str, max_bytes: int, member: str) -> bytes:
    """The unpacked bytes, one more than allowed at most."""
    if kind == "zip":
        return _member(path, packed, max_bytes, member)
    try:
        return (_gunzipped if kind == "gzip" else _from_zstandard)(packed, max_bytes + 1)
    except (EOFError, zlib.error, OSError) as error:
        raise refused(path, f"truncated or damaged {kind} of {len(packed):,} bytes ({error})") from error


def _gunzipped(packed: bytes, most: int) -> bytes:
    """The content of one gzip member or several, up to so many bytes."""
    parts: list[bytes] = []
    member, is_begun = zlib.decompressobj(GZIP_FORMAT), False
    for start in range(0, len(packed), CHUNK):
        chunk = packed[start : start + CHUNK]
        while chunk and most > 0:
            if not is_begun and not (chunk := chunk.lstrip(b"\0")):  # members may be padded with zeros
                break
            parts.append(member.decompress(chunk, most))
            most -= len(parts[-1])
            chunk, is_begun = member.unconsumed_tail, True
            if member.eof:
                chunk, member, is_begun = member.unused_data, zlib.decompressobj(GZIP_FORMAT), False
    if is_begun and most > 0:
        raise EOFError("it ends before its end was marked")
    return b"".join(parts)


def _from_zstandard(packed: bytes, most: int) -> bytes:
    """The content of one frame or several, up to so many bytes."""
    import pyarrow as pa  # noqa: PLC0415  only files of this kind need it

    with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
        return _up_to(most, iter(lambda: stream.read(READ_BYTES), b""))


def _up_to(most: int, parts: Iterator[bytes]) -> bytes:
    """The parts together, until they are so many bytes: `read(most)` would take that much memory at once."""
    taken: list[bytes] = []
    while most > 0 and (part := next(parts, b"")):
        taken.append(part[:most])
        most -= len(taken[-1])
    return b"".join(taken)


def _member(path: Path, packed: bytes, max_bytes: int, wanted: str) -> bytes:
    check_limit(path, "members", packed.count(CENTRAL_ENTRY), MAX_MEMBERS)
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            member = _chosen(path, archive, wanted)
            with archive.open(member) as file:
                return _up_to(max_bytes + 1, iter(lambda: file.read(READ_BYTES), b""))
    except ZIP_ERRORS as error:
        raise refused(path, f"truncated or damaged zip of {len(packed):,} bytes ({error})") from error


def _chosen(path: Path, archive: zipfile.ZipFile, wanted: str) -> zipfile.ZipInfo:
    """The member that is meant."""
    files = [member for member in archive.infolist() if not member.is_dir()]
    names = [member.filename for member in files]
    found = [member for member in files if (fnmatchcase(member.filename, wanted) if wanted else _is_data(member))]
    if len(found) != 1:
        listed = ", ".join(map(repr, names[:MOST_NAMES])) + " …" * (len(names) > MOST_NAMES) or "none"
        meant = f"one member {wanted!r}" if wanted else "one file in the archive, or the dialect's `member` to name it"
        raise refused(path, f"expected {meant}, found {len(found):,}: its members are {listed}")
    (member,) = found
    if ".." in member.filename.split("/") or member.filename.startswith("/"):
        raise refused(path, f"the name of its member {member.filename!r} leaves the archive")
    if member.flag_bits & ENCRYPTED:
        raise refused(path, f"its member {member.filename!r} is encrypted")
    return member


def _is_data(member: zipfile.ZipInfo) -> bool:
    """Whether a member is a file that somebody packed: macOS adds hidden ones."""
    parts = member.filename.split("/")
    return parts[0] != "__MACOSX" and not (parts[-1].startswith(".") and parts[-1].strip("."))
