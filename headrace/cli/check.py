"""`headrace check`: a static check of the project's code."""

from typing import Annotated

import typer

from headrace.cli.output import JsonOption, result


def add_to(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog="Example: headrace check flights")(check)


def check(
    datasets: Annotated[list[str] | None, typer.Argument(help="Datasets to check; by default all.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Check the project's code: datasets that cannot be loaded, dynamic imports, undeclared files that code opens.

    No data is read. Exit code 1 if something is found.
    """
    from headrace.project.code_check import check_dataset  # noqa: PLC0415  only this command pays for the import
    from headrace.project.loading import DatasetError, dataset_names, load_dataset  # noqa: PLC0415

    findings, broken, checked = [], {}, datasets or dataset_names()
    for name in checked:
        try:
            findings += check_dataset(load_dataset(name))
        except DatasetError as error:
            broken[name] = str(error)
    lines = [*map(str, findings), *broken.values()] or [f"{len(checked)} datasets checked, nothing found"]
    content = {"datasets": list(checked), "findings": [vars(item) for item in findings], "broken": broken}
    result(content, lines, as_json=as_json)
    if findings or broken:
        raise typer.Exit(1)
