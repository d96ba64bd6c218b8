"""Infers from a sample of rows: types, nulls, bounds, closed sets, times and keys.

A type is inferred if the contract reads every value of the sample exactly as that type; everything else stays text.
What a sample does not show is reported, not guessed: a time without a zone gets none.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from headrace.dataset import UTC_MICROSECONDS
from headrace.templates.key_inference import WHOLE_DAY, InferredKey, hours_of_day, infer_key, infer_time, is_open_end
from headrace.validate.parsing import NAIVE_TIME, parse

CANDIDATES: tuple[pl.DataType, ...] = (
    pl.Boolean(),
    pl.Int64(),
    pl.Float64(),
    pl.Date(),
    pl.Time(),
    UTC_MICROSECONDS,
)
"""Types that text is tried as, in this order."""

NULL_WORDS = ("NULL", "null", "None", "N/A", "n/a", "NaN", "nan", "-", "?", "\\N", "#N/A")
"""Words for a missing value, beside the dialect's own, where the rest of the column is a number or a time."""

MIN_ROWS = 20
"""Fewer values show neither bounds nor closed sets."""

MAX_CHOICES, MIN_SEEN = 20, 5
"""A closed set has at most so many values, each seen at least so often: none that was seen once, so that a further
value is unlikely (Good and Turing: the chance of an unseen value is about the share of values seen once)."""

MAX_INT = 2**63 - 1

LEADING_ZERO = r"^-?0\d+$"
WHOLE_NUMBER = r"^-?\d+$"
LOOKALIKES = (
    (
        NAIVE_TIME,
        "times without a zone: text, because a zone is not guessed",
        "in `transform`: `.str.to_datetime()`, then `.dt.replace_time_zone()`",
    ),
    (r"^-?\d+,\d+$", "numbers with a decimal comma: text", "parse them in `transform`"),
    (WHOLE_NUMBER, "whole numbers with leading zeros or of more than 64 bits: text", ""),
    (
        r"^\d{1,4}[./-]\d{1,2}[./-]\d{1,4}([T ].*)?$",
        "dates in a format other than 2026-01-09, or in several: text",
        "parse them in `transform`",
    ),
)
"""Form of every value, what such values are, and what to do about them."""

VALUE = "value"
"""A column's name in a query of ours: Polars would take some names of data, such as `^a$`, for patterns."""

MOST = 0.5
SHOWN_LETTERS = 30
TYPE_NAMES = {pl.Boolean: "Bool", UTC_MICROSECONDS: "time in UTC"}


@dataclass(frozen=True)
class InferredColumn:
    """What the sample says of one column.

    Attributes:
        name: As the source names it.
        dtype: The type that the contract declares.
        nullable: Whether the sample has nulls.
        bounds: Least and greatest number that the contract accepts; None for no bounds.
        times: First time and the time before which all are: durations count from the partition's day.
        choices: The closed set of texts; empty for none.
        evidence: What was seen, for people.
        edit: What to look at, or to change.
        oddity: Why a column that looks like something else is text; empty for any other.
    """

    name: str
    dtype: pl.DataType
    nullable: bool
    bounds: tuple[float, float | None] | None = None
    times: tuple[timedelta, timedelta] | tuple[datetime, datetime] | None = None
    choices: tuple[str, ...] = ()
    evidence: str = ""
    edit: str = ""
    oddity: str = ""


@dataclass(frozen=True)
class InferredTable:
    """What the sample says of a table.

    Attributes:
        columns: In the order of the source.
        key: What identifies a row.
        time: Column that orders the rows in time, never null in the sample; empty for none.
        null_words: Words for a missing value beside those that the dialect has anyway.
        rows: Rows of the sample.
    """

    columns: tuple[InferredColumn, ...]
    key: InferredKey
    time: str
    null_words: tuple[str, ...] = ()
    rows: int = 0


def infer_table(
    rows: pl.DataFrame,
    days: pl.Series | None = None,
    dated: Sequence[str] | None = None,
    unique: Sequence[str] = (),
    texts: Collection[str] = (),
) -> InferredTable:
    """What the sample `rows` says.

    Args:
        rows: The sample; columns of text are tried as other types, columns of other types keep theirs.
        days: The day of each row's partition (dates), where partitions are days.
        dated: Columns of time that are bound to that day; None for all that the sample shows to be.
        unique: Columns that the source itself declares to identify a row.
        texts: Columns of text that stay text.
    """
    if patterns := [name for name in rows.columns if is_pattern(name)]:
        return _with_names(
            infer_table(rows.rename({name: f" {name}" for name in patterns}), days, dated, unique, texts)
        )
    open_columns = [rows[name] for name in rows.columns if name not in texts]
    null_words = tuple(word for word in NULL_WORDS if any(_is_null_word(column, word) for column in open_columns))
    plain = rows.with_columns(pl.col(pl.String).replace(list(null_words), None)) if null_words else rows
    types = {name: pl.String() if name in texts else infer_type(plain[name]) for name in plain.columns}
    typed = pl.DataFrame({name: _parsed(plain[name], dtype) for name, dtype in types.items()})
    columns = tuple(
        infer_column(
            plain[name], typed[name], days if dated is None or name in dated else None, may_be_other=name not in texts
        )
        for name in typed.columns
    )
    time = infer_time(typed, days)
    return InferredTable(columns, infer_key(typed, time, unique), time, null_words, rows.height)


