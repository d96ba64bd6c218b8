"""The entry of one partition in a manifest: what it was computed from, its files and its hashes."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from headrace.storage.partition_names import RecordedInterval, partition_interval

MAX_UTC_OFFSET = timedelta(hours=16)
"""More than any time zone ever had; midnights of successive days are 23 hours apart at least."""


class SourceObject(msgspec.Struct, frozen=True, omit_defaults=True):
    """An object that a raw partition was read from.

    Attributes:
        bucket: Its bucket, or `file:` and a path.
        key: Its key.
        etag: Its ETag when it was listed.
        sha256: Hash of its bytes.
        version: Its version, in a bucket that keeps versions.
    """

    bucket: str
    key: str
    etag: str
    sha256: str | None = None
    version: str | None = None


class PartitionEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One partition of a table.

    Attributes:
        cache_key: Hash of what it is computed from: an equal key means that there is nothing to do.
        md5: Hash of the file's bytes, and its name in the cache and on the remote.
        size: Bytes.
        rows: Rows in the file; None for raw bytes, which nobody has counted yet.
        sha256: Second hash of the file's bytes: an md5 can be forged. None in manifests of format 1.
        schema: Hash of the schema of its Parquet file, which the manifest's `schemas` has.
        profile: Hash of the object that holds its profile.
        start: Start of its time interval (UTC); None for a static name.
        end: End of its time interval, exclusive.
        objects: The objects that a raw partition was read from.
        inputs: Table → partition → md5 of everything it was computed from; empty for raw partitions.
        metadata: What else is known: rows in and rejected, the checks that failed, the query it came from.
        companions: Table → entry of what the same computation wrote to the tables beside this one.
    """

    cache_key: str
    md5: str
    size: int
    rows: int | None = None
    sha256: str | None = None
    schema: str | None = None
    profile: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    objects: tuple[SourceObject, ...] = ()
    inputs: Mapping[str, Mapping[str, str]] = {}
    metadata: Mapping[str, Any] = {}
    companions: "Mapping[str, PartitionEntry]" = {}

    def interval(self, name: str) -> RecordedInterval:
        """Start and end (exclusive, UTC) of the time interval of this entry as the partition `name`.

        The recorded one, if it is that of the name in some time zone; else the one that the name writes in UTC.
        """
        written = partition_interval(name)
        if self.start is None or written[0] is None or abs(self.start - written[0]) > MAX_UTC_OFFSET:
            return written
        return self.start, self.end

    @property
    def files(self) -> tuple["PartitionEntry", ...]:
        """This entry and its companions: every file that the computation wrote."""
        return self, *self.companions.values()


def encode_entry(entry: PartitionEntry) -> bytes:
    """The entry as one line of canonical JSON, without empty fields."""
    return ENCODER.encode(entry)


def decode_entry(line: bytes) -> PartitionEntry:
    """The entry that a line of canonical JSON, also one of format 1, holds.

    Raises:
        ValueError: The line is torn.
    """
    try:
        return _ENTRY.decode(line)
    except msgspec.ValidationError:
        return _ENTRY_1.decode(line).upgraded()


class EntryFormat1(msgspec.Struct, frozen=True):
    """An entry as manifests and journals up to 0.2 hold it."""

    memo: str
    md5: str
    size: int
    rows: int | None = None
    inputs: Mapping[str, Mapping[str, str]] = {}
    facts: Mapping[str, Any] = {}
    beside: "Mapping[str, EntryFormat1]" = {}

    def upgraded(self, partition: str = "") -> PartitionEntry:
        """The same entry in today's form."""
        metadata = dict(self.facts)
        source = metadata.pop("object", None)
        start, end = partition_interval(partition)
        return PartitionEntry(
            self.memo,
            self.md5,
            self.size,
            self.rows,
            sha256=source.get("sha256") if source else None,  # the object's bytes were stored unchanged
            start=start,
            end=end,
            objects=(msgspec.convert(source, SourceObject),) if source else (),
            inputs=self.inputs,
            metadata=metadata,
            companions={table: entry.upgraded(partition) for table, entry in self.beside.items()},
        )


ENCODER = msgspec.json.Encoder(order="deterministic")
_ENTRY = msgspec.json.Decoder(PartitionEntry)
_ENTRY_1 = msgspec.json.Decoder(EntryFormat1)
