"""Crash cases of `validate`, `transform` and `release`, on a real git origin and S3 remote."""

import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import minimal_dataset
from crash_harness import State
from crash_state import (
    VISIBLE_FOLDERS,
    assert_files_match_manifest,
    copy_workspace,
    hash_files,
    read_intact_tables,
    remove_locks,
)
from minimal_dataset import raw_days, write_raw_partitions
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
from headrace.storage.git_remote import fetch
from headrace.storage.s3.objects import ObjectMeta
from headrace.storage.table_store import TableStore

TABLES = (minimal_dataset.VALIDATED, minimal_dataset.REJECTED, minimal_dataset.TOTALS)


@dataclass(frozen=True)
class GitWorkspace:
    """A workspace with its origin, and its prefix of the DVC remote.

    Attributes:
        folder: The folder of workspace and origin.
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
    def table_store(self) -> TableStore:
        """The workspace's tables, opened again on each access."""
        return TableStore.at(self.root, is_remote_only=self.commit == "remote")

    def create(self) -> None:
        """Create an empty workspace and its origin."""
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

    def copy_to(self, name: str) -> "GitWorkspace":
        """Copy workspace, origin and the objects on the remote to another folder."""
        copy = type(self)(self.folder.with_name(name), self.remote, self.commit)
        copy_workspace(self.folder, name)
        copy.configure()
        bucket = Remote.of(self.root).bucket

        def copy_object(item: ObjectMeta) -> None:
            bucket.write(f"{copy.folder.name}/{item.key.partition('/')[2]}", bucket.read(item))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(copy_object, bucket.list(f"{self.folder.name}/")))
        return copy

    def build_and_release(self) -> None:
        """Bring every table up to date and release them."""
        run_stages(self)
        create_release(minimal_dataset.DATASET, self.table_store)

    def released_objects(self, revision: str) -> set[str]:
        """The md5 of every object of a release."""
        lists = {out["md5"] for out in recorded_outs(self.root, revision).values()}
        return lists | {name for one in lists for name in read_directory(self.table_store.cache, one).values()}


@dataclass(frozen=True)
class ReleaseCase(GitWorkspace):
    """The crash case of `release`."""

    def run(self) -> None:
        self.build_and_release()

    def read_visible_state(self) -> State:
        """Each table is complete, and every object of a tag is on the remote."""
        fetch(self.root)
        assert_tagged_objects_on_remote(self, git(self.root, "tag", "--list").split())
        # For readers of the origin, lock and tags of a release appear in one step.
        return read_intact_tables(self.table_store, TABLES) | {"origin": self.read_origin()}

    def read_final_state(self) -> State:
        return hash_files(self.root, *VISIBLE_FOLDERS) | {"origin": self.read_origin()}

    def read_origin(self) -> tuple[str, ...]:
        """`dvc.lock` and the tags on the origin."""
        tags = git(self.root, "ls-remote", "--tags", "--refs", "origin").split()[1::2]
        return git(self.folder, "--git-dir", "origin.git", "show", "main:dvc.lock"), *tags

    def run_concurrent_writer(self) -> None:
        """Release another correction, from another clone."""
        other_clone = self.other_clone
        write_raw_partitions(other_clone.table_store, {"2026-01-03": minimal_dataset.raw_day(3, amount=11)})
        other_clone.build_and_release()

    @property
    def other_clone(self) -> "ReleaseCase":
        """The case in the other clone of the same origin."""
        return OtherClone(self.folder, self.remote, self.commit)

    def check_consistent(self, *, paused_succeeded: bool, concurrent_succeeded: bool) -> None:
        """The origin has one complete release; the rejected writer can rebase and release."""
        assert paused_succeeded != concurrent_succeeded, "one writer releases, and the other one is rejected"
        fetch(self.root)
        assert_tagged_objects_on_remote(self, git(self.root, "tag", "--list").split())
        rejected = self.other_clone if paused_succeeded else self
        released = self if paused_succeeded else self.other_clone
        assert self.read_origin()[1:] == ("refs/tags/tiny/1", "refs/tags/tiny/2")
        assert read_lock(rejected.root, "tiny/2") == read_lock(released.root)
        git(rejected.root, "reset", "--quiet", "--hard", "origin/main")
        rejected.build_and_release()
        assert self.read_origin()[-1] == "refs/tags/tiny/3"


