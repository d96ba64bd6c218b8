"""Finds the row that column values identify, and the annotations that it was made from.

A training row identifies a feature row, too: its keys and `event_timestamp` select the newest row that was known at
that time. The row's age is not limited here; retrieval limits it by the table's ttl.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import polars as pl

from headrace.dataset import EVENT_TIME, KNOWN_TIME, OPERATION, UTC_MICROSECONDS
from headrace.errors import HeadraceError
from headrace.label import aggregation
from headrace.storage.dvc.cache import Cache
from headrace.storage.manifest import Manifest
from headrace.storage.table_schema import table_schema

REQUEST_TIME = "event_timestamp"
"""Column of a training row: the time as of which its features were retrieved."""

BOOLEANS = {"true": True, "false": False}

SIMPLE_TYPES: Mapping[type[pl.DataType], Callable[[str], Any]] = {
    pl.Date: date.fromisoformat,
    pl.Time: time.fromisoformat,
    pl.Boolean: lambda text: BOOLEANS[text.lower()],
    pl.String: str,
}
"""Type → how a value is read from text."""


class UnknownRowError(HeadraceError):
    """The column values match no row, or rows of several partitions."""


@dataclass(frozen=True)
class RowMatch:
    """The rows of one partition that match the given column values.

    Attributes:
        partition: Their partition.
        rows: Column → value of each row.
        annotations: The last event of each annotation that the rows name.
        origins: Bucket, key and row number of the object that each was read from, of validated rows.
    """

    partition: str
    rows: Sequence[dict[str, Any]]
    annotations: Sequence[dict[str, Any]] = ()
    origins: Sequence[dict[str, Any]] = ()

    @classmethod
    def find(cls, cache: Cache, manifest: Manifest, partition: str | None, values: Mapping[str, str]) -> "RowMatch":
        """The rows whose columns have these `values`, in `partition` or in whichever partition has them.

        Raises:
            UnknownRowError: No row matches, rows of several partitions do, or there is no such column or value.
        """
        if manifest.suffix != ".parquet":
            raise UnknownRowError(
                f"{manifest.table} stores objects unchanged ({manifest.suffix}), so its rows cannot be looked up. Look"
                f" up a row of validated/{manifest.table.split('/', 1)[1]}, or omit `--row`."
            )
        if REQUEST_TIME in values:
            return cls._find_as_of(cache, manifest, partition, values)
        names = [partition] if partition else _candidate_partitions(manifest, values)
        rows = {name: _filter_rows(_scan(cache, manifest, name), manifest.table, values) for name in names}
        matches = [cls(name, frame.to_dicts()) for name, frame in rows.items() if frame.height]
        if len(matches) != 1:
            raise UnknownRowError(f"{manifest.table}: {_format_values(values)} {_describe_matches(matches, names)}")
        return matches[0]

    @classmethod
    def _find_as_of(
        cls, cache: Cache, manifest: Manifest, partition: str | None, values: Mapping[str, str]
    ) -> "RowMatch":
        """The feature row that a request with these keys received at its `event_timestamp`, or the change of a history.

        Of a history it is the last one that was known then, which may be a deletion.
        """
        request_time: datetime = _parse_value(manifest.table, REQUEST_TIME, values[REQUEST_TIME], UTC_MICROSECONDS)
        keys = {column: value for column, value in values.items() if column != REQUEST_TIME}
        if not keys:
            raise UnknownRowError(
                f"{manifest.table}: {REQUEST_TIME} alone identifies no row. Add its keys, such as `--row carrier=UA`."
            )
        # Partitions are intervals of the event time, so the search begins with that of the request and goes back.
        earlier = manifest.entries.overlapping(None, request_time)
        for name in sorted([partition] if partition else earlier, reverse=True):
            rows = _filter_rows(_scan(cache, manifest, name), manifest.table, keys)
            is_history = {KNOWN_TIME, OPERATION} <= set(rows.columns)
            if not is_history and not {EVENT_TIME, KNOWN_TIME} <= set(rows.columns):
                raise UnknownRowError(
                    f"{manifest.table} has no {EVENT_TIME} and {KNOWN_TIME}, so {REQUEST_TIME} does not identify a row"
                    " of it. Give the values of its own columns."
                )
            times = [KNOWN_TIME] if is_history else [EVENT_TIME, KNOWN_TIME]
            known = rows.filter(pl.col(time) <= request_time for time in times)
            if known.height:
                return cls(name, known.sort(times, maintain_order=True).tail(1).to_dicts())
        raise UnknownRowError(
            f"{manifest.table}: no row with {_format_values(keys)} was known at {request_time.isoformat()}."
        )

    def with_annotations(self, cache: Cache, history_md5s: Sequence[str]) -> "RowMatch":
        """The same rows, with the annotations they name, from the annotation histories that the rows were made from."""
        ids = [name for row in self.rows for name in (row.get("annotation_ids") or [row.get("annotation_id")])]
        paths = [cache.fetch(md5) for md5 in history_md5s] if any(ids) else []
        wanted = pl.col("annotation_id").is_in(ids)
        newest = [aggregation.latest_events(pl.read_parquet(path)).filter(wanted) for path in paths]
        events = [event for frame in newest for event in frame.drop("result").sort("annotation_id").to_dicts()]
        return replace(self, annotations=events)


def _scan(cache: Cache, manifest: Manifest, partition: str) -> pl.LazyFrame:
    """The rows of a partition, in the columns of the whole table."""
    entry = manifest.partitions[partition]
    path = cache.fetch(entry.md5, entry.sha256)
    schema = table_schema(manifest)
    return schema.scan({partition: path}) if schema else pl.scan_parquet(path)


def _format_values(values: Mapping[str, str]) -> str:
    return " ".join(f"{column}={value}" for column, value in values.items())


def _describe_matches(matches: Sequence[RowMatch], names: Sequence[str]) -> str:
    if not matches:
        span = names[0] if len(names) == 1 else "it"
        if len(names) > 1:
            span = f"{names[0]} … {names[-1]} ({len(names):,} partitions)"
        return f"matches no row of {span}. `headrace lineage` without `--row` lists the partitions."
    shown = ", ".join(match.partition for match in matches[:4]) + (" …" if len(matches) > 4 else "")  # noqa: PLR2004
    return f"matches rows of {len(matches):,} partitions: {shown}. Choose one with `--partition`."


def _candidate_partitions(manifest: Manifest, values: Mapping[str, str]) -> list[str]:
    """The partition of the event time, if the values have one and the table has it; else all partitions."""
    if EVENT_TIME in values:
        time = _parse_value(manifest.table, EVENT_TIME, values[EVENT_TIME], UTC_MICROSECONDS)
        if found := manifest.entries.overlapping(time, time):
            return found
    return sorted(manifest.partitions)


def _filter_rows(rows: pl.LazyFrame, table: str, values: Mapping[str, str]) -> pl.DataFrame:
    schema = rows.collect_schema()
    for column in values:
        if column not in schema:
            raise UnknownRowError(f"{table} has no column {column!r}. Its columns: {', '.join(schema)}.")
    # Typed literals: Polars does not compare a string with a timestamp or an integer.
    literals = {
        name: pl.lit(_parse_value(table, name, text, schema[name]), schema[name]) for name, text in values.items()
    }
    return rows.filter(*(pl.col(name) == value for name, value in literals.items())).collect()


def _parse_value(table: str, column: str, text: str, kind: pl.DataType) -> Any:  # noqa: ANN401  any value of a row
    """`text` as a value of the column. A timestamp without a time zone is UTC."""
    try:
        return _convert(text, kind)
    except (ValueError, KeyError):
        raise UnknownRowError(f"{table}: {column} is {kind}, and {text!r} is not a value of that type.") from None


def _convert(text: str, kind: pl.DataType) -> Any:  # noqa: ANN401  any value of a row
    if isinstance(kind, pl.Datetime):
        timestamp = datetime.fromisoformat(text)
        timestamp = timestamp.astimezone(UTC) if timestamp.tzinfo else timestamp.replace(tzinfo=UTC)
        return timestamp if kind.time_zone else timestamp.replace(tzinfo=None)
    if isinstance(kind, pl.Decimal):
        return _decimal(text, kind)
    if kind.is_integer():
        return int(text)
    if kind.is_float():
        return float(text)
    for simple, parse in SIMPLE_TYPES.items():
        if kind == simple:
            return parse(text)
    raise ValueError(text)


def _decimal(text: str, kind: pl.Decimal) -> Decimal:
    """The number, if the type has it."""
    value = pl.Series([text]).cast(kind, strict=False).item()
    if not isinstance(value, Decimal) or value != Decimal(text):
        raise ValueError(text)
    return value
