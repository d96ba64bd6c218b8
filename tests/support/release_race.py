"""Releases of many datasets from many clones at once, and a reader of git and caches that uses nothing of Headrace."""

import json
import logging
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from release_clones import QUESTION, Clone, Origin, dataset

from headrace.dataset import Dataset
from headrace.release.build import ReleasedMeanwhileError
from headrace.storage.manifest import HEAD_FILE

log = logging.getLogger(__name__)

NAMES = ("flights", "flights_eu", "flights_like")


@dataclass
class Race:
    """Datasets that are released from several clones at once, a round at a time.

    Attributes:
        origin: The git remote.
        clones: The clones; each releases some of the datasets.
        datasets: The datasets. The first is run in two clones at once, the last is labeled in two.
        audited: Release → its tables (table → head of its manifest), as they were where it was made.
        answered: Ids of the annotations that were collected.
    """

    origin: Origin
    clones: list[Clone]
    datasets: list[Dataset]
    audited: dict[str, dict[str, bytes]] = field(default_factory=dict)
    answered: list[str] = field(default_factory=list)

    def run_round(self, turn: int, pool: ThreadPoolExecutor) -> None:
        """Each dataset gets one more day, and is released."""
        first, *others, labeled = range(len(self.datasets))
        jobs: list[Future[Any]] = [
            pool.submit(self.release_newer_before_older, first, turn),
            *(pool.submit(self.release, self.clone(number), number, turn) for number in others),
            *(pool.submit(self.label, clone, labeled, turn) for clone in self.clones[:2]),
        ]
        for job in jobs:
            job.result()

    def clone(self, number: int) -> Clone:
        """The clone that a dataset is released from."""
        return self.clones[number % len(self.clones)]

    def source(self, number: int, turn: int) -> dict[int, int]:
        """What the source of a dataset has: a day more with each round."""
        return {day: 100 * number + day for day in range(1, turn + 2)}

    def release(self, clone: Clone, number: int, turn: int) -> str:
        """Run a dataset in a clone and release it; the release."""
        dataset = self.datasets[number]
        clone.run(dataset, self.source(number, turn))
        return self._release_tables(clone, dataset)

    def _release_tables(self, clone: Clone, dataset: Dataset) -> str:
        made = clone.release(dataset)
        if made.created:
            self.audited[made.name] = clone.tables(dataset)
        return made.name

    def release_newer_before_older(self, number: int, turn: int) -> None:
        """Two clones run one dataset; the one with the older listing releases last, and is refused."""
        late, early, *_ = self.clones
        late.run(self.datasets[number], self.source(number, turn - 1))
        newest = self.release(early, number, turn)
        with pytest.raises(ReleasedMeanwhileError, match=r"headrace run \w+ --release"):
            late.release(self.datasets[number])
        assert self.release(late, number, turn) == newest, "the command that the message names finds nothing to do"

    def label(self, clone: Clone, number: int, turn: int) -> None:
        """Collect one annotation in a clone, and release it."""
        dataset, name = self.datasets[number], f"{clone.root.name}-{turn}"
        clone.run(dataset, self.source(number, 0))
        clone.collect(dataset, name)
        self.answered.append(name)
        self._release_tables(clone, dataset)

    def check(self, rounds: int) -> None:
        """Check with an independent reader what git and the caches hold after that many rounds."""
        assert set(self.origin.tags()) == self.audited.keys()
        assert len(self.audited) >= len(self.datasets) * rounds
        for tag, tables in self.audited.items():
            assert self.tables_at(tag, tag.partition("/")[0]) == tables, tag
        for number, one in enumerate(self.datasets[:-1]):
            tables = self.tables_at("main", one.name)
            assert tables == self.audited[f"{one.name}/{rounds}"]
            days = {f"2026-01-{day:02}" for day in self.source(number, rounds - 1)}
            heads = [head for table, head in tables.items() if "rejected" not in table]
            assert all(days == self.partitions(head).keys() for head in heads)
        assert self.annotation_ids("main", self.datasets[-1].name) == sorted(self.answered)
        assert not self.origin.git("rev-list", "--merges", "main"), "the history is linear"
        for clone in self.clones:
            assert clone.git("rev-list", "--count", "HEAD", "--not", "origin/main") == "0"
            assert clone.git("status", "--porcelain") == ""

    def tables_at(self, revision: str, name: str) -> dict[str, bytes]:
        """Table → head of its manifest, of a dataset at a revision."""
        lock = yaml.safe_load(self.origin.git("show", f"{revision}:dvc.lock"))
        outs = {out["path"]: out["md5"] for entry in lock["stages"].values() for out in entry["outs"]}
        paths = self.origin.git("ls-tree", "-r", "--name-only", revision, "data").split()
        for path in paths:
            (out,) = yaml.safe_load(self.origin.git("show", f"{revision}:{path}"))["outs"]
            outs[f"{Path(path).parent}/{out['path']}"] = out["md5"]
        tables = {}
        for path, md5 in outs.items():
            if path.split("/")[2] == name:
                listed = json.loads(self.object_path(md5).read_text())
                (head,) = (item["md5"] for item in listed if item["relpath"] == HEAD_FILE)
                tables[path.removeprefix("data/")] = self.object_path(head).read_bytes()
        return tables

    def object_path(self, md5: str) -> Path:
        """Where one of the clones has an object in its cache."""
        paths = (clone.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:] for clone in self.clones)
        return next(path for path in paths if path.exists())

    def partitions(self, head: bytes) -> dict[str, dict[str, Any]]:
        """Partition → entry, of the manifest with this head."""
        chunks = (self.object_path(chunk["md5"]).read_text() for chunk in json.loads(head)["chunks"])
        return {name: entry for chunk in chunks for name, entry in json.loads(chunk).items()}

    def annotation_ids(self, revision: str, name: str) -> list[str]:
        """Ids of the annotations of a dataset at a revision."""
        head = self.tables_at(revision, name)[f"annotations/{name}/{QUESTION.name}"]
        files = (self.object_path(entry["md5"]) for entry in self.partitions(head).values())
        return sorted(name for file in files for name in pl.read_parquet(file)["annotation_id"])


