"""Plans: which partitions of a stage are stale, and why. Pure functions over manifests; no data file is touched."""

import hashlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from msgspec import Raw, structs

from headrace.engine.fingerprint import Fingerprint
from headrace.engine.result_versions import CHANGES, still_valid
from headrace.engine.stage import InputHashes, ObjectKeys, Stage
from headrace.errors import HeadraceError
from headrace.storage.field_ids import TableColumn
from headrace.storage.manifest import Manifest
from headrace.storage.manifest_entries import LazyEntries
from headrace.storage.partition_entry import PartitionEntry, encode_entry
from headrace.storage.partition_names import RecordedInterval, hashes_by_partition, partition_interval
from headrace.storage.table_schema import TableSchema

NEVER_BUILT = "never built"
INPUT = "input "
"""Reasons, or how they begin, that no change of code, parameters or libraries gives."""


class DefaultChangedError(HeadraceError):
    """A column has another default than that with which its table was read."""


@dataclass(frozen=True, slots=True)
class StalePartition:
    """A partition that must be computed, from what, and why.

    Attributes:
        partition: Its name.
        cache_key: Its cache key.
        inputs: What it is computed from.
        reasons: Why, for people.
        sha256s: md5 → sha256 of its inputs, where that is known: inputs that are fetched are compared with it.
        schema_files: Table that it reads no partition of → md5 of some file of that table, which has its columns.
        object_keys: Table → entry → key of the object, of partitions that have several.
        table_schemas: Table whose files differ in their columns → its columns.
    """

    partition: str
    cache_key: str
    inputs: InputHashes
    reasons: tuple[str, ...]
    sha256s: Mapping[str, str] = field(default_factory=dict)
    schema_files: Mapping[str, str] = field(default_factory=dict)
    object_keys: ObjectKeys = field(default_factory=dict)
    table_schemas: Mapping[str, TableSchema] = field(default_factory=dict)

    @property
    def is_recomputation(self) -> bool:
        """Whether the table has the partition, made with another fingerprint."""
        return not all(reason.startswith((NEVER_BUILT, INPUT)) for reason in self.reasons)


@dataclass(frozen=True)
class Plan:
    """What a run of one stage would do.

    Attributes:
        stage: The stage.
        fingerprint: What the cache keys are made with, beside the inputs.
        reused: What is carried over as it is.
        stale: What is to be computed, in partition order.
        removed: Partitions whose inputs are no more.
        computed_before: Partitions of `keep` that the table does not hold: an earlier run computed them, or a release
            records them.
    """

    stage: Stage
    fingerprint: Fingerprint
    reused: LazyEntries
    stale: Sequence[StalePartition]
    removed: Sequence[str]
    computed_before: Sequence[str] = ()

    @property
    def is_empty(self) -> bool:
        """Whether a run would change nothing."""
        return not self.pending_partitions

    @property
    def pending_partitions(self) -> list[str]:
        """Every partition that a run would compute, add from an earlier run, or remove."""
        return [*(item.partition for item in self.stale), *self.computed_before, *self.removed]

    @property
    def unchanged(self) -> int:
        """How many partitions the table holds as they should be."""
        return len(self.reused) - len(self.computed_before)

    def kept_manifests(self) -> dict[str, Manifest]:
        """Table → manifest of what is carried over, for every table of the stage; the main one is the last."""
        main = self.manifest(self.reused)
        renamed = tuple(TableColumn(column.id, column.name) for column in main.columns)
        beside = {
            table: replace(main, table=table, partitions=self.reused.companions(table), columns=renamed)
            for table in self.stage.companion_tables
        }
        return {**beside, self.stage.table: main}

    def manifest(self, partitions: Mapping[str, PartitionEntry]) -> Manifest:
        """The stage's table made of `partitions` under this fingerprint."""
        by = self.fingerprint
        return Manifest(
            self.stage.table,
            ".parquet",
            by.code,
            by.params,
            by.libraries,
            by.result_version,
            partitions=partitions,
            columns=self.stage.columns(by.params),
        )


def plan(
    stage: Stage,
    inputs: Mapping[str, Manifest],
    known: Sequence[Manifest],
    fingerprint: Fingerprint,
    only: Container[str] | None = None,
) -> Plan:
    """Decide what is stale.

    Args:
        stage: What would run.
        inputs: Manifest of every table the stage reads.
        known: Manifests of the stage's own table, the one that readers see first; any may lend an entry.
        fingerprint: The fingerprint that would be used.
        only: The partitions that are asked for; the others stay as they are, stale or not.

    Raises:
        DefaultChangedError: A column has another default than the table was read with.
    """
    own = known[0] if known else Manifest(stage.table)
    check_defaults(own, stage.columns(fingerprint.params))
    keep, missing = _reusable(stage, inputs, own, known, fingerprint)
    otherwise = _fingerprint_reasons(stage, own, fingerprint)
    stale = [
        StalePartition(name, key, wanted, _reasons(name, wanted, own, otherwise))
        for name, (key, wanted) in missing.items()
        if only is None or name in only
    ]
    gone = sorted(own.md5s.keys() - keep.md5s.keys() - {item.partition for item in stale})
    if only is not None:
        keep |= own.entries.select([name for name in gone if name not in only])
        gone = [name for name in gone if name in only]
    return Plan(stage, fingerprint, keep, stale, gone, sorted(keep.changed_since(own.entries)))


