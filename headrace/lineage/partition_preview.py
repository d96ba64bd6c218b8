"""Computes one partition of one table as a run would, and compares it with what the table has. Keeps nothing.

What it reads comes from the workspace, the cache or the remote. Inputs that a run would compute first are computed into
a temporary folder. No lock is taken: runs go on meanwhile, and each manifest is read whole.
"""

import hashlib
import io
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
from msgspec import structs

from headrace.dataset import Dataset
from headrace.engine.compute import collect, with_input_files
from headrace.engine.fingerprint import Fingerprint, stage_fingerprint
from headrace.engine.partition_errors import combine_partition_errors, to_partition_error
from headrace.engine.plan import Plan, StalePartition
from headrace.engine.run import plan_from_inputs, stand_ins
from headrace.engine.stage import SCHEMA_ONLY, InputPaths, MixedPaths, ObjectPaths, PartitionOutput, Stage, param_key
from headrace.errors import HeadraceError
from headrace.lineage.row_diff import ChangedRows, declared_key, find_changed_rows
from headrace.project import graph
from headrace.storage import parquet
from headrace.storage.dvc.cache import Cache
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.partition_names import partition_interval
from headrace.storage.schema_diff import SchemaDiff
from headrace.storage.table_store import TableStore
from headrace.text import closest, pluralize
from headrace.unexpected_errors import is_failure

MOST_INPUTS = 100
"""Partitions that are computed for one preview: more are the work of a run, which keeps them."""


class PreviewError(HeadraceError):
    """A partition that cannot be previewed: there is no such table, partition or parameter, or too much is missing."""


@dataclass(frozen=True)
class TablePreview:
    """The rows of one table in a previewed partition, and how they differ from those that the table has.

    Attributes:
        table: The table.
        rows: Its rows.
        is_new: Whether the table does not have the partition.
        differs: Whether the bytes would be others.
        changes: The rows that differ; None if there is nothing to compare with, or if it could not be read.
        columns: What differs in the schema.
        error: Why what the table has could not be read; empty if it was.
    """

    table: str
    rows: pl.DataFrame
    is_new: bool
    differs: bool
    changes: ChangedRows | None = None
    columns: SchemaDiff = field(default_factory=SchemaDiff)
    error: str = ""


@dataclass(frozen=True)
class PartitionPreview:
    """What a run would compute of one partition.

    Attributes:
        table: The table.
        partition: The partition.
        reasons: Why a run would compute it; empty if it is up to date.
        refused: Why a run would refuse it; empty if it would not.
        seconds: Elapsed time of the computation, without that of its inputs.
        inputs: Table → partitions that it was computed from.
        computed_first: Table → those inputs, and what they are computed from, that a run would compute before.
        metadata: What the manifest would have of it, such as rows in and the checks that rejected rows.
        tables: Its rows, then those that the same computation writes to other tables, such as rejected ones.
    """

    table: str
    partition: str
    reasons: Sequence[str]
    refused: str
    seconds: float
    inputs: Mapping[str, Sequence[str]]
    computed_first: Mapping[str, Sequence[str]]
    metadata: Mapping[str, Any]
    tables: Sequence[TablePreview]


def preview_partition(
    dataset: Dataset,
    table_store: TableStore,
    table: str,
    partition: str | None = None,
    params: Mapping[str, Any] | None = None,
) -> PartitionPreview:
    """Compute one partition, and keep nothing.

    Args:
        dataset: The dataset.
        table_store: Its tables.
        table: Name of the table, or state and name, for example `features/carrier_delays`.
        partition: The partition; by default the last one.
        params: Parameter → value, in place of the value in `params.yaml`.

    Raises:
        PreviewError: There is no such table, partition or parameter, or a run must compute too much before.
        HeadraceError: The computation, or that of an input, fails.
    """
    stage = _find_stage(dataset, table)
    overridden = _full_names(dataset, params or {})
    with TemporaryDirectory(prefix="headrace-") as folder, table_store.cache.worker_cache() as cache:
        tables = _ComputedTables(dataset, table_store, cache, Path(folder), overridden)
        name = partition or tables.last_partition(stage)
        computed = tables.compute(stage, name)
        compared = tuple(_compare(dataset, table_store, cache, stage, name, computed))
    return PartitionPreview(
        stage.table,
        name,
        computed.reasons,
        computed.refused,
        computed.seconds,
        {read: sorted(names) for read, names in computed.item.inputs.items()},
        tables.list_computed(),
        computed.entry.metadata,
        compared,
    )


