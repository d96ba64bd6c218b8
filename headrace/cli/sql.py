"""`headrace sql`: query the tables of a dataset."""

import atexit
import gc
import sys
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from headrace.cli.output import DatasetArgument


class Format(StrEnum):
    """Format of a result."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


def add_to(app: typer.Typer) -> None:
    """Add the command to `app`."""
    example = "headrace sql flights 'select carrier, count(*) from validated.flights group by all' --release flights/3"
    app.command(epilog=f"Example: {example}")(sql)


def sql(
    dataset: DatasetArgument,
    statement: Annotated[str, typer.Argument(help="SQL for DuckDB; `-` reads it from standard input.")],
    *,
    release: Annotated[
        str | None,
        typer.Option(
            help="Release to query, for example flights/3, or `latest`. Default: the tables of the workspace."
        ),
    ] = None,
    kind: Annotated[
        Format | None,
        typer.Option("--format", help="Format of the result. Default: from the file name of --out, else `table`."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write. Default: standard output.")] = None,
) -> None:
    """Query tables with DuckDB: each is a view, such as features.carrier_delays. Fetches only tables in the query."""
    from headrace.catalog.open import open_dataset  # noqa: PLC0415
    from headrace.catalog.sql import format_result, write_result  # noqa: PLC0415
    from headrace.storage.files import atomic_write  # noqa: PLC0415

    atexit.unregister(gc.freeze)  # of `tune_gc`: a frozen collector makes DuckDB report leaks at exit
    tables = open_dataset(dataset, release=release)
    query = sys.stdin.read() if statement == "-" else statement
    kind = kind or _kind(out)
    if kind is Format.TABLE:
        text = format_result(tables, query).rstrip("\n")
        typer.echo(text) if out is None else atomic_write(out, f"{text}\n".encode())
    elif out is None:
        with TemporaryDirectory() as folder:  # so that what is printed is what a file would hold
            write_result(tables, query, Path(folder, "result"), kind)
            sys.stdout.buffer.write(Path(folder, "result").read_bytes())
    else:
        write_result(tables, query, out, kind)


def _kind(out: Path | None) -> Format:
    suffix = out.suffix.removeprefix(".") if out else ""
    return Format(suffix) if suffix in [*Format] else Format.TABLE
