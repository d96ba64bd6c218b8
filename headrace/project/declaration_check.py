"""Static check of a declaration: what can only fail, found before any data is read.

Every command runs it when it loads a dataset, so a dataset with a finding of level `error` computes nothing. It looks
at the declaration alone: no source is asked, and of the project's functions only the contract's checks are called.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType

from headrace.dataset import Dataset, DerivedTable, FeatureTable, Guards, KernelTable, LabelingTask, Retention, Source
from headrace.project.faults import Declaration, Fault, argument
from headrace.project.feature_check import derived_faults, feature_faults
from headrace.project.findings import Finding
from headrace.project.input_check import TableGraph
from headrace.project.labeling_check import labeling_faults
from headrace.project.params import param_faults, param_values
from headrace.project.source_check import contract_place, module_file, same_place_faults, source_faults
from headrace.project.source_lines import class_line, line_of

SERVICE_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)?")
"""A service is a name in Feast's registry and in the paths of its server."""

KINDS = {
    Source: "source",
    FeatureTable: "feature table",
    DerivedTable: "derived table",
    LabelingTask: "labeling task",
}


def check_declaration(dataset: Dataset, root: Path) -> list[Finding]:
    """The findings in a declaration, sorted by file and line.

    Args:
        dataset: The dataset.
        root: The project, which the files of findings are relative to.
    """
    return sorted({locate(fault, dataset, root) for fault in _faults(dataset, root)})


def _faults(dataset: Dataset, root: Path) -> Iterator[Fault]:
    members = list(_member_faults(dataset))
    yield from members
    if members:
        return  # what is no source or no table cannot be looked into
    for source in dataset.sources:
        if unknown := list(param_faults(dataset, source, root)):
            yield from unknown
        else:
            yield from _guarded(source, source_faults(source, param_values(dataset, source, root)))
    for table in dataset.features:
        yield from param_faults(dataset, table, root)
        yield from _guarded(table, feature_faults(table))
    for derived in dataset.derived:
        yield from param_faults(dataset, derived, root)
        yield from _guarded(derived, derived_faults(derived))
    for labeling in dataset.labels:
        yield from _guarded(labeling, labeling_faults(labeling))
    yield from _guarded(dataset, _option_faults(dataset))
    yield from _guarded(dataset, _name_faults(dataset))
    yield from _guarded(dataset, same_place_faults(dataset.sources))
    yield from _guarded(dataset, TableGraph(dataset).faults())


def _guarded(declared: Declaration, faults: Iterator[Fault]) -> Iterator[Fault]:
    """The faults; an argument of so strange a type that a check of it raises is a fault, too."""
    count = 0
    try:
        for fault in faults:
            count += 1
            yield fault
    except (TypeError, AttributeError, ValueError) as error:
        if not count:  # else what was found before says why
            yield Fault(
                declared, (), f"an argument is not of the type that is expected: {type(error).__name__}: {error}"
            )


def _member_faults(dataset: Dataset) -> Iterator[Fault]:
    """Members that are not what the dataset takes them for: `sources=SOURCE` instead of `sources=(SOURCE,)`."""
    kinds = (("sources", Source), ("features", FeatureTable), ("derived", DerivedTable), ("labels", LabelingTask))
    for field, kind in kinds:
        found = getattr(dataset, field)
        if isinstance(found, kind):
            yield Fault(
                dataset, (field,), f"expected a tuple, found one {kind.__name__}: write `{field}=(…,)` with a comma"
            )
        elif not isinstance(found, tuple | list):
            yield Fault(dataset, (field,), f"expected a tuple of {kind.__name__}, found {found!r}")
        else:
            for one in found:
                if not isinstance(one, kind):
                    yield Fault(dataset, (field,), f"expected a tuple of {kind.__name__}, found {one!r} in it")


def _option_faults(dataset: Dataset) -> Iterator[Fault]:
    """Options of the dataset and of its sources that are not what they are declared with."""
    members: tuple[Dataset | Source, ...] = (dataset, *dataset.sources)
    for declared in members:
        if not isinstance(guards := argument(declared, "guards"), Guards | NoneType):
            yield Fault(declared, ("guards",), f"expected `Guards(…)`, found {guards!r}")
    for field in ("description", "owner"):
        if not (isinstance(text := argument(dataset, field), str) and text.strip()):
            yield Fault(dataset, (field,), f"expected a text that is not empty, found {text!r}")
    service = argument(dataset, "service")
    if not (isinstance(service, str) and SERVICE_NAME.fullmatch(service)):
        text = f"expected a name of letters, digits, '_', '-' and '.', or '' for none, found {service!r}: rename it"
        yield Fault(dataset, ("service",), text)
    schedule = argument(dataset, "schedule")
    if not isinstance(schedule, str):
        yield Fault(dataset, ("schedule",), f"expected a cron expression, or '' for none, found {schedule!r}")
    tags = argument(dataset, "tags")
    if not (isinstance(tags, Mapping) and all(isinstance(part, str) for pair in tags.items() for part in pair)):
        yield Fault(dataset, ("tags",), f"expected name → text, found {tags!r}")
    if not isinstance(retention := argument(dataset, "retention"), Retention | NoneType):
        yield Fault(dataset, ("retention",), f"expected `Retention(…)`, found {retention!r}")


def _name_faults(dataset: Dataset) -> Iterator[Fault]:
    """Two tables of one name."""
    reported: set[int] = set()
    groups: tuple[tuple[tuple[Source | KernelTable | LabelingTask, ...], str], ...] = (
        (dataset.sources, "two sources would have one raw table"),
        ((*dataset.features, *dataset.labels), "a training request would mean both"),
        (dataset.kernel_tables, "`headrace transform --table` would mean both"),
        ((*dataset.sources, *dataset.labels), "their rejected rows would have one table"),
    )
    for members, why in groups:
        first: dict[str, Source | KernelTable | LabelingTask] = {}
        for member in members:
            other = first.setdefault(member.name, member)
            if other is member and sum(each is member for each in members) > 1 and id(member) not in reported:
                reported.add(id(member))
                yield Fault(dataset, (), f"the {KINDS[type(member)]} {member.name} is named twice: once is enough")
            elif other is not member and id(member) not in reported:
                reported.add(id(member))
                text = f"a {KINDS[type(other)]} is named {member.name!r}, too, and {why}: rename one of them"
                yield Fault(member, ("name",), text)


def locate(fault: Fault, dataset: Dataset, root: Path) -> Finding:
    """The finding of a fault: with file, line and name."""
    declared = fault.declared
    file, line = declared.place
    line = line_of(file, line, fault.path)
    if isinstance(declared, Source) and fault.path == ("contract",):
        module, name, attribute = contract_place(declared, fault.text)
        if found := class_line(module_file(module), name, attribute):
            file, line = module_file(module), found
    kind = "" if isinstance(declared, Dataset) else f"{KINDS[type(declared)]} {declared.name}: "
    text = fault.text.removeprefix(f"source {declared.name}: ")
    ended = text if text.endswith((".", "?")) else f"{text}."
    return Finding(_relative(file, root), line, f"{kind}{ended}", fault.level, dataset.name)


def _relative(file: str, root: Path) -> str:
    path = Path(file)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else file
