"""`headrace check`: everything that can be said of a dataset without its data."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from headrace.dataset import Dataset, KernelTable, LabelingTask, Source
from headrace.project.code_check import check_dataset
from headrace.project.declaration_check import check_declaration, locate
from headrace.project.faults import Declaration, Fault
from headrace.project.findings import Finding, errors
from headrace.project.loading import DatasetError, import_dataset, project_root
from headrace.project.params import with_param_values
from headrace.project.schema_check import schema_faults


@dataclass
class ProjectCheck:
    """What a check of some datasets found.

    Attributes:
        datasets: Names of the datasets that were checked.
        findings: What was found, in their order.
        broken: Dataset → why it cannot be loaded, for those that cannot.
        loaded: The datasets whose declarations have no errors.
    """

    datasets: tuple[str, ...]
    findings: list[Finding] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    loaded: list[Dataset] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return len(errors(self.findings))


def check_datasets(names: tuple[str, ...]) -> ProjectCheck:
    """Check datasets of this project; one that is broken does not hide the others."""
    result, root = ProjectCheck(names), project_root()
    for name in names:
        try:
            dataset = import_dataset(name)
        except DatasetError as error:
            result.broken[name] = str(error)
            result.findings += error.findings or [
                Finding(f"pipelines/{name}/__init__.py", 1, str(error), "error", name)
            ]
            continue
        found = check_loaded(dataset, root)
        result.findings += found
        if not errors(check_declaration(dataset, root)):
            result.loaded.append(dataset)
    result.findings += [locate(fault, dataset, root) for dataset, fault in _shared_names(result.loaded)]
    return result


def check_loaded(dataset: Dataset, root: Path) -> list[Finding]:
    """Findings in the declaration of a dataset, in what its functions give for no rows, and in its code."""
    declared = check_declaration(dataset, root)
    if errors(declared):
        return declared  # what cannot be declared so cannot be looked into
    schemas = {locate(fault, dataset, root) for fault in schema_faults(with_param_values(dataset, root))}
    files = {locate(fault, dataset, root) for fault in _file_faults(dataset, root)}
    return sorted({*declared, *schemas, *(files or check_dataset(dataset))})


def _file_faults(dataset: Dataset, root: Path) -> Iterator[Fault]:
    """Declared files that are not there: no fingerprint can be made of them."""
    members: tuple[Source | KernelTable | LabelingTask, ...] = (
        *dataset.sources,
        *dataset.kernel_tables,
        *dataset.labels,
    )
    for declared in members:
        for name in declared.files:
            if not (root / name).is_file():
                found = "a folder" if (root / name).is_dir() else "none"
                text = f"expected the file {name} in the project, found {found}: add it, or correct the path"
                yield Fault(declared, ("files", name), text)


def _shared_names(datasets: Iterable[Dataset]) -> Iterator[tuple[Dataset, Fault]]:
    """Feature tables and services of two datasets that serving code could not tell apart."""
    owners: dict[str, str] = {}
    for dataset in datasets:
        served: list[tuple[Declaration, str, str]] = [(table, "name", table.name) for table in dataset.features]
        if dataset.features and dataset.service:
            served.append((dataset, "service", dataset.service))
        for declared, argument, name in served:
            owner = owners.setdefault(name, dataset.name)
            if owner != dataset.name:
                text = (
                    f"the dataset {owner} has a feature table or service {name!r}, too, and serving code could not"
                    f" tell them apart; `headrace publish` refuses it. Rename it, for example to {dataset.name}_{name}"
                )
                yield dataset, Fault(declared, (argument,), text)
