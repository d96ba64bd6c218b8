"""Raw values → the declared type: the nearest value of that type without loss, or null.

Polars' own `cast(strict=False)` rounds, truncates and wraps: "1.239" becomes the decimal 1.24, 1.5 the integer 1,
"0500" midnight, and a time in milliseconds near the end of 64 bits another time. Here a text is parsed by the spelling
of its type, and a typed value is converted only if the way back gives the same value.
"""

from collections.abc import Mapping
from typing import Literal

import polars as pl

from headrace.dataset import END_US, FIRST_US, UTC_MICROSECONDS
from headrace.storage.nested import field_types, item_type, items
from headrace.validate.duration_text import parse_duration
from headrace.validate.json_values import IS_STRING, JSON_VALUE, TEXT, decode_array, decode_object, plain_number
from headrace.validate.text_formats import TextFormats, format_pattern, formats_of, text_of_cell

TimeUnit = Literal["ns", "us", "ms"]

IS_LOST = "is_lost"

FIRST_DAY, END_DAY = -719_162, 2_932_897
"""`FIRST_US` and `END_US` in days since 1970."""

BOOLEAN_WORDS = {"true": True, "false": False}
"""Text in lower case → Boolean, where a column does not declare other words."""

FIFTEEN_DIGITS = 1e15
"""Floats of 64 bits distinguish all decimals of up to so many digits."""

DATE = r"^\d{4}-\d\d-\d\d"
"""chrono, which Polars parses with, takes `13-01-09` for a day of the year 13."""

CLOCK = r"\d\d:\d\d:[0-5]\d"
"""chrono takes second 60 for the next minute."""

UTC_TIME = rf"{DATE}[T ]{CLOCK}(\.\d{{1,6}}0*)?([Zz]|[+-]\d\d(:?\d\d)?)$"
"""chrono takes `+01:` and `+01: 30` for zones, too."""

NAIVE_TIME = rf"{DATE}[T ]\d\d:\d\d(:\d\d(\.\d+)?)?$"


def parse(
    column: pl.Expr, raw: pl.DataType, wanted: pl.DataType, words: Mapping[str, bool] | None = None
) -> pl.Expr | None:
    """Values of the type `raw` as `wanted`, null where one is not exactly a value of it.

    Args:
        column: The values.
        raw: Their type.
        wanted: The declared type.
        words: Text in lower case → Boolean, for a column of Booleans; by default `BOOLEAN_WORDS`.

    Returns:
        None if no value of `raw` can be one: the column was retyped, or the declaration is wrong.
    """
    if raw == pl.Null:
        return column.cast(wanted)
    parsed: pl.Expr | None = column
    if raw != wanted:
        if raw == JSON_VALUE:
            parsed = _from_json(column, wanted, words)
        elif raw == pl.String or (words and raw.is_integer()):
            parsed = _from_text(column.cast(pl.String), wanted, words)
        elif formats := formats_of(raw):
            parsed = _from_formatted(text_of_cell(column, raw), formats, wanted, words)
        else:
            parsed = _from_typed(column, raw, wanted)
    return None if parsed is None else in_range(parsed, wanted)


