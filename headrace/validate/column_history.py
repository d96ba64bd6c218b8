"""How a column of a source changed over time: since when it is there, what it was called, and of which type it was.

class Trips(dy.Schema):
    trip_id = dy.String()
    fare = evolving(dy.Decimal(10, 2), renamed_from="price")
    tip = evolving(dy.Decimal(10, 2), since="2013-03-01", default=Decimal(0))
    tax = evolving(dy.Decimal(10, 2), until="2013-06-01")
    riders = evolving(dy.Int64(), earlier_types=(EarlierType(pl.Int32(), until="2013-03-01"),))
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TypeVar

import dataframely as dy
import polars as pl

from headrace.storage.field_ids import TableColumn, column_id
from headrace.storage.partition_names import partition_interval
from headrace.storage.table_schema import arrow_type, decode_default, describe_type, encode_default, is_wider

HISTORY = "history"
"""Key of a column's metadata that holds its `ColumnHistory`."""

C = TypeVar("C", bound=dy.Column)


@dataclass(frozen=True)
class EarlierType:
    """The type that a column had in partitions before `until`.

    Without `parse`, these partitions are validated with that type and keep their bytes; where they are read together
    with later ones, their values are cast. That needs a type of which every value is one of the column's: a smaller
    integer, `Float32` for `Float64`, a decimal of fewer digits.

    Attributes:
        dtype: The type.
        until: The first partition of the later type.
        parse: For any other type: a value of `dtype` → a value of the column's type, or a text that is read as one.
            Null where it cannot be read: such a row fails `<column>|dtype`.
    """

    dtype: pl.DataType
    until: str
    parse: Callable[[pl.Expr], pl.Expr] | None = None

    def __post_init__(self) -> None:
        """Take a class of Polars for the type of that class."""
        if isinstance(self.dtype, type):
            object.__setattr__(self, "dtype", self.dtype())


@dataclass(frozen=True)
class ColumnHistory:
    """How a column changed: see `evolving`."""

    since: str | None = None
    until: str | None = None
    default: object = None
    aliases: tuple[str, ...] = ()
    renamed_from: tuple[str, ...] = ()
    earlier_types: tuple[EarlierType, ...] = ()
    derived: tuple[str, ...] = ()

    def is_required(self, partition: str) -> bool:
        """Whether a partition must have the column."""
        return (self.since is None or partition >= self.since) and (self.until is None or partition < self.until)

    def earlier_type(self, partition: str) -> EarlierType | None:
        """The type of the column in a partition, if it is not the declared one."""
        later = (each for each in self.earlier_types if partition < each.until)
        return min(later, key=lambda each: each.until, default=None)

    @property
    def other_names(self) -> tuple[str, ...]:
        """What files may call the column, beside its name."""
        return (*self.renamed_from, *self.aliases)

    def stored_name(self, file_name: str) -> str:
        """The earlier name under which a partition keeps the column, by what its file calls it; empty for today's name.

        A file with an alias may be from before any rename, so the table calls its column by the oldest name for ever.
        """
        return file_name if file_name in self.renamed_from else next(iter(self.renamed_from), "")


def evolving(  # noqa: PLR0913  what can change in a column
    column: C,
    *,
    since: str | None = None,
    until: str | None = None,
    default: object = None,
    aliases: str | tuple[str, ...] = (),
    renamed_from: str | tuple[str, ...] = (),
    earlier_types: EarlierType | tuple[EarlierType, ...] = (),
    derived: str | tuple[str, ...] = (),
) -> C:
    """A column that the source has not always had in this form. Files of earlier partitions keep their bytes.

    Args:
        column: The column as it is now, for example `dy.Int64(nullable=True)`.
        since: The first partition that must have it. An earlier one may lack it, or have no value in it.
        until: The first partition that may lack it.
        default: Its value in rows of partitions without it, for `transform` and for everyone who reads the table. It is
            not stored in them. Checks say nothing about it.
        aliases: Other names that files give it. The table calls it by its own name, or the first of `renamed_from`.
        renamed_from: Names that it had in this table, the oldest first. Partitions whose files call it so keep that
            name; readers see the new one.
        earlier_types: Types that it had before.
        derived: Columns that `transform` computes from it, which partitions without it lack, too.

    Returns:
        The column, for the contract.

    Examples:
        >>> tip = headrace.evolving(dy.Int64(min=0), since="2013-03-01", default=0)
        >>> tip.dtype
        Int64
    """
    history = ColumnHistory(
        since,
        until,
        default,
        _tuple(aliases),
        _tuple(renamed_from),
        (earlier_types,) if isinstance(earlier_types, EarlierType) else tuple(earlier_types),
        _tuple(derived),
    )
    return column.with_metadata({**(column.metadata or {}), HISTORY: history})


