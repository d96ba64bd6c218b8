"""Many datasets, many clones, one branch: each tag holds exactly what was audited, and nobody's entries are lost.

What a tag holds is read with `git show` and plain YAML and JSON, by nothing of Headrace.
"""

import json
import logging
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from release_clones import QUESTION, Clone, Origin, dataset
from servers import S3

from headrace.dataset import Dataset
from headrace.release.build import ReleasedMeanwhileError
from headrace.storage.manifest import HEAD_FILE

log = logging.getLogger(__name__)

NAMES = ("flights", "flights_eu", "flights_like")


def tables_at(origin: Origin, clone: Clone, revision: str, name: str) -> dict[str, bytes]:
    """Table → manifest of a dataset at a revision: what an independent reader of git and the cache finds."""
    lock = yaml.safe_load(origin.git("show", f"{revision}:dvc.lock"))
    outs = {out["path"]: out["md5"] for entry in lock["stages"].values() for out in entry["outs"]}
    paths = origin.git("ls-tree", "-r", "--name-only", revision, "data").split()
    for path in paths:
        (out,) = yaml.safe_load(origin.git("show", f"{revision}:{path}"))["outs"]
        outs[f"{Path(path).parent}/{out['path']}"] = out["md5"]
    tables = {}
    for path, md5 in outs.items():
        if path.split("/")[2] == name:
            listed = json.loads(object_path(clone, md5).read_text())
            (manifest,) = (item["md5"] for item in listed if item["relpath"] == HEAD_FILE)
            tables[path.removeprefix("data/")] = object_path(clone, manifest).read_bytes()
    return tables


def object_path(clone: Clone, md5: str) -> Path:
    """Where the cache of a clone has an object."""
    return clone.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def partitions(clone: Clone, head: bytes) -> dict[str, dict[str, Any]]:
    """Partition → entry, of the manifest with this head, from the chunks in the cache of a clone."""
    chunks = (object_path(clone, chunk["md5"]).read_text() for chunk in json.loads(head)["chunks"])
    return {name: entry for chunk in chunks for name, entry in json.loads(chunk).items()}


def annotation_ids(origin: Origin, clone: Clone, revision: str, name: str) -> list[str]:
    """Ids of the annotations of a dataset at a revision."""
    manifest = tables_at(origin, clone, revision, name)[f"annotations/{name}/state"]
    files = (object_path(clone, entry["md5"]) for entry in partitions(clone, manifest).values())
    return sorted(name for file in files for name in pl.read_parquet(file)["annotation_id"])


class RetryCounter(logging.Handler):
    """Counts the releases that were built again because another push came first."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count the record if a release lost a race."""
        self.count += record.getMessage().startswith("the release is built again")


@pytest.fixture
def retries() -> Iterator[RetryCounter]:
    """The retries of a test."""
    counter, logger = RetryCounter(logging.DEBUG), logging.getLogger("headrace.release.build")
    level = logger.level
    logger.addHandler(counter)
    logger.setLevel(logging.DEBUG)
    yield counter
    logger.removeHandler(counter)
    logger.setLevel(level)


@dataclass
class Race:
    """Datasets that are released from several clones at once, a round at a time.

    Attributes:
        origin: The git remote.
        clones: The clones; each releases some of the datasets.
        datasets: The datasets. The first is run in two clones at once, the last is labeled in two.
        audited: Release → the clone that made it, and its tables there.
    """

    origin: Origin
    clones: list[Clone]
    datasets: list[Dataset]
    audited: dict[str, tuple[Clone, dict[str, bytes]]] = field(default_factory=dict)

    def run_round(self, turn: int, pool: ThreadPoolExecutor) -> None:
        """Each dataset gets one more day, and is released."""
        first, *others, labeled = range(len(self.datasets))
        jobs: list[Future[Any]] = [
            pool.submit(self._release_newer_before_older, first, turn),
            *(pool.submit(self._release, self.clones[number % len(self.clones)], number, turn) for number in others),
            *(pool.submit(self._label, clone, labeled, turn) for clone in self.clones[:2]),
        ]
        for job in jobs:
            job.result()

    def source(self, number: int, turn: int) -> dict[int, int]:
        """What the source of a dataset has: a day more with each round."""
        return {day: 100 * number + day for day in range(1, turn + 2)}

    def _release(self, clone: Clone, number: int, turn: int) -> str:
        dataset = self.datasets[number]
        clone.run(dataset, self.source(number, turn))
        return self._note(clone, dataset)

    def _note(self, clone: Clone, dataset: Dataset) -> str:
        made = clone.release(dataset)
        if made.created:
            self.audited[made.name] = clone, clone.tables(dataset)
        return made.name

    def _release_newer_before_older(self, number: int, turn: int) -> None:
        late, early, *_ = self.clones
        late.run(self.datasets[number], self.source(number, turn - 1))
        newest = self._release(early, number, turn)
        with pytest.raises(ReleasedMeanwhileError, match=r"headrace run \w+ --release"):
            late.release(self.datasets[number])
        assert self._release(late, number, turn) == newest, "the command that the message names finds nothing to do"

    def _label(self, clone: Clone, number: int, turn: int) -> None:
        dataset = self.datasets[number]
        clone.run(dataset, self.source(number, 0))
        clone.collect(dataset, f"{clone.root.name}-{turn}")
        self._note(clone, dataset)


