"""requests → training rows: for each row the features as they were known at its time.

N rows in, N rows out, in order. A request names the keys and a time with a zone (`event_timestamp`); the answer is the
request with a column `<table>__<feature>` for every feature of the dataset's service, null where there was none. At a
release the answer is the same bytes for ever: objects are named by their hashes, and read from the remote if need be.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from headrace.retrieve.training_set import Question, TrainingSet
from headrace.storage import parquet
from headrace.storage.table_store import Lake

if TYPE_CHECKING:
    from feast import FeatureStore

    from headrace.feast.retrieval_job import Retrieval
    from headrace.retrieve.result import Answer
    from headrace.settings import Settings


@dataclass(frozen=True)
class Asked:
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
class Retrieved:
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


def retrieve(  # noqa: PLR0913, PLR0917  two files, and whose rows they are
    dataset: Dataset, lake: Lake, settings: "Settings", requests: Path, out: Path, asked: Asked | None = None
) -> Retrieved:
    """Answer the rows of the Parquet file `requests` into the Parquet file `out`, whole or not at all.

    It uses the memory that `feature_store.yaml` sets, however many rows there are.

    Raises:
        RequestRefusedError: The requests can not be read, or lack a key or a time.
        TrainingSetDiffersError: The answer is not what the lock file says; nothing was written.
        HeadraceError: Nothing is published, there is no such release, or a partition can not be read.
    """
    if not requests.exists():
        raise RequestRefusedError(f"Expected the requests in {requests}, seen no such file.")
    asked = asked or Asked()
    locked = TrainingSet.read(asked.lock) if asked.lock else None
    if locked:
        names, release = asked.names or locked.question.features, asked.release or locked.question.release
        asked = Asked(names, release, asked.split, asked.lock)
    job, shown = _answered(dataset, lake, settings, _checked(requests), asked)
    answer = _Answer(dataset, lake, job, asked, shown)
    with failpoints.failpoint("training rows"):
        parquet.write_all(answer.frames(locked), out)
    made = answer.training_set
    if made and not locked and asked.lock:
        made.write(asked.lock)
    splits, leaks = (_sizes(out), _leaks(dataset, out)) if asked.split else ({}, {})
    return Retrieved(answer.seen.rows, shown, answer.answered, out, splits, leaks, made.id if made else "")


def _answered(dataset: Dataset, lake: Lake, settings: "Settings", requests: Path, asked: Asked) -> tuple["Answer", str]:
    """The answer, and the release that gives it: a release by its own tables, else what Feast has as published."""
    if asked.release is not None:
        return at_release(dataset, lake, asked.release, requests, asked.names), asked.release
    with opened(lake, settings) as store:
        job = retrieval(dataset, store, requests, asked.names)
        return job, str(store.get_feature_service(dataset.service).tags.get("release", ""))


class _Answer:
    """The rows of one retrieval on their way to the file, counted and hashed as they pass."""

    def __init__(self, dataset: Dataset, lake: Lake, job: "Answer", asked: Asked, release: str) -> None:
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
        question = Question.of(self.dataset, self.release, names, split, as_known=self.job.as_known)
        asked = [view for view in views(self.dataset).values() if view.name in question.declared]
        files = {view.name: manifest(self.lake, view.table, self.release) for view in asked}
        hashes = {name: fingerprint(digest([table])) for name, table in files.items()}
        return TrainingSet(question, hashes, self.seen.of(self.job.given), self.seen.of())


@contextmanager
def opened(lake: Lake, settings: "Settings") -> Iterator["FeatureStore"]:
    """Feast's store, with what is published."""
    from headrace.feast.open import close_store, open_store  # noqa: PLC0415  Feast takes seconds to import

    store = open_store(lake.root / "feature_repo", settings)
    try:
        yield store
    finally:
        close_store(store)


