"""Crash cases: `doctor --repair` on a damaged workspace, `gc` with unreleased objects, `prune`, `rename`, `drop`."""

import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import minimal_dataset
from crash_harness import State
from crash_release import TABLES, CopiedWorkspaceScenario, GitWorkspace, assert_tagged_objects_on_remote, run_stages
from crash_state import VISIBLE_FOLDERS, hash_files, read_intact_tables
from minimal_dataset import raw_days, write_raw_partitions
from workspaces import git

from headrace.dataset import Input, Retention
from headrace.engine.run import plan_stage
from headrace.maintenance.doctor import check_integrity
from headrace.maintenance.drop import drop_tables, find_dropped
from headrace.maintenance.gc import collect_garbage
from headrace.maintenance.integrity import list_objects
from headrace.maintenance.prune import prune
from headrace.maintenance.rename import find_renaming, rename_tables
from headrace.maintenance.stale_files import RWLOCK
from headrace.project import graph
from headrace.release.retired_tables import read_retired_tables
from headrace.settings import Settings
from headrace.storage.dvc.lock import recorded_outs
from headrace.storage.dvc.objects import md5_of
from headrace.storage.git_remote import fetch
from headrace.storage.pruned_releases import read_tombstones
from headrace.storage.table_store import TableStore

LONG_AGO_S = 7200.0


@dataclass(frozen=True)
class RepairCase(GitWorkspace):
    """A workspace that `doctor --repair` repairs."""

    def run(self) -> None:
        done = check_integrity(self.table_store, deep=True, repair=True)
        assert done.ok, done

    def read_visible_state(self) -> State:
        """Each intact object, in the cache and on the remote: none may be lost."""
        hashes = hash_objects(self)
        good = {name: md5 for name, md5 in hashes.items() if name.removesuffix(".dir").endswith(f" {str(md5)[2:]}")}
        read = {name.replace("cache", "read").replace("remote", "read"): md5 for name, md5 in good.items()}
        there = {name: md5 for name, md5 in good.items() if name.startswith("remote")}
        return {**read, **there, **hash_files(self.root, "data")}

    def read_final_state(self) -> State:
        report = check_integrity(self.table_store, deep=True)
        assert report.ok
        assert (list(report.repairs), list(report.cleanups)) == ([], [])
        return self.read_visible_state()


@dataclass(frozen=True)
class CollectionCase(GitWorkspace):
    """A workspace in which `gc` deletes."""

    def run(self) -> None:
        collect_garbage(self.table_store, min_age_hours=0, remote=True, dry_run=False)

    def read_visible_state(self) -> State:
        """Every tag is complete on the remote, whatever else is there."""
        assert_tagged_objects_on_remote(self, git(self.root, "tag", "--list").split())
        return {**hash_objects(self), **hash_files(self.root, "data")}

    def read_final_state(self) -> State:
        done = check_integrity(self.table_store, deep=True, repair=True)
        assert not done.repairs, "only stale files may be left"
        assert done.ok
        return self.read_visible_state()


@dataclass(frozen=True)
class PruneCase(GitWorkspace):
    """A workspace in which `prune` removes two of four releases."""

    def run(self) -> None:
        retention = Retention(keep_last=1, pinned={"tiny/2": "figure 2"})
        settings = Settings(workspace=self.root)
        prune(replace(minimal_dataset.DATASET, retention=retention), self.table_store, settings, dry_run=False)

    def read_visible_state(self) -> State:
        """For readers of the origin, tombstones appear in the step in which the tags go; every tag is complete."""
        tags = git(self.root, "ls-remote", "--tags", "--refs", "origin").split()[1::2]
        assert_tagged_objects_on_remote(self, [tag.removeprefix("refs/tags/") for tag in tags])
        fetch(self.root)
        tip = git(self.root, "rev-parse", "origin/main")
        tombstones = read_tombstones(self.root, "tiny", tip).values()
        known = [(each.release, each.commit, str(each.tables)) for each in tombstones]
        return {"origin": (*tags, *map(str, known)), **hash_files(self.root, "data")}

    def read_final_state(self) -> State:
        assert check_integrity(self.table_store).ok
        here = (git(self.root, "tag"), git(self.root, "status", "--porcelain"))
        followed = git(self.root, "rev-parse", "HEAD") == git(self.root, "rev-parse", "origin/main")
        return {**self.read_visible_state(), "here": (*here, str(followed))}


