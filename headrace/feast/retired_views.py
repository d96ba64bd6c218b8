"""Views of feature tables that were dropped or renamed: their registration in Feast and their values, in both slots.

A view that a service shows stays: readers would get errors. A publish switches the service to what is declared, and
afterwards the views can go.
"""

from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feast import FeatureService, FeatureStore, FeatureView

from headrace import failpoints
from headrace.feast.definitions import SIDES
from headrace.feast.online_stores.writer import publisher_of
from headrace.feast.open import feature_store, written_only
from headrace.feast.publish_log import PublishLog
from headrace.settings import Settings


@dataclass(frozen=True)
class RetiredViews:
    """What became of the views of retired feature tables, or would become of them.

    Attributes:
        removed: Views without readers: they were removed with their values.
        served: Views that a service shows; they stay.
        services: Services that were removed with their dataset.
        wait_s: Seconds after which the views can be removed: a server may still read them; 0 if they could be.
    """

    removed: Sequence[str] = ()
    served: Sequence[str] = ()
    services: Sequence[str] = ()
    wait_s: float = 0.0


def retire_views(
    dataset: str, tables: Collection[str] | None, repo: Path, settings: Settings, *, dry_run: bool = True
) -> RetiredViews:
    """Remove the views of feature tables that no service shows, unless it is a dry run.

    Args:
        dataset: Name of the dataset.
        tables: Names of feature tables that are not declared any more; None for the whole dataset, service included.
        repo: Folder with `feature_store.yaml`.
        settings: Where the registry and the online store are.
        dry_run: Change nothing.

    Raises:
        HeadraceError: The registry or the online store cannot be used.
    """
    with feature_store(repo, settings) as store, closing(PublishLog.at(store.config.registry.path, dataset)) as log:
        with log.translated_errors():
            views, services = _views(store, dataset, tables), _services(store)
        own = [service for service in services if tables is None and service.tags.get("dataset") == dataset]
        shown = {one.name for it in services if it not in own for one in it.feature_view_projections}
        removable = [view for view in views if view.name not in shown]
        served = [view.name for view in views if view.name in shown]
        wait_s = 0.0 if tables is None or not removable else _still_read(store, log)
        found = RetiredViews([view.name for view in removable], served, [it.name for it in own], wait_s)
        if not dry_run and not wait_s and (removable or own):
            _remove(store, log, dataset, removable, own)
        if tables is None and not dry_run and not served:
            log.forget()
        return found


def _views(store: FeatureStore, dataset: str, tables: Collection[str] | None) -> list[FeatureView]:
    registered = store.registry.list_feature_views(store.project, allow_cache=False)
    mine = [view for view in registered if view.tags.get("dataset") == dataset]
    names = None if tables is None else {f"{table}__{side}" for table in tables for side in SIDES}
    wanted = (view for view in mine if names is None or view.name in names)
    return sorted(wanted, key=lambda view: str(view.name))


def _services(store: FeatureStore) -> list[FeatureService]:
    return list(store.registry.list_feature_services(store.project, allow_cache=False))


def _still_read(store: FeatureStore, log: PublishLog) -> float:
    """Seconds that a server may go on reading what the last switch took out of the service."""
    noted = log.online()
    age_s = (datetime.now(UTC) - noted.switched_at).total_seconds() if noted else float("inf")
    return max(0.0, float(store.config.registry.cache_ttl_seconds) - age_s)


def _remove(
    store: FeatureStore, log: PublishLog, dataset: str, views: Sequence[FeatureView], services: Sequence[FeatureService]
) -> None:
    """Services first, then values, then what registers them: a view that is still registered is found again."""
    fence = publisher_of(store, dataset).generation()
    with log.hold_lead(log.take_lead(fence)), written_only(store) as registry:
        for service in services:
            with failpoints.failpoint("service of a dropped dataset"):
                registry.delete_feature_service(service.name, store.project)
        for view in views:
            with failpoints.failpoint("values of a dropped view"):
                store.provider.online_store.update(store.config, [view], [], [], [], partial=True)
            with failpoints.failpoint("registration of a dropped view"):
                _delete_source(registry, store.project, view)
                registry.delete_feature_view(view.name, store.project)
        with failpoints.failpoint("entities of dropped views"):
            _delete_entities(registry, store.project, views)


def _delete_source(registry: Any, project: str, view: FeatureView) -> None:  # noqa: ANN401  Feast has no types
    """The view's source, if it is registered."""
    names = {source.name for source in registry.list_data_sources(project, allow_cache=False)}
    if view.batch_source is not None and view.batch_source.name in names:
        registry.delete_data_source(view.batch_source.name, project)


def _delete_entities(registry: Any, project: str, views: Sequence[FeatureView]) -> None:  # noqa: ANN401
    """Entities that only these views had."""
    used = {name for view in registry.list_feature_views(project, allow_cache=False) for name in view.entities}
    known = {entity.name for entity in registry.list_entities(project, allow_cache=False)}
    for name in sorted({name for view in views for name in view.entities} & known - used):
        registry.delete_entity(name, project)


def move_views(old: str, new: str, repo: Path, settings: Settings, *, dry_run: bool = True) -> list[str]:
    """Give the views and the service of a dataset to the dataset of its new name; what is served stays as it is.

    Without that, the next publish would find them to be another dataset's.

    Args:
        old: The dataset before.
        new: The dataset now.
        repo: Folder with `feature_store.yaml`.
        settings: Where the registry is.
        dry_run: Change nothing.

    Returns:
        Names of the views.
    """
    with feature_store(repo, settings) as store, closing(PublishLog.at(store.config.registry.path, old)) as log:
        with log.translated_errors():
            views = _views(store, old, None)
            services = [service for service in _services(store) if service.tags.get("dataset") == old]
        if not dry_run and (views or services):
            fence = publisher_of(store, old).generation()
            with log.hold_lead(log.take_lead(fence)), written_only(store) as registry:
                with failpoints.failpoint("owner of views"):
                    for view in views:
                        view.tags = {**view.tags, "dataset": new}
                        registry.apply_feature_view(view, store.project)
                with failpoints.failpoint("owner of the service"):
                    for service in services:
                        service.tags = {**service.tags, "dataset": new}
                        registry.apply_feature_service(service, store.project)
        if not dry_run:
            log.forget()
        return [view.name for view in views]
