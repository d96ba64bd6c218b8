"""column=value → the row: found in the one partition that has it, and led on to the annotations it was made from.

A training row is a way to name one too: given its keys and `event_timestamp`, the row is meant that was the newest
one known at that time. (How old it may be is for retrieval to judge, by the table's ttl.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from headrace.dataset import EVENT_TIME, KNOWN_TIME, UNPARTITIONED, UTC_MICROSECONDS
from headrace.errors import HeadraceError
from headrace.label import aggregation
from headrace.storage.dvc.cache import Cache
from headrace.storage.manifest import Manifest

ASKED_AT = "event_timestamp"
"""Column of a training row that says as of when it was answered."""

TRUTH = {"true": True, "false": False}


class UnknownRowError(HeadraceError):
    """No row is meant by what was given, or it cannot be told which."""


@dataclass(frozen=True)
class Found:
    """The rows of one partition that were meant.

    Attributes:
        partition: Where they are.
        rows: Column → value of each.
        annotations: The last event of every annotation that the rows name.
    """

    partition: str
    rows: Sequence[dict[str, Any]]
    annotations: Sequence[dict[str, Any]] = ()

    @classmethod
    def of(cls, cache: Cache, manifest: Manifest, partition: str | None, wanted: Mapping[str, str]) -> "Found":
        """The rows whose columns have the values `wanted`, in `partition` or wherever in the table they are.

        Raises:
            UnknownRowError: There are none, or several partitions have some; or there is no such column or value.
        """
        if manifest.suffix != ".parquet":
            raise UnknownRowError(
                f"{manifest.table} keeps bytes as they came ({manifest.suffix}), so it has no rows to name. Ask for a"
                f" row of validated/{manifest.table.split('/', 1)[1]}, or leave out `--row`."
            )
        if ASKED_AT in wanted:
            return cls._as_known(cache, manifest, partition, wanted)
        names = [partition] if partition else _likely(manifest, wanted)
        hits = {name: _matching(cache.fetch(manifest.partitions[name].md5), manifest.table, wanted) for name in names}
        found = [cls(name, rows.to_dicts()) for name, rows in hits.items() if rows.height]
        if len(found) != 1:
            said = " ".join(f"{column}={value}" for column, value in wanted.items())
            raise UnknownRowError(f"{manifest.table}: {said} is {_told(found, names)}")
        return found[0]

    @classmethod
    def _as_known(cls, cache: Cache, manifest: Manifest, partition: str | None, wanted: Mapping[str, str]) -> "Found":
        """The row that a request with these keys got at its `event_timestamp`."""
        moment: datetime = _value(manifest.table, ASKED_AT, wanted[ASKED_AT], UTC_MICROSECONDS)
        keys = {column: value for column, value in wanted.items() if column != ASKED_AT}
        if not keys:
            raise UnknownRowError(f"{manifest.table}: {ASKED_AT} alone names no row. Add its keys, such as carrier=UA.")
        day = moment.date().isoformat()
        names = (
            [partition] if partition else [name for name in manifest.partitions if name == UNPARTITIONED or name <= day]
        )
        for name in sorted(names, reverse=True):
            rows = _matching(cache.fetch(manifest.partitions[name].md5), manifest.table, keys)
            if not {EVENT_TIME, KNOWN_TIME} <= set(rows.columns):
                raise UnknownRowError(
                    f"{manifest.table} has no {EVENT_TIME} and {KNOWN_TIME}, so a row of it is not named by {ASKED_AT}."
                )
            known = rows.filter(pl.col(EVENT_TIME) <= moment, pl.col(KNOWN_TIME) <= moment)
            if known.height:
                return cls(name, known.sort(EVENT_TIME, KNOWN_TIME, maintain_order=True).tail(1).to_dicts())
        said = " ".join(f"{column}={value}" for column, value in keys.items())
        raise UnknownRowError(f"{manifest.table}: no row of {said} was known at {moment.isoformat()}.")

    def with_annotations(self, cache: Cache, histories: Sequence[str]) -> "Found":
        """The same, with what people did, out of the `histories` (md5s) that the rows were made from."""
        ids = [name for row in self.rows for name in (row.get("annotation_ids") or [row.get("annotation_id")])]
        paths = [cache.fetch(md5) for md5 in histories] if any(ids) else []
        last = [aggregation.newest(pl.read_parquet(path)).filter(pl.col("annotation_id").is_in(ids)) for path in paths]
        rows = [row for part in last for row in part.drop("result").sort("annotation_id").to_dicts()]
        return replace(self, annotations=rows)


def _told(found: Sequence[Found], names: Sequence[str]) -> str:
    span = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]} ({len(names):,} partitions)" if names else "no"
    if not found:
        return f"no row of {span}. `headrace lineage` without `--row` shows what there is."
    places = ", ".join(item.partition for item in found[:4])
    return f"in {len(found):,} partitions, {places}{' …' if len(found) > 4 else ''}. Say which with `--partition`."  # noqa: PLR2004


def _likely(manifest: Manifest, wanted: Mapping[str, str]) -> list[str]:
    """The partition of the row's day, where the row tells and there is one; else all of them."""
    if EVENT_TIME in wanted:
        day = _value(manifest.table, EVENT_TIME, wanted[EVENT_TIME], UTC_MICROSECONDS).date().isoformat()
        if day in manifest.partitions:
            return [day]
    return sorted(manifest.partitions)


def _matching(path: Path, table: str, wanted: Mapping[str, str]) -> pl.DataFrame:
    schema = pl.read_parquet_schema(path)
    for column in wanted:
        if column not in schema:
            raise UnknownRowError(f"{table} has no column {column!r}. Its columns: {', '.join(schema)}.")
    values = {name: pl.lit(_value(table, name, text, schema[name]), schema[name]) for name, text in wanted.items()}
    return pl.scan_parquet(path).filter(*(pl.col(name) == value for name, value in values.items())).collect()


def _value(table: str, column: str, text: str, kind: pl.DataType) -> Any:  # noqa: ANN401  any value of a row
    """`text` as a value of the column; a time without a zone is UTC."""
    try:
        return _parsed(text, kind)
    except (ValueError, KeyError):
        raise UnknownRowError(f"{table}: {column} is {kind}, and {text!r} is no value of that type.") from None


def _parsed(text: str, kind: pl.DataType) -> Any:  # noqa: ANN401  any value of a row
    if isinstance(kind, pl.Datetime):
        found = datetime.fromisoformat(text)
        found = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
        return found if kind.time_zone else found.replace(tzinfo=None)
    if kind == pl.Date:
        return date.fromisoformat(text)
    if kind == pl.Boolean:
        return TRUTH[text.lower()]
    if kind.is_integer():
        return int(text)
    if kind.is_float():
        return float(text)
    if kind == pl.String:
        return text
    raise ValueError(text)
