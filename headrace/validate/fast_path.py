"""Rows as they came and their schema → the same rows typed, if every one of them is good: told by one query.

Pandera collects each check by itself, tens of milliseconds a frame. Nearly every partition is good in all its rows:
then one query over the same checks says so. What a check looks at is heard from the check itself, once a schema.
Whatever else there is, the answer is no, and the contract finds which row it is and why.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandera.polars as pa
import polars as pl
from pandera.api.polars.types import PolarsData
from pandera.backends.polars import builtin_checks as _registered  # noqa: F401  what `pa.Check.ge` and its like do
from pandera.backends.polars.checks import PolarsCheckBackend

from headrace.dataset import UTC_MICROSECONDS

ISO_WITH_ZONE = "%Y-%m-%dT%H:%M:%S%.f%#z"
HELD = "all checks held"


class NotTold(Exception):  # noqa: N818  it is no error: Pandera is asked instead
    """Only Pandera can say."""


@dataclass(frozen=True)
class Look:
    """What one query saw.

    Attributes:
        raw: The rows as they came.
        typed: The same rows typed, null where a value does not parse.
        held: True for a row in which every check holds.
        schema: Their schema.
    """

    raw: pl.DataFrame
    typed: pl.DataFrame
    held: pl.Series
    schema: pa.DataFrameSchema

    def part(self, start: int, rows: int) -> "Look":
        """What was seen of some of the rows."""
        held = self.held.slice(start, rows)
        return Look(self.raw.slice(start, rows), self.typed.slice(start, rows), held, self.schema)

    @property
    def is_good(self) -> bool:
        """Whether every value parses and is there where it must be, and Pandera would find nothing."""
        return bool(self.held.all()) and not any(self._is_lacking(name) for name in self.schema.columns)

    def _is_lacking(self, name: str) -> bool:
        nulls = self.typed.get_column(name).null_count()
        must_be = not self.schema.columns[name].nullable
        return nulls != self.raw.get_column(name).null_count() or (must_be and nulls > 0)


def look(raw: pl.DataFrame, schema: pa.DataFrameSchema) -> Look | None:
    """One look at the rows; None where only Pandera can say."""
    try:
        typed = raw.lazy().select(_parsed(raw, schema)).with_columns(_heard(schema).alias(HELD)).collect()
    except (NotTold, pl.exceptions.PolarsError):  # a check that can not be applied: Pandera has the words for it
        return None
    return Look(raw, typed, typed.drop_in_place(HELD), schema)


def parsed_time(name: str, form: str = ISO_WITH_ZONE) -> pl.Expr:
    """Times as text, with a T between day and hour or without, as microseconds; null where they do not parse."""
    text = pl.col(name).str.replace(" ", "T", literal=True)
    zone = "UTC" if form == ISO_WITH_ZONE else None
    return text.str.to_datetime(form, time_unit="us", time_zone=zone, strict=False)


def _parsed(raw: pl.DataFrame, schema: pa.DataFrameSchema) -> Iterator[pl.Expr]:
    """Each column as its type."""
    for name, column in schema.columns.items():
        seen, wanted = raw.schema[name], column.dtype.type
        if seen == wanted:
            yield pl.col(name)
        elif seen == pl.String and wanted.is_numeric():
            yield pl.col(name).cast(wanted, strict=False)
        elif seen == pl.String and wanted == UTC_MICROSECONDS:
            yield parsed_time(name)
        else:
            raise NotTold


_HEARD: dict[int, tuple[pa.DataFrameSchema, pl.Expr]] = {}
"""Schemas cannot be hashed; each is kept, so that no other one can have its number."""


def _heard(schema: pa.DataFrameSchema) -> pl.Expr:
    """True for a row in which every check holds."""
    if id(schema) not in _HEARD:
        _HEARD[id(schema)] = schema, _all_of(schema)
    return _HEARD[id(schema)][1]


def _all_of(schema: pa.DataFrameSchema) -> pl.Expr:
    columns = schema.columns.values()
    beyond = (schema.unique, schema.coerce, schema.ordered, schema.parsers, schema.dtype)
    if any(beyond) or any(column.unique or column.regex or column.coerce or column.parsers for column in columns):
        raise NotTold
    lenient, strict = [pl.lit(value=True)], list(_numbers(schema))
    for key, check in _checks(schema):
        (lenient if check.ignore_na else strict).append(_asked(check, key))
    return pl.all_horizontal(
        pl.all_horizontal(lenient).fill_null(value=True), *(expr.fill_null(value=False) for expr in strict)
    )


def _checks(schema: pa.DataFrameSchema) -> Iterator[tuple[str, pa.Check]]:
    for name, column in schema.columns.items():
        yield from ((name, check) for check in column.checks)
    yield from (("*", check) for check in schema.checks)


def _numbers(schema: pa.DataFrameSchema) -> Iterator[pl.Expr]:
    """True where a float is a number, as far as it must be one: to Pandera, NaN is no value."""
    for name, column in schema.columns.items():
        if column.dtype.type.is_float():
            finite = (column.metadata or {}).get("finite", True)
            if finite or not column.nullable:
                number = pl.col(name).is_finite() if finite else pl.col(name).is_not_nan()
                yield number | pl.col(name).is_null()


def _asked(check: pa.Check, key: str) -> pl.Expr:
    """What the check selects of a frame."""
    if check.element_wise:
        raise NotTold
    question: Any = _Question()
    try:
        answer = PolarsCheckBackend(check).check_fn(PolarsData(question, key))
    except Exception as error:  # it does more with a frame than select from it, or it is wrong
        raise NotTold from error
    asked: list[pl.Expr] = question.asked
    if answer is not question or len(asked) != 1:
        raise NotTold
    return asked[0]


class _Question:
    """Stands for a frame of which a check may select one column."""

    def __init__(self) -> None:
        self.asked: list[pl.Expr] = []

    def select(self, *exprs: Any, **named: Any) -> "_Question":  # noqa: ANN401  as Polars takes them
        found = [*exprs, *named.values()]
        if not all(isinstance(expr, pl.Expr) for expr in found) or any(e.meta.has_multiple_outputs() for e in found):
            raise NotTold
        self.asked += found
        return self