def at_release(dataset: Dataset, lake: Lake, release: str, requests: object, names: Sequence[str] = ()) -> "Answer":
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
    from headrace.retrieve.result import Answer  # noqa: PLC0415  Arrow is for who asks

    there = views(dataset)
    known = {name: name for view in there.values() for name in view.references}
    wanted = names or [name for table in dataset.features for name in there[table.name].references]
    if not wanted:
        raise FeatureStoreError(f"{dataset.name} declares no features: see pipelines/{dataset.name}/__init__.py.")
    chosen: dict[str, dict[str, str]] = {}
    for name in wanted:
        view, _, feature = _known(name, known, dataset).partition(":")
        chosen.setdefault(view, {})[feature] = _column(name)
    lookups = [Lookup.of(there[view], release, columns) for view, columns in chosen.items()]
    options, rows = Reading.at(lake.root / "feature_repo"), Requests.of(requests)
    join = Join(lake, rows, lookups, options.as_known, options.verify, options.memory_mb << 20).checked()
    for lookup in lookups:
        join.manifest(lookup)
    answered = [column for lookup in lookups for column in lookup.features.values()]
    return Answer(join.frames, rows.schema.names(), answered, as_known=options.as_known)


def features(
    dataset: Dataset, store: "FeatureStore", requests: pl.DataFrame, names: Sequence[str] = ()
) -> pl.DataFrame:
    """The requests with the features `names` (`<table>:<feature>`), or with all of the dataset's service."""
    return retrieval(dataset, store, requests, names).to_polars()


def retrieval(dataset: Dataset, store: "FeatureStore", requests: object, names: Sequence[str] = ()) -> "Retrieval":
    """The same, computed when its rows are asked for: as Polars, pandas, Arrow batches or a Parquet file.

    Raises:
        FeatureStoreError: The service is not published, or has no such feature.
        RequestRefusedError: A key or the time is missing or of the wrong type.
    """
    from headrace.feast.retrieval_job import Retrieval  # noqa: PLC0415

    known = _references(dataset, store)
    chosen = {name: _known(name, known, dataset) for name in names or known}
    job = store.get_historical_features(requests, [*chosen.values()], full_feature_names=True)
    if not isinstance(job, Retrieval):
        raise FeatureStoreError(
            f"Expected our own offline store, seen {type(job).__name__}: other stores may lose rows in silence."
            " Set offline_store.type in feature_repo/feature_store.yaml back to what was shipped."
        )
    return job.renamed({_column(reference): _column(name) for name, reference in chosen.items()})


def _references(dataset: Dataset, store: "FeatureStore") -> dict[str, str]:
    """`<table>:<feature>` → how Feast refers to it on the side that is live."""
    from feast.errors import FeastObjectNotFoundException  # noqa: PLC0415

    try:
        service = store.get_feature_service(dataset.service)
    except FeastObjectNotFoundException as error:
        there = ", ".join(sorted(found.name for found in store.list_feature_services())) or "none"
        raise FeatureStoreError(
            f"Expected the service {dataset.service!r} in Feast's registry. Services there: {there}."
            f" `headrace publish {dataset.name}` puts it there."
        ) from error
    views = service.feature_view_projections
    return {f"{view.name_to_use()}:{own.name}": f"{view.name}:{own.name}" for view in views for own in view.features}


def _column(reference: str) -> str:
    """How Feast names the column of a feature."""
    return reference.replace(":", "__")


def _known(name: str, known: Mapping[str, str], dataset: Dataset) -> str:
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


def _checked(path: Path) -> Path:
    """The path, if a Parquet file is there."""
    try:
        pl.read_parquet_schema(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RequestRefusedError(
            f"{path}: expected a Parquet file of requests; {str(error).splitlines()[0]}. Write it again."
        ) from error
    return path


def _sizes(path: Path) -> dict[str, int]:
    counted = pl.scan_parquet(path).group_by(COLUMN).agg(pl.len()).sort(COLUMN).collect()
    return dict(counted.iter_rows())


def _leaks(dataset: Dataset, path: Path) -> dict[str, Leak]:
    rows = pl.scan_parquet(path)
    there = set(rows.collect_schema())
    tables = [table for table in dataset.features if {*table.keys, "event_timestamp"} <= there]
    return {table.name: leak(rows, table.keys, table.ttl) for table in tables}
