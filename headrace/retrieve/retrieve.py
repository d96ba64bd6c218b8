"""requests → training rows: for each row the features as they were known at its time.

N rows in, N rows out, in order. A request names the keys and a time with a zone (`event_timestamp`); the answer is the
request with a column `<table>__<feature>` for every feature of the dataset's service, null where there was none. At a
release the answer is the same bytes for ever: objects are named by their hashes, and read from the remote if need be.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace import failpoints
from headrace.dataset import Dataset
from headrace.errors import HeadraceError
from headrace.retrieve.errors import FeatureStoreError, RequestRefusedError
from headrace.retrieve.joinable_tables import views
from headrace.retrieve.partition_reader import digest, manifest
from headrace.retrieve.row_hash import Fingerprint, fingerprint
from headrace.retrieve.splits import COLUMN, Leak, Split, leak
from headrace.retrieve.training_set import TrainingSet, TrainingSetSpec
from headrace.storage import parquet
from headrace.storage.table_store import Lake

if TYPE_CHECKING:
    from headrace.retrieve.result import RetrievalResult


@dataclass(frozen=True)
class FeatureRequest:
    """What is asked of a dataset's features.

    Attributes:
        names: Features, as `<table>:<feature>`; all of the dataset's service if there are none.
        release: The release to read, published or not; by default the locked one, else the published one.
        split: How the rows are split; they get a column `split`.
        lock: Lock file of the training set: written if there is none, else the answer must be what it says.
    """

    names: Sequence[str] = ()
    release: str | None = None
    split: Split | None = None
    lock: Path | None = None


@dataclass(frozen=True)
class RetrievalReport:
    """What a retrieval wrote.

    Attributes:
        rows: Rows in, and rows out.
        release: The release that was read; empty for the workspace's tables.
        answered: Feature table → rows that got a value of it.
        path: Where the rows are.
        splits: Split → rows.
        leaks: Feature table → what the splits have in common by its keys, within its TTL.
        id: Of the training set, if it is locked.
    """

    rows: int
    release: str
    answered: Mapping[str, int]
    path: Path
    splits: Mapping[str, int] = field(default_factory=dict)
    leaks: Mapping[str, Leak] = field(default_factory=dict)
    id: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The same for machines."""
        return {**vars(self), "leaks": {table: found.to_dict() for table, found in self.leaks.items()}}


Published = Callable[[Dataset, Path, Sequence[str]], tuple["RetrievalResult", str]]
"""Dataset, requests, features → what the published release answers, and its name. `headrace.feast.retrieve` has it."""


def retrieve(  # noqa: PLR0913, PLR0917  two files, and whose rows they are
    dataset: Dataset, lake: Lake, published: Published, requests: Path, out: Path, asked: FeatureRequest | None = None
) -> RetrievalReport:
    """Answer the rows of the Parquet file `requests` into the Parquet file `out`, whole or not at all.

    It uses the memory that `feature_store.yaml` sets, however many rows there are.

    Args:
        dataset: Whose features.
        lake: Where its tables are.
        published: Answers where neither `asked` nor its lock file names a release.
        requests: Parquet file of keys and `event_timestamp`.
        out: Parquet file to write.
        asked: Which features, of which release, and what else is wanted.

    Raises:
        RequestRefusedError: The requests can not be read, or lack a key or a time.
        TrainingSetDiffersError: The answer is not what the lock file says; nothing was written.
        HeadraceError: Nothing is published, there is no such release, or a partition can not be read.
    """
    if not requests.exists():
        raise RequestRefusedError(f"Expected the requests in {requests}, seen no such file.")
    asked = asked or FeatureRequest()
    locked = TrainingSet.read(asked.lock) if asked.lock else None
    if locked:
        names, release = asked.names or locked.question.features, asked.release or locked.question.release
        asked = FeatureRequest(names, release, asked.split, asked.lock)
    _check_requests(requests)
    if asked.release is None:
        job, shown = published(dataset, requests, asked.names)
    else:
        job, shown = at_release(dataset, lake, asked.release, requests, asked.names), asked.release
    answer = _Answer(dataset, lake, job, asked, shown)
    with failpoints.failpoint("training rows"):
        parquet.write_all(answer.frames(locked), out)
    made = answer.training_set
    if made and not locked and asked.lock:
        made.write(asked.lock)
    splits, leaks = (_sizes(out), _leaks(dataset, out)) if asked.split else ({}, {})
    return RetrievalReport(answer.seen.rows, shown, answer.answered, out, splits, leaks, made.id if made else "")


