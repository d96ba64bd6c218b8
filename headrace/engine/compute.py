"""Partitions: their inputs fetched, their rows computed on CPU or GPU, their canonical bytes kept in the cache."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache as once_each
from pathlib import Path
from typing import Literal

import polars as pl
from msgspec.structs import replace

from headrace import failpoints
from headrace.engine.fingerprint import Fingerprint, check_code_unchanged
from headrace.engine.partition_errors import to_partition_error
from headrace.engine.plan import StalePartition
from headrace.engine.stage import SCHEMA_ONLY, InputPaths, MixedPaths, ObjectPaths, PartitionOutput, Stage
from headrace.errors import HeadraceError, NotConfiguredError
from headrace.extras import require_extra
from headrace.storage import parquet
from headrace.storage.dvc.cache import Cache
from headrace.storage.field_ids import Renamed
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.partition_names import OBJECT_SEPARATOR, RecordedInterval, partition_interval
from headrace.storage.table_schema import MixedTypesError, TableSchema, table_schema
from headrace.storage.table_store import TableStore
from headrace.unexpected_errors import is_failure

Engine = Literal["cpu", "gpu"]
PartitionResult = PartitionEntry | HeadraceError
"""A partition, or why it was refused."""


def with_input_files(
    items: Sequence[StalePartition], table_store: TableStore, read_manifest: Callable[[str], Manifest] | None = None
) -> list[StalePartition]:
    """The same partitions, with what manifests know of the files that they read.

    Args:
        items: The partitions.
        table_store: The tables.
        read_manifest: Gives the manifest of a table; by default as it is in `table_store`.
    """
    names = {(table, name) for item in items for table, md5s in item.inputs.items() for name in md5s}
    empty = {table for item in items for table, md5s in item.inputs.items() if not md5s}
    read_manifest = read_manifest or table_store.manifest
    manifests = {table: read_manifest(table) for table in {*empty, *(table for table, _ in names)}}
    entries = {(table, name): manifests[table].partitions.get(name) for table, name in names}
    samples = {table: next(iter(manifests[table].partitions.values()), None) for table in empty}
    sha256s = {entry.md5: entry.sha256 for entry in (*entries.values(), *samples.values()) if entry and entry.sha256}
    schema_files = {table: entry.md5 for table, entry in samples.items() if entry}
    object_keys: dict[str, dict[str, str]] = {}
    for (table, name), entry in entries.items():
        if OBJECT_SEPARATOR in name and entry and entry.objects:
            object_keys.setdefault(table, {})[name] = entry.objects[0].key
    mixed = {table: schema for table, manifest in manifests.items() if (schema := _mixed_schema(manifest))}
    return [
        dataclasses.replace(
            item,
            sha256s=sha256s,
            schema_files=schema_files,
            object_keys=object_keys,
            table_schemas={
                table: schema.select(item.inputs[table])
                for table, schema in mixed.items()
                if table in item.inputs and schema.files.keys() >= item.inputs[table].keys()
            },
        )
        for item in items
    ]


def _mixed_schema(manifest: Manifest) -> TableSchema | None:
    """The columns of a table whose files differ in theirs. Those of a raw one may differ as they like."""
    try:
        return table_schema(manifest, is_partial=True)
    except MixedTypesError:
        if manifest.table.startswith("raw/"):
            return None
        raise


def compute_partition(
    stage: Stage, item: StalePartition, fingerprint: Fingerprint, table_store: TableStore, engine: Engine = "cpu"
) -> PartitionEntry:
    """Compute one stale partition into the cache.

    Raises:
        HeadraceError: The stage refuses the partition; the evidence lies in `.headrace/refused/`.
    """
    with table_store.cache.worker_cache() as cache:
        return _store_output(
            item,
            stage.compute(item.partition, _fetch_inputs(item, cache.fetch), fingerprint.params),
            table_store,
            cache,
            engine,
        )


def compute_partitions(
    stage: Stage,
    items: Sequence[StalePartition],
    fingerprint: Fingerprint,
    table_store: TableStore,
    engine: Engine = "cpu",
) -> Iterator[tuple[str, PartitionResult]]:
    """Compute stale partitions into the cache, together where the stage can; yield each as soon as it is computed.

    Whatever a partition raises comes with it, as a known error. After a file that the fingerprint names has changed, no
    entry is yielded: the partitions come with the error.

    Raises:
        CodeChangedError: A file had changed before the first partition was computed.
    """
    check_code_unchanged(stage, fingerprint)
    outcomes = _compute_batch(stage, items, fingerprint, table_store) if engine == "cpu" and len(items) > 1 else {}
    for item in items:
        outcome = outcomes.get(item.partition)
        made: PartitionResult
        try:
            if outcome is None:
                made = compute_partition(stage, item, fingerprint, table_store, engine)
            else:
                with table_store.cache.worker_cache() as cache:
                    made = _store_output(item, outcome, table_store, cache, engine)
            check_code_unchanged(stage, fingerprint)
        except BaseException as error:  # a panic of Polars is no `Exception`
            if not is_failure(error):
                raise
            made = to_partition_error(error, stage)
        yield item.partition, made


def _compute_batch(
    stage: Stage, items: Sequence[StalePartition], fingerprint: Fingerprint, table_store: TableStore
) -> Mapping[str, PartitionOutput]:
    try:
        with table_store.cache.worker_cache() as cache:
            fetch = once_each(cache.fetch)  # neighbours look back on the same days
            return stage.compute_batch(
                {item.partition: _fetch_inputs(item, fetch) for item in items}, fingerprint.params
            )
    except BaseException as error:
        if not is_failure(error):
            raise
        return {}  # by itself, each says what is wrong with it


def _store_output(
    item: StalePartition, outcome: PartitionOutput, table_store: TableStore, cache: Cache, engine: Engine
) -> PartitionEntry:
    """The entry of a partition, once its rows are collected, checked and in the cache."""
    if outcome.rejection_error:
        raise outcome.rejection_error(_write_rejected_rows(table_store, outcome, item.partition))
    rows, collected_by = collect(outcome.rows, engine)
    outcome.check(rows)
    companions = {
        table: _store_rows(
            cache,
            parquet.canonical(more, [name for name in outcome.keys if name in more.columns]),
            item,
            outcome,
        )
        for table, more in outcome.companions.items()
    }
    ordered = parquet.canonical(rows, outcome.keys, is_unique=outcome.is_unique)
    own = _store_rows(cache, ordered, item, outcome)
    by = {"collected_by": collected_by} if engine == "gpu" else {}
    metadata = {**outcome.metadata, **outcome.computed_metadata(rows), **by}
    return replace(own, inputs=item.inputs, metadata=metadata, companions=companions)


def _fetch_inputs(item: StalePartition, fetch: Callable[[str, str | None], Path]) -> InputPaths:
    return {table: _fetch_table(item, table, fetch) for table in item.inputs}


def _fetch_table(item: StalePartition, table: str, fetch: Callable[[str, str | None], Path]) -> Mapping[str, Path]:
    paths = {name: fetch(md5, item.sha256s.get(md5)) for name, md5 in sorted(_files(item, table).items())}
    if schema := item.table_schemas.get(table):
        return MixedPaths(paths, schema)
    keys = item.object_keys.get(table)
    return ObjectPaths(paths, keys) if keys else paths


def _files(item: StalePartition, table: str) -> Mapping[str, str]:
    """Entry → md5 of the input `table`; where there is none, a file with the table's columns."""
    schema = item.schema_files.get(table)
    return item.inputs[table] or ({SCHEMA_ONLY: schema} if schema else {})