def in_range(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """The column, null where a time or a date in it is before the year 1 or after 9999.

    Such a time (PostgreSQL's `infinity` is one) compares and sorts, but where it becomes text, a Python value or a time
    of another zone, Polars panics or overflows.
    """
    is_inside = _is_inside(column, dtype)
    return column if is_inside is None else pl.when(is_inside).then(column)


def holds_times(dtype: pl.DataType) -> bool:
    """Whether values of the type can be out of range."""
    return _is_inside(pl.element(), dtype) is not None


def is_naive_time(text: pl.Expr) -> pl.Expr:
    """Whether a text is a time that names no zone."""
    return text.str.contains(NAIVE_TIME)


def _is_inside(column: pl.Expr, dtype: pl.DataType) -> pl.Expr | None:
    """True where every time in a value is in range, or null; None for types without times."""
    if isinstance(dtype, pl.Datetime) and dtype.time_unit != "ns":  # nanoseconds end in the year 2262
        step = 1000 if dtype.time_unit == "ms" else 1
        return column.to_physical().is_between(FIRST_US // step, END_US // step, closed="left")
    if dtype == pl.Date:
        return column.to_physical().is_between(FIRST_DAY, END_DAY, closed="left")
    if isinstance(dtype, pl.List | pl.Array):
        is_inside = _is_inside(pl.element(), item_type(dtype))
        return None if is_inside is None else items(column, dtype).list.eval(is_inside).list.all()
    if isinstance(dtype, pl.Struct):
        fields = (_is_inside(column.struct.field(name), inner) for name, inner in field_types(dtype).items())
        parts = [part.fill_null(value=True) for part in fields if part is not None]
        return pl.all_horizontal(parts) if parts else None
    return None


def _from_text(text: pl.Expr, wanted: pl.DataType, words: Mapping[str, bool] | None = None) -> pl.Expr | None:
    if wanted.is_numeric():
        return _number(text, wanted)
    if wanted.is_temporal():
        return _time(text, wanted)
    if wanted == pl.Boolean:
        return text.str.to_lowercase().replace_strict(words or BOOLEAN_WORDS, default=None, return_dtype=pl.Boolean)
    if isinstance(wanted, pl.List | pl.Array | pl.Struct):
        return _nested_from_json(text, wanted)
    return text.cast(wanted, strict=False) if isinstance(wanted, pl.Enum | pl.Categorical | pl.String) else None


def _number(text: pl.Expr, wanted: pl.DataType) -> pl.Expr:
    if isinstance(wanted, pl.Decimal):
        is_exact = text.str.contains(rf"^[+-]?\d*(\.\d{{0,{wanted.scale}}}0*)?$") & text.str.contains(r"\d")
        return pl.when(is_exact).then(text).cast(wanted, strict=False)
    number = text.cast(wanted, strict=False)
    if wanted.is_float():  # the nearest float; infinity is not the nearest to 1e400
        return pl.when(number.is_finite() | ~text.str.contains(r"\d")).then(number)
    return number


def _time(text: pl.Expr, wanted: pl.DataType) -> pl.Expr | None:
    if wanted == pl.Date:
        return _if_shaped(text, rf"{DATE}$", text.str.to_date("%Y-%m-%d", strict=False))
    if wanted == pl.Time:
        return _if_shaped(text, rf"^{CLOCK}(\.\d{{1,9}}0*)?$", text.str.to_time("%H:%M:%S%.f", strict=False))
    if wanted == UTC_MICROSECONDS:
        with_t = _utc_time(text, "T")
        with_blank = _utc_time(pl.when(with_t.is_null()).then(text), " ")
        return _if_shaped(text, UTC_TIME, pl.coalesce(with_t, with_blank))
    return parse_duration(text, wanted) if isinstance(wanted, pl.Duration) else None


def _utc_time(text: pl.Expr, separator: str) -> pl.Expr:
    form = f"%Y-%m-%d{separator}%H:%M:%S%.f%#z"
    return text.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False)


def _if_shaped(text: pl.Expr, pattern: str, parsed: pl.Expr) -> pl.Expr:
    return pl.when(text.str.contains(pattern)).then(parsed)


def _from_formatted(
    text: pl.Expr, formats: TextFormats, wanted: pl.DataType, words: Mapping[str, bool] | None
) -> pl.Expr | None:
    if wanted == pl.String:
        return text
    if wanted.is_numeric():
        return _number(formats.plain_number(text), wanted)
    if wanted == pl.Date and formats.dates:
        parsed = (
            _if_shaped(text, format_pattern(form), text.str.to_date(form, strict=False)) for form in formats.dates
        )
        return pl.coalesce(*parsed)
    if wanted == UTC_MICROSECONDS and formats.times:
        return pl.coalesce(*(_formatted_time(text, form) for form in formats.times))
    return _from_text(text, wanted, words)


def _formatted_time(text: pl.Expr, form: str) -> pl.Expr:
    return _if_shaped(
        text, format_pattern(form), text.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False)
    )


