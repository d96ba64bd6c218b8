"""What Feast knows of a dataset, made from its declaration: entities, views and the service.

Every feature table has two physical views, `<table>__a` and `<table>__b`. The service shows one side under the names
`<table>`; the next release is loaded into the other, the standby. The tags of a view say which release it holds.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import polars as pl
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field
from feast.errors import FeastObjectNotFoundException

from headrace.dataset import Dataset, FeatureTable
from headrace.feast.data_source import FeatureTableSource
from headrace.feast.types import KEY, STAMP, kind_of
from headrace.retrieve.errors import NameConflictError, ReservedNameError
from headrace.retrieve.partition_reader import WORKSPACE, table_name

SIDES = ("a", "b")
VERIFICATION_TAGS = ("digest", "as_of", "seals", "fence")
"""Tags of a view that say what it was proved to hold."""


@dataclass(frozen=True)
class SlotState:
    """What one side holds, as its tags say.

    Attributes:
        side: `a` or `b`.
        release: Name of the release; empty for tables of the workspace that are no release.
        digest: What the side was proved to hold; empty while it is being loaded, and before.
        as_of: The time that its values are the latest at, ISO 8601.
        seals: Feature table → checksum of the keys that it was proved to hold.
        fence: The last publisher that had taken the lead in the online store when that was proved.
    """

    side: str
    release: str = WORKSPACE
    digest: str = ""
    as_of: str = ""
    seals: str = ""
    fence: str = ""

    @property
    def tags(self) -> dict[str, str]:
        """The state as tags."""
        return dict(vars(self))

    @classmethod
    def from_tags(cls, side: str, tags: dict[str, str]) -> Self:
        """The state that the tags of `side` record."""
        verified = {name: tags.get(name, "") for name in VERIFICATION_TAGS}
        return cls(side, tags.get("release", WORKSPACE), **verified)


@dataclass(frozen=True)
class DeploymentState:
    """What the registry says is online for one dataset.

    Attributes:
        live: What the service shows.
        standby: What it does not.
        views: Every view that is registered, of other datasets too, by its name.
        service: The service; None before the first publish.
    """

    live: SlotState
    standby: SlotState
    views: Mapping[str, FeatureView] = field(default_factory=dict, compare=False, repr=False)
    service: FeatureService | None = field(default=None, compare=False, repr=False)

    @classmethod
    def read(cls, store: FeatureStore, dataset: Dataset) -> Self:
        """Read it from the registry itself, past Feast's cache; before the first publish, side `b` is the standby."""
        try:
            found = store.registry.get_feature_service(dataset.service, store.project, allow_cache=False)
        except FeastObjectNotFoundException:
            found = None
        side = found.tags.get("side", SIDES[0]) if found else SIDES[0]
        views = {view.name: view for view in store.registry.list_feature_views(store.project, allow_cache=False)}
        live, standby = (_slot_state(dataset, views, one) for one in (side, SIDES[1 - SIDES.index(side)]))
        return cls(live, standby, views, found)


def _slot_state(dataset: Dataset, views: Mapping[str, FeatureView], side: str) -> SlotState:
    """What all views of the side agree on; nothing if they do not."""
    there = [views.get(physical_view_name(table, side)) for table in dataset.features]
    found = {SlotState.from_tags(side, dict(view.tags)) if view else SlotState(side) for view in there}
    return found.pop() if len(found) == 1 else SlotState(side)


def without_lost_verification(view: FeatureView, fence: int) -> FeatureView | None:
    """The view without its verification tags, if an online store with that fence lost what they say; else None."""
    known = int(view.tags.get("fence") or 1)
    if not view.tags.get("digest") or known <= fence:
        return None
    view.tags = {name: value for name, value in view.tags.items() if name not in VERIFICATION_TAGS}
    return view


def physical_view_name(table: FeatureTable, side: str) -> str:
    """Name of the view that holds `table` on `side`."""
    return f"{table.name}__{side}"


def key_type(table: FeatureTable, key: str) -> pl.DataType:
    """Polars type of a join key."""
    return table.key_types.get(key, pl.String())


def entities(tables: Iterable[FeatureTable]) -> dict[str, Entity]:
    """Join key → entity, one for every key of any table."""
    types = {key: kind_of(key, key_type(table, key)).feast for table in tables for key in table.keys}
    return {key: Entity(name=key, join_keys=[key], value_type=kind.to_value_type()) for key, kind in types.items()}


def feature_view(dataset: Dataset, table: FeatureTable, slot_state: SlotState) -> FeatureView:
    """The physical view of `table` on the slot's side, reading the table at the slot's release.

    Raises:
        ReservedNameError: A feature has the name of a column that the online stores add.
    """
    for name in (KEY, STAMP):
        if name in table.features:
            raise ReservedNameError(
                f"{dataset.name}: the feature {table.name}.{name} has the name of a column that the online store adds."
                f" Rename it in pipelines/{dataset.name}/, then run `headrace run {dataset.name}`."
            )
    columns: dict[str, Any] = {key: key_type(table, key) for key in table.keys} | dict(table.features)
    name = physical_view_name(table, slot_state.side)
    known = entities([table])
    return FeatureView(
        name=name,
        entities=[known[key] for key in table.keys],
        ttl=table.ttl,
        schema=[Field(name=column, dtype=kind_of(column, kind).feast) for column, kind in columns.items()],
        source=FeatureTableSource(
            name=name, table=table_name(dataset, table), release=slot_state.release, owner=dataset.owner
        ),
        tags={"dataset": dataset.name, **slot_state.tags},
        owner=dataset.owner,
        description=table.description,
    )


def feature_service(dataset: Dataset, slot_state: SlotState) -> FeatureService:
    """The service with the slot's views under the tables' own names: the alias that a publish switches."""
    return FeatureService(
        name=dataset.service,
        features=[feature_view(dataset, table, slot_state).with_name(table.name) for table in dataset.features],
        tags={"dataset": dataset.name, **slot_state.tags},
        owner=dataset.owner,
        description=dataset.description,
    )


def refuse_same_names(datasets: Iterable[Dataset]) -> None:
    """Views and services of all datasets are in one registry, under the names that serving code asks for.

    Raises:
        NameConflictError: Two datasets call a feature table or a service the same.
    """
    owners: dict[str, str] = {}
    for dataset in datasets:
        for name in (dataset.service, *(table.name for table in dataset.features)):
            if owners.setdefault(name, dataset.name) != dataset.name:
                raise name_conflict(name, dataset.name, owners[name])


def name_conflict(name: str, dataset: str, owner: str) -> NameConflictError:
    """The error of a dataset that comes second."""
    return NameConflictError(
        f"{dataset} names a feature table or service {name}, and so does {owner}: serving code could not tell them"
        f" apart, and one would overwrite the other. Nothing was changed. Rename it in pipelines/{dataset}/, for"
        f" example to {dataset}_{name}."
    )


def dataset_objects(dataset: Dataset, deployment: DeploymentState) -> list[Entity | FeatureView | FeatureService]:
    """Every Feast object of the dataset with its present release, so that applying them by hand switches nothing."""
    sides = (deployment.live, deployment.standby)
    views = [feature_view(dataset, table, slot_state) for table in dataset.features for slot_state in sides]
    return [*entities(dataset.features).values(), *views, feature_service(dataset, deployment.live)]