def check_defaults(own: Manifest, declared: Sequence[TableColumn]) -> None:
    """Check that no default is another than that with which the table was read.

    Raises:
        DefaultChangedError: One is.
    """
    for column in declared:
        known = next((each for each in own.columns if each.id == column.id), column)
        is_read = any(all(each.id != column.id for each in schema) for schema in own.schemas.values())
        if is_read and known.default != column.default:
            raise DefaultChangedError(
                f"{own.table}: the default of the column {column.name} was {known.default!r}, and is {column.default!r}"
                " now. Partitions that lack the column are read with it, and what was computed from them would keep the"
                f" former one. Declare default={known.default!r} again; `transform` can fill in another value, which is"
                " then stored."
            )


def _reusable(
    stage: Stage, inputs: Mapping[str, Manifest], own: Manifest, known: Sequence[Manifest], fingerprint: Fingerprint
) -> tuple[LazyEntries, dict[str, tuple[str, InputHashes]]]:
    """The entries that need not be computed, and the cache key and inputs of the other partitions.

    An entry from another manifest may hold a key range that was not known before, and with it other partitions have
    other inputs. So such entries are added to the table and its partitions are compared again, until none is new. That
    ends, because the key range of a partition depends on its own input alone.
    """
    table = own
    while True:
        same, missing = _split_unchanged(stage.partitions(inputs, table), table, fingerprint.key)
        valid = _still_valid(stage, table, fingerprint, missing)
        missing = {name: wanted for name, wanted in missing.items() if name not in valid}
        reusable = find_by_cache_key(known, {name: key for name, (key, _) in missing.items()})
        if stage.is_single_pass or not reusable:
            keep = table.entries.select([*same, *valid]) | reusable
            return keep, {name: wanted for name, wanted in missing.items() if name not in reusable}
        table = table.plus(reusable)


def find_by_cache_key(
    known: Sequence[Manifest],
    wanted: Mapping[str, str],
    interval_of: Callable[[str], RecordedInterval] = partition_interval,
) -> LazyEntries:
    """Those of the wanted partitions (name → cache key) that a manifest has; the first one's where several have it.

    `interval_of` gives the interval of a partition, for an entry that had another name.
    """
    missing: dict[str, list[str]] = {}
    for name, key in wanted.items():
        missing.setdefault(key, []).append(name)
    found = LazyEntries()
    for manifest in known if missing else ():
        names = [(name, key) for name, key in manifest.cache_keys.items() if key in missing]
        lines = {
            own: _entry_for(own, name, manifest, interval_of) for name, key in names for own in missing.pop(key, ())
        }
        found = found.with_lines(lines, manifest.schemas)
    return found


def _entry_for(own: str, name: str, manifest: Manifest, interval_of: Callable[[str], RecordedInterval]) -> Raw:
    """The entry of the partition `name`, as that of the partition `own`, whose interval may be another."""
    entry = manifest.entries[name]
    if own != name or entry.start is None:
        start, end = interval_of(own)
        entry = structs.replace(entry, start=start, end=end)
    return Raw(encode_entry(entry))


def partition_cache_key(base: bytes, partition: str, inputs: InputHashes) -> str:
    """Hash of the fingerprint's key, the partition's name, which the kernel receives, and the bytes of every input."""
    content = orjson.dumps([partition, inputs], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(base + content).hexdigest()[:32]


def _split_unchanged(
    wanted: Iterable[tuple[str, InputHashes]], own: Manifest, base: bytes
) -> tuple[list[str], dict[str, tuple[str, InputHashes]]]:
    """The partitions that are as they are wanted, and cache key and inputs of the others."""
    same, missing, cache_keys = [], {}, own.cache_keys
    for partition, inputs in wanted:
        key = partition_cache_key(base, partition, inputs)
        if cache_keys.get(partition) == key:
            same.append(partition)
        else:
            missing[partition] = key, inputs
    return same, missing


def _reasons(partition: str, wanted: InputHashes, own: Manifest, otherwise: tuple[str, ...]) -> tuple[str, ...]:
    """Why a partition is stale, for people."""
    if partition not in own.md5s:
        return (NEVER_BUILT,)
    return (*otherwise, *_input_reasons(own.entries[partition].inputs, wanted)) or ("another fingerprint",)


def _still_valid(
    stage: Stage, own: Manifest, fingerprint: Fingerprint, missing: Mapping[str, tuple[str, InputHashes]]
) -> set[str]:
    """The partitions that an earlier result version computed and no later change affects."""
    valid = set[str]()
    for version in (change.version for change in CHANGES[stage.verb] if change.version < fingerprint.result_version):
        key = fingerprint.key_at(version)
        for name, (_, inputs) in missing.items():
            is_of_version = own.cache_keys.get(name) == partition_cache_key(key, name, inputs)
            if is_of_version and still_valid(stage.verb, version, own.entries[name]):
                valid.add(name)
    return valid


def _fingerprint_reasons(stage: Stage, own: Manifest, now: Fingerprint) -> tuple[str, ...]:
    """What of the fingerprint is not as it was."""
    return (
        *(f"engine changed: {change.reason}" for change in CHANGES[stage.verb] if change.version > own.result_version),
        *(f"code changed: {name}" for name in _changed_keys(own.code, now.code)),
        *(f"parameter changed: {name}" for name in _changed_keys(own.params, now.params)),
        *(f"library changed: {name}" for name in _changed_keys(own.libraries, now.libraries)),
    )


def _input_reasons(had: InputHashes, wanted: InputHashes) -> Iterator[str]:
    for table in sorted(had.keys() | wanted.keys()):
        before, now = hashes_by_partition(had.get(table, {})), hashes_by_partition(wanted.get(table, {}))
        for name in _changed_keys(before, now):
            word = "gone" if name not in now else "changed" if name in before else "new"
            yield f"{INPUT}{word}: {table}/{name}"


def _changed_keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
