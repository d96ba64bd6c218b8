"""The parameters that declarations name, and their values in `params.yaml`."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from headrace.dataset import Dataset, KernelTable, LabelingTask, Source
from headrace.engine.fingerprint import parameter
from headrace.engine.stage import param_key
from headrace.errors import HeadraceError
from headrace.project.faults import Fault, is_text_sequence
from headrace.storage.files import DamagedFileError
from headrace.text import closest


def param_values(dataset: Dataset, declared: Source | KernelTable, root: Path) -> dict[str, Any]:
    """Parameter → value, as the declaration's functions receive them.

    Raises:
        HeadraceError: `params.yaml` of the project `root` lacks one, or cannot be parsed.
    """
    return {name: parameter(root, param_key(dataset.name, name)) for name in _names(declared)}


def with_param_values(dataset: Dataset, root: Path) -> Dataset:
    """The same dataset, whose functions have received their parameters.

    Raises:
        HeadraceError: As for `param_values`.
    """
    return replace(
        dataset,
        sources=tuple(source.with_params(param_values(dataset, source, root)) for source in dataset.sources),
        features=tuple(table.with_params(param_values(dataset, table, root)) for table in dataset.features),
        derived=tuple(table.with_params(param_values(dataset, table, root)) for table in dataset.derived),
        labels=tuple(replace(it, params={**it.params, **_sample_params(dataset, it, root)}) for it in dataset.labels),
    )


def _sample_params(dataset: Dataset, labeling: LabelingTask, root: Path) -> dict[str, Any]:
    """The parameters of a labeling task's sample that `params.yaml` has."""
    found = _section(dataset, root).get(labeling.name)
    return found if isinstance(found, dict) else {}


def param_faults(dataset: Dataset, declared: Source | KernelTable, root: Path) -> Iterator[Fault]:
    """Parameters that a source or a table with a kernel names and `params.yaml` does not have."""
    for name in _names(declared):
        key = param_key(dataset.name, name)
        try:
            parameter(root, key)
        except DamagedFileError as error:
            yield Fault(declared, ("params", name), str(error))
        except HeadraceError:
            near = closest(name, _section(dataset, root))
            text = f"there is no parameter {key} in params.yaml{near}: add it, or correct the name"
            yield Fault(declared, ("params", name), text)


def _names(declared: Source | KernelTable) -> tuple[str, ...]:
    """Its parameters; none if it declares something else, which is a fault of its own."""
    return declared.params if is_text_sequence(declared.params) else ()


def _section(dataset: Dataset, root: Path) -> dict[str, Any]:
    try:
        section = parameter(root, dataset.name)
    except HeadraceError:
        return {}
    return section if isinstance(section, dict) else {}