@dataclass(frozen=True)
class _ComputedPartition:
    """A partition that was computed.

    Attributes:
        item: What was computed, and from what.
        reasons: Why a run would compute it.
        entry: Its entry, as a manifest would have it.
        contents: Table → Parquet file, of the stage's tables.
        refused: Why a run would refuse it.
        seconds: How long it took.
    """

    item: StalePartition
    reasons: Sequence[str]
    entry: PartitionEntry
    contents: Mapping[str, bytes]
    refused: str
    seconds: float


@dataclass
class _ComputedTables:
    """The tables of a dataset as a run would leave them; a stale partition is computed when somebody asks for it.

    Attributes:
        dataset: The dataset.
        table_store: Its tables.
        cache: Where the bytes are.
        folder: Where those are that are computed.
        params: Full name of a parameter → value, in place of that in `params.yaml`.
        manifests: Table → manifest, with stand-ins for what is not computed yet.
        pending: Table → partition → what stands in.
        computed: Table → partition → entry of what was computed for others.
        paths: Table and partition → file that was computed.
    """

    dataset: Dataset
    table_store: TableStore
    cache: Cache
    folder: Path
    params: Mapping[str, Any]
    manifests: dict[str, Manifest] = field(default_factory=dict)
    pending: dict[str, dict[str, StalePartition]] = field(default_factory=dict)
    computed: dict[str, dict[str, PartitionEntry]] = field(default_factory=dict)
    paths: dict[tuple[str, str], Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        stages = graph.dataset_stages(self.dataset)
        self._stages = {table: stage for stage in stages for table in (stage.table, *stage.companion_tables)}

    def last_partition(self, stage: Stage) -> str:
        """The last partition that a run would leave in the table.

        Raises:
            PreviewError: There would be none.
        """
        names = [name for name, _ in stage.partitions(self._inputs(stage), self.table_store.manifest(stage.table))]
        if not names:
            raise PreviewError(f"{stage.table} would have no partition: {self._advice(stage)}")
        return max(names)

    def list_computed(self) -> dict[str, list[str]]:
        """Table → partitions that were computed because another one reads them."""
        return {table: sorted(entries) for table, entries in self.computed.items()}

    def compute(self, stage: Stage, partition: str) -> _ComputedPartition:
        """Compute a partition, once its inputs are computed; as often as its result changes which inputs it has.

        Raises:
            PreviewError: There is no such partition, or too much is to be computed first.
            HeadraceError: It, or an input of it, cannot be computed.
        """
        planned = self._plan_computed_inputs(stage, partition)
        reasons = planned.stale[0].reasons if planned.stale else ()
        item = planned.stale[0] if planned.stale else self._up_to_date(planned, partition)
        while True:
            computed = self._compute_once(stage, item, planned.fingerprint, reasons)
            if stage.is_single_pass or computed.refused:
                return computed
            own = self.table_store.manifest(stage.table).plus(
                {**self.computed.get(stage.table, {}), partition: computed.entry}
            )
            again = self._plan_computed_inputs(stage, partition, own)
            if not again.stale:
                return computed
            [item] = again.stale

    def manifest(self, table: str) -> Manifest:
        """The table as a run would leave it, with stand-ins for what is not computed yet."""
        if table not in self.manifests:
            stage = self._stages.get(table)
            if stage is None:
                self.manifests[table] = self.table_store.manifest(table)
            else:
                self._plan_table(stage)
        return self.manifests[table]

    def _plan_table(self, stage: Stage) -> None:
        planned = self._plan(stage)
        unknown = stand_ins(planned)
        kept = planned.kept_manifests()
        for table in (stage.table, *stage.companion_tables):
            self.manifests[table] = kept[table].plus(unknown)
            self.pending[table] = {item.partition: item for item in planned.stale}

    def _inputs(self, stage: Stage) -> dict[str, Manifest]:
        return {table: self.manifest(table) for table in stage.reads}

    def _plan(self, stage: Stage, shown: Manifest | None = None, only: Sequence[str] | None = None) -> Plan:
        known = [shown] if shown else self.table_store.candidate_manifests(stage.table)
        fingerprint = self._fingerprint(stage)
        return plan_from_inputs(stage, self._inputs(stage), known, self.table_store, fingerprint=fingerprint, only=only)

    def _fingerprint(self, stage: Stage) -> Fingerprint:
        fingerprint = stage_fingerprint(stage, self.table_store.root)
        changed = {name: value for name, value in self.params.items() if name in stage.params}
        return replace(fingerprint, params={**fingerprint.params, **changed})

    def _plan_computed_inputs(self, stage: Stage, partition: str, shown: Manifest | None = None) -> Plan:
        """The plan of one partition, once everything that it reads is computed."""
        while True:
            planned = self._plan(stage, shown, [partition])
            if partition not in planned.reused and not planned.stale:
                raise self._no_partition(stage, partition)
            missing = dict.fromkeys(self._pending_inputs(planned.stale))
            if not missing:
                return planned
            self._check_few(stage, partition, list(missing))
            for table, name in missing:
                if name in self.pending[table]:  # no other one has computed it meanwhile
                    self._compute_input(self._stages[table], name)

    def _pending_inputs(self, items: Sequence[StalePartition]) -> Iterator[tuple[str, str]]:
        """Table and partition of every input that is not computed yet, each after those that it is computed from."""
        for item in items:
            for table, names in item.inputs.items():
                pending = self.pending.get(table, {})
                wanted = names or ([first] if (first := self.manifest(table).entries.first) else [])
                for name in wanted:
                    if name in pending:
                        yield from self._pending_inputs([pending[name]])
                        yield table, name

    def _check_few(self, stage: Stage, partition: str, missing: Sequence[tuple[str, str]]) -> None:
        if len(missing) <= MOST_INPUTS:
            return
        counts = Counter(table for table, _ in missing)
        stale = {self._stages[table].table for table in counts}
        first = next(each for each in graph.dataset_stages(self.dataset) if each.table in stale)
        listed = ", ".join(f"{count:,} of {table}" for table, count in counts.items())
        raise PreviewError(
            f"{stage.table} {partition}: {pluralize(len(missing), 'input')} would have to be computed first ({listed}),"
            f" and a preview computes at most {MOST_INPUTS}. `{_command(first)}` computes and keeps them; then preview"
            " again."
        )

    # no failpoint: a temporary folder, which nobody else reads
    def _compute_input(self, stage: Stage, partition: str) -> None:
        computed = self.compute(stage, partition)
        if computed.refused:
            raise PreviewError(computed.refused)
        self.computed.setdefault(stage.table, {})[partition] = computed.entry
        for table in (stage.table, *stage.companion_tables):
            self.pending[table].pop(partition, None)
            content = computed.contents.get(table)
            entries = self.manifests[table].entries
            if content is None:
                kept = entries.select([name for name in entries if name != partition])
                self.manifests[table] = self.manifests[table].with_partitions(kept)
                continue
            entry = computed.entry if table == stage.table else computed.entry.companions[table]
            path = self.folder / f"{len(self.paths)}.parquet"
            path.write_bytes(content)
            made = self.manifests[table].plus({partition: entry})
            schemas = {name: parquet.read_schema(path) for name in made.entries.files_of_unknown_schemas()}
            self.manifests[table] = made.with_partitions(made.entries.with_schemas(schemas))
            self.paths[table, partition] = path

    def _files(self, item: StalePartition) -> InputPaths:
        [known] = with_input_files([item], self.table_store, self.manifest)
        return {table: self._files_of_input(known, table) for table in known.inputs}

    def _files_of_input(self, item: StalePartition, table: str) -> Mapping[str, Path]:
        if names := item.inputs[table]:
            paths = {name: self._path(table, name) for name in sorted(names)}
            if schema := item.table_schemas.get(table):
                return MixedPaths(paths, schema)
            keys = item.object_keys.get(table)
            return ObjectPaths(paths, keys) if keys else paths
        first = self.manifest(table).entries.first
        return {SCHEMA_ONLY: self._path(table, first)} if first else {}

    def _path(self, table: str, partition: str) -> Path:
        if path := self.paths.get((table, partition)):
            return path
        entry = self.manifest(table).partitions[partition]
        return self.cache.fetch(entry.md5, entry.sha256)

    def _up_to_date(self, planned: Plan, partition: str) -> StalePartition:
        entry = planned.reused[partition]
        return StalePartition(partition, entry.cache_key, entry.inputs, ())

    def _compute_once(
        self, stage: Stage, item: StalePartition, fingerprint: Fingerprint, reasons: Sequence[str]
    ) -> _ComputedPartition:
        files = self._files(item)
        started = time.perf_counter()
        try:
            output = stage.compute(item.partition, files, fingerprint.params)
            rows, _ = collect(output.rows, "cpu")
            if not output.rejection_error:
                output.check(rows)
        except BaseException as error:  # as in a run: a panic of Polars is no `Exception`
            if not is_failure(error):
                raise
            known = {item.partition: to_partition_error(error, stage)}
            raise combine_partition_errors(stage.table, known, lambda _partition: "") from error
        seconds = time.perf_counter() - started
        encoded = _encode(stage, output, rows)
        entries = {table: _entry(item, output, each) for table, each in encoded.items()}
        contents = {table: bytes(memoryview(each.content)) for table, each in encoded.items()}
        own = entries.pop(stage.table)
        metadata = {**output.metadata, **output.computed_metadata(rows)}
        entry = structs.replace(own, rows=rows.height, inputs=item.inputs, metadata=metadata, companions=entries)
        return _ComputedPartition(item, reasons, entry, contents, _refusal(stage, item, output), seconds)

    def _no_partition(self, stage: Stage, partition: str) -> PreviewError:
        names = sorted(name for name, _ in stage.partitions(self._inputs(stage), Manifest(stage.table)))
        there = f"{len(names):,}, {names[0]} … {names[-1]}" if names else "none"
        near = closest(partition, names)
        return PreviewError(
            f"{stage.table} would have no partition {partition}{near}. Its partitions: {there}. {self._advice(stage)}"
        )

    def _advice(self, stage: Stage) -> str:
        """Where more partitions come from."""
        name = stage.dataset
        if stage.verb == "label":
            return f"`headrace label collect {name}` brings the answers."
        return f"`headrace plan {name}` shows what waits in the sources, `headrace ingest {name}` reads it."


def _encode(stage: Stage, output: PartitionOutput, rows: pl.DataFrame) -> dict[str, parquet.PartitionBytes]:
    """Table → canonical Parquet file, as a run would write it."""
    frames = {stage.table: parquet.canonical(rows, output.keys, is_unique=output.is_unique)}
    for table, more in output.companions.items():
        frames[table] = parquet.canonical(more, [name for name in output.keys if name in more.columns])
    return {table: parquet.encode_partition(frame, output.renamed) for table, frame in frames.items()}


def _entry(item: StalePartition, output: PartitionOutput, encoded: parquet.PartitionBytes) -> PartitionEntry:
    content = memoryview(encoded.content)
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    start, end = output.interval or partition_interval(item.partition)
    return PartitionEntry(item.cache_key, md5, content.nbytes, schema=encoded.schema, start=start, end=end)


def _refusal(stage: Stage, item: StalePartition, output: PartitionOutput) -> str:
    """Why a run would refuse the partition; empty if it would not."""
    if not output.rejection_error:
        return ""
    shows = f"`headrace preview {stage.dataset} {stage.table.replace(f'/{stage.dataset}/', '/', 1)}"
    return str(output.rejection_error(f"the output of {shows} --partition {item.partition}`"))


def _compare(  # noqa: PLR0913, PLR0917  what was computed, and with what it is compared
    dataset: Dataset,
    table_store: TableStore,
    cache: Cache,
    stage: Stage,
    partition: str,
    computed: _ComputedPartition,
) -> Iterator[TablePreview]:
    """The tables of the computation, each compared with what it has now."""
    before = table_store.manifest(stage.table).partitions.get(partition)
    old_entries = {stage.table: before, **(before.companions if before else {})}
    new_entries = {stage.table: computed.entry, **computed.entry.companions}
    for table in (stage.table, *stage.companion_tables):
        old, new = old_entries.get(table), new_entries.get(table)
        if old is None and new is None:
            continue
        yield _compare_table(dataset, cache, table, old, computed.contents.get(table), is_new=before is None)


def _compare_table(  # noqa: PLR0913  as above
    dataset: Dataset, cache: Cache, table: str, old: PartitionEntry | None, content: bytes | None, *, is_new: bool
) -> TablePreview:
    rows = pl.read_parquet(io.BytesIO(content)) if content is not None else None
    if is_new and rows is not None:
        return TablePreview(table, rows, is_new=True, differs=True)
    try:
        before = pl.read_parquet(cache.fetch(old.md5, old.sha256)) if old else None
    except HeadraceError as error:
        shown = pl.DataFrame() if rows is None else rows
        return TablePreview(table, shown, is_new=False, differs=True, error=str(error))
    after = rows if rows is not None else before.clear() if before is not None else pl.DataFrame()
    before = before if before is not None else after.clear()
    columns = SchemaDiff.between(_types(before), _types(after))
    changes = find_changed_rows(before, after, declared_key(dataset, table))
    same = (
        old is not None and content is not None and old.md5 == hashlib.md5(content, usedforsecurity=False).hexdigest()
    )
    return TablePreview(table, after, is_new=False, differs=not same, changes=changes, columns=columns)


def _types(frame: pl.DataFrame) -> dict[str, str]:
    return {name: str(kind) for name, kind in frame.schema.items()}


def _find_stage(dataset: Dataset, table: str) -> Stage:
    """The stage that computes a table, by its name, its state and name, or its full name.

    Raises:
        PreviewError: None does, or several do.
    """
    stages = graph.dataset_stages(dataset)
    full = table if table.count("/") != 1 else table.replace("/", f"/{dataset.name}/")
    exact = [stage for stage in stages if full in (stage.table, *stage.companion_tables)]
    matches = exact or [stage for stage in stages if stage.name == table]
    if len(matches) == 1:
        return matches[0]
    names = [stage.table.replace(f"/{dataset.name}/", "/", 1) for stage in (matches or stages)]
    if matches:
        raise PreviewError(f"{dataset.name}: {table} is ambiguous. Choose one of: {', '.join(names)}.")
    near = closest(table, [*names, *(stage.name for stage in stages)])
    raise PreviewError(
        f"{dataset.name}: no stage computes a table {table}{near}. Those that can be previewed: {', '.join(names)}."
        + (f" `headrace plan {dataset.name}` shows what an ingest would read." if table.startswith("raw/") else "")
    )


def _full_names(dataset: Dataset, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as `params.yaml` names them.

    Raises:
        PreviewError: No table of the dataset receives one.
    """
    known = sorted({name for stage in graph.dataset_stages(dataset) for name in stage.params})
    full = {}
    for name, value in params.items():
        found = name if name in known else param_key(dataset.name, name)
        if found not in known:
            listed = ", ".join(known) or "none"
            raise PreviewError(f"No table of {dataset.name} receives a parameter {name}. Their parameters: {listed}.")
        full[found] = value
    return full


def _command(stage: Stage) -> str:
    verb = "label aggregate" if stage.verb == "label" else stage.verb
    return f"headrace {verb} {stage.dataset} --table {stage.name}"
