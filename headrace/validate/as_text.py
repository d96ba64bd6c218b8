"""Any raw value as text: what a table of rejected rows holds."""

import polars as pl

from headrace.storage.nested import field_types, item_type, items
from headrace.validate.json_values import JSON_VALUE, TEXT
from headrace.validate.parsing import in_range
from headrace.validate.text_formats import formats_of, text_of_cell

INFINITIES = {
    "-9222425352054775809": "infinity",
    "-9222425352054775808": "-infinity",
    "-2147472692": "infinity",
    "-2147472691": "-infinity",
}
"""What ADBC makes of PostgreSQL's infinite timestamps (in microseconds) and dates (in days): it counts from 1970 on,
where PostgreSQL counts from 2000, and the sum overflows. No other time of PostgreSQL gives these numbers."""


def as_text(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Values as text, null where there is none; no value raises.

    Bytes are hexadecimal, lists and structs JSON, durations ISO 8601. In JSON, decimals and floats are text, which has
    `NaN` and `inf`. A time out of range is `infinity`, `-infinity` or the integer that stands for it.
    """
    if dtype.is_temporal():
        return _time_as_text(column, dtype)
    if dtype == JSON_VALUE:
        return column.struct.field(TEXT)
    if formats_of(dtype):
        return text_of_cell(column, dtype)
    if dtype.is_nested():
        wrapped = pl.struct(_encodable(column, dtype).alias("v")).struct.json_encode()
        return pl.when(column.is_not_null()).then(wrapped.str.strip_prefix('{"v":').str.strip_suffix("}"))
    if dtype == pl.Binary:
        return column.bin.encode("hex")
    return column.map_elements(repr, return_dtype=pl.String) if dtype == pl.Object else column.cast(pl.String)


def _time_as_text(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Duration):
        return column.dt.to_string("iso")
    if dtype == pl.Time:
        return column.dt.to_string("%H:%M:%S%.f")
    number = column.to_physical().cast(pl.String)
    number_or_infinity = number.replace_strict(INFINITIES, default=number)
    return pl.coalesce(in_range(column, dtype).cast(pl.String), number_or_infinity)


def _encodable(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """A nested value in which everything that Polars cannot write as JSON is text.

    It panics at bytes and at times out of range, and writes NaN and infinity as null.
    """
    if isinstance(dtype, pl.List | pl.Array):
        return items(column, dtype).list.eval(_encodable(pl.element(), item_type(dtype)))
    if isinstance(dtype, pl.Struct):
        fields = (
            _encodable(column.struct.field(name), inner).alias(name) for name, inner in field_types(dtype).items()
        )
        return pl.when(column.is_not_null()).then(pl.struct(*fields)) if dtype.fields else column
    return as_text(column, dtype) if dtype == pl.Binary or dtype.is_temporal() or dtype.is_float() else column
