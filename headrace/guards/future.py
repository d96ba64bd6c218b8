"""The check `future`: times of rows, and starts of raw partitions, beyond the moment at which anything can be known.

No data is needed to know that moment, so a wrong time in the data cannot move it: it is the clock when a table is read
and released, and the time of the release, which git keeps, when it is published. A clock that is slow does not count
where git knows of a later release.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from headrace.dataset import Guards
from headrace.guards.finding import GuardFinding, hash_state
from headrace.storage.manifest import Manifest
from headrace.storage.partition_names import entries_by_partition

CHECK = "future"
LISTED = 20
"""Partitions of a table that may be findings of their own; where there are more, the table is one finding."""


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment_of(microseconds: int) -> datetime:
    """The time so many microseconds after 1970 (UTC), or the last or first one that there is."""
    try:
        return EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        year, month, day = (9999, 12, 31) if microseconds > 0 else (1, 1, 1)
        return datetime(year, month, day, tzinfo=UTC)


def clock() -> datetime:
    """The time of this machine's clock (UTC)."""
    return datetime.now(UTC)


def future_findings(
    table: str, times: Mapping[str, datetime], md5s: Mapping[str, str], guards: Guards, moment: datetime
) -> list[GuardFinding]:
    """A finding per partition whose newest time is beyond `moment` by more than the bound.

    Args:
        table: The table.
        times: Partition → its newest time.
        md5s: Partition → hash of its bytes.
        guards: The bounds.
        moment: The moment at which anything can be known.
    """
    if guards.max_future is None:
        return []
    beyond = {name: time for name, time in sorted(times.items()) if time - moment > guards.max_future}
    limit = f"{moment.isoformat(timespec='seconds')}, the moment of this step, by more than {guards.max_future}"
    if len(beyond) > LISTED:
        names = ", ".join(list(beyond)[:3])
        text = f"{table}: {len(beyond):,} partitions ({names}, …) lie beyond {limit}"
        return [GuardFinding(check=CHECK, table=table, state_hash=_hash(beyond, md5s), text=text)]
    return [
        GuardFinding(
            check=CHECK,
            table=table,
            partition=name,
            state_hash=_hash([name], md5s),
            text=f"{table} {name}: {time.isoformat(timespec='seconds')} lies beyond {limit}",
        )
        for name, time in beyond.items()
    ]


def _hash(partitions: Iterable[str], md5s: Mapping[str, str]) -> str:
    return hash_state(f"{name} {md5s[name]}" for name in partitions)


def starts_of(manifest: Manifest, partitions: Iterable[str]) -> dict[str, datetime]:
    """Partition → start of its interval, of those of these partitions that have one.

    A partition without rows holds nothing of the future: the last days of the current month, for example.
    """
    names = list(partitions)
    is_complete = all(name in manifest.entries for name in names)
    objects = {} if is_complete else entries_by_partition(manifest.md5s)  # one entry per object of a partition
    entries = {objects.get(name, [name])[0]: name for name in names}
    rows = manifest.entries.pick("rows", entries)
    starts = manifest.entries.pick("start", (entry for entry, count in rows.items() if count != 0))
    return {entries[entry]: start for entry, start in starts.items() if start is not None}
