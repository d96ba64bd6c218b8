"""A table of another dataset at a release, as a source: its entries become those of a raw table, and no byte is copied.

The raw table's manifest names the table and the release that it was read from. A newer release moves it only if the
partitions differ, or if the release that it names is gone.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from msgspec.structs import replace

from headrace.dataset import HISTORY_COLUMNS, ReleaseSource
from headrace.errors import HeadraceError
from headrace.partitions import Daily, Hourly, Monthly, Partitions, Static, Unpartitioned, Yearly, interval_of
from headrace.settings import load_settings
from headrace.storage import git, git_remote
from headrace.storage.dvc.lock import recorded_outs
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.pruned_releases import check_not_pruned, kept_releases
from headrace.storage.released_inputs import ReleasedInput
from headrace.storage.retired_tables import FILE as RETIRED_FILE
from headrace.storage.retired_tables import parse_retired_tables
from headrace.storage.table_store import TableStore
from headrace.text import closest

LATEST = "latest"


class UnknownReleasedTableError(HeadraceError):
    """The other dataset has no release, no such release, or none with the table."""


class NoReleaseError(UnknownReleasedTableError):
    """The other dataset has no release."""


@dataclass(frozen=True)
class ReleasedTableListing:
    """A table of a release. Implements `SourceListing`.

    Attributes:
        source: The source.
        manifest: The table as the release has it.
        released: Table and release.
    """

    source: ReleaseSource
    manifest: Manifest
    released: ReleasedInput
    unmatched: tuple[str, ...] = ()
    invalid: Mapping[str, str] = field(default_factory=dict)
    waiting: tuple[str, ...] = ()
    errors: Mapping[str, HeadraceError] = field(default_factory=dict)
    always_read: frozenset[str] = frozenset()
    columns: tuple[str, ...] = ()
    libraries: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def resolve(cls, table_store: TableStore, dataset: str, source: ReleaseSource) -> "ReleasedTableListing":
        """The table at the release that the input names, as the git remote has releases now.

        Args:
            table_store: The workspace's tables.
            dataset: The dataset that reads it.
            source: The table.

        Raises:
            UnknownReleasedTableError: There is no such release, or no such table in it.
            PrunedReleaseError: The release was pruned.
            TransientError: The git remote does not answer.
        """
        root = table_store.root
        if git.has_remote(root):
            settings = load_settings(root)
            git_remote.fetch(root, settings.release_branch or settings.code_branch)
        released = find_released(root, dataset, source)
        manifest = table_store.recorded_manifest(released.table, released.release) or Manifest(released.table)
        _check_partitions(dataset, source, released.release, manifest)
        check_is_no_history(dataset, source, released.release, manifest)
        return cls(source, manifest, released)

    @property
    def description(self) -> str:
        return f"{self.released.table} at {self.released.release}"

    @cached_property
    def cache_keys(self) -> Mapping[str, str]:
        return self.manifest.md5s

    def params_after(self, table_store: TableStore, earlier: Manifest) -> Mapping[str, str]:
        """What the raw table's manifest says about where it is from.

        A table that is as it was goes on naming its release, if that is there: nothing has changed.
        """
        before = ReleasedInput.of_manifest(earlier)
        is_same = before is not None and before.table == self.released.table and earlier.md5s == self.manifest.md5s
        if before and is_same and self.source.read.release == LATEST:
            kept = kept_releases(table_store.root, self.source.read.other_dataset)
            return (before if before.release in kept else self.released).to_params()
        return self.released.to_params()

    def amount_to_read(self, partitions: Iterable[str]) -> int:
        """Rows, none of which is read."""
        return sum(self.manifest.entries[name].rows or 0 for name in partitions)

    def read(self, partitions: Iterable[str]) -> Iterator[tuple[str, PartitionEntry | HeadraceError | None]]:
        yield from self.entries(partitions)

    def entries(self, partitions: Iterable[str]) -> Iterator[tuple[str, PartitionEntry]]:
        """Partition → entry of the raw table."""
        for name in partitions:
            entry = self.manifest.entries[name]
            yield name, replace(entry, cache_key=entry.md5, inputs={}, metadata={}, companions={}, objects=())

    def address(self, partition: str) -> str:
        return f"{self.description}, {partition}"


def find_released(root: Path, dataset: str, source: ReleaseSource) -> ReleasedInput:
    """The table and the release that an input names, of the releases that the workspace has fetched.

    Raises:
        NoReleaseError: The other dataset has no release.
        UnknownReleasedTableError: There is no such release, or no such table in it.
        PrunedReleaseError: The release was pruned.
    """
    release = _find_release(root, dataset, source)
    table = source.read.named_table.replace("/", f"/{source.read.other_dataset}/", 1)
    if f"data/{table}" not in recorded_outs(root, release):
        raise _no_table(root, dataset, source, release, table)
    return ReleasedInput(table, release)


def _find_release(root: Path, dataset: str, source: ReleaseSource) -> str:
    wanted, other = source.read.release, source.read.other_dataset
    releases = kept_releases(root, other)
    if not releases:
        raise NoReleaseError(
            f"{dataset} reads {source.read.table} at release={wanted!r}, and {other} has no release yet. Nothing was"
            f" changed. `headrace run {other} --release` makes the first one; then run the same command again."
        )
    if wanted == LATEST:
        return releases[-1]
    if wanted not in releases:
        check_not_pruned(root, wanted)
        raise UnknownReleasedTableError(
            f"{dataset} reads {source.read.table} at release={wanted!r}: expected one of {releases[0]} to"
            f" {releases[-1]}, found no such release. Correct the input; `headrace releases {other}` lists them."
        )
    return wanted


def _no_table(root: Path, dataset: str, source: ReleaseSource, release: str, table: str) -> UnknownReleasedTableError:
    other = source.read.other_dataset
    text = git.show(root, release, RETIRED_FILE)
    retired = parse_retired_tables(text).get(table) if text else None
    outs = (path.split("/") for path in recorded_outs(root, release))
    names = sorted(f"{state}/{name}" for _, state, its, name in (it for it in outs if len(it) == 4) if its == other)  # noqa: PLR2004
    why = (
        f"it was {retired}"
        if retired
        else f"the release has none of that name{closest(source.read.named_table, names)}"
    )
    new = retired.renamed_to.replace(f"/{other}/", "/", 1) if retired and retired.renamed_to else ""
    fix = f"Read {f'{other}:{new}'!r} instead" if new else "Correct the input, or remove it"
    return UnknownReleasedTableError(
        f"{dataset} reads {source.read.table}, and there is no {table} in {release}: {why}. Nothing was changed. {fix}."
        f" Tables of {release}: {', '.join(names)}."
    )


def _check_partitions(dataset: str, source: ReleaseSource, release: str, manifest: Manifest) -> None:
    """Compare the partitions of the table with how the input says that it is cut.

    Raises:
        UnknownReleasedTableError: They are cut otherwise; the message has the declaration to write.
    """
    strange = [name for name in manifest.md5s if not _is_cut(source.partitioning, name, manifest)]
    if not strange:
        return
    grains: tuple[Partitions, ...] = (Hourly(), Daily(), Monthly(), Yearly(), Unpartitioned())
    fits = next((it for it in grains if all(_is_cut(it, name, manifest) for name in manifest.md5s)), None)
    other = source.read.other_dataset
    known = f"`partitions={type(fits).__name__}()`" if fits else f"`partitions=…` as {other} declares it"
    raise UnknownReleasedTableError(
        f"{dataset} reads {source.read.table} at {release}: expected partitions that are each a"
        f" {source.partitioning.label}, found {strange[0]}. Add {known} to the input, then run the same command again."
    )


def check_is_no_history(dataset: str, source: ReleaseSource, release: str, manifest: Manifest) -> None:
    """Check that the table is not a history: its readers would get the changes of their own partitions alone.

    Raises:
        UnknownReleasedTableError: It is.
    """
    if not any({*HISTORY_COLUMNS} <= {field.name for field in schema} for schema in manifest.schemas.values()):
        return
    other = source.read.other_dataset
    raise UnknownReleasedTableError(
        f"{dataset} reads {source.read.table} at {release}, which is a history: a kernel of another dataset would miss"
        f" the changes from before its partition. Nothing was changed. Declare a derived table or a feature table of"
        f" {other} that joins it (`join_as_known`), release {other}, and read that table."
    )


def _is_cut(partitions: Partitions, name: str, manifest: Manifest) -> bool:
    if isinstance(partitions, Static):
        return True
    try:
        interval = interval_of(partitions, name)
    except ValueError:
        return False
    start, end = manifest.entries[name].interval(name)
    return start is None or end is None or (start, end) == (interval.start, interval.end)
