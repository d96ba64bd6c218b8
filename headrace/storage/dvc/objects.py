"""Objects by their md5, as DVC 3 lays them out in a cache and on a remote.

An object lies at `files/md5/<two digits>/<rest>`; a folder is an object `<md5>.dir` that lists md5 and path of its
files as sorted JSON.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1 << 18
"""Bytes that are hashed at a time: they stay in the processor's cache for the second hash."""


@dataclass(frozen=True)
class Digests:
    """Hashes of some bytes: md5 names them for DVC; sha256 is compared too, because an md5 can be forged."""

    md5: str
    sha256: str

    @classmethod
    def of_bytes(cls, content: bytes | memoryview) -> "Digests":
        """The hashes of bytes in memory."""
        return cls(hashlib.md5(content, usedforsecurity=False).hexdigest(), hashlib.sha256(content).hexdigest())

    @classmethod
    def of_file(cls, path: Path) -> "Digests":
        """The hashes of a file's bytes, in one pass over it."""
        md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                md5.update(chunk)
                sha256.update(chunk)
        return cls(md5.hexdigest(), sha256.hexdigest())


def object_key(md5: str) -> str:
    """Place of an object in a DVC cache or remote."""
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def md5_of(path: Path) -> str:
    """The md5 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def directory_bytes(files: Mapping[str, str]) -> bytes:
    """The `.dir` object of a folder: relative path → md5, as DVC writes it."""
    order = sorted(files, key=lambda path: path.split("/"))
    lines = [f'{{"md5": "{files[path]}", "relpath": {json.dumps(path)}}}' for path in order]
    return f"[{', '.join(lines)}]".encode()