def _from_json(column: pl.Expr, wanted: pl.DataType, words: Mapping[str, bool] | None) -> pl.Expr | None:
    text, is_string = column.struct.field(TEXT), column.struct.field(IS_STRING)
    if isinstance(wanted, pl.List | pl.Array | pl.Struct):
        return _nested_from_json(pl.when(~is_string).then(text), wanted)
    if wanted == pl.String:
        return text
    if wanted.is_integer() or wanted.is_decimal():
        text = pl.when(is_string).then(text).otherwise(plain_number(text))
    of_string = _from_text(text, wanted, words)
    if not words or of_string is None:
        return of_string
    return pl.when(is_string).then(of_string).otherwise(_from_text(text, wanted, {**words, **BOOLEAN_WORDS}))


def _nested_from_json(text: pl.Expr, wanted: pl.List | pl.Array | pl.Struct) -> pl.Expr | None:
    """Arrays and objects of which every part is exactly a value of its type, null for any other text.

    The parts are parsed as columns of their own: Polars panics at functions of Python within `list.eval`.
    """
    inner = field_types(wanted) if isinstance(wanted, pl.Struct) else {"item": item_type(wanted)}
    if any(parse(pl.col(name), JSON_VALUE, dtype) is None for name, dtype in inner.items()):
        return None
    convert = _structs if isinstance(wanted, pl.Struct) else _lists
    return text.map_batches(lambda texts: convert(texts, inner).cast(wanted), return_dtype=wanted)


def _lists(texts: pl.Series, inner: Mapping[str, pl.DataType]) -> pl.Series:
    ((name, dtype),) = inner.items()
    arrays = [decode_array(text) for text in texts]
    places = [place for place, array in enumerate(arrays) for _ in array or ()]
    items = pl.Series(name, [item for array in arrays for item in array or ()], JSON_VALUE)
    parsed, is_lost = _parsed(items, dtype)
    grouped = pl.DataFrame([pl.Series("place", places, pl.Int64), parsed, is_lost]).group_by("place").agg(name, IS_LOST)
    is_array = pl.Series("is_array", [array is not None for array in arrays], pl.Boolean)
    rows = is_array.to_frame().with_row_index("place").cast({"place": pl.Int64})
    found = rows.join(grouped, on="place", how="left", maintain_order="left")
    lists = pl.col(name).fill_null(pl.lit([], pl.List(dtype)))
    is_whole = pl.col("is_array") & ~pl.col(IS_LOST).list.any().fill_null(value=False)
    return found.select(pl.when(is_whole).then(lists).alias(texts.name)).to_series()


def _structs(texts: pl.Series, inner: Mapping[str, pl.DataType]) -> pl.Series:
    objects = [decode_object(text, inner) for text in texts]
    is_whole = pl.Series("is_whole", [fields is not None for fields in objects], pl.Boolean)
    columns = []
    for name, dtype in inner.items():
        cells = pl.Series(name, [fields and fields[name] for fields in objects], JSON_VALUE)
        parsed, is_lost = _parsed(cells, dtype)
        columns.append(parsed)
        is_whole &= ~is_lost
    rows = pl.DataFrame(columns, schema=dict(inner)).to_struct(texts.name)
    return rows.to_frame().select(pl.when(is_whole).then(pl.first()).alias(texts.name)).to_series()


def _parsed(cells: pl.Series, wanted: pl.DataType) -> tuple[pl.Series, pl.Series]:
    """The values of cells, and whether each is lost: not exactly a value of the type."""
    parsed = cells.to_frame().select(parse(pl.col(cells.name), JSON_VALUE, wanted)).to_series().alias(cells.name)
    return parsed, (cells.is_not_null() & parsed.is_null()).alias(IS_LOST)


