"""Partitions: their inputs fetched, their rows computed on CPU or GPU, their canonical bytes kept in the cache."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache as once_each
from pathlib import Path
from typing import Literal

import polars as pl

from headrace import failpoints
from headrace.engine.fingerprint import Fingerprint, check_code_unchanged
from headrace.engine.plan import Stale
from headrace.engine.stage import Files, Outcome, Stage
from headrace.errors import HeadraceError, NotConfiguredError
from headrace.extras import require_extra
from headrace.storage import parquet
from headrace.storage.dvc.cache import Cache
from headrace.storage.manifest import Entry
from headrace.storage.table_store import Lake

Engine = Literal["cpu", "gpu"]
PartitionResult = Entry | HeadraceError
"""A partition, or why it was refused."""


def build(stage: Stage, item: Stale, fingerprint: Fingerprint, lake: Lake, engine: Engine = "cpu") -> Entry:
    """Compute one stale partition into the cache.

    Raises:
        HeadraceError: The stage refuses the partition; the evidence lies in `.headrace/refused/`.
    """
    with lake.cache.scratch() as cache:
        return _kept(
            item, stage.compute(item.partition, _files(item, cache.fetch), fingerprint.params), lake, cache, engine
        )


def build_all(
    stage: Stage, items: Sequence[Stale], fingerprint: Fingerprint, lake: Lake, engine: Engine = "cpu"
) -> Iterator[tuple[str, PartitionResult]]:
    """Compute stale partitions into the cache, together where the stage can; each is told as it is ready.

    None is told once a file that the fingerprint names has changed.
    """
    check_code_unchanged(stage, fingerprint)
    outcomes = _together(stage, items, fingerprint, lake) if engine == "cpu" and len(items) > 1 else {}
    for item in items:
        outcome = outcomes.get(item.partition)
        made: PartitionResult
        try:
            if outcome is None:
                made = build(stage, item, fingerprint, lake, engine)
            else:
                with lake.cache.scratch() as cache:
                    made = _kept(item, outcome, lake, cache, engine)
            check_code_unchanged(stage, fingerprint)
        except HeadraceError as error:
            made = error
        yield item.partition, made


def _together(stage: Stage, items: Sequence[Stale], fingerprint: Fingerprint, lake: Lake) -> Mapping[str, Outcome]:
    try:
        with lake.cache.scratch() as cache:
            fetch = once_each(cache.fetch)  # neighbours look back on the same days
            return stage.together({item.partition: _files(item, fetch) for item in items}, fingerprint.params)
    except HeadraceError:
        return {}  # by itself, each says what is wrong with it


def _kept(item: Stale, outcome: Outcome, lake: Lake, cache: Cache, engine: Engine) -> Entry:
    """The entry of a partition, once its rows are collected, checked and in the cache."""
    if outcome.refusal:
        raise outcome.refusal(_evidence(lake, outcome, item.partition))
    rows, collected_by = collect(outcome.rows, engine)
    outcome.check(rows)
    beside = {
        table: _keep(cache, parquet.canonical(more, [name for name in outcome.keys if name in more.columns]), item.memo)
        for table, more in outcome.beside.items()
    }
    own = _keep(cache, parquet.canonical(rows, outcome.keys, is_unique=outcome.is_unique), item.memo)
    by = {"collected_by": collected_by} if engine == "gpu" else {}
    facts = {**outcome.facts, **outcome.told(rows), **by}
    return replace(own, inputs=item.inputs, facts=facts, beside=beside)


def _files(item: Stale, fetch: Callable[[str], Path]) -> Files:
    return {table: {name: fetch(md5) for name, md5 in sorted(names.items())} for table, names in item.inputs.items()}


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


def _keep(cache: Cache, ordered: pl.DataFrame, memo: str) -> Entry:
    stored = cache.add_bytes(memoryview(parquet.content(ordered)), stays=False)
    return Entry(memo, stored.md5, stored.size, ordered.height)


def _evidence(lake: Lake, outcome: Outcome, partition: str) -> str:
    """Where the rows lie that show why a partition is refused."""
    table, rows = next(iter(outcome.beside.items()))
    if lake.cache.passes_on:
        return lake.cache.where(lake.cache.add(lambda path: parquet.write(rows, path)).md5)
    path = lake.root / ".headrace" / "refused" / table / f"{partition}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    with failpoints.failpoint("evidence of a refused partition", lambda: path.write_bytes(b"half")):
        path.unlink(missing_ok=True)
        parquet.write(rows, path)
    return str(path)
