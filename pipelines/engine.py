"""The engine: plan → execute (on Dask, a partition at a time) → commit (whole or absent).

Cost follows what is new: a partition is computed when its memo key is in no manifest we know; every other one is
carried over by its md5, whether its bytes lie in the workspace, in the cache or on the remote.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import polars as pl

from pipelines import parquet
from pipelines.code import closure
from pipelines.errors import HeadraceError, NotConfiguredError
from pipelines.plan import Plan, Recipe, Stale, plan
from pipelines.stage import Outcome, Stage
from pipelines.systems.dvc import Cache, load_yaml
from pipelines.table import Entry, Lake, Manifest

Engine = Literal["cpu", "gpu"]
Done = Callable[[str, Entry], None]
"""Called with a partition and its entry, as they are ready, in any order."""

Execute = Callable[[Plan, Lake, Done], None]


@dataclass(frozen=True)
class Ran:
    """What a run of one stage did: partition → why it was computed, and how many were carried over."""

    stage: Stage
    built: Mapping[str, tuple[str, ...]]
    kept: int
    gone: Sequence[str]
    manifest: Manifest

    @property
    def totals(self) -> dict[str, int]:
        """Rows in, accepted and rejected of the whole table; a feature table has rows only."""
        entries = self.manifest.partitions.values()
        counted = {name: sum(entry.facts.get(name, 0) for entry in entries) for name in ("rows_in", "rejected")}
        return {"rows": self.manifest.rows, **(counted if self.stage.verb == "validate" else {})}

    @property
    def collected_by(self) -> dict[str, int]:
        """Engine → partitions of this run that it collected, where a GPU was asked for."""
        entries = (self.manifest.partitions[name] for name in self.built)
        return dict(Counter(entry.facts["collected_by"] for entry in entries if "collected_by" in entry.facts))


def run(stage: Stage, lake: Lake, execute: Execute, only: str | None = None) -> Ran:
    """Bring the stage's tables, or `only` one partition of them, up to date and show them.

    Raises:
        TableBusyError: Another run holds the table.
        HeadraceError: A partition was refused. What else was stale is computed and remembered; nothing is shown.
    """
    with lake.lease(stage.table):
        first = current = plan_stage(stage, lake, only=only)
        built: dict[str, tuple[str, ...]] = {}
        # A key that turns out to stand in two partitions makes the later one stale once more.
        while current.stale:
            built = {item.partition: item.reasons for item in current.stale} | built
            entries = dict(current.keep)

            def done(partition: str, entry: Entry, entries: dict[str, Entry] = entries) -> None:
                lake.remember(stage.table, entry)
                entries[partition] = entry

            execute(current, lake, done)
            current = plan_stage(stage, lake, current.manifest(entries), only)
        _show(current, lake)
        return Ran(stage, built, len(first.keep), first.gone, current.manifest(current.keep))


def plan_stage(stage: Stage, lake: Lake, shown: Manifest | None = None, only: str | None = None) -> Plan:
    """The plan of `stage`, or of `only` one partition, as the workspace is, or as if it showed the table `shown`."""
    inputs = {table: lake.manifest(table) for table in stage.reads}
    known = [shown] if shown else lake.known(stage.table)
    return plan(stage, inputs, known, recipe(stage, lake.root), only)


def plan_all(stages: Iterable[Stage], lake: Lake) -> list[Plan]:
    """The plans of `stages` in order, each as if those before it had run: what they would make counts as changed."""
    coming: dict[str, Manifest] = {}
    plans = []
    for stage in stages:
        inputs = {table: coming.get(table) or lake.manifest(table) for table in stage.reads}
        made = plan(stage, inputs, lake.known(stage.table), recipe(stage, lake.root))
        unknown = {item.partition: Entry(item.memo, f"made by {item.memo}", 0) for item in made.stale}
        coming[stage.table] = made.manifest({**made.keep, **unknown})
        plans.append(made)
    return plans


def recipe(stage: Stage, root: Path) -> Recipe:
    """The recipe of `stage`: the code that runs here, and the parameters of the workspace `root`."""
    code, libraries = code_and_libraries(stage)
    return Recipe(code, {name: param(root, name) for name in stage.params}, libraries)


def code_and_libraries(stage: Stage) -> tuple[dict[str, str], dict[str, str]]:
    """File → hash of the stage's code, and library → version, as they run here."""
    return closure(stage.modules), {name: version(name) for name in stage.libraries}


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


def param(root: Path, name: str) -> Any:  # noqa: ANN401  whatever params.yaml holds
    """The parameter `name` (dotted) of the workspace's `params.yaml`.

    Raises:
        HeadraceError: There is none.
    """
    path = root / "params.yaml"
    found: Any = _params(path, path.stat().st_mtime_ns) if path.exists() else {}
    for part in name.split("."):
        if not isinstance(found, dict) or part not in found:
            raise HeadraceError(f"{path}: expected the parameter {name}, seen none. Add it, then run again.")
        found = found[part]
    return found


@cache
def _params(path: Path, _changed: int) -> dict[str, Any]:
    return load_yaml(path)


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
    path.unlink(missing_ok=True)
    parquet.write(rows, path)
    return str(path)


def _show(done: Plan, lake: Lake) -> None:
    """Show the tables of a stage: those beside the main one first, so that its manifest is the last step."""
    for table in done.stage.beside:
        there = {name: entry.beside[table] for name, entry in done.keep.items() if table in entry.beside}
        lake.commit(replace(done.manifest(there), table=table))
    lake.commit(done.manifest(done.keep))
    lake.forget(done.stage.table)
