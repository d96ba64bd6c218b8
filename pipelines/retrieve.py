"""requests → training rows: for each row the features as they were known at its time.

N rows in, N rows out, in order. A request names the keys and a time with a zone (`event_timestamp`); the answer is the
request with a column `<table>__<feature>` for every feature of the dataset's service, null where there was none.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from pipelines import parquet
from pipelines.dataset import Dataset
from pipelines.settings import Settings
from pipelines.systems.feature_store.errors import FeatureStoreError, RequestRefusedError
from pipelines.table import Lake

if TYPE_CHECKING:
    from feast import FeatureStore


@dataclass(frozen=True)
class Retrieved:
    """What a retrieval wrote.

    Attributes:
        rows: Rows in, and rows out.
        release: The release that was read; empty for the workspace's tables.
        answered: Feature table → rows that got a value of it.
        path: Where the rows are.
    """

    rows: int
    release: str
    answered: Mapping[str, int]
    path: Path


def retrieve(  # noqa: PLR0913, PLR0917  two files, and whose rows they are
    dataset: Dataset,
    lake: Lake,
    settings: Settings,
    requests: Path,
    out: Path,
    names: Sequence[str] = (),
    release: str | None = None,
) -> Retrieved:
    """Answer the rows of the Parquet file `requests` into the Parquet file `out`, whole or not at all.

    Args:
        dataset: Whose features.
        lake: The workspace.
        settings: Where the registry is that says which release is published.
        requests: Rows with keys and times.
        out: Where the answers go.
        names: Features, as `<table>:<feature>`; all of the dataset's service if there are none.
        release: The release to read, published or not; by default the published one.

    Raises:
        RequestRefusedError: The requests can not be read, or lack a key or a time.
        HeadraceError: Nothing is published, or a partition can not be read.
    """
    if not requests.exists():
        raise RequestRefusedError(f"Expected the requests in {requests}, seen no such file.")
    given = _read(requests)
    with _opened(dataset, lake, settings, release) as store:
        rows = features(dataset, store, given, names)
        shown = _release(dataset, store)
    _write(rows, out)
    return Retrieved(rows.height, shown, _answered(dataset, rows), out)


@contextmanager
def _opened(dataset: Dataset, lake: Lake, settings: Settings, release: str | None) -> Iterator["FeatureStore"]:
    from pipelines.systems.feature_store.store import close_store, open_store  # noqa: PLC0415  Feast takes seconds to import
    from pipelines.systems.feature_store.tables import tables_of  # noqa: PLC0415

    if release is None:
        store = open_store(lake.root / "feature_repo", settings)
        try:
            yield store
        finally:
            close_store(store)
    else:
        with tables_of(dataset, lake, release) as store:
            yield store


def features(
    dataset: Dataset, store: "FeatureStore", requests: pl.DataFrame, names: Sequence[str] = ()
) -> pl.DataFrame:
    """The requests with the features `names` (`<table>:<feature>`), or with all of the dataset's service.

    Raises:
        FeatureStoreError: The service is not published, or has no such feature.
        RequestRefusedError: A key or the time is missing or of the wrong type.
    """
    from pipelines.systems.feature_store.offline import Retrieval  # noqa: PLC0415

    known = _references(dataset, store)
    chosen = {name: _known(name, known, dataset) for name in names or known}
    job = store.get_historical_features(requests, [*chosen.values()], full_feature_names=True)
    if not isinstance(job, Retrieval):
        raise FeatureStoreError(
            f"Expected our own offline store, seen {type(job).__name__}: other stores may lose rows in silence."
            " Set offline_store.type in feature_repo/feature_store.yaml back to what was shipped."
        )
    rows = job.to_polars().rename({_column(reference): _column(name) for name, reference in chosen.items()})
    if rows.height != requests.height:
        raise AssertionError(f"{requests.height} rows in, {rows.height} rows out")
    return rows


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
    if name not in known:
        near = get_close_matches(name, known, n=3) or sorted(known)
        raise FeatureStoreError(
            f"{dataset.service} has no feature {name}; there is {', '.join(near)}. A feature that was declared since"
            f" the last release is there after `headrace publish {dataset.name}`."
        )
    return known[name]


def _read(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RequestRefusedError(
            f"{path}: expected a Parquet file of requests; {str(error).splitlines()[0]}. Write it again."
        ) from error


def _write(rows: pl.DataFrame, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        parquet.write(rows, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _release(dataset: Dataset, store: "FeatureStore") -> str:
    return str(store.get_feature_service(dataset.service).tags.get("release", ""))


def _answered(dataset: Dataset, rows: pl.DataFrame) -> dict[str, int]:
    return {
        table.name: rows.select(pl.any_horizontal(pl.col(f"^{table.name}__.*$").is_not_null()).sum()).item()
        for table in dataset.features
        if any(name.startswith(f"{table.name}__") for name in rows.columns)
    }