def _from_typed(column: pl.Expr, raw: pl.DataType, wanted: pl.DataType) -> pl.Expr | None:
    """The value as the other type, where the way back gives the same one."""
    if raw.is_numeric() and wanted.is_numeric():
        if raw.is_float() and isinstance(wanted, pl.Decimal):
            return _decimal_of_float(column, raw, wanted)
        return _if_same_number(column.cast(wanted, strict=False), column, raw)
    if isinstance(raw, pl.Datetime) and raw.time_zone and wanted == UTC_MICROSECONDS:
        time = in_range(column, raw)
        return _if_same(time.dt.cast_time_unit("us").dt.convert_time_zone("UTC"), time, raw.time_unit)
    if isinstance(raw, pl.Duration) and isinstance(wanted, pl.Duration):
        return _if_same(column.dt.cast_time_unit(wanted.time_unit), column, raw.time_unit)
    if isinstance(raw, pl.Enum | pl.Categorical):
        return parse(column.cast(pl.String), pl.String(), wanted)
    return _from_nested(column, raw, wanted)


def _from_nested(column: pl.Expr, raw: pl.DataType, wanted: pl.DataType) -> pl.Expr | None:
    if isinstance(raw, pl.List | pl.Array) and isinstance(wanted, pl.List):
        return _list_of_other_items(column, raw, wanted)
    if isinstance(raw, pl.Struct) and isinstance(wanted, pl.Struct):
        return _struct_of_other_fields(column, raw, wanted)
    return None


def _list_of_other_items(column: pl.Expr, raw: pl.List | pl.Array, wanted: pl.List) -> pl.Expr | None:
    """Lists of which every item is exactly a value of its type."""
    item = parse(pl.element(), item_type(raw), item_type(wanted))
    if item is None or _decodes_text(item_type(raw), item_type(wanted)):
        return None
    lists = items(column, raw)
    is_lost = lists.list.eval(pl.element().is_not_null() & item.is_null()).list.any()
    return pl.when(~is_lost).then(lists.list.eval(item))


def _struct_of_other_fields(column: pl.Expr, raw: pl.Struct, wanted: pl.Struct) -> pl.Expr | None:
    """Structs of the same fields, in any order, of which every one is exactly a value of its type."""
    found, declared = field_types(raw), field_types(wanted)
    if found.keys() != declared.keys():
        return None
    values, lost = [], []
    for name, dtype in declared.items():
        field = column.struct.field(name)
        value = parse(field, found[name], dtype)
        if value is None:
            return None
        values.append(value.alias(name))
        lost.append(field.is_not_null() & value.is_null())
    return pl.when(column.is_not_null() & ~pl.any_horizontal(lost)).then(pl.struct(values))


def _decodes_text(raw: pl.DataType, wanted: pl.DataType) -> bool:
    """Whether JSON in a text is decoded, however deep: Polars panics at functions of Python within `list.eval`."""
    if isinstance(raw, pl.List | pl.Array) and isinstance(wanted, pl.List):
        return _decodes_text(item_type(raw), item_type(wanted))
    if isinstance(raw, pl.Struct) and isinstance(wanted, pl.Struct):
        declared = field_types(wanted)
        return any(_decodes_text(inner, declared[name]) for name, inner in field_types(raw).items())
    return not raw.is_nested() and wanted.is_nested()


def _decimal_of_float(column: pl.Expr, raw: pl.DataType, wanted: pl.Decimal) -> pl.Expr:
    """The digits that the float is written with, if the scale has room for them.

    Polars' own cast computes `number * 10 ** scale` in floats: of more than fifteen digits the last ones are noise.
    """
    digits = _number(column.cast(pl.String), wanted)
    whole = _if_same_number(column.cast(pl.Int128, strict=False), column, raw).cast(wanted, strict=False)
    is_short = (column * 10.0**wanted.scale).abs() < FIFTEEN_DIGITS
    small = pl.when(is_short).then(_if_same_number(column.cast(wanted, strict=False), column, raw))
    return pl.coalesce(digits, whole, small)  # the latter two for those that are written with an exponent


def _if_same_number(converted: pl.Expr, column: pl.Expr, raw: pl.DataType) -> pl.Expr:
    return pl.when(converted.cast(raw, strict=False) == column).then(converted)


def _if_same(converted: pl.Expr, column: pl.Expr, unit: TimeUnit) -> pl.Expr:
    return pl.when(converted.dt.cast_time_unit(unit).to_physical() == column.to_physical()).then(converted)
