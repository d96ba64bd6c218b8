"""Rows of a history as they were known at a time: the latest change of each key, unless it is a deletion."""

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from headrace.dataset import EVENT_TIME, HISTORY_COLUMNS, KNOWN_TIME, OPERATION, UTC_MICROSECONDS

DELETE = "delete"

CHANGED_AT, PLACE = "\x1fchanged at", "\x1fplace"
"""Columns that only a query has; no column of data begins with the separator of units."""


def as_known(history: pl.LazyFrame, *, key: str | Sequence[str], at: datetime) -> pl.LazyFrame:
    """The rows of a history that were known at a time: one per key, with the values of its latest change.

    Args:
        history: Changes, with the columns `known_time` and `operation` beside those of the rows; in any order.
        key: Columns that identify a row.
        at: The time, with its zone. A change that became known at that very time counts.

    Returns:
        The columns of `history`; keys that were deleted by then are left out. In no particular order.

    Raises:
        ValueError: `at` has no time zone.

    Examples:
        >>> noon = datetime(2026, 1, 9, 12, tzinfo=UTC)
        >>> changes = [("pen", 90, "insert", noon), ("pen", 95, "update", noon + timedelta(hours=3))]
        >>> history = pl.LazyFrame(changes, ["item", "cents", "operation", "known_time"], orient="row")
        >>> headrace.as_known(history, key="item", at=noon + timedelta(hours=2)).collect()["cents"].to_list()
        [90]
    """
    if at.tzinfo is None:
        raise ValueError(f"as_known: expected a time with its zone, such as datetime(…, tzinfo=UTC), found {at}")
    known = history.filter(pl.col(KNOWN_TIME) <= pl.lit(at, UTC_MICROSECONDS))
    return latest_changes(known, _names(key)).filter(pl.col(OPERATION) != DELETE)


def latest_changes(history: pl.LazyFrame, key: Sequence[str]) -> pl.LazyFrame:
    """The latest change of each key, deletions too."""
    return history.sort(KNOWN_TIME).unique(key, keep="last", maintain_order=True)


def join_as_known(
    frame: pl.LazyFrame,
    history: pl.LazyFrame,
    *,
    on: str | Sequence[str],
    at: str = EVENT_TIME,
    known_time: str = "",
) -> pl.LazyFrame:
    """Each row of `frame` with the row of a history that was known at its time.

    Args:
        frame: The rows; a kernel's facts, for example.
        history: Changes, with the columns `known_time` and `operation` beside those of the rows; in any order.
        on: Columns that identify a row of the history; `frame` has them, too. Null matches nothing.
        at: Column of `frame` with the time (UTC, microseconds) of each row. A change that became known at that very
            time counts; a row without a time receives nothing.
        known_time: Name of a column for when the change that a row received became known; by default there is none.

    Returns:
        The rows of `frame`, in their order, and the columns of the history other than `on`, `known_time`, `seen_time`
        and `operation`. They are null where the key was not known yet, or deleted.

    Raises:
        ValueError: Both have a column of one name.

    Examples:
        >>> noon = datetime(2026, 1, 9, 12, tzinfo=UTC)
        >>> changes = [("pen", 90, "insert", noon), ("pen", 90, "delete", noon + timedelta(hours=3))]
        >>> history = pl.LazyFrame(changes, ["item", "cents", "operation", "known_time"], orient="row")
        >>> sales = pl.LazyFrame({"item": "pen", "sold_at": [noon + timedelta(hours=hour) for hour in (-1, 1, 4)]})
        >>> headrace.join_as_known(sales, history, on="item", at="sold_at").collect()["cents"].to_list()
        [None, 90, None]
    """
    key = _names(on)
    known_as = known_time or f"{PLACE} known"
    values = [name for name in history.collect_schema() if name not in (*key, *HISTORY_COLUMNS)]
    own = frame.collect_schema().names()
    if both := [name for name in (*values, known_as) if name in own]:
        raise ValueError(
            f"join_as_known: expected other names in the history than in the frame, found {', '.join(both)} in both:"
            " rename or select columns of one of them"
        )
    # A deletion has the last values of the row; null is what was known from then on.
    is_deleted = pl.col(OPERATION) == DELETE
    changes = history.select(
        *key,
        *(pl.when(~is_deleted).then(name).alias(name) for name in values),
        pl.when(~is_deleted).then(KNOWN_TIME).alias(known_as),
        pl.col(KNOWN_TIME).alias(CHANGED_AT),
    ).sort(CHANGED_AT)
    rows = frame.with_row_index(PLACE).sort(at, nulls_last=True)
    # Both sides are sorted by time; Polars cannot check that within groups, and says so in a warning.
    joined = rows.join_asof(
        changes, left_on=at, right_on=CHANGED_AT, by=list(key), strategy="backward", check_sortedness=False
    )
    return joined.sort(PLACE).select(*own, *values, *([known_time] if known_time else []))


def _names(columns: str | Sequence[str]) -> tuple[str, ...]:
    return (columns,) if isinstance(columns, str) else tuple(columns)
