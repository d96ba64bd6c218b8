"""Training rows of what is published, by plain Feast calls: the same rows as `headrace.retrieve` at its release."""

from collections.abc import Sequence
from pathlib import Path

from feast import FeatureStore
from feast.errors import FeastObjectNotFoundException

from headrace.dataset import Dataset
from headrace.feast.open import feature_store
from headrace.feast.retrieval_job import HeadraceRetrievalJob
from headrace.retrieve.errors import FeatureStoreError
from headrace.retrieve.retrieve import Published, feature_column, resolve_feature
from headrace.settings import Settings
from headrace.storage.table_store import TableStore


def published_rows(table_store: TableStore, settings: Settings) -> Published:
    """Answers requests from what Feast's registry has as published."""

    def answer(dataset: Dataset, requests: Path, names: Sequence[str]) -> tuple[HeadraceRetrievalJob, str]:
        with feature_store(table_store.root / "feature_repo", settings) as store:
            job = feast_retrieval(dataset, store, requests, names)
            return job, str(store.get_feature_service(dataset.service).tags.get("release", ""))

    return answer


def feast_retrieval(
    dataset: Dataset, store: FeatureStore, requests: object, names: Sequence[str] = ()
) -> HeadraceRetrievalJob:
    """The requests with the features `names` (`<table>:<feature>`), or with all of the dataset's service.

    Computed when the rows are asked for: as Polars, pandas, Arrow batches or a Parquet file.

    Raises:
        FeatureStoreError: The service is not published, or has no such feature.
        InvalidRequestError: A key or the time is missing or of the wrong type.
    """
    known = _references(dataset, store)
    chosen = {name: resolve_feature(name, known, dataset) for name in names or known}
    job = store.get_historical_features(requests, [*chosen.values()], full_feature_names=True)
    if not isinstance(job, HeadraceRetrievalJob):
        raise FeatureStoreError(
            f"Expected the offline store of Headrace, found {type(job).__name__}: other stores may lose rows silently."
            " Set offline_store.type in feature_repo/feature_store.yaml to"
            " headrace.feast.offline_store.HeadraceOfflineStore."
        )
    return job.renamed({feature_column(reference): feature_column(name) for name, reference in chosen.items()})


def _references(dataset: Dataset, store: FeatureStore) -> dict[str, str]:
    """`<table>:<feature>` → how Feast refers to it on the side that is live."""
    try:
        service = store.get_feature_service(dataset.service)
    except FeastObjectNotFoundException as error:
        there = ", ".join(sorted(found.name for found in store.list_feature_services())) or "none"
        raise FeatureStoreError(
            f"Expected the service {dataset.service!r} in Feast's registry. Services there: {there}."
            f" `headrace publish {dataset.name}` registers it."
        ) from error
    views = service.feature_view_projections
    return {f"{view.name_to_use()}:{own.name}": f"{view.name}:{own.name}" for view in views for own in view.features}
