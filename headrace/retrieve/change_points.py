"""two times → requests: every moment between them at which a feature of some key changed, as it became known.

That is what retrieval without request rows answers: the history of the keys, each row as a model would have seen it
then. Feast's own store gives one row a key, at the end date, instead; ours holds that row too, if something changed.
"""

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from headrace.dataset import EVENT_TIME, KNOWN_TIME, UTC_MICROSECONDS
from headrace.retrieve.errors import InvalidRequestError
from headrace.retrieve.join import Lookup
from headrace.retrieve.partition_reader import PartitionReader, microseconds, read_manifest, utc_literal
from headrace.retrieve.requests import TIME
from headrace.storage.table_store import TableStore


def history(  # noqa: PLR0913  where, what, from when to when, and how it is read
    table_store: TableStore,
    lookups: Sequence[Lookup],
    start: datetime | None,
    end: datetime | None,
    *,
    as_known: bool,
    verify: bool,
) -> pl.DataFrame:
    """Keys and `event_timestamp` of every such moment from `start` to `end`, both included, sorted.

    Raises:
        InvalidRequestError: A time is missing or has no zone, or the views have no keys in common to make rows of.
    """
    since, until = _moment(start, "start_date"), _moment(end, "end_date")
    widest = max(lookups, key=lambda lookup: len(lookup.keys))
    apart = [lookup.name for lookup in lookups if not set(lookup.keys.values()) <= set(widest.keys.values())]
    if apart:
        raise InvalidRequestError(
            f"{widest.name} is joined by {', '.join(widest.keys.values())}, {apart[0]} by other keys: no row"
            " has both. Retrieve them one after the other, or give requests that name the keys."
        )
    same = [lookup for lookup in lookups if set(lookup.keys.values()) == set(widest.keys.values())]
    keys = list(widest.keys.values())
    found = [
        _moments(table_store, lookup, since, until, as_known=as_known, verify=verify).select(*keys, TIME)
        for lookup in same
    ]
    return pl.concat(found).drop_nulls().unique().sort(*keys, TIME)


def _moments(  # noqa: PLR0913
    table_store: TableStore, lookup: Lookup, since: int, until: int, *, as_known: bool, verify: bool
) -> pl.DataFrame:
    table = read_manifest(table_store, lookup.table, lookup.release)
    # A row may become known any time after its event, so as it became known, the past has no bound.
    rows = PartitionReader.between(table_store, table, None if as_known else since, until, verify=verify)
    changed = pl.max_horizontal(EVENT_TIME, KNOWN_TIME) if as_known else pl.col(EVENT_TIME)
    times = rows.read([*lookup.keys, EVENT_TIME, KNOWN_TIME]).with_columns(changed.cast(UTC_MICROSECONDS).alias(TIME))
    renamed = {key: column for key, column in lookup.keys.items() if key != column}
    return (
        times.filter(pl.col(TIME).is_between(utc_literal(since), utc_literal(until)))
        .cast({key: lookup.types[key] for key in lookup.keys})
        .rename(renamed)
    )


def _moment(time: datetime | None, name: str) -> int:
    if time is None or time.tzinfo is None:
        found = "none" if time is None else f"{time.isoformat()} without one"
        raise InvalidRequestError(
            f"Without requests, expected start_date and end_date with a zone, found {found} for {name} (Feast uses the"
            " current time for a missing end_date). For example datetime(2013, 1, 9, tzinfo=UTC)."
        )
    return microseconds(time)
