"""Images, sound and other files → one row each: what identifies the bytes, which stay in the raw table alone.

The media type is read from how the bytes begin, as the WHATWG's MIME Sniffing Standard does, and never from the name.
"""

import hashlib
import re
from pathlib import Path

import polars as pl

from headrace.validate.errors import InvalidContractError
from headrace.validate.read_request import ReadRequest
from headrace.validate.unreadable import check_limit, refused

MAX_BYTES = 4 << 30
"""Most bytes of an object. They are hashed in parts, so their number costs time and no memory."""

START_BYTES = 1024
"""Bytes that decide the media type."""

MEDIA_SCHEMA = {
    "key": pl.String(),
    "sha256": pl.String(),
    "size": pl.Int64(),
    "media_type": pl.String(),
}
"""Column → type of what `read_media` gives."""

SIGNATURES = (
    (rb"\x89PNG\r\n\x1a\n", "image/png"),
    (rb"\xff\xd8\xff", "image/jpeg"),
    (rb"GIF8[79]a", "image/gif"),
    (rb"RIFF....WEBPVP", "image/webp"),
    (rb"RIFF....WAVE", "audio/wav"),
    (rb"RIFF....AVI ", "video/avi"),
    (rb"BM.{4}\0\0\0\0", "image/bmp"),
    (rb"II\*\0|MM\0\*", "image/tiff"),
    (rb"....ftypavi[fs]", "image/avif"),
    (rb"....ftyp(?:heic|heix|mif1)", "image/heic"),
    (rb"....ftypqt  ", "video/quicktime"),
    (rb"....ftypM4A", "audio/mp4"),
    (rb"....ftyp", "video/mp4"),
    (rb"\x1a\x45\xdf\xa3.{0,60}webm", "video/webm"),
    (rb"OggS", "application/ogg"),
    (rb"fLaC", "audio/flac"),
    (rb"ID3|\xff[\xf2-\xf7\xfa-\xff]", "audio/mpeg"),
    (rb"%PDF-", "application/pdf"),
)
"""How a file begins → its media type; the first one counts."""

PATTERNS = tuple((re.compile(signature, re.DOTALL), media_type) for signature, media_type in SIGNATURES)

OTHER = "application/octet-stream"


def read_media(path: Path, *, max_bytes: int = MAX_BYTES, request: ReadRequest | None = None) -> pl.DataFrame:
    """One row for a file of any format: `key`, `sha256`, `size` in bytes and `media_type`.

    The source declares `ObjectSource(media=True)`, so that each object is known by its key. The bytes stay in the raw
    table, once for equal ones.

    Args:
        path: The file.
        max_bytes: Most bytes of it.
        request: What `validate` knows of it: the key. Without it, the key is the name of the file.

    Raises:
        UnreadableError: It is empty or too large.
        InvalidContractError: Its source does not keep keys.

    Examples:
        >>> _ = Path("a.png").write_bytes(bytes.fromhex("89504e470d0a1a0a"))
        >>> headrace.read_media(Path("a.png")).select("key", "size", "media_type").rows()
        [('a.png', 8, 'image/png')]
    """
    size = path.stat().st_size
    if not size:
        raise refused(path, "it is empty: 0 bytes")
    check_limit(path, "bytes", size, max_bytes)
    if request is not None and not request.key:
        raise InvalidContractError(
            f"{path}: expected the key of the object, which `read_media` gives as a column, but its source keeps none"
            " for an object that is alone in its partition. Declare `ObjectSource(…, media=True)`, then run"
            " `headrace ingest` and `headrace validate`."
        )
    with path.open("rb") as file:
        start = file.read(START_BYTES)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    key = request.key if request else path.name
    return pl.DataFrame([[key], [digest], [size], [media_type_of(start)]], schema=MEDIA_SCHEMA, orient="col")


def media_type_of(start: bytes) -> str:
    """The media type of a file that begins so; `application/octet-stream` if it is none that is known."""
    return next((media_type for pattern, media_type in PATTERNS if pattern.match(start)), OTHER)
