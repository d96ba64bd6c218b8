"""Tables → features and derived tables: the kernel of each, run only for partitions whose inputs or code changed."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any

from headrace.dataset import EVENT_TIME, KNOWN_TIME, UNPARTITIONED, Dataset, Input, KernelTable
from headrace.engine.stage import InputHashes, InputPaths, PartitionOutput, Stage, join_inputs, own_params, param_key
from headrace.partitions import (
    ALL_TIME,
    Interval,
    Lookback,
    Partitions,
    TimePartitions,
    Unpartitioned,
    interval_of,
    look_back,
)
from headrace.storage.manifest import Manifest
from headrace.storage.partition_names import PartitionNameError, partition_of, recorded_interval
from headrace.text import pluralize
from headrace.transform import kernel
from headrace.transform.known_times import check_known_times

if TYPE_CHECKING:
    import polars as pl


AS_OF = "as_of"
"""Metadata of a partition: tables that were read as they were when it was computed, whatever its time."""


@dataclass(frozen=True)
class ReadTable:
    """A table that a kernel reads.

    Attributes:
        partitions: How it is cut.
        lookback: How far before a partition it is read, too.
        is_history: Whether it is a history, of which all is read that was known by the end of a partition.
    """

    partitions: Partitions
    lookback: Lookback = 0
    is_history: bool = False


@dataclass(frozen=True)
class ComputedTable:
    """A feature table or derived table, as its rows are computed.

    Attributes:
        declared: The declaration.
        partitions: How it is cut.
        keywords: Keyword of the kernel → table that it reads.
        histories: Keywords of the kernel that are histories.
        as_of: Table that is read as it is now, whatever the time of the partition → `now`.
    """

    declared: KernelTable
    partitions: Partitions
    keywords: Mapping[str, str]
    histories: Collection[str] = ()
    as_of: Mapping[str, str] = field(default_factory=dict)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the manifest says of every partition."""
        return {AS_OF: dict(self.as_of)} if self.as_of else {}


def kernel_stage(dataset: Dataset, table: KernelTable) -> Stage:
    """The stage that computes a feature table or a derived table."""
    reads = {read.local_table.replace("/", f"/{dataset.name}/", 1): read for read in table.inputs.values()}
    own = dataset.partitions_of(f"{table.state}/{table.name}")
    computed = ComputedTable(
        table,
        own,
        dict(zip(table.inputs, reads, strict=True)),
        [keyword for keyword, read in table.inputs.items() if dataset.is_history(read.table)],
        {name: read.as_of for name, read in reads.items() if read.as_of},
    )
    return Stage(
        verb="transform",
        dataset=dataset.name,
        table=f"{table.state}/{dataset.name}/{table.name}",
        reads=tuple(reads),
        modules=(*table.modules, table.transform.__module__),
        files=table.files,
        params=tuple(param_key(dataset.name, name) for name in table.params),
        partitions=partial(partitions, own, {name: _read_table(dataset, read) for name, read in reads.items()}),
        compute=partial(compute, computed),
        batch_size=table.batch_size,
        compute_batch=partial(compute_batch, computed),
    )


def _read_table(dataset: Dataset, read: Input) -> ReadTable:
    return ReadTable(dataset.partitions_of(read.local_table), read.lookback, dataset.is_history(read.table))


def partitions(
    own: Partitions, reads: Mapping[str, ReadTable], inputs: Mapping[str, Manifest], _own: Manifest
) -> Iterator[tuple[str, InputHashes]]:
    """Every partition of a table, with the partitions of each input that overlap it and its lookback.

    Args:
        own: How it is cut.
        reads: Table → how it is read. The first one decides which partitions there are.
        inputs: Table → its manifest.

    Raises:
        PartitionNameError: An input has a partition that is none of those it is cut into.
    """
    intervals = {table: _intervals(table, read.partitions, inputs[table].md5s) for table, read in reads.items()}
    driver, read = next(iter(reads.items()))
    spans = _own_intervals(own, read.partitions, intervals[driver])
    windows = (_windows(inputs[table].md5s, intervals[table], read, spans) for table, read in reads.items())
    tables = tuple(reads)
    for name, *parts in zip(spans, *windows, strict=True):
        yield name, dict(zip(tables, parts, strict=True))


def compute(computed: ComputedTable, partition: str, files: InputPaths, params: Mapping[str, Any]) -> PartitionOutput:
    """The rows of one partition."""
    table, own = computed.declared.with_params(own_params(params)), computed.partitions
    read = {keyword: files[source] for keyword, source in computed.keywords.items()}
    return PartitionOutput(
        kernel.compute_rows(table, partition, read, partitions=own, histories=computed.histories),
        table.sort_key,
        computed.metadata,
        check=partial(_check_rows, computed, table, partition, read, None),
        computed_metadata=time_span_metadata,
        is_unique=True,
        interval=recorded_interval(own, partition),
    )


