"""Opens tables, declarations and the feature store of a workspace, for code that is not a command."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.catalog.tables import DatasetTables
from headrace.dataset import Dataset
from headrace.errors import HeadraceError
from headrace.extras import require_extra
from headrace.project import loading
from headrace.release.branches import latest_local_release, list_releases
from headrace.retrieve.errors import UnknownReleaseError
from headrace.settings import load_settings
from headrace.storage.dvc.lock import recorded_outs
from headrace.storage.pruned_releases import check_not_pruned
from headrace.storage.table_store import TableStore
from headrace.workspace import current_workspace, use_project

if TYPE_CHECKING:
    from feast import FeatureStore

LATEST = "latest"
TABLE_PATH = r"data/\w+/\w+/\w+"


class UnknownDatasetError(HeadraceError):
    """The workspace or the release has no table of that dataset."""


def open_dataset(dataset: str | Dataset, *, release: str | None = None, workspace: Path | None = None) -> DatasetTables:
    """The tables of a dataset, read lazily: also in a clone that never ran `dvc pull`.

    Args:
        dataset: Name of the dataset, or its declaration.
        release: A release such as `flights/2`, or `latest`; by default the tables as the workspace has them now.
        workspace: A clone of the project; by default the one of HEADRACE_WORKSPACE or of the current folder.

    Returns:
        Name → table, such as `tables["features/carrier_delays"]`.

    Raises:
        PrunedReleaseError: The release was pruned.
        UnknownReleaseError: This clone has no such release.
        UnknownDatasetError: There is no table of the dataset.
        HeadraceError: The current folder is in no project.

    Examples:
        >>> release = headrace.open("flights", release="flights/1")
        >>> release["features/carrier_delays"]
        <DatasetTable features/carrier_delays: 3 partitions (2013-01-01 … 2013-01-03), 842 rows>
        >>> delays = release["features/carrier_delays"].polars()
        >>> delays.filter(pl.col("carrier") == "UA").select("event_time", "departed_3h").head(2).collect()
        shape: (2, 2)
        ┌─────────────────────────┬─────────────┐
        │ event_time              ┆ departed_3h │
        │ ---                     ┆ ---         │
        │ datetime[μs, UTC]       ┆ i64         │
        ╞═════════════════════════╪═════════════╡
        │ 2013-01-01 11:00:00 UTC ┆ 6           │
        │ 2013-01-01 12:00:00 UTC ┆ 16          │
        └─────────────────────────┴─────────────┘
    """
    settings = load_settings(current_workspace(workspace))
    table_store = TableStore.at(settings.workspace, is_remote_only=settings.commit == "remote")
    name = dataset if isinstance(dataset, str) else dataset.name
    tables = DatasetTables.open(dataset, table_store, _release(table_store, name, release))
    if not tables:
        names = sorted({path.split("/")[2] for path in recorded_outs(table_store.root) if re.match(TABLE_PATH, path)})
        raise UnknownDatasetError(
            f"There is no table of a dataset {name!r} {tables.where}. Datasets with tables:"
            f" {', '.join(names) or 'none'}. `headrace run {name}` computes the tables of a dataset, `git pull` brings"
            " those that others released."
        )
    return tables


def load_dataset(dataset: str, *, workspace: Path | None = None) -> Dataset:
    """The declaration of a dataset, from the code of the project.

    Args:
        dataset: Name of the dataset.
        workspace: As `open`.

    Raises:
        DatasetError: There is no such dataset, or it cannot be loaded.

    Examples:
        >>> [table.name for table in headrace.load_dataset("flights").features]
        ['carrier_delays', 'origin_traffic', 'origin_weather', 'aircraft_history']
    """
    use_project(current_workspace(workspace))
    return loading.load_dataset(dataset)


@contextmanager
def open_feature_store(*, workspace: Path | None = None) -> "Iterator[FeatureStore]":
    """Feast's feature store with the published features, configured by `feature_store.yaml` and the workspace's `.env`.

    Args:
        workspace: As `open`.

    Raises:
        MissingExtraError: Feast, or the driver of the registry or the online store, is not installed.
        NotConfiguredError: A variable of `feature_store.yaml` is not set.
        FeatureStoreError: The registry does not answer.

    Examples:
        >>> with headrace.open_feature_store() as store:
        ...     print(store.project)
        headrace
    """
    require_extra("feast", "headrace.open_feature_store()")
    from headrace.feast.open import feature_store  # noqa: PLC0415  Feast is slow to import

    settings = load_settings(current_workspace(workspace))
    with feature_store(settings.workspace / "feature_repo", settings) as store:
        yield store


def _release(table_store: TableStore, dataset: str, release: str | None) -> str:
    """Name of the release, empty for the workspace."""
    if not release:
        return ""
    if release == LATEST:
        return latest_local_release(table_store, dataset)
    known = list_releases(table_store, dataset)
    if release not in known:
        check_not_pruned(table_store.root, release)
        there = f"{known[0]} to {known[-1]}" if known else "none"
        raise UnknownReleaseError(
            f"{dataset} has no release {release!r} in {table_store.root}. Releases there: {there}. `git fetch --tags`"
            " brings those of others."
        )
    return release
