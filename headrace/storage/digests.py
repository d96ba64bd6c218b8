"""Hashes of bytes: md5 names them for DVC; sha256 is compared, too, because two contents can be made with one md5."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 18
"""Bytes that are hashed at a time: they stay in the processor's cache for the second hash."""


@dataclass(frozen=True)
class Digests:
    """The hashes of some bytes."""

    md5: str
    sha256: str

    @classmethod
    def of_bytes(cls, content: bytes | memoryview) -> "Digests":
        """The hashes of bytes in memory."""
        return cls(hashlib.md5(content, usedforsecurity=False).hexdigest(), hashlib.sha256(content).hexdigest())

    @classmethod
    def of_file(cls, path: Path) -> "Digests":
        """The hashes of a file's bytes, in one pass over it."""
        hasher = Hasher()
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                hasher.update(chunk)
        return hasher.digests

    def mismatch(self, md5: str, sha256: str | None = None) -> str:
        """The hash that is not the expected one, for messages; empty if there is none.

        Args:
            md5: Expected md5, or name of an object: that of a folder's list ends with `.dir`.
            sha256: Expected sha256; None if it is not known.
        """
        if self.md5 != md5.removesuffix(".dir"):
            return f"md5 {self.md5}"
        return f"sha256 {self.sha256}" if sha256 and self.sha256 != sha256 else ""


class Hasher:
    """Hashes bytes that come in chunks."""

    def __init__(self) -> None:
        """No bytes yet."""
        self._md5, self._sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()

    def update(self, chunk: Any) -> None:  # noqa: ANN401  whatever holds bytes
        """Hash the next chunk."""
        self._md5.update(chunk)
        self._sha256.update(chunk)

    @property
    def digests(self) -> Digests:
        """The hashes of all chunks so far."""
        return Digests(self._md5.hexdigest(), self._sha256.hexdigest())
