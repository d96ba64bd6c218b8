"""What can only fail in a contract, found before there is data: one sentence for each column or check at fault."""

from collections.abc import Iterator, Mapping, Sequence

import dataframely as dy
import polars as pl

from headrace.dataset import UTC_MICROSECONDS
from headrace.storage.nested import field_types, item_type
from headrace.validate.columns import WITHIN, TimeBounds
from headrace.validate.compiled_contract import QUERY_ERRORS, RowCheck, query_reason
from headrace.validate.reserved_names import FAILED_CHECKS, LINE, MARK, OBJECT, ROW, ROW_TEXT, START

SCHEMA_METHODS = frozenset(name for name in dir(dy.Schema) if not name.startswith("_"))


def name_faults(schema: type[dy.Schema]) -> Iterator[str]:
    """Attributes that dataframely would not take for what they are meant to be."""
    own_classes = schema.__mro__[: schema.__mro__.index(dy.Schema)]
    for own_class in own_classes:
        for name, value in vars(own_class).items():
            if name in SCHEMA_METHODS:
                yield f"{name!r} is a method of dataframely.Schema: write `{name}_ = dy.…(alias={name!r})`"
            elif isinstance(value, dy.Column) and name.startswith(("__", f"_{own_class.__name__.lstrip('_')}__")):
                yield f"{name!r}: a name that begins with two underscores is dropped or changed: give it with `alias=`"


def column_faults(schema: type[dy.Schema]) -> Iterator[str]:
    """Columns whose name, type or bounds no row can meet."""
    if not schema.columns():
        yield "it declares no column"
    for name, column in schema.columns().items():
        fault, within = _type_fault(column.dtype), (column.metadata or {}).get(WITHIN)
        if name in (OBJECT, ROW, LINE, ROW_TEXT, FAILED_CHECKS) or name.startswith(MARK):
            fault = "the name is reserved for tables of rejected rows; rename the column in `read`"
        elif name == "*" or (name.startswith("^") and name.endswith("$")):
            fault = "Polars takes the name for a pattern; rename the column in `read`"
        elif column.primary_key:
            fault = "its key is declared as `Source.key`, which holds over the whole table, not as `primary_key`"
        elif within is not None and not (isinstance(within, TimeBounds) and column.dtype == UTC_MICROSECONDS):
            fault = f"expected `utc_time(within=TimeBounds(…))`, found {within!r} on a column of {column.dtype}"
        if fault:
            yield f"column {name!r}: {fault}"


def _type_fault(dtype: pl.DataType) -> str:
    if dtype in (pl.Null, pl.Object, pl.Unknown):
        return "it has no type that a table can hold"
    if isinstance(dtype, pl.Datetime) and dtype != UTC_MICROSECONDS:
        return f"times are UTC in microseconds, as `utc_time()` declares them; found {dtype}"
    if isinstance(dtype, pl.List | pl.Array):
        return _type_fault(item_type(dtype))
    if isinstance(dtype, pl.Struct):
        return next(filter(None, map(_type_fault, field_types(dtype).values())), "")
    return ""


def check_faults(columns: Mapping[str, pl.DataType], checks: Sequence[RowCheck], *, is_batched: bool) -> Iterator[str]:
    """Checks that cannot be applied, found by applying each to two rows of nulls.

    Args:
        columns: Column → type.
        checks: The checks.
        is_batched: Whether rows of several partitions are checked by one query, so that a check must not compare rows.
    """
    nulls = _two_rows(columns)
    if not _are_applicable(nulls, checks):
        found = ((check, _check_fault(nulls, check)) for check in checks)
        yield from (f"check {check.name!r}: {fault}" for check, fault in found if fault)
    elif is_batched and checks and not _is_rowwise(nulls, checks):
        beyond = (check.name for check in checks if not _is_rowwise(nulls, [check]))
        yield from (f"check {name!r} compares rows, so the source needs `batch_size=1`" for name in beyond)


def are_rowwise(columns: Mapping[str, pl.DataType], checks: Sequence[RowCheck]) -> bool:
    """Whether no check compares rows, so that rows can be checked in parts."""
    return not checks or _is_rowwise(_two_rows(columns), checks)


def _two_rows(columns: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    types = {**columns, START: UTC_MICROSECONDS}
    return pl.LazyFrame({name: [None, None] for name in types}, schema=types)


def _are_applicable(nulls: pl.LazyFrame, checks: Sequence[RowCheck]) -> bool:
    """Whether each check is one Boolean per row: one query for the answers of all, one for how many each gives."""
    try:
        answers = nulls.select(check.passes.alias(check.name) for check in checks).collect()
        heights = nulls.select(check.passes.len().alias(check.name) for check in checks).collect()
    except QUERY_ERRORS:
        return False
    return set(answers.dtypes) <= {pl.Boolean()} and all(column.item() == 2 for column in heights)  # noqa: PLR2004


def _check_fault(nulls: pl.LazyFrame, check: RowCheck) -> str:
    if unknown := check.reads - {*nulls.collect_schema()}:
        return f"it reads {', '.join(map(repr, sorted(unknown)))}, which the contract does not declare"
    try:
        answers = nulls.select(check.passes).collect().to_series()
    except QUERY_ERRORS as error:
        return query_reason(error)
    if answers.dtype != pl.Boolean:
        return f"expected True or False for each row, found {answers.dtype}"
    return "" if len(answers) == 2 else "expected an answer for each row, found one for all"  # noqa: PLR2004


def _is_rowwise(nulls: pl.LazyFrame, checks: Sequence[RowCheck]) -> bool:
    """Whether each answer depends on its row alone: only then Polars' optimizer filters rows before the checks."""
    answers = nulls.with_columns(check.passes.alias(f"{MARK}{check.name}") for check in checks)
    plan = answers.filter(pl.col(START).is_not_null()).explain()
    return plan.index("WITH_COLUMNS") < plan.index("FILTER")
