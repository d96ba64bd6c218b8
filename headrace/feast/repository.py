"""The Feast repository of a project: what `feature_repo/definitions.py` offers to `feast apply`, `plan` and `serve`."""

import logging
from pathlib import Path

from feast import Entity, FeatureService, FeatureView

from headrace.feast.definitions import DeploymentState, dataset_objects, refuse_same_names
from headrace.feast.open import feature_store
from headrace.project.loading import load_datasets
from headrace.settings import load_settings
from headrace.workspace import use_project

log = logging.getLogger(__name__)


def feast_objects(repository: Path) -> dict[str, Entity | FeatureView | FeatureService]:
    """Every entity, view and service of every dataset, each under a name of its own: Feast registers module members.

    Which slot is live, and what it holds, comes from the registry: applying the definitions by hand switches nothing.
    A dataset that cannot be loaded is logged, and keeps what is registered.

    Args:
        repository: Folder with `feature_store.yaml`, in the project.

    Raises:
        NameConflictError: Two datasets call a feature table or a service the same.
    """
    use_project(repository.parent)
    loaded, broken = load_datasets()
    for error in broken.values():
        log.error("%s", error)
    datasets = [dataset for dataset in loaded if dataset.features]
    refuse_same_names(datasets)
    with feature_store(repository, load_settings(repository.parent)) as store:
        every = [one for dataset in datasets for one in dataset_objects(dataset, DeploymentState.read(store, dataset))]
    return {f"{one.name}_{type(one).__name__.lower()}": one for one in every}
