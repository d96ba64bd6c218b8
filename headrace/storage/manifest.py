"""Manifests: the partitions of a table and what made each. Versioned with the data, they are its lineage.

Format 2 is a folder `_manifest/` in the table's folder; readers of folders skip names that begin with `_`:

- `head.json`: the table, its fingerprint, the schemas of its Parquet files, and the list of chunks with their hashes.
- `<month>.<md5>.json`: a chunk, one line per partition that starts in that month (`static` for those that stand for no
  time). A chunk never changes; one that lost or gained nothing is carried over without being read. So a new day writes
  one chunk and the head, and a reader of an old head finds the chunks that it names.

Format 1 (up to 0.2) was one file `manifest.json` with one line per partition. It is read, and never written.

All that knows how a manifest is laid out is in this module, in `manifest_entries` and, for one entry, in
`partition_entry`.
"""

import hashlib
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import msgspec

from headrace.errors import HeadraceError
from headrace.storage.field_ids import Schema, TableColumn
from headrace.storage.manifest_entries import (
    FOLDER,
    Chunk,
    ChunkReference,
    LazyEntries,
    Load,
    damaged_manifest,
)
from headrace.storage.partition_entry import ENCODER, EntryFormat1, PartitionEntry
from headrace.storage.partition_names import check_partition_names, hashes_by_partition

FORMAT = 2
HEAD_FILE = f"{FOLDER}/head.json"
FORMAT_1_FILE = "manifest.json"

RETAINED_BYTES = 64 << 20
"""Chunks of a manifest up to this size stay in memory; those of a larger one are read again when they are needed."""


class ManifestFormatError(HeadraceError):
    """A manifest was written by a later version of Headrace."""


