"""Raw partitions → accepted and rejected rows. Rows in = rows accepted + rows rejected, for every partition.

A pure function of the raw files, the contract and the names of the partitions: it reads no clock. Partitions that are
validated together get the results that each gets alone; only the cost differs.
"""

import itertools
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from pathlib import Path

import polars as pl

from headrace.dataset import UTC_MICROSECONDS, ObjectSource, Source
from headrace.errors import HeadraceError
from headrace.validate.apply_transform import apply_transform
from headrace.validate.columns import partition_start
from headrace.validate.compile_contract import contract_of
from headrace.validate.compiled_contract import QUERY_ERRORS, CompiledContract
from headrace.validate.compression import check_suffix
from headrace.validate.errors import InvalidContractError
from headrace.validate.json_values import JSON_VALUE
from headrace.validate.partition_check import reject_rows_of_other_partitions
from headrace.validate.query import CheckedRows, RowQuery, row_query
from headrace.validate.read_request import ReadRequest, takes_request
from headrace.validate.reserved_names import FAULT, JSON_COLUMNS, START
from headrace.validate.result import ValidationResult, readable_rows
from headrace.validate.schema_check import check_columns, check_schema, column_refusal, value_refusal
from headrace.validate.uniqueness import is_first_of_key, is_known_key, unique_check
from headrace.validate.unreadable import UnreadableError

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
    earlier = pl.concat(other.accepted.select(source.key) for other in others).lazy()
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
        frame = source.read(path, **_request(source, where, key))
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
    return frame


def _request(source: Source, where: str, key: str) -> dict[str, ReadRequest]:
    """What `read` receives beside the file, if it asks for it."""
    if not takes_request(source.read):
        return {}
    contract = contract_of(source)
    check = partial(check_schema, where, contract, source)
    return {"request": ReadRequest(contract.columns, source.extra_columns, key, check)}


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
    by_type: dict[tuple[pl.DataType, ...], dict[str, pl.DataFrame]] = {}
    for name, frame in frames.items():
        raw = select_columns(_where(source, name), frame, contract, source)
        by_type.setdefault(tuple(raw.dtypes), {})[name] = raw
    outcomes: dict[str, ResultOrRefusal] = {}
    for types, raws in by_type.items():
        query = row_query(contract, types[: len(contract.columns)])
        outcomes |= _validate_same_types(raws, source, query)
    return outcomes


def select_columns(where: str, frame: pl.DataFrame, contract: CompiledContract, source: Source) -> pl.DataFrame:
    """The columns that the contract names, and those that `read_json` and `read_excel` add.

    Raises:
        SchemaChangedError: A column is missing, renamed or added.
    """
    added = [*JSON_COLUMNS] if FAULT in frame.columns else []
    own = [dtype for name, dtype in frame.schema.items() if name not in JSON_COLUMNS]
    is_json = bool(added) and (JSON_VALUE in own or not own)
    rows = _with_every_key(frame, contract) if is_json else frame
    check_columns(where, [each for each in rows.columns if each not in added], contract, source)
    return rows[[*contract.columns, *added]]


def _with_every_key(frame: pl.DataFrame, contract: CompiledContract) -> pl.DataFrame:
    """Rows of objects: a key that occurs in none of them is null in all."""
    missing = [name for name in contract.columns if name not in frame.columns]
    return pl.concat([frame, pl.DataFrame(schema=dict.fromkeys(missing, JSON_VALUE))], how="diagonal")


def _validate_same_types(
    raws: Mapping[str, pl.DataFrame], source: Source, query: RowQuery
) -> dict[str, ResultOrRefusal]:
    """Validate partitions whose columns have the same types, in one query."""
    every, raws = raws, {name: readable_rows(raw) for name, raw in raws.items()}
    outcomes: dict[str, ResultOrRefusal] = {}
    for name, raw in raws.items():
        if error := column_refusal(_where(source, name), raw, query):
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
        if error := value_refusal(_where(source, name), raws[name], part, query.contract):
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
    rows = apply_transform(_where(source, *parts), source, pl.concat(good, rechunk=True))
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
