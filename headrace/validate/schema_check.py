"""Partitions that are refused whole: columns missing, added, of another type, or times without a zone."""

from collections.abc import Collection, Sequence

import polars as pl

from headrace.dataset import UTC_MICROSECONDS, Source
from headrace.errors import HeadraceError
from headrace.partitions import TimePartitions
from headrace.validate.as_text import as_text
from headrace.validate.compiled_contract import CompiledContract
from headrace.validate.errors import ColumnTypeChangedError, NaiveTimeError, SchemaChangedError
from headrace.validate.json_values import JSON_VALUE
from headrace.validate.query import CheckedRows, RowQuery
from headrace.validate.schema_changes import added_column, find_renamed, missing_column, renamed_column, retyped_column
from headrace.validate.text_formats import formats_of

EXAMPLES = 3


def check_columns(  # noqa: PLR0913, PLR0917  what is compared, and where
    where: str, frame: pl.DataFrame, contract: CompiledContract, source: Source, partition: str, absent: Collection[str]
) -> None:
    """Hold the columns of a partition to the contract's.

    Args:
        where: Source, partition and object, for messages.
        frame: The rows as they came.
        contract: The contract.
        source: The source.
        partition: The partition.
        absent: Columns that it may lack, and does.

    Raises:
        SchemaChangedError: One is missing, twice there under several of its names, or added where that is refused.
    """
    names, found = {name: _other_names(contract, name) for name in contract.columns}, {*frame.columns}
    there = {name: [it for it in (name, *others) if it in found] for name, others in names.items()}
    if twice := next((own for own in there.values() if len(own) > 1), None):
        raise SchemaChangedError(
            f"{where}: the columns {' and '.join(twice)} are declared as names of one column, and it has both. Nothing"
            " of this partition was accepted. Fix the source, or declare two columns, then run `headrace validate`"
            " again."
        )
    missing = [name for name, own in there.items() if not own and name not in absent]
    known = {*names, *(other for others in names.values() for other in others)}
    added = [name for name in frame.columns if name not in known] if source.extra_columns == "refuse" else []
    if not missing and not added:
        return
    findings = [f"missing {', '.join(missing)}"] * bool(missing) + [f"new {', '.join(added)}"] * bool(added)
    hint = f" Renamed: new {added[0]}, missing {missing[0]}?" if missing and added else ""
    raise SchemaChangedError(
        f"{where}: the columns changed: {'; '.join(findings)}. Expected {', '.join(contract.columns)}.{hint}"
        " Nothing of this partition was accepted. Fix the source, or declare the change in the contract"
        f" {source.schema.__name__}: {_declarations(frame, contract, source, partition, missing, added)}."
        f" Then run `headrace validate` again."
    )


def _other_names(contract: CompiledContract, name: str) -> tuple[str, ...]:
    history = contract.histories.get(name)
    return history.other_names if history else ()


def _declarations(  # noqa: PLR0913, PLR0917  as above
    frame: pl.DataFrame,
    contract: CompiledContract,
    source: Source,
    partition: str,
    missing: Sequence[str],
    added: Sequence[str],
) -> str:
    """The lines of the contract that accept the change."""
    is_ordered = isinstance(source.partitioning, TimePartitions)
    renamed = find_renamed(missing, added, frame, contract)
    lines = [renamed_column(name, new, contract) for name, new in renamed.items()]
    for name in missing:
        if name not in renamed:
            gone = missing_column(name, contract, partition) if is_ordered else ""
            lines.append(f"`{gone}`" if gone else f"remove `{name}`")
    lines += [
        f"`{added_column(frame.get_column(name), partition, is_ordered=is_ordered)}`"
        for name in added
        if name not in renamed.values()
    ]
    return "; ".join(lines)


def column_refusal(where: str, raw: pl.DataFrame, query: RowQuery, since: str = "") -> HeadraceError | None:
    """Why the types of a partition's columns are refused before any value is looked at.

    Args:
        where: Source and partition, for messages.
        raw: The rows as they came.
        query: The query that would parse them.
        since: The partition, if the source is cut by time: a new type may be declared from it on.
    """
    for name, parsed in query.typed.items():
        if parsed is None:
            wanted = query.contract.columns[name]
            if isinstance(raw.schema[name], pl.Datetime) and wanted == UTC_MICROSECONDS:
                return _naive(where, raw.get_column(name))
            return _retyped(where, raw.get_column(name), wanted, since)
    return None


def value_refusal(
    where: str, raw: pl.DataFrame, checked: CheckedRows, contract: CompiledContract, since: str = ""
) -> HeadraceError | None:
    """Why a partition is refused of which a column has values and none of them is of its type: it is another column."""
    return next(iter(value_refusals(where, raw, checked, contract, since).values()), None)


def value_refusals(
    where: str, raw: pl.DataFrame, checked: CheckedRows, contract: CompiledContract, since: str = ""
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
            column = raw.get_column(name)
            refusals[name] = _retyped(where, column, wanted, since) if unparsed else _naive(where, column)
    return refusals


def _count(failed: pl.DataFrame, check: str) -> int:
    return int(failed.get_column(check).sum()) if check in failed.columns else 0


def _retyped(where: str, column: pl.Series, wanted: pl.DataType, since: str) -> ColumnTypeChangedError:
    is_text = column.dtype in (pl.String, JSON_VALUE) or formats_of(column.dtype) is not None
    advice = "declare it as dy.String and parse it in `transform`" if is_text else "correct its contract"
    seen = f" but none of its {column.count():,} values is;" if column.count() else ""
    if since and (declared := retyped_column(column, wanted, since)):
        advice += f", or declare the change: `{declared}`"
    return ColumnTypeChangedError(
        f"{where}: the column {column.name} was retyped: expected {_type_name(wanted)},{seen}"
        f" found {_type_name(column.dtype)}{_examples(column)}. Nothing of this"
        f" partition was accepted. Fix the source, or {advice}, then run `headrace validate` again."
    )


def _naive(where: str, column: pl.Series) -> NaiveTimeError:
    return NaiveTimeError(
        f"{where}: the times of the column {column.name} name no zone{_examples(column)}. Expected times with"
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
    examples = ", ".join(map(repr, text.unique(maintain_order=True).head(EXAMPLES)))
    return f": {examples}" if examples else ""
