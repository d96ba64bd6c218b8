"""What `gc` and `doctor` pay to find out which objects are referenced, with many releases of many tables.

The releases are simulated: real git commits and tags, directory objects and manifests, and partitions without bytes.
Each release adds a day to every table. Prints CPU seconds, those of git included:

- first: nothing is remembered;
- again: nothing is new;
- next: one release is new.

    python -m benchmarks.maintenance --tables 50 --releases 200
"""

import argparse
import hashlib
import os
import subprocess
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from headrace.maintenance.references import ReferencedObjects, tagged_revisions
from headrace.storage import git, git_commits
from headrace.storage.dvc.cache import Cache
from headrace.storage.files import dump_yaml
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.partition_names import partition_interval
from headrace.storage.table_store import Lake

FIRST_DAY = date(2024, 1, 1)
DAYS_BEFORE = 365
"""Partitions of each table in the first release, less one."""


def main() -> None:
    """Simulate releases, and print what it costs to follow them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=50)
    parser.add_argument("--releases", type=int, default=200)
    options = parser.parse_args()
    with TemporaryDirectory(prefix="headrace-benchmark-") as folder:
        root = Path(folder)
        subprocess.run(["git", "init", "--quiet", "--initial-branch", "main", folder], check=True)
        releases = Releases(Lake(root, Cache(root / ".dvc/cache", root)), options.tables)
        for _ in range(options.releases):
            releases.add()
        print(f"{options.tables} tables, {options.releases} releases")
        print(f"first: {cpu_seconds(releases.collect):8.2f} CPU s")
        print(f"again: {cpu_seconds(releases.collect):8.2f} CPU s")
        releases.add()
        print(f"next:  {cpu_seconds(releases.collect):8.2f} CPU s")


class Releases:
    """Simulated releases of one dataset."""

    def __init__(self, lake: Lake, tables: int) -> None:
        """No release yet."""
        self.lake, self.number, self.commit = lake, 0, ""
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
        outs = [self.lake.dvc_out(manifest, {}) for manifest in self.manifests]
        stages = {str(out["path"]).replace("/", "-"): {"cmd": "headrace", "outs": [out]} for out in outs}
        files: dict[str, bytes | None] = {"dvc.lock": dump_yaml({"schema": "2.0", "stages": stages})}
        root, parents = self.lake.root, [self.commit] if self.commit else []
        self.commit = git_commits.build_commit(root, parents, self.commit, files, f"many/{self.number}")
        git.git(root, "update-ref", "refs/heads/main", self.commit)
        git.git(root, "update-ref", f"refs/tags/many/{self.number}", self.commit)
        self.manifests = [self._reopen(out) for out in outs]

    def _reopen(self, out: dict[str, Any]) -> Manifest:
        """The manifest as a later run finds it: its chunks are carried over."""
        manifest = self.lake.manifest_of_directory(out["md5"])
        assert manifest is not None
        return manifest

    def collect(self) -> None:
        """What `gc` and `doctor` do first."""
        ReferencedObjects.collect(self.lake, tagged_revisions(self.lake))


def cpu_seconds(call: Callable[[], object]) -> float:
    """CPU seconds of this process and of the processes that it starts."""
    before = os.times()
    call()
    after = os.times()
    return sum(
        getattr(after, name) - getattr(before, name) for name in ("user", "system", "children_user", "children_system")
    )


if __name__ == "__main__":
    main()
