"""Manifests: the partitions of a table and what made each. Versioned with the data, they are its lineage.

A partition is a line, and stays text until somebody asks for its entry: one that did not change is carried over as it
is, and its hash or memo key is a slice of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import orjson

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
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

    def to_line(self) -> str:
        """Canonical JSON: the file first, then how it came about; nothing that is empty."""
        file = {"rows": self.rows, "size": self.size, "md5": self.md5, "memo": self.memo}
        beside = {table: orjson.Fragment(entry.to_line()) for table, entry in self.beside.items()}
        nested = {"facts": self.facts, "inputs": self.inputs, "beside": beside}
        told: dict[str, Any] = {name: value for name, value in file.items() if value is not None}
        told |= {name: orjson.Fragment(_sorted(value)) for name, value in nested.items() if value}
        return orjson.dumps(told).decode()

    @classmethod
    def from_line(cls, line: str | bytes) -> "Entry":
        """The entry that `to_line` gave.

        Raises:
            ValueError: The line is torn.
        """
        return cls.from_dict(orjson.loads(line))

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> "Entry":
        """The entry of which JSON kept this."""
        if "beside" not in found:
            return cls(**found)
        return cls(**{**found, "beside": {table: cls(**entry) for table, entry in found["beside"].items()}})


class Partitions(Mapping[str, Entry]):
    """Partition → entry, each a line until it is asked for."""

    def __init__(self, lines: Mapping[str, str]) -> None:
        self.lines = lines

    @classmethod
    def of(cls, entries: Mapping[str, Entry]) -> "Partitions":
        """These entries as lines."""
        if isinstance(entries, Partitions):
            return entries
        return cls({name: entry.to_line() for name, entry in entries.items()})

    def __getitem__(self, partition: str) -> Entry:
        """The entry of a partition."""
        return _entry(self.lines[partition])

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self.lines)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.lines)

    def __contains__(self, partition: object) -> bool:
        """Whether there is one of that name."""
        return partition in self.lines

    def __eq__(self, other: object) -> bool:
        """Whether the same partitions have the same entries."""
        return self.lines == other.lines if isinstance(other, Partitions) else super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]

    def __or__(self, other: Mapping[str, Entry]) -> "Partitions":
        """These, and the others instead where a name is in both."""
        return Partitions({**self.lines, **Partitions.of(other).lines})

    def beside(self, table: str) -> dict[str, Entry]:
        """Entries of the table beside this one, where there are any."""
        some = (name for name, line in self.lines.items() if '"beside":' in line)
        return {name: self[name].beside[table] for name in some if table in self[name].beside}


@dataclass(frozen=True)
class Manifest:
    """The partitions of a table and what made them. It holds no clock: equal tables have equal manifests.

    Attributes:
        table: `<state>/<dataset>/<name>`.
        suffix: Ending of the partitions' file names.
        code: Source file → hash, for all code of the project that the stage imports and the data files it declares.
        params: The parameters the stage reads.
        libraries: Library → version, for those that shape bytes.
        result_version: That of the engine's stage kind; 0 for tables made before there was one.
        partitions: Partition → entry.
    """

    table: str
    suffix: str = ".parquet"
    code: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    result_version: int = 0
    partitions: Mapping[str, Entry] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Canonical JSON, a partition a line."""
        head = ",\n".join(f'"{name}":{_sorted(getattr(self, name)).decode()}' for name in HEAD)
        lines = ",\n".join([f'"{partition}": {self.lines[partition]}' for partition in sorted(self.lines)])
        return f"{{{head}{BEGIN}{lines}{END}".encode()

    @classmethod
    def from_bytes(cls, text: bytes) -> "Manifest":
        """The manifest that `to_bytes` wrote."""
        return _parsed(text)

    @classmethod
    def at(cls, path: Path) -> "Manifest":
        """The manifest that lies at `path`: a file that is replaced, never written over."""
        found = path.stat()
        return _read(path, (found.st_ino, found.st_mtime_ns, found.st_size))

    @cached_property
    def lines(self) -> Mapping[str, str]:
        """Partition → line."""
        return Partitions.of(self.partitions).lines

    @cached_property
    def md5s(self) -> dict[str, str]:
        """Partition → hash of its bytes."""
        return {partition: _told(line, MD5) for partition, line in self.lines.items()}

    @property
    def files(self) -> dict[str, str]:
        """File name → hash of its bytes."""
        return {partition + self.suffix: md5 for partition, md5 in self.md5s.items()}

    @cached_property
    def memos(self) -> dict[str, str]:
        """Partition → memo key."""
        return {partition: _told(line, MEMO) for partition, line in self.lines.items()}

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Partition → bytes."""
        return {partition: int(_told(line, SIZE)) for partition, line in self.lines.items()}

    @property
    def objects(self) -> dict[str, int]:
        """Hash → bytes of every object."""
        return dict(zip(self.md5s.values(), self.sizes.values(), strict=True))

    @property
    def rows(self) -> int:
        """Rows of the whole table."""
        return sum(int(_told(line, ROWS)) for line in self.lines.values() if line.startswith(ROWS[0]))

    def with_partitions(self, partitions: Mapping[str, Entry]) -> "Manifest":
        """The same table with these partitions instead."""
        return replace(self, partitions=partitions)

    def plus(self, partitions: Mapping[str, Entry]) -> "Manifest":
        """The same table with these partitions too, in the place of those of their names."""
        return replace(self, partitions=Partitions.of(self.partitions) | partitions)


HEAD = ("table", "suffix", "code", "params", "libraries", "result_version")
BEGIN, END = ',\n"partitions":{\n', "\n}}\n"
ROWS, SIZE, MD5, MEMO = ('{"rows":', ","), ('"size":', ","), ('"md5":"', '"'), ('"memo":"', '"')
"""What a field of a line stands between; nothing nested comes before them."""


def _told(line: str, between: tuple[str, str]) -> str:
    before, after = between
    begin = line.index(before) + len(before)
    return line[begin : line.index(after, begin)]


def _sorted(value: Mapping[str, Any] | str | int) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


@lru_cache(maxsize=1 << 14)
def _entry(line: str) -> Entry:
    """A run asks for the same entry several times: before, while and after it changes the table."""
    return Entry.from_line(line)


@lru_cache(maxsize=32)
def _read(path: Path, _same: tuple[int, int, int]) -> Manifest:
    """A run meets the same file many times: as what it is to change, and as an input of several stages."""
    return _parsed(path.read_bytes())


@lru_cache(maxsize=32)
def _parsed(text: bytes) -> Manifest:
    """What is shown is most often what is recorded."""
    head, begin, body = text.decode().partition(BEGIN)
    if not begin:  # the same, laid out by another hand
        found = orjson.loads(text)
        entries = {name: Entry.from_dict(entry) for name, entry in found["partitions"].items()}
        return Manifest(**{**found, "partitions": entries})
    lines = (line.partition(": ") for line in body.removesuffix(END).split(",\n") if line)
    return Manifest(**orjson.loads(head + "}"), partitions=Partitions({name[1:-1]: line for name, _, line in lines}))