def is_pattern(name: str) -> bool:
    """Whether Polars takes a column's name for a pattern of names."""
    return name == "*" or (name.startswith("^") and name.endswith("$"))


def _with_names(table: InferredTable) -> InferredTable:
    """The table with the names of its columns as they are, instead of those that are no pattern."""
    names = {column.name: column.name.removeprefix(" ") for column in table.columns}
    names = {name: plain if is_pattern(plain) else name for name, plain in names.items()}
    columns = tuple(replace(column, name=names[column.name]) for column in table.columns)
    key = replace(table.key, columns=tuple(names[name] for name in table.key.columns))
    return replace(table, columns=columns, key=key, time=names.get(table.time, ""))


def infer_type(values: pl.Series) -> pl.DataType:
    """The type as which the contract reads every value exactly; text where there is none, or only an identifier."""
    if values.dtype not in (pl.String, pl.Null):
        return _declared_type(values.dtype)
    if not values.count():
        return pl.String()
    if values.str.contains(LEADING_ZERO).any():
        return pl.String()
    if values.drop_nulls().str.contains(WHOLE_NUMBER).all():  # not as floats, if they are beyond 64 bits
        return pl.Int64() if _fits(values, pl.Int64()).all() else pl.String()
    return next((dtype for dtype in CANDIDATES if _fits(values, dtype).all()), pl.String())


def _declared_type(dtype: pl.DataType) -> pl.DataType:
    """What a contract declares for a type that the source declares."""
    if dtype.is_integer():
        return pl.Int64()
    if dtype.is_float():
        return pl.Float64()
    return UTC_MICROSECONDS if isinstance(dtype, pl.Datetime) else dtype


