"""`headrace check`: what is wrong with a project, found without its data."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.output import JsonOption, result
from headrace.text import pluralize

if TYPE_CHECKING:
    from headrace.dataset import Dataset
    from headrace.project.findings import Finding


def add_to(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog="Example: headrace check flights --sources")(check)


def check(
    datasets: Annotated[list[str] | None, typer.Argument(help="Datasets to check; by default all.")] = None,
    *,
    sources: Annotated[
        bool, typer.Option("--sources", help="Also list the sources: bucket, database, tables, columns, patterns.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check declarations and code: what can only fail, and what no fingerprint follows. No data is read.

    Also tables on record that nothing declares any more, with the command that drops or renames them.

    Each finding has file and line, and says what to do. Exit code 1 if one of them is an error.

    Unknown inputs, also of other datasets in the releases fetched here; cycles, key and feature types, reserved names,
    contracts, patterns, label configurations; functions that give other columns than declared; dynamic imports, and
    files that code opens undeclared.
    """
    from headrace.project.check import check_datasets  # noqa: PLC0415  only this command pays for the import
    from headrace.project.loading import dataset_names  # noqa: PLC0415

    found = check_datasets(tuple(datasets or dataset_names()))
    found.findings += _undeclared(found.loaded, every=not datasets and not found.broken)
    if sources:
        from headrace.cli.output import workspace  # noqa: PLC0415  who asks no source reads no settings
        from headrace.project.source_probe import probe_sources  # noqa: PLC0415

        settings, table_store = workspace()
        for dataset in found.loaded:
            found.findings += probe_sources(dataset, table_store, settings)
    checked = pluralize(len(found.datasets), "dataset")
    counts = f"{pluralize(found.errors, 'error')}, {pluralize(len(found.findings) - found.errors, 'warning')}"
    lines = [*map(str, found.findings), f"{checked} checked, {counts if found.findings else 'nothing found'}"]
    content = {
        "datasets": list(found.datasets),
        "findings": [vars(finding) for finding in found.findings],
        "broken": found.broken,
    }
    result(content, lines, as_json=as_json)
    if found.errors:
        raise typer.Exit(1)


def _undeclared(datasets: "Iterable[Dataset]", *, every: bool) -> "list[Finding]":
    """Tables that nothing declares, those that are retired and declared again, and inputs that no release has."""
    from headrace.project.declared_tables import find_undeclared  # noqa: PLC0415
    from headrace.project.loading import project_root  # noqa: PLC0415
    from headrace.project.release_check import find_unreleased  # noqa: PLC0415
    from headrace.release.retired_tables import find_declared_again  # noqa: PLC0415
    from headrace.storage.table_store import TableStore  # noqa: PLC0415

    loaded, root = list(datasets), project_root()
    return [
        *find_undeclared(loaded, TableStore.at(root), every=every),
        *find_declared_again(loaded, root),
        *find_unreleased(loaded, root),
    ]
