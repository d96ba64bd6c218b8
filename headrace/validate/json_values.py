"""Values of JSON in a frame, before a contract gives them types: the text of each, to the last digit.

A number keeps its digits: as a float, 1.10 would become 1.1 and 9007199254740993 another number. A cell also says
whether its text was a string, so that the string "[1]" is no array and the number 1e3 is a whole number.
"""

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, NoReturn

import polars as pl

TEXT, IS_STRING = "json_text", "is_string"

JSON_VALUE = pl.Struct({TEXT: pl.String, IS_STRING: pl.Boolean})
"""Type of a column of JSON: null where there is no value. Both fields are null in a row that cannot be read."""

MAX_DEPTH = 64
"""Deepest nesting of a record. Python's own bound depends on how deep the call is that reads it."""

MOST_WRITTEN_DIGITS = 400
"""Digits to which a number with an exponent is written out, which is more than any type holds."""


class InvalidJsonError(ValueError):
    """A text is no JSON that has one meaning; the message is one of a few words for why."""


class JsonNumber(str):
    """A number as it is written."""

    __slots__ = ()


def decode_json(text: str) -> Any:  # noqa: ANN401  any value
    """The value of a text: numbers as `JsonNumber`, strings, booleans, None, lists and dictionaries.

    Raises:
        InvalidJsonError: It is no JSON, or a value in it is ambiguous or is no Unicode text.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidJsonError("not UTF-8") from error
    try:
        value = DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise InvalidJsonError("syntax") from error
    except RecursionError as error:
        raise InvalidJsonError("nested too deeply") from error
    if "\\u" in text or text.count("[") + text.count("{") > MAX_DEPTH:
        _check_value(value)
    return value


def format_json(value: Any, depth: int = 0) -> str:  # noqa: ANN401  any value
    """The text of a value that `decode_json` gave, without white space.

    Raises:
        InvalidJsonError: It is nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise InvalidJsonError("nested too deeply")
    if isinstance(value, JsonNumber):
        return value
    if isinstance(value, list):
        return f"[{','.join(format_json(item, depth + 1) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{_quoted(name)}:{format_json(item, depth + 1)}' for name, item in value.items())}}}"
    return _quoted(value)


_quoted = json.JSONEncoder(ensure_ascii=False).encode


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise InvalidJsonError("duplicate key")
    return values


def _refuse_constant(_token: str) -> NoReturn:
    raise InvalidJsonError("NaN or infinity")


def _check_value(value: Any) -> None:  # noqa: ANN401  any value
    try:
        format_json(value).encode()
    except UnicodeEncodeError as error:
        raise InvalidJsonError("lone surrogate") from error


DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=JsonNumber, parse_float=JsonNumber, parse_constant=_refuse_constant
)


def json_cell(value: Any) -> dict[str, Any] | None:  # noqa: ANN401  any value
    """A value as a cell of type `JSON_VALUE`."""
    return None if value is None else {TEXT: cell_text(value), IS_STRING: type(value) is str}


def cell_text(value: Any) -> str | None:  # noqa: ANN401  any value
    """The text of a cell: a string itself, of any other value its JSON."""
    return value if value is None or isinstance(value, str) else format_json(value)


def plain_number(text: pl.Expr) -> pl.Expr:
    """Numbers as digits alone, without an exponent or a fraction of zeros: 1e3 and 1000.0 become 1000."""
    has_exponent = text.str.contains("[eE]")
    written_out = pl.when(has_exponent).then(text).map_elements(_without_exponent, return_dtype=pl.String)
    return pl.when(has_exponent).then(written_out).otherwise(text).str.replace(r"\.0*$", "")


def _without_exponent(text: str) -> str | None:
    try:
        number = Decimal(text)
    except ArithmeticError:  # an exponent beyond all bounds
        return None
    return f"{number:f}" if abs(number.adjusted()) < MOST_WRITTEN_DIGITS else None


def _decoded(text: str | None) -> Any:  # noqa: ANN401  any value
    try:
        return None if text is None else decode_json(text)
    except InvalidJsonError:
        return None


def decode_array(text: str | None) -> list[dict[str, Any] | None] | None:
    """The items of an array as cells, None for any other value and for a text that is no JSON."""
    value = _decoded(text)
    return [*map(json_cell, value)] if isinstance(value, list) else None


def decode_object(text: str | None, names: Iterable[str]) -> dict[str, dict[str, Any] | None] | None:
    """The fields of an object as cells, None for any other value, an object with other keys and what is no JSON."""
    value = _decoded(text)
    fields = dict.fromkeys(names)
    if not isinstance(value, dict) or not value.keys() <= fields.keys():
        return None
    return {name: json_cell(value.get(name)) for name in fields}
