"""Numbers, dates and times that a delimited file writes in other forms than Headrace reads by itself.

Which column is a number only the contract knows, and a rejected row shows the text as it came. So a column of such a
file is a struct of one field, the text, and the type of the struct says in which forms the file writes.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import cast

import polars as pl

from headrace.validate.reserved_names import MARK

FIELD = f"{MARK}formats "
"""What the name of the field begins with; the formats follow, as JSON."""

DIRECTIVES = {
    "%Y": r"\d{4}",
    "%y": r"\d{2}",
    "%m": r"\d{1,2}",
    "%b": r"[A-Za-z]{3}",
    "%B": r"[A-Za-z]+",
    "%d": r"\d{1,2}",
    "%H": r"\d{1,2}",
    "%M": r"\d{1,2}",
    "%S": r"[0-5]?\d",
    "%.f": r"(?:\.\d{1,6})?",
    "%z": r"[+-]\d\d:?\d\d",
}
"""What stands in a format → the pattern of what it reads: chrono, which Polars parses with, takes more than that."""

IN_FORMAT = re.compile(r"%\.?.|[^%]+|%")

DATE_PARTS = ({"%Y", "%y"}, {"%m", "%b", "%B"}, {"%d"})
TIME_PARTS = ({"%H"}, {"%M"}, {"%z"})


@dataclass(frozen=True)
class TextFormats:
    """Forms in which a file writes values. What has none of them is not a value.

    Attributes:
        decimal: Before the fraction of a number.
        thousands: Between groups of three digits; a number may have none.
        dates: Formats of dates, the first that fits; ISO 8601 if there are none.
        times: The same of times with their zone.
    """

    decimal: str = "."
    thousands: str | None = None
    dates: tuple[str, ...] = ()
    times: tuple[str, ...] = ()

    @property
    def dtype(self) -> pl.Struct:
        """The type of a column of text in these forms."""
        return pl.Struct({FIELD + json.dumps(asdict(self)): pl.String})

    def wrap_columns(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows of text as columns of this type."""
        return rows.select(self.cells(pl.col(name)).alias(name) for name in rows.columns)

    def cells(self, text: pl.Expr) -> pl.Expr:
        """Text as values of this type."""
        (field,) = self.dtype.fields
        return pl.when(text.is_not_null()).then(pl.struct(text.alias(field.name)))

    def plain_number(self, text: pl.Expr) -> pl.Expr:
        """Numbers with a point and without groups, null for what is not written as one; words such as NaN stay."""
        group, point = re.escape(self.thousands or ""), re.escape(self.decimal)
        whole = rf"(?:\d*|\d{{1,3}}(?:{group}\d{{3}})+)" if group else r"\d*"
        is_number = text.str.contains(rf"^[+-]?{whole}(?:{point}\d*)?(?:[eE][+-]?\d+)?$")
        number = text.str.replace_all(self.thousands, "", literal=True) if self.thousands else text
        number = number.str.replace(self.decimal, ".", literal=True)
        return pl.when(is_number).then(number).when(~text.str.contains(r"\d")).then(text)


def formats_of(dtype: pl.DataType) -> TextFormats | None:
    """The forms of the texts of a column; None for columns of any other type."""
    if isinstance(dtype, pl.Struct) and len(dtype.fields) == 1 and dtype.fields[0].name.startswith(FIELD):
        return _formats(dtype.fields[0].name)
    return None


def text_of_cell(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """The text of a column of text in some forms, as it came."""
    return column.struct.field(cast("pl.Struct", dtype).fields[0].name)


@cache
def _formats(name: str) -> TextFormats:
    fields = json.loads(name.removeprefix(FIELD))
    return TextFormats(fields["decimal"], fields["thousands"], tuple(fields["dates"]), tuple(fields["times"]))


@cache
def format_pattern(form: str) -> str:
    """The pattern of texts of a format."""
    return f"^{''.join(DIRECTIVES.get(part) or re.escape(part) for part in IN_FORMAT.findall(form))}$"


def number_faults(decimal: object, thousands: object, others: Sequence[str | None]) -> Iterator[str]:
    """Why numbers cannot be written so, in a file where the other characters mean something."""
    if not (isinstance(decimal, str) and len(decimal) == 1 and not _is_of_number(decimal)):
        yield f"expected one character as `decimal`, found {decimal!r}"
    elif thousands is not None and (
        not (isinstance(thousands, str) and len(thousands) == 1 and not _is_of_number(thousands))
        or thousands == decimal
    ):
        yield f"expected one character other than the decimal {decimal!r} as `thousands`, or None, found {thousands!r}"
    separator, quote, escape = others
    for name, mark in (("decimal", decimal), ("thousands", thousands)):
        if mark is not None and mark in (quote, escape, *((separator,) if quote is None else ())):
            yield f"expected a `{name}` that means nothing else in the file, found {mark!r}"


def date_faults(name: str, forms: object, *, has_time: bool) -> Iterator[str]:
    """Why no date or time can be read in these formats."""
    if not (isinstance(forms, tuple | list) and all(isinstance(form, str) for form in forms)):
        yield f"expected a tuple of formats as `{name}`, found {forms!r}"
        return
    for form in forms:
        parts = [part for part in IN_FORMAT.findall(form) if part.startswith("%")]
        if unknown := [part for part in parts if part not in DIRECTIVES]:
            yield f"expected {', '.join(DIRECTIVES)} in `{name}`, found {unknown[0]!r} in {form!r}"
            continue
        wanted = (*DATE_PARTS, *(TIME_PARTS if has_time else ()))
        if any(len([part for part in parts if part in choice]) != 1 for choice in wanted):
            yield (
                f"expected year, month and day{', hour, minute and zone (%z)' if has_time else ''}, each once, in"
                f" `{name}`, found {form!r}"
            )
        elif not has_time and {"%H", "%M", "%S", "%.f", "%z"} & {*parts}:
            yield f"expected dates without a time in `{name}`, found {form!r}"


def _is_of_number(mark: str) -> bool:
    return mark.isdigit() or mark in "+-eE\r\n\0"
