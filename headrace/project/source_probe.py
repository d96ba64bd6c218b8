"""`headrace check --sources`: whether each source can be listed and shows what its declaration and contract name."""

from collections.abc import Iterator
from dataclasses import replace

from headrace.dataset import Dataset, Source
from headrace.ingest.ingest import skipped_keys
from headrace.ingest.preview import SourcePreview, preview_sources
from headrace.project.declaration_check import locate
from headrace.project.faults import Fault
from headrace.project.findings import Finding
from headrace.project.loading import project_root
from headrace.settings import Settings
from headrace.storage.table_store import TableStore
from headrace.text import closest
from headrace.validate.compile_contract import contract_of


def probe_sources(dataset: Dataset, table_store: TableStore, settings: Settings) -> list[Finding]:
    """List every source of a dataset; nothing is read.

    Equal reasons, such as a server that several sources are in, are one finding with a count.
    """
    sources = {source.name: source for source in dataset.sources}
    found: dict[str, list[Fault]] = {}
    for preview in preview_sources(dataset, table_store, settings):
        for fault in _faults(sources[preview.source], preview):
            found.setdefault(fault.text, []).append(fault)
    return [locate(_merged(faults), dataset, project_root()) for faults in found.values()]


def _merged(faults: list[Fault]) -> Fault:
    first, *others = faults
    if not others:
        return first
    names = ", ".join(str(getattr(fault.declared, "name", "")) for fault in others[:3])
    return replace(first, text=f"{first.text.removesuffix('.')} (and {len(others)} more: {names})")


def _faults(source: Source, preview: SourcePreview) -> Iterator[Fault]:
    if preview.error:
        message = str(preview.error).removeprefix(f"source {source.name}: ")
        yield Fault(source, ("location",), f"it cannot be listed: {message}")
        return
    if not preview.listed:
        yield Fault(
            source,
            ("location",),
            f"{preview.description} lists nothing: correct the location, or wait for data",
            "warning",
        )
    for text in skipped_keys(preview.unmatched, preview.invalid, preview.waiting):
        yield Fault(source, ("location", "partition"), text, "warning")
    for text in preview.unreadable.values():
        yield Fault(source, ("location", "partition"), text)
    if preview.columns:
        yield from _column_faults(source, preview.columns)


def _column_faults(source: Source, columns: tuple[str, ...]) -> Iterator[Fault]:
    """A database table whose columns are not the contract's."""
    contract = contract_of(source)
    others = {name: history.other_names for name, history in contract.histories.items()}
    gone = {name for name, history in contract.histories.items() if history.until}
    there = {name for name in contract.columns if {name, *others.get(name, ())} & {*columns}}
    for name in (it for it in contract.columns if it not in there and it not in gone):
        yield Fault(
            source,
            ("contract",),
            f"column {name!r}: the table has none of that name{closest(name, columns)}; it has {', '.join(columns)}."
            " Correct the contract or the table",
        )
    known = {*contract.columns, *(other for names in others.values() for other in names)}
    extra = [name for name in columns if name not in known]
    if extra and source.extra_columns == "refuse":
        yield Fault(
            source,
            ("contract",),
            f"the table has the columns {', '.join(extra)}, which the contract does not name, so every partition would"
            " be refused: add them, or declare extra_columns='drop'",
        )
