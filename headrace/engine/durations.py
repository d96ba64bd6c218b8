"""How long the partitions of each table took on this machine, for an estimate before many are computed.

Manifests hold no clock, so this is kept beside the cache, which a clone and the worktrees of its runs share. It decides
nothing but what a message says.
"""

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from headrace.storage.table_store import TableStore

FOLDER = "durations"
MANY = 32
"""A run of fewer partitions replaces a record of no more: start-up and idle threads would count for too much."""


class StageDuration(msgspec.Struct, frozen=True):
    """What computing some partitions together took.

    Attributes:
        partitions: How many.
        seconds: Elapsed time, with all threads or workers.
    """

    partitions: int
    seconds: float


# no failpoint: a record that is torn or lost makes an estimate unknown, nothing else
def record_duration(table_store: TableStore, table: str, duration: StageDuration) -> None:
    """Keep what a run took. Where nothing can be written, nothing is kept."""
    known = _read(table_store, table)
    if not duration.partitions or (known and duration.partitions < min(known.partitions, MANY)):
        return
    path = _path(table_store, table)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(msgspec.json.encode(duration))
        temporary.replace(path)


def estimate_seconds(table_store: TableStore, table: str, partitions: int) -> float | None:
    """How long so many partitions of the table will take, as its last run here did; None if there was none."""
    known = _read(table_store, table)
    return known.seconds / known.partitions * partitions if known else None


def _read(table_store: TableStore, table: str) -> StageDuration | None:
    with suppress(OSError, msgspec.MsgspecError):
        duration = _DURATION.decode(_path(table_store, table).read_bytes())
        return duration if duration.partitions > 0 else None
    return None


def _path(table_store: TableStore, table: str) -> Path:
    return table_store.cache.folder / FOLDER / f"{table.replace('/', '.')}.json"


_DURATION = msgspec.json.Decoder(StageDuration)
