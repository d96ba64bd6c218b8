"""Renames tables after their declaration: the partitions go on under the new name, with the bytes that they have.

Where nothing but names changed, entries get the cache keys that the declaration has now, so nothing is computed.
Entries of tables that read a renamed one are brought along. The old tables are dropped last, so a rename that was
killed is finished by the next one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from msgspec import structs

from headrace.dataset import Dataset
from headrace.engine.fingerprint import Fingerprint, stage_fingerprint
from headrace.engine.plan import Plan, partition_cache_key
from headrace.engine.result_versions import CHANGES
from headrace.engine.stage import Stage
from headrace.errors import HeadraceError
from headrace.maintenance.drop import (
    NotOnRecordError,
    StillDeclaredError,
    refuse_readers,
    remove_tables,
    retired_of,
)
from headrace.maintenance.renamed_code import Renaming, find_difference
from headrace.project import graph
from headrace.project.declared_tables import declared_tables, place_of, table_names, undeclared_tables
from headrace.project.locks import lock_tables
from headrace.release.branches import list_releases
from headrace.release.retired_tables import retire_tables
from headrace.storage.manifest import Manifest
from headrace.storage.manifest_entries import LazyEntries
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.table_store import TableStore
from headrace.workspace import PACKAGE


class NotDeclaredError(HeadraceError):
    """Nothing declares the new name yet."""


class NameTakenError(HeadraceError):
    """The table of the new name holds something else."""


@dataclass(frozen=True)
class RenameResult:
    """What was renamed, or would be.

    Attributes:
        dataset: Name of the dataset, as it is declared.
        tables: Old table → new table.
        carried: Table → partitions that go on under their new names, of renamed tables and of those that read them.
        stale: Table → why its partitions are computed again.
        kept_by: The newest release that has the old tables; empty if there is none.
        dry_run: Whether nothing was changed.
    """

    dataset: str
    tables: Mapping[str, str]
    carried: Mapping[str, int] = field(default_factory=dict)
    stale: Mapping[str, str] = field(default_factory=dict)
    kept_by: str = ""
    dry_run: bool = True


def find_renaming(dataset: Dataset, old: str, new: str, table_store: TableStore) -> Renaming:
    """The tables that a rename of a source, a feature table or a labeling task concerns.

    Args:
        dataset: The dataset, as it is declared.
        old: The name that its tables on record have.
        new: The name that it has in the declaration.
        table_store: The workspace's tables.

    Raises:
        NotDeclaredError: Nothing declares the new name.
        StillDeclaredError: Something declares the old one.
        NotOnRecordError: No table has the old name.
    """
    declared, name = declared_tables(dataset), dataset.name
    pairs = {table: f"{table.rsplit('/', 1)[0]}/{old}" for table in declared if table.rsplit("/", 1)[1] == new}
    root = table_store.root
    places = {place_of(declared[table], root) for table in pairs.values() if table in declared}
    if places and not any(table not in declared for table in pairs.values()):
        raise StillDeclaredError(
            f"{name}: {', '.join(sorted(places))} still declares {old}. Nothing was changed. Give that declaration the"
            f" name {new!r}, then run the same command again."
        )
    undeclared = {*undeclared_tables(dataset, table_store), *retired_of(name, table_store)} - declared.keys()
    if not pairs:
        places = {place_of(it, root) for table, it in declared.items() if table.rsplit("/", 1)[1] == old}
        where = f"{', '.join(sorted(places))} declares {old}" if places else f"pipelines/{name} declares neither"
        raise NotDeclaredError(
            f"{name}: expected a declaration named {new!r}, found none: {where}. Nothing was changed. Change the name"
            " there, and in what reads it, then run the same command again."
        )
    tables = {table: before for table, before in pairs.items() if before in undeclared}
    if not tables:
        raise NotOnRecordError(
            f"{name}: expected tables named {old!r} on record and not declared, found"
            f" {', '.join(table_names(undeclared)) or 'none'}. Nothing was changed."
        )
    return Renaming(name, name, tables)


def find_dataset_renaming(dataset: Dataset, old: str, table_store: TableStore) -> Renaming:
    """The tables that a rename of a whole dataset concerns.

    Raises:
        StillDeclaredError: Something declares the old dataset.
        NotOnRecordError: It has no tables that the new one declares.
    """
    place = f"{PACKAGE}/{old}/__init__.py"
    if (table_store.root / place).exists():
        raise StillDeclaredError(
            f"{place} still declares the dataset {old}. Nothing was changed. Rename the folder to"
            f" {PACKAGE}/{dataset.name}, then run the same command again."
        )
    known = {*table_store.known_tables(old), *retired_of(old, table_store)}
    pairs = {table: table.replace(f"/{dataset.name}/", f"/{old}/", 1) for table in declared_tables(dataset)}
    tables = {table: before for table, before in pairs.items() if before in known}
    if not tables:
        raise NotOnRecordError(
            f"There is no table of a dataset {old!r} in {table_store.root} that {PACKAGE}/{dataset.name} declares."
            " Nothing was changed."
        )
    return Renaming(old, dataset.name, tables)


def rename_tables(
    dataset: Dataset, renaming: Renaming, table_store: TableStore, *, reason: str, dry_run: bool = True
) -> RenameResult:
    """Show tables under their new names and drop the old ones, unless it is a dry run.

    Args:
        dataset: The dataset, as it is declared now.
        renaming: What was renamed.
        table_store: The workspace's tables.
        reason: Why, for the record.
        dry_run: Change nothing.

    Raises:
        StillReadError: A stage that is written by hand reads an old table.
        NameTakenError: A table of the new name holds something else.
        TableLockedError: A run holds one of the tables.
        TransientError: DVC is running.
    """
    old_tables = list(renaming.tables.values())
    refuse_readers(table_store.root, old_tables)
    releases = list_releases(table_store, renaming.old_dataset)
    moved = _Move(dataset, renaming, table_store, releases[-1:])
    if dry_run:
        manifests = dict(moved.manifests())
    else:
        written = [stage.table for stage in moved.stages] + [*renaming.tables]
        with lock_tables(table_store, (f"release/{dataset.name}", *written, *old_tables)):
            manifests = dict(moved.manifests())
            for manifest in manifests.values():
                table_store.checkout(manifest)
            retire_tables(table_store.root, old_tables, reason, renaming.new_tables)
            remove_tables(table_store, old_tables)
    carried = {table: len(manifest.md5s) for table, manifest in manifests.items() if manifest.md5s}
    kept_by = releases[-1] if releases else ""
    return RenameResult(dataset.name, renaming.new_tables, carried, moved.differences, kept_by, dry_run)


@dataclass(frozen=True)
class _Move:
    """Manifests of renamed tables, and of those that read them.

    Attributes:
        dataset: The dataset, as it is declared now.
        renaming: What was renamed.
        table_store: The workspace's tables.
        revisions: Commits that may have the code that computed them.
        differences: Table → why its entries do not get new cache keys; filled while manifests are made.
    """

    dataset: Dataset
    renaming: Renaming
    table_store: TableStore
    revisions: Sequence[str]
    differences: dict[str, str] = field(default_factory=dict)

    @property
    def stages(self) -> list[Stage]:
        """The stages that make or read a renamed table."""
        names = self.renaming.tables
        return [
            stage
            for stage in graph.dataset_stages(self.dataset)
            if not names.keys().isdisjoint((stage.table, *stage.companion_tables, *stage.reads))
        ]

    def manifests(self) -> Iterator[tuple[str, Manifest]]:
        """Table → manifest, inputs before the tables that are computed from them."""
        computed = {table for stage in self.stages for table in (stage.table, *stage.companion_tables)}
        for new, old in self.renaming.tables.items():
            if new not in computed and self._has(old):
                yield new, self._input(new, self.table_store.manifest(old))
        for stage in self.stages:
            old = self.renaming.tables.get(stage.table, stage.table)
            if self._has(old):
                yield from self._computed(stage, self.table_store.manifest(old))

    def _has(self, table: str) -> bool:
        return bool(self.table_store.manifest(table).md5s)

    def _input(self, new: str, old: Manifest) -> Manifest:
        """A raw table, or a history of annotations: no entry names its table.

        Raises:
            NameTakenError: The new table holds other partitions, perhaps of a source that was read under its new name.
        """
        there = self.table_store.manifest(new)
        if any(old.md5s.get(name) != md5 for name, md5 in there.md5s.items()):
            raise NameTakenError(
                f"{new}: expected no partitions, or those of {old.table}, found others. Nothing was changed. If the new"
                f" ones are right, drop the old table: `headrace drop {self.renaming.old_dataset}"
                f" {old.table.rsplit('/', 1)[1]}`."
            )
        return replace(old, table=new)

    def _computed(self, stage: Stage, old: Manifest) -> Iterator[tuple[str, Manifest]]:
        """The tables of a stage, with new cache keys if only names changed; what they hold already counts first."""
        root, names = self.table_store.root, self.renaming.new_tables
        now = stage_fingerprint(stage, root)
        before = Fingerprint(old.code, old.params, old.libraries, old.result_version)
        difference = find_difference(old, now, self.renaming, root, self.revisions)
        if difference:
            self.differences[stage.table] = difference
            now = before
        keys = _new_keys(stage, before, now)
        moved = {name: _moved(name, entry, names, keys) for name, entry in old.partitions.items()}
        entries = LazyEntries.of(moved).with_schemas(old.schemas)
        there = self.table_store.manifest(stage.table)
        if stage.table in self.renaming.tables and there.md5s:
            entries |= there.entries
            now = Fingerprint(there.code, there.params, there.libraries, there.result_version)
        yield from Plan(stage, now, entries, (), ()).kept_manifests().items()


def _new_keys(stage: Stage, before: Fingerprint, now: Fingerprint) -> Mapping[bytes, bytes]:
    """Old fingerprint key → new one, for the result version and for the earlier ones that entries may be of."""
    versions = {before.result_version, *(change.version for change in CHANGES[stage.verb])}
    return {before.key_at(version): now.key_at(version) for version in sorted(versions)}


def _moved(
    partition: str, entry: PartitionEntry, names: Mapping[str, str], keys: Mapping[bytes, bytes]
) -> PartitionEntry:
    """The entry with new names of tables, and with a new cache key if its own is of a known fingerprint."""
    inputs = {names.get(table, table): md5s for table, md5s in entry.inputs.items()}
    bases = (new for old, new in keys.items() if partition_cache_key(old, partition, entry.inputs) == entry.cache_key)
    base = next(bases, None)
    key = partition_cache_key(base, partition, inputs) if base else entry.cache_key
    companions = {
        names.get(table, table): structs.replace(each, cache_key=key) for table, each in entry.companions.items()
    }
    return structs.replace(entry, cache_key=key, inputs=inputs, companions=companions)
