"""A local feature store over the tables of a workspace or a release, without a server or a publish.

What it retrieves is a function of the tables and the declarations alone: a stage of `dvc.yaml` may depend on it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import yaml
from feast import FeatureStore, RepoConfig

from headrace.dataset import Dataset
from headrace.feast.definitions import SlotState, entities, feature_service, feature_view
from headrace.feast.open import close_store
from headrace.retrieve.partition_reader import WORKSPACE
from headrace.storage.table_store import TableStore

SQLITE = "headrace.feast.online_stores.sqlite.HeadraceSQLiteOnlineStore"


# no failpoint: a registry in memory
@contextmanager
def local_feature_store(dataset: Dataset, table_store: TableStore, release: str = WORKSPACE) -> Iterator[FeatureStore]:
    """A store whose service and views show the tables at `release`, by default as the workspace has them now.

    The offline store is the one of `feature_store.yaml`; registry and online store are new, empty and temporary.
    """
    repo = table_store.root / "feature_repo"
    written = yaml.safe_load((repo / "feature_store.yaml").read_text())
    with TemporaryDirectory() as folder:
        own = {
            "registry": {"registry_type": "file", "path": f"{folder}/registry.db"},
            "online_store": {"type": SQLITE, "path": f"{folder}/online.db"},
        }
        config = RepoConfig(**{**written, **own})
        config.repo_path = repo
        store = FeatureStore(config=config)
        shown = SlotState("a", release)
        views = [feature_view(dataset, table, shown) for table in dataset.features]
        store.apply([*entities(dataset.features).values(), *views, feature_service(dataset, shown)])
        try:
            yield store
        finally:
            close_store(store)