@dataclass(frozen=True)
class StagesCase(ReleaseCase):
    """The crash case of `validate` and `transform` in one workspace, whose locks somebody removes."""

    def run(self) -> None:
        run_stages(self)

    def run_concurrent_writer(self) -> None:
        """Change raw rows, and bring every table up to date."""
        remove_locks(self.root)
        write_raw_partitions(self.table_store, {"2026-01-03": minimal_dataset.raw_day(3, amount=11)})
        run_stages(self)

    def check_consistent(self, *, paused_succeeded: bool, concurrent_succeeded: bool) -> None:  # noqa: ARG002  the paused run may have finished or not
        """The plan is empty, and the files are those of the manifests."""
        table_store = self.table_store
        assert concurrent_succeeded
        assert all(plan_stage(stage, table_store).is_empty for stage in graph.dataset_stages(minimal_dataset.DATASET))
        for table in TABLES:
            assert_files_match_manifest(table_store, table)


@dataclass(frozen=True)
class OtherClone(ReleaseCase):
    """The same origin and remote, from another clone."""

    @property
    def root(self) -> Path:
        """The workspace."""
        return self.folder / "other_clone"


def run_stages(workspace: GitWorkspace) -> None:
    """Bring every table up to date."""
    table_store, execute = workspace.table_store, Executor(Settings(workspace=workspace.root))
    for stage in graph.dataset_stages(minimal_dataset.DATASET):
        run_stage(stage, table_store, execute)


def assert_tagged_objects_on_remote(workspace: GitWorkspace, tags: Iterable[str]) -> None:
    """Every object of the tags is on the remote."""
    remote = Remote.of(workspace.root)
    md5s = sorted({name for tag in tags for name in workspace.released_objects(tag)})
    with ThreadPoolExecutor(8) as pool:
        heads = pool.map(lambda name: remote.bucket.head(remote.key(name)), md5s)
    missing = [object_key(name) for name, item in zip(md5s, heads, strict=True) if item is None]
    assert not missing, f"objects of tags that are not on the remote: {missing}"


@dataclass(frozen=True)
class CopiedWorkspaceScenario:
    """A workspace that is copied for each case."""

    template: GitWorkspace

    def new_case(self, name: str) -> GitWorkspace:
        return self.template.copy_to(name)

    def remove_case(self, name: str) -> None:
        shutil.rmtree(self.template.folder.with_name(name))


@dataclass(frozen=True)
class ReleaseScenario(CopiedWorkspaceScenario):
    """Three days are released; then one is corrected, two repeat keys of earlier ones, one is deleted."""

    template: ReleaseCase

    def prepare(self) -> None:
        self.template.create()
        write_raw_partitions(self.template.table_store, raw_days(1, 2, 3))
        self.template.build_and_release()
        git(self.template.folder, "clone", "--quiet", "origin.git", "other_clone")
        git(self.template.other_clone.root, "remote", "set-url", "origin", "../origin.git")
        self.template.configure()
        corrected = minimal_dataset.raw_day(2, amount=7)
        more = {
            "2026-01-02": corrected + "2026-01-02T13:00:00Z,east,-5\n",
            "2026-01-04": minimal_dataset.raw_day(4) + corrected,
            "2026-01-05": minimal_dataset.raw_day(4) + minimal_dataset.raw_day(5),
        }
        write_raw_partitions(self.template.table_store, more, drop=("2026-01-01",))


def scenario(folder: Path, remote: dict[str, str], commit: str, *, only: str = "") -> ReleaseScenario:
    """The crash scenario of a release, or of the stages before it."""
    kind = StagesCase if only == "stages" else ReleaseCase
    return ReleaseScenario(kind(folder / "template", remote, commit))
