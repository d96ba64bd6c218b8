"""Plans: which partitions of a stage are stale, and why. Pure functions over manifests; no data file is touched."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.engine.manifest import Entry, Manifest
from pipelines.engine.recipe import Recipe
from pipelines.engine.stage import Inputs, Stage


@dataclass(frozen=True)
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
        keep: Partition → entry carried over as it is.
        stale: What is to be computed, in partition order.
        gone: Partitions whose inputs are no more.
    """

    stage: Stage
    recipe: Recipe
    keep: Mapping[str, Entry]
    stale: Sequence[Stale]
    gone: Sequence[str]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.stale and not self.gone

    def manifest(self, entries: Mapping[str, Entry]) -> Manifest:
        """The stage's table made of `entries` by this recipe."""
        how = self.recipe
        return Manifest(self.stage.table, ".parquet", how.code, how.params, how.libraries, entries)


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
    memos = {entry.memo: entry for manifest in reversed(known) for entry in manifest.partitions.values()}
    own = known[0] if known else Manifest(stage.table)
    keep: dict[str, Entry] = {}
    stale: list[Stale] = []
    base = recipe.key
    for partition, wanted in stage.partitions(inputs, own):
        memo = memo_key(base, wanted)
        if memo in memos:
            keep[partition] = memos[memo]
        elif only in (None, partition):
            stale.append(Stale(partition, memo, wanted, reasons(partition, wanted, own, recipe)))
    there = keep.keys() | {item.partition for item in stale}
    gone = sorted(own.partitions.keys() - there)
    if only is not None:
        keep |= {name: own.partitions[name] for name in gone if name != only}
        gone = [name for name in gone if name == only]
    return Plan(stage, recipe, keep, stale, gone)


def memo_key(base: str, inputs: Inputs) -> str:
    """Memo key of a partition: the recipe's key and every input's bytes."""
    names = (f"{table}/{name}={md5}" for table in sorted(inputs) for name, md5 in sorted(inputs[table].items()))
    return hashlib.sha256("\n".join((base, *names)).encode()).hexdigest()[:32]


def reasons(partition: str, wanted: Inputs, own: Manifest, recipe: Recipe) -> tuple[str, ...]:
    """Why a partition is stale, for people."""
    if partition not in own.partitions:
        return ("never built",)
    changed = (
        *(f"code changed: {name}" for name in _differing(own.code, recipe.code)),
        *(f"parameter changed: {name}" for name in _differing(own.params, recipe.params)),
        *(f"library changed: {name}" for name in _differing(own.libraries, recipe.libraries)),
        *_input_reasons(own.partitions[partition].inputs, wanted),
    )
    return changed or ("made by another recipe",)


def _input_reasons(had: Inputs, wanted: Inputs) -> Iterator[str]:
    for table in sorted(had.keys() | wanted.keys()):
        before, now = had.get(table, {}), wanted.get(table, {})
        for name in _differing(before, now):
            word = "gone" if name not in now else "changed" if name in before else "new"
            yield f"input {word}: {table}/{name}"


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
