"""The commands that create a project and its datasets: init, new."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import JsonOption, result

if TYPE_CHECKING:
    from headrace.templates.dataset_draft import DatasetDraft

WIDTH = 160


def add_to(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(epilog="Example: headrace init shop")(init)
    app.command(epilog="Example: headrace new orders --from orders.csv")(new)


def init(name: Annotated[str, typer.Argument(help="The project, and the folder to create for it.")]) -> None:
    """Create a project in a new folder, with an example dataset that needs no server."""
    from headrace.templates.create_project import create_project  # noqa: PLC0415  the command alone needs it

    create_project(name, Path.cwd())
    typer.echo(f"{name}: a project with one example dataset, as the first commit of a git repository. Next:")
    typer.echo(f"  cd {name}")
    typer.echo("  headrace run bikes                  # ingest, validate, transform; needs no server")
    typer.echo("  headrace new NAME --from SAMPLE     # a dataset of your own, from a CSV file, a bucket or a database")


def new(
    name: Annotated[str, typer.Argument(help="The dataset, and its folder in pipelines/.")],
    sample: Annotated[
        str,
        typer.Option(
            "--from",
            help="A CSV file, a folder of them, s3://bucket/prefix/, or postgresql://… or sqlite:///… with #table.",
        ),
    ],
    table: Annotated[str | None, typer.Option(help="The table, where --from names a database alone.")] = None,
    owner: Annotated[str | None, typer.Option(help="Who is responsible for it; by default git's user.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Write a dataset's folder from a sample, and print what was assumed.

    Nothing is uploaded, and only the beginning of a large sample is read. Correct what was assumed, then run it.
    """
    from headrace.settings import load_settings  # noqa: PLC0415
    from headrace.templates.create_dataset import create_dataset  # noqa: PLC0415

    draft = create_dataset(name, sample, load_settings(), table=table, owner=owner)
    if as_json:
        result(_content(draft), [], as_json=True)
        return
    typer.echo(f"{name}: pipelines/{name}/, from {draft.source.table.rows:,} rows of {draft.source.where}.")
    typer.echo("What was assumed:")
    _print_table(draft)
    for warning in draft.warnings:
        typer.echo(f"note: {warning}")
    typer.echo(f"Next: read pipelines/{name}/, correct it, then `headrace run {name}`.")


def _content(draft: "DatasetDraft") -> dict[str, Any]:
    source = draft.source
    return {
        "name": source.dataset,
        "where": source.where,
        "rows": source.table.rows,
        "assumptions": [vars(item) for item in draft.assumptions],
        "warnings": list(draft.warnings),
    }


def _print_table(draft: "DatasetDraft") -> None:
    import sys  # noqa: PLC0415

    from rich.box import SIMPLE  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table("about", "assumed", "because", "look at", box=SIMPLE, pad_edge=False)
    for item in draft.assumptions:
        table.add_row(*(text.replace("[", "\\[") for text in (item.subject, item.assumed, item.evidence, item.edit)))
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)
