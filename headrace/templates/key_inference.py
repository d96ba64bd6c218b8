"""Infers the time column and the key of a sample."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import combinations

import polars as pl

from headrace.dataset import UTC_MICROSECONDS
from headrace.templates.python_code import snake_case

MAX_KEY_COLUMNS = 3
KEY_CANDIDATES = 12
"""Most columns that are combined: 12 columns give 298 sets of up to three."""

CREATED = re.compile(r"(^|_)(at|time|timestamp|ts|datetime|date|on)$|^(time|timestamp|created|event)", re.IGNORECASE)
UPDATED = re.compile(r"update|modif|chang|last_", re.IGNORECASE)
ID = re.compile(r"(^|_)(id|uuid|guid|key|code|no|nr|number)$", re.IGNORECASE)

OPEN_END = 9000
"""From this year on, a time stands for "no end" rather than for a time."""

WHOLE_DAY = (timedelta(0), timedelta(days=1))
EARLIEST_HOUR, LATEST_HOUR = -26, 50
"""Hours of a UTC day beyond which a time cannot be of that day in any time zone, even with a day of delay."""


@dataclass(frozen=True)
class InferredKey:
    """Columns that identify a row.

    Attributes:
        columns: The key; the time that orders the table first.
        duplicates: Share of the sample's rows that repeat an earlier row's key.
        evidence: What was seen, for people.
        edit: What to look at, or to change.
    """

    columns: tuple[str, ...]
    duplicates: float
    evidence: str
    edit: str


def infer_time(typed: pl.DataFrame, days: pl.Series | None = None) -> str:
    """The column that orders rows in time: a time or date without nulls; empty if there is none.

    Preferred, in this order: times within the partition's day; names that do not suggest updates; names that suggest
    an event; times over dates; the leftmost.
    """
    kinds = {name: dtype for name, dtype in typed.schema.items() if dtype in (UTC_MICROSECONDS, pl.Date)}
    known = [name for name in kinds if typed.height and not typed[name].null_count() and not is_open_end(typed[name])]

    def preference(name: str) -> tuple[bool, bool, bool, bool, int]:
        in_day = days is not None and kinds[name] != pl.Date and hours_of_day(typed[name], days) is not None
        return (
            not in_day,
            is_update_time(name),
            not CREATED.search(snake_case(name)),
            kinds[name] == pl.Date,
            known.index(name),
        )

    return min(known, key=preference, default="")


def is_update_time(name: str) -> bool:
    """Whether the name of a time suggests that every change of its row updates it."""
    return bool(UPDATED.search(name))


def is_open_end(times: pl.Series) -> bool:
    """Whether some of the times stand for "no end", such as 9999-12-31."""
    return bool((times.dt.year() >= OPEN_END).any())


def infer_key(typed: pl.DataFrame, time: str, unique: Sequence[str] = ()) -> InferredKey:
    """The smallest set of columns without nulls that is unique, with the time first.

    An update time does not come first: two versions of a row would have two keys. If no set of up to three columns is
    unique, the key is all columns.
    """
    time = "" if is_update_time(time) else time
    if unique:
        return InferredKey(
            _led_by(time, unique), 0.0, f"{', '.join(unique)}: primary key of the table", _lead_edit(time, unique)
        )
    if not typed.height:
        return InferredKey(tuple(typed.columns), 0.0, "no row", "the columns that identify a row")
    found = next((names for names in _sets(typed) if _is_unique(typed, names)), None)
    if found:
        evidence = f"{', '.join(found)}: unique in {typed.height:,} rows"
        return InferredKey(_led_by(time, found), 0.0, evidence, _lead_edit(time, found))
    repeated = 1 - typed.n_unique() / typed.height
    evidence = f"no set of {MAX_KEY_COLUMNS} columns is unique; {repeated:.1%} of the rows repeat an earlier row"
    return InferredKey(
        tuple(typed.columns), repeated, evidence, "the columns that identify a row; rows that repeat a key are rejected"
    )


def _sets(typed: pl.DataFrame) -> Iterator[tuple[str, ...]]:
    """Candidate keys: smallest first, then identifiers, then times."""
    counts = {name: typed[name].n_unique() for name in typed.columns if _may_identify(typed[name])}
    ranked = sorted(counts, key=lambda name: (_rank(typed[name]), list(typed.columns).index(name)))
    chosen = sorted(ranked, key=lambda name: -counts[name])[:KEY_CANDIDATES]
    names = [name for name in ranked if name in chosen]
    for size in range(1, MAX_KEY_COLUMNS + 1):
        for found in combinations(names, size):
            if math.prod(counts[name] for name in found) >= typed.height:
                yield found


def _may_identify(values: pl.Series) -> bool:
    return not values.null_count() and not (
        values.dtype.is_float() or values.dtype.is_nested() or values.dtype == pl.Boolean
    )


def _rank(values: pl.Series) -> int:
    if ID.search(snake_case(values.name)):
        return 0
    return 1 if values.dtype in (UTC_MICROSECONDS, pl.Date) else 2


def _is_unique(typed: pl.DataFrame, names: Iterable[str]) -> bool:
    return not pl.DataFrame({name: typed[name] for name in names}).is_duplicated().any()


def _led_by(time: str, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((time, *names) if time else names))


def _lead_edit(time: str, names: Sequence[str]) -> str:
    if not time:
        return "put a time first if there is one: uniqueness stays cheap to check as the table grows"
    if time in names:
        return ""
    return f"{time} comes first, so that uniqueness stays cheap to check; without it, the key is unique over all times"


def hours_of_day(times: pl.Series, days: pl.Series) -> tuple[timedelta, timedelta] | None:
    """Hours of the partition's day that hold every time; None if it is no time of that day."""
    since = (times - days.cast(UTC_MICROSECONDS)).dt.total_hours(fractional=True)
    first, last = float(since.min() or 0), float(since.max() or 0)  # type: ignore[arg-type]
    if first >= 0 and last < WHOLE_DAY[1] / timedelta(hours=1):
        return WHOLE_DAY
    if first < EARLIEST_HOUR or last > LATEST_HOUR:
        return None
    return timedelta(hours=math.floor(first) - 2), timedelta(hours=math.floor(last) + 3)
