"""Raw partitions → accepted and rejected rows. Rows in = rows accepted + rows rejected, for every partition.

A pure function of the raw files, the contract and the names of the partitions: it reads no clock. Partitions that are
validated together get the results that each gets alone; only the cost differs.
"""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import polars as pl

from headrace.dataset import UTC_MICROSECONDS, ObjectSource, Source
from headrace.errors import HeadraceError
from headrace.partitions import TimePartitions
from headrace.validate.apply_transform import apply_transform
from headrace.validate.columns import partition_start
from headrace.validate.compile_contract import contract_of
from headrace.validate.compiled_contract import QUERY_ERRORS, CompiledContract
from headrace.validate.compression import check_suffix
from headrace.validate.errors import InvalidContractError
from headrace.validate.fit_columns import RawRows, StoredColumns, fill_absent, select_columns
from headrace.validate.partition_check import reject_rows_of_other_partitions
from headrace.validate.query import CheckedRows, RowQuery, row_query
from headrace.validate.read_request import ReadRequest, takes_request
from headrace.validate.reserved_names import START
from headrace.validate.result import ValidationResult, readable_rows
from headrace.validate.schema_check import column_refusal, value_refusal
from headrace.validate.uniqueness import is_first_of_key, is_known_key, keys_together, unique_check
from headrace.validate.unreadable import UnreadableError
from headrace.validate.unreadable_lines import lost_lines, unreadable_lines

ResultOrRefusal = ValidationResult | HeadraceError
"""What became of the rows of a partition, or why it is refused whole."""


def validate_partition(source: Source, partition: str, files: Mapping[str, Path]) -> ValidationResult:
    """Validate one partition against its contract and the keys of other partitions.

    Args:
        source: The source.
        partition: The partition to validate.
        files: Raw files of that partition and of the earlier ones that may hold its keys.

    Raises:
        HeadraceError: The partition is refused whole.
    """
    result = validate_frame(read_raw(source, partition, files[partition]), source, partition)
    others = [
        validate_frame(read_raw(source, name, path), source, name) for name, path in files.items() if name != partition
    ]
    if not others:
        return result
    earlier = keys_together(result.accepted, [other.accepted for other in others], source.key)
    return result.reject(is_known_key(result.accepted, earlier, source.key), unique_check(source.key))


def read_raw(source: Source, partition: str, path: Path, key: str = "") -> pl.DataFrame:
    """The rows of one raw partition, or of one of its objects, as the source's `read` gives them.

    Raises:
        UnreadableError: The bytes are not what they are declared to be.
        InvalidContractError: `read` gives no frame.
    """
    where = _where(source, f"{partition} ({key})" if key else partition)
    try:
        if isinstance(source.location, ObjectSource):
            check_suffix(path, source.location.suffix)
        with unreadable_lines() as found:
            frame = source.read(path, **_request(source, partition, where, key))
    except UnreadableError as error:
        raise UnreadableError(
            f"{where}: {error.reason}. The bytes are kept as they came in {path}; have the producer send them again,"
            " whole, then run `headrace ingest` and `headrace validate`.",
            error.reason,
        ) from error
    if not isinstance(frame, pl.DataFrame):
        raise InvalidContractError(
            f"{where}: expected a polars DataFrame, but `read` ({source.read.__module__}) returned"
            f" {type(frame).__name__}. Correct it, then run `headrace validate` again."
        )
    if reason := lost_lines(frame, found):
        raise UnreadableError(f"{where}: {reason}. Then run `headrace validate` again.", reason)
    return frame


def _request(source: Source, partition: str, where: str, key: str) -> dict[str, ReadRequest]:
    """What `read` receives beside the file, if it asks for it."""
    if not takes_request(source.read):
        return {}
    contract = contract_of(source)
    columns = {
        **contract.columns,
        **{
            other: contract.columns[name]
            for name, history in contract.histories.items()
            for other in history.other_names
        },
    }
    check = partial(_check_schema, source, partition, where)
    return {"request": ReadRequest(columns, source.extra_columns, key, check)}


def _check_schema(source: Source, partition: str, where: str, schema: Mapping[str, pl.DataType]) -> None:
    """Hold the columns of a file to the contract's, by name and type, before any value is read.

    Raises:
        SchemaChangedError: A column is missing, or added where the source refuses that.
        ColumnTypeChangedError: No value of a column's type can be one of its declared type.
        NaiveTimeError: A column of times has no zone.
    """
    part = select_columns(where, pl.DataFrame(schema=schema), contract_of(source), source, partition)
    query = row_query(part.contract, tuple(part.frame.dtypes[: len(part.contract.columns)]))
    if error := column_refusal(where, part.frame, query, change_start(source, partition)):
        raise error


def validate_frame(frame: pl.DataFrame, source: Source, partition: str) -> ValidationResult:
    """Validate the rows of one partition.

    Raises:
        SchemaChangedError: A column is missing, renamed or added.
        ColumnTypeChangedError: No value of a column is of its type.
        NaiveTimeError: A column of times has no zone.
        InvalidContractError: The contract or `transform` cannot be applied.
    """
    (outcome,) = _validate({partition: frame}, source).values()
    if isinstance(outcome, HeadraceError):
        raise outcome
    return outcome


def validate_frames(frames: Mapping[str, pl.DataFrame], source: Source) -> dict[str, ValidationResult]:
    """Validate partitions together; those that `validate_frame` would refuse for their values are left out.

    Raises:
        SchemaChangedError: A column is missing, renamed or added.
        InvalidContractError: The contract or `transform` cannot be applied.
    """
    outcomes = _validate(frames, source)
    return {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, ValidationResult)}


