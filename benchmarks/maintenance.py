"""What `gc` and `doctor` pay to find out which objects are referenced, with many releases of many tables.

The releases are simulated: real git commits and tags, directory objects and manifests, and partitions without bytes.
Each release adds a day to every table. CPU seconds are those of this process and of the gits that it starts.
"""

import hashlib
import os
import resource
import subprocess
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from measure import Cost, Report, create_parser

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
    arguments = create_parser(__doc__ or "").parse_args()
    tables, number = FULL_SIZE if arguments.full else SIZE
    report = Report("maintenance", as_json=arguments.json)
    with TemporaryDirectory(prefix="headrace-benchmark-") as folder:
        root = Path(folder)
        subprocess.run(["git", "init", "--quiet", "--initial-branch", "main", folder], check=True)
        releases = Releases(TableStore(root, Cache(root / ".dvc/cache", root)), tables)
        for _ in range(number):
            releases.add()
        costs = {"nothing is remembered": measure(releases.collect), "nothing is new": measure(releases.collect)}
        releases.add()
        costs["one release is new"] = measure(releases.collect)
    first, again, following = costs.values()
    report.table(f"references of {number} releases of {tables} tables", costs, "nothing is remembered")
    report.target("nothing is new, against all releases", again.cpu_s / first.cpu_s, AGAIN_AT_MOST)
    report.target("one release is new, against all releases", following.cpu_s / first.cpu_s, NEXT_AT_MOST)
    report.end()


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


def measure(call: Callable[[], object]) -> Cost:
    """What a call costs in this process and in those that it starts."""
    before = os.times()
    call()
    after = os.times()
    cpu_s = sum(after[:4]) - sum(before[:4])
    return Cost(cpu_s, after.elapsed - before.elapsed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
