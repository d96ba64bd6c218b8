"""The entries of a manifest: chunks of them as they are stored, and all of them as one mapping, read when needed."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from headrace.errors import HeadraceError
from headrace.storage.field_ids import Schema
from headrace.storage.partition_entry import PartitionEntry, decode_entry, encode_entry
from headrace.storage.partition_names import STATIC, check_partition_names, chunk_name, partition_interval

T = TypeVar("T")

YEAR_LENGTH = len("2013")

FOLDER = "_manifest"

KEY_COLUMNS = ("md5", "cache_key")

Load = Callable[["ChunkReference"], bytes]
"""Reads the bytes of a chunk, and raises if they are not those that the reference names."""


class DamagedManifestError(HeadraceError):
    """A manifest, or a chunk of one, is not what was written."""


class StoredFile(msgspec.Struct, frozen=True):
    """An object of the cache, as a manifest records it.

    Attributes:
        md5: Its name.
        size: Its bytes.
        sha256: Second hash of its bytes; None in manifests of format 1.
    """

    md5: str
    size: int
    sha256: str | None = None


class ChunkReference(msgspec.Struct, frozen=True, omit_defaults=True):
    """A chunk, as the head lists it.

    Attributes:
        name: Month, or `static`.
        md5: Hash of the chunk's bytes, and its name in the cache and on the remote.
        sha256: Second hash of its bytes.
        size: Its bytes.
        partitions: Number of partitions in it.
        rows: Their rows, as far as they are counted.
        bytes: Their bytes.
        schemas: Hashes of their schemas.
        profile: Hash of the object that holds their merged profile.
    """

    name: str
    md5: str
    sha256: str
    size: int
    partitions: int
    rows: int
    bytes: int
    schemas: tuple[str, ...] = ()
    profile: str | None = None

    @property
    def path(self) -> str:
        """Path of its file, relative to the table's folder."""
        return f"{FOLDER}/{self.name}.{self.md5}.json"

    @property
    def file(self) -> StoredFile:
        """Its file."""
        return StoredFile(self.md5, self.size, self.sha256)


class Chunk:
    """The partitions of one month, which are read when they are needed."""

    def __init__(self, reference: ChunkReference, load: Load, table: str, *, is_retained: bool = True) -> None:
        """A chunk of `table` that `load` reads."""
        self.reference = reference
        self.table = table
        self.is_retained = is_retained
        self._load = load
        self._content: bytes | None = None
        self._columns: dict[str, dict[str, Any]] = {}
        self._has_valid_names = False

    @classmethod
    def build(cls, name: str, lines: Mapping[str, Raw], table: str) -> "Chunk":
        """The chunk with these partitions.

        Raises:
            PartitionNameError: A name is not valid.
        """
        check_partition_names(lines, table)
        order = sorted(lines)
        body = b",\n".join(msgspec.json.encode(partition) + b":" + bytes(lines[partition]) for partition in order)
        content = b"{\n" + body + b"\n}\n"
        facts = [_SUMMARY.decode(lines[partition]) for partition in order]
        reference = ChunkReference(
            name,
            hashlib.md5(content, usedforsecurity=False).hexdigest(),
            hashlib.sha256(content).hexdigest(),
            len(content),
            len(order),
            sum(fact.rows or 0 for fact in facts),
            sum(fact.size for fact in facts),
            tuple(sorted({fact.schema for fact in facts if fact.schema})),
        )
        return cls(reference, lambda _reference: content, table)

    @property
    def content(self) -> bytes:
        """The bytes of its file."""
        if self._content is not None:
            return self._content
        content = self._load(self.reference)
        if self.is_retained:
            self._content = content
        return content

    @cached_property
    def lines(self) -> dict[str, Raw]:
        """Partition → its entry as JSON."""
        return self._decode(_LINES)

    @property
    def md5s(self) -> dict[str, str]:
        """Partition → hash of its bytes."""
        return self.column("md5")

    def column(self, name: str) -> dict[str, Any]:
        """Partition → one field of its entry, in one pass over the bytes."""
        if name not in self._columns:
            if name in KEY_COLUMNS:  # a plan needs both of its own table
                keys = self._decode(_KEYS)
                self._columns["md5"] = {partition: row.md5 for partition, row in keys.items()}
                self._columns["cache_key"] = {partition: row.cache_key for partition, row in keys.items()}
            else:
                rows = self._decode(_COLUMNS[name])
                self._columns[name] = {partition: row.value for partition, row in rows.items()}
        return self._columns[name]

    @property
    def files(self) -> list[StoredFile]:
        """The files of its partitions, in one pass over the bytes."""
        return list(self._decode(_FILES).values())

    def _decode(self, decoder: "msgspec.json.Decoder[dict[str, T]]") -> dict[str, T]:
        try:
            decoded = decoder.decode(self.content)
        except msgspec.MsgspecError as error:
            raise damaged_manifest(f"{self.table}/{self.reference.path}", str(error)) from None
        if not self._has_valid_names:
            check_partition_names(decoded, self.table)
            self._has_valid_names = True
        return decoded