RENAMED = replace(
    minimal_dataset.DATASET,
    sources=(replace(minimal_dataset.SALES, name="orders"),),
    features=(replace(minimal_dataset.FEATURES, inputs={"sales": Input("validated/orders", lookback=2)}),),
)
NEW_NAMES = {f"{state}/tiny/sales": f"{state}/tiny/orders" for state in ("raw", "validated", "rejected")}


@dataclass(frozen=True)
class RenameCase(GitWorkspace):
    """A workspace in which a source is renamed."""

    def run(self) -> None:
        renaming = find_renaming(RENAMED, "sales", "orders", self.table_store)
        rename_tables(RENAMED, renaming, self.table_store, reason="a test", dry_run=False)

    def read_visible_state(self) -> State:
        """Each table is whole under one of its names, at least."""
        pairs = [*NEW_NAMES.items(), (minimal_dataset.TOTALS, minimal_dataset.TOTALS)]
        for old, new in pairs:
            shown = [table for table in (old, new) if self.table_store.manifest(table).md5s]
            assert shown, f"{old} is gone"
            read_intact_tables(self.table_store, shown[-1:])
        return read_heads(self, *NEW_NAMES, *NEW_NAMES.values(), minimal_dataset.TOTALS)

    def read_final_state(self) -> State:
        assert all(plan_stage(stage, self.table_store).is_empty for stage in graph.dataset_stages(RENAMED))
        return life_cycle_state(self)


@dataclass(frozen=True)
class DropCase(GitWorkspace):
    """A workspace in which the feature table is dropped."""

    def run(self) -> None:
        without = replace(minimal_dataset.DATASET, features=())
        tables = find_dropped(without, "totals", self.table_store)
        drop_tables("tiny", tables, self.table_store, reason="a test", dry_run=False)

    def read_visible_state(self) -> State:
        """The other tables are whole."""
        read_intact_tables(self.table_store, [minimal_dataset.RAW, minimal_dataset.VALIDATED])
        return read_heads(self, minimal_dataset.RAW, *TABLES)

    def read_final_state(self) -> State:
        return life_cycle_state(self)


def read_heads(workspace: GitWorkspace, *tables: str) -> State:
    """Table → its manifest; empty if it has no partition."""
    manifests = {table: workspace.table_store.manifest(table) for table in tables}
    return {table: manifest.to_files().head if manifest.md5s else b"" for table, manifest in manifests.items()}


def life_cycle_state(workspace: GitWorkspace) -> State:
    """Every file that a drop or a rename may leave, but for the time in its record."""
    retired = {table: (it.renamed_to, it.reason) for table, it in read_retired_tables(workspace.root).items()}
    lock = (workspace.root / "dvc.lock").read_bytes()
    return {**hash_files(workspace.root, *VISIBLE_FOLDERS), "retired": retired, "lock": lock}


def hash_objects(workspace: GitWorkspace) -> State:
    """Object of the cache and of the remote → hash of its bytes."""
    cache, remote = workspace.table_store.cache, workspace.table_store.cache.remote
    in_cache = {f"cache {path.name}": md5_of(path) for path in (cache.folder / "files").rglob("*") if path.is_file()}
    in_remote = {f"remote {md5[2:]}": remote.bucket.digests(item).md5 for md5, item in list_objects(remote)}
    return {**in_cache, **in_remote}


