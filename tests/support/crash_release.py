"""validate, transform and version, on a real git origin and S3 remote; rehearsed by `crashes.py`."""

import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import minimal_dataset
from crash_harness import Seen
from crash_state import VISIBLE, copied, expect_shown, files, remove_locks, whole
from minimal_dataset import bring, sales
from workspaces import git

from headrace.engine.run import plan_stage, run_stage
from headrace.project import graph
from headrace.project.executors import Executor
from headrace.release.release import create_release
from headrace.settings import Settings
from headrace.storage.dvc.cache import read_directory
from headrace.storage.dvc.lock import read_lock, recorded_outs
from headrace.storage.dvc.objects import object_key
from headrace.storage.dvc.remote import Remote
from headrace.storage.git import fetch
from headrace.storage.s3.objects import Object
from headrace.storage.table_store import Lake

TABLES = (minimal_dataset.VALIDATED, minimal_dataset.REJECTED, minimal_dataset.TOTALS)


@dataclass(frozen=True)
class Place:
    """One workspace with its origin, and a prefix of the remote of its own.

    Attributes:
        folder: The two of them.
        remote: The DVC remote's options; its `url` is the bucket.
        commit: `local`, or `remote` where partitions go straight to the remote.
    """

    folder: Path
    remote: dict[str, str]
    commit: str = "local"

    @property
    def root(self) -> Path:
        """The workspace."""
        return self.folder / "workspace"

    @property
    def lake(self) -> Lake:
        """Its tables, read afresh."""
        return Lake.at(self.root, passes_on=self.commit == "remote")

    def begin(self) -> None:
        """An empty workspace and its origin."""
        self.root.mkdir(parents=True)
        git(self.folder, "init", "--quiet", "--bare", "--initial-branch", "main", "origin.git")
        git(self.root, "init", "--quiet", "--initial-branch", "main")
        git(self.root, "remote", "add", "origin", "../origin.git")
        (self.root / ".gitignore").write_text(".dvc/\n.headrace/\n/data/*/*/?*\n!/data/*/*/?*.dvc\n")
        self.configure()
        git(self.root, "add", "--all")
        git(self.root, "commit", "--quiet", "--message", "Begin")
        git(self.root, "push", "--quiet", "origin", "main")

    def configure(self) -> None:
        """Point the workspaces at their prefix of the remote."""
        lines = "".join(f"{name} = {value}\n" for name, value in self.remote.items() if name != "url")
        url = f"url = {self.remote['url']}/{self.folder.name}"
        for workspace in self.folder.glob("*/.git"):
            (workspace.with_name(".dvc")).mkdir(exist_ok=True)
            text = f"[core]\nremote = storage\n['remote \"storage\"']\n{url}\n{lines}"
            workspace.with_name(".dvc").joinpath("config").write_text(text)

    def copied(self, name: str) -> "Place":
        """The same state, elsewhere, objects of the remote included."""
        other = type(self)(self.folder.with_name(name), self.remote, self.commit)
        copied(self.folder, name)
        other.configure()
        bucket = Remote.of(self.root).bucket

        def take(found: Object) -> None:
            bucket.write(f"{other.folder.name}/{found.key.partition('/')[2]}", bucket.read(found))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(take, bucket.list(f"{self.folder.name}/")))
        return other

    def build(self) -> None:
        """Bring every table up to date and release them."""
        run_stages(self)
        create_release(minimal_dataset.DATASET, self.lake)

    def named(self, revision: str) -> set[str]:
        """Every object that a release names."""
        lists = {out["md5"] for out in recorded_outs(self.root, revision).values()}
        return lists | {name for one in lists for name in read_directory(self.lake.cache, one).values()}


