"""Plans: which partitions of a stage are stale, and why. Pure functions over manifests; no data file is touched."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from pipelines.engine.manifest import Entry, Manifest, Partitions
from pipelines.engine.recipe import Recipe
from pipelines.engine.stage import Inputs, Stage


@dataclass(frozen=True, slots=True)
class Stale:
    """A partition that must be computed, from what, and why."""

    partition: str
    memo: str
    inputs: Inputs
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What a run of one stage would do.

    Attributes:
        stage: The stage.
        recipe: The recipe that the memo keys are made with.
        keep: What is carried over as it is.
        stale: What is to be computed, in partition order.
        gone: Partitions whose inputs are no more.
    """

    stage: Stage
    recipe: Recipe
    keep: Partitions
    stale: Sequence[Stale]
    gone: Sequence[str]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.stale and not self.gone

    def manifest(self, partitions: Mapping[str, Entry]) -> Manifest:
        """The stage's table made of `partitions` by this recipe."""
        how = self.recipe
        return Manifest(self.stage.table, ".parquet", how.code, how.params, how.libraries, partitions)


def plan(
    stage: Stage,
    inputs: Mapping[str, Manifest],
    known: Sequence[Manifest],
    recipe: Recipe,
    only: str | None = None,
) -> Plan:
    """Decide what is stale.

    Args:
        stage: What would run.
        inputs: Manifest of every table the stage reads.
        known: Manifests of the stage's own table, the one that readers see first; any may lend an entry.
        recipe: The recipe that would be used.
        only: The one partition that is asked for; the others stay as they are, stale or not.
    """
    own = known[0] if known else Manifest(stage.table)
    keep, missing = _compared(stage.partitions(inputs, own), own, recipe.key)
    lent = by_memo(known) if missing else {}
    keep |= {partition: lent[memo] for partition, (memo, _) in missing.items() if memo in lent}
    otherwise = _recipe_reasons(own, recipe)
    stale = [
        Stale(name, memo, wanted, _reasons(name, wanted, own, otherwise))
        for name, (memo, wanted) in missing.items()
        if name not in keep and only in (None, name)
    ]
    gone = sorted(own.lines.keys() - keep.keys() - {item.partition for item in stale})
    if only is not None:
        keep |= {name: own.lines[name] for name in gone if name != only}
        gone = [name for name in gone if name == only]
    return Plan(stage, recipe, Partitions(keep), stale, gone)


def by_memo(known: Sequence[Manifest]) -> dict[str, str]:
    """Memo key → line, the first manifest's where several have one."""
    return {memo: each.lines[name] for each in reversed(known) for name, memo in each.memos.items()}


def memo_key(base: bytes, partition: str, inputs: Inputs) -> str:
    """Memo key of a partition: the recipe's key, its name, which the kernel is told, and every input's bytes."""
    told = orjson.dumps([partition, inputs], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(base + told).hexdigest()[:32]


def _compared(
    wanted: Iterable[tuple[str, Inputs]], own: Manifest, base: bytes
) -> tuple[dict[str, str], dict[str, tuple[str, Inputs]]]:
    """Partition → line of those that stand as they are wanted, and memo key and inputs of the others."""
    keep, missing, lines, memos = {}, {}, own.lines, own.memos
    for partition, inputs in wanted:
        memo = memo_key(base, partition, inputs)
        if memos.get(partition) == memo:
            keep[partition] = lines[partition]
        else:
            missing[partition] = memo, inputs
    return keep, missing


def _reasons(partition: str, wanted: Inputs, own: Manifest, otherwise: tuple[str, ...]) -> tuple[str, ...]:
    """Why a partition is stale, for people."""
    if partition not in own.lines:
        return ("never built",)
    return (*otherwise, *_input_reasons(own.partitions[partition].inputs, wanted)) or ("made by another recipe",)


def _recipe_reasons(own: Manifest, recipe: Recipe) -> tuple[str, ...]:
    """What of the recipe is not as it was."""
    return (
        *(f"code changed: {name}" for name in _differing(own.code, recipe.code)),
        *(f"parameter changed: {name}" for name in _differing(own.params, recipe.params)),
        *(f"library changed: {name}" for name in _differing(own.libraries, recipe.libraries)),
    )


def _input_reasons(had: Inputs, wanted: Inputs) -> Iterator[str]:
    for table in sorted(had.keys() | wanted.keys()):
        before, now = had.get(table, {}), wanted.get(table, {})
        for name in _differing(before, now):
            word = "gone" if name not in now else "changed" if name in before else "new"
            yield f"input {word}: {table}/{name}"


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