def compute_batch(
    computed: ComputedTable, files: Mapping[str, InputPaths], params: Mapping[str, Any]
) -> dict[str, PartitionOutput]:
    """The rows of many partitions; one call of the kernel computes consecutive ones.

    Raises:
        UndeclaredFeatureError: Rows of some partition are not what is declared.
    """
    table, own = computed.declared.with_params(own_params(params)), computed.partitions
    outcomes: dict[str, PartitionOutput] = {}
    for run in _runs(own, sorted(files)):
        read = {
            keyword: join_inputs(files[partition][source] for partition in run)
            for keyword, source in computed.keywords.items()
        }
        frame = kernel.compute_rows(table, run[0], read, run[-1], partitions=own, histories=computed.histories)
        rows = frame.collect()
        _check_rows(computed, table, run[0], read, run[-1], rows)
        outcomes |= {
            name: PartitionOutput(
                cut,
                table.sort_key,
                computed.metadata,
                computed_metadata=time_span_metadata,
                is_unique=True,
                interval=recorded_interval(own, name),
            )
            for name, cut in kernel.split_partitions(rows, run, own).items()
        }
    return outcomes


def _check_rows(  # noqa: PLR0913, PLR0917  what a kernel is called with, and what it gave
    computed: ComputedTable,
    table: KernelTable,
    first: str,
    read: InputPaths,
    last: str | None,
    rows: "pl.DataFrame",
) -> None:
    kernel.check_rows(table, first, rows, last, partitions=computed.partitions)
    check_known_times(table, first, read, rows, last, computed.partitions)


def time_span_metadata(rows: "pl.DataFrame") -> dict[str, dict[str, int]]:
    """The metadata `SPAN` of a partition: its first and last event time and newest known time; none without rows."""
    if not rows.height or not {EVENT_TIME, KNOWN_TIME} <= set(rows.columns):
        return {}
    event, known = (rows[name].to_physical() for name in (EVENT_TIME, KNOWN_TIME))
    return {kernel.SPAN: {"first": event.min(), "last": event.max(), "known": known.max()}}  # type: ignore[dict-item]


def _runs(own: Partitions, names: Sequence[str]) -> list[list[str]]:
    """Groups of consecutive partitions."""
    runs: list[list[str]] = []
    for name in names:
        if runs and interval_of(own, runs[-1][-1]).end == interval_of(own, name).start:
            runs[-1].append(name)
        else:
            runs.append([name])
    return runs


def _intervals(table: str, declared: Partitions, entries: Iterable[str]) -> dict[str, Interval]:
    """Entry → interval of its partition, in order."""
    intervals: dict[str, Interval] = {}
    strange: list[str] = []
    for entry in sorted(entries):
        try:
            intervals[entry] = interval_of(declared, partition_of(entry))
        except ValueError:
            strange.append(entry)
    if strange:
        dataset, source = table.split("/")[1:]
        expected = declared.label.replace(declared.unit, f"{declared.unit}s")
        raise PartitionNameError(
            f"{table}: kernels read partitions that are {expected} ({declared.example}) or the whole table"
            f" ({UNPARTITIONED}), found {pluralize(len(strange), 'other')}: {', '.join(strange[:3])}. Correct"
            f" the pattern of the source {source}, the keys of its objects, or its `partitions`, then run"
            f" `headrace run {dataset}`."
        )
    return intervals


def _own_intervals(own: Partitions, driving: Partitions, driven_by: Mapping[str, Interval]) -> dict[str, Interval]:
    """Partition of a table → interval, in order, given the entries of its first input."""
    if own == driving or UNPARTITIONED in driven_by:
        return {partition_of(entry): interval for entry, interval in driven_by.items()}
    if not isinstance(own, TimePartitions):
        return {Unpartitioned.NAME: ALL_TIME} if driven_by else {}
    names: dict[str, Interval] = {}
    last = ""
    for interval in driven_by.values():
        for name in own.names_between(interval):
            if name > last:  # names sort as their intervals do
                names[name], last = own.interval(name), name
    return names


def _windows(
    md5s: Mapping[str, str], intervals: Mapping[str, Interval], read: ReadTable, spans: Mapping[str, Interval]
) -> Iterator[Mapping[str, str]]:
    """The partitions of an input that each partition reads: those that overlap it, extended by the lookback."""
    if UNPARTITIONED in md5s:
        yield from repeat({UNPARTITIONED: md5s[UNPARTITIONED]}, len(spans))
        return
    items = [(entry, md5s[entry]) for entry in intervals]
    starts = [*(start for start, _ in intervals.values()), ALL_TIME.end]
    ends = [*(end for _, end in intervals.values()), ALL_TIME.end]
    lookback, timezone = read.lookback, read.partitions.timezone
    first = last = 0
    for start, end in spans.values():  # in order, so that both ends of the window only go forward
        since = ALL_TIME.start if read.is_history else look_back(start, lookback, timezone)
        while ends[first] <= since:
            first += 1
        while starts[last] < end:
            last += 1
        yield dict(items[first:last])