@dataclass(frozen=True)
class Release(Place):
    """The case of a release."""

    def run(self) -> None:
        """As `Case`."""
        self.build()

    def seen(self) -> Seen:
        """As `Case`: each table is whole, and no tag names what is not on the remote."""
        fetch(self.root)
        expect_on_remote(self, git(self.root, "tag", "--list").split())
        # Whatever commit the release is, it is one step for who looks at the origin.
        return whole(self.lake, TABLES) | {"origin": self.released()}

    def shown(self) -> Seen:
        """As `Case`."""
        return files(self.root, *VISIBLE) | {"origin": self.released()}

    def released(self) -> tuple[str, ...]:
        """Lock and tags that everybody sees."""
        tags = git(self.root, "ls-remote", "--tags", "--refs", "origin").split()[1::2]
        return git(self.folder, "--git-dir", "origin.git", "show", "main:dvc.lock"), *tags

    def rival(self) -> None:
        """As `Contested`: a colleague releases another correction, from a clone."""
        theirs = self.theirs
        bring(theirs.lake, {"2026-01-03": minimal_dataset.day(3, amount=11)})
        theirs.build()

    @property
    def theirs(self) -> "Release":
        """The colleague's place: another clone, the same origin and remote."""
        return Theirs(self.folder, self.remote, self.commit)

    def settled(self, *, first: bool, second: bool) -> None:
        """As `Contested`: the origin has the release of one of them, whole; who was refused can rebase and go on."""
        assert first != second, "one of them releases, and the other is told that it came late"
        fetch(self.root)
        expect_on_remote(self, git(self.root, "tag", "--list").split())
        late = self.theirs if first else self
        won = self if first else self.theirs
        assert self.released()[1:] == ("refs/tags/tiny/1", "refs/tags/tiny/2")
        assert read_lock(late.root, "tiny/2") == read_lock(won.root)
        git(late.root, "reset", "--quiet", "--hard", "origin/main")
        late.build()
        assert self.released()[-1] == "refs/tags/tiny/3"


@dataclass(frozen=True)
class Stages(Release):
    """The case of validate and transform in one workspace, out of which somebody removes the locks."""

    def run(self) -> None:
        """As `Case`."""
        run_stages(self)

    def rival(self) -> None:
        """As `Contested`: other raw rows came, and are brought up to date."""
        remove_locks(self.root)
        bring(self.lake, {"2026-01-03": minimal_dataset.day(3, amount=11)})
        run_stages(self)

    def settled(self, *, first: bool, second: bool) -> None:  # noqa: ARG002  it may have been done before
        """As `Contested`: the tables are what today's code makes of today's rows, and so are the files."""
        lake = self.lake
        assert second
        assert all(plan_stage(stage, lake).is_empty for stage in graph.dataset_stages(minimal_dataset.DATASET))
        for table in TABLES:
            expect_shown(lake, table)


@dataclass(frozen=True)
class Theirs(Release):
    """The same origin and remote, from another clone."""

    @property
    def root(self) -> Path:
        """The workspace."""
        return self.folder / "theirs"


def run_stages(place: Place) -> None:
    """Bring every table up to date."""
    lake, execute = place.lake, Executor(Settings(workspace=place.root))
    for stage in graph.dataset_stages(minimal_dataset.DATASET):
        run_stage(stage, lake, execute)


def expect_on_remote(place: Place, tags: Iterable[str]) -> None:
    """Every object that a tag names is there."""
    remote = Remote.of(place.root)
    wanted = sorted({name for tag in tags for name in place.named(tag)})
    with ThreadPoolExecutor(8) as pool:
        there = pool.map(lambda name: remote.bucket.head(remote.key(name)), wanted)
    lost = [object_key(name) for name, found in zip(wanted, there, strict=True) if found is None]
    assert not lost, f"tags name what is not on the remote: {lost}"


@dataclass(frozen=True)
class Places:
    """A place that is copied for each case."""

    template: Place

    def case(self, name: str) -> Place:
        """As `Scenario`."""
        return self.template.copied(name)

    def over(self, name: str) -> None:
        """As `Scenario`."""
        shutil.rmtree(self.template.folder.with_name(name))


@dataclass(frozen=True)
class Releases(Places):
    """Three days released; then one is corrected, two come, one goes. The new days repeat keys of earlier ones."""

    template: Release

    def prepare(self) -> None:
        """As `Scenario`."""
        self.template.begin()
        bring(self.template.lake, sales(1, 2, 3))
        self.template.build()
        git(self.template.folder, "clone", "--quiet", "origin.git", "theirs")
        git(self.template.theirs.root, "remote", "set-url", "origin", "../origin.git")
        self.template.configure()
        corrected = minimal_dataset.day(2, amount=7)
        more = {
            "2026-01-02": corrected + "2026-01-02T13:00:00Z,east,-5\n",
            "2026-01-04": minimal_dataset.day(4) + corrected,
            "2026-01-05": minimal_dataset.day(4) + minimal_dataset.day(5),
        }
        bring(self.template.lake, more, drop=("2026-01-01",))


def scenario(folder: Path, remote: dict[str, str], commit: str, *, only: str = "") -> Releases:
    """The rehearsal of a release, or of the stages before it."""
    kind = Stages if only == "stages" else Release
    return Releases(kind(folder / "template", remote, commit))
