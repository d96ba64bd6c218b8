"""The tables of other datasets that inputs name, held against the releases that the workspace has fetched."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from headrace.dataset import Dataset, Input, KernelTable, LabelingTask, ReleaseSource
from headrace.errors import HeadraceError
from headrace.ingest.release_source import NoReleaseError, find_released
from headrace.project.declaration_check import locate
from headrace.project.faults import Fault
from headrace.project.findings import Finding
from headrace.project.loading import dataset_names
from headrace.text import closest


def find_unreleased(datasets: Iterable[Dataset], root: Path) -> Iterator[Finding]:
    """Findings of `headrace check`: datasets, releases and tables that are not there.

    A dataset without a release is a warning: the workspace may not have fetched it.
    """
    for dataset in datasets:
        for declared in (*dataset.kernel_tables, *dataset.labels):
            for path, read in _reads(declared):
                if fault := _fault(dataset, declared, path, read, root):
                    yield locate(fault, dataset, root)


def _reads(declared: KernelTable | LabelingTask) -> Iterator[tuple[tuple[str, ...], Input]]:
    inputs: Mapping[tuple[str, ...], Input] = {("inputs", name): read for name, read in declared.inputs.items()}
    gold = declared.gold if isinstance(declared, LabelingTask) else None
    for path, read in (*inputs.items(), *([(("gold",), gold)] if gold else [])):
        if read.other_dataset:
            yield path, read


def _fault(
    dataset: Dataset, declared: KernelTable | LabelingTask, path: tuple[str, ...], read: Input, root: Path
) -> Fault | None:
    try:
        find_released(root, dataset.name, ReleaseSource(read, declared.place))
    except NoReleaseError as error:
        names = dataset_names(root)
        if read.other_dataset in names:
            return Fault(declared, path, str(error), "warning")
        near = closest(read.other_dataset, names)
        text = f"there is no dataset {read.other_dataset!r}{near}, and no release of one: correct the input"
        return Fault(declared, path, text)
    except HeadraceError as error:
        return Fault(declared, path, str(error))
    return None
