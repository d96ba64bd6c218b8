"""Retrieval: requests → training rows, each with the features as they were known at its time.

N rows in, N rows out, in order. A request has the join keys and a time with a zone (`event_timestamp`). The result adds
a column `<table>__<feature>` for every feature of the dataset's service, null if there was no value. At a release the
result is the same bytes forever: partitions are named by their hashes, and fetched from the remote if need be.
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
from headrace.retrieve.errors import FeatureStoreError, InvalidRequestError
from headrace.retrieve.joinable_tables import joinable_tables
from headrace.retrieve.partition_reader import partition_hashes, read_manifest
from headrace.retrieve.row_hash import RowHasher, hash_lines
from headrace.retrieve.splits import SPLIT_COLUMN, Split, SplitLeakage, measure_leakage
from headrace.retrieve.training_set import TrainingSet, TrainingSetSpec
from headrace.storage import parquet
from headrace.storage.pruned_releases import PrunedReleaseError, check_not_pruned
from headrace.storage.table_store import TableStore

if TYPE_CHECKING:
    from headrace.retrieve.result import RetrievalResult


@dataclass(frozen=True)
class FeatureRequest:
    """What to retrieve.

    Attributes:
        features: References `<table>:<feature>`, in the order of the columns; by default every feature of the dataset.
        release: The release to read, published or not; by default the release of the lock file, else the published one.
        split: Assigns each row to a split; adds a column `split`.
        lock_file: Lock file of the training set. It is written if it does not exist; otherwise the rows must be the
            locked ones.
    """

    features: Sequence[str] = ()
    release: str | None = None
    split: Split | None = None
    lock_file: Path | None = None


@dataclass(frozen=True)
class RetrievalReport:
    """What a retrieval wrote.

    Attributes:
        rows: Number of rows, of the requests and of the file.
        release: The release that was read; empty for the workspace's tables.
        matched_rows: Feature table → number of rows with at least one value of it.
        path: The file.
        split_rows: Split → number of rows.
        leakage: Feature table → what the splits share, by the keys of the table and within its TTL.
        training_set_id: Identifier of the locked training set; empty without a lock file.
    """

    rows: int
    release: str
    matched_rows: Mapping[str, int]
    path: Path
    split_rows: Mapping[str, int] = field(default_factory=dict)
    leakage: Mapping[str, SplitLeakage] = field(default_factory=dict)
    training_set_id: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        return {**vars(self), "leakage": {table: found.to_dict() for table, found in self.leakage.items()}}


Published = Callable[[Dataset, Path, Sequence[str]], tuple["RetrievalResult", str]]
"""Dataset, requests, features → what the published release answers, and its name. `headrace.feast.retrieve` has it."""


def retrieve(  # noqa: PLR0913, PLR0917  two files, and whose rows they are
    dataset: Dataset,
    table_store: TableStore,
    published: Published,
    requests: Path,
    out: Path,
    asked: FeatureRequest | None = None,
) -> RetrievalReport:
    """Write the rows of the Parquet file `requests` with their features to the Parquet file `out`, atomically.

    The memory it uses is bounded by `feature_store.yaml`, whatever the number of rows.

    Args:
        dataset: The dataset whose features are retrieved.
        table_store: The workspace with its tables.
        published: Retrieves from the published release, if neither `asked` nor its lock file names a release.
        requests: Parquet file of join keys and `event_timestamp`.
        out: Parquet file to write.
        asked: The features, the release, the split and the lock file.

    Raises:
        InvalidRequestError: The requests cannot be read, or lack a key or a time.
        TrainingSetMismatchError: The rows are not the locked ones; nothing was written.
        PrunedReleaseError: The release was pruned.
        HeadraceError: Nothing is published, there is no such release, or a partition cannot be read.
    """
    if not requests.exists():
        raise InvalidRequestError(f"Expected the requests in {requests}, found no such file.")
    asked = asked or FeatureRequest()
    locked = TrainingSet.read(asked.lock_file) if asked.lock_file else None
    if locked:
        _check_release_is_kept(table_store, locked, asked)
        names, release = asked.features or locked.spec.features, asked.release or locked.spec.release
        asked = FeatureRequest(names, release, asked.split, asked.lock_file)
    _check_requests(requests)
    if asked.release is None:
        job, shown = published(dataset, requests, asked.features)
    else:
        job, shown = retrieve_at_release(dataset, table_store, asked.release, requests, asked.features), asked.release
    answer = _Answer(dataset, table_store, job, asked, shown)
    with failpoints.failpoint("training rows"):
        parquet.write_all(answer.frames(locked), out)
    made = answer.training_set
    if made and not locked and asked.lock_file:
        made.write(asked.lock_file)
    splits, leaks = (_sizes(out), _leaks(dataset, out)) if asked.split else ({}, {})
    return RetrievalReport(answer.seen.rows, shown, answer.answered, out, splits, leaks, made.id if made else "")


class _Answer:
    """The rows of one retrieval on their way to the file, counted and hashed as they pass."""

    def __init__(
        self, dataset: Dataset, table_store: TableStore, job: "RetrievalResult", asked: FeatureRequest, release: str
    ) -> None:
        self.dataset, self.table_store, self.job, self.asked, self.release = dataset, table_store, job, asked, release
        self.seen = RowHasher()
        self.answered: dict[str, int] = {}
        self.training_set: TrainingSet | None = None
        if asked.lock_file and not release:
            raise HeadraceError(
                f"{dataset.name}: a lock file names a release, and the workspace's tables are not a release. Give"
                f" --release: `git tag --list '{dataset.name}/*'` lists the releases, `headrace release {dataset.name}`"
                " makes one."
            )

    def frames(self, locked: TrainingSet | None) -> Iterator[pl.DataFrame]:
        """The rows; after the last one, and before the file is there, they are held to the lock."""
        for rows in self.job.frames():
            self._count(rows)
            split = rows.with_columns(self.asked.split.assign(rows).alias(SPLIT_COLUMN)) if self.asked.split else rows
            if self.asked.lock_file:
                self.seen.add(split)
            else:
                self.seen.rows += rows.height
            yield split
        if self.asked.lock_file:
            self.training_set = self._training_set()
            if locked:
                locked.check(self.training_set, self.asked.lock_file)

    def _count(self, rows: pl.DataFrame) -> None:
        for view in joinable_tables(self.dataset):
            mine = [name for name in self.job.feature_columns if name.startswith(f"{view}__")]
            if mine:
                found = rows.select(pl.any_horizontal(pl.col(mine).is_not_null()).sum()).item()
                self.answered[view] = self.answered.get(view, 0) + found

    def _training_set(self) -> TrainingSet:
        names = [name.replace("__", ":", 1) for name in self.job.feature_columns]
        split = self.asked.split.to_dict() if self.asked.split else {}
        spec = TrainingSetSpec.from_declarations(self.dataset, self.release, names, split, as_known=self.job.as_known)
        asked = [view for view in joinable_tables(self.dataset).values() if view.name in spec.declarations]
        files = {view.name: read_manifest(self.table_store, view.table, self.release) for view in asked}
        hashes = {name: hash_lines(partition_hashes([table])) for name, table in files.items()}
        return TrainingSet(spec, hashes, self.seen.summary(self.job.request_columns), self.seen.summary())


def retrieve_at_release(
    dataset: Dataset, table_store: TableStore, release: str, requests: object, names: Sequence[str] = ()
) -> "RetrievalResult":
    """Training rows at a release, computed when they are asked for.

    The join is the one that Feast's calls make, but Feast, which is slow to import, is not needed.

    Args:
        dataset: The dataset whose features are retrieved.
        table_store: The workspace with its tables.
        release: A release, published or not; empty for the tables as the workspace has them.
        requests: A Polars, pandas or Arrow table, or the path of a Parquet file, with join keys and `event_timestamp`.
        names: References `<table>:<feature>`; by default every feature. Labels are given if they are named, such as
            `delay_cause:label`.

    Raises:
        UnknownReleaseError: There is no such release.
        InvalidRequestError: A key or the time is missing or of the wrong type.
        FeatureStoreError: The dataset has no such feature.
    """
    from headrace.retrieve.join import Join, Lookup  # noqa: PLC0415
    from headrace.retrieve.options import OfflineStoreOptions  # noqa: PLC0415
    from headrace.retrieve.requests import Requests  # noqa: PLC0415
    from headrace.retrieve.result import RetrievalResult  # noqa: PLC0415  Arrow is for who asks

    there = joinable_tables(dataset)
    known = {name: name for view in there.values() for name in view.references}
    wanted = names or [name for table in dataset.features for name in there[table.name].references]
    if not wanted:
        raise FeatureStoreError(f"{dataset.name} declares no features: see pipelines/{dataset.name}/__init__.py.")
    chosen: dict[str, dict[str, str]] = {}
    for name in wanted:
        view, _, feature = resolve_feature(name, known, dataset).partition(":")
        chosen.setdefault(view, {})[feature] = feature_column(name)
    lookups = [Lookup.from_table(there[view], release, columns) for view, columns in chosen.items()]
    options, rows = OfflineStoreOptions.at(table_store.root / "feature_repo"), Requests.read(requests)
    join = Join(table_store, rows, lookups, options.as_known, options.verify, options.memory_mb << 20).checked()
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
    if name not in known and name in {each for view in joinable_tables(dataset).values() for each in view.references}:
        raise FeatureStoreError(
            f"{name} is not published: labels, and what was declared since the last publish, are retrieved at a"
            f" release. Give --release: `git tag --list '{dataset.name}/*'` lists the releases."
        )
    if name not in known:
        near = get_close_matches(name, known, n=3) or sorted(known)
        raise FeatureStoreError(
            f"{dataset.service} has no feature {name}; there is {', '.join(near)}. `headrace publish {dataset.name}`"
            " publishes a feature that was declared since the last publish."
        )
    return known[name]


def _check_release_is_kept(table_store: TableStore, locked: TrainingSet, asked: FeatureRequest) -> None:
    """Refuse a lock file whose release was pruned: its rows cannot be retrieved again."""
    try:
        check_not_pruned(table_store.root, asked.release or locked.spec.release)
    except PrunedReleaseError as error:
        raise PrunedReleaseError(
            f"{asked.lock_file}: the rows of this training set cannot be retrieved any more. {error} A lock"
            " file that is committed and pushed in time protects its release from `headrace prune`."
        ) from error


def _check_requests(path: Path) -> None:
    """Refuse what is not a Parquet file."""
    try:
        pl.read_parquet_schema(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InvalidRequestError(
            f"{path}: expected a Parquet file of requests; {str(error).splitlines()[0]}. Write it again."
        ) from error


def _sizes(path: Path) -> dict[str, int]:
    counted = pl.scan_parquet(path).group_by(SPLIT_COLUMN).agg(pl.len()).sort(SPLIT_COLUMN).collect()
    return dict(counted.iter_rows())


def _leaks(dataset: Dataset, path: Path) -> dict[str, SplitLeakage]:
    rows = pl.scan_parquet(path)
    there = set(rows.collect_schema())
    tables = [table for table in dataset.features if {*table.keys, "event_timestamp"} <= there]
    return {table.name: measure_leakage(rows, table.keys, table.ttl) for table in tables}
