"""The graph of a dataset: its stages in the order of its edges, for the command line, DVC and Dask workers.

The edges are the tables that a stage reads. People stand between the tables that a sample is drawn from and their
answers, so that is no edge: answers are a history, as raw tables are.
"""

from collections.abc import Iterable, Iterator

from headrace.dataset import Dataset
from headrace.engine.stage import Stage
from headrace.errors import HeadraceError
from headrace.project.loading import load_dataset
from headrace.transform.stage import kernel_stage
from headrace.validate.stage import validation_stage


def dataset_stages(dataset: Dataset) -> tuple[Stage, ...]:
    """Every stage of `dataset`, each after those whose tables it reads, else in the order of the declarations."""
    declared = (
        *(validation_stage(dataset, source) for source in dataset.sources),
        *(kernel_stage(dataset, table) for table in dataset.kernel_tables),
        *(_label_stages(dataset) if dataset.labels else ()),
    )
    return tuple(_ordered(declared))


def _ordered(stages: Iterable[Stage]) -> Iterator[Stage]:
    """The stages, each after those whose tables it reads."""
    waiting = {table: stage for stage in stages for table in _tables(stage)}

    def with_inputs(stage: Stage) -> Iterator[Stage]:
        for table in _tables(stage):
            waiting.pop(table, None)
        for read in stage.reads:
            if read in waiting:
                yield from with_inputs(waiting[read])
        yield stage

    while waiting:
        yield from with_inputs(next(iter(waiting.values())))


def transform_stages(dataset: Dataset) -> tuple[Stage, ...]:
    """The stages of `headrace transform`, and with them those that aggregate the labels which they read."""
    read: set[str] = set()
    wanted = []
    for stage in reversed(dataset_stages(dataset)):
        if stage.verb == "transform" or (stage.verb == "label" and not read.isdisjoint(_tables(stage))):
            wanted.append(stage)
            read.update(stage.reads)
    return tuple(reversed(wanted))


def dependent_stages(dataset: Dataset, tables: Iterable[str]) -> tuple[Stage, ...]:
    """The stages that read some of these tables, directly or through others."""
    changed = set(tables)
    found = []
    for stage in dataset_stages(dataset):
        if not changed.isdisjoint(stage.reads):
            found.append(stage)
            changed.update(_tables(stage))
    return tuple(found)


def _tables(stage: Stage) -> tuple[str, ...]:
    return stage.table, *stage.companion_tables


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
