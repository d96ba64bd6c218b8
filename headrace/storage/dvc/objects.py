"""Objects by their md5, as DVC 3 lays them out in a cache and on a remote.

An object lies at `files/md5/<two digits>/<rest>`; a folder is an object `<md5>.dir` that lists md5 and path of its
files as sorted JSON.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path


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
