"""`docs/types.md` from the cases: run this file to write it."""

from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path

from type_cases import CONVERSIONS, REFUSALS, REJECTED, Conversion

PAGE = Path(__file__).parents[2] / "docs/types.md"

INTRODUCTION = """# Types

A value becomes the nearest value of the declared type without loss, or its row is rejected as `<column>|dtype`, with
the text of the value. A time without a zone is rejected as `<column>|zone`. Where the two types have no value in
common, and where a database or a file holds what no column of Arrow or Polars can, the partition or the source is
refused with the column, the value and the way out. Nothing is rounded, cut, wrapped or guessed.

- **Floats**: a text becomes the nearest float, which is never infinity. A number becomes a float if the way back
  gives it again.
- **Decimals**: of a float, the digits that it is written with; a whole number beyond 10<sup>16</sup> as it is.
- **Times**: whole microseconds in UTC, of the years 1 to 9999. Dates likewise.
- **Nested values**: a list or struct is rejected if any time inside of it is out of range.
- **Null** is null of any type. Which fields of a delimited file are null is declared (`CsvDialect.nulls`). An empty
  field without quotes always is.
- **Categories** become text in validated tables, which is how Parquet keeps them. `transform` converts what Parquet
  does not keep: durations, 16-bit floats, arrays.

The tables are written by `tests/support/type_page.py` from cases that the tests run through the sources themselves.
[Contracts](contracts.md) describes how columns are declared.
"""

FORMS = {
    "Bool": "`true` and `false` in any case",
    "boolean(yes, no)": "the words that `boolean(true=…, false=…)` declares, in any case, and no others",
    "Date": "`YYYY-MM-DD`",
    "Time": "`HH:MM:SS`, with a fraction of up to nine digits",
    "utc_time": "ISO 8601 with a zone: `Z`, `+01`, `+0100` or `+01:00`; `T` or a blank before the time",
    "Duration": (
        "ISO 8601 without years and months; `HH:MM:SS` with any number of hours; days before it, as Python, pandas and"
        " PostgreSQL print them"
    ),
    "Decimal(10, 2)": "digits with a point, no exponent; zeros beyond the scale are no loss",
    "Enum([a, b])": "one of its categories, in the same case",
    "List(Int64)": "a JSON array of which each item is a value of its type",
    "Struct(at: utc_time)": "a JSON object; a missing key is null, an unknown one rejects the row",
}
"""Declared type → how a text of it is written."""

FORMS_PAGE = """## Forms of text

What a field of a delimited file, a string of JSON, Parquet or a database and a cell of Excel may look like. Nothing
else is guessed, and blanks around a value are not removed.
"""

SECTIONS = {
    "CSV": (
        "Every field of a delimited file is text. `CsvDialect` declares other forms of numbers, dates and times:\n"
        "`decimal`, `thousands`, `date_formats` and `time_formats`. A value in none of the declared forms is rejected\n"
        "as `<column>|dtype`, also where it would be read without them."
    ),
    "JSON": (
        "JSON Lines (NDJSON) and arrays of objects, read by `read_json`. A number has the value of all its digits:\n"
        "`1.0` is a whole number. A string is parsed as a field of a delimited file. As String, a number, an array or\n"
        "an object is its text. A missing key is null. A key that a struct does not declare rejects the row."
    ),
    "Parquet": (
        "Files that a source delivers as Parquet, read by `read_parquet`. Values of times and durations are given as\n"
        "ticks of their unit."
    ),
    "PostgreSQL": (
        "Types that Arrow lacks are PostgreSQL's own text (`numeric`, `money`, `oid`, `regproc`, `uuid`, `json`,\n"
        "`interval`, ranges), and so are composite types and arrays of types that have no row here.\n"
        "Text is read as UTF-8, whatever the encoding of the database."
    ),
    "SQLite": "SQLite stores any value in any column. Each value is checked against the declared type of its column.",
}

REFUSED = {"JSON": "Rejected, whatever is declared, with its text in `_row_text`"}
"""Source → what happens to a value that no type takes, where it does not refuse the source."""


def write_page() -> None:
    """Write the page."""
    PAGE.write_text(render_page(), "utf-8")


def render_page() -> str:
    """The page as the cases say it."""
    return "\n".join([INTRODUCTION, FORMS_PAGE, *_forms(), *(line for name in SECTIONS for line in _section(name))])


def _forms() -> Iterator[str]:
    """The table of texts, with what the cases of delimited files show."""
    yield "| declared | form | examples |"
    yield "|---|---|---|"
    for declared, form in FORMS.items():
        texts = [
            text
            for case in CONVERSIONS
            if case.source == "CSV" and case.declared == declared
            for text, arrived in case.outcomes.items()
            if not (isinstance(arrived, str) and arrived == REJECTED)
        ]
        yield f"| {declared} | {form} | {', '.join(map(_code, texts))} |"
    yield ""


def _section(source: str) -> Iterator[str]:
    yield f"## {source}\n\n{SECTIONS[source]}\n"
    yield "| source type | declared | arrives | is rejected |"
    yield "|---|---|---|---|"
    for conversion in CONVERSIONS:
        if conversion.source == source:
            yield _row(conversion)
    yield ""
    refusals = [refusal for refusal in REFUSALS if refusal.source == source]
    if refusals:
        yield f"{REFUSED.get(source, 'Refused, whatever is declared')}:\n"
        yield f"| source type | value | {'fails the check' if source in REFUSED else 'the error says'} |"
        yield "|---|---|---|"
        yield from (f"| {each.source_type} | {_code(each.value)} | {each.message} |" for each in refusals)
        yield ""


def _row(conversion: Conversion) -> str:
    arrives = [
        _code(value) if _text(value) == _text(arrived) else f"{_code(value)} → {_code(arrived)}"
        for value, arrived in conversion.outcomes.items()
        if not (isinstance(arrived, str) and arrived == REJECTED)
    ]
    rejected = [_code(value) for value, arrived in conversion.outcomes.items() if arrived == REJECTED]
    cells = [conversion.source_type, conversion.declared, ", ".join(arrives), ", ".join(rejected)]
    if conversion.refused:
        cells[2:] = ["", f"the partition is refused: {conversion.refused}"]
    return f"| {' | '.join(cells)} |"


def _code(value: object) -> str:
    return f"`{_text(value)}`".replace("|", "\\|")


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {_text(item)}' for name, item in value.items())}}}"
    if isinstance(value, datetime | date | time):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:f}" if isinstance(value, Decimal) else str(value) or '""'


if __name__ == "__main__":
    write_page()
