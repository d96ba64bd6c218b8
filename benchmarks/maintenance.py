"""What `gc` and `doctor` pay to find out which objects are referenced, with many releases of many tables.

The releases are simulated: real git commits and tags, directory objects and manifests, and partitions without bytes.
Each release adds a day to every table. CPU seconds are those of this process and of the gits that it starts.
"""

import hashlib
import subprocess
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from measure import Cost, Report, create_parser, measure_call, median_cost

from headrace.maintenance.references import ReferencedObjects, tagged_revisions
from headrace.storage import git, git_commits
from headrace.storage.dvc.cache import Cache
from headrace.storage.files import dump_yaml
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.partition_names import partition_interval
from headrace.storage.table_store import TableStore

FIRST_DAY = date(2024, 1, 1)
DAYS_BEFORE = 365
"""Partitions of each table before the first release."""

SIZE, FULL_SIZE = (10, 40), (50, 200)
"""Tables and releases."""

AGAIN_AT_MOST, NEXT_AT_MOST = 0.05, 0.1


def main() -> None:
    """Simulate releases, and measure what it costs to follow them."""
    arguments = create_parser(__doc__ or "", large="200 releases of 50 tables instead").parse_args()
    tables, number = FULL_SIZE if arguments.full else SIZE
    report = Report("maintenance", as_json=arguments.json)
    runs = [measure_releases(tables, number) for _ in range(arguments.repeats)]
    costs = {name: median_cost(run[name] for run in runs) for name in runs[0]}
    first, again, following = costs.values()
    report.table(f"references of {number} releases of {tables} tables", costs, "nothing is remembered")
    report.target("nothing is new, against all releases", again.total_s / first.total_s, AGAIN_AT_MOST)
    report.target("one release is new, against all releases", following.total_s / first.total_s, NEXT_AT_MOST)
    report.end()


def measure_releases(tables: int, number: int) -> dict[str, Cost]:
    """Simulate releases, and follow them: all, again, and after one more."""
    with TemporaryDirectory(prefix="headrace-benchmark-") as folder:
        root = Path(folder)
        subprocess.run(["git", "init", "--quiet", "--initial-branch", "main", folder], check=True)
        releases = Releases(TableStore(root, Cache(root / ".dvc/cache", root)), tables)
        for _ in range(number):
            releases.add()
        names = ("nothing is remembered", "nothing is new")
        costs = {name: measure_call(releases.collect) for name in names}
        releases.add()
        return {**costs, "one release is new": measure_call(releases.collect)}


class Releases:
    """Simulated releases of one dataset."""

    def __init__(self, table_store: TableStore, tables: int) -> None:
        """No release yet."""
        self.table_store, self.number, self.commit = table_store, 0, ""
        self.manifests = [Manifest(f"features/many/table_{number:03}") for number in range(tables)]
        for day in range(DAYS_BEFORE):
            self._add_day(day)

    def _add_day(self, number: int) -> None:
        day = (FIRST_DAY + timedelta(days=number)).isoformat()
        start, end = partition_interval(day)
        for at, manifest in enumerate(self.manifests):
            sha256 = hashlib.sha256(f"{manifest.table} {day}".encode()).hexdigest()
            entry = PartitionEntry(sha256[:32], sha256[32:], 50_000, 1_000, sha256=sha256, start=start, end=end)
            self.manifests[at] = manifest.plus({day: entry})

    def add(self) -> None:
        """Release one more day of every table."""
        self._add_day(DAYS_BEFORE + self.number)
        self.number += 1
        outs = [self.table_store.dvc_out(manifest, {}) for manifest in self.manifests]
        stages = {str(out["path"]).replace("/", "-"): {"cmd": "headrace", "outs": [out]} for out in outs}
        files: dict[str, bytes | None] = {"dvc.lock": dump_yaml({"schema": "2.0", "stages": stages})}
        root, parents = self.table_store.root, [self.commit] if self.commit else []
        self.commit = git_commits.build_commit(root, parents, self.commit, files, f"many/{self.number}")
        git.git(root, "update-ref", "refs/heads/main", self.commit)
        git.git(root, "update-ref", f"refs/tags/many/{self.number}", self.commit)
        self.manifests = [self._reopen(out) for out in outs]

    def _reopen(self, out: dict[str, Any]) -> Manifest:
        """The manifest as a later run finds it: its chunks are carried over."""
        manifest = self.table_store.manifest_of_directory(out["md5"])
        if manifest is None:
            raise AssertionError(out)
        return manifest

    def collect(self) -> None:
        """What `gc` and `doctor` do first."""
        ReferencedObjects.collect(self.table_store, tagged_revisions(self.table_store))


if __name__ == "__main__":
    main()