@pytest.mark.parametrize(
    "size",
    [
        pytest.param((4, 2, 4), id="small"),
        pytest.param((10, 3, 20), id="full", marks=[pytest.mark.faults, pytest.mark.timeout(1800)]),
    ],
)
def test_releases_of_many_datasets_at_once_hold_their_audited_bytes_and_lose_nothing(
    tmp_path: Path, s3: S3, retries: RetryCounter, size: tuple[int, int, int]
) -> None:
    datasets, clones, rounds = size
    origin = Origin.begin(tmp_path, s3)
    writer = origin.clone("writer")
    names = [*NAMES, *(f"set_{number}" for number in range(datasets))][: datasets - 1]
    every = [*(dataset(name) for name in names), dataset("digits", QUESTION)]
    race = Race(origin, [origin.clone(f"clone-{number}") for number in range(clones)], every)
    is_over = threading.Event()
    started = time.monotonic()

    with ThreadPoolExecutor(datasets + 2) as pool:
        writing = pool.submit(push_until, writer, is_over)
        try:
            for turn in range(rounds):
                race.run_round(turn, pool)
        finally:
            is_over.set()
    commits = writing.result()

    seconds = time.monotonic() - started
    log.info("%d releases, %d retries, %d commits, %.0f s", len(race.audited), retries.count, commits, seconds)
    assert commits
    assert set(origin.tags()) == race.audited.keys()
    assert len(race.audited) >= datasets * rounds
    for tag, (clone, tables) in race.audited.items():
        assert tables_at(origin, clone, tag, tag.partition("/")[0]) == tables, tag
    for number, one in enumerate(every[:-1]):
        place = race.clones[number % clones]
        tables = tables_at(origin, place, "main", one.name)
        assert tables == race.audited[f"{one.name}/{rounds}"][1]
        days = {f"2026-01-{day:02}" for day in race.source(number, rounds - 1)}
        heads = [head for table, head in tables.items() if "rejected" not in table]
        assert all(days == partitions(place, head).keys() for head in heads)
    labeled = f"digits/{sum(tag.startswith('digits/') for tag in race.audited)}"
    answered = {f"{clone.root.name}-{turn}" for clone in race.clones[:2] for turn in range(rounds)}
    assert annotation_ids(origin, race.audited[labeled][0], "main", "digits") == sorted(answered)
    assert not origin.git("rev-list", "--merges", "main"), "the history is linear"
    for clone in race.clones:
        assert clone.git("rev-list", "--count", "HEAD", "--not", "origin/main") == "0"
        assert clone.git("status", "--porcelain") == ""


def push_until(writer: Clone, is_over: threading.Event) -> int:
    """Push commits of README.md; how many there were."""
    written = 0
    while not is_over.wait(3):
        with suppress(AssertionError, subprocess.CalledProcessError):  # a push that lost the race is tried again
            writer.push_file("README.md", f"Version {written}\n")
            written += 1
    return written


def test_a_dataset_whose_name_begins_like_anothers_keeps_its_entries(tmp_path: Path, s3: S3) -> None:
    origin = Origin.begin(tmp_path, s3)
    place, flights, europe = origin.first, dataset("flights"), dataset("flights_eu")
    place.release(europe, 1)
    before = tables_at(origin, place, "main", "flights_eu")

    place.release(flights, 2)
    place.release(flights, 3)

    assert tables_at(origin, place, "main", "flights_eu") == before
    assert sorted(origin.tags()) == ["flights/1", "flights/2", "flights_eu/1"]


def test_of_two_runs_of_one_dataset_the_older_listing_is_refused_until_the_source_is_read_again(
    tmp_path: Path, s3: S3
) -> None:
    origin = Origin.begin(tmp_path, s3)
    ours, theirs, flights = origin.first, origin.clone("colleague"), dataset("flights")
    ours.run(flights, {1: 1})
    theirs.run(flights, {1: 1, 2: 2})
    theirs.release(flights)

    for _ in range(2):
        with pytest.raises(ReleasedMeanwhileError, match=r"raw/flights/sales.*`headrace run flights --release`"):
            ours.release(flights)
        ours.git("pull", "--quiet", "--rebase", "origin", "main")  # this alone does not make the tables newer

    assert origin.tags() == ["flights/1"]
    assert ours.git("rev-list", "--count", "HEAD", "--not", "origin/main") == "0", "no local commit is left"
    ours.run(flights, {1: 1, 2: 2, 3: 3})
    assert ours.release(flights).name == "flights/2"
    raw = tables_at(origin, ours, "main", "flights")["raw/flights/sales"]
    assert list(partitions(ours, raw)) == ["2026-01-01", "2026-01-02", "2026-01-03"]


def test_annotations_that_two_clones_collected_are_merged_and_the_labels_are_made_of_all(
    tmp_path: Path, s3: S3
) -> None:
    origin = Origin.begin(tmp_path, s3)
    ours, theirs, rides = origin.first, origin.clone("colleague"), dataset("rides", QUESTION)
    for clone in (ours, theirs):
        clone.run(rides, {1: 1})
    ours.collect(rides, "a", "b")
    theirs.collect(rides, "b", "c")
    theirs.release(rides)

    made = ours.release(rides)

    assert made.name == "rides/2"
    assert annotation_ids(origin, ours, "rides/2", "rides") == ["a", "b", "c"]
    assert sorted(ours.lake.scan("labels/rides/state").collect()["sample_id"]) == ["a", "b", "c"]
    ours.collect(rides, "d")
    assert ours.release(rides).name == "rides/3"


def test_a_clone_that_collected_nothing_keeps_the_annotations_of_the_others(tmp_path: Path, s3: S3) -> None:
    origin = Origin.begin(tmp_path, s3)
    ours, theirs, rides = origin.first, origin.clone("colleague"), dataset("rides", QUESTION)
    ours.run(rides, {1: 1})
    theirs.run(rides, {1: 1})
    theirs.collect(rides, "a")
    theirs.release(rides)

    made = ours.release(rides)

    assert (made.name, made.created) == ("rides/1", False)
    assert annotation_ids(origin, theirs, "main", "rides") == ["a"]