def _tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def history_of(column: dy.Column) -> ColumnHistory | None:
    """The history that a column was declared with."""
    return (column.metadata or {}).get(HISTORY)


def histories(schema: type[dy.Schema]) -> dict[str, ColumnHistory]:
    """Column → history, of those that have one."""
    found = ((name, history_of(column)) for name, column in schema.columns().items())
    return {name: history for name, history in found if history}


def table_columns(schema: type[dy.Schema]) -> tuple[TableColumn, ...]:
    """The columns of the validated table that not every partition has under its name and type."""
    columns = schema.columns()
    return tuple(
        TableColumn(
            column_id((history.renamed_from or (name,))[0]),
            name,
            described.type,
            encode_default(history.default),
            described.fields,
        )
        for name, history in histories(schema).items()
        for described in (describe_type(name, columns[name].dtype),)
    )


def first_names(declared: Mapping[str, ColumnHistory]) -> tuple[tuple[str, str], ...]:
    """Every name that a renamed column had, with the first one: its field id goes by that."""
    return tuple(
        (each, history.renamed_from[0])
        for name, history in declared.items()
        if history.renamed_from
        for each in (*history.renamed_from[1:], name)
    )


def history_faults(schema: type[dy.Schema]) -> Iterator[str]:
    """What can only fail in the histories of columns, a sentence for each column."""
    columns, declared = schema.columns(), histories(schema)
    names = [*columns, *(other for history in declared.values() for other in history.other_names)]
    for name, history in declared.items():
        if fault := next(_faults(history, columns[name].dtype, names), ""):
            yield f"column {name!r}: {fault}"


def _faults(history: ColumnHistory, dtype: pl.DataType, names: Sequence[str]) -> Iterator[str]:
    bounds = [each for each in (history.since, history.until) if each is not None]
    for partition in (*bounds, *(each.until for each in history.earlier_types)):
        if not isinstance(partition, str) or partition_interval(partition) == (None, None):
            yield f"expected a partition such as '2013-03-01', found {partition!r}"
    if len(bounds) == 2 and bounds[0] >= bounds[1]:  # noqa: PLR2004  both
        yield f"no partition is from {bounds[0]} up to {bounds[1]}"
    if history.default is not None and not bounds:
        yield "a default fills partitions without the column: say which with `since` or `until`"
    if fault := _default_fault(history.default, dtype):
        yield fault
    for other in history.other_names:
        if names.count(other) > 1:
            yield f"{other!r} is the name of another column, or given twice: each name belongs to one column"
    for each in history.earlier_types:
        if fault := _type_fault(each, dtype):
            yield fault


def _default_fault(default: object, dtype: pl.DataType) -> str:
    if default is None:
        return ""
    if not arrow_type(dtype):
        return f"a column of the type {dtype} can have no default: leave it out, and it is null"
    if isinstance(default, float) and not isfinite(default):
        return f"expected a finite default, found {default!r}"
    try:
        kept = pl.Series([decode_default(encode_default(default), dtype)], dtype=dtype, strict=True)
    except (TypeError, ValueError, ArithmeticError, pl.exceptions.PolarsError):
        return f"expected a default of the type {dtype}, found {default!r}"
    return "" if kept.item() == default else f"expected a default of the type {dtype}, found {default!r}"


def _type_fault(earlier: EarlierType, dtype: pl.DataType) -> str:
    found: object = earlier.dtype
    if not isinstance(found, pl.DataType):
        return f"expected a Polars type such as pl.Int32(), found {found!r}"
    if earlier.parse is None and not is_wider(arrow_type(dtype), arrow_type(earlier.dtype)):
        return (
            f"not every value of {earlier.dtype} is one of {dtype}: say with `parse` what becomes of the values before"
            f" {earlier.until}"
        )
    return ""