class _Answer:
    """The rows of one retrieval on their way to the file, counted and hashed as they pass."""

    def __init__(
        self, dataset: Dataset, lake: Lake, job: "RetrievalResult", asked: FeatureRequest, release: str
    ) -> None:
        self.dataset, self.lake, self.job, self.asked, self.release = dataset, lake, job, asked, release
        self.seen = Fingerprint()
        self.answered: dict[str, int] = {}
        self.training_set: TrainingSet | None = None
        if asked.lock and not release:
            raise HeadraceError(
                f"{dataset.name}: a lock file names a release, and the workspace's tables are none. Give --release;"
                f" `git tag --list '{dataset.name}/*'` lists them, `headrace release {dataset.name}` makes one."
            )

    def frames(self, locked: TrainingSet | None) -> Iterator[pl.DataFrame]:
        """The rows; after the last one, and before the file is there, they are held to the lock."""
        for rows in self.job.frames():
            self._count(rows)
            split = rows.with_columns(self.asked.split.of(rows).alias(COLUMN)) if self.asked.split else rows
            if self.asked.lock:
                self.seen.add(split)
            else:
                self.seen.rows += rows.height
            yield split
        if self.asked.lock:
            self.training_set = self._training_set()
            if locked:
                locked.check(self.training_set, self.asked.lock)

    def _count(self, rows: pl.DataFrame) -> None:
        for view in views(self.dataset):
            mine = [name for name in self.job.answered if name.startswith(f"{view}__")]
            if mine:
                found = rows.select(pl.any_horizontal(pl.col(mine).is_not_null()).sum()).item()
                self.answered[view] = self.answered.get(view, 0) + found

    def _training_set(self) -> TrainingSet:
        names = [name.replace("__", ":", 1) for name in self.job.answered]
        split = self.asked.split.to_dict() if self.asked.split else {}
        question = TrainingSetSpec.of(self.dataset, self.release, names, split, as_known=self.job.as_known)
        asked = [view for view in views(self.dataset).values() if view.name in question.declared]
        files = {view.name: manifest(self.lake, view.table, self.release) for view in asked}
        hashes = {name: fingerprint(digest([table])) for name, table in files.items()}
        return TrainingSet(question, hashes, self.seen.of(self.job.given), self.seen.of())


def at_release(
    dataset: Dataset, lake: Lake, release: str, requests: object, names: Sequence[str] = ()
) -> "RetrievalResult":
    """The answers to `requests` (a frame, or the path of a Parquet file) at a release, computed when asked for.

    The join is the one that Feast's calls make; Feast itself, which takes seconds to import, is not needed. Without
    `names` it is all features; labels are given where they are named, such as `delay_cause:label`.

    Raises:
        UnknownReleaseError: There is no such release.
        RequestRefusedError: A key or the time is missing or of the wrong type.
        FeatureStoreError: The dataset has no such feature.
    """
    from headrace.retrieve.join import Join, Lookup  # noqa: PLC0415
    from headrace.retrieve.options import Reading  # noqa: PLC0415
    from headrace.retrieve.requests import Requests  # noqa: PLC0415
    from headrace.retrieve.result import RetrievalResult  # noqa: PLC0415  Arrow is for who asks

    there = views(dataset)
    known = {name: name for view in there.values() for name in view.references}
    wanted = names or [name for table in dataset.features for name in there[table.name].references]
    if not wanted:
        raise FeatureStoreError(f"{dataset.name} declares no features: see pipelines/{dataset.name}/__init__.py.")
    chosen: dict[str, dict[str, str]] = {}
    for name in wanted:
        view, _, feature = resolve_feature(name, known, dataset).partition(":")
        chosen.setdefault(view, {})[feature] = feature_column(name)
    lookups = [Lookup.of(there[view], release, columns) for view, columns in chosen.items()]
    options, rows = Reading.at(lake.root / "feature_repo"), Requests.of(requests)
    join = Join(lake, rows, lookups, options.as_known, options.verify, options.memory_mb << 20).checked()
    for lookup in lookups:
        join.manifest(lookup)
    answered = [column for lookup in lookups for column in lookup.features.values()]
    return RetrievalResult(join.frames, rows.schema.names(), answered, as_known=options.as_known)


def feature_column(reference: str) -> str:
    """How Feast names the column of a feature."""
    return reference.replace(":", "__")


def resolve_feature(name: str, known: Mapping[str, str], dataset: Dataset) -> str:
    """What `known` has for the feature `name`.

    Raises:
        FeatureStoreError: It has none.
    """
    if name not in known and name in {each for view in views(dataset).values() for each in view.references}:
        raise FeatureStoreError(
            f"{name} is not published: labels, and what was declared since the last publish, are given at a release."
            f" `git tag --list '{dataset.name}/*'` lists them; give one by --release."
        )
    if name not in known:
        near = get_close_matches(name, known, n=3) or sorted(known)
        raise FeatureStoreError(
            f"{dataset.service} has no feature {name}; there is {', '.join(near)}. A feature that was declared since"
            f" the last release is there after `headrace publish {dataset.name}`."
        )
    return known[name]


def _check_requests(path: Path) -> None:
    """Refuse what is not a Parquet file."""
    try:
        pl.read_parquet_schema(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RequestRefusedError(
            f"{path}: expected a Parquet file of requests; {str(error).splitlines()[0]}. Write it again."
        ) from error


def _sizes(path: Path) -> dict[str, int]:
    counted = pl.scan_parquet(path).group_by(COLUMN).agg(pl.len()).sort(COLUMN).collect()
    return dict(counted.iter_rows())


def _leaks(dataset: Dataset, path: Path) -> dict[str, Leak]:
    rows = pl.scan_parquet(path)
    there = set(rows.collect_schema())
    tables = [table for table in dataset.features if {*table.keys, "event_timestamp"} <= there]
    return {table.name: leak(rows, table.keys, table.ttl) for table in tables}
