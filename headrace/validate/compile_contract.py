"""dataframely schema → what one Polars query needs of it. What can only fail is refused here, before there is data."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from functools import cache

import dataframely as dy
import polars as pl

from headrace.dataset import UTC_MICROSECONDS, Source
from headrace.partitions import TimePartitions
from headrace.validate.column_history import histories, history_faults
from headrace.validate.columns import bounds_of, words_of
from headrace.validate.compiled_contract import CompiledContract, RowCheck
from headrace.validate.contract_faults import check_faults, column_faults, name_faults
from headrace.validate.dataframely_rules import rule_expression, schema_rules
from headrace.validate.errors import InvalidContractError
from headrace.validate.query import parse_earlier
from headrace.validate.reserved_names import START

LIMITS = {
    "min": "at least",
    "min_exclusive": "more than",
    "max": "at most",
    "max_exclusive": "less than",
    "regex": "matching",
    "is_in": "one of",
}
"""Rule of a column → how the column's attribute of that name reads in a message."""


def contract_of(source: Source) -> CompiledContract:
    """The compiled contract of a source.

    Raises:
        InvalidContractError: It cannot be applied to any row.
    """
    try:
        compiled = compile_contract(source.contract, is_batched=source.batch_size > 1)
        if compiled.histories:
            _refuse(source.schema, _source_faults(source, compiled))
    except InvalidContractError as error:
        raise InvalidContractError(f"source {source.name}: {error}") from None
    return compiled


def _source_faults(source: Source, compiled: CompiledContract) -> Iterator[str]:
    """Histories of columns that do not fit how the source is cut, or its key."""
    for name, history in compiled.histories.items():
        partitions = [*filter(None, (history.since, history.until)), *(each.until for each in history.earlier_types)]
        if partitions and not isinstance(source.partitioning, TimePartitions):
            yield (
                f"column {name!r}: the partitions of the source have no order in time ({source.partitioning.label}), so"
                f" none is before {partitions[0]}"
            )
        elif source.partitions is not None and not all(map(source.partitions.is_valid, partitions)):
            yield (
                f"column {name!r}: expected a partition such as {source.partitions.example}, found"
                f" {', '.join(map(repr, partitions))}"
            )
        elif name in source.key and (history.since or history.until):
            yield f"column {name!r}: the key names it, so every partition must have it: `since` and `until` do not fit"
        elif name in source.key and not all(each.parse or each.dtype.is_integer() for each in history.earlier_types):
            yield f"column {name!r}: the key names it, and of earlier types a key may have smaller integers only"


@cache
def compile_contract(
    schema: type[dy.Schema] | Callable[..., type[dy.Schema]], *, is_batched: bool = False
) -> CompiledContract:
    """Compile a contract.

    Args:
        schema: The contract.
        is_batched: Whether rows of several partitions are checked by one query, so that a check must not compare rows.

    Raises:
        InvalidContractError: It cannot be applied to any row.
    """
    if not (isinstance(schema, type) and issubclass(schema, dy.Schema)):
        raise InvalidContractError(f"expected a contract that is a subclass of dataframely.Schema, found {schema!r}")
    _refuse(schema, name_faults(schema))
    _refuse(schema, column_faults(schema))
    _refuse(schema, history_faults(schema))
    _refuse(schema, _earlier_type_faults(schema))
    columns = schema.columns()
    types = {name: column.dtype for name, column in columns.items()}
    checks = (*_rule_checks(schema), *_bound_checks(schema))
    _refuse(schema, check_faults(types, checks, is_batched=is_batched))
    required = frozenset(name for name, column in columns.items() if not column.nullable)
    needs_start = any(START in check.passes.meta.root_names() for check in checks)
    words = {name: found for name, column in columns.items() if (found := words_of(column))}
    return CompiledContract(types, required, checks, needs_start, histories(schema), words=words)


def _earlier_type_faults(schema: type[dy.Schema]) -> Iterator[str]:
    columns = schema.columns()
    for name, history in histories(schema).items():
        for each in history.earlier_types:
            try:
                parse_earlier(pl.col(name), each, columns[name].dtype)
            except InvalidContractError as error:
                yield f"column {name!r}: {error}"


def _refuse(schema: type[dy.Schema], faults: Iterable[str]) -> None:
    if found := list(faults):
        raise _invalid(schema, "; ".join(found))


def _invalid(schema: type[dy.Schema], fault: str) -> InvalidContractError:
    return InvalidContractError(f"the contract {schema.__name__} ({schema.__module__}): {fault}")


def _rule_checks(schema: type[dy.Schema]) -> Iterator[RowCheck]:
    """The rules of dataframely, but for nulls, which are looked for before a value is parsed."""
    columns = schema.columns()
    for name, rule in schema_rules(schema).items():
        column_name, _, rule_name = name.rpartition("|")
        column = columns.get(column_name)
        if column is None or rule_name != "nullability":
            passes = _expression(schema, name, rule)
            limit = f"{LIMITS[rule_name]} {getattr(column, rule_name)}" if column and rule_name in LIMITS else ""
            yield RowCheck(name, passes, frozenset(passes.meta.root_names()), limit)


def _expression(schema: type[dy.Schema], name: str, rule: object) -> pl.Expr:
    try:
        passes = rule_expression(rule)
    except Exception as error:  # whatever the team's function raises
        raise _invalid(schema, f"check {name!r} raised {type(error).__name__}: {error}") from error
    if not isinstance(passes, pl.Expr):
        raise _invalid(schema, f"check {name!r}: expected a Polars expression, found {passes!r}")
    if passes.meta.has_multiple_outputs():
        raise _invalid(schema, f"check {name!r} selects several columns at once, as pl.all() does: name each one")
    return passes


def _bound_checks(schema: type[dy.Schema]) -> Iterator[RowCheck]:
    for name, column in schema.columns().items():
        if within := bounds_of(column):
            first, last = (_bound(bound) for bound in (within.first, within.last))
            reads = frozenset({name})
            yield RowCheck(f"{name}|not_before", pl.col(name) >= first, reads, _bound_text(within.first))
            yield RowCheck(f"{name}|before", pl.col(name) < last, reads, _bound_text(within.last))


def _bound(bound: timedelta | datetime) -> pl.Expr:
    return pl.lit(bound, UTC_MICROSECONDS) if isinstance(bound, datetime) else pl.col(START) + bound


def _bound_text(bound: timedelta | datetime) -> str:
    return f"{bound:%Y-%m-%d}" if isinstance(bound, datetime) else f"day {bound // timedelta(hours=1):+d} h"
