"""Lets a run die at its n-th side effect, for n = 1, 2, …, and checks that readers see no mixture and one run heals it.

A process of its own, because it forks for every case: `python crashes.py FOLDER REMOTE.json [half] [every]` prints one
line of JSON a case. The run is the whole of it: validate, transform, version, on a real git origin and S3 remote.
"""

import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from pathlib import Path

import tiny
from tiny import bring, sales
from workspaces import git

from pipelines import faults, graph
from pipelines.engine.lake import Lake
from pipelines.engine.manifest import Manifest
from pipelines.engine.run import run_stage
from pipelines.settings import Settings
from pipelines.systems.dask import Executor
from pipelines.systems.dvc.cache import read_directory
from pipelines.systems.dvc.lock import recorded_outs
from pipelines.systems.dvc.objects import md5_of, object_key
from pipelines.systems.dvc.remote import Remote
from pipelines.version import version

TABLES = (tiny.VALIDATED, tiny.REJECTED, tiny.TOTALS)


@dataclass(frozen=True)
class Case:
    """One workspace with its origin, and a prefix of the remote of its own."""

    folder: Path

    @property
    def root(self) -> Path:
        """The workspace."""
        return self.folder / "workspace"

    @property
    def lake(self) -> Lake:
        """Its tables, read afresh."""
        return Lake.at(self.root)

    def copy(self, name: str, remote: dict[str, str]) -> "Case":
        """The same state, elsewhere."""
        other = Case(self.folder.with_name(name))
        shutil.copytree(self.folder, other.folder)
        git(other.root, "remote", "set-url", "origin", str(other.folder / "origin.git"))
        other.configure(remote)
        return other

    def configure(self, remote: dict[str, str]) -> None:
        """Point the workspace at its prefix of the remote."""
        lines = "".join(f"{name} = {value}\n" for name, value in remote.items() if name != "url")
        url = f"url = {remote['url']}/{self.folder.name}"
        (self.root / ".dvc/config.local").write_text(f"['remote \"storage\"']\n{url}\n{lines}")

    def run(self) -> None:
        """Bring everything up to date and release it."""
        lake = self.lake
        execute = Executor(Settings(workspace=self.root))
        for stage in graph.stages(tiny.DATASET):
            run_stage(stage, lake, execute)
        version(tiny.DATASET, lake)

    def shown(self) -> dict[str, str]:
        """File → hash of everything that readers may see here or that git holds."""
        files = [path for path in (self.root / "data").rglob("*") if path.is_file()]
        found = {path.relative_to(self.root).as_posix(): sha256(path.read_bytes()).hexdigest() for path in files}
        lock = git(self.root, "show", "origin/main:dvc.lock")
        tags = git(self.root, "ls-remote", "--tags", "--refs", "origin").split()[1::2]
        return {**found, "origin's lock": lock, "tags": " ".join(tags)}


def first_release(folder: Path, remote: dict[str, str]) -> Case:
    """Three days released; then one is corrected, one comes, one goes."""
    case = Case(folder / "template")
    case.root.mkdir(parents=True)
    git(case.folder, "init", "--quiet", "--bare", "--initial-branch", "main", "origin.git")
    git(case.root, "init", "--quiet", "--initial-branch", "main")
    git(case.root, "remote", "add", "origin", str(case.folder / "origin.git"))
    (case.root / ".dvc").mkdir()
    (case.root / ".dvc/config").write_text("[core]\n    remote = storage\n")
    (case.root / ".gitignore").write_text(".dvc/\n.headrace/\n/data/*/*/?*\n!/data/*/*/?*.dvc\n")
    case.configure(remote)
    git(case.root, "add", "--all")
    git(case.root, "commit", "--quiet", "--message", "Begin")
    git(case.root, "push", "--quiet", "origin", "main")
    bring(case.lake, sales(1, 2, 3))
    case.run()
    return case


def change(case: Case) -> None:
    """What the run that dies has to deal with."""
    more = {"2026-01-02": tiny.day(2, amount=7) + "2026-01-02T13:00:00Z,east,-5\n", **sales(4)}
    bring(case.lake, more, drop=("2026-01-01",))


def in_child(work: Callable[[], object]) -> int:
    """Exit code of a process that does `work`: 0, what it died with, or 1 after its stack trace."""
    process = os.fork()
    if not process:
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001  whatever it was, the parent is told
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def dies(case: Case, at: int, *, half: bool) -> None:
    """Run until the n-th point; leave the name of it behind."""
    faults.arm(at, half=half)
    try:
        case.run()
    finally:
        faults.arm(0)


def check(case: Case, old: dict[str, Manifest], new: dict[str, Manifest]) -> None:
    """Readers see each table old or new, whole; and no tag names what is not on the remote."""
    lake = case.lake
    for table in TABLES:
        seen = lake.manifest(table)
        assert seen in (old[table], new[table]), f"{table} is a mixture"
        for name, path in lake.paths(table).items():
            assert md5_of(path) == seen.partitions[name].md5, f"{table} {name}"
    git(case.root, "fetch", "--quiet", "--tags", "--force", "origin")
    if "refs/tags/tiny/2" in git(case.root, "ls-remote", "--tags", "origin"):
        remote = Remote.of(case.root)
        for wanted in objects(lake, "tiny/2") - objects(lake, "tiny/1"):
            assert remote.bucket.head(remote.key(wanted)), f"{object_key(wanted)} is not on the remote"


def objects(lake: Lake, revision: str) -> set[str]:
    """Every object that a release names."""
    lists = {out["md5"] for out in recorded_outs(lake.root, revision).values()}
    return lists | {name for folder in lists for name in read_directory(lake.cache, folder).values()}


def cases(folder: Path, remote: dict[str, str], *, half: bool, every: int) -> Iterator[dict[str, object]]:
    """Every case in turn, until a run completes."""
    template = Case(folder / "template")
    assert in_child(lambda: first_release(folder, remote)) == 0
    old = {table: template.lake.manifest(table) for table in TABLES}
    change(template)
    calm = template.copy("calm", remote)
    assert in_child(calm.run) == 0
    new, wanted = {table: calm.lake.manifest(table) for table in TABLES}, calm.shown()
    for at in count(1, every):
        case = template.copy(f"case-{at}", remote)
        code = in_child(lambda case=case, at=at: dies(case, at, half=half))  # type: ignore[misc]
        if code == 0:
            return
        whole = in_child(lambda case=case: check(case, old, new))  # type: ignore[misc]
        healed = in_child(case.run)
        seen = case.shown()
        other = sorted(name for name in seen.keys() | wanted.keys() if seen.get(name) != wanted.get(name))
        died = code == faults.KILLED
        yield {"at": at, "died": died, "whole": whole == 0, "healed": healed == 0, "same": not other, "other": other}
        shutil.rmtree(case.folder)


def main(folder: str, remote: str, how: str = "before", every: str = "1") -> None:
    """Print a line for each case."""
    for found in cases(Path(folder), json.loads(Path(remote).read_text()), half=how == "half", every=int(every)):
        print(json.dumps(found), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
