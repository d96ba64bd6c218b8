"""The tables of a dataset at a git revision or in the workspace, and the releases that contain a partition."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from headrace.errors import HeadraceError
from headrace.release.branches import list_releases
from headrace.storage import git
from headrace.storage.dvc.cache import read_directory
from headrace.storage.dvc.lock import read_lock, recorded_outs
from headrace.storage.files import parse_yaml
from headrace.storage.manifest import Manifest
from headrace.storage.partition_names import OBJECT_SEPARATOR, partition_of
from headrace.storage.pruned_releases import check_not_pruned
from headrace.storage.table_store import TableStore


class UnknownRevisionError(HeadraceError):
    """There is no such git revision or release."""


class UnknownTableError(HeadraceError):
    """There is no such table or partition."""


@dataclass(frozen=True)
class DatasetRevision:
    """The tables of a dataset as a git revision records them, or as they are in the workspace.

    Attributes:
        table_store: The workspace's tables.
        dataset: Name of the dataset.
        revision: A git revision, for example a release; None for the workspace.
        commit: The commit of the revision; for the workspace, HEAD.
    """

    table_store: TableStore
    dataset: str
    revision: str | None = None
    commit: str = ""
    _manifests: dict[str, Manifest] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, table_store: TableStore, dataset: str, revision: str | None = None) -> "DatasetRevision":
        """The tables at `revision`, by default those of the workspace.

        Raises:
            PrunedReleaseError: The revision is a release that was pruned.
            UnknownRevisionError: Git does not know the revision.
            UnknownTableError: It has no table of the dataset.
        """
        if revision:
            check_not_pruned(table_store.root, revision)
        try:
            commit = git.commit_of(table_store.root, revision) if revision else git.head(table_store.root)
        except git.GitError:
            raise UnknownRevisionError(
                f"{revision} is not a revision of {table_store.root}. Releases of {dataset} there:"
                f" {format_names(list_releases(table_store, dataset))}. Run `git fetch --tags` to get those of others."
            ) from None
        opened = cls(table_store, dataset, revision, commit)
        if not opened.table_names:
            raise UnknownTableError(
                f"{opened.label} has no table of a dataset {dataset!r}. Releases of it:"
                f" {format_names(list_releases(table_store, dataset))}. `headrace run {dataset}` computes its"
                " tables here."
            )
        return opened

    @property
    def label(self) -> str:
        """The revision or the workspace, for messages."""
        return self.revision or f"The workspace {self.table_store.root}"

    @cached_property
    def directory_md5s(self) -> dict[str, str]:
        """Table → md5 of its directory object, for the tables that are recorded in git."""
        outs = recorded_outs(self.table_store.root, self.revision)
        tables = {path.removeprefix("data/"): out["md5"] for path, out in outs.items()}
        return {table: md5 for table, md5 in tables.items() if table.split("/")[1:2] == [self.dataset]}

    @cached_property
    def table_names(self) -> tuple[str, ...]:
        """Every table, recorded or not."""
        unrecorded = () if self.revision else self.table_store.tables(self.dataset)
        return tuple(sorted({*self.directory_md5s, *unrecorded}))

    def manifest(self, table: str) -> Manifest:
        """The table's manifest; an empty one if there is no such table."""
        if table not in self._manifests:
            self._manifests[table] = self._read_manifest(table)
        return self._manifests[table]

    def _read_manifest(self, table: str) -> Manifest:
        visible = None if self.revision else self.table_store.visible_manifest(table)
        if visible or table not in self.directory_md5s:
            return visible or Manifest(table)
        return self.table_store.manifest_of_directory(self.directory_md5s[table]) or Manifest(table)

    def resolve_table(self, name: str) -> str:
        """The full name of a table, given that, `<state>/<name>`, or the bare name if only one state has it.

        Raises:
            UnknownTableError: No table has the name, or several have.
        """
        state, _, bare_name = name.partition("/")
        exact = [table for table in self.table_names if table in (name, f"{state}/{self.dataset}/{bare_name}")]
        matches = exact or [table for table in self.table_names if table.rsplit("/", 1)[-1] == name]
        if len(matches) != 1:
            choices = ", ".join(matches or self.table_names).replace(f"/{self.dataset}/", "/")
            problem = "is ambiguous" if matches else "is not a table of it"
            raise UnknownTableError(
                f"{self.label}, dataset {self.dataset}: {name} {problem}. Choose one of: {choices}."
            )
        return matches[0]


@dataclass(frozen=True)
class ReleaseHistory:
    """Which releases of a dataset contain a partition. Reads directory objects only, and each of them once."""

    table_store: TableStore
    dataset: str
    _directories: dict[str, Mapping[str, str]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def releases(self) -> list[str]:
        """Every release, oldest first."""
        return list_releases(self.table_store, self.dataset)

    def releases_with(self, table: str, partition: str, md5: str | None = None) -> Iterator[str]:
        """The releases, newest first, that have the partition; with `md5`, those that have it with these bytes.

        An object of a partition counts under whatever name its entry has there.
        """
        names = tuple(f"{partition_of(partition)}{end}" for end in (".", OBJECT_SEPARATOR))
        for release in reversed(self.releases):
            md5s = (found for name, found in self._files(release, table).items() if name.startswith(names))
            if any(md5 in (None, found) for found in md5s):
                yield release

    def _files(self, release: str, table: str) -> Mapping[str, str]:
        md5 = self._directory_md5(release, table)
        if md5 and md5 not in self._directories:
            self._directories[md5] = read_directory(self.table_store.cache, md5)
        return self._directories[md5] if md5 else {}

    def _directory_md5(self, release: str, table: str) -> str:
        """From the table's `.dvc` file (raw tables) or from `dvc.lock`; empty if it is in neither."""
        root = self.table_store.root
        if pointer := git.show(root, release, f"data/{table}.dvc"):
            return str(parse_yaml(pointer)["outs"][0]["md5"])
        outs = (out for stage in read_lock(root, release)["stages"].values() for out in stage.get("outs", ()))
        return next((str(out["md5"]) for out in outs if out["path"] == f"data/{table}"), "")


def format_names(names: Sequence[str], none: str = "none") -> str:
    """Up to eight names; of more, the first, the last and their number."""
    if len(names) > 8:  # noqa: PLR2004  fits a line
        return f"{names[0]} … {names[-1]} ({len(names):,})"
    return ", ".join(names) or none
