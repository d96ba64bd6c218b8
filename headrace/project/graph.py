"""The graph of a dataset: its stages in the order data flows, for the command line, DVC and the workers alike."""

from collections.abc import Iterable

from headrace.dataset import Dataset
from headrace.engine.stage import Stage
from headrace.errors import HeadraceError
from headrace.label.stage import label_stage
from headrace.project.loading import load_dataset
from headrace.transform.stage import feature_stage
from headrace.validate.stage import validation_stage


def dataset_stages(dataset: Dataset) -> tuple[Stage, ...]:
    """Every stage of `dataset`, each after the ones it reads from."""
    return (
        *(validation_stage(dataset, source) for source in dataset.sources),
        *(feature_stage(dataset, table) for table in dataset.features),
        *(label_stage(dataset, labeling) for labeling in dataset.labels),
    )


def command_stages(dataset: Dataset, command: str, tables: Iterable[str] = ()) -> tuple[Stage, ...]:
    """The stages of one command, or those of them whose tables are named.

    Raises:
        HeadraceError: The command makes no table of that name.
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
    """The stage of the dataset named `dataset` that makes `table`."""
    return next(stage for stage in dataset_stages(load_dataset(dataset)) if stage.table == table)