def collect(frame: pl.LazyFrame | pl.DataFrame, engine: Engine) -> tuple[pl.DataFrame, Engine]:
    """The rows of a frame, and who collected them: Polars, or RAPIDS where it was asked for and can do the query.

    Raises:
        MissingExtraError: RAPIDS was asked for and is not installed.
        NotConfiguredError: It is installed, but lacks a library.
    """
    if isinstance(frame, pl.DataFrame):
        return frame, "cpu"
    if engine == "cpu":
        return frame.collect(), "cpu"
    require_extra("gpu", "HEADRACE_ENGINE=gpu")
    try:
        return frame.collect(engine=pl.GPUEngine(raise_on_fail=True)), "gpu"
    except ModuleNotFoundError as error:
        seen = str(error).splitlines()[0]
        raise NotConfiguredError(
            f"HEADRACE_ENGINE=gpu needs RAPIDS on a machine with a GPU, found: {seen} Install it again"
            " (`pip install --force-reinstall 'headrace[gpu]'`), or unset the variable."
        ) from None
    except (pl.exceptions.ComputeError, NotImplementedError):
        return frame.collect(), "cpu"  # counted: an entry says who collected it


def _store_rows(cache: Cache, ordered: pl.DataFrame, item: StalePartition, outcome: PartitionOutput) -> PartitionEntry:
    return store_partition(cache, ordered, item.partition, item.cache_key, outcome.interval, outcome.renamed)


def store_partition(  # noqa: PLR0913, PLR0917  what is stored, and what its entry says
    cache: Cache,
    ordered: pl.DataFrame,
    partition: str,
    cache_key: str,
    interval: RecordedInterval | None = None,
    renamed: Renamed = (),
) -> PartitionEntry:
    """Write the rows of a partition, as they are ordered, into the cache; returns the entry of the file.

    Its interval is by default the one that its name writes. Renamed columns keep the field ids of their first names.
    """
    encoded = parquet.encode_partition(ordered, renamed)
    stored = cache.add_bytes(memoryview(encoded.content), keep_local=False)
    start, end = interval or partition_interval(partition)
    return PartitionEntry(
        cache_key,
        stored.md5,
        stored.size,
        ordered.height,
        sha256=stored.sha256,
        schema=encoded.schema,
        start=start,
        end=end,
    )


def _write_rejected_rows(table_store: TableStore, outcome: PartitionOutput, partition: str) -> str:
    """Where the rows lie that show why a partition is refused."""
    table, rows = next(iter(outcome.companions.items()))
    if table_store.cache.is_remote_only:
        return table_store.cache.where(table_store.cache.add(lambda path: parquet.write(rows, path)).md5)
    path = table_store.root / ".headrace" / "refused" / table / f"{partition}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    with failpoints.failpoint("evidence of a refused partition", lambda: path.write_bytes(b"half")):
        path.unlink(missing_ok=True)
        parquet.write(rows, path)
    return str(path)