class RepairScenario(CopiedWorkspaceScenario):
    """A release of three days; then objects are lost and corrupted on both sides, and stale files are left behind."""

    def prepare(self) -> None:
        self.template.create()
        write_raw_partitions(self.template.table_store, raw_days(1, 2, 3))
        self.template.build_and_release()
        table_store = self.template.table_store
        raw, validated, totals = (
            _md5(table_store, table)
            for table in (minimal_dataset.RAW, minimal_dataset.VALIDATED, minimal_dataset.TOTALS)
        )
        lists = [str(out["md5"]) for path, out in sorted(recorded_outs(table_store.root).items())]
        _break_remote(table_store, raw, b"")
        _break_remote(table_store, lists[0], b"half")
        _break_cache(table_store, lists[1], b"half")
        _break_cache(table_store, validated, b"flipped")
        _break_remote(table_store, totals, b"")
        _break_cache(table_store, totals, b"half")  # taken from the workspace
        _write_stale_files(self.template.root, table_store)


class CollectionScenario(CopiedWorkspaceScenario):
    """Two releases, and objects that were never released in between, also on the remote."""

    def prepare(self) -> None:
        workspace = self.template
        workspace.create()
        write_raw_partitions(workspace.table_store, raw_days(1, 2, 3))
        workspace.build_and_release()
        for amount in (5, 6):
            write_raw_partitions(workspace.table_store, {"2026-01-02": minimal_dataset.raw_day(2, amount)})
            run_stages(workspace)
            md5 = _md5(workspace.table_store, minimal_dataset.TOTALS, "2026-01-02")
            workspace.table_store.cache.remote.write(md5, workspace.table_store.cache.path(md5))
        write_raw_partitions(workspace.table_store, {"2026-01-02": minimal_dataset.raw_day(2, amount=7)})
        workspace.build_and_release()


class LifeCycleScenario(CopiedWorkspaceScenario):
    """A release of three days, one with a rejected row, and a run that has left its journal."""

    def prepare(self) -> None:
        self.template.create()
        rejected = {"2026-01-03": f"{minimal_dataset.raw_day(3)}2026-01-03T13:00:00Z,east,-5\n"}
        write_raw_partitions(self.template.table_store, raw_days(1, 2) | rejected)
        self.template.build_and_release()
        table_store = self.template.table_store
        for table in (minimal_dataset.VALIDATED, minimal_dataset.TOTALS):
            table_store.append_to_journal(table, table_store.manifest(table).partitions["2026-01-01"])


class PruneScenario(CopiedWorkspaceScenario):
    """Four releases of one day, each with another amount."""

    def prepare(self) -> None:
        self.template.create()
        for amount in range(1, 5):
            write_raw_partitions(self.template.table_store, {"2026-01-01": minimal_dataset.raw_day(1, amount)})
            self.template.build_and_release()


def _md5(table_store: TableStore, table: str, partition: str = "2026-01-01") -> str:
    return table_store.manifest(table).partitions[partition].md5


def _break_remote(table_store: TableStore, md5: str, content: bytes) -> None:
    remote = table_store.cache.remote
    if content:
        remote.bucket.write(remote.key(md5), content)
    else:
        remote.bucket.delete(remote.key(md5))


def _break_cache(table_store: TableStore, md5: str, content: bytes) -> None:
    path = table_store.cache.path(md5)
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)


def _write_stale_files(root: Path, table_store: TableStore) -> None:
    """What killed runs leave: DVC's lock, git's lock, a partial write."""
    dead = {"write": {"data/x": {"pid": 2**22 + 1, "cmd": "dvc repro"}}, "read": {}}
    left = {
        root / RWLOCK: json.dumps(dead),
        root / ".git/index.lock": "",
        table_store.folder(TABLES[0]) / ".x.1.tmp": "half",
    }
    for path, text in left.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (time.time() - LONG_AGO_S,) * 2)


def scenario(folder: Path, remote: dict[str, str], verb: str) -> CopiedWorkspaceScenario:
    """The scenario of `doctor --repair`, of `gc`, of `prune`, of `rename` or of `drop`."""
    template = folder / "template"
    if verb in ("rename", "drop"):
        return LifeCycleScenario((RenameCase if verb == "rename" else DropCase)(template, remote))
    if verb == "prune":
        return PruneScenario(PruneCase(template, remote))
    return (
        RepairScenario(RepairCase(template, remote))
        if verb == "doctor"
        else CollectionScenario(CollectionCase(template, remote))
    )
