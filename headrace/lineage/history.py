"""The tables of a dataset at one revision, or as the workspace shows them; and what each release holds of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from headrace.errors import HeadraceError
from headrace.release.release import list_releases
from headrace.storage import git
from headrace.storage.dvc.cache import read_directory
from headrace.storage.dvc.lock import read_lock, recorded_outs
from headrace.storage.files import parse_yaml
from headrace.storage.manifest import MANIFEST, Manifest
from headrace.storage.table_store import Lake


class UnknownPlaceError(HeadraceError):
    """There is no such revision, table or partition."""


@dataclass(frozen=True)
class Tables:
    """The tables of a dataset, as the workspace shows them or as a git revision records them.

    Attributes:
        lake: The workspace.
        dataset: The dataset's name.
        revision: A git revision, for example a release; None for the workspace.
        commit: The commit it names; that of the workspace is what its tables stand on.
    """

    lake: Lake
    dataset: str
    revision: str | None = None
    commit: str = ""
    _manifests: dict[str, Manifest] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def at(cls, lake: Lake, dataset: str, revision: str | None = None) -> "Tables":
        """The tables at `revision`.

        Raises:
            UnknownPlaceError: Git does not know it, or it has no table of that dataset.
        """
        try:
            commit = git.commit_of(lake.root, revision) if revision else git.head(lake.root)
        except git.GitError:
            raise UnknownPlaceError(
                f"{revision} is no revision of {lake.root}. Releases of {dataset} there:"
                f" {spoken(list_releases(lake, dataset))}. `git fetch --tags` brings those of others."
            ) from None
        found = cls(lake, dataset, revision, commit)
        if not found.names:
            raise UnknownPlaceError(
                f"{found.where} has no table of a dataset {dataset!r}. Releases of it:"
                f" {spoken(list_releases(lake, dataset))}; `headrace run {dataset}` makes tables here."
            )
        return found

    @property
    def where(self) -> str:
        """The place, for people."""
        return self.revision or f"The workspace {self.lake.root}"

    @cached_property
    def outs(self) -> dict[str, str]:
        """Table → md5 of its folder's list, for those that are recorded."""
        found = recorded_outs(self.lake.root, self.revision)
        tables = {path.removeprefix("data/"): out["md5"] for path, out in found.items()}
        return {table: md5 for table, md5 in tables.items() if table.split("/")[1:2] == [self.dataset]}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every table."""
        shown = () if self.revision else self.lake.tables(self.dataset)
        return tuple(sorted({*self.outs, *shown}))

    def manifest(self, table: str) -> Manifest:
        """What the table holds; nothing at all if there is none."""
        if table not in self._manifests:
            self._manifests[table] = self._manifest(table)
        return self._manifests[table]

    def _manifest(self, table: str) -> Manifest:
        if not self.revision and (self.lake.folder(table) / MANIFEST).exists():
            return self.lake.manifest(table)
        if table not in self.outs:
            return Manifest(table)
        cache = self.lake.cache
        return Manifest.from_bytes(cache.fetch(read_directory(cache, self.outs[table])[MANIFEST]).read_bytes())

    def table(self, given: str) -> str:
        """The full name of a table, given that, `<state>/<name>`, or its name alone if no other state has one.

        Raises:
            UnknownPlaceError: It is none, or several.
        """
        state, _, name = given.partition("/")
        exact = [table for table in self.names if table in (given, f"{state}/{self.dataset}/{name}")]
        hits = exact or [table for table in self.names if table.rsplit("/", 1)[-1] == given]
        if len(hits) != 1:
            known = ", ".join(hits or self.names).replace(f"/{self.dataset}/", "/")
            seen = "may be one of several" if hits else "is no table of it"
            raise UnknownPlaceError(f"{self.where}, dataset {self.dataset}: {given} {seen}. Say which: {known}.")
        return hits[0]


@dataclass(frozen=True)
class Past:
    """What the releases of a dataset hold; their folders' lists alone are read."""

    lake: Lake
    dataset: str
    _lists: dict[str, Mapping[str, str]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def releases(self) -> list[str]:
        """Oldest first."""
        return list_releases(self.lake, self.dataset)

    def holding(self, table: str, partition: str, md5: str | None = None) -> Iterator[str]:
        """The releases, newest first, whose partition has these bytes; or that have it, whatever its bytes."""
        for release in reversed(self.releases):
            found = (seen for name, seen in self._list(release, table).items() if name.startswith(f"{partition}."))
            if any(md5 in (None, seen) for seen in found):
                yield release

    def _list(self, release: str, table: str) -> Mapping[str, str]:
        md5 = self._recorded(release, table)
        if md5 and md5 not in self._lists:
            self._lists[md5] = read_directory(self.lake.cache, md5)
        return self._lists[md5] if md5 else {}

    def _recorded(self, release: str, table: str) -> str:
        """The md5 of the table's list: of its own `.dvc` file, or in `dvc.lock`; empty if it is in neither."""
        root = self.lake.root
        if pointer := git.show(root, release, f"data/{table}.dvc"):
            return str(parse_yaml(pointer)["outs"][0]["md5"])
        outs = (out for stage in read_lock(root, release)["stages"].values() for out in stage.get("outs", ()))
        return next((str(out["md5"]) for out in outs if out["path"] == f"data/{table}"), "")


def spoken(names: Sequence[str], none: str = "none") -> str:
    """All of a few names; of many the first, the last and how many they are."""
    if len(names) > 8:  # noqa: PLR2004  what a line holds
        return f"{names[0]} … {names[-1]} ({len(names):,})"
    return ", ".join(names) or none
