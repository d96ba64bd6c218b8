"""What to declare where the columns of a source changed: the line of the contract that accepts the change."""

from collections.abc import Sequence

import polars as pl

from headrace.dataset import UTC_MICROSECONDS
from headrace.storage.nested import field_types, item_type
from headrace.storage.table_schema import arrow_type, is_wider
from headrace.validate.compiled_contract import CompiledContract
from headrace.validate.json_values import JSON_VALUE
from headrace.validate.parsing import parse
from headrace.validate.text_formats import formats_of

SAMPLE = 10_000
"""Values of a column that are looked at to guess its type."""

GUESSES: Sequence[pl.DataType] = (pl.Int64(), pl.Float64(), pl.Boolean(), pl.Date(), UTC_MICROSECONDS)
"""Types that text may be read as, in this order."""


def declare_type(dtype: pl.DataType, options: str = "") -> str:
    """A column of the type as a contract writes it: `dy.Decimal(10, 2)`."""
    if dtype == UTC_MICROSECONDS:
        return f"utc_time({options})"
    if isinstance(dtype, pl.Decimal):
        return f"dy.Decimal({dtype.precision}, {dtype.scale}{f', {options}' if options else ''})"
    if isinstance(dtype, pl.List | pl.Array):
        return f"dy.List({', '.join(filter(None, (declare_type(item_type(dtype)), options)))})"
    if isinstance(dtype, pl.Struct):
        parts = ", ".join(f"{name!r}: {declare_type(inner)}" for name, inner in field_types(dtype).items())
        return f"dy.Struct({', '.join(filter(None, (f'{{{parts}}}', options)))})"
    if isinstance(dtype, pl.Enum):
        return f"dy.Enum({', '.join(filter(None, (repr(dtype.categories.to_list()), options)))})"
    return f"dy.{'Bool' if dtype == pl.Boolean else type(dtype).__name__}({options})"


def added_column(column: pl.Series, partition: str, *, is_ordered: bool) -> str:
    """The declaration of a column that a partition has and the contract lacks."""
    dtype = guess_type(column)
    declared = declare_type(dtype, "nullable=True" if column.null_count() else "")
    if not is_ordered:
        return f"{column.name} = {declared}"
    return f'{column.name} = evolving({declared}, since="{partition}")'


def missing_column(name: str, contract: CompiledContract, partition: str) -> str:
    """The declaration of a column that a partition lacks."""
    return f'{name} = evolving({_declared_column(name, contract)}, until="{partition}")'


def renamed_column(missing: str, added: str, contract: CompiledContract) -> str:
    """The declarations of a column that has another name: the table keeps the name, or takes the new one."""
    declared = _declared_column(missing, contract)
    return (
        f'`{missing} = evolving({declared}, aliases="{added}")` keeps its name in all tables,'
        f' `{added} = evolving({declared}, renamed_from="{missing}")` takes the new one'
    )


def _declared_column(name: str, contract: CompiledContract) -> str:
    """The first arguments of `evolving`: a column of the contract, and `…` for the changes that it has declared."""
    return declare_type(contract.columns[name], "…") + (", …" if name in contract.histories else "")


def find_renamed(
    missing: Sequence[str], added: Sequence[str], frame: pl.DataFrame, contract: CompiledContract
) -> dict[str, str]:
    """Missing column → added column that seems to be the same: all its values are of that type.

    Of several, the one at the place of the missing column; if none is there, it must be the only one.
    """
    found: dict[str, str] = {}
    places = [*contract.columns]
    for name in missing:
        fitting = [it for it in added if it not in found.values() and _is_all(frame[it], contract.columns[name])]
        at_place = [it for it in fitting if frame.columns.index(it) == places.index(name)]
        if at_place or len(fitting) == 1:
            found[name] = (at_place or fitting)[0]
    return found


def retyped_column(column: pl.Series, wanted: pl.DataType, partition: str) -> str:
    """The declaration of a column of which no value is of its type; empty if there is no type to name."""
    dtype = guess_type(column, wider_than=wanted)
    if dtype == wanted:
        return ""
    declared, earlier = declare_type(dtype, "…"), _type_text(wanted)
    if is_wider(arrow_type(dtype), arrow_type(wanted)):
        return f'{column.name} = evolving({declared}, earlier_types=EarlierType({earlier}, until="{partition}"))'
    return (
        f"{column.name} = evolving({declared}, earlier_types=EarlierType({earlier},"
        f' until="{partition}", parse=lambda column: …))'
    )


def guess_type(column: pl.Series, wider_than: pl.DataType | None = None) -> pl.DataType:
    """The narrowest of the usual types that all values have; of a typed column, its own.

    Args:
        column: The values as they came.
        wider_than: A type that they do not have: types that hold its values come first.
    """
    if column.dtype not in (pl.String, JSON_VALUE) and formats_of(column.dtype) is None:
        return UTC_MICROSECONDS if isinstance(column.dtype, pl.Datetime) else column.dtype
    if column.null_count() == len(column):
        return pl.String()
    guesses: list[pl.DataType] = list(GUESSES)
    if wider_than is not None and (name := arrow_type(wider_than)):
        guesses.sort(key=lambda guess: not is_wider(arrow_type(guess), name))
    return next((guess for guess in guesses if _is_all(column, guess)), pl.String())


def _is_all(column: pl.Series, dtype: pl.DataType) -> bool:
    """Whether every value is one of the type."""
    values = column.drop_nulls().head(SAMPLE)
    parsed = parse(pl.col(column.name), column.dtype, dtype)
    if parsed is None:
        return False
    return values.to_frame().select(parsed.is_not_null().all()).item() is True


def _type_text(dtype: pl.DataType) -> str:
    if dtype == UTC_MICROSECONDS:
        return 'pl.Datetime("us", "UTC")'
    if isinstance(dtype, pl.Decimal):
        return f"pl.Decimal({dtype.precision}, {dtype.scale})"
    return f"pl.{type(dtype).__name__}()"
