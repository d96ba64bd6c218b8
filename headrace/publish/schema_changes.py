"""declaration, registry → what a publish would change in the definitions, and whether it may."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from feast import FeatureService, FeatureView

from headrace.dataset import Dataset, FeatureTable
from headrace.feast.definitions import SIDES, DeploymentState, key_type, name_conflict, physical_view_name
from headrace.feast.types import kind_of
from headrace.retrieve.errors import BreakingChangeError

NEW, GONE, OTHER = "+", "-", "~"


@dataclass(frozen=True)
class DefinitionChange:
    """One thing that is declared otherwise than it is served.

    Attributes:
        sign: `+` for what is new, `-` for what is gone, `~` for what is other than it was.
        what: The table and feature, and how they differ.
        breaks: Whether who asks for it today gets an error or another type.
    """

    sign: str
    what: str
    breaks: bool

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.sign} {self.what}"


def changes(dataset: Dataset, deployment: DeploymentState) -> tuple[DefinitionChange, ...]:
    """What differs between the declaration and the side that is live; all is new before the first publish."""
    return tuple(
        change
        for table in dataset.features
        for change in _of_table(table, deployment.views.get(physical_view_name(table, deployment.live.side)))
    ) + tuple(_gone(dataset, deployment.service))


def refuse_breaks(dataset: Dataset, found: tuple[DefinitionChange, ...]) -> None:
    """Let nobody lose a feature unasked.

    Raises:
        BreakingChangeError: A feature would be gone or of another type.
    """
    breaks = [str(change) for change in found if change.breaks]
    if breaks:
        raise BreakingChangeError(
            f"{dataset.service}: features that are served would be removed or change their type: {'; '.join(breaks)}."
            " Nothing was changed. To rename a feature, add the new name first, and remove the old one when nobody"
            f" reads it. To do it at once, run `headrace publish {dataset.name} --allow-breaking-changes`."
        )


def refuse_taken(dataset: Dataset, deployment: DeploymentState) -> None:
    """Let no dataset write over what another one serves.

    Raises:
        NameConflictError: A view of that name, or the service, is another dataset's.
    """
    views = [deployment.views.get(physical_view_name(table, side)) for table in dataset.features for side in SIDES]
    for found in (*views, deployment.service):
        owner = found.tags.get("dataset", dataset.name) if found else dataset.name
        if found and owner != dataset.name:
            raise name_conflict(found.name.removesuffix("__a").removesuffix("__b"), dataset.name, owner)


def is_other(view: FeatureView, table: FeatureTable) -> bool:
    """Whether the view is registered with other columns than `table` declares."""
    return _columns(view) != _declared(table)


def _of_table(table: FeatureTable, view: FeatureView | None) -> Iterator[DefinitionChange]:
    if view is None:
        yield DefinitionChange(NEW, f"{table.name}: {', '.join(table.features)}", breaks=False)
        return
    had, has = _columns(view), _declared(table)
    for name in has.keys() - had.keys():
        yield DefinitionChange(NEW, f"{table.name}.{name} {has[name]}", breaks=name in table.keys)
    for name in had.keys() - has.keys():
        yield DefinitionChange(GONE, f"{table.name}.{name} {had[name]}", breaks=True)
    for name in has.keys() & had.keys():
        if has[name] != had[name]:
            yield DefinitionChange(OTHER, f"{table.name}.{name} {had[name]} → {has[name]}", breaks=True)
    ttl = view.ttl or timedelta(0)
    if ttl != table.ttl:
        yield DefinitionChange(OTHER, f"{table.name} ttl {ttl} → {table.ttl}", breaks=False)


def _gone(dataset: Dataset, service: FeatureService | None) -> Iterator[DefinitionChange]:
    """Tables that the service shows and nobody declares any more."""
    if service is None:
        return
    declared = {table.name for table in dataset.features}
    for projection in service.feature_view_projections:
        if projection.name_to_use() not in declared:
            yield DefinitionChange(GONE, projection.name_to_use(), breaks=True)


def _columns(view: FeatureView) -> Mapping[str, str]:
    return {field.name: str(field.dtype) for field in (*view.entity_columns, *view.features)}


def _declared(table: FeatureTable) -> Mapping[str, str]:
    keys = {key: key_type(table, key) for key in table.keys}
    return {name: str(kind_of(name, kind).feast) for name, kind in {**keys, **table.features}.items()}
