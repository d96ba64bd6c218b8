"""The rows that features are asked for: any frame with the join keys and a time with a zone."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa

from pipelines.systems.feature_store.errors import RequestRefusedError
from pipelines.systems.feature_store.search import Moments

TIME = "event_timestamp"


@dataclass(frozen=True)
class Requests:
    """Checked requests.

    Attributes:
        frame: The rows as they were given.
        time: Column that says at which time each row asks.
        moments: Those times.
    """

    frame: pl.DataFrame
    time: str
    moments: Moments

    @classmethod
    def of(cls, given: object) -> Self:
        """The requests in a pandas, Polars or Arrow table, or a Parquet file.

        Raises:
            RequestRefusedError: It is none of these, or its times can not be placed.
        """
        frame = _frame(given)
        time = _time_column(frame)
        kind = frame.schema[time]
        if not isinstance(kind, pl.Datetime) or kind.time_zone is None:
            raise RequestRefusedError(
                f"Column {time} of the requests: expected times with a zone, seen {kind}."
                " If they are UTC, say so: `.dt.replace_time_zone('UTC')` in Polars, `.dt.tz_localize('UTC')` in"
                " pandas."
            )
        missing = frame[time].null_count()
        if missing:
            first = frame[time].is_null().arg_max()
            raise RequestRefusedError(
                f"Column {time} of the requests is null in {missing:,} of {frame.height:,} rows, first in row {first}."
                " A row without a time can not be answered; drop it or give it one."
            )
        return cls(frame, time, Moments.of(frame[time]))

    def keys(self, wanted: Mapping[str, str], types: Mapping[str, pl.DataType], view: str) -> pl.DataFrame:
        """The request columns that hold the keys of `view`, in the types of its table.

        Args:
            wanted: Key of the table → column of the requests.
            types: Key of the table → its type.
            view: Name of the feature view, for the message.

        Raises:
            RequestRefusedError: A column is missing, or of a type that can not be such a key.
        """
        return self.frame.select(self._key(column, types[key], view) for key, column in wanted.items())

    def _key(self, column: str, kind: pl.DataType, view: str) -> pl.Series:
        if column not in self.frame.columns:
            raise RequestRefusedError(
                f"{view} is joined by {column}: expected that column in the requests, seen"
                f" {', '.join(self.frame.columns)}."
            )
        got = self.frame[column]
        alike = (kind.is_integer() and got.dtype.is_integer()) or (
            kind == pl.String and got.dtype in (pl.Categorical, pl.Enum)
        )
        if got.dtype in {kind, pl.Null} or alike:
            return got.cast(kind, strict=False)
        hint = " An integer column with nulls becomes floats in pandas: use its Int64." if kind.is_integer() else ""
        raise RequestRefusedError(
            f"{view} is joined by {column}: expected {kind}, seen {got.dtype} in the requests. Convert it first.{hint}"
        )


def _frame(given: object) -> pl.DataFrame:
    if isinstance(given, pl.DataFrame):
        return given
    try:
        if isinstance(given, pd.DataFrame):
            return pl.from_pandas(given)
        if isinstance(given, pa.Table):
            return pl.DataFrame(given)
        if isinstance(given, str | Path) and str(given).endswith(".parquet"):
            return pl.read_parquet(given)
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError, TypeError) as error:
        raise RequestRefusedError(
            f"The requests can not be read: {str(error).splitlines()[0]}. Every column needs one type."
        ) from error
    raise RequestRefusedError(
        "Expected requests as a pandas, Polars or Arrow table or the path of a .parquet file, seen"
        f" {type(given).__name__}. Features by date range or SQL are not offered."
    )


def _time_column(frame: pl.DataFrame) -> str:
    if TIME in frame.columns:
        return TIME
    times = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime)]
    if len(times) == 1:
        return times[0]
    raise RequestRefusedError(
        f"Expected a column {TIME} in the requests (or exactly one column of times), seen"
        f" {', '.join(f'{name}: {kind}' for name, kind in frame.schema.items())}."
    )
