"""The graph of a dataset: its stages in the order data flows, for the command line, DVC and the workers alike."""

from collections.abc import Iterable

from pipelines import label, transform, validate
from pipelines.dataset import Dataset
from pipelines.datasets import load
from pipelines.engine.stage import Stage
from pipelines.errors import HeadraceError


def stages(dataset: Dataset) -> tuple[Stage, ...]:
    """Every stage of `dataset`, each after the ones it reads from."""
    return (
        *(validate.stage(dataset, source) for source in dataset.sources),
        *(transform.stage(dataset, table) for table in dataset.features),
        *(label.stage(dataset, labeling) for labeling in dataset.labels),
    )


def of_verb(dataset: Dataset, verb: str, names: Iterable[str] = ()) -> tuple[Stage, ...]:
    """The stages of one verb, or those of them whose tables are named.

    Raises:
        HeadraceError: A name is no table of that verb.
    """
    found = {stage.name: stage for stage in stages(dataset) if stage.verb == verb}
    wanted = tuple(names) or tuple(found)
    for name in wanted:
        if name not in found:
            raise HeadraceError(f"{verb} {dataset.name}: there is no table {name!r}. Its tables: {', '.join(found)}.")
    return tuple(found[name] for name in wanted)


def stage(dataset: str, table: str) -> Stage:
    """The stage of the dataset named `dataset` that makes `table`."""
    return next(stage for stage in stages(load(dataset)) if stage.table == table)
