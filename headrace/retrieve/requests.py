"""Training requests: any frame with the join keys and a time with a zone, or a Parquet file of them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import polars as pl
import pyarrow as pa

from headrace.dataset import END_US, FIRST_US
from headrace.retrieve.asof import Moments, RequestTimeRange
from headrace.retrieve.errors import InvalidRequestError

TIME = "event_timestamp"

CONVERSION_ERRORS = (
    pa.ArrowException,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    OSError,
    OverflowError,
    TypeError,
    ValueError,
)
"""What Polars and Arrow raise at values that they cannot hold. A panic of Polars is not an `Exception`."""


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
    def read(cls, given: object) -> Self:
        """The requests in a pandas, Polars or Arrow table, or a Parquet file.

        Raises:
            InvalidRequestError: It is none of these, a value is not of its column's type, two columns share a name, or
                a time has no zone, is null or out of range.
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
        except CONVERSION_ERRORS as error:
            raise InvalidRequestError(f"The requests cannot be read: {_reason(error)}") from error
        height, nulls = facts.item(0, "len"), facts.item(0, "nulls")
        if nulls:
            _refuse_nulls(rows, time, nulls, height)
        _check_years(time, facts["first"], facts["last"])
        if not height:
            return cls(rows, schema, 0, time, 0, None)
        first, last = Moments.from_series(facts["first"]), Moments.from_series(facts["last"])
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
        return Moments.from_series(self.frame[self.time])


def _rows(given: object) -> pl.LazyFrame:
    if isinstance(given, pl.DataFrame):
        return given.lazy()
    if type(given).__module__.partition(".")[0] == "pandas" and hasattr(given, "columns"):
        _check_names(list(given.columns))
        return _from_pandas(given).lazy()
    if isinstance(given, pa.Table):
        _check_names(given.column_names)
        return _from_arrow(given).lazy()
    if isinstance(given, str | Path) and str(given).endswith(".parquet"):
        return pl.scan_parquet(given, glob=False)
    raise InvalidRequestError(
        "Expected requests as a pandas, Polars or Arrow table or the path of a .parquet file, found"
        f" {type(given).__name__}. SQL is not supported. Without requests, start_date and end_date give every row"
        " between two times."
    )


def _from_arrow(given: pa.Table) -> pl.DataFrame:
    for name, kind in zip(given.column_names, given.schema.types, strict=True):
        if pa.types.is_timestamp(kind) and kind.unit == "s":  # Polars multiplies by 1,000 and lets it overflow
            try:
                given[name].cast(pa.timestamp("ms", kind.tz))
            except pa.ArrowInvalid as error:
                raise InvalidRequestError(
                    f"Column {name} of the requests: expected times of the years 1 to 9999, found others. Correct them."
                ) from error
    try:
        return pl.DataFrame(given)
    except CONVERSION_ERRORS as error:
        raise InvalidRequestError(f"The requests cannot be read: {_reason(error)}") from error


def _check_names(names: Sequence[object]) -> None:
    if shared := [str(name) for name, columns in Counter(names).items() if columns > 1]:
        raise InvalidRequestError(
            f"Several columns of the requests are called {', '.join(shared)}. Rename or drop all but one."
        )


def _from_pandas(given: Any) -> pl.DataFrame:  # noqa: ANN401  pandas is not imported here
    try:
        rows = pl.from_pandas(given)
    except CONVERSION_ERRORS as error:
        columns = (name for name in given.columns if _is_unreadable(given[[name]]))
        raise InvalidRequestError(f"The requests cannot be read: {_reason(error, next(columns, None))}") from error
    for number, (name, dtype) in enumerate(rows.schema.items()):
        column = given.iloc[:, number]
        if isinstance(dtype, pl.Datetime) and column.dtype == object:
            _check_mixed_zones(name, column)
    return rows


def _is_unreadable(column: Any) -> bool:  # noqa: ANN401  a frame of pandas
    try:
        pl.from_pandas(column)
    except CONVERSION_ERRORS:
        return True
    return False


def _check_mixed_zones(name: str, times: Any) -> None:  # noqa: ANN401  a series of pandas
    """Refuse objects of which some name a zone and others do not: pyarrow takes the latter for UTC."""
    naive = [isinstance(time, datetime) and time.tzinfo is None for time in times.dropna()]
    if any(naive) and not all(naive):
        raise InvalidRequestError(
            f"Column {name} of the requests: expected every time with a zone or none, found {sum(naive):,} without in"
            f" {len(naive):,}. Set the zone of those, or convert all: `pd.to_datetime(frame[{name!r}], utc=True)` takes"
            " them for UTC."
        )


def _reason(error: BaseException, column: object = None) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    where = "" if column is None else f"column {column}: "
    remedy = "Every column must have one type, and whole numbers have 64 bits at most."
    if "time zone" in lines[0] or "Offset" in lines[0]:
        remedy = "Convert the times to UTC: `.dt.tz_convert('UTC')` in pandas."
    return f"{where}{lines[0].rstrip('.')}. {remedy}"


def _check_years(time: str, first: pl.Series, last: pl.Series) -> None:
    """Refuse times that neither Python nor the search can hold."""
    kind = first.dtype
    step = 1000 if isinstance(kind, pl.Datetime) and kind.time_unit == "ms" else 1
    ends = [end for series in (first, last) for end in series.to_physical() if end is not None]
    is_ns = isinstance(kind, pl.Datetime) and kind.time_unit == "ns"  # which end in the year 2262
    if not is_ns and not all(FIRST_US // step <= end < END_US // step for end in ends):
        raise InvalidRequestError(
            f"Column {time} of the requests: expected times of the years 1 to 9999, found others. Correct them."
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
