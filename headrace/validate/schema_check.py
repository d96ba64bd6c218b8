"""Partitions that are refused whole: columns missing, added, of another type, or times without a zone."""

from collections.abc import Sequence

import polars as pl

from headrace.dataset import UTC_MICROSECONDS, Source
from headrace.errors import HeadraceError
from headrace.validate.as_text import as_text
from headrace.validate.compiled_contract import CompiledContract
from headrace.validate.errors import ColumnTypeChangedError, NaiveTimeError, SchemaChangedError
from headrace.validate.json_values import JSON_VALUE
from headrace.validate.query import CheckedRows, RowQuery
from headrace.validate.text_formats import formats_of

EXAMPLES = 3


def check_columns(where: str, found: Sequence[str], contract: CompiledContract, source: Source) -> None:
    """Hold the columns of a partition to the contract's.

    Raises:
        SchemaChangedError: One is missing, or added where the source refuses that.
    """
    missing = [name for name in contract.columns if name not in found]
    added = [name for name in found if name not in contract.columns] if source.extra_columns == "refuse" else []
    if not missing and not added:
        return
    findings = [f"missing {', '.join(missing)}"] * bool(missing) + [f"new {', '.join(added)}"] * bool(added)
    hint = f" Renamed: new {added[0]}, missing {missing[0]}?" if missing and added else ""
    raise SchemaChangedError(
        f"{where}: the columns changed: {'; '.join(findings)}. Expected {', '.join(contract.columns)}.{hint}"
        " Nothing of this partition was accepted. Fix the source, or name the column in its contract, then run"
        " `headrace validate` again."
    )


def column_refusal(where: str, raw: pl.DataFrame, query: RowQuery) -> HeadraceError | None:
    """Why the types of a partition's columns are refused before any value is looked at."""
    for name, parsed in query.typed.items():
        if parsed is None:
            is_naive = isinstance(raw.schema[name], pl.Datetime) and query.contract.columns[name] == UTC_MICROSECONDS
            return (_naive if is_naive else _retyped)(where, raw.get_column(name), query.contract.columns[name])
    return None


def value_refusal(
    where: str, raw: pl.DataFrame, checked: CheckedRows, contract: CompiledContract
) -> HeadraceError | None:
    """Why a partition is refused of which a column has values and none of them is of its type: it is another column."""
    return next(iter(value_refusals(where, raw, checked, contract).values()), None)


def value_refusals(
    where: str, raw: pl.DataFrame, checked: CheckedRows, contract: CompiledContract
) -> dict[str, HeadraceError]:
    """Column that has values and none of its type → why rows are refused that have no others, in order."""
    if not checked.is_bad.any():
        return {}
    refusals: dict[str, HeadraceError] = {}
    for name, wanted in contract.columns.items():
        if raw.schema[name] == wanted:  # a time out of range has its type
            continue
        unparsed, naive = (_count(checked.failed, f"{name}|{rule}") for rule in ("dtype", "zone"))
        if unparsed + naive and unparsed + naive == raw.get_column(name).count():
            refusals[name] = (_retyped if unparsed else _naive)(where, raw.get_column(name), wanted)
    return refusals


def _count(failed: pl.DataFrame, check: str) -> int:
    return int(failed.get_column(check).sum()) if check in failed.columns else 0


def _retyped(where: str, column: pl.Series, wanted: pl.DataType) -> ColumnTypeChangedError:
    is_text = column.dtype in (pl.String, JSON_VALUE) or formats_of(column.dtype) is not None
    advice = "declare it as dy.String and parse it in `transform`" if is_text else "correct its contract"
    return ColumnTypeChangedError(
        f"{where}: the column {column.name} was retyped: expected {_type_name(wanted)}, but none of its"
        f" {column.count():,} values is; found {_type_name(column.dtype)}: {_examples(column)}. Nothing of this"
        f" partition was accepted. Fix the source, or {advice}, then run `headrace validate` again."
    )


def _naive(where: str, column: pl.Series, _wanted: pl.DataType) -> NaiveTimeError:
    return NaiveTimeError(
        f"{where}: the times of the column {column.name} name no zone: {_examples(column)}. Expected times with"
        " their zone, as in 2013-01-01T10:00:00Z; none is guessed. Fix the source (for PostgreSQL: `timestamptz`"
        " columns), then run `headrace ingest` and `headrace validate` again."
    )


def _type_name(wanted: pl.DataType) -> str:
    if formats_of(wanted):
        return str(pl.String())
    return {UTC_MICROSECONDS: "time in UTC", JSON_VALUE: "JSON"}.get(wanted) or str(wanted)


def _examples(column: pl.Series) -> str:
    values = column.drop_nulls().head(1000).to_frame()
    text = values.select(as_text(pl.col(column.name), column.dtype)).to_series()
    return ", ".join(map(repr, text.unique(maintain_order=True).head(EXAMPLES)))
