"""What a contract is written with besides dataframely: times in UTC, bounds that move with the partition, sets of text.

class Orders(dy.Schema):
    order_id = dy.String()
    status = dy.String(check=one_of("open", "paid"))
    ordered_at = utc_time(within=TimeBounds(timedelta(0), timedelta(days=1)))
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import dataframely as dy
import polars as pl

from headrace.dataset import UTC_MICROSECONDS
from headrace.validate.errors import InvalidContractError

WITHIN = "within"
"""Key of a column's metadata that holds its `TimeBounds`."""

WORDS = "words"
"""Key of the metadata of a column of Booleans that holds its words."""

Check = Callable[[pl.Expr], pl.Expr]
"""A column → True for each value that is good; null passes."""


@dataclass(frozen=True)
class TimeBounds:
    """The times that a column may hold: from `first`, up to and without `last`.

    Attributes:
        first: A duration from the start of the partition, or a time with its zone. A source that does not declare its
            partitions needs names of UTC days for durations.
        last: The same.

    Raises:
        ValueError: A time names no zone, or the bounds leave nothing between them.
    """

    first: timedelta | datetime
    last: timedelta | datetime

    def __post_init__(self) -> None:
        """Refuse bounds that nothing can meet."""
        for bound in (self.first, self.last):
            if isinstance(bound, datetime) and bound.tzinfo is None:
                raise ValueError(f"TimeBounds: {bound} names no zone; write datetime(..., tzinfo=UTC)")
        if isinstance(self.first, datetime) is isinstance(self.last, datetime) and self.first >= self.last:  # type: ignore[operator]
            raise ValueError(f"TimeBounds: nothing is from {self.first} up to {self.last}")


def utc_time(
    *,
    within: TimeBounds | None = None,
    nullable: bool = False,
    check: Check | None = None,
    alias: str | None = None,
    description: str | None = None,
) -> dy.Datetime:
    """A column of times: UTC, microseconds, the only type of time that validated tables hold.

    Text is read in any ISO 8601 form that names its zone, such as `2013-01-09T05:00:00Z` or `2013-01-09 06:00+01:00`
    with seconds; a time without a zone fails `<column>|zone`. Times before the year 1 or after 9999, PostgreSQL's
    `infinity` among them, fail `<column>|dtype`.

    Args:
        within: Bounds; a time outside fails `<column>|not_before` or `<column>|before`.
        nullable: Whether null is good.
        check: One more check, named after its function.
        alias: Name of the column where it is no Python name or one of dataframely's own.
        description: What a reader of the contract sees.

    Examples:
        >>> headrace.utc_time().dtype
        Datetime(time_unit='us', time_zone='UTC')
    """
    return dy.Datetime(
        time_zone="UTC",
        time_unit=UTC_MICROSECONDS.time_unit,
        nullable=nullable,
        check=check,
        alias=alias,
        description=description,
        metadata={WITHIN: within} if within else None,
    )


def boolean(
    *,
    true: Collection[str] = ("true",),
    false: Collection[str] = ("false",),
    nullable: bool = False,
    check: Check | None = None,
    alias: str | None = None,
) -> dy.Bool:
    """A column of Booleans that a source writes in words of its own; any other text fails `<column>|dtype`.

    Booleans of Parquet, JSON and databases are read as they are. Whole numbers are compared with the words, too.

    Args:
        true: Words for true, in any case.
        false: Words for false, in any case.
        nullable: Whether null is good.
        check: One more check, named after its function.
        alias: Name of the column where it is no Python name or one of dataframely's own.

    Raises:
        ValueError: There is no word for a value, or one word for both.

    Examples:
        >>> headrace.boolean(true=("yes", "1"), false=("no", "0")).dtype
        Boolean
    """
    words = {word.lower(): value for value, each in ((True, true), (False, false)) for word in each}
    if isinstance(true, str) or isinstance(false, str) or {*words.values()} != {True, False}:
        raise ValueError(f"boolean: expected tuples of words as `true` and `false`, found {true!r} and {false!r}")
    if both := {word.lower() for word in true} & {word.lower() for word in false}:
        raise ValueError(f"boolean: {', '.join(map(repr, sorted(both)))} would be true and false")
    return dy.Bool(nullable=nullable, check=check, alias=alias, metadata={WORDS: words})


def words_of(column: dy.Column) -> Mapping[str, bool] | None:
    """The words that a column of Booleans was declared with, in lower case."""
    return (column.metadata or {}).get(WORDS)


def one_of(*values: str) -> Check:
    """The check that a text is one of these; a text that is not fails `<column>|check__one_of`.

    Raises:
        ValueError: There are no values, or one is no text.

    Examples:
        >>> is_status = headrace.one_of("open", "paid")
        >>> rows = pl.DataFrame({"status": ["open", "lost", None]})
        >>> rows.select(is_status(pl.col("status"))).to_series().to_list()
        [True, False, None]
    """
    if not values or not all(isinstance(value, str) for value in values):
        raise ValueError(f"one_of: expected at least one text, found {', '.join(map(repr, values)) or 'none'}")

    def is_one_of(column: pl.Expr) -> pl.Expr:
        return column.is_in(values)

    is_one_of.__name__ = "one_of"  # dataframely names the check after it
    return is_one_of


def bounds_of(column: dy.Column) -> TimeBounds | None:
    """The bounds that a column of times was declared with."""
    return (column.metadata or {}).get(WITHIN)


def partition_start(partition: str) -> datetime:
    """The start (UTC) of the day that a partition is named by.

    Raises:
        InvalidContractError: Its name is not a day.
    """
    try:
        day = date.fromisoformat(partition)
    except ValueError:
        day = None
    if day is None or day.isoformat() != partition:
        raise InvalidContractError(
            f"bounds that are durations count from the partition's day: expected a partition such as 2013-01-09, found"
            f" {partition!r}. Give `TimeBounds` fixed times, or correct the partition pattern."
        )
    return datetime.combine(day, datetime.min.time(), UTC)