def _fits(values: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Whether each value that is not null is one of this type."""
    parsed = _parsed(values.drop_nulls(), dtype)
    return parsed.is_finite().fill_null(value=False) if dtype.is_float() else parsed.is_not_null()


def _parsed(values: pl.Series, dtype: pl.DataType) -> pl.Series:
    """The values as the contract reads them: null where one is none of this type."""
    parsed = parse(pl.col(VALUE), values.dtype, dtype)
    if parsed is None:
        return pl.Series(values.name, [None] * len(values), dtype)
    return values.alias(VALUE).to_frame().select(parsed).to_series().alias(values.name)


def _is_null_word(values: pl.Series, word: str) -> bool:
    """Whether the column is text only because of `word` (or of several such words)."""
    if values.dtype != pl.String or not (values == word).any():
        return False
    known = values.filter(~values.is_in(NULL_WORDS))
    return known.count() > 0 and infer_type(known) != pl.String


def infer_column(
    text: pl.Series, values: pl.Series, days: pl.Series | None, *, may_be_other: bool = True
) -> InferredColumn:
    """What a column says, as it came (`text`) and as its type (`values`).

    Args:
        text: The column of the sample.
        values: The same with its inferred type.
        days: The day of each row's partition, if the column is bound to it.
        may_be_other: Whether to say of text that looks like another type why it is text.
    """
    known = values.drop_nulls()
    nulls = f"{values.null_count() / len(values):.1%} null" if values.null_count() else "no null"
    column = InferredColumn(values.name, values.dtype, nullable=len(known) < len(values) or not len(values))
    if not len(known):
        edit = "the type: the sample does not show it" if text.dtype in (pl.String, pl.Null) else ""
        return replace(column, evidence="no value", edit=edit)
    column = replace(column, evidence=f"{nulls}; {_examples(text)}")
    if values.dtype.is_numeric() and not isinstance(values.dtype, pl.Decimal):
        return _with_bounds(column, known)
    if values.dtype == UTC_MICROSECONDS:
        return _with_times(column, known, None if days is None else days.filter(values.is_not_null()))
    if values.dtype == pl.Date:
        return replace(column, evidence=f"{column.evidence}; {_range(known)}")
    if values.dtype == pl.String:
        oddity, edit = _why_text(known) if may_be_other else ("", "")
        column = replace(column, edit=edit, oddity=oddity)
        return _with_choices(column, known) if not oddity else replace(column, evidence=f"{column.evidence}; {oddity}")
    return column


def _with_bounds(column: InferredColumn, known: pl.Series) -> InferredColumn:
    low, high = _extremes(known)
    seen = f"{column.evidence}; {low:,} to {high:,}"
    if len(known) < MIN_ROWS:
        return replace(column, evidence=seen, edit=f"bounds: {len(known)} values are too few to infer them")
    if _are_days(known):
        return replace(column, evidence=seen, edit="the numbers look like dates: parse them in `transform`")
    if _is_counter(known):
        return replace(column, bounds=(0, None) if low >= 0 else None, evidence=f"{seen}; all different")
    bounds = widen_bounds(low, high)
    if max(map(abs, bounds)) > MAX_INT:
        return replace(column, evidence=seen)
    edit = "bounds: the observed range, widened by its width on both sides"
    return replace(column, bounds=bounds, evidence=seen, edit=edit)


def _is_counter(known: pl.Series) -> bool:
    """An identifier or a running number: it has no greatest value."""
    return known.n_unique() == len(known) and (known.dtype.is_integer() or known.is_sorted())


def _are_days(known: pl.Series) -> bool:
    """Whether every number is a day of about this century, such as 20260109."""
    days = known.cast(pl.String).str.to_date("%Y%m%d", strict=False)
    return not days.null_count() and bool(days.dt.year().is_between(1900, 2199).all())


def widen_bounds(low: float, high: float) -> tuple[float, float]:
    """Bounds around what was seen: as wide again on either side, in two digits, and not below 0 if nothing was."""
    span = high - low or abs(high) or 1
    below, above = _rounded(low - span, math.floor), _rounded(high + span, math.ceil)
    below = max(below, 0) if low >= 0 else below
    return (int(below), int(above)) if isinstance(low, int) else (float(below), float(above))


def _rounded(value: float, outward: Callable[[float], int]) -> float:
    if not value:
        return 0
    unit = 10 ** (math.floor(math.log10(abs(value))) - 1)
    return float(outward(value / unit) * unit) if unit < 1 else outward(value / unit) * int(unit)


def _with_times(column: InferredColumn, known: pl.Series, days: pl.Series | None) -> InferredColumn:
    seen = f"{column.evidence}; {_range(known)}"
    window = None if days is None else hours_of_day(known, days)
    if window:
        first, end = (bound // timedelta(hours=1) for bound in window)
        edit = "" if window == WHOLE_DAY else "within: the observed hours and two more on both sides"
        evidence = f"{seen}; all in the hours {first} to {end} of the partition's day (UTC)"
        return replace(column, times=window, evidence=evidence, edit=edit)
    if is_open_end(known):
        return replace(column, evidence=seen, edit="some times stand for an open end")
    first, last = (time.year // 10 * 10 for time in _extremes(known))
    bounds = (datetime(max(first - 10, 1), 1, 1, tzinfo=UTC), datetime(max(last + 20, 2100), 1, 1, tzinfo=UTC))
    return replace(column, times=bounds, evidence=seen, edit="within: the observed decades and one more on both sides")


def _with_choices(column: InferredColumn, known: pl.Series) -> InferredColumn:
    counts = known.value_counts()
    least, _ = _extremes(counts["count"])
    if len(known) < MIN_ROWS or least < MIN_SEEN or not 1 < counts.height <= MAX_CHOICES:
        return column
    evidence = f"{column.evidence}; {counts.height} distinct values, each at least {least} times"
    choices = tuple(sorted(counts[known.name]))
    return replace(column, choices=choices, evidence=evidence, edit="one_of: add other values that are valid")


def _extremes(values: pl.Series) -> tuple[Any, Any]:
    """The least and the greatest value."""
    return values.min(), values.max()


def _range(values: pl.Series) -> str:
    return " to ".join(map(str, _extremes(values)))


def _why_text(known: pl.Series) -> tuple[str, str]:
    """Why a column that looks like another type stays text, and what to do; empty for any other text."""
    for looks, oddity, edit in LOOKALIKES:
        if known.str.contains(looks).all():
            return oddity, edit
    for dtype in CANDIDATES:
        fits = _fits(known, dtype)
        share = fits.sum() / len(known)
        if share > MOST:
            kind = TYPE_NAMES.get(dtype, str(dtype))
            others = _examples(known.filter(~fits))
            return (
                f"{kind} in {share:.1%} of the rows, and others such as {others}: text",
                f"{kind}, to reject the others",
            )
    return "", ""


def _examples(values: pl.Series) -> str:
    shown = map(str, values.drop_nulls().unique(maintain_order=True).head(2).to_list())
    return ", ".join(repr(text if len(text) <= SHOWN_LETTERS else f"{text[:SHOWN_LETTERS]}…") for text in shown)


def parse_days(partitions: Sequence[str]) -> list[date] | None:
    """The partitions as days; None unless all are."""
    try:
        return [date.fromisoformat(name) for name in partitions]
    except ValueError:
        return None