class LazyEntries(Mapping[str, PartitionEntry]):
    """Partition → entry: chunks that are read when they are needed, less some partitions, and others in their place."""

    def __init__(
        self,
        chunks: Iterable[Chunk] = (),
        removed: Collection[str] = (),
        added: Mapping[str, Raw] | None = None,
        schemas: Mapping[str, Schema] | None = None,
    ) -> None:
        """These chunks less `removed`, and `added`; no partition is in both."""
        self.chunks = tuple(chunks)
        self.removed = frozenset(removed)
        self.added = dict(added or {})
        self.schemas = dict(schemas or {})

    @classmethod
    def of(cls, entries: Mapping[str, PartitionEntry]) -> "LazyEntries":
        """These entries."""
        if isinstance(entries, LazyEntries):
            return entries
        return cls(added={name: Raw(encode_entry(entry)) for name, entry in entries.items()})

    def column(self, name: str) -> dict[str, Any]:
        """Partition → one field of its entry, in the order of partitions."""
        values: dict[str, Any] = {}
        for chunk in self.chunks:
            values |= chunk.column(name)
        for partition in self.removed:
            del values[partition]
        values |= {partition: _FIELDS[name].decode(line).value for partition, line in self.added.items()}
        return dict(sorted(values.items())) if self.added or not self._is_sorted else values

    def pick(self, name: str, partitions: Iterable[str]) -> dict[str, Any]:
        """Partition → one field of its entry, of those of these partitions that there are.

        No chunk is read that has none of them.
        """
        values: dict[str, Any] = {}
        for partition in partitions:
            if partition in self.added:
                values[partition] = _FIELDS[name].decode(self.added[partition]).value
            elif partition not in self.removed and (chunk := self._find_chunk(partition)):
                values[partition] = chunk.column(name)[partition]
        return values

    def without_shared_chunks(self, other: "LazyEntries") -> tuple["LazyEntries", "LazyEntries"]:
        """Both tables less the chunks that they share: a partition in one of these is the same in both."""
        shared = {chunk.reference.md5 for chunk in self.chunks} & {chunk.reference.md5 for chunk in other.chunks}
        if self.removed or other.removed or not shared:
            return self, other
        mine, theirs = (
            LazyEntries([chunk for chunk in table.chunks if chunk.reference.md5 not in shared], (), table.added)
            for table in (self, other)
        )
        return mine, theirs

    @property
    def rows(self) -> int:
        """Rows of all partitions."""
        if self.removed:
            return sum(rows or 0 for rows in self.column("rows").values())
        added = (_SUMMARY.decode(line).rows or 0 for line in self.added.values())
        return sum(chunk.reference.rows for chunk in self.chunks) + sum(added)

    @cached_property
    def _is_sorted(self) -> bool:
        """Whether the partitions of each chunk come after those of the chunk before."""
        ends = [(next(iter(names)), next(reversed(names))) for names in (chunk.md5s for chunk in self.chunks)]
        return all(last < first for (_, last), (first, _) in pairwise(ends))

    @cached_property
    def md5s(self) -> dict[str, str]:
        """Partition → hash of its bytes."""
        return self.column("md5")

    @cached_property
    def cache_keys(self) -> dict[str, str]:
        """Partition → cache key."""
        return self.column("cache_key")

    @cached_property
    def _chunks_by_name(self) -> dict[str, Chunk]:
        return {chunk.reference.name: chunk for chunk in self.chunks}

    def _find_chunk(self, partition: str) -> Chunk | None:
        """The chunk that has the partition, also if it is in `removed`: no other chunk is read."""
        chunk = self._chunks_by_name.get(chunk_name(partition))
        return chunk if chunk and partition in chunk.md5s else None

    def _replaced(self, partitions: Iterable[str]) -> set[str]:
        """Those of the partitions that a chunk has."""
        return {partition for partition in partitions if self._find_chunk(partition)}

    def line(self, partition: str) -> Raw | None:
        """The entry as JSON; None if there is no such partition."""
        if partition in self.added:
            return self.added[partition]
        chunk = None if partition in self.removed else self._find_chunk(partition)
        return chunk.lines[partition] if chunk else None

    @property
    def first(self) -> str | None:
        """The first partition, or None; of a table that was read as it is, only the first chunk is read."""
        is_as_read = self.chunks and not (self.added or self.removed)
        return next(iter(self.chunks[0].md5s if is_as_read else self), None)

    @property
    def files(self) -> list[StoredFile]:
        """The files of the partitions and of the chunks that hold them."""
        chunks = [chunk.reference.file for chunk in self.chunks]
        if self.removed:
            own = [_FILE.decode(line) for line in self.lines.values()]
        else:
            stored = [file for chunk in self.chunks for file in chunk.files]
            own = [*stored, *(_FILE.decode(line) for line in self.added.values())]
        return [*chunks, *own]

    def overlapping(self, first: datetime | None, last: datetime | None) -> list[str]:
        """The partitions that may hold a time from `first` to `last` (both included, None for any), in order.

        Those without an interval are among them. The chunks of other months are not read.
        """
        near = self.starting_between(first, last)
        if not near.follows_utc():  # a local day begins up to 14 hours before the UTC day of its name, or 12 after it
            near = self.starting_between(_shift(first, -1), _shift(last, 1))
            intervals = {name: entry.interval(name) for name, entry in near.items()}
        else:
            intervals = {name: partition_interval(name) for name in near}
        return sorted(
            name
            for name, (start, end) in intervals.items()
            if start is None or end is None or ((last is None or start <= last) and (first is None or first < end))
        )

    def follows_utc(self) -> bool:
        """Whether the intervals of the partitions are those that their names write, in UTC; False if there are none."""
        name = next((name for name in self if partition_interval(name)[0] is not None), None)
        return name is not None and self[name].interval(name) == partition_interval(name)

    def starting_between(self, first: date | None, last: date | None) -> "LazyEntries":
        """The partitions that start in the months from `first` to `last` (None for any), static ones, and years.

        The chunks of other months are not read.
        """
        low, high = (day.isoformat()[:7] if day else None for day in (first, last))

        def is_within(name: str, *, may_be_year: bool) -> bool:
            least = f"{low[:4]}-01" if low and may_be_year else low  # a year is in the chunk of its January, alone
            return name == STATIC or ((least is None or least <= name) and (high is None or name <= high))

        chunks = [
            chunk
            for chunk in self.chunks
            if is_within(chunk.reference.name, may_be_year=chunk.reference.partitions == 1)
        ]
        kept = {chunk.reference.name for chunk in chunks}
        removed = [name for name in self.removed if chunk_name(name) in kept]
        added = {
            name: line
            for name, line in self.added.items()
            if is_within(chunk_name(name), may_be_year=len(name) == YEAR_LENGTH)
        }
        return LazyEntries(chunks, removed, added, self.schemas)

    def changed_since(self, other: "LazyEntries") -> list[str]:
        """Partitions that the other table does not have, or with other bytes or another cache key."""
        unchanged = () if other.removed else set(other.chunks)
        chunks = [chunk for chunk in self.chunks if chunk not in unchanged]
        removed = {name for chunk in chunks for name in self.removed & chunk.md5s.keys()} if self.removed else ()
        some = LazyEntries(chunks, removed, self.added)
        if not some:
            return []
        md5s, keys = other.md5s, other.cache_keys
        own_keys = some.cache_keys
        return [name for name, md5 in some.md5s.items() if (md5s.get(name), keys.get(name)) != (md5, own_keys[name])]

    def select(self, partitions: Collection[str]) -> "LazyEntries":
        """Those of these partitions that there are."""
        kept = set(partitions)
        if len(kept) == len(self) and kept == self.md5s.keys():
            return self
        removed = self.removed | (self.md5s.keys() - kept - self.added.keys())
        added = {name: line for name, line in self.added.items() if name in kept}
        return LazyEntries(self.chunks, removed, added, self.schemas)

    def with_lines(self, lines: Mapping[str, Raw], schemas: Mapping[str, Schema] | None = None) -> "LazyEntries":
        """These entries, with others in the place of those of the same names."""
        if not lines:
            return self
        removed = self.removed | self._replaced(lines)
        return LazyEntries(self.chunks, removed, self.added | dict(lines), {**self.schemas, **(schemas or {})})

    def __or__(self, other: Mapping[str, PartitionEntry]) -> "LazyEntries":
        """These entries, with the others in the place of those of the same names."""
        more = LazyEntries.of(other)
        if not self:
            return more
        if self.chunks != more.chunks:
            return self.with_lines(more.lines, more.schemas)
        kept = {name for name in self._replaced(self.added) if name not in more.removed}
        added = {name: line for name, line in self.added.items() if name not in kept} | more.added
        removed = (self.removed & more.removed) | self._replaced(added)
        return LazyEntries(self.chunks, removed, added, self.schemas | more.schemas)

    @property
    def lines(self) -> dict[str, Raw]:
        """Partition → its entry as JSON."""
        lines = {name: line for chunk in self.chunks for name, line in chunk.lines.items() if name not in self.removed}
        return lines | self.added

    def to_chunks(self, table: str) -> list[Chunk]:
        """The chunks, those that lost or gained nothing as they were.

        Raises:
            PartitionNameError: The name of an added partition is not valid.
        """
        gained: dict[str, dict[str, Raw]] = {}
        for partition, line in self.added.items():
            gained.setdefault(chunk_name(partition), {})[partition] = line
        chunks = []
        for chunk in self.chunks:
            new = gained.pop(chunk.reference.name, {})
            lost = self.removed & chunk.md5s.keys() if self.removed else ()
            if not new and not lost:
                chunks.append(chunk)
                continue
            lines = {name: line for name, line in chunk.lines.items() if name not in lost} | new
            if lines:
                chunks.append(Chunk.build(chunk.reference.name, lines, table))
        chunks += [Chunk.build(name, lines, table) for name, lines in gained.items()]
        return sorted(chunks, key=lambda chunk: chunk.reference.name)

    def __getitem__(self, partition: str) -> PartitionEntry:
        line = self.line(partition)
        if line is None:
            raise KeyError(partition)
        return decode_entry(line)

    def __iter__(self) -> Iterator[str]:
        return iter(self.md5s)

    def __len__(self) -> int:
        return sum(chunk.reference.partitions for chunk in self.chunks) - len(self.removed) + len(self.added)

    def __contains__(self, partition: object) -> bool:
        if not isinstance(partition, str) or partition in self.added:
            return partition in self.added
        return partition not in self.removed and self._find_chunk(partition) is not None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        entries = LazyEntries.of(other)
        if (self.chunks, self.removed) == (entries.chunks, entries.removed):
            return self.added == entries.added
        return self.lines == entries.lines

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"LazyEntries({len(self)} partitions)"

    def files_of_unknown_schemas(self) -> dict[str, str]:
        """Hash of each schema that is not known → md5 of a file that has it."""
        added = [_SUMMARY.decode(line) for line in self.added.values()]
        return {item.schema: item.md5 for item in added if item.schema and item.schema not in self.schemas}

    def with_schemas(self, schemas: Mapping[str, Schema]) -> "LazyEntries":
        """The same entries, with these schemas known too."""
        return LazyEntries(self.chunks, self.removed, self.added, {**self.schemas, **schemas})

    def companions(self, table: str) -> "LazyEntries":
        """Entries of a table beside this one, where there are any."""
        return LazyEntries.of(
            {name: beside[table] for name, beside in self.column("companions").items() if table in beside}
        )


