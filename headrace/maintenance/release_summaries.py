"""What releases hold and who needs them: sizes, rows, what is online, pins, lock files of training sets."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from headrace.dataset import Dataset
from headrace.errors import HeadraceError, NotConfiguredError
from headrace.guards.finding import Acceptance
from headrace.maintenance.added_objects import Outs, commit_outs, compare_outs
from headrace.maintenance.record_cache import RecordCache
from headrace.maintenance.released_readers import find_readers
from headrace.maintenance.training_set_locks import find_locks
from headrace.release.branches import Branches, list_releases
from headrace.release.guards import read_acceptances
from headrace.release.retention import ReleasePoint, apply_policy, declared_policy
from headrace.settings import Settings
from headrace.storage import git
from headrace.storage.dvc.cache import read_directory
from headrace.storage.manifest import FORMAT_1_FILE, HEAD_FILE
from headrace.storage.pruned_releases import ReleasedTable, TableTotals, Tombstone, read_tombstones
from headrace.storage.table_store import TableStore

FOLDER = Path(".headrace/release-summaries")

MOST_READERS = 3
"""Readers of a release that are named: one is enough to keep it."""


@dataclass(frozen=True)
class ReleaseSize(TableTotals):
    """What a release holds of its dataset.

    Attributes:
        tables: Table → its hashes, rows and bytes.
        new_bytes: Bytes of objects that the release before does not have; None if an object could not be read.
    """

    tables: Mapping[str, ReleasedTable]
    new_bytes: int | None


@dataclass(frozen=True)
class ReleaseNeeds:
    """Who needs which releases.

    Attributes:
        online: The release that is online; empty if none is.
        online_error: Why that is unknown; empty if it is known.
        locks: Release → lock files of training sets that name it.
        readers: Release → what reads its tables from other datasets: their releases, branches and the workspace.
    """

    online: str
    online_error: str
    locks: Mapping[str, Sequence[str]]
    readers: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def find(cls, dataset: Dataset, table_store: TableStore, settings: Settings) -> "ReleaseNeeds":
        """Those of a dataset, as far as they are known here."""
        online, error = "", ""
        try:
            online = online_release(dataset, settings)
        except HeadraceError as found:
            error = str(found)
        locks = find_locks(table_store.root, dataset.name, Branches.configured(table_store.root))
        return cls(online, error, locks, find_readers(table_store, dataset.name))

    def reasons(self, release: str) -> list[str]:
        """Why a release is kept besides the policy."""
        online = ["online"] if release == self.online else []
        reading = [f"read by {name}" for name in self.readers.get(release, ())[:MOST_READERS]]
        return online + [f"lock {path}" for path in self.locks.get(release, ())] + reading


@dataclass(frozen=True)
class ReleaseSummary:
    """One line of `headrace releases`.

    Attributes:
        point: The release.
        size: What it holds.
        is_online: Whether it is online; None if that is unknown.
        locks: Lock files of training sets that need it.
        pinned: Why the policy pins it; empty if it does not.
        kept_by: Everything that keeps it; None without a retention policy, which keeps everything.
        accepted: What guards found in it, and who let it pass.
    """

    point: ReleasePoint
    size: ReleaseSize
    is_online: bool | None
    locks: Sequence[str] = ()
    pinned: str = ""
    kept_by: Sequence[str] | None = None
    accepted: Sequence[Acceptance] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "release": self.point.name,
            "released_at": self.point.time,
            "commit": self.point.commit,
            "rows": self.size.rows,
            "bytes": self.size.bytes,
            "new_bytes": self.size.new_bytes,
            "online": self.is_online,
            "pinned": self.pinned or None,
            "training_set_locks": list(self.locks),
            "kept_by": None if self.kept_by is None else list(self.kept_by),
            "accepted": [each.to_dict() for each in self.accepted],
        }


@dataclass(frozen=True)
class ReleaseListing:
    """The releases of a dataset.

    Attributes:
        releases: Those that are there, oldest first.
        tombstones: Those that were pruned, oldest first.
        online_error: Why it is unknown what is online; empty if it is known.
    """

    releases: Sequence[ReleaseSummary]
    tombstones: Sequence[Tombstone] = field(default=())
    online_error: str = ""


def list_release_summaries(dataset: Dataset, table_store: TableStore, settings: Settings) -> ReleaseListing:
    """Every release of a dataset that the workspace has fetched, and the pruned ones.

    Reads the heads of manifests, and only of releases that were not read before.
    """
    points = release_points(table_store.root, dataset.name, list_releases(table_store, dataset.name))
    needs = ReleaseNeeds.find(dataset, table_store, settings)
    policy = declared_policy(dataset) if dataset.retention else None
    rules = apply_policy(policy, points) if policy else {}
    sizes, accepted = read_sizes(table_store, dataset.name, points), read_acceptances(table_store.root, dataset.name)
    releases = [
        ReleaseSummary(
            point,
            sizes[point.name],
            None if needs.online_error else point.name == needs.online,
            needs.locks.get(point.name, ()),
            policy.pinned.get(point.name, "") if policy else "",
            [*rules[point.name], *needs.reasons(point.name)] if policy else None,
            accepted.get(point.name, ()),
        )
        for point in points
    ]
    return ReleaseListing(releases, [*read_tombstones(table_store.root, dataset.name).values()], needs.online_error)


def online_release(dataset: Dataset, settings: Settings) -> str:
    """The release that is online; empty if nothing is, or if the dataset is never published.

    Raises:
        NotConfiguredError: The settings name no registry, so it is unknown.
        RegistryUnavailableError: The registry's database does not answer.
    """
    if not _is_published(dataset):
        return ""
    if not settings.feast_registry_url:
        raise NotConfiguredError(
            f"{dataset.name} declares the service {dataset.service}, and FEAST_REGISTRY_URL is not set, so it is"
            " unknown which release is online. Set it to the registry that publishes use (`.env.example` shows one)."
        )
    from headrace.feast.publish_log import PublishLog  # noqa: PLC0415  most commands need no database

    with closing(PublishLog.at(settings.feast_registry_url, dataset.name)) as publish_log:
        online = publish_log.online()
    return str(online.report["release"]) if online else ""


@contextmanager
def pause_switches(dataset: Dataset, settings: Settings) -> Iterator[None]:
    """What is online stays so until the block ends: a publish waits before its switch.

    Raises:
        RegistryUnavailableError: The registry's database does not answer.
    """
    if not (_is_published(dataset) and settings.feast_registry_url):
        yield
        return
    from headrace.feast.publish_log import PublishLog  # noqa: PLC0415  most commands need no database

    with closing(PublishLog.at(settings.feast_registry_url, dataset.name)) as log, log.pause_switches():
        yield


def _is_published(dataset: Dataset) -> bool:
    return bool(dataset.service and dataset.features)


def release_points(root: Path, dataset: str, releases: Iterable[str]) -> list[ReleasePoint]:
    """Commit and time of releases, from their tags."""
    form = "%(refname:lstrip=2) %(creatordate:unix) %(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end)"
    lines = git.git(root, "for-each-ref", f"--format={form}", f"refs/tags/{dataset}/").splitlines()
    tags = {name: (commit, int(time)) for name, time, commit in (line.split(" ") for line in lines)}
    return [ReleasePoint(name, tags[name][0], datetime.fromtimestamp(tags[name][1], UTC)) for name in releases]


def read_sizes(table_store: TableStore, dataset: str, points: Sequence[ReleasePoint]) -> dict[str, ReleaseSize]:
    """Release → what it holds, and how much of that is new since the release before it in `points`."""
    commits = [point.commit for point in points]
    sizes = {
        point.name: ReleaseSize(
            read_tables(table_store, dataset, point.commit), _read_new_bytes(table_store, dataset, before, point)
        )
        for before, point in zip(["", *commits], points, strict=False)
    }
    pairs = {f"{before}-{commit}" for before, commit in pairwise(["", *commits])}
    _records(table_store, dataset).retain({*commits, *pairs})
    return sizes


def read_tables(table_store: TableStore, dataset: str, commit: str) -> dict[str, ReleasedTable]:
    """Table → its hashes, rows and bytes, for the tables of a dataset that a commit records."""
    records = _records(table_store, dataset)
    tables = records.read(commit, dict[str, ReleasedTable])
    if tables is None:
        outs = _own_outs(table_store, dataset, commit)
        tables = {path.removeprefix("data/"): _describe_table(table_store, out) for path, out in sorted(outs.items())}
        if all(table.manifest for table in tables.values()):
            records.write(commit, tables)
    return tables


def _read_new_bytes(table_store: TableStore, dataset: str, before: str, point: ReleasePoint) -> int | None:
    records, key = _records(table_store, dataset), f"{before}-{point.commit}"
    known = records.read(key, int)
    if known is not None:
        return known
    old, new = (_own_outs(table_store, dataset, commit) for commit in (before, point.commit))
    added = compare_outs(table_store.cache, old, new)
    if not added.is_complete:
        return None
    new_bytes = sum(item.size or 0 for item in added.objects.values())
    records.write(key, new_bytes)
    return new_bytes


def _records(table_store: TableStore, dataset: str) -> RecordCache:
    return RecordCache(table_store.root / FOLDER / dataset)


def _own_outs(table_store: TableStore, dataset: str, commit: str) -> Outs:
    outs = commit_outs(table_store, commit)
    return {path: out for path, out in outs.items() if path.split("/")[:3:2] == ["data", dataset]}


def _describe_table(table_store: TableStore, out: Mapping[str, Any]) -> ReleasedTable:
    """A table from its output entry and the head of its manifest; without rows if that cannot be read."""
    md5, size = str(out["md5"]), int(out.get("size", 0))
    try:
        files = read_directory(table_store.cache, md5)
        manifest = table_store.manifest_of_directory(md5)
    except HeadraceError:
        return ReleasedTable(md5, None, 0, size)
    head = files.get(HEAD_FILE) or files.get(FORMAT_1_FILE)
    if manifest is None:
        return ReleasedTable(md5, head, 0, size)
    chunks = manifest.entries.chunks
    rows = sum(chunk.reference.rows for chunk in chunks) if chunks else manifest.rows
    return ReleasedTable(md5, head, rows, size)
