"""The graph of a dataset: its stages in the order data flows, for the command line, DVC and Dask workers."""

from collections.abc import Iterable, Iterator

from headrace.dataset import Dataset
from headrace.engine.stage import Stage
from headrace.errors import HeadraceError
from headrace.project.loading import load_dataset
from headrace.transform.stage import feature_stage
from headrace.validate.stage import validation_stage


def dataset_stages(dataset: Dataset) -> tuple[Stage, ...]:
    """Every stage of `dataset`, each after those whose tables it reads."""
    return (
        *(validation_stage(dataset, source) for source in dataset.sources),
        *(feature_stage(dataset, table) for table in dataset.features),
        *(_label_stages(dataset) if dataset.labels else ()),
    )


def _label_stages(dataset: Dataset) -> Iterator[Stage]:
    from headrace.label.stage import label_stage  # noqa: PLC0415  a dataset without labels does not pay for the import

    return (label_stage(dataset, labeling) for labeling in dataset.labels)


def command_stages(dataset: Dataset, command: str, tables: Iterable[str] = ()) -> tuple[Stage, ...]:
    """The stages of a command, or those of them that compute `tables`.

    Raises:
        HeadraceError: The command computes no table of that name.
    """
    declared = {stage.name: stage for stage in dataset_stages(dataset) if stage.verb == command}
    wanted = tuple(tables) or tuple(declared)
    for name in wanted:
        if name not in declared:
            raise HeadraceError(
                f"{command} {dataset.name}: there is no table {name!r}. Its tables: {', '.join(declared)}."
            )
    return tuple(declared[name] for name in wanted)


def find_stage(dataset: str, table: str) -> Stage:
    """The stage of the dataset named `dataset` that computes `table`."""
    return next(stage for stage in dataset_stages(load_dataset(dataset)) if stage.table == table)
