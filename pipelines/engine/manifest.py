"""Manifests: the partitions of a table and what made each. Versioned with the data, they are its lineage."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

MANIFEST = "manifest.json"

_encode = json.JSONEncoder(sort_keys=True).encode
"""`json.dumps` with sorted keys, without a new encoder for each partition."""


@dataclass(frozen=True)
class Entry:
    """One partition of a table.

    Attributes:
        memo: Memo key: equal key, nothing to do.
        md5: Hash of the file's bytes, and its name in the cache and on the remote.
        size: Bytes.
        rows: Rows in the file; None for raw bytes, which nobody has counted yet.
        inputs: Table → partition → md5 of everything it was computed from; empty for raw partitions.
        facts: What else is known: rows in and rejected, the checks that failed, the object or query it came from.
        beside: Table → entry of what the same computation made for the tables beside this one.
    """

    memo: str
    md5: str
    size: int
    rows: int | None = None
    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, "Entry"] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """What JSON keeps of it: nothing that is empty."""
        found = {**vars(self), "beside": {table: entry.to_dict() for table, entry in self.beside.items()}}
        return {name: value for name, value in found.items() if value not in (None, {})}

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> "Entry":
        """The entry that `to_dict` gave."""
        if "beside" not in found:
            return cls(**found)
        return cls(**{**found, "beside": {table: cls(**entry) for table, entry in found["beside"].items()}})


@dataclass(frozen=True)
class Manifest:
    """The partitions of a table and what made them. It holds no clock: equal tables have equal manifests.

    Attributes:
        table: `<state>/<dataset>/<name>`.
        suffix: Ending of the partitions' file names.
        code: Source file → hash of its code, for everything the stage imports inside `pipelines/`.
        params: The parameters the stage reads.
        libraries: Library → version, for those that shape bytes.
        partitions: Partition → entry.
    """

    table: str
    suffix: str = ".parquet"
    code: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    partitions: Mapping[str, Entry] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Canonical JSON, a partition a line."""
        head = {name: getattr(self, name) for name in ("table", "suffix", "code", "params", "libraries")}
        lines = (
            f"{_encode(partition)}:{_encode(entry.to_dict())}" for partition, entry in sorted(self.partitions.items())
        )
        body = json.dumps(head, sort_keys=True)[:-1]
        return (body + ', "partitions": {\n' + ",\n".join(lines) + "\n}}\n").encode()

    @classmethod
    def from_bytes(cls, text: bytes) -> "Manifest":
        """The manifest that `to_bytes` wrote."""
        return _parsed(text)

    @property
    def rows(self) -> int:
        """Rows of the whole table."""
        return sum(entry.rows or 0 for entry in self.partitions.values())

    def with_partitions(self, partitions: Mapping[str, Entry]) -> "Manifest":
        """The same table with these partitions instead."""
        return replace(self, partitions=partitions)


@lru_cache(maxsize=32)
def _parsed(text: bytes) -> Manifest:
    """A run meets the same manifest many times: shown, recorded, and as an input of several stages."""
    found = json.loads(text)
    partitions = {name: Entry.from_dict(entry) for name, entry in found["partitions"].items()}
    return Manifest(**{**found, "partitions": partitions})
