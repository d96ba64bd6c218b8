"""A cache of small records in the workspace, each with a hash: a record that is torn or damaged counts as missing."""

import hashlib
import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")

FORMAT = b"1"
"""Part of every hash: raised when the same key could have another record."""

DIGEST_BYTES = 32


@dataclass(frozen=True)
class RecordCache:
    """Records by key. Whatever is lost is computed again.

    Attributes:
        folder: Where they are.
    """

    folder: Path

    def read(self, key: str, kind: type[T]) -> T | None:
        """The record with this key; None if there is none, or if it is damaged."""
        with suppress(OSError, msgspec.MsgspecError):
            content = (self.folder / key).read_bytes()
            if _digest(key, content[DIGEST_BYTES:]) == content[:DIGEST_BYTES]:
                return msgspec.msgpack.decode(content[DIGEST_BYTES:], type=kind)
        return None

    # no failpoint: a cache; a record that is torn is computed again
    def write(self, key: str, record: object) -> None:
        """Keep a record. In a workspace that cannot be written, nothing is kept."""
        content = msgspec.msgpack.encode(record)
        temporary = self.folder / f".{key}.{os.getpid()}.tmp"
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(_digest(key, content) + content)
            temporary.replace(self.folder / key)

    def list_keys(self) -> list[str]:
        """The keys of all records, also of damaged ones."""
        with suppress(OSError):
            return [path.name for path in self.folder.iterdir() if not path.name.startswith(".")]
        return []

    # no failpoint: a cache; what is removed too much is computed again
    def retain(self, keys: Collection[str]) -> None:
        """Remove all records but these."""
        kept = set(keys)
        with suppress(OSError):
            for path in self.folder.iterdir():
                if path.name not in kept:
                    path.unlink(missing_ok=True)


def _digest(key: str, content: bytes) -> bytes:
    return hashlib.sha256(b"\0".join((FORMAT, key.encode(), content))).digest()