class _Head(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    format: int
    table: str
    suffix: str
    code: Mapping[str, str]
    params: Mapping[str, Any]
    libraries: Mapping[str, str]
    result_version: int
    schemas: Mapping[str, Schema]
    columns: tuple[TableColumn, ...] = ()
    chunks: tuple[ChunkReference, ...]


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
        partitions: Partition → entry; a raw partition of several objects has an entry for each, named
            `<partition>+<hash of the key>`.
        columns: The columns that not every file has under its name and type, as they are declared.
    """

    table: str
    suffix: str = ".parquet"
    code: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    result_version: int = 0
    partitions: Mapping[str, PartitionEntry] = field(default_factory=dict)
    columns: tuple[TableColumn, ...] = ()

    @cached_property
    def entries(self) -> LazyEntries:
        """The partitions, decoded only where somebody asks for them."""
        return LazyEntries.of(self.partitions)

    @property
    def schemas(self) -> Mapping[str, Schema]:
        """Hash → schema of the Parquet files that have it."""
        return self.entries.schemas

    @property
    def md5s(self) -> dict[str, str]:
        """Partition → hash of its bytes."""
        return self.entries.md5s

    @cached_property
    def partition_md5s(self) -> Mapping[str, str]:
        """The same, with the objects of a raw partition as one: it has changed if one of them has."""
        return hashes_by_partition(self.md5s)

    @property
    def cache_keys(self) -> dict[str, str]:
        """Partition → cache key."""
        return self.entries.cache_keys

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Partition → bytes."""
        return self.entries.column("size")

    @property
    def files(self) -> dict[str, str]:
        """File name → hash of its bytes, for every partition."""
        return {partition + self.suffix: md5 for partition, md5 in self.md5s.items()}

    @property
    def objects(self) -> dict[str, int]:
        """Hash → bytes of every file of the table, chunks of its manifest included."""
        return {file.md5: file.size for file in self.entries.files}

    @property
    def rows(self) -> int:
        """Rows of the whole table."""
        return self.entries.rows

    def with_partitions(self, partitions: Mapping[str, PartitionEntry]) -> "Manifest":
        """The same table with these partitions instead."""
        return replace(self, partitions=partitions)

    def plus(self, partitions: Mapping[str, PartitionEntry]) -> "Manifest":
        """The same table with these partitions too, in the place of those of their names."""
        return replace(self, partitions=self.entries | partitions)

    def to_files(self) -> "ManifestFiles":
        """The files of the manifest, in canonical JSON: equal manifests give equal bytes.

        Raises:
            PartitionNameError: The name of an added partition is not valid.
        """
        chunks = self.entries.to_chunks(self.table)
        used = {name for chunk in chunks for name in chunk.reference.schemas}
        head = _Head(
            format=FORMAT,
            table=self.table,
            suffix=self.suffix,
            code=self.code,
            params=self.params,
            libraries=self.libraries,
            result_version=self.result_version,
            schemas={name: schema for name, schema in self.schemas.items() if name in used},
            columns=self.columns,
            chunks=tuple(chunk.reference for chunk in chunks),
        )
        return ManifestFiles(msgspec.json.format(ENCODER.encode(head), indent=1) + b"\n", chunks)


@dataclass(frozen=True)
class ManifestFiles:
    """The files of a manifest.

    Attributes:
        head: Content of `head.json`.
        chunks: The chunks.
    """

    head: bytes
    chunks: list[Chunk]

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return len(self.head) + sum(chunk.reference.size for chunk in self.chunks)

    @property
    def md5s(self) -> dict[str, str]:
        """Path → hash of every file, as the table's `.dir` object lists them."""
        head = hashlib.md5(self.head, usedforsecurity=False).hexdigest()
        return {HEAD_FILE: head, **{chunk.reference.path: chunk.reference.md5 for chunk in self.chunks}}


def is_manifest_file(path: str) -> bool:
    """Whether a path, relative to its table's folder, is a file of the manifest."""
    return path == FORMAT_1_FILE or path.startswith(f"{FOLDER}/")


def parse_manifest(
    content: bytes,
    load: Load,
    location: str = "the manifest",
    shared: "MutableMapping[str, Chunk] | None" = None,
) -> Manifest:
    """The manifest with this head, or this file of format 1.

    Args:
        content: The bytes of `head.json` or `manifest.json`.
        load: Reads a chunk.
        location: Path or address of the file, for messages.
        shared: md5 → chunk that another manifest has read; this one's are added.

    Raises:
        DamagedManifestError: The bytes are not a manifest.
        ManifestFormatError: A later version of Headrace wrote it.
    """
    try:
        number = _VERSION.decode(content).format
        if number == 1:
            return _MANIFEST_1.decode(content).upgraded()
        if number > FORMAT:
            raise ManifestFormatError(
                f"{location}: expected a manifest of format {FORMAT} or earlier, found format {number}. A later version"
                " of Headrace wrote it: upgrade this environment, then run the same command again."
            )
        head = _HEAD.decode(content)
    except msgspec.MsgspecError as error:
        raise damaged_manifest(location, str(error)) from None
    is_retained = sum(reference.size for reference in head.chunks) <= RETAINED_BYTES
    shared = {} if shared is None else shared
    chunks = [
        shared.get(reference.md5)
        or shared.setdefault(reference.md5, Chunk(reference, load, head.table, is_retained=is_retained))
        for reference in head.chunks
    ]
    entries = LazyEntries(chunks, schemas=head.schemas)
    return Manifest(
        head.table,
        head.suffix,
        head.code,
        head.params,
        head.libraries,
        head.result_version,
        partitions=entries,
        columns=head.columns,
    )


class _Manifest1(msgspec.Struct, frozen=True):
    table: str
    suffix: str
    code: Mapping[str, str]
    params: Mapping[str, Any]
    libraries: Mapping[str, str]
    partitions: Mapping[str, EntryFormat1]
    result_version: int = 0

    def upgraded(self) -> Manifest:
        check_partition_names(self.partitions, self.table)
        entries = {name: entry.upgraded(name) for name, entry in self.partitions.items()}
        return Manifest(
            self.table, self.suffix, self.code, self.params, self.libraries, self.result_version, partitions=entries
        )


class _Version(msgspec.Struct, frozen=True):
    format: int = 1


_MANIFEST_1 = msgspec.json.Decoder(_Manifest1)
_VERSION = msgspec.json.Decoder(_Version)
_HEAD = msgspec.json.Decoder(_Head)