class RetryCounter(logging.Handler):
    """Counts the releases that were built again because another push came first."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count the record if a release lost a race."""
        self.count += record.getMessage().startswith("the release is built again")


@contextmanager
def count_retries() -> Iterator[RetryCounter]:
    """The retries from here on."""
    counter, logger = RetryCounter(logging.DEBUG), logging.getLogger("headrace.release.build")
    level = logger.level
    logger.addHandler(counter)
    logger.setLevel(logging.DEBUG)
    try:
        yield counter
    finally:
        logger.removeHandler(counter)
        logger.setLevel(level)


def run_race(kind: type[Race], origin: Origin, size: tuple[int, int, int]) -> Race:
    """The race after its last round, while somebody pushes commits of README.md.

    Args:
        kind: How the datasets are released.
        origin: The git remote.
        size: Number of datasets, clones and rounds.
    """
    datasets, clones, rounds = size
    writer, is_over, started = origin.clone("writer"), threading.Event(), time.monotonic()
    names = [*NAMES, *(f"set_{number}" for number in range(datasets))][: datasets - 1]
    every = [*(dataset(name) for name in names), dataset("digits", QUESTION)]
    race = kind(origin, [origin.clone(f"clone-{number}") for number in range(clones)], every)
    with count_retries() as retries, ThreadPoolExecutor(datasets + 2) as pool:
        writing = pool.submit(push_until, writer, is_over)
        try:
            for turn in range(rounds):
                race.run_round(turn, pool)
        finally:
            is_over.set()
    commits, seconds = writing.result(), time.monotonic() - started
    log.info("%d releases, %d retries, %d commits, %.0f s", len(race.audited), retries.count, commits, seconds)
    assert commits
    return race


def push_until(writer: Clone, is_over: threading.Event) -> int:
    """Push commits of README.md; how many there were."""
    written = 0
    while not is_over.wait(3):
        with suppress(AssertionError, subprocess.CalledProcessError):  # a push that lost the race is tried again
            writer.push_file("README.md", f"Version {written}\n")
            written += 1
    return written
