"""Plans: which partitions of a stage are stale, and why. Pure functions over manifests; no data file is touched."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from headrace.engine.fingerprint import Fingerprint
from headrace.engine.result_versions import CHANGES, still_valid
from headrace.engine.stage import Inputs, Stage
from headrace.storage.manifest import Entry, Manifest, Partitions


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
        fingerprint: What the cache keys are made with, beside the inputs.
        keep: What is carried over as it is.
        stale: What is to be computed, in partition order.
        gone: Partitions whose inputs are no more.
        computed_before: Partitions of `keep` that the table does not hold: an earlier run computed them, or a release
            records them.
    """

    stage: Stage
    fingerprint: Fingerprint
    keep: Partitions
    stale: Sequence[Stale]
    gone: Sequence[str]
    computed_before: Sequence[str] = ()

    @property
    def is_empty(self) -> bool:
        """Whether a run would change nothing."""
        return not self.pending_partitions

    @property
    def pending_partitions(self) -> list[str]:
        """Every partition that a run would compute, add from an earlier run, or remove."""
        return [*(item.partition for item in self.stale), *self.computed_before, *self.gone]

    @property
    def unchanged(self) -> int:
        """How many partitions the table holds as they should be."""
        return len(self.keep) - len(self.computed_before)

    def kept_manifests(self) -> dict[str, Manifest]:
        """Table → manifest of what is carried over, for every table of the stage; the main one is the last."""
        main = self.manifest(self.keep)
        beside = {table: replace(main, table=table, partitions=self.keep.beside(table)) for table in self.stage.beside}
        return {**beside, self.stage.table: main}

    def manifest(self, partitions: Mapping[str, Entry]) -> Manifest:
        """The stage's table made of `partitions` under this fingerprint."""
        by = self.fingerprint
        return Manifest(
            self.stage.table, ".parquet", by.code, by.params, by.libraries, by.result_version, partitions=partitions
        )


def plan(
    stage: Stage,
    inputs: Mapping[str, Manifest],
    known: Sequence[Manifest],
    fingerprint: Fingerprint,
    only: str | None = None,
) -> Plan:
    """Decide what is stale.

    Args:
        stage: What would run.
        inputs: Manifest of every table the stage reads.
        known: Manifests of the stage's own table, the one that readers see first; any may lend an entry.
        fingerprint: The fingerprint that would be used.
        only: The one partition that is asked for; the others stay as they are, stale or not.
    """
    own = known[0] if known else Manifest(stage.table)
    keep, missing = _reusable(stage, inputs, own, known, fingerprint)
    otherwise = _fingerprint_reasons(stage, own, fingerprint)
    stale = [
        Stale(name, memo, wanted, _reasons(name, wanted, own, otherwise))
        for name, (memo, wanted) in missing.items()
        if only in (None, name)
    ]
    gone = sorted(own.lines.keys() - keep.keys() - {item.partition for item in stale})
    if only is not None:
        keep |= {name: own.lines[name] for name in gone if name != only}
        gone = [name for name in gone if name == only]
    computed_before = sorted(name for name, line in keep.items() if own.lines.get(name) != line)
    return Plan(stage, fingerprint, Partitions(keep), stale, gone, computed_before)


def _reusable(
    stage: Stage, inputs: Mapping[str, Manifest], own: Manifest, known: Sequence[Manifest], fingerprint: Fingerprint
) -> tuple[dict[str, str], dict[str, tuple[str, Inputs]]]:
    """Partition → line of those that need not be computed, and memo key and inputs of the others.

    An entry from another manifest may hold a key range that was not known before, and with it other partitions have
    other inputs. So such entries are added to the table and its partitions are compared again, until none is new. That
    ends, because the key range of a partition depends on its own input alone.
    """
    table = own
    while True:
        keep, missing = _compared(stage.partitions(inputs, table), table, fingerprint.key)
        keep |= _unaffected(stage, table, fingerprint, missing)
        missing = {name: wanted for name, wanted in missing.items() if name not in keep}
        lines = by_memo(known) if missing else {}
        lent = {name: lines[memo] for name, (memo, _) in missing.items() if memo in lines}
        if stage.settles or not lent:
            return keep | lent, {name: wanted for name, wanted in missing.items() if name not in lent}
        table = table.plus(Partitions(lent))


def by_memo(known: Sequence[Manifest]) -> dict[str, str]:
    """Memo key → line, the first manifest's where several have one."""
    return {memo: each.lines[name] for each in reversed(known) for name, memo in each.memos.items()}


def memo_key(base: bytes, partition: str, inputs: Inputs) -> str:
    """Memo key of a partition: the fingerprint's key, its name, which the kernel is told, and every input's bytes."""
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
    return (*otherwise, *_input_reasons(own.partitions[partition].inputs, wanted)) or ("another fingerprint",)


def _unaffected(
    stage: Stage, own: Manifest, fingerprint: Fingerprint, missing: Mapping[str, tuple[str, Inputs]]
) -> dict[str, str]:
    """Partition → line of those that an earlier result version computed and no later change affects."""
    keep = {}
    for version in (change.version for change in CHANGES[stage.verb] if change.version < fingerprint.result_version):
        key = fingerprint.key_at(version)
        for name, (_, inputs) in missing.items():
            is_of_version = own.memos.get(name) == memo_key(key, name, inputs)
            if is_of_version and still_valid(stage.verb, version, own.partitions[name]):
                keep[name] = own.lines[name]
    return keep


def _fingerprint_reasons(stage: Stage, own: Manifest, now: Fingerprint) -> tuple[str, ...]:
    """What of the fingerprint is not as it was."""
    return (
        *(f"engine changed: {change.reason}" for change in CHANGES[stage.verb] if change.version > own.result_version),
        *(f"code changed: {name}" for name in _differing(own.code, now.code)),
        *(f"parameter changed: {name}" for name in _differing(own.params, now.params)),
        *(f"library changed: {name}" for name in _differing(own.libraries, now.libraries)),
    )


def _input_reasons(had: Inputs, wanted: Inputs) -> Iterator[str]:
    for table in sorted(had.keys() | wanted.keys()):
        before, now = had.get(table, {}), wanted.get(table, {})
        for name in _differing(before, now):
            word = "gone" if name not in now else "changed" if name in before else "new"
            yield f"input {word}: {table}/{name}"


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