def _shift(time: datetime | None, days: int) -> datetime | None:
    """So many days later, or the last or first time that there is."""
    try:
        return None if time is None else time + timedelta(days=days)
    except OverflowError:
        return time


def check_chunk(reference: ChunkReference, content: bytes, location: str) -> bytes:
    """The bytes of a chunk, if they are those that the head names.

    Raises:
        DamagedManifestError: They are others.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != reference.sha256:
        raise damaged_manifest(
            location,
            f"expected {reference.size:,} bytes with sha256 {reference.sha256}, found {len(content):,} with {found}",
        )
    return content


def damaged_manifest(location: str, reason: str) -> DamagedManifestError:
    """The error for a file of a manifest that is not what was written."""
    return DamagedManifestError(
        f"{location} is damaged: {reason}. In a cache or on the remote, `headrace doctor --repair` restores it. In a"
        " table's folder, `dvc checkout` of that folder restores the recorded table; if none is recorded, delete its"
        f" `{FOLDER}` folder and run the command again: what is in the cache is reused."
    )


class _Keys(msgspec.Struct, frozen=True):
    md5: str
    cache_key: str


class _Summary(msgspec.Struct, frozen=True):
    md5: str
    size: int
    rows: int | None = None
    schema: str | None = None


def _field_type(name: str) -> Any:  # noqa: ANN401  a struct that is made here has no type of its own
    """A struct that decodes one field of an entry, as `value`, and skips the others."""
    found = next(field for field in msgspec.structs.fields(PartitionEntry) if field.name == name)
    if found.required:
        return msgspec.defstruct("Field", [("value", found.type)], rename={"value": name}, frozen=True)
    default = {} if found.default is msgspec.NODEFAULT else found.default
    return msgspec.defstruct("Field", [("value", found.type, default)], rename={"value": name}, frozen=True)


_LINES = msgspec.json.Decoder(dict[str, Raw])
_SUMMARY = msgspec.json.Decoder(_Summary)
_FILE = msgspec.json.Decoder(StoredFile)
_FILES = msgspec.json.Decoder(dict[str, StoredFile])
_KEYS = msgspec.json.Decoder(dict[str, _Keys])
_READ_COLUMNS = ("md5", "cache_key", "size", "rows", "schema", "start", "end", "metadata", "companions")
_FIELDS = {name: msgspec.json.Decoder(_field_type(name)) for name in _READ_COLUMNS}
_COLUMNS = {name: msgspec.json.Decoder(dict[str, _field_type(name)]) for name in _READ_COLUMNS}  # type: ignore[misc]
