"""Clones of one git remote that release small datasets, told apart by their raw rows; a pytest plug-in."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import minimal_dataset
import polars as pl
import pytest
from crash_release import ReleaseCase
from servers import S3
from workspaces import git

from headrace.dataset import Dataset, Input, LabelingTask
from headrace.engine.run import run_stage
from headrace.label.annotation_log import AnnotationLogWriter
from headrace.label.annotations import annotation_schema
from headrace.project import graph
from headrace.project.executors import Executor
from headrace.release.release import ReleaseResult, create_release
from headrace.release.worktree_refs import note_listing
from headrace.settings import Settings
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.table_store import TableStore


@dataclass(frozen=True)
class Clone:
    """A clone of the git remote, with tables of its own."""

    root: Path

    @property
    def table_store(self) -> TableStore:
        """Its tables, read afresh."""
        return TableStore.at(self.root)

    def run(self, dataset: Dataset, source: Mapping[int, int]) -> None:
        """Ingest from a source that has these days, each with its amount, and bring every table up to date."""
        note_listing(self.root, dataset.name)
        entries = {}
        for day, amount in source.items():
            text = f"at,shop,amount\n{minimal_dataset.raw_day(day, amount)}"
            stored = self.table_store.cache.add(partial(Path.write_bytes, data=text.encode()))
            entries[f"2026-01-{day:02}"] = PartitionEntry(stored.md5, stored.md5, stored.size)
        self.table_store.checkout(Manifest(f"raw/{dataset.name}/sales", ".csv", partitions=entries))
        self.refresh(dataset)

    def collect(self, dataset: Dataset, *annotation_ids: str) -> None:
        """Collect annotations with these ids, and bring every table up to date."""
        collect_annotations(self.table_store, dataset, *annotation_ids)
        self.refresh(dataset)

    def refresh(self, dataset: Dataset) -> None:
        """Bring every table up to date with the raw rows that are there."""
        execute = Executor(Settings(workspace=self.root, threads=1))
        for stage in graph.dataset_stages(dataset):
            run_stage(stage, self.table_store, execute)

    def release(self, dataset: Dataset, amount: int | None = None) -> ReleaseResult:
        """Release the dataset, from a source with one day if an amount is given."""
        if amount is not None:
            self.run(dataset, {1: amount})
        return create_release(dataset, self.table_store)

    def tables(self, dataset: Dataset) -> dict[str, bytes]:
        """Table → its manifest, as the workspace shows it."""
        return {
            table: self.table_store.manifest(table).to_files().head for table in self.table_store.tables(dataset.name)
        }

    def git(self, *arguments: str) -> str:
        """What git prints here."""
        return git(self.root, *arguments)

    def push_file(self, name: str, text: str, branch: str = "main") -> None:
        """Commit a file on top of the remote's branch and push it; others may push at the same time."""
        self.git("fetch", "--quiet", "origin", branch)
        self.git("reset", "--quiet", "--hard", "FETCH_HEAD")
        (self.root / name).write_text(text)
        self.git("add", name)
        self.git("commit", "--quiet", "--message", f"Write {name}")
        self.git("push", "--quiet", "origin", f"HEAD:{branch}")


@dataclass(frozen=True)
class Origin:
    """A bare repository, and a DVC remote that all clones of it use."""

    folder: Path
    place: ReleaseCase

    @classmethod
    def begin(cls, folder: Path, s3: S3) -> "Origin":
        """A repository with one commit, and no release."""
        keys = {"endpointurl": s3.endpoint, "access_key_id": s3.access_key, "secret_access_key": s3.secret_key}
        place = ReleaseCase(folder, {"url": f"s3://{s3.new_bucket().name}", "region": "us-east-1", **keys})
        place.create()
        git(place.root, "remote", "set-url", "origin", (folder / "origin.git").as_uri())
        return cls(folder, place)

    @property
    def first(self) -> Clone:
        """The clone that there is from the beginning."""
        return Clone(self.place.root)

    def clone(self, name: str, *options: str) -> Clone:
        """Another clone; a URL, so that git transfers what it would over a network."""
        url = (self.folder / "origin.git").as_uri()
        git(self.folder, "clone", "--quiet", *options, url, name)
        self.place.configure()
        return Clone(self.folder / name)

    def git(self, *arguments: str) -> str:
        """What git prints in the bare repository."""
        return git(self.folder / "origin.git", *arguments)

    def tags(self) -> list[str]:
        """Names of the tags there."""
        return self.git("for-each-ref", "--format=%(refname:short)", "refs/tags").split()


def dataset(name: str, *labels: LabelingTask) -> Dataset:
    """The minimal dataset under another name, with these labeling tasks."""
    return replace(minimal_dataset.DATASET, name=name, labels=labels)


def collect_annotations(table_store: TableStore, dataset: Dataset, *annotation_ids: str) -> None:
    """Append one annotation with each of these ids to the dataset's annotations."""
    manifest = table_store.manifest(f"annotations/{dataset.name}/{QUESTION.name}")
    writer = AnnotationLogWriter(manifest, table_store, {"shop": pl.String()})
    writer.append(annotation(name) for name in annotation_ids)
    writer.flush()
    table_store.checkout(writer.manifest)


def annotation(annotation_id: str, minute: int = 0, **changes: object) -> dict[str, object]:
    """An event of the annotations table: an answer given that many minutes after noon."""
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    row = dict.fromkeys(annotation_schema({"shop": pl.String()}))
    at = noon + timedelta(minutes=minute)
    times = {"created_at": noon, "updated_at": at, "task_changed_at": at, "event_time": noon}
    return {
        **row,
        **times,
        "sample_id": annotation_id,
        "shop": annotation_id,
        "task_id": 1,
        "annotation_id": annotation_id,
        "annotator": "ann",
        "event": "created",
        "choice": "fine",
        "was_cancelled": False,
        "result": "[]",
        **changes,
    }


def _sample(sales: pl.LazyFrame) -> pl.DataFrame:
    return sales.collect()


QUESTION = LabelingTask(
    name="state",
    title="State of the shop",
    config='<View><Choices name="state" toName="text"><Choice value="fine"/></Choices></View>',
    control="state",
    choices=("fine",),
    inputs={"sales": Input("validated/sales")},
    sample=_sample,
    keys=("shop",),
    task=dict,
    unreviewed="accept",
)


@pytest.fixture
def origin(tmp_path: Path, s3: S3) -> Origin:
    """A repository with one commit, and no release."""
    return Origin.begin(tmp_path, s3)
