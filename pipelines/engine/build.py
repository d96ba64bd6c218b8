"""One partition: its inputs fetched, its rows computed on CPU or GPU, its canonical bytes kept in the cache."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import polars as pl

from pipelines import faults
from pipelines.engine import parquet
from pipelines.engine.lake import Lake
from pipelines.engine.manifest import Entry
from pipelines.engine.plan import Stale
from pipelines.engine.recipe import Recipe
from pipelines.engine.stage import Outcome, Stage
from pipelines.errors import NotConfiguredError
from pipelines.systems.dvc.cache import Cache

Engine = Literal["cpu", "gpu"]


def build(stage: Stage, item: Stale, recipe: Recipe, lake: Lake, engine: Engine = "cpu") -> Entry:
    """Compute one stale partition into the cache.

    Raises:
        HeadraceError: The stage refuses the partition; the evidence lies in `.headrace/refused/`.
    """
    with lake.cache.scratch() as cache:
        inputs = item.inputs.items()
        files = {table: {name: cache.fetch(md5) for name, md5 in sorted(names.items())} for table, names in inputs}
        outcome = stage.compute(item.partition, files, recipe.params)
        if outcome.refusal:
            raise outcome.refusal(_evidence(lake, outcome, item.partition))
        rows, collected_by = collect(outcome.rows, engine)
        outcome.check(rows)
        beside = {table: _keep(cache, more, outcome.keys, item.memo) for table, more in outcome.beside.items()}
        own = _keep(cache, rows, outcome.keys, item.memo)
    facts = {**outcome.facts, "collected_by": collected_by} if engine == "gpu" else outcome.facts
    return replace(own, inputs=item.inputs, facts=facts, beside=beside)


def collect(frame: pl.LazyFrame | pl.DataFrame, engine: Engine) -> tuple[pl.DataFrame, Engine]:
    """The rows of a frame, and who collected them: Polars, or RAPIDS where it was asked for and can do the query.

    Raises:
        NotConfiguredError: RAPIDS was asked for and is not installed, or sees no GPU.
    """
    if isinstance(frame, pl.DataFrame):
        return frame, "cpu"
    if engine == "cpu":
        return frame.collect(), "cpu"
    try:
        return frame.collect(engine=pl.GPUEngine(raise_on_fail=True)), "gpu"
    except ModuleNotFoundError as error:
        seen = str(error).splitlines()[0]
        raise NotConfiguredError(
            f"HEADRACE_ENGINE=gpu needs RAPIDS, seen: {seen} Install requirements/gpu.txt on a machine with a GPU, or"
            " unset the variable."
        ) from None
    except (pl.exceptions.ComputeError, NotImplementedError):
        return frame.collect(), "cpu"  # counted: an entry says who collected it


def _keep(cache: Cache, rows: pl.DataFrame, keys: Sequence[str], memo: str) -> Entry:
    ordered = parquet.canonical(rows, [name for name in keys if name in rows.columns])
    stored = cache.add(lambda path: parquet.write(ordered, path))
    return Entry(memo, stored.md5, stored.size, rows.height)


def _evidence(lake: Lake, outcome: Outcome, partition: str) -> str:
    """Where the rows lie that show why a partition is refused."""
    table, rows = next(iter(outcome.beside.items()))
    if lake.cache.passes_on:
        return lake.cache.where(lake.cache.add(lambda path: parquet.write(rows, path)).md5)
    path = lake.root / ".headrace" / "refused" / table / f"{partition}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    with faults.point("evidence of a refused partition", lambda: path.write_bytes(b"half")):
        path.unlink(missing_ok=True)
        parquet.write(rows, path)
    return str(path)
