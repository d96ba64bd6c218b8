"""raw → validated: good rows go on, each bad row is kept in `rejected` with the checks it failed.

For every partition: rows in = rows accepted + rows rejected. A key is unique in the table, not only in a partition: the
earliest partition that holds it keeps it, the others reject their row.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import polars as pl

from headrace.dataset import Dataset, ObjectSource, Source, raw_table
from headrace.engine.stage import InputHashes, InputPaths, ObjectPaths, PartitionOutput, Stage, own_params, param_key
from headrace.errors import HeadraceError
from headrace.extras import EXTRAS, require_extra
from headrace.guards.vanished import FEW
from headrace.storage.field_ids import TableColumn
from headrace.storage.manifest import Manifest
from headrace.storage.partition_names import entries_by_partition, recorded_interval
from headrace.text import pluralize
from headrace.validate.column_history import first_names, table_columns
from headrace.validate.compile_contract import contract_of
from headrace.validate.history_columns import with_history_columns
from headrace.validate.partition_check import CHECK, describe_partition
from headrace.validate.result import ValidationResult
from headrace.validate.uniqueness import Span, partitions_with_shared_keys
from headrace.validate.validate_objects import validate_entries
from headrace.validate.validate_partition import read_raw, validate_frames

KEYS = "keys"
"""Metadata of a partition: the first and the last value of the leading key column."""


GROUP_BYTES = 128 << 20
"""Most memory of the rows that are validated together: packed files do not say how large they are unpacked."""


class TooManyRejectedError(HeadraceError):
    """More of a partition's rows fail the contract than its source tolerates."""


def validation_stage(dataset: Dataset, source: Source) -> Stage:
    """The stage that validates `source`."""
    raw = raw_table(dataset.name, source.name)
    return Stage(
        verb="validate",
        dataset=dataset.name,
        table=f"validated/{dataset.name}/{source.name}",
        companion_tables=(rejected_table(dataset.name, source),),
        reads=(raw,),
        modules=(*source.modules, source.read.__module__, source.transform.__module__),
        files=source.files,
        params=tuple(param_key(dataset.name, name) for name in source.params),
        libraries=("polars", "pyarrow", "dataframely", *_format_libraries(source)),
        partitions=partial(partitions, raw),
        compute=partial(compute, source, dataset.name),
        batch_size=source.batch_size,
        compute_batch=partial(compute_batch, source, dataset.name),
        columns=partial(_table_columns, source),
        is_single_pass=False,
    )


def _table_columns(source: Source, params: Mapping[str, Any]) -> tuple[TableColumn, ...]:
    return table_columns(source.with_params(own_params(params)).schema)


def _format_libraries(source: Source) -> tuple[str, ...]:
    """Libraries that decide what the objects of a format hold.

    Raises:
        MissingExtraError: The extra with them is not installed.
    """
    if not (isinstance(source.location, ObjectSource) and source.location.suffix.endswith(".xlsx")):
        return ()
    require_extra("excel", f"The source {source.name}, which reads Excel,")
    return tuple(EXTRAS["excel"])


def partitions(raw: str, inputs: Mapping[str, Manifest], own: Manifest) -> Iterator[tuple[str, InputHashes]]:
    """Every raw partition, read with the earlier ones whose keys may be its own, as far as they are known."""
    md5s = inputs[raw].md5s
    entries = entries_by_partition(md5s)
    metadata = own.entries.column("metadata")
    spans: dict[str, Span | None] = {name: metadata.get(name, {}).get(KEYS) for name in entries}
    for name, shared in partitions_with_shared_keys(spans):
        yield name, {raw: {entry: md5s[entry] for part in (*shared, name) for entry in entries[part]}}


def compute(source: Source, dataset: str, name: str, files: InputPaths, params: Mapping[str, Any]) -> PartitionOutput:
    """Validate one partition, given the raw files of it and of the earlier ones that may hold its keys."""
    source = with_history_columns(source.with_params(own_params(params)))
    (paths,) = files.values()
    keys = paths.object_keys if isinstance(paths, ObjectPaths) else {}
    result = validate_entries(source, name, paths, keys)
    return _outcome(result, source, dataset, name)


def compute_batch(
    source: Source, dataset: str, files: Mapping[str, InputPaths], params: Mapping[str, Any]
) -> dict[str, PartitionOutput]:
    """Validate the partitions whose keys are in no other one, in one query.

    Those that are refused are left out, those of several objects, and those that would take more memory together than
    `GROUP_BYTES`.
    """
    source = with_history_columns(source.with_params(own_params(params)))
    own = {name: paths[name] for name, tables in files.items() for paths in tables.values() if [*paths] == [name]}
    frames: dict[str, pl.DataFrame] = {}
    size: float = 0
    for name, path in own.items():
        frame = read_raw(source, name, path)
        size += frame.estimated_size()
        if size > GROUP_BYTES:
            break
        frames[name] = frame
    results = validate_frames(frames, source)
    return {name: _outcome(result, source, dataset, name) for name, result in results.items()}


def rejected_table(dataset: str, source: Source) -> str:
    """Name of the table of a source's rejected rows."""
    return f"rejected/{dataset}/{source.name}"


def _outcome(result: ValidationResult, source: Source, dataset: str, name: str) -> PartitionOutput:
    refuse = partial(too_many_rejected, source, dataset, name, result)
    stored = result.stored
    return PartitionOutput(
        stored.accepted(result.accepted),
        tuple(stored.names.get(name, name) for name in source.key),
        {
            "rows_in": result.rows_in,
            "rejected": result.rejected.height,
            "checks": result.counts,
            KEYS: result.key_span,
        },
        companions=(
            {rejected_table(dataset, source): stored.rejected(result.rejected)} if result.rejected.height else {}
        ),
        is_unique=True,
        interval=recorded_interval(source.partitioning, name),
        rejection_error=refuse if _has_too_many(result, source) else None,
        renamed=first_names(stored.histories),
    )


def too_many_rejected(
    source: Source, dataset: str, name: str, result: ValidationResult, evidence: str
) -> TooManyRejectedError:
    """The error for a partition of which the source tolerates fewer rejected rows."""
    share = result.rejected.height / result.rows_in
    check, rows = next(iter(result.counts.items()))
    described = contract_of(source).describe(check)
    if check.endswith(f"|{CHECK}") and (interval := describe_partition(source, name)):
        described = f"{check} ({interval})"
    fix = "fix the source or the contract"
    if source.is_history:
        fix = "what was recorded stays: correct the contract, or declare a larger `max_rejected_share`"
    return TooManyRejectedError(
        f"{source.name} {name}: {share:.1%} of {result.rows_in:,} rows rejected,"
        f" {source.max_rejected_share:.1%} tolerated."
        f" Most often: {described}, {pluralize(rows, 'row')}. The rejected rows are in"
        f" {evidence}; {fix}, then run `headrace validate {dataset} --table {source.name}`."
    )


def _has_too_many(result: ValidationResult, source: Source) -> bool:
    if source.is_history and result.rejected.height < FEW:  # its partitions hold the changes of a day, often one
        return False
    # A quotient is the float nearest to it, as the declared share is: 29 of 100 rows are 0.29, but 0.29 * 100 < 29.
    return bool(result.rows_in) and result.rejected.height / result.rows_in > source.max_rejected_share