def _validate(frames: Mapping[str, pl.DataFrame], source: Source) -> dict[str, ResultOrRefusal]:
    contract = contract_of(source)
    parts: dict[str, RawRows] = {}
    by_type: dict[tuple[CompiledContract, tuple[pl.DataType, ...]], dict[str, pl.DataFrame]] = {}
    for name, frame in frames.items():
        part = parts[name] = select_columns(_where(source, name), frame, contract, source, name)
        by_type.setdefault((part.contract, tuple(part.frame.dtypes)), {})[name] = part.frame
    outcomes: dict[str, ResultOrRefusal] = {}
    for (fitted, types), raws in by_type.items():
        query = row_query(fitted, types[: len(fitted.columns)])
        outcomes |= _validate_same_types(raws, source, query)
    if contract.histories:
        for name, outcome in outcomes.items():
            if isinstance(outcome, ValidationResult):
                outcomes[name] = replace(outcome, stored=StoredColumns.of(contract, [parts[name]]))
    return outcomes


def _validate_same_types(
    raws: Mapping[str, pl.DataFrame], source: Source, query: RowQuery
) -> dict[str, ResultOrRefusal]:
    """Validate partitions whose columns have the same types, in one query."""
    every, raws = raws, {name: readable_rows(raw) for name, raw in raws.items()}
    outcomes: dict[str, ResultOrRefusal] = {}
    for name, raw in raws.items():
        if error := column_refusal(_where(source, name), raw, query, change_start(source, name)):
            outcomes[name] = error
    if outcomes:
        return outcomes
    rows = _concatenate(raws, source, query)
    try:
        checked = query.run(rows)
    except QUERY_ERRORS:  # each partition by itself, so that its result is its own; then each check by itself
        if len(raws) > 1:
            alone = (_validate_same_types({name: raw}, source, query) for name, raw in every.items())
            return {name: outcome for each in alone for name, outcome in each.items()}
        checked = run_apart(query, rows, _where(source, *raws))
    parts: dict[str, CheckedRows] = {}
    for name, part in zip(raws, checked.split([raw.height for raw in raws.values()]), strict=True):
        if error := value_refusal(_where(source, name), raws[name], part, query.contract, change_start(source, name)):
            outcomes[name] = error
        else:
            parts[name] = part
    results = _results(raws, parts, source)
    return outcomes | {name: result.with_unreadable_rows(every[name]) for name, result in results.items()}


def _results(
    raws: Mapping[str, pl.DataFrame], parts: Mapping[str, CheckedRows], source: Source
) -> dict[str, ValidationResult]:
    """The results of partitions that are not refused: transformed together, each with its own rows."""
    if not parts:
        return {}
    good = [part.good_rows() for part in parts.values()]
    typed = fill_absent(pl.concat(good, rechunk=True), contract_of(source))
    rows = apply_transform(_where(source, *parts), source, typed)
    results: dict[str, ValidationResult] = {}
    start = 0
    for (name, part), frame in zip(parts.items(), good, strict=True):
        own = rows.slice(start, frame.height)
        results[name] = ValidationResult.before_key_check(raws[name], part, own, source.key)
        start += frame.height
    if source.partitions is not None:
        results = {name: reject_rows_of_other_partitions(it, source, name) for name, it in results.items()}
        rows = pl.concat(result.accepted for result in results.values())
    heights = [result.accepted.height for result in results.values()]
    is_repeated = ~is_first_of_key(rows, source.key, heights)
    ends = itertools.accumulate(heights)
    return {
        name: result.reject(is_repeated.slice(end - height, height), unique_check(source.key))
        for (name, result), height, end in zip(results.items(), heights, ends, strict=True)
    }


def _concatenate(raws: Mapping[str, pl.DataFrame], source: Source, query: RowQuery) -> pl.DataFrame:
    """The rows of all partitions, with the start of each where the contract needs it."""
    rows = pl.concat(raws.values()).rechunk()  # Polars panics at a mask over structs in several chunks
    if not query.contract.needs_start:
        return rows
    starts = pl.Series(START, [start_of(source, name) for name in raws], dtype=UTC_MICROSECONDS)
    heights = pl.Series([raw.height for raw in raws.values()], dtype=pl.UInt32)
    return rows.hstack([starts.repeat_by(heights).explode(empty_as_null=False)])


def start_of(source: Source, partition: str) -> datetime:
    """Start of the partition.

    Raises:
        InvalidContractError: Its name stands for no interval.
    """
    try:
        declared = source.partitions
        return partition_start(partition) if declared is None else declared.interval(partition).start
    except (InvalidContractError, ValueError) as error:
        raise InvalidContractError(f"{_where(source, partition)}: {error}") from None


def change_start(source: Source, partition: str) -> str:
    """The partition, as the first one of a changed column; empty where partitions have no order in time."""
    return partition if isinstance(source.partitioning, TimePartitions) else ""


def run_apart(query: RowQuery, rows: pl.DataFrame, where: str) -> CheckedRows:
    """The rows checked one check after the other, where that cannot be done at once.

    Raises:
        InvalidContractError: A check cannot be applied to a value that its column's checks let pass.
    """
    try:
        return query.run_apart(rows)
    except InvalidContractError as error:
        raise InvalidContractError(
            f"{where}: {error}. The contract is at fault, not the data: make the check hold for any value, then run"
            " `headrace validate` again."
        ) from None


def _where(source: Source, first: str, *others: str) -> str:
    """Source and partition, for messages."""
    return f"{source.name} {first}" + (f" … {others[-1]}" if others else "")
