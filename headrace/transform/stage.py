"""validated → features: the kernel of each feature table, run only for days whose inputs or code changed."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from functools import lru_cache, partial
from itertools import repeat
from typing import TYPE_CHECKING, Any

from headrace.dataset import EVENT_TIME, KNOWN_TIME, UNPARTITIONED, Dataset, FeatureTable, Input
from headrace.engine.stage import InputHashes, InputPaths, PartitionOutput, Stage, own_params, param_key
from headrace.storage.manifest import Manifest
from headrace.storage.partition_names import PartitionNameError, is_day
from headrace.text import pluralize
from headrace.transform import kernel

if TYPE_CHECKING:
    import polars as pl


def feature_stage(dataset: Dataset, table: FeatureTable) -> Stage:
    """The stage that computes a feature table."""
    reads = {f"{read.table.replace('/', f'/{dataset.name}/', 1)}": read for read in table.inputs.values()}
    names = dict(zip(table.inputs, reads, strict=True))
    return Stage(
        verb="transform",
        dataset=dataset.name,
        table=f"features/{dataset.name}/{table.name}",
        reads=tuple(reads),
        modules=(*table.modules, table.transform.__module__),
        files=table.files,
        params=tuple(param_key(dataset.name, name) for name in table.params),
        partitions=partial(partitions, reads),
        compute=partial(compute, table, names),
        batch_size=table.batch_size,
        compute_batch=partial(compute_batch, table, names),
    )


def partitions(
    reads: Mapping[str, Input], inputs: Mapping[str, Manifest], _own: Manifest
) -> Iterator[tuple[str, InputHashes]]:
    """Every partition of the first input, with the partitions of each input within its lookback.

    Raises:
        PartitionNameError: An input has a partition that is neither a UTC day nor the whole table.
    """
    for table in reads:
        _check_days(table, inputs[table].md5s)
    driver = next(iter(reads))
    days = sorted(inputs[driver].md5s)
    windows = (_windows(inputs[table].md5s, read.lookback, days) for table, read in reads.items())
    tables = tuple(reads)
    for partition, *parts in zip(days, *windows, strict=True):
        yield partition, dict(zip(tables, parts, strict=True))


def compute(
    table: FeatureTable, names: Mapping[str, str], day: str, files: InputPaths, params: Mapping[str, Any]
) -> PartitionOutput:
    """The rows of one day; `names` maps the kernel's keywords to tables."""
    table = table.with_params(own_params(params))
    frame = kernel.compute_features(table, day, {name: files[read] for name, read in names.items()})
    return PartitionOutput(
        frame,
        _keys(table),
        check=partial(kernel.check_rows, table, day),
        computed_metadata=time_span_metadata,
        is_unique=True,
    )


def compute_batch(
    table: FeatureTable, names: Mapping[str, str], files: Mapping[str, InputPaths], params: Mapping[str, Any]
) -> dict[str, PartitionOutput]:
    """The rows of many days; one call of the kernel computes consecutive days.

    Raises:
        UndeclaredFeatureError: Rows of some day are not what is declared.
    """
    table = table.with_params(own_params(params))
    outcomes: dict[str, PartitionOutput] = {}
    for days in _runs(sorted(files)):
        read = {name: {part: path for day in days for part, path in files[day][names[name]].items()} for name in names}
        rows = kernel.compute_features(table, days[0], read, days[-1]).collect()
        kernel.check_rows(table, days[0], rows, days[-1])
        outcomes |= {
            day: PartitionOutput(cut, _keys(table), computed_metadata=time_span_metadata, is_unique=True)
            for day, cut in kernel.split_days(rows, days).items()
        }
    return outcomes


def time_span_metadata(rows: "pl.DataFrame") -> dict[str, dict[str, int]]:
    """The metadata `SPAN` of a partition: its first and last event time and newest known time; none without rows."""
    event, known = (rows[name].to_physical() for name in (EVENT_TIME, KNOWN_TIME))
    if not rows.height:
        return {}
    return {kernel.SPAN: {"first": event.min(), "last": event.max(), "known": known.max()}}  # type: ignore[dict-item]


def _runs(days: Sequence[str]) -> list[list[str]]:
    """Groups of consecutive days."""
    runs: list[list[str]] = []
    for day in days:
        if runs and date.fromisoformat(day) - date.fromisoformat(runs[-1][-1]) == timedelta(days=1):
            runs[-1].append(day)
        else:
            runs.append([day])
    return runs


def _keys(table: FeatureTable) -> tuple[str, ...]:
    return (*table.keys, EVENT_TIME, KNOWN_TIME)


def _check_days(table: str, names: Iterable[str]) -> None:
    strange = [name for name in names if name != UNPARTITIONED and not is_day(name)]
    if strange:
        dataset, source = table.split("/")[1:]
        raise PartitionNameError(
            f"{table}: feature tables read partitions that are UTC days (2013-01-09) or the whole table"
            f" ({UNPARTITIONED}), found {pluralize(len(strange), 'other')}: {', '.join(sorted(strange)[:3])}. Correct"
            f" the pattern of the source {source} or the keys of its objects, then run `headrace run {dataset}`."
        )


def _windows(md5s: Mapping[str, str], lookback: int, days: Sequence[str]) -> Iterator[Mapping[str, str]]:
    """The partitions of an input that each of the days reads; `days` are sorted."""
    if UNPARTITIONED in md5s:
        yield from repeat({UNPARTITIONED: md5s[UNPARTITIONED]}, len(days))
        return
    items = sorted(md5s.items())
    ordinals = [_ordinal(name) for name, _ in items]
    first = end = 0
    for day in days:
        if day == UNPARTITIONED:
            yield dict(items)
            continue
        last = _ordinal(day)
        first = bisect_left(ordinals, last - lookback, first)
        end = bisect_right(ordinals, last, end)
        yield dict(items[first:end])


@lru_cache(maxsize=1 << 14)
def _ordinal(day: str) -> int:
    return date.fromisoformat(day).toordinal()
