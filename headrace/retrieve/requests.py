"""Training requests: any frame with the join keys and a time with a zone, or a Parquet file of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import polars as pl
import pyarrow as pa

from headrace.retrieve.asof import Moments, RequestTimeRange
from headrace.retrieve.errors import InvalidRequestError

TIME = "event_timestamp"


@dataclass(frozen=True)
class Requests:
    """Checked requests; those of a file stay in it until they are answered.

    Attributes:
        rows: The rows as they were given.
        schema: Their columns.
        height: How many there are.
        time: Column that says at which time each row asks.
        first: The first of these times, in whole microseconds, rounded up; 0 without rows.
        time_range: From the first of these times to the last, rounded down; None without rows.
    """

    rows: pl.LazyFrame
    schema: pl.Schema
    height: int
    time: str
    first: int
    time_range: RequestTimeRange | None

    @classmethod
    def of(cls, given: object) -> Self:
        """The requests in a pandas, Polars or Arrow table, or a Parquet file.

        Raises:
            InvalidRequestError: It is none of these, or a time has no zone or is null.
        """
        try:
            rows = _rows(given)
            schema = rows.collect_schema()
            time = _time_column(schema)
            _check_zone(time, schema[time])
            asked = pl.col(time)
            facts = rows.select(
                pl.len(), asked.null_count().alias("nulls"), first=asked.min(), last=asked.max()
            ).collect()
        except (pa.ArrowException, pl.exceptions.PolarsError, OSError, TypeError) as error:
            raise InvalidRequestError(
                f"The requests cannot be read: {str(error).splitlines()[0]}. Every column must have one type."
            ) from error
        height, nulls = facts.item(0, "len"), facts.item(0, "nulls")
        if nulls:
            _refuse_nulls(rows, time, nulls, height)
        if not height:
            return cls(rows, schema, 0, time, 0, None)
        first, last = Moments.of(facts["first"]), Moments.of(facts["last"])
        return cls(
            rows, schema, height, time, int(first.ceiling[0]), RequestTimeRange(int(first.floor[0]), int(last.floor[0]))
        )

    def slices(self, most: int) -> Iterator["Slice"]:
        """The rows in order, at most so many at a time; without rows, one slice that has none."""
        for offset in range(0, max(self.height, 1), most):
            rows = self.rows if self.height <= most else self.rows.slice(offset, most)
            yield Slice(rows.collect(), self.time)

    def keys(self, wanted: Mapping[str, str], types: Mapping[str, pl.DataType], view: str) -> list[pl.Expr]:
        """The keys of `view`, under the names and in the types of its table, as expressions over the rows.

        Args:
            wanted: Key of the table → column of the requests.
            types: Key of the table → its type.
            view: Name of the feature view, for the message.

        Raises:
            InvalidRequestError: A column is missing, or has a type that cannot be such a key.
        """
        return [self._key(column, types[key], view).alias(key) for key, column in wanted.items()]

    def _key(self, column: str, kind: pl.DataType, view: str) -> pl.Expr:
        if column not in self.schema:
            raise InvalidRequestError(
                f"{view} is joined by {column}: expected that column in the requests, found {', '.join(self.schema)}."
            )
        got = self.schema[column]
        alike = (kind.is_integer() and got.is_integer()) or (kind == pl.String and got in (pl.Categorical, pl.Enum))
        if got in {kind, pl.Null} or alike:
            return pl.col(column).cast(kind, strict=False)
        hint = " An integer column with nulls becomes floats in pandas: use its Int64." if kind.is_integer() else ""
        raise InvalidRequestError(
            f"{view} is joined by {column}: expected {kind}, found {got} in the requests. Convert it first.{hint}"
        )


@dataclass(frozen=True)
class Slice:
    """Some of the requests, in memory."""

    frame: pl.DataFrame
    time: str

    @cached_property
    def moments(self) -> Moments:
        """When each row asks."""
        return Moments.of(self.frame[self.time])


def _rows(given: object) -> pl.LazyFrame:
    if isinstance(given, pl.DataFrame):
        return given.lazy()
    if type(given).__module__.partition(".")[0] == "pandas":
        return pl.from_pandas(given).lazy()
    if isinstance(given, pa.Table):
        return pl.DataFrame(given).lazy()
    if isinstance(given, str | Path) and str(given).endswith(".parquet"):
        return pl.scan_parquet(given, glob=False)
    raise InvalidRequestError(
        "Expected requests as a pandas, Polars or Arrow table or the path of a .parquet file, found"
        f" {type(given).__name__}. SQL is not supported. Without requests, start_date and end_date give every row"
        " between two times."
    )


def _check_zone(time: str, kind: pl.DataType) -> None:
    if not isinstance(kind, pl.Datetime) or kind.time_zone is None:
        raise InvalidRequestError(
            f"Column {time} of the requests: expected times with a zone, found {kind}."
            " If they are in UTC, set it: `.dt.replace_time_zone('UTC')` in Polars, `.dt.tz_localize('UTC')` in pandas."
        )


def _refuse_nulls(rows: pl.LazyFrame, time: str, nulls: int, height: int) -> None:
    first = rows.select(pl.col(time).is_null().arg_max()).collect().item()
    raise InvalidRequestError(
        f"Column {time} of the requests is null in {nulls:,} of {height:,} rows, first in row {first}."
        " A request needs a time: drop these rows, or fill in the time."
    )


def _time_column(schema: pl.Schema) -> str:
    if TIME in schema:
        return TIME
    times = [name for name, kind in schema.items() if isinstance(kind, pl.Datetime)]
    if len(times) == 1:
        return times[0]
    raise InvalidRequestError(
        f"Expected a column {TIME} in the requests (or exactly one column of times), found"
        f" {', '.join(f'{name}: {kind}' for name, kind in schema.items())}."
    )
